"""The research report from made-up records: every form, twice the same bytes, and nothing from nowhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import typst
from fabricated_study import write_study

from paretune.core.errors import ConfigError, RecordError, UnknownNameError
from paretune.dashboard.generated import Size, write_generated
from paretune.records.store import StudyFolder
from paretune.report.bench_lines import BenchLine
from paretune.report.claims import Ledger
from paretune.report.facts import gather
from paretune.report.research import report as research
from paretune.report.research.html import rendered_html
from paretune.report.research.parts import Parts
from paretune.report.research.pdf import rendered_pdf, typst_files
from paretune.report.research.prose import Slot, parsed
from paretune.report.research.report import gather_report
from paretune.report.research.schema import Figure, Listing, ResearchReport, Table, Text
from paretune.report.research.write import judge, ledger_beside, write_report
from paretune.report.tables import rows_of
from paretune.report.wording import LANGUAGES, Words

CLAIMS = """
[claims.head-is-worse]
en = "The head alone is worse ({a})."
ru = "Одна голова хуже ({a})."
verdict = "{verdict}"
when.a = {{study = "{study}", method = "lora", than = "head", rule = "better"}}
"""
CHAPTERS = {
    "en": "# Results\n\nSee {{claim:head-is-worse}}\n\n{{table:STUDY/quality}}\n\n{{figure:STUDY/quality}}\n\n"
    "{{table:other/quality}}\n\n{{file:Dockerfile}}\n\nAs in [@hu2021lora], $x^2$.\n\n"
    "![A block.](figures/lora-block.svg)",
    "ru": "# Результаты\n\nСм. {{claim:head-is-worse}}\n\n{{table:STUDY/quality}}\n\n{{figure:STUDY/quality}}\n\n"
    "{{table:other/quality}}\n\n{{file:Dockerfile}}\n\nКак в [@hu2021lora], $x^2$.\n\n"
    "![Блок.](figures/lora-block.svg)",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("research")
    folder = write_study(place / "s", seeds=(0, 1, 2), methods=("tfidf", "head", "lora", "full"), quality={"head": 0.6})
    name = StudyFolder(folder).study().name
    text = CLAIMS.replace("{verdict}", "supported").replace("{study}", name).replace("{{", "{").replace("}}", "}")
    (place / "claims.toml").write_text(text, encoding="utf-8")
    (place / "Dockerfile").write_text("FROM scratch\n# <&>\n", encoding="utf-8")
    return folder


@pytest.fixture
def made(study: Path, monkeypatch: pytest.MonkeyPatch) -> ResearchReport:
    """A report of two chapters over the made-up study."""
    name = StudyFolder(study).study().name

    def read(lang: str) -> list:
        references = "# Список литературы\n\nВсё." if lang == "ru" else "# References\n\nAll."
        return [
            parsed("01-results", CHAPTERS[lang].replace("STUDY", name)),
            parsed("11-references", references),
        ]

    monkeypatch.setattr(research, "read_prose", read)
    return gather_report([study], ledger_beside([study]), study.parent)


def test_slots_are_filled_in_their_order(made: ResearchReport) -> None:
    """Sentence, table, figure, "not measured" for a study that is not there, the file."""
    for lang in LANGUAGES:
        blocks = made.editions[lang].chapters[0].blocks
        assert [type(one) for one in blocks] == [Text, Table, Figure, Text, Listing, Text]
        assert isinstance(blocks[3], Text)
        assert ("не измерено" if lang == "ru" else "not measured") in blocks[3].markdown
    assert made.editions["en"].cited == ["hu2021lora"]
    assert [one.verdict for one in made.claims] == ["supported"]
    assert ResearchReport.model_validate_json(made.model_dump_json()) == made


def test_both_languages_show_the_same_figures(made: ResearchReport) -> None:
    """Tables hold equal numbers, each in its spelling."""

    def figures(lang: str) -> list[str]:
        table = next(one for one in made.editions[lang].chapters[0].blocks if isinstance(one, Table))
        text = " ".join(" ".join(cell) for row in table.rows for cell in row)
        return re.findall(r"\d+\.\d+", text.replace(",", "."))

    assert figures("ru") == figures("en") != []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_page_is_the_same_each_time_and_needs_nothing(made: ResearchReport, lang: str) -> None:
    """Formulas in MathML, drawings inside, citations lead to the list, text is escaped, nothing is fetched."""
    html = rendered_html(made.editions[lang], Words(lang))
    assert html == rendered_html(made.editions[lang], Words(lang))
    assert "<math" in html
    assert '<a href="#ref-1">1</a>' in html and '<li id="ref-1">' in html
    assert html.count("<svg") == 2
    assert "# &lt;&amp;&gt;" in html
    assert not re.search(r'(?:src|href)="(?!#)(?!https://(?:arxiv|aclanthology|doi)\.org)', html)
    assert f'<html lang="{lang}">' in html


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_pdf_is_the_same_each_time(made: ResearchReport, lang: str) -> None:
    """Byte for byte; its sources hold every generated text."""
    edition, words = made.editions[lang], Words(lang)
    first = rendered_pdf(edition, words)
    assert first == rendered_pdf(edition, words)
    assert first.startswith(b"%PDF-")
    files = typst_files(edition, words)
    assert {name.split("/")[0] for name in files} == {"main.typ", "references.bib", "figures", "drawn"}
    assert "FROM scratch" in files["main.typ"]
    assert all("currentColor" not in text for name, text in files.items() if name.endswith(".svg"))


@pytest.mark.parametrize(("sticky", "alone"), [(True, False), (False, True)])
def test_a_caption_stays_with_its_table(tmp_path: Path, sticky: bool, alone: bool) -> None:
    """However far down a page a table begins, ours or one of the prose; without the template's rule some would part."""
    template = (resources.files("paretune.report") / "templates" / "research.typ").read_text("utf-8")
    if not sticky:
        assert "block(sticky: true)" in template
        template = template.replace("block(sticky: true)", "block(sticky: false)")
    lines = ['#let title = "t"', '#let lang = "en"', '#let font = "Libertinus Serif"', '#let contents = "c"', template]
    for filled in range(230, 260, 4):
        caption, cell = "[C#metadata(0) <caption>]", "[x#metadata(0) <cell>]"
        lines.append(f"#pagebreak()\n#v({filled}mm)\n#data-table(1, {caption}, ([a],), ({cell}, [y], [z],))")
        table = f"align(center)[#table(columns: 1, table.header([a]), {cell}, [y], [z])]"
        lines.append(f"#pagebreak()\n#v({filled}mm)\n#figure({table}, caption: {caption}, kind: table)")
    found = (f"query(<{name}>).map(one => one.location().page())" for name in ("caption", "cell"))
    lines.append(f"#context [#metadata(({', '.join(found)})) <pages>]")
    file = tmp_path / "main.typ"
    file.write_text("\n".join(lines), encoding="utf-8")
    captions, cells = json.loads(typst.query(str(file), "<pages>", field="value", one=True))
    assert len(captions) == len(cells) == 16
    assert (captions != cells) is alone


