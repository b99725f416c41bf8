"""What happens inside the process of one run: train and certify, or reload and score.

A run has two stages, each in a fresh process. "trained": fit, score on validation data, save, prove that the adapter
moved and matters. "scored": rebuild from what was saved, prove that the logits are the same, then read the test data.
Not here: which run is next (`runner.py`). Anything that goes wrong becomes the run's status.

    work(Path("runs/demo"), Path("runs/demo/runs/…"), "trained", probe_latency=False)
"""

from __future__ import annotations

import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.torch import load_file, save_file

from paretune.core.config import validated
from paretune.core.errors import ParetuneError, ReloadError, RunError, StorageError, said
from paretune.core.events import EvaluationEnded, Event, PhaseEnded, PhaseStarted
from paretune.core.limits import usable_cores
from paretune.data.encoding import Encoded, encode
from paretune.data.prepare import Prepared, load
from paretune.measure.latency import probe
from paretune.measure.meter import Meter
from paretune.methods.method import Adaptation, Baseline
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder, load_tokenizer
from paretune.models.precision import chosen_precision
from paretune.models.sources import ModelSpec
from paretune.models.surgery import count
from paretune.records.schema import Graded, Latency, Measurements, RunSpec, Stage
from paretune.records.store import RunFolder
from paretune.repro.provenance import provenance
from paretune.repro.seeding import make_repeatable, torch_generator
from paretune.study.design import make_method
from paretune.study.guard import cap_memory, die_with_parent, is_out_of_memory
from paretune.tasks.task import TASKS, Outcome, Task
from paretune.train.evaluate import Witness, predict, predict_logits
from paretune.train.loop import TrainSpec, train

REFERENCE_FILE = "reference.safetensors"
REFERENCE_ROWS = 16
RELOAD_TOLERANCE = 1e-4


@dataclass
class Desk:
    """What one run works with; events go to the meter first, then to the run's folder."""

    folder: RunFolder
    spec: RunSpec
    data: Prepared
    meter: Meter
    task: Task
    began: float

    def emit(self, event: Event) -> None:
        self.meter(event)
        self.folder.append_event(event, time.perf_counter() - self.began)

    @property
    def train_spec(self) -> TrainSpec:
        return validated(self.spec.train, TrainSpec, "train")

    @property
    def model_spec(self) -> ModelSpec:
        return validated(self.spec.model, ModelSpec, "model")


def _model(desk: Desk, method: Adaptation) -> EncoderClassifier:
    """The base model with the method attached; the run's "init" stream decides all that is random in it."""
    encoder = load_encoder(desk.model_spec.source)
    model = EncoderClassifier(encoder, len(desk.data.labels), desk.model_spec.pooling)
    method.attach(model, torch_generator(desk.spec.seed, "init"))
    return model


def _encoded(desk: Desk, splits: list[str]) -> dict[str, Encoded]:
    desk.emit(PhaseStarted("tokenize"))
    tokenizer = load_tokenizer(desk.model_spec.source)
    prefix, longest = desk.model_spec.text_prefix, desk.train_spec.max_tokens
    found = {name: encode(tokenizer, desk.data.splits[name].texts, longest, prefix) for name in splits}
    desk.emit(PhaseEnded("tokenize"))
    return found


def _score(desk: Desk, split: str, probabilities_nc: np.ndarray) -> tuple[Outcome, dict[str, float]]:
    labels = desk.data.splits[split].labels
    outcome = desk.task.outcome(probabilities_nc, labels)
    scores = desk.task.scores(outcome, labels)
    desk.emit(EvaluationEnded(desk.meter.steps, split, scores))
    return outcome, scores


def _measurements(
    desk: Desk, counts: tuple[int, int], adapter_bytes: int | None, precision: str, scores: dict[str, dict[str, float]]
) -> Measurements:
    meter = desk.meter
    step = meter.cost("step")
    energy, source = meter.energy()
    above = max(0, step.peak_memory_bytes - meter.memory_after_imports_bytes)
    return Measurements(
        phases=meter.costs(),
        memory_after_imports_bytes=meter.memory_after_imports_bytes,
        train_seconds=Graded(value=step.seconds, grade="counter"),
        train_cpu_seconds=Graded(value=step.cpu_seconds, grade="counter"),
        peak_memory_bytes=Graded(value=step.peak_memory_bytes, grade=meter.grade),
        peak_memory_above_imports_bytes=Graded(value=above, grade=meter.grade),
        energy_joules=energy,
        energy_source=source,
        trainable_parameters=counts[0],
        total_parameters=counts[1],
        adapter_bytes=adapter_bytes,
        train_examples=meter.examples,
        train_tokens=meter.tokens,
        padding_ratio=meter.padded_tokens / meter.tokens if meter.tokens else None,
        steps=meter.steps,
        precision=precision,
        scores=scores,
    )


