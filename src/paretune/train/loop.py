"""The one training loop: AdamW, warm-up and linear decay, accumulation, clipping; events out.

Not here: any method's or task's name, evaluation, and how cost is measured (a listener does that). Its twin without
abstractions is `examples/flat_loop.py`.

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
from paretune.core.errors import DivergedError
from paretune.core.events import CheckpointSaved, Listener, PhaseEnded, PhaseStarted, StepEnded, TrainingPlanned
from paretune.core.memory import return_free_memory
from paretune.data.encoding import Encoded
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import chosen_precision
from paretune.models.surgery import trainable
from paretune.tasks.task import Task
from paretune.train.active_vocabulary import active_vocabulary
from paretune.train.batches import epoch_batches
from paretune.train.checkpoint import Costs, checkpoint_bytes, read_checkpoint, write_checkpoint
from paretune.train.fast_encoder import EngineChoice, fast_path
from paretune.train.frozen_prefix import Inputs, Shelf, inputs_of
from paretune.train.optim import adamw, schedule_factor, set_learning_rate, whole_decay

CLIP_EPSILON = 1e-6  # as torch's clip_grad_norm_ has it
RECIPE = 7  # raised when the same settings would train to other numbers: 7, blocks in C++


class TrainSpec(Settings):
    """The study's [train] table, the same for every trained method.

    `batch_size` is what one optimizer step sees; `micro_batch_size` how much of it is computed at once (all by
    default). The head starts from noise and learns at a rate of its own, which is not searched; the encoder at the
    method's. `precision` "auto" is bf16 autocast with fp32 weights where the processor has bf16, else fp32.
    `keep_frozen`: what the frozen lower blocks give is computed once and kept on the disk while the study runs.
    `activation_checkpointing`: of each block only its input is kept for the way back, for less memory and more time.
    """

    epochs: int = Field(default=3, ge=1)
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
    """What a training went through: its engine, and how many optimizer steps it had in all."""

    engine: EngineChoice
    steps: int


def planned_batches(encoded: Encoded, spec: TrainSpec, seed: int) -> list[list[int]]:
    """Row indices of every optimizer step of the whole training."""
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
) -> Trained:
    """Train in place. A checkpoint that is there is resumed from.

    `shelf` is where what frozen blocks give is kept, `costs` who writes into a checkpoint what was spent until then.

    Raises:
        DivergedError: the loss or the gradient is not finite; the message names step, learning rate and batch.
    """
    batches = planned_batches(encoded, spec, seed)
    precision = chosen_precision(spec.precision)
    decay = whole_decay(learning_rate, spec.weight_decay, len(batches), spec.warmup_share)
    model.train()
    with active_vocabulary(model, encoded, decay) as active:
        with (
            fast_path(model, precision, recomputed=spec.activation_checkpointing) as way,
            inputs_of(model, active, precision, way.fast, shelf, emit) as inputs,
        ):
            if way.fast is None and spec.activation_checkpointing:
                model.checkpoint_plain_blocks()
            optimizer = adamw(method.parameter_groups(model, learning_rate, spec.head_learning_rate, spec.weight_decay))
            moving = list(trainable(model).values())
            first = 1
            if checkpoint is not None and checkpoint.exists():
                found = read_checkpoint(checkpoint, optimizer)
                method.load_state(model, found.state)
                first = found.step + 1
                if costs is not None:
                    costs.resume(found.cost)
            emit(TrainingPlanned(steps=len(batches), epochs=spec.epochs, train_examples=len(encoded)))
            emit(PhaseStarted("step"))
            for step in range(first, len(batches) + 1):
                factor = schedule_factor(step, len(batches), spec.warmup_share)
                set_learning_rate(optimizer, factor)
                ended = _step(model, moving, task, inputs, active, targets_n, spec, batches[step - 1])
                if not (math.isfinite(ended.loss) and math.isfinite(ended.norm)):
                    rows = batches[step - 1][:4]
                    place = f"step {step} of {len(batches)}, learning rate {learning_rate * factor:.3g}, rows {rows}…"
                    given = f"loss is {ended.loss} at {place}, gradient norm {ended.norm:g}"
                    raise DivergedError(f"{given} — try a lower learning rate")
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                method.after_step(model, step)
                rate, examples = learning_rate * factor, len(batches[step - 1])
                emit(StepEnded(step, ended.loss, rate, ended.norm, examples, ended.tokens, ended.padded))
                if checkpoint is not None and spec.checkpoint_every_steps and step % spec.checkpoint_every_steps == 0:
                    spent = costs.so_far() if costs is not None else None
                    write_checkpoint(checkpoint, checkpoint_bytes(method.state(model), optimizer, step, spent))
                    emit(CheckpointSaved(step))
            emit(PhaseEnded("step"))
        engine = way.engine
        del optimizer, inputs, way  # moments and activations, before the table of words grows to its whole size
        return_free_memory()
    model.eval()
    return Trained(engine, len(batches))


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
