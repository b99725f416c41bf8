"""The task that a run learns before the study's own, and what is left of it afterwards: how forgetting is measured.

Not here: the study's own task (`worker.py`) and the numbers (`report/forgetting.py`). What was considered:
`docs/decisions/0011-forgetting.md`; the measure is that of continual learning (Chaudhry et al. 2018,
https://arxiv.org/abs/1801.10112) for two tasks, for LoRA against full fine-tuning Biderman et al. 2024
(https://arxiv.org/abs/2405.09673).

    model = learnt(desk_of(desk, study_folder), method); forgotten(desk_of(desk, study_folder), method, model)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from paretune.core.events import Event, Listener, PhaseEnded, PhaseStarted
from paretune.data.prepare import load
from paretune.methods.method import Adaptation, Baseline, Fitted
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import chosen_precision
from paretune.records.schema import PhaseCost
from paretune.records.store import StudyFolder, read_record, write_atomically
from paretune.study.desk import Desk, built, encoded_splits, fitted, keep, prediction_rows, reloaded
from paretune.tasks.task import TASKS
from paretune.train.evaluate import Witness, predict
from paretune.train.loop import train

FOLDER = "earlier"  # within the run's adapter/
COST_FILE = "cost.json"  # what learning it took, for a run that goes on in another process
BEFORE, AFTER = "before", "after"


def desk_of(desk: Desk, study_folder: Path) -> Desk | None:
    """The same run at the earlier task's data; None where the study has no earlier task.

    Raises:
        DataError: the prepared data are missing or damaged.
    """
    if desk.spec.earlier is None:
        return None
    data = load(StudyFolder(study_folder).earlier_data)
    spec = desk.spec.model_copy(update={"metric": desk.spec.earlier.metric})
    return replace(desk, spec=spec, data=data, task=TASKS.load(desk.spec.task["kind"])(data.labels))


def learnt(desk: Desk, method: Adaptation) -> tuple[EncoderClassifier, list[str]]:
    """The base model after the earlier task, which is kept in the run's folder; and notes on its cost.

    A run that was killed afterwards does not learn it again. The folder appears by rename: it is whole or not there.

    Raises:
        InertAdapterError, DivergedError: as for the study's own task.
    """
    place = desk.folder.adapter / FOLDER
    desk.emit(PhaseStarted("load"))
    model = built(desk, method)
    if place.exists():
        method.load(model, place)
    desk.emit(PhaseEnded("load"))
    if place.exists():
        if (place / COST_FILE).exists():
            desk.meter.charge(read_record(place / COST_FILE, PhaseCost))
            return model, ["resumed after its earlier task: the cost of that task is what it took when it was learnt"]
        return model, ["resumed after its earlier task: the cost of that task is not measured"]
    encoded = encoded_splits(desk, ["train", "validation"])
    precision = chosen_precision(desk.train_spec.precision)
    witness = Witness(model, encoded["validation"], precision, encoded["train"])
    checkpoint = desk.folder.path / "checkpoint-earlier.pt"
    notes: list[str] = []
    if isinstance(method, Fitted):
        steps = 1
        fitted(desk, method, model, encoded, precision, _as_one_phase(desk.emit), None)
    else:
        assert desk.spec.learning_rate is not None
        trained = train(
            model, method, desk.trained_task, encoded["train"], desk.task.targets(desk.data.splits["train"].labels),
            desk.train_spec, desk.spec.learning_rate, desk.spec.seed, _as_one_phase(desk.emit), checkpoint,
            costs=desk.meter.carried("earlier"),
            watch=desk.watch(encoded["validation"], desk.folder.path / "best-earlier.pt"),
        )  # fmt: skip
        steps = trained.steps
        if trained.resumed:
            notes.append("its earlier task was resumed from a checkpoint: its cost is the sum of its parts")
        if trained.anew:
            notes.append(f"its earlier task was interrupted and begun anew, not from its checkpoint: {trained.anew}")
    notes += witness.check(model, steps)
    part = desk.folder.adapter / f"{FOLDER}.part"
    keep(desk, method, model, part, encoded["validation"], precision)
    write_atomically(part / COST_FILE, desk.meter.cost("earlier").model_dump_json())
    part.rename(place)
    checkpoint.unlink(missing_ok=True)
    return model, notes


def _as_one_phase(emit: Listener) -> Listener:
    """The loop's events without its steps: what the earlier task cost is no part of the run's training figures."""

    def told(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            emit(PhaseStarted("earlier"))
        elif isinstance(event, PhaseEnded):
            emit(PhaseEnded("earlier"))

    return told


def write_forgetting(desk: Desk, method: Adaptation, final: EncoderClassifier) -> None:
    """Record the earlier task's test predictions before and after the study's own task.

    Before: the model reloaded as it was when it had learnt the earlier task alone. After: that model's head on the
    final encoder. `final` has lost its own head afterwards.

    Raises:
        ReloadError: the model before gives other logits than when it was kept.
    """
    encoded = encoded_splits(desk, ["validation", "test"])
    precision = chosen_precision(desk.train_spec.precision)
    first = reloaded(desk, method, desk.folder.adapter / FOLDER, encoded["validation"], precision)
    desk.emit(PhaseStarted("earlier"))
    before_nc = predict(first, desk.task, encoded["test"], precision)
    final.head = first.head
    after_nc = predict(final, desk.task, encoded["test"], precision)
    desk.emit(PhaseEnded("earlier"))
    labels = desk.data.splits["test"].labels
    outcomes = [(BEFORE, desk.task.outcome(before_nc, labels)), (AFTER, desk.task.outcome(after_nc, labels))]
    desk.folder.write_earlier(prediction_rows(desk.data, [(name, "test", outcome) for name, outcome in outcomes]))


def write_baseline(desk: Desk, method: Baseline) -> None:
    """Record a baseline's test predictions of the earlier task, for which it is fitted anew: what must be beaten there
    before anything can be called forgotten. It has no "after": nothing of it goes on to another task."""
    train_rows, validation, test = (desk.data.splits[split] for split in ("train", "validation", "test"))
    desk.emit(PhaseStarted("earlier"))
    method.fit(
        (train_rows.texts, train_rows.labels), (validation.texts, validation.labels), desk.data.labels, desk.spec.seed,
        desk.metric,
    )  # fmt: skip
    outcome = desk.task.outcome(method.probabilities(test.texts), test.labels)
    desk.emit(PhaseEnded("earlier"))
    desk.folder.write_earlier(prediction_rows(desk.data, [(BEFORE, "test", outcome)]))
