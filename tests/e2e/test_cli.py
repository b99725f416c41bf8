"""The verbs as a user meets them: what they print, their exit codes, and that asking for help is cheap."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated_study import write_study
from toy_study import study_text, toy_rows, write_csv

from paretune import cli
from paretune.export import export_command
from paretune.methods.method import METHODS
from paretune.study.design import read_study_file

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
DOCUMENTS = [ROOT / name for name in ("README.md", "README.ru.md", "CONTRIBUTING.md") if (ROOT / name).exists()]
VERBS = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback} | {
    f"{group.name} {command.name}"
    for group in cli.app.registered_groups
    if group.typer_instance is not None
    for command in group.typer_instance.registered_commands
}
Say = Callable[..., str]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PARETUNE_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the command line to a good end; returns its standard output."""

    def call(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        monkeypatch.setattr(sys, "argv", ["paretune", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert stop.value.code in codes, said.err
        return said.out

    return call


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(say: Say, verb: str) -> None:
    """`--help` names the verb's options and `--json`, which every verb has."""
    said = say(*verb.split(), "--help")
    assert "--json" in said and f"paretune {verb}" in said


def test_without_a_verb_the_verbs_are_listed(say: Say) -> None:
    """The bare program helps instead of failing."""
    said = say()
    assert all(verb.split()[0] in said for verb in VERBS)
    benches = say("bench")
    assert all(verb.split()[1] in benches for verb in VERBS if verb.startswith("bench "))


def test_the_command_line_imports_nothing_heavy() -> None:
    """Neither the module nor `--help` of a verb loads torch or its like: help is there at once."""
    heavy = ("torch", "transformers", "peft", "pandas", "sklearn", "altair", "datasets", "scipy", "pyarrow", "numpy")
    for start in (
        "import paretune.cli",
        "import paretune.cli; paretune.cli.app(['study', '--help'], standalone_mode=False)",
    ):
        code = f"{start}\nimport sys\nprint('LOADED', [one for one in {heavy!r} if one in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "LOADED []"


def test_methods_are_listed_in_both_languages(say: Say) -> None:
    """Each method with its paper; Russian words where Russian is asked for; the JSON line has the same."""
    for lang in ("en", "ru"):
        said = say("methods", "--lang", lang, "--json")
        rows = json.loads(said.splitlines()[-1])["methods"]
        assert [row["kind"] for row in rows] == list(METHODS)
        for row in rows:
            assert row["summary"] in said and row["paper"] in said
            assert bool(re.search("[а-я]", row["summary"])) == (lang == "ru")


def test_tasks_and_assets_are_listed(say: Say) -> None:
    """Names on their own lines, and the same in the JSON line; nothing is downloaded."""
    assert json.loads(say("tasks", "--json").splitlines()[-1])["tasks"] == ["classification", "next_token"]
    said = say("assets", "--json")
    names = json.loads(said.splitlines()[-1])["assets"]
    assert {"minilm-l6", "e5-small", "reuters-r8"} <= set(names)
    assert all(any(line.startswith(name) for line in said.splitlines()) for name in names)
    assert not Path("home").exists()


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_a_report_says_its_answer_and_where_it_lies(say: Say, lang: str) -> None:
    """The terminal table, the answer in one sentence, the page's path; the JSON line has the last two."""
    write_study(Path("results/made-up"), seeds=(0, 1))
    said = say("report", "results/made-up", "--lang", lang, "--json")
    found = json.loads(said.splitlines()[-1])
    assert Path(found["report"]).name == f"report.{lang}.html" and Path(found["report"]).exists()
    assert found["answer"] and " ".join(found["answer"].split()) in " ".join(said.split())
    assert "tfidf" in said and ("Отчёт: " if lang == "ru" else "Report: ") in said


@pytest.mark.slow
def test_new_and_then_study_is_all_it_takes(say: Say, tiny_model: Path) -> None:
    """A user's own CSV: `new` with flags, the written file is a valid study, and `study` runs it to a report."""
    write_csv(Path("mine.csv"), toy_rows(60))
    said = say(
        "new", "mine.toml", "--data", "mine.csv", "--text", "text", "--label", "label", "--model", f"path:{tiny_model}"
    )
    assert "paretune study mine.toml" in said
    written = read_study_file(Path("mine.toml"))
    assert {choice.kind for choice in written.methods.values()} == set(METHODS)
    assert written.file.data.train == "path:mine.csv"
    # The same file with less to do: one baseline, one seed.
    Path("mine.toml").write_text(
        study_text(f"path:{tiny_model}", {"tfidf": ""}, name="mine", train="path:mine.csv", seeds=[0])
    )
    said = say("study", "mine.toml", "--lang", "ru", "--json", codes=(0, 3))
    found = json.loads(said.splitlines()[-1])
    assert Path(found["folder"]) == Path("runs/mine") and Path(found["report"]).name == "report.ru.html"
    assert {path.name for path in Path("runs/mine").glob("report.*.html")} == {"report.en.html", "report.ru.html"}
    said = say("publish", "runs/mine", "--json")
    assert Path(json.loads(said.splitlines()[-1])["results"]) == Path("results/mine")


def test_the_language_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """LC_ALL before LANG; English for what paretune does not speak."""
    cases = (("ru_RU.UTF-8", "C", "ru"), ("C", "ru_RU", "en"), (None, "ru_RU", "ru"), (None, "de_DE", "en"))
    for lc_all, lang, wanted in cases:
        monkeypatch.delenv("LC_ALL", raising=False)
        if lc_all is not None:
            monkeypatch.setenv("LC_ALL", lc_all)
        monkeypatch.setenv("LANG", lang)
        assert cli.language(None) == wanted
    assert cli.language("ru") == "ru"


# --- what is shipped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_loads(path: Path) -> None:
    """Its settings are valid, it is named as its file, and asks its question in both languages."""
    study = read_study_file(path)
    assert study.header.name == path.stem
    assert study.header.question.en != study.header.question.ru
    assert re.search("[а-я]", study.header.question.ru)


def test_the_studies_of_settings_are_what_their_script_writes() -> None:
    """The fraction is drawn again, and the files are as it says."""
    place = importlib.util.spec_from_file_location("lora_settings", ROOT / "studies" / "lora_settings.py")
    script = importlib.util.module_from_spec(place)
    sys.modules[place.name] = script  # dataclasses look their module up
    place.loader.exec_module(script)
    settings = script.fraction(script.FACTORS, script.SETTINGS, 0, script.INTERACTIONS, [script.USUAL])
    for case in script.CASES:
        assert (ROOT / "studies" / f"{case.name}.toml").read_text(encoding="utf-8") == script.study(case, settings)
        assert len(read_study_file(ROOT / "studies" / f"{case.name}.toml").methods) == script.SETTINGS


def test_the_studies_of_the_first_slice_are_shipped() -> None:
    """The four that the documents speak of; an empty folder would pass the test above."""
    assert {"demo", "r8", "ru-emotions", "rucola"} <= {path.stem for path in STUDIES}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist(path: Path) -> None:
    """Each `paretune VERB` and `make TARGET` of the documents is one, and its options are the verb's."""
    text = path.read_text(encoding="utf-8")
    options = {verb: subprocess_free_help(verb) for verb in VERBS}
    commands = re.findall(r"(?:^|[`$ ])paretune ((?:bench )?[a-z]+)((?: [^`\n|#]*)?)", text, flags=re.MULTILINE)
    quoted = [(verb, rest) for verb, rest in commands if verb in VERBS or f"`paretune {verb}" in text]
    assert quoted or path.name == "CONTRIBUTING.md"
    for verb, rest in quoted:
        assert verb in VERBS, f"paretune {verb}"
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in options[verb], f"paretune {verb} {option}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for target in re.findall(r"`make ([a-z-]+)`|^\s*make ([a-z-]+)\s*(?:#.*)?$", text, flags=re.MULTILINE):
        assert (target[0] or target[1]) in targets


def subprocess_free_help(verb: str) -> str:
    """The help of a verb, as text, without starting a process."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as sink:
        cli.app([*verb.split(), "--help"], prog_name="paretune", standalone_mode=False)
    return sink.getvalue()


@pytest.mark.parametrize(("flags", "decided", "code"), [(["--best"], False, 3), (["--best"], True, 0), ([], False, 0)])
def test_an_undecided_choice_is_exit_3(
    say: Say, monkeypatch: pytest.MonkeyPatch, flags: list[str], decided: bool, code: int
) -> None:
    """What was exported is said all the same; a run that was named asks nothing of the statistics."""
    monkeypatch.setattr(export_command, "export_command", lambda *_, **__: (["exported"], {"decided": decided}))
    out = say("export", "runs/a", "--out", "b", *flags, "--json", codes=(code,))
    assert out.splitlines()[0] == "exported"
    assert json.loads(out.splitlines()[-1]) == {"decided": decided}
