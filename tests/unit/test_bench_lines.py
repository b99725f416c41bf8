"""Claims that rest on a published bench line: its figures, their limits, and what is no line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paretune.core.config import load_toml
from paretune.core.errors import ConfigError, RecordError, UnknownNameError
from paretune.report.bench_lines import bench_lines, study_folders
from paretune.report.claims import Judged, Ledger, judged
from paretune.report.wording import Words

STAMP = Path(__file__).parents[2] / "benchmarks" / "stamp.py"
CLAIM = """
[claims.one]
en = "Direct by served: {{a}}."
ru = "Прямой вызов к сервису: {{a}}."
verdict = "supported"
bench.a = {{ line = "serve", figure = "{figure}", rule = "{rule}", limit = {limit} }}
"""


def _judge(
    place: Path, line: object | None, rule: str = "at_most", limit: float = 1.35, figure: str = "ratio"
) -> Judged:
    (place / "claims.toml").write_text(CLAIM.format(figure=figure, rule=rule, limit=limit), encoding="utf-8")
    if line is not None:
        (place / "bench").mkdir(exist_ok=True)
        (place / "bench" / "serve.json").write_text(json.dumps(line), encoding="utf-8")
    return judged(load_toml(place / "claims.toml", Ledger), {}, bench_lines(place / "bench"))["one"]


@pytest.mark.parametrize(
    ("value", "rule", "verdict"),
    [
        (1.2, "at_most", "supported"),
        (1.35, "at_most", "supported"),
        (1.41, "at_most", "refuted"),
        (1.41, "at_least", "supported"),
        (1.2, "at_least", "refuted"),
        (None, "at_most", "not_measured"),
    ],
)
def test_a_figure_is_held_against_its_limit(tmp_path: Path, value: float | None, rule: str, verdict: str) -> None:
    """At most and at least, the limit included; a figure that the bench could not have is not measured."""
    found = _judge(tmp_path, {"ratio": value, "details": {"ratio": 9}}, rule)
    assert (found.verdict, found.evidence["a"].estimate) == (verdict, value)
    assert found.evidence["a"].run_ids == ([] if value is None else ["bench/serve.json"])


def test_without_the_file_nothing_is_measured(tmp_path: Path) -> None:
    """Nor without the folder."""
    found = _judge(tmp_path, None)
    assert found.verdict == "not_measured"
    assert found.sentence(Words("en")) == "Direct by served: not measured."
    (tmp_path / "bench").mkdir()
    assert _judge(tmp_path, None).verdict == "not_measured"


def test_a_sentence_says_that_it_is_one_measurement(tmp_path: Path) -> None:
    """With its date where the line has one; counts are whole, small shares have four decimals."""
    machine = {"processor": "made up", "cores": 2}
    line = {"date": "2026-11-28", "machine": machine, "ratio": 1.408, "few": 0.0125, "n": 3}
    found = _judge(tmp_path, line)
    assert found.sentence(Words("en")) == "Direct by served: 1.408 (one measurement, 2026-11-28)."
    assert found.sentence(Words("ru")) == "Прямой вызов к сервису: 1,408 (одно измерение, 2026-11-28)."
    assert found.evidence["a"].processor == "made up"
    assert "0.0125 (one" in _judge(tmp_path, line, figure="few").sentence(Words("en"))
    assert "by served: 3 (one" in _judge(tmp_path, line, figure="n").sentence(Words("en"))
    assert "1.408 (one measurement)" in _judge(tmp_path, {"ratio": 1.408}).sentence(Words("en"))


def test_a_figure_that_is_not_there_has_its_nearest(tmp_path: Path) -> None:
    """A slip of the pen is not "not measured"."""
    with pytest.raises(UnknownNameError, match="'overhead_ratio'"):
        _judge(tmp_path, {"overhead_ratio": 1.0}, figure="overhead")


@pytest.mark.parametrize("text", ["[1]", "{", "", '{"ratio": NaN}', '{"ratio": 1e999}'])
def test_what_is_no_line_is_refused(tmp_path: Path, text: str) -> None:
    """One line names the file."""
    (tmp_path / "serve.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=r"serve\.json"):
        bench_lines(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('bench.a = { line = "serve", figure = "x", rule = "better", limit = 1.0 }', "at_most"),
        ('bench.a = { line = "serve", figure = "x", rule = "at_most" }', "limit"),
        ("", "no condition"),
        (
            'bench.a = { line = "serve", figure = "x", rule = "at_most", limit = 1.0 }\n'
            'when.a = { study = "s", method = "lora", than = "full", rule = "better" }',
            "two conditions named a",
        ),
    ],
)
def test_a_ledger_says_what_it_wants_of_a_line(tmp_path: Path, text: str, said: str) -> None:
    """A rule on a figure has a limit, and a claim has at least one condition, each with a name of its own."""
    file = tmp_path / "claims.toml"
    file.write_text(f'[claims.one]\nen = ""\nru = ""\nverdict = "supported"\n{text}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_toml(file, Ledger)


def test_the_folder_of_lines_is_no_study(tmp_path: Path) -> None:
    """It lies among studies and is left out of them, unless it is a study of that name."""
    for name in ("r8", "bench"):
        (tmp_path / name).mkdir()
    assert study_folders([tmp_path / "bench", tmp_path / "r8"]) == [tmp_path / "r8"]
    (tmp_path / "bench" / "study.json").write_text("{}", encoding="utf-8")
    assert len(study_folders([tmp_path / "bench", tmp_path / "r8"])) == 2


@pytest.mark.slow
def test_a_stamp_says_when_and_where(tmp_path: Path) -> None:
    """Date and machine stand before the figures of the last line, and the claim reads them."""
    said = 'requests 1.41\n{"ratio": 1.41}\n'
    made = subprocess.run([sys.executable, STAMP], input=said, capture_output=True, text=True, check=True).stdout
    line = json.loads(made)
    assert list(line) == ["date", "machine", "ratio"] and line["machine"]["processor"]
    evidence = _judge(tmp_path, line).evidence["a"]
    assert evidence.date == line["date"] and evidence.processor == line["machine"]["processor"]
    none = subprocess.run([sys.executable, STAMP], input="nothing\n", capture_output=True, text=True)
    assert none.returncode == 2 and len(none.stderr.splitlines()) == 1
