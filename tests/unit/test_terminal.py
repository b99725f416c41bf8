"""Terminals of any width and encoding: nothing is cut off, no name vanishes, no sign ends the program."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from fabricated_study import write_study
from rich.table import Table

from paretune import cli
from paretune.core.encodings import CYRILLIC, SPELLED, make_safe
from paretune.records.store import StudyFolder
from paretune.report import build
from paretune.report.tables import terminal_table
from paretune.report.terminal import fitted
from paretune.report.wording import Words
from paretune.study import runner

ENCODINGS = ("ascii", "latin-1", "koi8-r", "cp1251", "cp866", "utf-8")
NAMES = ("tfidf", "lora", "full")
CASE = ["--rows", "480", "--classes", "4", "--tokens", "41"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "made", seeds=(0, 1), test_rows=40, methods=NAMES)


def verbs(folder: Path, file: Path) -> dict[str, list[str]]:
    """Every verb that prints a table or sentences of a study."""
    return {
        "study": ["study", str(file)],
        "report": ["report", str(folder), "--out", str(folder.parent / "page.html")],
        "advise": ["advise", *CASE, "--results", str(folder)],
        "check": ["report", str(folder), "--check"],
        "export": ["export", str(folder), "--to", "csv", "--out", str(folder.parent / "csv"), "--force"],
        "publish": ["publish", str(folder), "--results", str(folder.parent / "results")],
        "methods": ["methods"],
        "tasks": ["tasks"],
        "assets": ["assets"],
    }


def said_by(arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> tuple[object, str]:
    """Exit code and standard output of a verb on a stream that is strict in its encoding."""
    sinks = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "argv", ["paretune", *arguments])
    monkeypatch.setattr(sys, "stdout", sinks[0])
    monkeypatch.setattr(sys, "stderr", sinks[1])
    with pytest.raises(SystemExit) as end:
        cli.main()
    sinks[0].flush()
    return end.value.code, sinks[0].buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.fixture
def finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file whose runs are all done already."""

    monkeypatch.setattr(runner, "run_study", lambda *_: StudyFolder(folder))
    drawn = lambda *_: folder / "отчёт.html"  # the page itself is drawn in other tests  # noqa: E731
    monkeypatch.setattr(build, "build", drawn)
    return Path("studies/demo.toml").resolve()


@pytest.mark.parametrize(("encoding", "lang"), zip(ENCODINGS, ("ru", "en", "ru", "ru", "en", "ru"), strict=True))
def test_no_encoding_ends_a_verb(
    folder: Path, finished: Path, encoding: str, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all runs are done every verb says its whole answer, whatever the terminal can write."""
    monkeypatch.setenv("LC_ALL", "ru_RU" if lang == "ru" else "C")
    monkeypatch.setenv("COLUMNS", "100")
    for verb, arguments in verbs(folder, finished).items():
        code, text = said_by(arguments, encoding, monkeypatch)
        assert code in (0, 3), (verb, code)
        assert text.strip(), verb
        if verb in ("study", "report", "advise"):
            assert all(name in text for name in NAMES), verb
            assert "?" not in text.replace("study/", ""), verb


@pytest.mark.parametrize(("columns", "lang"), [(20, "ru"), (40, "en"), (57, "ru"), (80, "ru"), (100, "en")])
def test_no_width_takes_a_name_away(
    folder: Path, finished: Path, columns: int, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every width each method stands whole with its verdict, and only single words are wider than the terminal."""
    monkeypatch.setenv("LC_ALL", "ru_RU" if lang == "ru" else "C")
    monkeypatch.setenv("COLUMNS", str(columns))
    for verb in ("study", "report", "advise"):
        _, text = said_by(verbs(folder, finished)[verb], "utf-8", monkeypatch)
        assert all(name in text.split() or f"{name}:" in text for name in NAMES), verb
    lines = fitted(terminal_table(folder, lang), columns)
    assert max(len(line) for line in lines if len(line.split()) > 1) <= max(columns, 20)
    words = Words(lang)
    assert " ".join(lines).count(words.say("not measured")) == 0
    assert words.say("control") in " ".join(lines)


def test_a_column_is_folded_before_the_table_is_taken_apart() -> None:
    """Intervals go to a line of their own first; a table that cannot fit becomes a block for each row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("quality [95 %]", justify="right", no_wrap=True)
    table.add_column("runs")
    table.add_row("lora-r8-of-all-layers", "0.957 [0.942 … 0.973]", "3; out of memory × 1")
    assert len(fitted(table, 80)) == 2
    folded = fitted(table, 50)
    assert [line.split()[0] for line in folded][-1] == "[0.942" and "lora-r8-of-all-layers" in folded[-2]
    assert fitted(table, 30) == [
        "lora-r8-of-all-layers",
        "  quality [95 %]: 0.957 [0.942",
        "    … 0.973]",
        "  runs: 3; out of memory × 1",
    ]


def test_signs_are_spelled_with_what_an_encoding_has() -> None:
    """Powers, dashes, Russian letters and bytes of a file's name are readable in ASCII; nothing is left out."""
    sink = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    make_safe(sink, io.StringIO())
    sink.write("3·10⁻⁵ ± 0 … Щука \udcff 日")
    sink.flush()
    assert sink.buffer.getvalue() == rb"3-10^-5 +/- 0 ... Shchuka \xff ?"  # type: ignore[attr-defined]
    sink.write("".join(SPELLED) + CYRILLIC + CYRILLIC.upper())
    sink.flush()
    assert sink.buffer.getvalue().count(b"?") == 1  # type: ignore[attr-defined]


def test_the_json_line_keeps_every_sign(folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program reads the same object from any encoding: what cannot be written is escaped, not spelled."""
    found = []
    for encoding in ("utf-8", "latin-1"):
        arguments = ["report", str(folder), "--lang", "ru", "--json", "--out", str(folder.parent / "page.html")]
        _, text = said_by(arguments, encoding, monkeypatch)
        found.append(json.loads(text.splitlines()[-1]))
    assert found[0] == found[1] and re.search("[а-я]", found[0]["answer"])
