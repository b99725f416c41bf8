"""The contract of a task: how examples become a loss, predictions and scores.

Not here: any model or method; a task sees logits and targets only.

    task = TASKS.load("classification")(labels=("earn", "acq"))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch

from paretune.core.config import Settings
from paretune.core.errors import ConfigError, said
from paretune.core.registry import Registry
from paretune.data.encoding import Encoded, TextTokenizer, encode

TASKS = Registry(
    "task",
    {
        "classification": "paretune.tasks.classification:Classification",
        "next_token": "paretune.tasks.next_token:NextToken",
    },
)
ModelKind = Literal["classifier", "language"]


class TaskSpec(Settings):
    """The study's [task] table."""

    kind: str = "classification"


class Answers(ABC):
    """What a model said of n examples."""

    @abstractmethod
    def columns(self, labels: Sequence[str]) -> dict[str, list[object]]:
        """What is recorded of each example beside its id, by name of the column."""


@dataclass(frozen=True)
class Outcome(Answers):
    """Of n examples the predicted label, its probability, and the true label's probability."""

    predictions: tuple[str, ...]
    scores_n: np.ndarray
    label_probabilities_n: np.ndarray

    def columns(self, labels: Sequence[str]) -> dict[str, list[object]]:
        return {
            "label": list(labels),
            "prediction": list(self.predictions),
            "score": self.scores_n.tolist(),
            "label_probability": self.label_probabilities_n.tolist(),
        }


AnswersT = TypeVar("AnswersT", bound=Answers)


class Task(ABC, Generic[AnswersT]):
    """One way to turn examples into a loss, predictions and scores.

    `labelled` says whether examples have labels, `model` what is put on the base model, `metrics` which scores may head
    a study (the first by default).
    """

    labelled: ClassVar[bool] = True
    model: ClassVar[ModelKind] = "classifier"
    metrics: ClassVar[tuple[str, ...]]
    labels: tuple[str, ...]

    def balanced(self, labels: Sequence[str]) -> Task[AnswersT]:
        """This task with a loss in which every class weighs alike, whatever its share of the training labels.

        Raises:
            ConfigError: a task without classes.
        """
        raise ConfigError(said('train.class_weights = "balanced"', "a task with classes", do='"none"'))

    def encode(self, tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int, prefix: str) -> Encoded:
        """Tokens of texts."""
        return encode(tokenizer, texts, max_tokens, prefix)

    def units(self, lengths: Sequence[int]) -> int:
        """Over how many things the loss of texts of these lengths is a mean: their number."""
        return len(lengths)

    @abstractmethod
    def targets(self, labels: Sequence[str]) -> torch.Tensor:
        """Targets of the loss, one row an example."""

    @abstractmethod
    def loss_sum(self, outputs_bc: torch.Tensor, targets_b: torch.Tensor) -> torch.Tensor:
        """The loss summed over the examples: the caller divides by the `units` of the whole optimizer step."""

    @abstractmethod
    def results(self, outputs_nc: torch.Tensor, encoded: Encoded) -> np.ndarray:
        """What is kept of a model's outputs for texts, one row a text."""

    @abstractmethod
    def outcome(self, results_nc: np.ndarray, labels: Sequence[str]) -> AnswersT:
        """Predictions with what the scores need."""

    @abstractmethod
    def scores(self, outcome: AnswersT, labels: Sequence[str]) -> dict[str, float]:
        """All metrics of the task, by name."""
