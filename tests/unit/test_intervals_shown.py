"""No interval that is shown leaves what a metric, or a difference of it, can be, however few and wild the runs are."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from fabricated_study import write_study
from rich.console import Console

from paretune.records.store import StudyFolder
from paretune.report.build import build
from paretune.report.facts import gather
from paretune.report.tables import markdown_table, rows_of, terminal_table
from paretune.report.wording import Words
from paretune.stats.metrics import METRICS, metric_named
from paretune.study.advise import advise
from paretune.study.advise_case import Case
from paretune.study.advise_command import json_of
from paretune.study.advise_lines import advise_lines

NUMBER = r"[+−]?\d+\.\d+"
SHOWN = re.compile(rf"\[({NUMBER}) … ({NUMBER})(?:, [\d.]+\s%)?\]")
# The methods in opposite orders, so that few examples and seeds give intervals far wider than any difference.
WILD = (
    {"majority": 0.0, "lora": 0.1, "full": 0.9, "head": 0.5, "tfidf": 0.0},
    {"majority": 0.0, "lora": 0.9, "full": 0.1, "head": 0.0, "tfidf": 1.0},
)
CASE = Case(rows=480, classes=4, tokens=41.25)


@pytest.fixture(scope="module", params=[*METRICS])
def studies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    """A metric, and two pilots of three seeds on eight test texts that it heads."""
    metric, root = str(request.param), tmp_path_factory.mktemp("studies")
    for name, quality in zip("ab", WILD, strict=True):
        write_study(
            root / name, methods=tuple(quality), test_rows=8, metric=metric, quality=quality, broken=False,
            extra_split=False,
        )  # fmt: skip
        record = root / name / "study.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "name": name}))
    return metric, [root / name for name in "ab"]


def test_the_studies_are_wild(studies: tuple[str, list[Path]]) -> None:
    """Some uncut interval reaches beyond a difference to a known value although it has two or more degrees of freedom.

    Each of those that is shown ends where the difference of that pair can.
    """
    metric, folders = studies
    span = metric_named(metric).highest  # of a difference to the majority class, whose Matthews correlation is 0
    found = [one for folder in folders for one in gather(StudyFolder(folder)).comparisons.values()]
    wild = [one for one in found if one.alone and one.alone.df >= 2 and max(-one.alone.low, one.alone.high) > span]
    assert wild
    for one in found:
        assert one.difference is not None and one.zero is not None and one.margin is not None
        most = span if one.method == "majority" else metric_named(metric).difference_bounds[1]
        for interval in (one.difference, one.zero.interval, one.margin.interval):
            assert -most <= interval.low <= interval.high <= most


def test_rows_and_advice_stay_within_bounds(studies: tuple[str, list[Path]]) -> None:
    """The figures behind table, page and dashboard, and those of advice from one study and from two."""
    metric, folders = studies
    bounds, (lowest, highest) = metric_named(metric).bounds, metric_named(metric).difference_bounds
    for row in (row for folder in folders for row in rows_of(gather(StudyFolder(folder)))):
        assert row.quality_interval is not None
        assert bounds[0] <= row.quality_interval[0] <= row.quality_interval[1] <= bounds[1]
        assert all(lowest <= end <= highest for end in row.difference_interval or ())
    for some in (folders[:1], folders[1:], folders):
        ranked = json.loads(json.dumps(json_of(advise(some, CASE))))["ranked"]
        ends = [one["difference"][end] for one in ranked for end in ("low", "high")]
        assert ends and all(lowest <= end <= highest for end in ends if end is not None)


def test_texts_stay_within_bounds(studies: tuple[str, list[Path]], tmp_path: Path) -> None:
    """Every interval that stands in a terminal's table, in Markdown, on the page and in advice."""
    metric, folders = studies
    texts = ["\n".join(advise_lines(advise(folders, CASE), Words("en"), 300))]
    for folder in folders:
        with io.StringIO() as out:
            Console(file=out, width=300).print(terminal_table(folder, "en"))
            texts.append(out.getvalue())
        texts += [markdown_table(folder, "en"), build(folder, "en", tmp_path / "page.html").read_text("utf-8")]
    reach = metric_named(metric).difference_bounds[1]
    for text in texts:
        ends = [float(end.replace("−", "-")) for pair in SHOWN.findall(text) for end in pair]
        assert ends and all(abs(end) <= reach for end in ends)
