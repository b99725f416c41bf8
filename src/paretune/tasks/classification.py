"""Single-label classification: cross-entropy on a linear head; accuracy, macro-F1, MCC, log-loss, calibration error.

Not here: the metrics' formulas (`stats/metrics.py`).

    Classification(("earn", "acq")).targets(["acq"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from paretune.core.errors import DataError, said
from paretune.data.encoding import Encoded
from paretune.stats.metrics import METRICS, all_scores
from paretune.tasks.task import Outcome, Task


class Classification(Task[Outcome]):
    """One of c labels for each text; logits and probabilities have the order of `labels`."""

    metrics: ClassVar[tuple[str, ...]] = tuple(METRICS)

    def __init__(self, labels: tuple[str, ...], weights_c: torch.Tensor | None = None) -> None:
        """`weights_c` is what an example of each class weighs in the loss; 1 by default."""
        self.labels = labels
        self._index = {label: index for index, label in enumerate(labels)}
        self._weights_c = weights_c

    def balanced(self, labels: Sequence[str]) -> Classification:
        """n / (classes · examples of the class), as scikit-learn has it: over the given labels the mean is 1, so that
        the loss stays a sum over as many examples."""
        counts_c = torch.bincount(self.targets(labels), minlength=len(self.labels)).float()
        present = int((counts_c > 0).sum())
        return Classification(self.labels, len(labels) / (present * counts_c.clamp(min=1)))

    def targets(self, labels: Sequence[str]) -> torch.Tensor:
        """Class indices, shape (n,).

        Raises:
            DataError: a label that the task does not have.
        """
        unknown = sorted(set(labels) - set(self._index))
        if unknown:
            raise DataError(said(f"label {unknown[0]!r}", "one of " + ", ".join(self.labels)))
        return torch.tensor([self._index[label] for label in labels], dtype=torch.long)

    def loss_sum(self, outputs_bc: torch.Tensor, targets_b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs_bc.float(), targets_b, weight=self._weights_c, reduction="sum")

    def probabilities(self, logits_bc: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes, shape (b, c)."""
        return torch.softmax(logits_bc.float(), dim=-1)

    def results(self, outputs_nc: torch.Tensor, encoded: Encoded) -> np.ndarray:
        """Probabilities of the classes, shape (n, c)."""
        return self.probabilities(outputs_nc).numpy()

    def outcome(self, results_nc: np.ndarray, labels: Sequence[str]) -> Outcome:
        probabilities_nc = results_nc
        best_n = probabilities_nc.argmax(axis=1)
        rows_n = np.arange(len(labels))
        truth_n = np.array([self._index[label] for label in labels], dtype=int)
        return Outcome(
            tuple(self.labels[index] for index in best_n),
            probabilities_nc[rows_n, best_n],
            probabilities_nc[rows_n, truth_n],
        )

    def scores(self, outcome: Outcome, labels: Sequence[str]) -> dict[str, float]:
        return all_scores(labels, outcome.predictions, outcome.scores_n, outcome.label_probabilities_n)
