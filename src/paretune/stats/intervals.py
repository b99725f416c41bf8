"""Intervals for one method, for a proportion, and for the difference of two methods over seeds × examples.

Not here: verdicts and p-values (`compare.py`). No percentile bootstrap: over 3–5 seeds it covers 75–85 %, not 95 %.
Source: Student's t; Wilson 1927; two-way random-effects analysis of variance without replication, with
Satterthwaite's (1946) degrees of freedom. Coverage is simulated in `tests/invariants/test_coverage.py`.

    t_interval([0.91, 0.93, 0.92])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ROUNDING = 1e-12  # deviations below this share of the largest value are the arithmetic's, not the data's


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval, and the degrees of freedom of the t that made it (inf: a normal)."""

    estimate: float
    low: float
    high: float
    df: float

    def within(self, bounds: tuple[float, float]) -> Interval:
        """Its ends cut to the bounds of what it estimates; without ends it stays so."""
        lowest, highest = bounds
        if math.isinf(self.low) and math.isinf(self.high):
            return self
        return Interval(self.estimate, max(self.low, lowest), min(self.high, highest), self.df)


@dataclass(frozen=True)
class Components:
    """A mean over seeds × examples, its variance, and where that comes from.

    `seed_variance`, `example_variance`, `residual_variance` are per seed, per example and per cell, cut at 0; none is
    itself the variance of the mean, which is `variance`. All are in squared units of the values.
    """

    estimate: float
    variance: float
    df: float
    seeds: int
    examples: int
    seed_variance: float
    example_variance: float
    residual_variance: float

    def interval(self, level: float = 0.95) -> Interval:
        """The t interval of this mean.

        Raises:
            ValueError: `level` outside 0..1.
        """
        return interval_of(self.estimate, math.sqrt(self.variance), self.df, level)


