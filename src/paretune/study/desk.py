"""What one run works with, and what its two stages do to a model: build, encode, score, keep, reload.

Not here: the stages themselves (`worker.py`) and the task that a run may learn first (`earlier.py`), which uses a desk
of its own with the same folder, spec and meter.

    model = built(desk, method); keep(desk, method, model, desk.folder.adapter, encoded["validation"], "fp32")
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file

from paretune.core.config import validated
from paretune.core.errors import RecordError, ReloadError, said
from paretune.core.events import EvaluationEnded, Event, Listener, PhaseEnded, PhaseStarted, TrainingResumed
from paretune.core.memory import return_free_memory
from paretune.data.encoding import Encoded
from paretune.data.prepare import Prepared
from paretune.measure.meter import Meter
from paretune.methods.method import Adaptation, Choice, FeatureRows, Fitted
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder, load_language_model
from paretune.models.precision import Precision
from paretune.models.sources import ModelSpec
from paretune.models.tokenizer import read_tokenizer
from paretune.records.schema import PhaseCost, RunSpec
from paretune.records.store import RunFolder
from paretune.repro.seeding import torch_generator
from paretune.stats.metrics import merit
from paretune.tasks.task import Answers, Task
from paretune.train.evaluate import frozen_features, predict_logits
from paretune.train.fast_encoder import EngineChoice
from paretune.train.frozen_prefix import Shelf
from paretune.train.language import LanguageModel
from paretune.train.loop import TrainSpec
from paretune.train.stopping import Watch

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
        if isinstance(event, TrainingResumed):
            self.folder.recall_events(event.step)
        self.folder.append_event(event, time.perf_counter() - self.began)

    def shelf(self, counted: bool = False) -> Shelf | None:
        """Where runs of this study keep what frozen blocks give; None where the study does not want it.

        `counted`: the run is charged with what it cost the one that made it.
        """
        if not self.train_spec.keep_frozen:
            return None
        folder = self.folder.frozen
        if not counted:
            return Shelf(folder)
        return Shelf(
            folder,
            lambda: self.meter.cost("prefix").model_dump(),
            lambda cost: self.meter.charge(PhaseCost.model_validate(cost)),
        )

    @property
    def metric(self) -> str:
        """By which this run chooses on validation data."""
        if self.spec.metric is None:
            raise RecordError(said(f"run {self.folder.id} names no metric to choose by", "one of its task's"))
        return self.spec.metric

    @property
    def trained_task(self) -> Task:
        """The task as training has it: with class weights where the study wants them."""
        if self.train_spec.class_weights == "none":
            return self.task
        return self.task.balanced(self.data.splits["train"].labels)

    def watch(self, validation: Encoded, best: Path) -> Watch | None:
        """What training is stopped by; None where the study has a fixed number of epochs."""
        if self.train_spec.patience == 0:
            return None
        labels, metric = self.data.splits["validation"].labels, self.metric

        def scores(outputs_nc: torch.Tensor) -> dict[str, float]:
            return self.task.scores(self.task.outcome(self.task.results(outputs_nc, validation), labels), labels)

        return Watch(validation, scores, lambda found: merit(metric, found[metric]), best, self.shelf())

    @property
    def train_spec(self) -> TrainSpec:
        return validated(self.spec.train, TrainSpec, "train")

    @property
    def model_spec(self) -> ModelSpec:
        return validated(self.spec.model, ModelSpec, "model")


def built(desk: Desk, method: Adaptation) -> EncoderClassifier:
    """The base model with the method attached; the run's "init" stream decides all that is random in it."""
    source = desk.model_spec.source
    if desk.task.model == "language":
        model: EncoderClassifier = LanguageModel(*load_language_model(source))
    else:
        model = EncoderClassifier(load_encoder(source), len(desk.data.labels), desk.model_spec.pooling)
    method.attach(model, torch_generator(desk.spec.seed, "init"))
    return model


