"""One run in this process: what a worker writes, proves and refuses. Cap and signals: `test_runner.py`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.utils.class_weight import compute_sample_weight
from toy_study import study_text, toy_rows, write_csv

from paretune.data.prepare import prepare, save
from paretune.measure.meter import Meter
from paretune.methods.method import Adaptation
from paretune.models.sources import model_digest
from paretune.records.store import RunFolder, StudyFolder
from paretune.study import worker
from paretune.study.design import make_method, read_study_file, run_spec
from paretune.study.desk import Desk, built, encoded_splits
from paretune.tasks.classification import Classification
from paretune.train import loop
from paretune.train.checkpoint import write_checkpoint
from paretune.train.evaluate import predict_logits
from paretune.train.loop import planned_batches


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


class Bench:
    """A toy study on disk, and one run of it."""

    def __init__(self, place: Path, model: Path, table: str, training: str = "", unequal: bool = False) -> None:
        rows = toy_rows(90)
        write_csv(place / "toy.csv", [one for at, one in enumerate(rows) if not unequal or at % 3 == 0 or at % 9 < 3])
        text = study_text(f"path:{model}", {"one": table}, training=training)
        (place / "toy.toml").write_text(text)
        study = read_study_file(place / "toy.toml")
        self.folder = StudyFolder(place / "runs" / "toy")
        self.prepared = prepare(study.file.data, place)
        save(self.prepared, self.folder.data)
        choice = study.methods["one"]
        rate = choice.learning_rates[0] if choice.learning_rates else None
        spec = run_spec(study, choice, 0, rate, model_digest(f"path:{model}"), self.prepared.digest)
        self.run: RunFolder = self.folder.run(spec)
        self.run.write_spec(spec)

    def work(self, stage: str, probe_latency: bool = False) -> str:
        """Do a stage; returns "state: reason"."""
        worker.work(self.folder.path, self.run.path, stage, probe_latency)  # type: ignore[arg-type]
        status = self.run.status()
        assert status is not None and status.stage == stage
        return f"{status.state}: {status.reason}"


def test_a_run_in_two_stages(tmp_path: Path, tiny_model: Path) -> None:
    """Trained: weights, costs and validation scores, no test. Scored: reloaded, test scores, predictions, latency."""
    bench = Bench(tmp_path, tiny_model, 'kind = "lora"\nrank = 4')
    assert bench.work("trained") == "ok: "
    trained = bench.run.measurements()
    assert set(trained.scores) == {"validation"} and not (bench.run.path / "predictions.parquet").exists()
    assert [cost.phase for cost in trained.phases] == ["tokenize", "load", "step", "eval", "save"]
    assert trained.adapter_bytes == (bench.run.adapter / "trained.safetensors").stat().st_size
    assert trained.train_examples == len(bench.prepared.splits["train"])
    assert trained.padding_ratio is not None and 1 <= trained.padding_ratio <= 1.25
    assert 0 < trained.trainable_parameters < trained.total_parameters
    assert trained.peak_memory_bytes.value > 2**26 and trained.train_seconds.value > 0
    assert trained.precision == "fp32" and trained.energy_joules is not None
    engine = trained.engine
    assert engine is not None and (engine.name, engine.threads) == ("torch", 1) and "fp32" in engine.reason
    assert engine.processor == bench.run.provenance()["machine"]["processor"]
    assert "versions" in bench.run.provenance()
    assert not (bench.run.path / "checkpoint.pt").exists()

    assert bench.work("scored", probe_latency=True) == "ok: "
    scored = bench.run.measurements()
    assert set(scored.scores) == {"validation", "test"}
    assert scored.scores["validation"] == trained.scores["validation"]
    assert scored.engine == trained.engine
    assert scored.train_seconds == trained.train_seconds and scored.peak_memory_bytes == trained.peak_memory_bytes
    assert [one.batch for one in scored.latency] == [1, 32]
    found = bench.run.predictions()
    rows = bench.prepared.splits["test"]
    assert found["id"].to_pylist() == list(rows.ids) and found["label"].to_pylist() == list(rows.labels)
    right = [a == b for a, b in zip(found["label"].to_pylist(), found["prediction"].to_pylist(), strict=True)]
    assert scored.scores["test"]["accuracy"] == pytest.approx(sum(right) / len(right))
    assert all(one > 0.33 for one in found["score"].to_pylist()), "the best of three classes"


def test_a_baseline_in_one_stage(tmp_path: Path, tiny_model: Path) -> None:
    """Fitted and scored at once; it has no weights, no precision of the network, and far from chance on toy texts."""
    bench = Bench(tmp_path, tiny_model, 'kind = "tfidf"')
    assert bench.work("scored") == "ok: "
    found = bench.run.measurements()
    assert found.adapter_bytes is None and found.latency == [] and found.padding_ratio is None
    assert found.scores["test"]["accuracy"] > 0.8
    assert found.engine is not None and (found.engine.name, found.engine.reason) == ("none", "")
    assert bench.run.scored and not bench.run.adapter.exists()


def test_the_same_run_gives_the_same_bits(tmp_path: Path, tiny_model: Path) -> None:
    """Weights and predictions of two attempts at one spec are equal byte for byte."""
    ends: list[tuple[bytes, list[object]]] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, tiny_model, 'kind = "full"')
        assert bench.work("trained") == "ok: " and bench.work("scored") == "ok: "
        ends.append(((bench.run.adapter / "trained.safetensors").read_bytes(), bench.run.predictions().to_pylist()))
    assert ends[0] == ends[1]


def test_weights_that_changed_on_disk_fail_the_reload(tmp_path: Path, tiny_model: Path) -> None:
    """Logits after reloading are compared with those kept after training: the run fails, the test is not read."""
    bench = Bench(tmp_path, tiny_model, 'kind = "head"')
    assert bench.work("trained") == "ok: "
    path = bench.run.adapter / "trained.safetensors"
    state = load_file(path)
    state["head.bias"] = state["head.bias"] + 0.01
    save_file(state, path)
    assert bench.work("scored").startswith("failed: reloaded logits differ by 0.01")
    assert set(bench.run.measurements().scores) == {"validation"}
    assert not (bench.run.path / "predictions.parquet").exists()


def test_an_adapter_that_did_not_move_fails_by_name(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule that never leaves zero stands for it: failed, with the reason, and nothing was saved."""
    bench = Bench(tmp_path, tiny_model, 'kind = "lora"')
    monkeypatch.setattr(loop, "schedule_factor", lambda step, steps, share: 0.0)
    said = bench.work("trained")
    assert said.startswith("failed: ") and "moved" in said
    assert not bench.run.adapter.exists()


