"""`dashboard`, `advise`, the exporters of records and `bench dashboard` as a user types them, good input and bad.

Not here: what stands in pages, exports and advice (the tests of those rooms).
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated_study import write_study
from toy_study import toy_rows, write_csv

from paretune import cli
from paretune.data.prepare import prepare
from paretune.data.sources import DataSpec
from paretune.records.exporters import other_python
from paretune.records.exporters.export import TARGETS
from paretune.study.advise import advise, advise_on
from paretune.study.advise_case import Case
from paretune.study.advise_records import shipped

CASE = ("--rows", "480", "--classes", "4", "--tokens", "41.25")
Said = tuple[int, str, str]  # exit code, standard output, standard error
Call = Callable[..., Said]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two studies that no test changes."""
    root = tmp_path_factory.mktemp("records") / "results"
    write_study(root / "made", seeds=(0, 1), test_rows=40)
    write_study(root / "small", seeds=(0,), methods=("tfidf", "full"), test_rows=20, broken=False)
    study = root / "small" / "study.json"
    study.write_text(json.dumps({**json.loads(study.read_text()), "name": "small"}))
    return root


@pytest.fixture(autouse=True)
def _place(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with results, an empty folder and a file; in English; nothing is downloaded."""
    monkeypatch.chdir(tmp_path)
    Path("results").symlink_to(records)
    Path("empty").mkdir()
    Path("file").write_text("")
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PARETUNE_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv(other_python.VARIABLE, raising=False)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process."""

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["paretune", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.out, said.err

    return run


def tree_of(out: str) -> dict:
    """The JSON object of the last line; an Infinity, which is no JSON, fails."""
    found = json.loads(out.splitlines()[-1], parse_constant=lambda name: pytest.fail(name))
    assert isinstance(found, dict)
    return found


def refused(said: Said, *parts: str) -> None:
    """Exit 2, and the last line of errors, the only one of its kind, has every part."""
    code, out, error = said
    lines = [line for line in error.splitlines() if line.startswith("paretune: ")]
    assert (code, out, len(lines)) == (2, "", 1), said
    assert error.splitlines()[-1] == lines[0] and all(part in lines[0] for part in parts), lines[0]


# --- dashboard ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lang", "word"), [("en", "Page: out.html"), ("ru", "Страница: out.html")])
def test_a_study_is_saved_as_one_page(call: Call, lang: str, word: str) -> None:
    """The page lies where it is said to, in the language that was asked for; the JSON line names it."""
    code, out, _ = call("dashboard", "results/made", "--export", "out.html", "--lang", lang, "--json")
    assert code == 0 and out.splitlines()[0] == word
    assert tree_of(out) == {"page": "out.html"}
    assert f'<html lang="{lang}"' in Path("out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["folders"]),
        (["nowhere"], ["nowhere is not there", "runs/ or results/"]),
        (["results", "file"], ["file is a file"]),
        (["results", "--lang", "de"], ["language 'de'", "en, ru"]),
        (["results", "--host", "0.0.0.0"], ["--host 0.0.0.0 without --token-file or --token", "127.0.0.1"]),
        (["results", "--host", "no.such.host.invalid"], ["--host", "127.0.0.1"]),
        (["results", "--token", "a b"], ["this --token", "visible ASCII"]),
        (["results", "--token", "a", "--token-file", "file"], ["one of them"]),
        (["results", "--token-file", "nothing"], ["--token-file nothing cannot be read"]),
        (["results", "--token-file", "file"], ["--token-file file holds 0 words"]),
        (["results", "--port", "99999"], ["--port", "65535"]),
        (["results", "--export", "o.html"], ["holds 2 studies", "give the folder of one"]),
        (["empty", "--export", "o.html"], ["holds no study"]),
        (["results/made", "results/small", "--export", "o.html"], ["--export with 2 folders"]),
        (["results/made", "--token", "x", "--export", "o.html"], ["--export with a token"]),
        (["results/made", "--port", "0", "--export", "o.html"], ["--export with a token, --host or --port"]),
        (["results/made", "--export", "file/o.html"], ["cannot write"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_no_dashboard_can_be_made_of(call: Call, arguments: list[str], parts: list[str]) -> None:
    """One line before any port is opened; nothing is written."""
    refused(call("dashboard", *arguments), *parts)
    assert not Path("o.html").exists()


def test_the_dashboard_is_served_until_a_signal(records: Path) -> None:
    """Two folders and a token from a file: 401 without it, the list of studies with it; Ctrl-C ends it with 0."""
    Path("token").write_text("a-token\n")
    command = [sys.executable, "-c", "from paretune.cli import main; main()", "dashboard", "results", str(records)]
    options = ["--port", "0", "--token-file", "token", "--lang", "ru", "--json"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            address = re.match(r"готово: (http://127\.0\.0\.1:\d+/) ", ready)
            assert address is not None and "a-token" not in ready and "results" in ready
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address[1], timeout=30)
            asked = urllib.request.Request(address[1], headers={"Authorization": "Bearer a-token"})
            with urllib.request.urlopen(asked, timeout=30) as answer:
                page = answer.read().decode()
            assert '<html lang="ru"' in page
            # The second folder is the first one's again: each study is there once.
            assert sorted(set(re.findall(r'href="/study/([^"/]+)"', page))) == ["made", "small"]
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert tree_of(process.stdout.read()) == {"exit_code": 0}


def test_the_dashboards_bench_gives_figures(call: Call) -> None:
    """Milliseconds and ratios on lines and in the JSON object, for as many runs as were asked for."""
    code, out, _ = call("bench", "dashboard", "--runs", "30", "--json")
    found = tree_of(out)
    assert code == 0 and found["runs"] == 30.0
    assert found["study_cold_ms"] > 0 and found["study_cold_by_warm"] == pytest.approx(
        found["study_cold_ms"] / found["study_warm_ms"]
    )
    shown = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert shown == [name.removesuffix("_ms") for name in found if name != "runs"]
    refused(call("bench", "dashboard", "--runs", "1"), "--runs")


# --- exporters of records -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_records_become_tables(call: Call, lang: str) -> None:
    """Runs are counted and files named; a second export replaces the first."""
    for _ in range(2):
        code, out, _ = call("export", "results/made", "--to", "csv", "--out", "csv", "--lang", lang, "--json")
        assert code == 0
        wanted = {"path": "csv", "to": "csv", "study": "fabricated", "runs": 14, "command": None, "faults": []}
        assert tree_of(out) == wanted
        assert "14" in out.splitlines()[0] and ("запусков" in out) == (lang == "ru")
    names = {path.name for path in Path("csv").glob("*.csv")}
    assert names == {"runs.csv", "steps.csv", "predictions.csv"} and all(name in out for name in names)


def test_records_become_event_files(call: Call) -> None:
    """One folder a run, and the command that opens them, quoted for the shell."""
    code, out, _ = call("export", "results/small", "--to", "tensorboard", "--out", "a b", "--json")
    assert code == 0 and "open it: tensorboard --logdir 'a b'" in out
    assert tree_of(out)["command"] == "tensorboard --logdir 'a b'"
    assert len(list(Path("a b").glob("*/events.out.tfevents.*"))) == 2


@pytest.mark.parametrize(
    ("target", "command"),
    [("mlflow", "mlflow ui --backend-store-uri sqlite:///out/mlflow.db"), ("trackio", "TRACKIO_DIR=out trackio show")],
)
def test_records_are_handed_to_another_python(
    call: Call, monkeypatch: pytest.MonkeyPatch, target: str, command: str
) -> None:
    """The named Python gets the study; without one, or where none is there, one line says what to install."""
    arguments = ("export", "results/small", "--to", target, "--out", "out")
    monkeypatch.setattr(other_python.importlib.util, "find_spec", lambda name: None)
    refused(call(*arguments), f"{target} is not installed", f"pip install '{target}>=")
    assert not Path("out").exists()
    stand_in = Path("python")
    stand_in.write_text('#!/bin/sh\ncat > "$3/handed.json"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv(other_python.VARIABLE, str(stand_in.resolve()))
    code, out, _ = call(*arguments)
    assert code == 0 and out.splitlines()[1] == f"open it: {command}"
    assert json.loads(Path("out/handed.json").read_text())["name"] == "small"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--to", "mlfow"], ["--to mlfow", "bundle, peft, merged", ", ".join(TARGETS), "did you mean 'mlflow'?"]),
        (["--to", "wandb"], ["--to wandb"]),
        (["--to", "csv", "--best"], ["--best with --to csv", "bundle, peft or merged"]),
        (["--to", "csv", "--memory", "1 GiB"], ["--memory with --to csv"]),
        (["--to", "csv", "--time", "1 h"], ["--time with --to csv"]),
        (["--to", "mlflow", "--int8"], ["--int8 with --to mlflow", "merged"]),
        (["--to", "trackio", "--target-risk", "0.1"], ["--target-risk with --to trackio", "bundle"]),
        (["--to", "tensorboard", "--no-inference"], ["--no-inference with --to tensorboard"]),
        (["--to", "bundle", "--int8"], ["--int8 with --to bundle", "--to merged"]),
        (["--to", "peft", "--target-risk", "0.1"], ["--target-risk with --to peft", "--to bundle"]),
        (["--to", "csv", "--lang", "de"], ["language 'de'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--to") else "",
)
def test_targets_and_options_that_do_not_go_together(call: Call, arguments: list[str], parts: list[str]) -> None:
    """One line with what is allowed; nothing is written."""
    refused(call("export", "results/made", "--out", "out", *arguments), *parts)
    assert not Path("out").exists()


def test_what_no_records_can_be_exported_from(call: Call) -> None:
    """A folder without a study, one run of a study, a place that is taken."""
    refused(call("export", "empty", "--to", "csv", "--out", "out"), "empty has no study.json")
    run = next(Path("results/made/runs").iterdir())
    refused(call("export", str(run), "--to", "csv", "--out", "out"), f"with the run {run.name}", "STUDY folder")
    refused(call("export", "results/made", "--to", "csv", "--out", "results"), "no export made")
    refused(call("export", "results/made", "--to", "csv", "--out", "file"), "file is a file")
    assert not Path("out").exists()


# --- advise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_advice_ranks_by_the_records_in_results(call: Call, records: Path, lang: str) -> None:
    """Every method has its row and its rank; the JSON object has what the advice holds."""
    code, out, notes = call("advise", *CASE, "--results", "results", "--lang", lang, "--json")
    found = tree_of(out)
    wanted = advise([records / "made", records / "small"], Case(480, 4, 41.25))
    assert code == 0 and ("2" in notes)
    assert [(one["rank"], one["method"]) for one in found["ranked"]] == [
        (one.rank, one.method) for one in wanted.ranked
    ]
    assert [one["study"] for one in found["near"]] == [one.study for one in wanted.near]
    assert found["near"][0]["distance"] == wanted.near[0].total
    lora = next(one for one in found["ranked"] if one["method"] == "lora")
    assert lora["difference"]["low"] < lora["difference"]["estimate"] < lora["difference"]["high"]
    for one in wanted.ranked:
        assert re.search(rf"^\s*{one.rank}\s+{one.method}\s", out, re.MULTILINE)
    assert ("Методы по отличию" in out) == (lang == "ru")


def test_advice_keeps_a_budget_and_a_base_model(call: Call) -> None:
    """What needs too much has no rank and says why; costs of another base model are not carried over."""
    case = (*CASE, "--results", "results", "--json")
    code, out, _ = call("advise", *case, "--memory", "1.1 GB", "--time", "30 s", "--metric", "macro_f1")
    found = {one["method"]: one for one in tree_of(out)["ranked"]}
    assert code == 0 and found["full"]["memory_fits"] == "no" and found["full"]["rank"] is None
    assert found["tfidf"]["rank"] is not None and "No rank, more memory is needed than there is: " in out
    assert "macro-F1" in out
    code, out, _ = call("advise", *case, "--memory", "900 GB", "--model", "asset:e5-small", "--text-language", "ru")
    assert code == 3 and {one["rank"] for one in tree_of(out)["ranked"]} == {None}
    assert "another base model" in out and "another script" in out


@pytest.mark.parametrize(("results", "studies"), [(("--results", "results"), 2), ((), len(shipped()))])
def test_nothing_comparable_is_exit_3(call: Call, results: tuple[str, ...], studies: int) -> None:
    """Far from everything that was measured, no method is named, and the distances are shown."""
    code, out, _ = call("advise", "--rows", "1000000", "--classes", "4", "--tokens", "40", *results, "--json")
    assert code == 3 and tree_of(out)["ranked"] == [] and tree_of(out)["nothing_comparable"] is True
    assert "Nothing comparable was measured" in out and out.count("left out: over") == studies


def test_other_folders_of_records(call: Call) -> None:
    """`--results` names a folder of studies or a study, and may be repeated; one study twice is refused."""
    _, out, _ = call("advise", *CASE, "--results", "results/small", "--json")
    assert [one["study"] for one in tree_of(out)["near"]] == ["small"]
    _, out, _ = call("advise", *CASE, "--results", "results/small", "--results", "results/made", "--json")
    assert {one["study"] for one in tree_of(out)["near"]} == {"small", "fabricated"}
    refused(call("advise", *CASE, "--results", "results/small", "--results", "results"), "study small twice")


def test_a_users_file_is_measured(call: Call, tiny_model: Path) -> None:
    """Rows, classes and lengths are those that a study of the file would train on; a typed figure goes before."""
    write_csv(Path("mine.csv"), toy_rows(200))
    arguments = ("--data", "mine.csv", "--text", "text", "--label", "label", "--model", f"path:{tiny_model}", "--json")
    _, out, notes = call("advise", *arguments)
    case = tree_of(out)["case"]
    prepared = prepare(DataSpec(train="path:mine.csv"), Path("."))
    assert (case["rows"], case["classes"]) == (len(prepared.splits["train"]), len(prepared.labels))
    assert case["script"] == "Latin" and 3 < case["tokens"] < 60 and "reading mine.csv" in notes
    _, out, _ = call("advise", *arguments, "--rows", "700")
    assert tree_of(out)["case"] == {**case, "rows": 700}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["no --rows, no --classes, no --tokens", "--data FILE"]),
        (["--rows", "10"], ["no --classes, no --tokens"]),
        ([*CASE, "--rows", "0"], ["rows 0", "at least 1"]),
        ([*CASE, "--classes", "1"], ["classes 1", "at least 2"]),
        ([*CASE, "--task", "clasification"], ["unknown task", "did you mean 'classification'?"]),
        ([*CASE, "--metric", "acuracy"], ["'acuracy'", "did you mean 'accuracy'?"]),
        ([*CASE, "--memory", "2"], ["'2'", "2 GiB"]),
        ([*CASE, "--time", "soon"], ["'soon'", "10 min"]),
        ([*CASE, "--text-language", "xx"], ["'xx' of the texts"]),
        ([*CASE, "--lang", "de"], ["language 'de'"]),
        ([*CASE, "--text", "text"], ["--text without --data"]),
        ([*CASE, "--results", "nowhere"], ["no folder nowhere", "paretune publish", "--results"]),
        ([*CASE, "--results", "empty"], ["empty holds no study"]),
        (["--data", "none.csv"], ["no file none.csv"]),
        (["--data", "toy.csv", "--text", "txt"], ["no column 'txt'", "did you mean 'text'?"]),
        (["--data", "toy.csv", "--encoding", "utf-88"], ["encoding 'utf-88'"]),
        (["--data", "toy.csv", "--separator", ";;"], ["separator"]),
        ([*CASE, "--model", "asset:minilm-l7"], ["did you mean 'minilm-l6'?"]),
        ([*CASE, "--model", "minilm"], ["model source 'minilm'", "asset:NAME"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_no_advice_can_be_given_on(call: Call, arguments: list[str], parts: list[str]) -> None:
    """One line: what was given, what is allowed, what to do."""
    write_csv(Path("toy.csv"), toy_rows(60))
    refused(call("advise", *arguments), *parts)


def test_no_results_at_all(call: Call) -> None:
    """Without --results the studies that ship rank, whatever lies here; a named folder that is gone is refused."""
    there = call("advise", *CASE, "--json")
    Path("results").unlink()
    code, out, notes = call("advise", *CASE, "--json")
    found, wanted = tree_of(out), advise_on(shipped(), Case(480, 4, 41.25))
    assert code == 0 and (code, out, notes) == there
    assert f"{len(shipped())} studies published with this version" in notes
    assert [(one["rank"], one["method"]) for one in found["ranked"]] == [
        (one.rank, one.method) for one in wanted.ranked
    ]
    assert {one["study"] for one in found["near"] + found["far"]} == {one.study for one in shipped()}
    refused(call("advise", *CASE, "--results", "results"), "no folder results", "`paretune publish` makes them")
