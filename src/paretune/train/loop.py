"""The one training loop: AdamW, a schedule, accumulation, clipping, stopping by validation scores; events out.

Not here: any method's or task's name, how scores are made, and how cost is measured (a listener does that). Its twin
without abstractions is `examples/flat_loop.py`.

    train(model, method, task, encoded, targets_n, spec, learning_rate=1e-3, seed=0, emit=print)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from paretune.core.config import Settings
from paretune.core.errors import DivergedError, ReloadError, said
from paretune.core.events import (
    CheckpointSaved,
    EpochEvaluated,
    Listener,
    PhaseEnded,
    PhaseStarted,
    StepEnded,
    TrainingPlanned,
    TrainingResumed,
    TrainingStopped,
)
from paretune.core.memory import return_free_memory
from paretune.data.encoding import Encoded
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision, chosen_precision
from paretune.models.surgery import trainable
from paretune.tasks.task import Task
from paretune.train.active_vocabulary import active_vocabulary
from paretune.train.batches import epoch_batches
from paretune.train.checkpoint import (
    Checkpoint,
    Costs,
    check_whole,
    checkpoint_bytes,
    read_checkpoint,
    restore_optimizer,
    restore_random,
    write_checkpoint,
)
from paretune.train.evaluate import outputs_while_training
from paretune.train.fast_encoder import EngineChoice, fast_path
from paretune.train.frozen_prefix import Inputs, Shelf, inputs_of
from paretune.train.optim import adamw, schedule_factor, set_learning_rate
from paretune.train.stopping import EarlyStopping, Watch

CLIP_EPSILON = 1e-6  # as torch's clip_grad_norm_ has it
RECIPE = 8  # raised when the same settings would train to other numbers: 8, epochs by validation scores


class TrainSpec(Settings):
    """The study's [train] table, the same for every trained method.

    `batch_size` is what one optimizer step sees; `micro_batch_size` how much of it is computed at once (all by
    default). The head starts from noise and learns at a rate of its own, which is not searched; the encoder at the
    method's. `precision` "auto" is bf16 autocast with fp32 weights where the processor has bf16, else fp32.
    `keep_frozen`: what the frozen lower blocks give is computed once and kept on the disk while the study runs.
    `activation_checkpointing`: of each block only its input is kept for the way back, for less memory and more time.

    `epochs` is the most that a run goes through: training stops when the study's metric on validation data has not
    improved for `patience` epochs, and the best epoch's weights are kept. The learning rate falls to zero at the end of
    all `epochs`, whether or not they are reached (`docs/decisions/0023-*.md`). `patience = 0`: exactly so many epochs,
    and the last one's weights. `class_weights` "balanced": a class of few training rows weighs as much in the loss as
    one of many.
    """

    epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=2, ge=0)
    class_weights: Literal["none", "balanced"] = "none"
    batch_size: int = Field(default=16, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=128, ge=4)
    head_learning_rate: float = Field(default=1e-2, gt=0, lt=10)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    keep_frozen: bool = True
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class Trained:
    """What came of a training: its engine, the optimizer steps behind the weights that it left, the most epochs it
    might have had, those that it went through, and the one whose weights it left. `resumed`: after which step of a
    checkpoint it went on; `anew`: why it began anew although there was one."""

    engine: EngineChoice
    steps: int
    most: int
    epochs: int
    best: int
    resumed: int = 0
    anew: str = ""


def planned_batches(encoded: Encoded, spec: TrainSpec, seed: int) -> list[list[int]]:
    """Row indices of every optimizer step of the whole training, as long as it may get."""
    lengths_n = encoded.lengths_n
    epochs = (epoch_batches(lengths_n, spec.batch_size, seed, epoch) for epoch in range(spec.epochs))
    return [batch.tolist() for epoch in epochs for batch in epoch]


def train(
    model: EncoderClassifier,
    method: Adaptation,
    task: Task,
    encoded: Encoded,
    targets_n: torch.Tensor,
    spec: TrainSpec,
    learning_rate: float,
    seed: int,
    emit: Listener,
    checkpoint: Path | None = None,
    shelf: Shelf | None = None,
    costs: Costs | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train in place. A checkpoint that is there is resumed from; where it cannot be read, training begins anew, and
    what came of it says so.

    `shelf` is where what frozen blocks give is kept, `costs` who writes into a checkpoint what was spent until then.
    `watch` is by what training is stopped, after `spec.patience` epochs without an improvement, which leaves the
    weights of the best epoch; without it all epochs are gone through.

    Raises:
        DivergedError: the loss or the gradient is not finite; the message names step, learning rate and batch.
    """
    batches = planned_batches(encoded, spec, seed)
    per_epoch = len(batches) // spec.epochs
    precision = chosen_precision(spec.precision)
    early = None if watch is None else EarlyStopping(watch, spec.patience)
    model.train()
    with active_vocabulary(model, encoded, *([] if watch is None else [watch.encoded])) as active:
        texts, watched = active.texts[0], active.texts[-1]
        with (
            fast_path(model, precision, recomputed=spec.activation_checkpointing) as way,
            inputs_of(model, texts, precision, way.fast, shelf, emit) as inputs,
        ):
            if way.fast is None and spec.activation_checkpointing:
                model.checkpoint_plain_blocks()

            def groups() -> list[dict[str, object]]:
                return method.parameter_groups(model, learning_rate, spec.head_learning_rate, spec.weight_decay)

            optimizer = adamw(groups())
            moving = list(trainable(model).values())
            first, decay, anew = 1, 1.0, ""
            if checkpoint is not None and checkpoint.exists():
                try:
                    resumed = _resumed(checkpoint, model, method, optimizer, early)
                except ReloadError as error:
                    anew = str(error)
                    optimizer = adamw(groups())
                else:
                    first, decay = resumed.step + 1, float(resumed.notes["decay"])
                    if costs is not None:
                        costs.resume(resumed.cost)
            if early is not None and first == 1:
                early.forget()
            emit(TrainingPlanned(steps=len(batches), epochs=spec.epochs, train_examples=len(encoded)))
            if anew or first > 1:
                emit(TrainingResumed(first - 1, anew))
            emit(PhaseStarted("step"))
            step = first - 1
            while step < len(batches) and not (early is not None and early.done):
                step += 1
                factor = schedule_factor(step, len(batches), spec.warmup_share)
                set_learning_rate(optimizer, factor)
                ended = _step(model, moving, task, inputs, texts, targets_n, spec, batches[step - 1])
                if not (math.isfinite(ended.loss) and math.isfinite(ended.norm)):
                    rows = batches[step - 1][:4]
                    place = f"step {step} of {len(batches)}, learning rate {learning_rate * factor:.3g}, rows {rows}…"
                    given = f"loss is {ended.loss} at {place}, gradient norm {ended.norm:g}"
                    raise DivergedError(f"{given} — try a lower learning rate")
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                method.after_step(model, step)
                decay *= 1.0 - learning_rate * factor * spec.weight_decay
                rate, examples = learning_rate * factor, len(batches[step - 1])
                emit(StepEnded(step, ended.loss, rate, ended.norm, examples, ended.tokens, ended.padded))
                better = False
                if early is not None and step % per_epoch == 0:
                    emit(PhaseEnded("step"))
                    better = _epoch_ended(model, method, early, watched, precision, step, decay, emit)
                    emit(PhaseStarted("step"))
                every = spec.checkpoint_every_steps
                if checkpoint is not None and every and (better or step % every == 0):
                    notes = {"decay": decay, "early": early.state() if early is not None else {}}
                    spent = costs.so_far() if costs is not None else None
                    state = method.state(model)
                    write_checkpoint(checkpoint, checkpoint_bytes(state, optimizer, step, spent, notes))
                    emit(CheckpointSaved(step))
                if better and early is not None:  # a checkpoint that names an older file is no more
                    early.forget(all_but=early.best_epoch)
            emit(PhaseEnded("step"))
        engine = way.engine
        del optimizer, inputs, way  # moments and activations, before the table of words grows to its whole size
        if early is not None:
            method.load_state(model, early.kept())
            emit(TrainingStopped(step // per_epoch, step, early.best_epoch, early.best_step))
            early.forget()
            decay = early.decay
        active.decay = decay
        return_free_memory()
    model.eval()
    kept = (spec.epochs, step) if early is None else (early.best_epoch, early.best_step)
    return Trained(engine, kept[1], spec.epochs, step // per_epoch, kept[0], first - 1, anew)


def _resumed(
    checkpoint: Path,
    model: EncoderClassifier,
    method: Adaptation,
    optimizer: torch.optim.Optimizer,
    early: EarlyStopping | None,
) -> Checkpoint:
    """Put everything where it was at a checkpoint. Where that cannot be, weights and generators are as they were.

    Raises:
        ReloadError: the checkpoint or the best weights beside it are torn or another training's, or do not hold all
            that the method goes on from.
    """
    if not method.resumes:
        given = f"{checkpoint.name}: a method that changes more after each step than its state holds"
        raise ReloadError(said(given, "a method whose training can be resumed"))
    found = read_checkpoint(checkpoint)
    if not {"decay", "early"} <= found.notes.keys() or bool(found.notes["early"]) is (early is None):
        raise ReloadError(said(f"{checkpoint.name} is of another form", "a checkpoint of this run"))
    if early is not None:
        early.restore(found.notes["early"])
    try:
        if early is not None and early.best_epoch:
            check_whole(early.file(early.best_epoch))
        restore_optimizer(found, checkpoint, optimizer)
        method.load_state(model, found.state)
    except ReloadError:
        if early is not None:
            early.begin()
        raise
    restore_random(found)
    return found


def _epoch_ended(
    model: EncoderClassifier,
    method: Adaptation,
    early: EarlyStopping,
    texts: Encoded,
    precision: Precision,
    step: int,
    decay: float,
    emit: Listener,
) -> bool:
    """Score the watched texts, and keep the weights where they are the best so far; whether they are."""
    emit(PhaseStarted("eval"))
    scores = early.watch.scores(outputs_while_training(model, texts, precision, early.watch.shelf))
    model.train()
    better = early.improved(scores, step, decay)
    if better:
        early.keep(method.state(model))
    emit(EpochEvaluated(len(early.scores), step, scores))
    return_free_memory()
    emit(PhaseEnded("eval"))
    return better


@dataclass(frozen=True)
class _Gradients:
    """Of one optimizer step: mean loss, norm before clipping, real tokens, and with padding."""

    loss: float
    norm: float
    tokens: int
    padded: int


def _step(
    model: EncoderClassifier,
    moving: list[torch.nn.Parameter],
    task: Task,
    inputs: Inputs,
    encoded: Encoded,
    targets_n: torch.Tensor,
    spec: TrainSpec,
    batch: list[int],
) -> _Gradients:
    """Leave clipped gradients of the batch's mean loss in the parameters."""
    loss, tokens, padded = 0.0, 0, 0
    size = spec.micro_batch_size or len(batch)
    units = task.units([len(encoded.ids[row]) for row in batch])
    for start in range(0, len(batch), size):
        rows = batch[start : start + size]
        part = task.loss_sum(model.head(inputs.features(rows)), targets_n[rows]) / units
        part.backward()
        loss += part.item()
        tokens += sum(len(encoded.ids[row]) for row in rows)
        padded += inputs.positions(rows)
    norm = torch.nn.utils.get_total_norm([one.grad for one in moving if one.grad is not None])
    if not norm + CLIP_EPSILON < spec.clip_norm:  # else all gradients would be multiplied by 1; so written for NaN too
        torch.nn.utils.clip_grads_with_norm_(moving, spec.clip_norm, norm)
    return _Gradients(loss, float(norm), tokens, padded)