def test_a_loss_that_is_not_finite_fails_with_the_step(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names step and learning rate."""
    bench = Bench(tmp_path, tiny_model, 'kind = "full"')
    monkeypatch.setattr(loop, "schedule_factor", lambda step, steps, share: 1e30)
    said = bench.work("trained")
    assert said.startswith("failed: loss is nan at step 2 of") and "learning rate" in said


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), "oom: the machine's memory is not enough"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "oom: ",
        ),
        (OSError(12, "Cannot allocate memory"), "oom: "),
        (RuntimeError("shape mismatch\nwith details"), "failed: RuntimeError: shape mismatch"),
        (KeyError("surprise"), "failed: KeyError: 'surprise'"),
    ],
)
def test_what_goes_wrong_becomes_a_status(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, wanted: str
) -> None:
    """Out of memory in each of its disguises is `oom`; a defect is `failed`, in one line, with the trace beside it."""
    bench = Bench(tmp_path, tiny_model, 'kind = "head"')

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(worker, "train", fail)
    said = bench.work("trained")
    assert said.startswith(wanted) and "\n" not in said
    assert (bench.run.path / "error.txt").exists() == said.startswith("failed")


def test_a_killed_training_goes_on_from_its_checkpoint(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt starts after the checkpoint, ends with the weights of an undisturbed run, and clears up."""
    training = "checkpoint_every_steps = 2"
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    whole = Bench(tmp_path / "whole", tiny_model, 'kind = "full"', training)
    assert whole.work("trained") == "ok: "
    torn = Bench(tmp_path / "torn", tiny_model, 'kind = "full"', training)
    real, calls = loop.write_checkpoint, []

    def write_and_die(path: Path, blob: bytes) -> None:
        real(path, blob)
        calls.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "write_checkpoint", write_and_die)
        torn.work("trained")
    assert len(calls) == 1 and calls[0].exists()
    torn.run.clear_events()
    assert torn.work("trained") == "ok: "
    steps = [event["step"] for event in torn.run.events() if event["event"] == "StepEnded"]
    assert steps and steps[0] == 3
    name = "trained.safetensors"
    assert (torn.run.adapter / name).read_bytes() == (whole.run.adapter / name).read_bytes()
    assert not calls[0].exists()