def test_a_claim_that_flipped_stops_the_report(study: Path, made: ResearchReport, tmp_path: Path) -> None:
    """The ledger says refuted, the records say supported."""
    ledger = tmp_path / "claims.toml"
    text = (study.parent / "claims.toml").read_text(encoding="utf-8")
    ledger.write_text(text.replace('verdict = "supported"', 'verdict = "refuted"'), encoding="utf-8")
    with pytest.raises(RecordError, match="head-is-worse: refuted in the ledger, supported by the records"):
        gather_report([study], ledger, study.parent)
    assert judge([study], ledger)["head-is-worse"].verdict == "supported"


def test_a_bench_line_is_evidence_too(study: Path, made: ResearchReport, tmp_path: Path) -> None:
    """The line beside the ledger is read; its folder among the studies is none; a limit that fails stops the report."""
    ledger = tmp_path / "claims.toml"
    claim = 'en = "{a}"\nru = "{a}"\nverdict = "supported"\n'
    rule = 'bench.a = { line = "serve", figure = "ratio", rule = "at_most", limit = 1.35 }\n'
    text = (study.parent / "claims.toml").read_text(encoding="utf-8")
    ledger.write_text(f"{text}\n[claims.served]\n{claim}{rule}", encoding="utf-8")
    bench = tmp_path / "bench"
    bench.mkdir()
    (bench / "serve.json").write_text('{"ratio": 1.2}', encoding="utf-8")
    assert judge([study, bench], ledger)["served"].verdict == "supported"
    claims = {one.name: one for one in gather_report([study, bench], ledger, study.parent).claims}
    assert claims["served"].evidence["a"].estimate == 1.2
    (bench / "serve.json").write_text('{"ratio": 1.5}', encoding="utf-8")
    with pytest.raises(RecordError, match="served: supported in the ledger, refuted by the records"):
        gather_report([study, bench], ledger, study.parent)


@pytest.mark.parametrize("form", ["html", "pdf", "md", "json"])
def test_every_form_is_written(made: ResearchReport, study: Path, tmp_path: Path, form: str) -> None:
    """Whole files, where they were asked for."""
    out = write_report([study], "ru", form, tmp_path / f"a.{form}", root=study.parent)
    content = out.read_bytes()
    start = {"html": b"<!doctype html>", "pdf": b"%PDF", "md": b"# \xd0", "json": b"{"}[form]
    assert content.startswith(start)
    if form == "json":
        assert json.loads(content)["studies"]
    if form == "md":
        assert "| --- |" in content.decode() and "не измерено" in content.decode()


