"""`paretune new` and `paretune explore` as a user types them: questions asked again, findings said, both languages.

Most cases call `paretune.cli.main` in this process. Not here: what is found (tests/unit/test_labels.py, test_new.py).
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_study import study_text, toy_rows, write_csv

from paretune import cli
from paretune.study.design import read_study_file

Said = tuple[int, str, str]  # exit code, standard output, standard error
Call = Callable[..., Said]
PARCEL = "dear customer, your parcel with the number {} was shipped today and will be with you by the end of the week"


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a file of texts, an empty home, no download, English."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PARETUNE_OFFLINE", "1")
    monkeypatch.setenv("LC_ALL", "C")
    write_csv(Path("toy.csv"), toy_rows(60))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process; `typed` is what is answered."""

    def run(*arguments: str, typed: str = "") -> Said:
        monkeypatch.setattr(sys, "argv", ["paretune", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int) and "Traceback" not in said.err
        return stop.value.code, said.out, said.err

    return run


def test_a_typing_error_is_asked_again(call: Call) -> None:
    """A wrong file and a wrong column are each named, and the question comes again; Enter takes what was guessed."""
    code, out, err = call("new", typed="tyo.csv\ntoy.csv\ntxt\n\nlable\nlabel\n")
    assert code == 0
    assert "did you mean 'toy.csv'" in err and "did you mean 'text'" in err and "did you mean 'label'" in err
    assert "[data]" not in err and "`--text`" in err
    settings = read_study_file(Path("study.toml")).file
    assert (settings.data.train, settings.data.text, settings.data.label) == ("path:toy.csv", "text", "label")
    assert "the study toy" in out


@pytest.mark.parametrize("typed", ["", "toy.csv\n", "nothing.csv\n"])
def test_no_answer_ends_with_the_options(call: Call, typed: str) -> None:
    """A script that gives no answer is told which options spare the questions."""
    code, _, err = call("new", typed=typed)
    assert code == 2 and "--data, --text and --label" in err.splitlines()[-1]
    assert not Path("study.toml").exists()


@pytest.mark.parametrize(
    ("lang", "parts"),
    [
        (
            "en",
            ["60 texts (training ", "3 classes", "look English; model: asset:minilm-l6", "Next:", "# memory and time"],
        ),
        ("ru", ["60 текстов (обучение ", "3 класса", "похожи на английские", "Дальше:", "# память и время"]),
    ],
)
def test_what_was_found_and_what_comes_next_is_said(call: Call, lang: str, parts: list[str]) -> None:
    """Rows, classes, language, model with its reason, and three commands; the JSON line has the same."""
    code, out, _ = call("new", "--data", "toy.csv", "--text", "text", "--label", "label", "--lang", lang, "--json")
    tree = json.loads(out.splitlines()[-1])
    assert code == 0 and all(part in out for part in parts)
    assert (tree["study"], tree["name"], tree["classes"], sum(tree["rows"].values())) == ("study.toml", "toy", 3, 60)
    assert tree["next"] == [f"paretune {verb} study.toml" for verb in ("explore", "plan", "study")]


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("text,label\na,x\nb,x\n", [], "one class only ('x')"),
        ("text,label\na,x\n\u200b,y\n", [], "one class only ('x')"),
        ("text,label\na,x\n", ["--quoting", "some"], "--quoting some; expected none or double"),
        ("text,label,label\na,x,y\n", [], "column 'label' stands there 2 times"),
        ("text\tlabel\na\tx\n", ["--separator", ","], "give `--separator '\\t'`"),
        ('text,label\n"a,x\nb,y\n', [], "give `--quoting none`"),
    ],
)
def test_data_that_no_study_can_use_are_refused_before_a_file_is_written(
    call: Call, content: str, arguments: list[str], said: str
) -> None:
    """One line, exit 2, in the words of the command line."""
    Path("bad.csv").write_text(content, encoding="utf-8")
    code, out, err = call("new", "--data", "bad.csv", "--text", "text", "--label", "label", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err and "[data]" not in err
    assert not Path("study.toml").exists()


@pytest.mark.parametrize(
    ("lang", "parts"),
    [
        (
            "en",
            ["1 of 5 classes has no test row", "“shipped” (30 rows; so much alike", "hard to tell apart", "wrote: "],
        ),
        ("ru", ["У 1 класса из 5 нет ни одной тестовой строки", "«shipped» (30 строк; так похожи", "трудно различить"]),
    ],
)
def test_explore_prints_its_findings(call: Call, tiny_model: Path, lang: str, parts: list[str]) -> None:
    """Untested classes, labels that look alike and what is cut stand in the terminal, in JSON and on the page."""
    rows = [(text, "Bank" if label == "bank" and i % 2 else label) for i, (text, label) in enumerate(toy_rows(60))]
    labels = {label for _, label in rows}
    write_csv(Path("toy.csv"), [*rows, *((PARCEL.format(i), "shipped") for i in range(30))])
    parts = [part.replace("5", str(len(labels) + 1)) for part in parts]
    Path("toy.toml").write_text(study_text(f"path:{tiny_model}", {"majority": "", "head": ""}), encoding="utf-8")
    code, out, _ = call("explore", "toy.toml", "--lang", lang, "--json")
    assert code == 0 and all(part in out for part in parts), out
    told = json.loads(out.splitlines()[-1])["findings"]
    assert len(told) >= 3 and all(f"- {one}" in out for one in told)
    page = Path("explore/explore.html").read_text(encoding="utf-8")
    assert all(one.replace("“", "&#8220;").split(":")[0].split("“")[0] in page for one in told)