@pytest.mark.parametrize("killed_at", ["first", "last"])
@pytest.mark.parametrize("known", ["measured", "another machine", "not measured"])
def test_a_resumed_run_costs_what_its_parts_cost(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str, known: str
) -> None:
    """Steps, tokens and seconds of all parts, also where no step was left; what was not all measured here is an
    estimate."""
    bench = Bench(tmp_path, tiny_model, 'kind = "full"', "checkpoint_every_steps = 1")
    assert bench.work("trained") == "ok: "
    whole = bench.run.measurements()
    real, calls = loop.write_checkpoint, []

    def write_and_die(path: Path, blob: bytes) -> None:
        if known == "not measured":  # as a checkpoint from before costs went along
            tree = torch.load(io.BytesIO(blob), weights_only=True)
            del tree["cost"]
            torch.save(tree, path)
        else:
            real(path, blob)
        calls.append(path)
        if killed_at == "first" or len(calls) == whole.steps:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "write_checkpoint", write_and_die)
        bench.work("trained")
    tree = torch.load(calls[0], weights_only=True)
    cost = json.loads(tree.get("cost", "null"))
    if known == "another machine":
        torch.save({**tree, "cost": json.dumps({**cost, "where": "elsewhere"})}, calls[0])
    spent = cost["phases"][1]["seconds"] if cost else 0.0
    bench.run.clear_events()
    assert bench.work("trained") == "ok: "
    found = bench.run.measurements()
    graded = (found.train_seconds, found.train_cpu_seconds, found.peak_memory_bytes)
    assert {one.grade == "estimated" for one in graded} == {known != "measured"}
    assert any("sum of its parts" in note for note in found.notes) == (known == "measured")
    assert found.train_seconds.value >= spent and found.peak_memory_above_imports_bytes.value >= 0
    if known != "not measured":
        assert spent > 0 and (found.steps, found.train_examples) == (whole.steps, whole.train_examples)
        assert (found.train_tokens, found.padding_ratio) == (whole.train_tokens, whole.padding_ratio)
    elif killed_at == "first":
        assert found.steps == whole.steps, "what was measured is stretched to all steps"


def test_class_weights_are_trained_with_and_recorded(tmp_path: Path, tiny_model: Path) -> None:
    """The first step's loss is the weighted one of its rows by scikit-learn; the run's spec says so and is another."""
    kinds = {}
    for wanted in ("none", "balanced"):
        (tmp_path / wanted).mkdir()
        training = f'class_weights = "{wanted}"\nmicro_batch_size = 7'
        bench = kinds[wanted] = Bench(tmp_path / wanted, tiny_model, 'kind = "lora"', training, unequal=True)
        assert bench.work("trained") == "ok: "
        assert bench.run.spec().train["class_weights"] == wanted
    assert kinds["none"].run.id != kinds["balanced"].run.id
    desk = Desk(bench.run, bench.run.spec(), bench.prepared, Meter(), Classification(bench.prepared.labels), 0.0)
    encoded = encoded_splits(desk, ["train"])["train"]
    labels = bench.prepared.splits["train"].labels
    rows = planned_batches(encoded, desk.train_spec, 0)[0]
    method = make_method("lora", {})
    assert isinstance(method, Adaptation)
    chances_nc = torch.softmax(predict_logits(built(desk, method), encoded, "fp32"), -1).double().numpy()
    for wanted, one in kinds.items():
        loss = next(event["loss"] for event in one.run.events() if event["event"] == "StepEnded")
        weights_n = compute_sample_weight("balanced" if wanted == "balanced" else None, list(labels))
        right_n = [chances_nc[row, desk.data.labels.index(labels[row])] for row in rows]
        by_hand = sum(-math.log(right) * weights_n[row] for right, row in zip(right_n, rows, strict=True)) / len(rows)
        assert loss == pytest.approx(by_hand, rel=1e-4), wanted


