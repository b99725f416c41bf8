"""The typed events of a run, known to the loop that emits them and to the meter and the store that listen.

Not here: anything that acts on an event. A listener may not change the training.

    emit(EvaluationEnded(step=60, split="validation", scores={"accuracy": 0.94}))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

PHASES = ("load", "tokenize", "earlier", "prefix", "step", "eval", "save", "predict", "latency")
Phase = Literal["load", "tokenize", "earlier", "prefix", "step", "eval", "save", "predict", "latency"]


@dataclass(frozen=True)
class PhaseStarted:
    """A phase of a run begins."""

    phase: Phase


@dataclass(frozen=True)
class PhaseEnded:
    """A phase of a run ends."""

    phase: Phase


@dataclass(frozen=True)
class TrainingPlanned:
    """What the loop is about to do at most: where it watches validation scores it may stop after any epoch."""

    steps: int
    epochs: float
    train_examples: int


@dataclass(frozen=True)
class StepEnded:
    """One optimizer step: mean loss of its examples, learning rate, gradient norm before clipping, and what was in it.

    `tokens` counts real tokens, `padded_tokens` all positions that were computed.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    examples: int
    tokens: int
    padded_tokens: int


@dataclass(frozen=True)
class EvaluationEnded:
    """Scores of one split after some steps; `step` 0 is before training."""

    step: int
    split: str
    scores: dict[str, float]


@dataclass(frozen=True)
class EpochEvaluated:
    """Validation scores after an epoch (the first is 1), by which training is stopped."""

    epoch: int
    step: int
    scores: dict[str, float]


@dataclass(frozen=True)
class TrainingStopped:
    """Training ended after `epoch`; the weights of `best_epoch`, as it was after `best_step`, are kept."""

    epoch: int
    step: int
    best_epoch: int
    best_step: int


@dataclass(frozen=True)
class TrainingResumed:
    """Training goes on after the `step` of a checkpoint; 0 with the reason: it could not, and begins anew."""

    step: int
    reason: str = ""


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint from which the run can go on."""

    step: int


Event = (
    PhaseStarted
    | PhaseEnded
    | TrainingPlanned
    | StepEnded
    | EvaluationEnded
    | EpochEvaluated
    | TrainingStopped
    | TrainingResumed
    | CheckpointSaved
)
Listener = Callable[[Event], None]
