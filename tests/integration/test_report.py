"""The report as a file: whole, self-contained, the same each time, and calm about what is missing."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fabricated_study import exploration, write_study

from paretune.core.errors import ConfigError
from paretune.records.plan_errors import FIRST_STAGE
from paretune.records.schema import EngineUse, ExampleText, Predicted
from paretune.records.store import StudyFolder
from paretune.report.answer import answer
from paretune.report.build import build
from paretune.report.explore_page import build_exploration


class Outline(HTMLParser):
    """What a reader with or without eyes finds: headings, attributes that fetch, images without a name."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.fetches: list[str] = []
        self.language = ""
        self.unnamed = 0
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.fetches += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.language = given.get("lang") or "" if tag == "html" else self.language
        self.unnamed += given.get("role") == "img" and not given.get("aria-label")
        if given.get("id"):
            self.ids.append(given["id"] or "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "s")


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_report_is_whole_and_self_contained(folder: Path, lang: str) -> None:
    """The answer stands in it, it fetches nothing, it has one h1, no skipped heading level and no doubled id."""
    path = build(folder, lang)
    assert path == folder / f"report.{lang}.html"
    html = path.read_text("utf-8")
    outline = Outline()
    outline.feed(html)
    assert outline.language == lang
    assert answer(folder, lang) in html
    assert all(link.startswith(("#", "data:")) for link in outline.fetches)
    assert "default-src 'none'" in html
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert outline.unnamed == 0
    assert len(outline.ids) == len(set(outline.ids))
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert ("пилот" if lang == "ru" else "pilot") in html


@pytest.mark.slow
def test_report_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    """Two builds give the same bytes, in another process too."""
    first = build(folder, "ru", tmp_path / "a.html").read_bytes()
    there = tmp_path / "b.html"
    code = "import sys; from pathlib import Path; from paretune.report.build import build; "
    code += "build(Path(sys.argv[1]), 'ru', Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, str(folder), str(there)], check=True)
    assert first == there.read_bytes()


def test_report_needs_no_torch() -> None:
    """Importing the room and its answer imports neither torch nor transformers."""
    code = (
        "import sys, paretune.report.build, paretune.report.explore_page, paretune.report.tables; "
        "sys.exit(bool({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_data_of_each_figure_can_be_downloaded(folder: Path, tmp_path: Path) -> None:
    """Each download link decodes to rows; the Pareto plot's have the probability."""
    html = build(folder, "en", tmp_path / "a.html").read_text("utf-8")
    links = dict(re.findall(r'download="([\w-]+)\.json" href="data:application/json;base64,([^"]+)"', html))
    assert {"quality", "difference", "front-memory", "curves", "confusion-0", "classes"} <= set(links)
    rows = json.loads(base64.b64decode(links["front-memory"]))
    assert {row["method"] for row in rows} >= {"lora", "full", "tfidf"}
    assert all(0 <= row["p_front"] <= 1 for row in rows)
    specs = json.loads(re.search(r'<script type="application/json" id="specs">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert set(specs) == set(links)


def test_text_of_the_data_cannot_become_markup(folder: Path, tmp_path: Path) -> None:
    """An example text with tags is shown as text."""
    study = write_study(tmp_path / "s", methods=("tfidf", "full"), broken=False)
    text = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    StudyFolder(study).write_examples([ExampleText(id="test-0", split="test", label="earn", text=text)])
    html = build(study, "en").read_text("utf-8")
    assert "alert(1)" in html
    assert "<script>alert" not in html
    assert "<img" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"seeds": (0,)}, "One seed"),
        ({"methods": ("full",), "broken": False}, "nothing to compare it with"),
        ({"scored": False}, "no run has been scored"),
        ({"explored": False, "extra_split": False}, "Pilot: 3 seeds"),
        ({"metric": "macro_f1"}, "macro-F1"),
        ({"metric": "mcc", "seeds": (0, 1)}, "Matthews correlation"),
        ({"methods": ("majority", "tfidf"), "control": "tfidf"}, "tfidf"),
        ({"control": "full", "methods": ("lora", "full"), "seeds": (2,)}, "has no scored run"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, settings: dict[str, object], expected: str) -> None:
    """Odd studies give a page with plain words, and no "nan" or "inf" on it."""
    study = write_study(tmp_path / "s", **settings)  # type: ignore[arg-type]
    html = build(study, "en").read_text("utf-8")
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert expected in body
    visible = re.sub(r"<[^>]+>", " ", body)
    assert not re.search(r"\b(nan|inf|None)\b", visible)


def test_a_study_of_five_seeds_is_no_pilot(tmp_path: Path) -> None:
    """The word stands beside conclusions of fewer seeds only."""
    study = write_study(tmp_path / "s", methods=("lora", "full"), seeds=(0, 1, 2, 3, 4), broken=False)
    html = build(study, "en").read_text("utf-8")
    assert "pilot" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL).lower()


def test_exploration_page_has_every_part(tmp_path: Path) -> None:
    """Classes, lengths, doubtful labels, cleaning and notes are on the page, in Russian."""
    explored = exploration().model_copy(update={"notes": ["many_truncated", "some_new_key"]})
    html = build_exploration(explored, "ru", tmp_path / "explore.html").read_text("utf-8")
    for part in (
        "Разведочный анализ",
        "Длина в токенах",
        "Метки, похожие на ошибочные",
        "&lt;again&gt;",
        "some_new_key",
    ):
        assert part in html
    assert "больше десятой доли" in html


def test_unknown_language_writes_nothing(folder: Path, tmp_path: Path) -> None:
    """A language without catalogue is a usage error before any file is made."""
    with pytest.raises(ConfigError):
        build(folder, "fr", tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(("lang", "heading"), [("en", "How right the planner was"), ("ru", "Насколько точен был")])
def test_predictions_stand_beside_what_was_measured(tmp_path: Path, lang: str, heading: str) -> None:
    """Of the method that has them, one error or the range of several; no table where no run has any."""
    study = write_study(tmp_path / "s")
    assert heading not in build(study, lang).read_text("utf-8")
    runs = [run for run in StudyFolder(study).runs() if (run.path / "measurements.json").exists()]
    chosen = [run for run in runs if run.spec().method == runs[-1].spec().method]
    for run, error in zip(chosen, (-0.02, *[0.05] * len(chosen)), strict=False):
        measured = run.measurements()
        peak = max(cost.peak_memory_bytes for cost in measured.phases if cost.phase in FIRST_STAGE)
        predicted = Predicted(
            calibrated=True, trainable_parameters=1, adapter_bytes=1, train_flops=1.0,
            peak_memory_bytes=peak * (1 + error), peak_memory_above_imports_bytes=1.0,
            seconds={"step": measured.train_seconds.value * 1.1},
        )  # fmt: skip
        run.write_measurements(measured.model_copy(update={"predicted": predicted}))
    html = build(study, lang).read_text("utf-8")
    assert heading in html
    percent = "+10.0%" if lang == "en" else "+10,0\xa0%"
    assert percent in html and ("−2.0% … +5.0%" if lang == "en" else "−2,0\xa0% … +5,0\xa0%") in html


@pytest.mark.parametrize(
    ("lang", "line"),
    [
        ("en", "Trained by fused blocks of torch&#39;s operators (A processor, 2 threads): "),
        ("ru", "Обучение: слитые блоки из операторов torch (A processor, 2 потока) — "),
    ],
)
def test_the_method_tab_names_the_engines(tmp_path: Path, lang: str, line: str) -> None:
    """Each engine once with its methods and why none is faster; nothing of records that do not say."""
    study = write_study(tmp_path / "s")
    assert line not in build(study, lang).read_text("utf-8")
    for run in StudyFolder(study).runs():
        if (run.path / "measurements.json").exists() and run.spec().family == "adaptation":
            plain = run.spec().method == "lora"
            engine = EngineUse(
                name="transformers" if plain else "torch",
                reason="our own pass does not know a <test>" if plain else "",
                processor="A processor",
                threads=2,
            )
            run.write_measurements(run.measurements().model_copy(update={"engine": engine}))
    html = build(study, lang).read_text("utf-8")
    assert html.count(line) == 1
    assert "lora" not in html.split(line)[1].split("<")[0]
    assert ("do not know: a &lt;test&gt;." if lang == "en" else "не поддерживают: a &lt;test&gt;.") in html