def fitted(
    desk: Desk,
    method: Fitted,
    model: EncoderClassifier,
    encoded: dict[str, Encoded],
    precision: Precision,
    emit: Listener,
    shelf: Shelf | None,
) -> tuple[Choice, EngineChoice]:
    """Fit a head to the features of the frozen encoder; the training texts' features and the fit are training, the
    validation texts' are evaluation. Returns what was chosen, and the engine that made the features."""
    rows = desk.data.splits
    train_nh, engine = frozen_features(model, encoded["train"], precision, shelf, emit)
    emit(PhaseStarted("eval"))
    validation_nh, _ = frozen_features(model, encoded["validation"], precision, shelf)
    emit(PhaseEnded("eval"))
    emit(PhaseStarted("step"))
    choice = method.fit(
        model,
        FeatureRows(train_nh, rows["train"].labels),
        FeatureRows(validation_nh, rows["validation"].labels),
        desk.data.labels,
        desk.metric,
    )
    emit(PhaseEnded("step"))
    return choice, engine


def encoded_splits(desk: Desk, splits: Sequence[str]) -> dict[str, Encoded]:
    """Tokens of some splits, by name; of the tokenizer nothing stays."""
    desk.emit(PhaseStarted("tokenize"))
    tokenizer = read_tokenizer(desk.model_spec.source)
    prefix, longest = desk.model_spec.text_prefix, desk.train_spec.max_tokens
    found = {name: desk.task.encode(tokenizer, desk.data.splits[name].texts, longest, prefix) for name in splits}
    del tokenizer
    return_free_memory()
    desk.emit(PhaseEnded("tokenize"))
    return found


def scored_split(desk: Desk, split: str, results_nc: np.ndarray) -> tuple[Answers, dict[str, float]]:
    """Per-example outcome and scores of a split, which are told as an event."""
    labels = desk.data.splits[split].labels
    outcome = desk.task.outcome(results_nc, labels)
    scores = desk.task.scores(outcome, labels)
    desk.emit(EvaluationEnded(desk.meter.steps, split, scores))
    return outcome, scores


def validation_rows(data: Prepared, outcome: Answers) -> pa.Table:
    """What was said of each validation example, for who compares settings with one another."""
    rows = data.splits["validation"]
    return pa.table({"id": list(rows.ids), **outcome.columns(rows.labels)})


def prediction_rows(data: Prepared, outcomes: Sequence[tuple[str, str, Answers]]) -> pa.Table:
    """Rows for a record: (name in the record, split whose rows were predicted, outcome) one after the other."""
    columns: dict[str, list[object]] = {}
    for name, split, outcome in outcomes:
        rows = data.splits[split]
        of_split: dict[str, list[object]] = {
            "id": list(rows.ids),
            "split": [name] * len(rows.ids),
            **outcome.columns(rows.labels),
            "near_duplicate": list(data.near_duplicate[split]),
        }
        for column, values in of_split.items():
            columns.setdefault(column, []).extend(values)
    return pa.table(columns)


def keep(
    desk: Desk, method: Adaptation, model: EncoderClassifier, folder: Path, validation: Encoded, precision: Precision
) -> int:
    """Save what was trained, with reference logits of some validation texts; returns the bytes of the former."""
    desk.emit(PhaseStarted("save"))
    size = method.save(model, folder)
    save_file({"logits_nc": predict_logits(model, _reference_rows(validation), precision)}, folder / REFERENCE_FILE)
    desk.emit(PhaseEnded("save"))
    return size


def reloaded(
    desk: Desk, method: Adaptation, folder: Path, validation: Encoded, precision: Precision
) -> EncoderClassifier:
    """The trained model, rebuilt from what `keep` wrote.

    Raises:
        ReloadError: its logits differ from those that were kept after training.
    """
    desk.emit(PhaseStarted("load"))
    model = built(desk, method)
    method.load(model, folder)
    kept_nc = load_file(folder / REFERENCE_FILE)["logits_nc"]
    now_nc = predict_logits(model, _reference_rows(validation), precision)
    worst = float((now_nc - kept_nc).abs().max())
    desk.emit(PhaseEnded("load"))
    if not worst <= RELOAD_TOLERANCE:
        raise ReloadError(said(f"reloaded logits differ by {worst:.3g}", f"at most {RELOAD_TOLERANCE:g}"))
    return model


def _reference_rows(validation: Encoded) -> Encoded:
    return Encoded(validation.ids[:REFERENCE_ROWS], validation.pad_id)
