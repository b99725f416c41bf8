"""Which of several settings do not differ from the best one beyond noise, on the same examples.

The one-standard-error rule (Breiman et al. 1984, section 3.4.3), with the standard error of the paired difference of
two settings over the examples: both answer the same ones, so it is far smaller than that of one score. It says nothing
of the noise of seeds. Not here: which of the tied settings is taken (`study/plan.py`, `methods/regression.py`).

    nearly_best([values_a_n, values_b_n]).tied
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9  # one example of n that differs is exactly one standard error


@dataclass(frozen=True)
class NearlyBest:
    """The best setting's place, and of every setting whether it is `tied` with it and the standard error of the
    difference between both (0 for the best itself)."""

    best: int
    tied: tuple[bool, ...]
    noise: tuple[float, ...]


def nearly_best(values: Sequence[np.ndarray]) -> NearlyBest:
    """Compare settings by their values for each example, of which the mean is the score and more is better.

    A setting is tied with the best where the difference of their means is at most one standard error of it. With one
    example all are tied: nothing can be told apart.

    Raises:
        ValueError: no settings, no examples, or settings with other numbers of examples.
    """
    if not values or any(len(one) != len(values[0]) or len(one) == 0 for one in values):
        raise ValueError("settings with the same examples are needed, and at least one of each")
    best = int(np.argmax([float(np.mean(one)) for one in values]))
    noise = tuple(_standard_error(values[best] - one) if place != best else 0.0 for place, one in enumerate(values))
    tied = tuple(
        float(np.mean(values[best] - one)) <= error * (1 + ROUNDING) or place == best
        for place, (one, error) in enumerate(zip(values, noise, strict=True))
    )
    return NearlyBest(best, tied, noise)


def _standard_error(difference_n: np.ndarray) -> float:
    if len(difference_n) < 2:
        return float("inf")
    return float(np.std(difference_n, ddof=1) / np.sqrt(len(difference_n)))