def t_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent values (one method's seeds).

    Equal values give a width of zero.

    Raises:
        ValueError: fewer than 2 values, a value that is not finite, or `level` outside 0..1.
    """
    array = _finite(values)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"values of shape {array.shape} given; a t interval needs at least 2 values in one row")
    deviation = _centred(array)
    variance = float((deviation**2).sum()) / (len(array) - 1)
    return interval_of(float(array.mean()), math.sqrt(variance / len(array)), len(array) - 1, level)


def examples_interval(values_e: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """The interval of a single run's mean over examples: the test set's share of the doubt only.

    For a study of one seed. It says nothing about other seeds, so it is too narrow for "method A beats method B"
    (it covers about 88 % of the nominal 95 % where seeds matter); `crossed_interval` is for that.

    Raises:
        ValueError: as in `t_interval`.
    """
    return t_interval(values_e, level)


def wilson(successes: int, total: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion; holds near 0 and 1, where the usual one collapses.

    Raises:
        ValueError: `total` below 1, `successes` outside 0..total, or `level` outside 0..1.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total} given; 0 ≤ successes ≤ total and total ≥ 1 are needed")
    return wilson_share(successes / total, total, level)


def wilson_share(share: float, rows: float, level: float = 0.95) -> Interval:
    """Wilson's interval of a share of an effective number of rows, which need not be whole.

    Raises:
        ValueError: `level` outside 0..1.
    """
    z = quantile(math.inf, 1 - (1 - _level(level)) / 2)
    scale = 1 + z**2 / rows
    centre = (share + z**2 / (2 * rows)) / scale
    half = z * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / scale
    low = 0.0 if share == 0 else centre - half  # exact at the ends, where rounding would leave a crumb
    high = 1.0 if share == 1 else centre + half
    return Interval(share, low, high, math.inf)


def bounded_interval(
    parts: Components, bounds: tuple[float, float], most_rows: float, rows: float, level: float = 0.95
) -> Interval:
    """The interval of a mean that lies within finite bounds: Wilson's with an effective number of rows.

    Student's t leaves the bounds, and loses its width where nearly all examples are right. Here the mean is a share of
    the way between its bounds, and its effective number of rows is share·(1 − share) over its variance, made smaller by
    what few degrees of freedom cost, (z/t)² (Korn & Graubard 1998), and at most `most_rows`. Where all examples lie at
    one bound there is no variance to go by: `rows` examples have said so. A mean inside the bounds without any variance
    is the same for all seeds and examples by its definition, and has no width.

    Raises:
        ValueError: `level` outside 0..1, or bounds that are not finite.
    """
    lowest, highest = bounds
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError(f"bounds {bounds} given; both must be finite")
    span = highest - lowest
    share = min(1.0, max(0.0, (parts.estimate - lowest) / span))
    effective = rows
    if 0 < share < 1:
        if parts.variance == 0:
            return Interval(parts.estimate, parts.estimate, parts.estimate, parts.df)
        upper = 1 - (1 - _level(level)) / 2
        lost = (quantile(math.inf, upper) / quantile(parts.df, upper)) ** 2
        effective = min(most_rows, share * (1 - share) * span**2 / parts.variance * lost)
    found = wilson_share(share, effective, level)
    return Interval(parts.estimate, lowest + span * found.low, lowest + span * found.high, parts.df)


def crossed_components(differences_se: np.ndarray) -> Components:
    """Mean and variance of a seeds × examples matrix in which both are samples (every seed sees every example).

    With mean squares of seeds, examples and residual, the variance of the mean is
    (MS_seed + MS_example − MS_residual) / (n_s·n_e), floored at max(MS_seed, MS_example) / (n_s·n_e): the difference
    may come out below one of its parts by chance. Degrees of freedom are Satterthwaite's,
    (floored sum)² / Σ MS²/df; the floored sum is used there too, as the bare one loses up to 2 points of coverage.

    Raises:
        ValueError: fewer than 2 seeds or 2 examples (one seed: `examples_interval`), or a value that is not finite.
    """
    matrix_se = _finite(differences_se)
    if matrix_se.ndim != 2 or min(matrix_se.shape) < 2:
        raise ValueError(
            f"differences of shape {matrix_se.shape} given; at least 2 seeds × 2 examples are needed "
            "(for one seed use examples_interval)"
        )
    seeds, examples = matrix_se.shape
    deviation_se = _centred(matrix_se)
    seed_effect, example_effect = deviation_se.mean(axis=1), deviation_se.mean(axis=0)
    residual_se = deviation_se - seed_effect[:, None] - example_effect[None, :]
    degrees = (seeds - 1, examples - 1, (seeds - 1) * (examples - 1))
    squares = (examples * (seed_effect**2).sum(), seeds * (example_effect**2).sum(), (residual_se**2).sum())
    ms_seed, ms_example, ms_residual = (float(s) / d for s, d in zip(squares, degrees, strict=True))
    variance, df = crossed_variance(ms_seed, ms_example, ms_residual, seeds, examples)
    return Components(
        estimate=float(matrix_se.mean()),
        variance=variance,
        df=df,
        seeds=seeds,
        examples=examples,
        seed_variance=max(0.0, (ms_seed - ms_residual) / examples),
        example_variance=max(0.0, (ms_example - ms_residual) / seeds),
        residual_variance=ms_residual,
    )


def crossed_variance(
    ms_seed: float, ms_example: float, ms_residual: float, seeds: int, examples: int
) -> tuple[float, float]:
    """Variance of the mean and its degrees of freedom from the three mean squares; see `crossed_components`."""
    degrees = (seeds - 1, examples - 1, (seeds - 1) * (examples - 1))
    floored = max(ms_seed + ms_example - ms_residual, ms_seed, ms_example)
    spread = sum(ms**2 / d for ms, d in zip((ms_seed, ms_example, ms_residual), degrees, strict=True))
    fewest = float(min(degrees))
    df = max(floored**2 / spread, fewest) if spread > 0 else fewest
    return floored / (seeds * examples), df


def crossed_error(parts: Components, seeds: int) -> tuple[float, float]:
    """Standard error and degrees of freedom to expect with so many seeds, from the expected mean squares."""
    ms_seed = parts.residual_variance + parts.examples * parts.seed_variance
    ms_example = parts.residual_variance + seeds * parts.example_variance
    variance, df = crossed_variance(ms_seed, ms_example, parts.residual_variance, seeds, parts.examples)
    return math.sqrt(variance), df


def crossed_interval(differences_se: np.ndarray, level: float = 0.95) -> Interval:
    """The interval for the difference of two methods, for new seeds *and* new examples.

    `differences_se` is A − B per seed (row) and test example (column), paired on both. Simulated coverage of the
    nominal 95 %: 94–98 % from 5 seeds on, whatever the shares of seeds and examples. With 3 seeds it is 92–98 %, and
    92 % only where seeds weigh about ten times the examples: two degrees of freedom then decide both the width and,
    through Satterthwaite, how far the t is trusted, so a spread that is small by chance errs twice in one direction.
    Studies of 3 seeds are therefore *pilots*. With 2 seeds it can fall to 87 %.

    Raises:
        ValueError: as in `crossed_components`, or `level` outside 0..1.
    """
    return crossed_components(differences_se).interval(level)


def quantile(df: float, probability: float) -> float:
    """Quantile of Student's t; a normal one for infinite `df`."""
    return float(stats.norm.ppf(probability) if math.isinf(df) else stats.t.ppf(probability, df))


def interval_of(estimate: float, standard_error: float, df: float, level: float) -> Interval:
    """The two-sided t interval of an estimate with its standard error."""
    half = quantile(df, 1 - (1 - _level(level)) / 2) * standard_error
    return Interval(estimate, estimate - half, estimate + half, float(df))


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level {level} given; it must lie between 0 and 1, such as 0.95")
    return level


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if not bool(np.isfinite(array).all()):
        raise ValueError("values hold NaN or infinity; leave failed runs out before asking for an interval")
    return array


def _centred(array: np.ndarray) -> np.ndarray:
    """Deviations from the mean, with rounding crumbs of equal values set to exactly zero."""
    deviation = array - array.mean()
    deviation[np.abs(deviation) <= ROUNDING * np.abs(array).max()] = 0.0
    return deviation
