"""What happens inside the process of one run: train and certify, or reload and score.

A run has two stages, each in a fresh process. "trained": fit, score on validation data, save, prove that the adapter
moved and matters. "scored": rebuild from what was saved, prove that the logits are the same, then read the test data.
Where the study has an earlier task, the first stage learns it first (`earlier.py`) and the second scores it twice.
Not here: which run is next (`runner.py`). Anything that goes wrong becomes the run's status.

    work(Path("runs/demo"), Path("runs/demo/runs/…"), "trained", probe_latency=False)
"""

from __future__ import annotations

import signal
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from paretune.core.config import validated
from paretune.core.disk import cannot_write, is_full_disk
from paretune.core.engine_timings import ENGINES_FILE, hold, read_timings
from paretune.core.errors import ParetuneError, RunError, StorageError
from paretune.core.events import PhaseEnded, PhaseStarted
from paretune.core.limits import usable_cores
from paretune.data.encoding import Encoded
from paretune.data.prepare import load
from paretune.measure.accounting import census
from paretune.measure.latency import probe
from paretune.measure.meter import Meter
from paretune.methods.method import Adaptation, Baseline, Choice, Fitted
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision, chosen_precision
from paretune.models.surgery import count
from paretune.models.tokenizer import read_tokenizer
from paretune.records.schema import (
    EngineUse,
    EpochChoice,
    Graded,
    Latency,
    Measurements,
    Predicted,
    SettingChoice,
    Stage,
)
from paretune.records.store import CHECKPOINT_FILE, RunFolder
from paretune.repro.provenance import processor_name, provenance
from paretune.repro.seeding import make_repeatable, torch_generator
from paretune.study import earlier
from paretune.study.calibrations import CONSTANTS_FILE, read
from paretune.study.design import make_method
from paretune.study.desk import (
    Desk,
    built,
    encoded_splits,
    fitted,
    keep,
    prediction_rows,
    reloaded,
    scored_split,
    validation_rows,
)
from paretune.study.guard import cap_memory, die_with_parent, is_out_of_memory
from paretune.study.predict import keeps_prefix, predict_run, shape_of, way_of
from paretune.tasks.task import TASKS
from paretune.train.evaluate import Witness, check_padding, predict
from paretune.train.fast_encoder import EngineChoice, fast_path
from paretune.train.loop import Trained, train

RESUMED = "resumed from a checkpoint: its cost is the sum of its parts"
RESUMED_UNMEASURED = "resumed from a checkpoint, and not all of its parts were measured here: its cost is an estimate"


ANEW = "interrupted and begun anew, not from its checkpoint: "