class Killing:
    """Writes checkpoints, and kills the process after so many."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, path: Path, blob: bytes) -> None:
        write_checkpoint(path, blob)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_killed_training_keeps_its_curves_and_its_best_epoch(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the runner begins it again: every step and epoch stands once, as in a run that nobody killed, and the
    predictions are its own bit for bit; killed twice, too. From a torn checkpoint the run begins anew and says so."""
    training = "checkpoint_every_steps = 3\npatience = 2"

    def made(name: str) -> Bench:
        (tmp_path / name).mkdir()
        file = tmp_path / name
        bench = Bench(file, tiny_model, 'kind = "full"\nlearning_rate = 2e-3', training)
        spec = bench.run.spec()
        bench.run = bench.folder.run(spec.model_copy(update={"train": {**spec.train, "epochs": 4}}))
        bench.run.write_spec(spec.model_copy(update={"train": {**spec.train, "epochs": 4}}))
        return bench

    def curves(bench: Bench) -> list[object]:
        return [
            (one["event"], one["step"], one.get("loss"), one.get("scores"))
            for one in bench.run.events()
            if one["event"] in ("StepEnded", "EpochEvaluated", "TrainingStopped")
        ]

    whole, torn, lost = made("whole"), made("torn"), made("lost")
    assert whole.work("trained") == "ok: "
    assert whole.work("scored") == "ok: "
    for bench in (torn, lost):
        for _ in range(2):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(loop, "write_checkpoint", Killing(after=2))
                bench.work("trained")
            bench.run.set_events_aside()
        checkpoint = bench.run.path / "checkpoint.pt"
        if bench is lost:
            checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        assert bench.work("trained") == "ok: "
        assert bench.work("scored") == "ok: "
        assert curves(bench) == curves(whole)
        assert not list(bench.run.path.glob("events-*")) and not checkpoint.exists()
        assert bench.run.predictions().equals(whole.run.predictions())
        assert bench.run.validation().equals(whole.run.validation())
        found = bench.run.measurements()
        assert (found.epochs, found.steps) == (whole.run.measurements().epochs, whole.run.measurements().steps)
        assert found.train_seconds.grade == "counter"
        said = ("begun anew", "sum of its parts") if bench is lost else ("sum of its parts", "begun anew")
        assert any(said[0] in note for note in found.notes) and not any(said[1] in note for note in found.notes)


def test_a_fitted_head_in_two_stages(tmp_path: Path, tiny_model: Path) -> None:
    """Fitted without a step, from kept features; what was chosen is recorded, and the reloaded head scores the same."""
    bench = Bench(tmp_path, tiny_model, 'kind = "probe"')
    assert bench.run.spec().learning_rate is None and bench.run.spec().metric == "accuracy"
    assert bench.work("trained") == "ok: "
    trained = bench.run.measurements()
    assert trained.choice is not None and trained.choice.setting["pooling"] in ("mean", "mean_unit")
    assert len(trained.choice.trials) == 8 + trained.choice.extended and trained.epochs is None
    assert trained.train_examples == len(bench.prepared.splits["train"]) and trained.train_seconds.value > 0
    assert {"prefix", "step", "eval", "save"} <= {cost.phase for cost in trained.phases}
    assert bench.work("scored") == "ok: "
    assert bench.run.measurements().scores["test"]["accuracy"] > 0.5