def _train(desk: Desk, method: Adaptation) -> None:
    """Stage "trained" of an adaptation."""
    assert desk.spec.learning_rate is not None
    encoded = _encoded(desk, ["train", "validation"])
    precision = chosen_precision(desk.train_spec.precision)
    desk.emit(PhaseStarted("load"))
    model = _model(desk, method)
    desk.emit(PhaseEnded("load"))
    witness = Witness(model, encoded["validation"], precision)
    targets_n = desk.task.targets(desk.data.splits["train"].labels)
    checkpoint = desk.folder.path / "checkpoint.pt"
    notes = ["resumed from a checkpoint: its cost covers the steps after it"] if checkpoint.exists() else []
    train(
        model, method, desk.task, encoded["train"], targets_n, desk.train_spec, desk.spec.learning_rate,
        desk.spec.seed, desk.emit, checkpoint,
    )  # fmt: skip
    witness.check(model)
    desk.emit(PhaseStarted("eval"))
    _, scores = _score(desk, "validation", predict(model, desk.task, encoded["validation"], precision))
    desk.emit(PhaseEnded("eval"))
    desk.emit(PhaseStarted("save"))
    size = method.save(model, desk.folder.adapter)
    rows = Encoded(encoded["validation"].ids[:REFERENCE_ROWS], encoded["validation"].pad_id)
    save_file({"logits_nc": predict_logits(model, rows, precision)}, desk.folder.adapter / REFERENCE_FILE)
    desk.emit(PhaseEnded("save"))
    checkpoint.unlink(missing_ok=True)
    measured = _measurements(desk, count(model), size, precision, {"validation": scores})
    desk.folder.write_measurements(measured.model_copy(update={"notes": notes}))


def _reloaded(desk: Desk, method: Adaptation, validation: Encoded, precision: str) -> EncoderClassifier:
    """The trained model, rebuilt from its folder.

    Raises:
        ReloadError: its logits differ from those that were kept after training.
    """
    desk.emit(PhaseStarted("load"))
    model = _model(desk, method)
    method.load(model, desk.folder.adapter)
    kept_nc = load_file(desk.folder.adapter / REFERENCE_FILE)["logits_nc"]
    rows = Encoded(validation.ids[:REFERENCE_ROWS], validation.pad_id)
    now_nc = predict_logits(model, rows, "bf16" if precision == "bf16" else "fp32")
    worst = float((now_nc - kept_nc).abs().max())
    desk.emit(PhaseEnded("load"))
    if not worst <= RELOAD_TOLERANCE:
        raise ReloadError(said(f"reloaded logits differ by {worst:.3g}", f"at most {RELOAD_TOLERANCE:g}"))
    return model


def _test_splits(desk: Desk) -> list[str]:
    return [name for name in desk.data.splits if name not in ("train", "validation")]


def _write_predictions(desk: Desk, outcomes: dict[str, Outcome]) -> None:
    columns: dict[str, list[object]] = {name: [] for name in (
        "id", "split", "label", "prediction", "score", "label_probability", "near_duplicate")}  # fmt: skip
    for split, outcome in outcomes.items():
        rows = desk.data.splits[split]
        columns["id"] += rows.ids
        columns["split"] += [split] * len(rows.ids)
        columns["label"] += rows.labels
        columns["prediction"] += outcome.predictions
        columns["score"] += outcome.scores_n.tolist()
        columns["label_probability"] += outcome.label_probabilities_n.tolist()
        columns["near_duplicate"] += desk.data.near_duplicate[split]
    desk.folder.write_predictions(pa.table(columns))


def _finish(desk: Desk, probabilities: dict[str, np.ndarray], before: Measurements, latency: list[Latency]) -> None:
    """Write predictions, and the measurements with test scores, of a run that is done."""
    scored = {split: _score(desk, split, found_nc) for split, found_nc in probabilities.items()}
    _write_predictions(desk, {split: outcome for split, (outcome, _) in scored.items() if split != "validation"})
    scores = {**before.scores, **{split: values for split, (_, values) in scored.items()}}
    known = {cost.phase for cost in before.phases}
    phases = [*before.phases, *(cost for cost in desk.meter.costs() if cost.phase not in known)]
    desk.folder.write_measurements(before.model_copy(update={"scores": scores, "latency": latency, "phases": phases}))


