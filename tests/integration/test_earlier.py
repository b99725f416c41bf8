"""A run that learns an earlier task first: what is kept, resumed, proved and recorded, with a toy model.

One file of the run's own process (as in `test_worker.py`), and one whole study with real workers.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_study import study_text, toy_rows, write_csv

from paretune.core.errors import DataError
from paretune.data.encoding import encode
from paretune.data.prepare import prepare, save
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.sources import model_digest
from paretune.models.tokenizer import read_tokenizer
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.build import build
from paretune.report.facts import gather
from paretune.report.forgetting import forgetting_rows
from paretune.repro.seeding import torch_generator
from paretune.study import earlier, worker
from paretune.study.design import make_method, read_study_file, run_spec
from paretune.study.progress import Silent
from paretune.study.publish import publish
from paretune.study.runner import run_study
from paretune.tasks.task import TASKS
from paretune.train import loop
from paretune.train.evaluate import predict

EARLIER = """
[earlier]
name = "two topics"
metric = "accuracy"
[earlier.data]
train = "path:first.csv"
"""
WEIGHTS = "trained.safetensors"


@pytest.fixture(autouse=True)
def _as_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a worker switches for its whole process is put back or not done: threads, determinism, signals."""
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setattr(worker, "die_with_parent", lambda: None)
    monkeypatch.setattr(worker.signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(worker, "usable_cores", lambda: 1)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def write_files(place: Path, model: Path, methods: dict[str, str], **more: object) -> Path:
    """A study of three topics after one of two, other texts; returns its file."""
    write_csv(place / "toy.csv", toy_rows(90))
    write_csv(place / "first.csv", toy_rows(90, seed=3, classes=("oil", "sport")))
    file = place / "toy.toml"
    file.write_text(study_text(f"path:{model}", methods, **more) + EARLIER)  # type: ignore[arg-type]
    return file


class Bench:
    """A toy study with an earlier task on disk, and one run of it."""

    def __init__(self, place: Path, model: Path, table: str, training: str = "") -> None:
        place.mkdir(exist_ok=True)
        self.model = model
        study = read_study_file(write_files(place, model, {"one": table, "head": ""}, training=training))
        assert study.file.earlier is not None
        self.folder = StudyFolder(place / "runs" / "toy")
        self.own, self.first = prepare(study.file.data, place), prepare(study.file.earlier.data, place)
        save(self.own, self.folder.data)
        save(self.first, self.folder.earlier_data)
        choice = study.methods["one"]
        rate = choice.learning_rates[0] if choice.learning_rates else None
        digest = model_digest(f"path:{model}")
        spec = run_spec(study, choice, 0, rate, digest, self.own.digest, self.first.digest)
        self.run: RunFolder = self.folder.run(spec)
        self.run.write_spec(spec)

    def work(self, stage: str) -> str:
        """Do a stage; returns "state: reason"."""
        worker.work(self.folder.path, self.run.path, stage, False)  # type: ignore[arg-type]
        status = self.run.status()
        assert status is not None and status.stage == stage
        return f"{status.state}: {status.reason}"

    def saved(self, place: str = "") -> dict[str, torch.Tensor]:
        return load_file(self.run.adapter / place / WEIGHTS)

    def answers(self, when: str) -> list[dict[str, object]]:
        table = self.run.earlier()
        assert table is not None
        return [row for row in table.to_pylist() if row["split"] == when]


@pytest.mark.parametrize("table", ['kind = "lora"\nrank = 4', 'kind = "full"'])
def test_a_run_learns_two_tasks_and_is_scored_on_the_first_before_and_after(
    tmp_path: Path, tiny_model: Path, table: str
) -> None:
    """Trained: both tasks, no test read. Scored: own predictions as ever, and the earlier task's test twice. The model
    that is scored is put together here by hand from what was saved: final encoder, earlier head."""
    bench = Bench(tmp_path / "s", tiny_model, table)
    assert bench.work("trained") == "ok: "
    trained = bench.run.measurements()
    assert set(trained.scores) == {"validation"} and bench.run.earlier() is None
    assert [cost.phase for cost in trained.phases] == ["tokenize", "load", "earlier", "save", "step", "eval"]
    assert trained.train_examples == len(bench.own.splits["train"]), "the earlier task's steps are not counted in"
    assert trained.adapter_bytes == (bench.run.adapter / WEIGHTS).stat().st_size
    assert bench.work("scored") == "ok: "
    assert bench.run.predictions().num_rows == len(bench.own.splits["test"])
    rows = bench.first.splits["test"]
    assert [row["id"] for row in bench.answers("before")] == list(rows.ids)
    assert [row["label"] for row in bench.answers("after")] == list(rows.labels)

    final, first = bench.saved(), bench.saved("earlier")
    assert final["head.weight"].shape[0] == 3 and first["head.weight"].shape[0] == 2
    moved = [name for name in first if name.startswith("encoder.") and not torch.equal(first[name], final[name])]
    assert moved, "the second task went on with the encoder of the first"
    spec = bench.run.spec()
    method = make_method(spec.kind, spec.settings)
    assert isinstance(method, Adaptation)
    task = TASKS.load("classification")(bench.first.labels)
    encoded = encode(read_tokenizer(f"path:{tiny_model}"), rows.texts, 32, "")
    for when, encoder in (("before", first), ("after", final)):
        model = EncoderClassifier(load_encoder(f"path:{tiny_model}"), 2, "mean")
        method.attach(model, torch_generator(0, "init"))
        method.load_state(model, {name: (first if "head." in name else encoder)[name] for name in first})
        outcome = task.outcome(predict(model, task, encoded, "fp32"), rows.labels)
        recorded = [row["label_probability"] for row in bench.answers(when)]
        assert recorded == pytest.approx(outcome.label_probabilities_n.tolist(), abs=1e-6)
        assert [row["prediction"] for row in bench.answers(when)] == list(outcome.predictions)


def test_the_second_task_begins_where_the_first_ended_with_a_new_head(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same adapter weights go on; the head is new, random, and of the own task's classes."""
    bench = Bench(tmp_path / "s", tiny_model, 'kind = "lora"\nrank = 4')
    seen: list[dict[str, torch.Tensor]] = []
    real = worker.train

    def look_and_train(model, method, *others):
        seen.append({name: tensor.clone() for name, tensor in method.state(model).items()})
        return real(model, method, *others)

    monkeypatch.setattr(worker, "train", look_and_train)
    assert bench.work("trained") == "ok: "
    first = bench.saved("earlier")
    (start,) = seen
    assert start["head.weight"].shape[0] == 3 and float(start["head.weight"].std()) == pytest.approx(0.02, rel=0.3)
    assert all(torch.equal(start[name], first[name]) for name in first if name.startswith("encoder."))


def test_head_only_forgets_nothing(tmp_path: Path, tiny_model: Path) -> None:
    """A check of the whole way: the encoder stays, so the earlier head says to the bit what it said."""
    bench = Bench(tmp_path / "s", tiny_model, 'kind = "head"')
    assert bench.work("trained") == "ok: " and bench.work("scored") == "ok: "
    before, after = ([{**row, "split": ""} for row in bench.answers(when)] for when in ("before", "after"))
    assert before == after


def test_a_baseline_is_fitted_to_the_earlier_task_anew(tmp_path: Path, tiny_model: Path) -> None:
    """It has a level before and no after; its own task's predictions and parameters are those of its own fit."""
    bench = Bench(tmp_path / "s", tiny_model, 'kind = "tfidf"')
    assert bench.work("scored") == "ok: "
    right = [row["label"] == row["prediction"] for row in bench.answers("before")]
    assert sum(right) / len(right) > 0.8 and bench.answers("after") == []
    assert set(bench.run.predictions()["prediction"].to_pylist()) == {"bank", "oil", "sport"}


def test_a_run_killed_in_its_second_task_does_not_learn_the_first_again(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the bytes of an undisturbed run, dropout included, and says that the cost is not whole."""
    table = 'kind = "lora"\nrank = 4\ndropout = 0.2'
    whole, torn = (Bench(tmp_path / name, tiny_model, table) for name in ("whole", "torn"))
    assert whole.work("trained") == "ok: "

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "train", die)
        torn.work("trained")
    torn.run.clear_events()
    with monkeypatch.context() as patch:
        patch.setattr(earlier, "train", die)
        assert torn.work("trained") == "ok: "
    for place in ("", "earlier"):
        assert (torn.run.adapter / place / WEIGHTS).read_bytes() == (whole.run.adapter / place / WEIGHTS).read_bytes()
    assert "resumed after its earlier task" in torn.run.measurements().notes[0]
    assert whole.run.measurements().notes == []


def test_a_run_killed_in_its_first_task_goes_on_from_its_checkpoint(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where checkpoints are asked for, the earlier task has its own; both are cleared away."""
    whole, torn = (Bench(tmp_path / name, tiny_model, 'kind = "full"', "checkpoint_every_steps = 2")
                   for name in ("whole", "torn"))  # fmt: skip
    assert whole.work("trained") == "ok: "
    real = loop.write_checkpoint

    def write_and_die(path: Path, blob: bytes) -> None:
        real(path, blob)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "write_checkpoint", write_and_die)
        torn.work("trained")
    assert [path.name for path in torn.run.path.glob("*.pt")] == ["checkpoint-earlier.pt"]
    torn.run.clear_events()
    assert torn.work("trained") == "ok: "
    for place in ("", "earlier"):
        assert (torn.run.adapter / place / WEIGHTS).read_bytes() == (whole.run.adapter / place / WEIGHTS).read_bytes()
    assert not list(torn.run.path.glob("*.pt"))


def test_earlier_weights_that_changed_on_disk_fail_the_reload(tmp_path: Path, tiny_model: Path) -> None:
    """The model before is held to its reference logits as the final one is; nothing is recorded as forgotten."""
    bench = Bench(tmp_path / "s", tiny_model, 'kind = "lora"\nrank = 4')
    assert bench.work("trained") == "ok: "
    state = bench.saved("earlier")
    state["head.bias"] = state["head.bias"] + 0.01
    save_file(state, bench.run.adapter / "earlier" / WEIGHTS)
    assert bench.work("scored").startswith("failed: reloaded logits differ by 0.01")
    assert bench.run.earlier() is None and not (bench.run.path / "predictions.parquet").exists()


def test_an_earlier_task_that_moved_nothing_fails_by_name(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was never learnt cannot be forgotten: the run fails before it begins its own task."""
    bench = Bench(tmp_path / "s", tiny_model, 'kind = "lora"')
    monkeypatch.setattr(loop, "schedule_factor", lambda step, steps, share: 0.0)
    said = bench.work("trained")
    assert said.startswith("failed: ") and "moved" in said
    assert not (bench.run.adapter / "earlier").exists()


@pytest.mark.parametrize("fault", ["missing", "other column"])
def test_earlier_data_that_cannot_be_used_are_one_line(tmp_path: Path, tiny_model: Path, fault: str) -> None:
    """The study does not begin; the line says which table it is about."""
    file = write_files(tmp_path, tiny_model, {"head": ""})
    if fault == "missing":
        (tmp_path / "first.csv").unlink()
    else:
        write_csv(tmp_path / "first.csv", [])
    with pytest.raises(DataError, match=r"^earlier\.data: .*first\.csv") as caught:
        run_study(read_study_file(file), tmp_path / "runs", Silent(), "test")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").glob("toy/runs/*"))


PROGRAM = "from paretune.cli import main; main()"


@pytest.mark.slow
def test_a_whole_study_killed_continued_published_and_reported(tmp_path: Path, tiny_model: Path) -> None:
    """Real workers, `kill -9` in the middle, the rest by the command line, then records and report without weights."""
    methods = {"tfidf": "", "head": "", "lora": "rank = 4", "full": ""}
    file = write_files(tmp_path, tiny_model, methods, search=[0.5, 1.0])
    command = [sys.executable, "-c", PROGRAM, "study", str(file), "--runs", str(tmp_path / "runs"), "--lang", "en"]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while not list(tmp_path.glob("runs/toy/runs/*/adapter/earlier")):  # some run is in its second task or beyond
            assert time.monotonic() < end and first.poll() is None, (tmp_path / "first.log").read_text()
            time.sleep(0.02)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "undecided" in done.stdout + done.stderr, done.stderr
    folder = StudyFolder(tmp_path / "runs" / "toy")
    record = folder.study()
    assert (
        record.earlier is not None and record.earlier.name == "two topics" and record.earlier.labels == ["oil", "sport"]
    )
    scored = [run for run in folder.runs() if run.scored]
    assert len(scored) == 8 and all(run.earlier() is not None for run in scored)
    assert all(run.scored or not run.adapter.exists() for run in folder.runs()), "a losing rate keeps no weights"

    target, _ = publish(folder.path, tmp_path / "results")
    assert len(list(target.glob("runs/*/earlier.parquet"))) == 8
    assert not list(target.rglob("*.safetensors")) and not (target / "data").exists()
    rows = {row.method: row for row in forgetting_rows(gather(StudyFolder(target)))}
    assert set(rows) == set(methods)
    assert rows["head"].unchanged and rows["tfidf"].after is None
    for method in ("lora", "full"):
        row = rows[method]
        assert row.after is not None and row.forgetting is not None
        assert row.forgetting.estimate == pytest.approx(row.before.estimate - row.after.estimate)
    assert "two topics" in build(target, "ru").read_text("utf-8")