def _measurements(
    desk: Desk, counts: tuple[int, int], adapter_bytes: int | None, precision: str, scores: dict[str, dict[str, float]]
) -> Measurements:
    meter = desk.meter
    training = meter.training()
    energy, source = meter.energy()
    above = meter.above_imports_bytes()
    return Measurements(
        phases=meter.costs(),
        memory_after_imports_bytes=meter.memory_after_imports_bytes,
        train_seconds=Graded(value=training.seconds, grade=meter.time_grade()),
        train_cpu_seconds=Graded(value=training.cpu_seconds, grade=meter.time_grade()),
        peak_memory_bytes=Graded(value=training.peak_memory_bytes, grade=meter.memory_grade()),
        peak_memory_above_imports_bytes=Graded(value=above, grade=meter.memory_grade()),
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


def _engine_use(engine: EngineChoice | None) -> EngineUse:
    """The engine of a run and what else its costs depend on; None: a baseline, which has none."""
    name, reason = (engine.name, engine.reason) if engine is not None else ("none", "")
    return EngineUse(name=name, reason=reason, processor=processor_name(), threads=usable_cores())


def _fresh_model(desk: Desk, method: Adaptation, first: Desk | None) -> tuple[EncoderClassifier, list[str]]:
    """The model that the study's task is learnt with, and notes on its cost: the base, or what an earlier task left."""
    if first is not None:
        model, notes = earlier.learnt(first, method)
        make_repeatable(desk.spec.seed, usable_cores())  # as where a run goes on that was killed here
        model.other_head(len(desk.data.labels))
        model.new_head(torch_generator(desk.spec.seed, "init", epoch=1))
        return model, notes
    desk.emit(PhaseStarted("load"))
    model = built(desk, method)
    desk.emit(PhaseEnded("load"))
    return model, []


def _predicted(
    desk: Desk, method: Adaptation, model: EncoderClassifier, encoded: dict[str, Encoded], precision: Precision
) -> Predicted | None:
    """What the planner expects of this run, by the constants that the runner laid beside the runs."""
    if desk.task.model != "classifier":
        return None  # the map to a vocabulary is not modelled
    constants = read(desk.folder.path.parents[1] / CONSTANTS_FILE)
    found = census(model)
    fits = method.fits if isinstance(method, Fitted) else 0
    shape = shape_of(encoded, desk.train_spec, way_of(found, precision), desk.spec.seed, fits)
    return predict_run(found, shape, precision, constants, keeps_prefix(found, desk.train_spec, fits > 0))


def _recorded(choice: Choice | None) -> SettingChoice | None:
    return None if choice is None else validated(asdict(choice), SettingChoice, "choice")


def _train(desk: Desk, method: Adaptation, first: Desk | None) -> None:
    """Stage "trained" of an adaptation; `first` is the desk of the task that it learns first."""
    encoded = encoded_splits(desk, ["train", "validation"])
    precision = chosen_precision(desk.train_spec.precision)
    model, notes = _fresh_model(desk, method, first)
    predicted = _predicted(desk, method, model, encoded, precision)
    check_padding(model, encoded["validation"])
    witness = Witness(model, encoded["validation"], precision, encoded["train"])
    checkpoint = desk.folder.path / CHECKPOINT_FILE
    came_of_it: dict[str, object] = {"predicted": predicted}
    if isinstance(method, Fitted):
        choice, engine = fitted(desk, method, model, encoded, precision, desk.emit, desk.shelf(counted=True))
        steps = 1
        came_of_it |= {
            "choice": _recorded(choice),
            "train_examples": len(encoded["train"]),
            "train_tokens": int(encoded["train"].lengths_n.sum()),
        }
    else:
        trained = _went_through_steps(desk, method, model, encoded, checkpoint)
        engine, steps = trained.engine, trained.steps
        came_of_it["epochs"] = EpochChoice(most=trained.most, run=trained.epochs, best=trained.best)
        if trained.resumed:
            desk.meter.stretch()
            notes.append(RESUMED if desk.meter.whole else RESUMED_UNMEASURED)
        if trained.anew:
            notes.append(ANEW + trained.anew)
    notes += witness.check(model, steps)
    desk.emit(PhaseStarted("eval"))
    found_nc = predict(model, desk.task, encoded["validation"], precision, desk.shelf())
    outcome, scores = scored_split(desk, "validation", found_nc)
    desk.emit(PhaseEnded("eval"))
    desk.folder.write_validation(validation_rows(desk.data, outcome))
    size = keep(desk, method, model, desk.folder.adapter, encoded["validation"], precision)
    checkpoint.unlink(missing_ok=True)
    measured = _measurements(desk, count(model), size, precision, {"validation": scores})
    desk.folder.write_measurements(
        measured.model_copy(update={"notes": notes, "engine": _engine_use(engine), **came_of_it})
    )


def _went_through_steps(
    desk: Desk, method: Adaptation, model: EncoderClassifier, encoded: dict[str, Encoded], checkpoint: Path
) -> Trained:
    assert desk.spec.learning_rate is not None
    return train(
        model, method, desk.trained_task, encoded["train"], desk.task.targets(desk.data.splits["train"].labels),
        desk.train_spec, desk.spec.learning_rate, desk.spec.seed, desk.emit, checkpoint, desk.shelf(counted=True),
        desk.meter.carried(), desk.watch(encoded["validation"], desk.folder.path / "best.pt"),
    )  # fmt: skip


def _test_splits(desk: Desk) -> list[str]:
    return [name for name in desk.data.splits if name not in ("train", "validation")]


def _finish(desk: Desk, probabilities: dict[str, np.ndarray], before: Measurements, latency: list[Latency]) -> None:
    """Write predictions, and the measurements with test scores, of a run that is done."""
    scored = {split: scored_split(desk, split, found_nc) for split, found_nc in probabilities.items()}
    outcomes = [(split, split, outcome) for split, (outcome, _) in scored.items() if split != "validation"]
    rows = prediction_rows(desk.data, outcomes)
    if desk.task.labelled:
        desk.folder.write_predictions(rows)
    else:
        desk.folder.write_token_losses(rows)
    scores = {**before.scores, **{split: values for split, (_, values) in scored.items()}}
    known = {cost.phase for cost in before.phases}
    phases = [*before.phases, *(cost for cost in desk.meter.costs() if cost.phase not in known)]
    desk.folder.write_measurements(before.model_copy(update={"scores": scores, "latency": latency, "phases": phases}))


def _score_adaptation(desk: Desk, method: Adaptation, first: Desk | None, probe_latency: bool) -> None:
    """Stage "scored" of an adaptation."""
    before = desk.folder.measurements()
    splits = _test_splits(desk)
    encoded = encoded_splits(desk, ["validation", *splits])
    precision = chosen_precision(desk.train_spec.precision)
    model = reloaded(desk, method, desk.folder.adapter, encoded["validation"], precision)
    desk.emit(PhaseStarted("predict"))
    probabilities = {split: predict(model, desk.task, encoded[split], precision, desk.shelf()) for split in splits}
    desk.emit(PhaseEnded("predict"))
    latency: list[Latency] = []
    if probe_latency:
        tokenizer = read_tokenizer(desk.model_spec.source)
        prefix, longest = desk.model_spec.text_prefix, desk.train_spec.max_tokens
        desk.emit(PhaseStarted("latency"))
        model.eval()
        with torch.inference_mode(), fast_path(model, precision, fixed=True):
            latency = probe(
                lambda texts: predict(model, desk.task, desk.task.encode(tokenizer, texts, longest, prefix), precision),
                desk.data.splits["test"].texts,
            )
        desk.emit(PhaseEnded("latency"))
    if first is not None:
        earlier.write_forgetting(first, method, model)
    _finish(desk, probabilities, before, latency)


def _run_baseline(desk: Desk, method: Baseline, first: Desk | None, probe_latency: bool) -> None:
    """Both stages of a baseline: fit, predict."""
    train_rows, validation = desk.data.splits["train"], desk.data.splits["validation"]
    desk.emit(PhaseStarted("step"))
    choice = method.fit(
        (train_rows.texts, train_rows.labels), (validation.texts, validation.labels), desk.data.labels, desk.spec.seed,
        desk.metric,
    )  # fmt: skip
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
    parameters = method.parameters()
    if first is not None:
        earlier.write_baseline(first, method)
    before = _measurements(desk, (parameters, parameters), None, "fp64", {})
    before = before.model_copy(
        update={
            "train_examples": len(train_rows.texts),
            "engine": _engine_use(None),
            "choice": _recorded(choice),
        }
    )
    _finish(desk, probabilities, before, latency)


def _perform(study_folder: Path, folder: RunFolder, stage: Stage, probe_latency: bool) -> None:
    spec = folder.spec()
    make_repeatable(spec.seed, usable_cores())
    if (engines := study_folder / ENGINES_FILE).exists():  # what the runner decided for all runs
        hold(read_timings(engines))
    meter = Meter(f"{processor_name()}, {usable_cores()} threads")
    data = load(study_folder / "data")
    task = TASKS.load(spec.task["kind"])(data.labels)
    desk = Desk(folder, spec, data, meter, task, time.perf_counter())
    first = earlier.desk_of(desk, study_folder)
    method = make_method(spec.kind, spec.settings)
    if stage == "trained" or isinstance(method, Baseline):
        folder.write_provenance(provenance())
    if isinstance(method, Baseline):
        _run_baseline(desk, method, first, probe_latency)
    elif stage == "trained":
        _train(desk, method, first)
    else:
        _score_adaptation(desk, method, first, probe_latency)


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
        raise cannot_write(run_folder, error) from error
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
    """A defect or a library's refusal: the reason in the status, the trace beside it.

    Raises:
        StorageError: it is a full disk's, in a library's words: no result of the run.
    """
    if is_full_disk(error):
        raise cannot_write(folder.path, error) from error
    (folder.path / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    folder.set_status("failed", stage, f"{type(error).__name__}: {error}".splitlines()[0])