def _score_adaptation(desk: Desk, method: Adaptation, probe_latency: bool) -> None:
    """Stage "scored" of an adaptation."""
    before = desk.folder.measurements()
    splits = _test_splits(desk)
    encoded = _encoded(desk, ["validation", *splits])
    precision = chosen_precision(desk.train_spec.precision)
    model = _reloaded(desk, method, encoded["validation"], precision)
    desk.emit(PhaseStarted("predict"))
    probabilities = {split: predict(model, desk.task, encoded[split], precision) for split in splits}
    desk.emit(PhaseEnded("predict"))
    latency: list[Latency] = []
    if probe_latency:
        tokenizer = load_tokenizer(desk.model_spec.source)
        prefix, longest = desk.model_spec.text_prefix, desk.train_spec.max_tokens
        desk.emit(PhaseStarted("latency"))
        latency = probe(
            lambda texts: predict(model, desk.task, encode(tokenizer, texts, longest, prefix), precision),
            desk.data.splits["test"].texts,
        )
        desk.emit(PhaseEnded("latency"))
    _finish(desk, probabilities, before, latency)


def _run_baseline(desk: Desk, method: Baseline, probe_latency: bool) -> None:
    """Both stages of a baseline: fit, predict."""
    train_rows, validation = desk.data.splits["train"], desk.data.splits["validation"]
    desk.emit(PhaseStarted("step"))
    method.fit(
        (train_rows.texts, train_rows.labels), (validation.texts, validation.labels), desk.data.labels, desk.spec.seed
    )
    desk.emit(PhaseEnded("step"))
    desk.emit(PhaseStarted("predict"))
    splits = ["validation", *_test_splits(desk)]
    probabilities = {split: method.probabilities(desk.data.splits[split].texts) for split in splits}
    desk.emit(PhaseEnded("predict"))
    latency: list[Latency] = []
    if probe_latency:
        desk.emit(PhaseStarted("latency"))
        latency = probe(method.probabilities, desk.data.splits["test"].texts)
        desk.emit(PhaseEnded("latency"))
    before = _measurements(desk, (method.parameters(), method.parameters()), None, "fp64", {})
    before = before.model_copy(update={"train_examples": len(train_rows.texts)})
    _finish(desk, probabilities, before, latency)


def _perform(study_folder: Path, folder: RunFolder, stage: Stage, probe_latency: bool) -> None:
    spec = folder.spec()
    make_repeatable(spec.seed, usable_cores())
    meter = Meter()
    data = load(study_folder / "data")
    task = TASKS.load(spec.task["kind"])(data.labels)
    desk = Desk(folder, spec, data, meter, task, time.perf_counter())
    method = make_method(spec.kind, spec.settings)
    if stage == "trained" or isinstance(method, Baseline):
        folder.write_provenance(provenance())
    if isinstance(method, Baseline):
        _run_baseline(desk, method, probe_latency)
    elif stage == "trained":
        _train(desk, method)
    else:
        _score_adaptation(desk, method, probe_latency)


def work(study_folder: Path, run_folder: Path, stage: Stage, probe_latency: bool) -> None:
    """Do one stage of one run and leave its status; never raises but for a folder that cannot be written."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to handle
    folder = RunFolder(run_folder)
    try:
        cap_memory(folder.spec().memory_cap_bytes)
        _perform(study_folder, folder, stage, probe_latency)
    except StorageError:
        raise
    except MemoryError:
        folder.set_status("oom", stage, _memory_reason(folder))
    except RunError as error:
        folder.set_status("failed", stage, str(error))
    except ParetuneError as error:
        folder.set_status("failed", stage, str(error))
    except OSError as error:
        if error.errno in (12,):  # ENOMEM
            folder.set_status("oom", stage, _memory_reason(folder))
            return
        raise StorageError(f"cannot write {run_folder}: {error.strerror or error}") from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            folder.set_status("oom", stage, _memory_reason(folder))
            return
        _failed(folder, stage, error)
    except Exception as error:
        _failed(folder, stage, error)
    else:
        folder.set_status("ok", stage)


def _memory_reason(folder: RunFolder) -> str:
    cap = folder.spec().memory_cap_bytes
    return f"needs more than the cap of {cap} bytes" if cap else "the machine's memory is not enough"


def _failed(folder: RunFolder, stage: Stage, error: Exception) -> None:
    """A defect or a library's refusal: the reason in the status, the trace beside it."""
    (folder.path / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    folder.set_status("failed", stage, f"{type(error).__name__}: {error}".splitlines()[0])
