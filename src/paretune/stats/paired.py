"""Questions beside the crossed interval: exact tests for few seeds or two fixed models, a re-run's interval, what is
detectable, and where the variance comes from.

Not here: verdicts (`compare.py`). Sources: sign-flip test, Fisher 1935 (scipy); McNemar 1947, exact (statsmodels);
prediction interval, Student's t. Axes: s seeds, e examples.

    sign_flip([0.01, 0.02, 0.015]).p; mcnemar([True, False], [True, True]).p
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as _mcnemar

from paretune.stats.compare import POWER, difference_power
from paretune.stats.intervals import Components, Interval, crossed_error, quantile, t_interval

LARGEST_EXACT = 16  # 2^16 sign patterns are still all looked at


@dataclass(frozen=True)
class SignFlip:
    """Two-sided p of "the differences are as likely to be negative", and the smallest p that so many seeds can give:
    with 5 seeds 0.0625, so it can never be below 0.05."""

    p: float
    smallest_p: float
    seeds: int

    @property
    def can_decide(self) -> bool:
        """Whether a p below 0.05 was possible at all; a p that was not is not printed (SCIENCE 13)."""
        return self.smallest_p < 0.05


def sign_flip(differences_s: Sequence[float] | np.ndarray) -> SignFlip:
    """Exact sign-flip test of paired differences of seeds; from 17 seeds on by 65,536 draws of a fixed generator.

    Raises:
        ValueError: fewer than 2 seeds, or a value that is not finite.
    """
    values = np.asarray(differences_s, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not bool(np.isfinite(values).all()):
        raise ValueError(f"differences {values.tolist()} given; at least 2 finite ones are needed")
    found = stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=2**LARGEST_EXACT,
        rng=np.random.default_rng(0),
    )
    return SignFlip(float(found.pvalue), 2.0 ** (1 - len(values)), len(values))


@dataclass(frozen=True)
class McNemar:
    """Two fixed models on the same examples: how often only the first and only the second was right, exact p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first_e: Sequence[bool] | np.ndarray, second_e: Sequence[bool] | np.ndarray) -> McNemar:
    """McNemar's exact test. It compares these two checkpoints, not the two methods that made them.

    Raises:
        ValueError: no example, or not as many for both.
    """
    first, second = np.asarray(first_e, dtype=bool), np.asarray(second_e, dtype=bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"{first.shape} and {second.shape} given; one answer for each of the same examples is needed")
    table = [[int(np.sum((first == a) & (second == b))) for b in (True, False)] for a in (True, False)]
    found: Any = _mcnemar(table, exact=True)  # a bunch without declared attributes
    return McNemar(table[0][1], table[1][0], float(found.pvalue))


def prediction_interval(values_s: Sequence[float] | np.ndarray, runs: int = 1, level: float = 0.95) -> Interval:
    """Where the mean of `runs` further seeds will lie: t · s · √(1/n + 1/runs) around the mean of n.

    A re-run is judged by this, not by mean ± deviation: with 3 seeds it reaches 5 deviations to each side.

    Raises:
        ValueError: as in `t_interval`, or `runs` below 1.
    """
    if runs < 1:
        raise ValueError(f"runs = {runs} given; it is at least 1")
    mean = t_interval(values_s, level)
    wider = math.sqrt(1 + len(values_s) / runs)
    return Interval(
        mean.estimate,
        mean.estimate - wider * (mean.estimate - mean.low),
        mean.estimate + wider * (mean.high - mean.estimate),
        mean.df,
    )


@dataclass(frozen=True)
class Shares:
    """Parts of the variance of a mean over seeds × examples; they sum to 1 (all 0 where nothing varies).

    `seeds` shrinks with more seeds, `examples` with a larger test set, `rest` (which example a seed happens to get
    wrong) with either.
    """

    seeds: float
    examples: float
    rest: float


def variance_shares(parts: Components) -> Shares:
    """Where the doubt about a difference comes from."""
    found = np.array(
        [
            parts.seed_variance / parts.seeds,
            parts.example_variance / parts.examples,
            parts.residual_variance / (parts.seeds * parts.examples),
        ]
    )
    total = float(found.sum())
    return Shares(*(found / total).tolist()) if total > 0 else Shares(0.0, 0.0, 0.0)


def detectable_difference(parts: Components, seeds: int, alpha: float = 0.05) -> float:
    """The smallest true difference that so many seeds find significant with 80 % power, on the same test set.

    Takes the variance components as the truth, which they are not: with 3 seeds it is an order of magnitude.

    Raises:
        ValueError: fewer than 2 seeds.
    """
    if seeds < 2:
        raise ValueError(f"seeds = {seeds} given; at least 2 are needed")
    error, df = crossed_error(parts, seeds)
    if error == 0:
        return 0.0

    def short(difference: float) -> float:
        return float(difference_power(difference, np.array([error]), np.array([df]), alpha)[0]) - POWER

    highest = 2 * error * (quantile(df, 1 - alpha / 2) + quantile(df, POWER))
    root: Any = optimize.brentq(short, 0.0, highest, xtol=1e-3 * error)
    return float(root)


def churn(predictions_se: Sequence[Sequence[str]] | np.ndarray) -> float:
    """Mean share of examples on which two seeds say different things.

    Raises:
        ValueError: fewer than 2 seeds.
    """
    said = [np.asarray(row, dtype=object) for row in predictions_se]
    if len(said) < 2:
        raise ValueError(f"{len(said)} seeds given; at least 2 are needed")
    return float(np.mean([np.mean(a != b) for place, a in enumerate(said) for b in said[place + 1 :]]))
