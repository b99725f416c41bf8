"""The runner on toy studies, with real worker processes: it finishes, continues, shares, and survives what fails.

A run's folder is judged by what is on disk; nothing of the runner is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from toy_study import VOCABULARY, study_text, toy_rows, write_csv

from paretune.core.errors import StorageError
from paretune.models.tiny import write_tiny_bert
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.facts import gather
from paretune.report.tables import summary
from paretune.study.design import read_study_file
from paretune.study.progress import Silent
from paretune.study.runner import run_study

LONG = "epochs = 4000\npatience = 0"  # of the toy data: long enough to be interrupted, never waited for
pytestmark = pytest.mark.slow  # real worker processes: seconds each

# A background job (of a CI, say) inherits an ignored Ctrl-C, and Python then leaves it ignored.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from paretune.cli import main; main()"
)


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache folder for this file: the parent of the workers takes its environment once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETUNE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PARETUNE_OFFLINE", "1")
        yield


MakeStudy = Callable[..., Path]


@pytest.fixture
def make_study(tmp_path: Path, tiny_model: Path) -> MakeStudy:
    """Writes a study file beside 90 toy rows; takes the methods' tables and `study_text`'s settings."""

    def make(methods: dict[str, str], **more: object) -> Path:
        write_csv(tmp_path / "toy.csv", toy_rows(90))
        file = tmp_path / "toy.toml"
        text = study_text(f"path:{tiny_model}", methods, **more)  # type: ignore[arg-type]
        if more.get("training"):
            text = text.replace("epochs = 1\n", "", 1)
        file.write_text(text)
        return file

    return make


def run_here(file: Path) -> StudyFolder:
    return run_study(read_study_file(file), file.parent / "runs", Silent(), "test")


STILL = 'kind = "full"\nlearning_rate = 1e-30'  # so low that no weight moves


class CommandLine:
    """The program in a process group of its own; what it says goes to a file."""

    def __init__(self, file: Path, name: str = "runner") -> None:
        self._log = file.parent / f"{name}.log"
        command = [
            sys.executable,
            "-c",
            PROGRAM,
            "study",
            str(file),
            "--runs",
            str(file.parent / "runs"),
            "--lang",
            "en",
        ]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def end(self, number: signal.Signals, group: bool = True) -> None:
        """Send a signal to the whole group, as a terminal does, or to the runner alone; wait for the runner."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        self.process.wait(timeout=60)

    def family(self) -> list[psutil.Process]:
        """The runner's parent of workers, and its workers."""
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def said(self) -> str:
        return self._log.read_text()


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[..., CommandLine]:
    """Starts the command line; whatever is left of its group is killed after the test."""

    def begin(file: Path, name: str = "runner") -> CommandLine:
        line = CommandLine(file, name)

        def clear() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(line.process.pid, signal.SIGKILL)
            line.process.wait()

        request.addfinalizer(clear)
        return line

    return begin


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def runs_of(folder: StudyFolder, method: str) -> list[RunFolder]:
    return [run for run in folder.runs() if run.spec().method == method]


