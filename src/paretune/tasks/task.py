"""The contract of a task: how examples become a loss, predictions and scores.

Not here: any model or method; a task sees logits and targets only.

    task = TASKS.load("classification")(labels=("earn", "acq"))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from paretune.core.config import Settings
from paretune.core.registry import Registry

TASKS = Registry("task", {"classification": "paretune.tasks.classification:Classification"})


class TaskSpec(Settings):
    """The study's [task] table."""

    kind: str = "classification"


@dataclass(frozen=True)
class Outcome:
    """What a model said of n examples: the predicted label, its probability, and the true label's probability."""

    predictions: tuple[str, ...]
    scores_n: np.ndarray
    label_probabilities_n: np.ndarray


class Task(ABC):
    """One way to turn examples into a loss, predictions and scores."""

    labels: tuple[str, ...]

    @abstractmethod
    def targets(self, labels: Sequence[str]) -> torch.Tensor:
        """Targets of the loss, one row an example."""

    @abstractmethod
    def loss_sum(self, logits_bc: torch.Tensor, targets_b: torch.Tensor) -> torch.Tensor:
        """The loss summed over the examples: the caller divides by the examples of the whole optimizer step."""

    @abstractmethod
    def probabilities(self, logits_bc: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes, shape (b, c)."""

    @abstractmethod
    def outcome(self, probabilities_nc: np.ndarray, labels: Sequence[str]) -> Outcome:
        """Predictions with the probabilities that the scores need."""

    @abstractmethod
    def scores(self, outcome: Outcome, labels: Sequence[str]) -> dict[str, float]:
        """All metrics of the task, by name."""