def test_what_cannot_be_written_is_one_line(study: Path, tmp_path: Path) -> None:
    """An unknown form or language, the same study twice, a folder that is no study."""
    with pytest.raises(ConfigError, match="pdf"):
        write_report([study], "ru", "pfd", tmp_path / "a")
    with pytest.raises(ConfigError, match="language"):
        write_report([study], "de", "pdf", tmp_path / "a")
    with pytest.raises(RecordError, match="two studies are named"):
        gather_report([study, study], None, tmp_path)
    with pytest.raises(RecordError, match=r"no study\.json"):
        gather_report([tmp_path], None, tmp_path)
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def parts(study: Path) -> Parts:
    facts = gather(StudyFolder(study))
    return Parts({"s": facts}, {facts.study.name: rows_of(facts)}, {}, study.parent, Words("en"))


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [
        ("table", "s/quality", 1),
        ("table", "s/resources", 1),
        ("table", "s/search", 1),
        ("table", "s/phases", 1),
        ("table", "s/latency", 1),
        ("table", "s/scores", 1),
        ("table", "s/scores-out_of_domain", 1),
        ("table", "s/settings", 1),
        ("table", "s/data", 1),
        ("table", "s/cleaning", 1),
        ("table", "s/decide", 1),
        ("table", "s/budgets", 1),
        ("table", "*/next", 1),
        ("figure", "s/quality", 1),
        ("figure", "s/difference", 1),
        ("figure", "s/front-memory", 1),
        ("figure", "s/curves", 1),
        ("answer", "s/", 1),
    ],
)
def test_every_slot_that_a_chapter_may_have(parts: Parts, kind: str, name: str, count: int) -> None:
    """Tables and figures of a study by their names."""
    assert len(parts.filled(Slot(kind, name))) == count


def test_slots_of_settings(tmp_path: Path) -> None:
    """Effects as figure and tables, with the interaction that the slot names, and the advice; else "not measured"."""
    facts = gather(StudyFolder(write_generated(tmp_path / "s", Size(methods=40, seeds=2, test_rows=60, steps=3))))
    parts = Parts({"s": facts}, {facts.study.name: []}, {}, tmp_path, Words("en"))
    assert len(parts.filled(Slot("table", "s/effects-targets:layers"))) == 2
    assert len(parts.filled(Slot("table", "s/effects"))) == 1
    (figure,) = parts.filled(Slot("figure", "s/effects-targets:layers"))
    (advice,) = parts.filled(Slot("advice", "s/targets:layers"))
    assert isinstance(figure, Figure) and isinstance(advice, Text) and advice.markdown.startswith("By memory: with ")
    for kind, name in (("table", "t/effects"), ("figure", "t/effects"), ("advice", "t/targets:layers")):
        (block,) = parts.filled(Slot(kind, name))
        assert block == Text(markdown="`t`: not measured.")


def test_slots_over_studies_of_a_pattern(study: Path, tmp_path: Path) -> None:
    """Those whose names fit, whatever their order; where none fits, "not measured"."""
    facts = gather(StudyFolder(study))
    rows = {**facts.study.split_rows, "train": 50}
    smaller = replace(facts, study=facts.study.model_copy(update={"split_rows": rows}))
    studies = {"size-960": facts, "size-50": smaller, "other": facts}
    parts = Parts(studies, {facts.study.name: rows_of(facts)}, {}, tmp_path, Words("en"))
    (table,) = parts.filled(Slot("table", "size-*/amount"))
    (figure,) = parts.filled(Slot("figure", "size-*/amount"))
    assert isinstance(table, Table) and len(table.columns) == 3
    assert isinstance(figure, Figure) and figure.name == "amount"
    for kind in ("table", "figure"):
        assert parts.filled(Slot(kind, "nothing-*/amount")) == [Text(markdown="`nothing-*/amount`: not measured.")]
    with pytest.raises(UnknownNameError, match="'amount'"):
        parts.filled(Slot("table", "size-*/amounts"))


def test_a_bench_line_is_a_table(study: Path) -> None:
    """Known figures in words, unknown ones by their names, its date under it; without the line "not measured"."""
    figures = {"overhead_ratio": 1.408, "memory_growth": 0.0017, "odd": 3, "peer_ratio": None}
    line = BenchLine("bench/serve.json", figures, "2026-11-28", "made up", 2)
    parts = Parts({}, {}, {}, study.parent, Words("ru"), {"serve": line})
    (table,) = parts.filled(Slot("table", "bench/serve"))
    assert isinstance(table, Table)
    assert [row[1][0] for row in table.rows] == ["1,408", "0,0017", "3", "не измерено"]
    assert table.rows[2][0][0] == "odd" and "сервис" in table.rows[0][0][0]
    assert table.notes == ["Одно измерение: 2026-11-28; made up, 2 ядра."]
    assert parts.filled(Slot("table", "bench/container")) == [Text(markdown="`bench/container`: не измерено.")]


def test_a_slot_that_names_nothing_is_an_error(parts: Parts) -> None:
    """With the nearest name: a slip of the pen is not "not measured"."""
    with pytest.raises(UnknownNameError, match="'quality'"):
        parts.filled(Slot("table", "s/qualty"))


def test_a_ledger_has_no_other_keys(tmp_path: Path) -> None:
    """Unknown keys are refused as in a study file."""
    with pytest.raises(ConfigError, match="verdikt"):
        research.load_toml(_written(tmp_path, '[claims.a]\nen = ""\nru = ""\nverdikt = "supported"\n'), Ledger)


def _written(folder: Path, text: str) -> Path:
    file = folder / "claims.toml"
    file.write_text(text, encoding="utf-8")
    return file