def wait_for(what: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def training_run(root: Path) -> Path | None:
    """A run's folder that has training steps and no status: its worker is in the middle."""
    for events in root.glob("toy/runs/*/events.jsonl"):
        if not (events.parent / "status").exists() and '"StepEnded"' in events.read_text():
            return events.parent
    return None


def written(folder: StudyFolder) -> dict[str, int]:
    """Time of last change of every file of the runs, by path."""
    files = (folder.path / "runs").rglob("*")
    return {str(file): file.stat().st_mtime_ns for file in files if file.is_file() and file.name != "lock"}


def assert_one_set_of_events(run: RunFolder) -> None:
    """Each step once and in order, each phase begun as often as ended, no torn line."""
    lines = (run.path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    steps = [event["step"] for event in events if event["event"] == "StepEnded"]
    planned = [event["steps"] for event in events if event["event"] == "TrainingPlanned"]
    stopped = [event["step"] for event in events if event["event"] == "TrainingStopped"]
    assert steps == list(range(1, sum(stopped or planned) + 1)) and len(steps) <= sum(planned)
    evaluated = sum(event["event"] == "EpochEvaluated" for event in events)
    begun = Counter(event["phase"] for event in events if event["event"] == "PhaseStarted")
    ended = Counter(event["phase"] for event in events if event["event"] == "PhaseEnded")
    assert begun == ended
    assert begun["step"] == 1 + evaluated and begun["predict"] == 1


def test_a_study_runs_to_its_end_and_a_second_call_reruns_nothing(make_study: MakeStudy) -> None:
    """All runs end well, losers have no predictions and no weights, and nothing is written by the second call."""
    file = make_study({"majority": "", "tfidf": "", "full": "learning_rate = 1e-3"}, search=[0.1, 1.0])
    folder = run_here(file)
    study = folder.study()
    assert [choice.method for choice in study.selections] == ["full"]
    chosen = study.selections[0].learning_rate
    trials = len(study.selections[0].trials)  # an edge that won has added some
    assert trials >= 2
    assert Counter(run.spec().method for run in folder.runs()) == {"majority": 2, "tfidf": 2, "full": trials + 1}
    for run in folder.runs():
        spec, status = run.spec(), run.status()
        assert status is not None and status.state == "ok", status
        if spec.learning_rate in (None, chosen):
            assert status.stage == "scored"
            assert run.predictions().num_rows == study.split_rows["test"]
            assert set(run.measurements().scores) == {"validation", "test"}
            assert_one_set_of_events(run)
        else:
            assert status.stage == "trained"
            assert not (run.path / "predictions.parquet").exists() and not run.adapter.exists()
            assert set(run.measurements().scores) == {"validation"}, "a losing trial never saw the test data"
    probed = [run.spec().seed for run in folder.runs() if run.scored and run.measurements().latency]
    assert probed == [0, 0, 0], "latency is probed once a method, with the first seed"
    before = written(folder)
    assert run_here(file).study() == study
    assert written(folder) == before


def test_selection_takes_the_best_validation_score(make_study: MakeStudy) -> None:
    """The chosen learning rate is the one with the best headline metric on validation data, whatever the test says."""
    folder = run_here(make_study({"head": ""}, seeds=[3], search=[0.001, 1.0, 10.0]))
    (choice,) = folder.study().selections
    metric = {run.spec().learning_rate: run.measurements().scores["validation"] for run in folder.runs()}
    best = max(metric, key=lambda rate: (metric[rate]["accuracy"], -metric[rate]["log_loss"]))
    assert choice.learning_rate == best
    assert choice.trials == {f"{rate:g}": scores["accuracy"] for rate, scores in metric.items()}


def test_a_failing_method_does_not_stop_the_study(make_study: MakeStudy) -> None:
    """A method whose training moves nothing fails with its reason; the others reach their end."""
    folder = run_here(make_study({"still": STILL, "head": ""}, seeds=[0]))
    (failed,) = [run.status() for run in runs_of(folder, "still")]
    assert failed is not None and failed.state == "failed" and "moved" in failed.reason
    assert all(run.scored for run in runs_of(folder, "head"))


def test_a_cap_too_small_ends_in_oom_and_the_study_goes_on(make_study: MakeStudy) -> None:
    """Under a cap that the imports alone fill, each run ends as `oom`, and the next one is tried."""
    folder = run_here(make_study({"head": "", "full": ""}, seeds=[0], budget='memory = "64 MiB"\ntime = "30 s"'))
    states = {run.spec().method: run.status() for run in folder.runs()}
    assert set(states) == {"head", "full"}
    assert all(status is not None and status.state == "oom" and status.reason for status in states.values()), states


def test_a_cap_that_training_outgrows_ends_in_oom(make_study: MakeStudy, tmp_path: Path) -> None:
    """A cap above the imports and below what full fine-tuning needs stops that method, and the baseline is scored."""
    model = write_tiny_bert(tmp_path / "large", hidden=512, layers=8, vocabulary=VOCABULARY)
    file = make_study({"majority": "", "full": ""}, seeds=[0], budget='memory = "660 MiB"\ntime = "60 s"')
    file.write_text(re.sub(r'source = ".*"', f'source = "path:{model}"', file.read_text()))
    folder = run_here(file)
    (status,) = [run.status() for run in runs_of(folder, "full")]
    assert status is not None and status.state == "oom" and "cap" in status.reason, status
    assert all(run.scored for run in runs_of(folder, "majority"))


def test_a_run_over_its_time_ends_in_timeout(make_study: MakeStudy) -> None:
    """A run past `budget.time` is stopped, keeps its reason, and is not tried again."""
    file = make_study({"majority": "", "full": ""}, seeds=[0], training=LONG, budget='time = "3 s"')
    began = time.monotonic()
    folder = run_here(file)
    assert time.monotonic() - began < 60
    (run,) = runs_of(folder, "full")
    status = run.status()
    assert status is not None and (status.state, status.reason) == ("timeout", "took longer than 3 s")
    assert all(one.scored for one in runs_of(folder, "majority"))
    before = written(folder)
    run_here(file)
    assert written(folder) == before


def test_what_a_worker_cannot_write_stops_the_study_with_one_line(make_study: MakeStudy) -> None:
    """What a worker cannot write is the study's end, as StorageError, not a run that failed."""
    file = make_study({"majority": ""}, seeds=[0])
    folder = run_here(file)
    (run,) = folder.runs()
    (run.path / "status").unlink()
    (run.path / "predictions.parquet").unlink()
    (run.path / "measurements.json").unlink()
    (run.path / "measurements.json").mkdir()  # as root, a folder in the way is what cannot be replaced
    with pytest.raises(StorageError, match=r"cannot write .*measurements\.json"):
        run_here(file)
    (run.path / "measurements.json").rmdir()
    assert [one.scored for one in run_here(file).runs()] == [True]


def test_ctrl_c_cancels_the_current_run_and_the_next_call_goes_on(
    make_study: MakeStudy, start: Callable[..., CommandLine]
) -> None:
    """SIGINT to the group, as a terminal sends it: exit 130, one run cancelled, no process left, nothing else lost."""
    file = make_study({"majority": "", "full": ""}, seeds=[0], training=LONG)
    root = file.parent / "runs"
    runner = start(file)
    wait_for(lambda: training_run(root) is not None)
    family = runner.family()
    runner.end(signal.SIGINT)
    assert runner.process.returncode == 130
    assert "Traceback" not in runner.said and "the next call goes on" in runner.said.splitlines()[-1]
    wait_for(lambda: gone(family), seconds=5)
    folder = StudyFolder(root / "toy")
    (cancelled,) = runs_of(folder, "full")
    status = cancelled.status()
    assert status is not None and status.state == "cancelled"
    before = {path: at for path, at in written(folder).items() if cancelled.id not in path}
    # The next call takes the cancelled run up again; its time is cut here, which is no part of a run's identity.
    make_study({"majority": "", "full": ""}, seeds=[0], training=LONG, budget='time = "1 s"')
    run_here(file)
    after = written(folder)
    assert {path: after[path] for path in before} == before
    status = cancelled.status()
    assert status is not None and status.state == "timeout"


def test_kill_9_of_the_runner_ends_its_worker_too(make_study: MakeStudy, start: Callable[..., CommandLine]) -> None:
    """No orphan goes on writing into a run that the next runner may take."""
    file = make_study({"full": ""}, seeds=[0], training=LONG)
    root = file.parent / "runs"
    runner = start(file)
    wait_for(lambda: training_run(root) is not None)
    run, family = training_run(root), runner.family()
    assert run is not None and len(family) >= 2
    runner.end(signal.SIGKILL, group=False)
    wait_for(lambda: gone(family), seconds=5)
    assert not (run / "status").exists(), "it had not just come to its end"


def test_after_kill_9_finished_runs_are_untouched_and_the_study_completes(
    make_study: MakeStudy, start: Callable[..., CommandLine]
) -> None:
    """The current run is lost and done anew; what had ended keeps its bytes and times."""
    file = make_study({"majority": "", "head": "", "full": ""}, seeds=[0, 1])
    root = file.parent / "runs"
    runner = start(file)

    def one_trained() -> bool:
        specs = root.glob("toy/runs/*/spec.json")
        return any('"head"' in path.read_text() and (path.parent / "status").exists() for path in specs)

    wait_for(one_trained)
    runner.end(signal.SIGKILL)
    folder = StudyFolder(root / "toy")
    scored = [run for run in folder.runs() if run.scored]
    before = {path: at for path, at in written(folder).items() if any(run.id in path for run in scored)}
    assert before, "something had ended"
    run_here(file)
    assert len(folder.runs()) == 6 and all(run.scored for run in folder.runs())
    after = written(folder)
    assert {path: after[path] for path in before} == before
    for run in folder.runs():
        assert_one_set_of_events(run)


def test_a_scoring_that_was_killed_leaves_no_second_set_of_events(make_study: MakeStudy) -> None:
    """What a killed second stage wrote is not mixed with what the next attempt writes."""
    file = make_study({"head": ""}, seeds=[0])
    (run,) = run_here(file).runs()
    for name in ("predictions.parquet", "measurements.json"):
        assert (run.path / name).exists()
    # As a kill in the middle of scoring leaves it: status of the first stage, events of half of the second.
    status = run.status()
    assert status is not None
    lines = (run.path / "events.jsonl").read_text().splitlines(keepends=True)
    cut = next(place for place, line in enumerate(lines) if '"predict"' in line)
    (run.path / "events.jsonl").write_text("".join(lines[: cut + 1]) + '{"event": "Phase')
    (run.path / "predictions.parquet").unlink()
    run.set_status("ok", "trained")
    assert [one.scored for one in run_here(file).runs()] == [True]
    assert_one_set_of_events(run)


def test_two_runners_share_one_folder(make_study: MakeStudy, start: Callable[..., CommandLine]) -> None:
    """Both end well; every run has exactly one whole set of events and its predictions."""
    file = make_study({"majority": "", "head": "", "full": ""}, seeds=[0, 1])
    runners = [start(file, f"runner-{number}") for number in range(2)]
    codes = {runner.process.wait(timeout=300) for runner in runners}
    assert codes <= {0, 3}, [runner.said for runner in runners]  # 3: done, and the toy question is undecided
    folder = StudyFolder(file.parent / "runs" / "toy")
    assert len(folder.runs()) == 6 and all(run.scored for run in folder.runs())
    for run in folder.runs():
        assert_one_set_of_events(run)
        assert run.predictions().num_rows == folder.study().split_rows["test"]
    done = [line for runner in runners for line in runner.said.splitlines() if " → " in line]
    assert len(done) == 10, "two baselines, and four adaptations in two stages each: none was done twice"


def test_changed_data_make_new_runs(make_study: MakeStudy) -> None:
    """A data file that changed under a study is seen: its runs are new ones, and the old stay."""
    file = make_study({"majority": ""}, seeds=[0])
    first = run_here(file).runs()
    write_csv(file.parent / "toy.csv", toy_rows(60, seed=5))
    folder = run_here(file)
    assert len(folder.runs()) == 2 and {run.id for run in first} < {run.id for run in folder.runs()}
    assert folder.study().split_rows["test"] < 18


def test_data_of_the_same_size_and_time_are_seen(make_study: MakeStudy) -> None:
    """Another content is another content, whatever the clock says of the file."""
    file = make_study({"majority": ""}, seeds=[0])
    data = file.parent / "toy.csv"
    first = run_here(file).study().membership
    before = data.stat()
    data.write_text(data.read_text().replace("bank\n", "cash\n"))
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (data.stat().st_size, data.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    study = run_here(file).study()
    assert study.labels == ["cash", "oil", "sport"]
    assert first is not None and study.membership is not None and first.runs != study.membership.runs


class Stopped(Silent):
    """Stops the study as Ctrl-C does when its first run would begin."""

    def began(self, job: object, plan: object) -> None:
        raise KeyboardInterrupt


def test_a_changed_study_shows_its_own_runs_and_finds_the_old_ones_again(make_study: MakeStudy) -> None:
    """Pooling mean, then cls and stopped at once, then mean: never the scores of the other; at last nothing is run."""
    file = make_study({"majority": "", "head": ""}, seeds=[0])
    text = file.read_text()
    first = run_here(file)
    mean = {run.id for run in first.runs()}
    file.write_text(text.replace("[model]\n", '[model]\npooling = "cls"\n'))
    with pytest.raises(KeyboardInterrupt):
        run_study(read_study_file(file), file.parent / "runs", Stopped(), "test")
    rows = summary(first.path)
    assert [(row.scored_runs, row.stopped) for row in rows] == [(0, {"unfinished": 1})] * 2
    assert run_here(file).study().membership is not None
    assert len(first.runs()) == 4
    assert {run.id for one in gather(first).methods for run in one.runs.values()}.isdisjoint(mean)
    file.write_text(text)
    before = written(first)
    run_here(file)
    assert written(first) == before
    facts = gather(first)
    assert {run.id for one in facts.methods for run in one.runs.values()} == mean
    assert all(run.adapter.exists() for run in first.runs() if run.spec().method == "head")


class Watching(Silent):
    """Reads the study's record whenever the runner says something."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.choices: list[int] = []

    def note(self, text: str) -> None:
        self.choices.append(len(self.folder.study().selections))


def test_running_again_never_empties_the_choices(make_study: MakeStudy) -> None:
    """Whenever a second call is killed, a report has what it had before."""
    file = make_study({"head": ""}, seeds=[0])
    watching = Watching(run_here(file))
    run_study(read_study_file(file), file.parent / "runs", watching, "test")
    assert watching.choices and set(watching.choices) == {1}
    assert watching.folder.study().membership is not None


class Listening(Silent):
    """Keeps what the runner says, and counts the jobs that it began."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.jobs = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def began(self, job: object, plan: object) -> None:
        self.jobs += 1


def test_lost_files_are_named_and_made_again(make_study: MakeStudy) -> None:
    """Predictions, measurements, spec, prepared data, exploration of a finished study; what else is there stays."""
    file = make_study({"majority": "", "head": ""}, seeds=[0])
    folder = run_here(file)
    (run,) = runs_of(folder, "head")
    (base,) = runs_of(folder, "majority")
    before = run.predictions()
    for path, jobs in {
        run.path / "predictions.parquet": 1,
        run.path / "measurements.json": 2,
        run.path / "spec.json": 0,
        base.path / "predictions.parquet": 1,
        base.path / "spec.json": 0,
        folder.data / "data.parquet": 0,
        folder.path / "explore.json": 0,
    }.items():
        path.unlink()
        listening = Listening()
        run_study(read_study_file(file), file.parent / "runs", listening, "test")
        named = [line for line in listening.notes if path.name in line or path.parent.name in line]
        assert path.exists() and listening.jobs == jobs, (path, listening.jobs)
        assert named or path.name == "explore.json", (path, listening.notes)
        assert all(one.scored for one in (run, base)) and run.predictions().equals(before)


def test_a_study_in_which_nothing_was_scored_fails(make_study: MakeStudy, start: Callable[..., CommandLine]) -> None:
    """Exit 1, how the runs ended in the last line, and nothing is offered for export."""
    runner = start(make_study({"still": STILL}, seeds=[0]))
    assert runner.process.wait(timeout=300) == 1
    assert "no run was scored: still: failed × 1" in runner.said.splitlines()[-1]
    assert "moved" in runner.said.splitlines()[-1] and "export" not in runner.said


def test_a_method_that_the_model_has_no_place_for_ends_the_study_before_it_begins(
    make_study: MakeStudy, start: Callable[..., CommandLine]
) -> None:
    """Exit 2 and one line that names the method's table; no folder of the study is left."""
    file = make_study({"head": "", "deep": 'kind = "last_layers"\nlayers = 99'}, seeds=[0])
    runner = start(file)
    assert runner.process.wait(timeout=300) == 2
    last = runner.said.splitlines()[-1]
    assert "methods.deep: layers = 99; expected at most 2" in last and "leave methods.deep out" in last
    assert not (file.parent / "runs" / "toy").exists()
