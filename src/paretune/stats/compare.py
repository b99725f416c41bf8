"""Each method against the control: difference, p, equivalence, verdict, and the seeds that would decide it.

Not here: the intervals' own mathematics (`intervals.py`), the words of a verdict (`report/`), rank or sign tests
(with 5 paired seeds none can reach p < 0.05), comparisons across several data sets.
Source: Holm 1979; two one-sided tests, Schuirmann 1987; both on the crossed seed × example t of `intervals.py`.

    compare({"full": {0: np.zeros(9), 1: np.zeros(9)}, "lora": {0: np.eye(9)[0], 1: np.eye(9)[1]}}, "full", margin=0.2)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from scipy import stats

from paretune.stats.intervals import ROUNDING, Components, Interval, crossed_components, crossed_error

Verdict = Literal["better", "worse", "equivalent", "undecided"]
SeedScores = Mapping[int, np.ndarray]  # seed → one value per test example, the same examples in the same order

POWER = 0.8
MOST_FURTHER_SEEDS = 200
TOO_FEW_SEEDS = "too few seeds"
LEAST_DF = 2.0  # under so many degrees of freedom an interval of Student's t is as wide as 5 to 13 standard errors


@dataclass(frozen=True)
class Tested:
    """The interval that a test decides by, with its level: the test is significant where the interval says so."""

    interval: Interval
    level: float


@dataclass(frozen=True)
class Comparison:
    """One method against the control.

    `difference` is method − control with the interval that the verdict was taken from, at `level`, cut to what a
    difference can be; it and all p are None where fewer than 2 seeds are shared (`reason` says so).
    `p` is two-sided and unadjusted, `p_holm` adjusted over all methods that have one, `tost_p` the larger of the two
    one-sided p of equivalence, unadjusted; `tost_holm` is adjusted, and no verdict rests on it. `seeds` counts the
    shared seeds.
    For an undecided one, `more_seeds` is how many further seeds would decide it and `limited_by` what stands in the
    way: "seeds" (more would decide; over 200 of them if `more_seeds` is None) or "examples" (the test set is too
    small for any number of seeds). Both are None for a decided one.
    `zero` excludes 0 exactly where `p_holm` is significant, `margin` lies inside ±margin exactly where `tost_p` is;
    `alone` is the t interval of this pair by itself at the study's level, not cut: what is pooled is pooled from it.
    """

    method: str
    seeds: int
    difference: Interval | None
    p: float | None
    p_holm: float | None
    tost_p: float | None
    verdict: Verdict
    more_seeds: int | None
    limited_by: Literal["seeds", "examples"] | None
    reason: str | None
    level: float | None = None
    tost_holm: float | None = None
    zero: Tested | None = None
    margin: Tested | None = None
    alone: Interval | None = None

    @property
    def too_few_seeds(self) -> bool:
        """Whether an undecided difference has so few degrees of freedom (under 2) that its ends say nothing."""
        return self.verdict == "undecided" and (self.difference is None or self.difference.df < LEAST_DF)


def compare(
    scores: Mapping[str, SeedScores],
    control: str,
    margin: float,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    undefined: float | None = None,
) -> list[Comparison]:
    """Compare every other method with the control, in the order given, on the seeds that both have.

    The verdict, with α = 1 − level, is the first that holds:

    1. fewer than 2 shared seeds: undecided, reason "too few seeds";
    2. `tost_p` ≤ α, so |difference| < margin is shown: equivalent, *also* where the difference is significant (a
       difference that exists and is too small to matter, by the margin the study declared);
    3. `p_holm` ≤ α: better or worse, by the sign of the difference;
    4. undecided.

    Each verdict has the interval that it was taken from. Equivalence: 1 − 2α, which lies inside ±margin exactly where
    both one-sided tests are significant. A difference: 1 − α/k, k being Holm's divisor at the method's step (for the
    methods that stay, at the step where the procedure stopped). Undecided: the wider of both, which holds 0 and
    reaches beyond the margin. `bounds` are those of one value: no end leaves what a difference can be (`reach`).

    Raises:
        ValueError: unknown control, a margin that is not positive, `level` outside 0..1, or runs whose test examples
            differ in number or hold NaN.
    """
    if control not in scores:
        raise ValueError(f"unknown control {control!r}; allowed: {', '.join(scores)}")
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"margin {margin} given; equivalence needs a margin above 0, such as 0.01")
    if not 0 < level < 1:
        raise ValueError(f"level {level} given; it must lie between 0 and 1, such as 0.95")
    alpha = 1 - level
    found = {name: _paired(scores[name], scores[control]) for name in scores if name != control}
    p_of = {name: _p_difference(parts) for name, parts in found.items() if parts is not None}
    tost_of = {name: _p_equivalence(parts, margin) for name, parts in found.items() if parts is not None}
    holm_of = dict(zip(p_of, holm(list(p_of.values())), strict=True))
    tost_holm_of = dict(zip(tost_of, holm(list(tost_of.values())), strict=True))
    divisor_of = dict(zip(p_of, holm_divisors(list(p_of.values()), alpha), strict=True))
    alpha_next = alpha / max(1, len(p_of) - sum(p <= alpha for p in holm_of.values()))  # where Holm's procedure stopped
    comparisons: list[Comparison] = []
    for name, parts in found.items():
        if parts is None:
            shared = len(scores[name].keys() & scores[control].keys())
            comparisons.append(Comparison(name, shared, None, None, None, None, "undecided", None, None, TOO_FEW_SEEDS))
            continue
        verdict = _verdict(parts.estimate, holm_of[name], tost_of[name], alpha)
        more, limit = further_seeds(parts, margin, alpha_next, alpha) if verdict == "undecided" else (None, None)
        levels = 1 - alpha / divisor_of[name], 1 - 2 * alpha
        ends = reach(scores[name], scores[control], bounds, undefined)
        zero, inside = (Tested(parts.interval(one).within(ends), one) for one in levels)
        match verdict:
            case "equivalent":
                shown = inside
            case "better" | "worse":
                shown = zero
            case "undecided":
                shown = max(zero, inside, key=lambda one: one.level)
            case _:
                assert_never(verdict)
        comparisons.append(
            Comparison(
                name, parts.seeds, shown.interval, p_of[name], holm_of[name], tost_of[name], verdict, more, limit, None,
                shown.level, tost_holm_of[name], zero, inside, parts.interval(level),
            )
        )  # fmt: skip
    return comparisons


def reach(
    method: SeedScores, control: SeedScores, bounds: tuple[float, float], undefined: float | None = None
) -> tuple[float, float]:
    """The lowest and the highest method − control there can be, where each lies within `bounds`.

    `undefined`: what a metric is by definition where it has no value. A side that is nothing else is known to be that:
    the Matthews correlation of a method that says one class alone is 0, so nothing differs from it by more than 1.
    """

    def span(side: SeedScores) -> tuple[float, float]:
        known = undefined is not None and all(bool(np.all(row == undefined)) for row in side.values())
        return (undefined, undefined) if undefined is not None and known else bounds

    (lowest, highest), (low_of_control, high_of_control) = span(method), span(control)
    return lowest - high_of_control, highest - low_of_control


def false_equivalence(methods: int, level: float = 0.95) -> float:
    """At most so likely is at least one false "equivalent" of so many methods that all lie at the margin.

    Each is tested by itself at α = 1 − level. The bound, 1 − (1 − α)^methods, is that of independent methods; those of
    one study share the control and the examples, which makes it less (six: 17–18 % instead of 26 %).
    """
    return 1 - level**methods


def holm_divisors(p_values: Sequence[float], alpha: float) -> list[int]:
    """By what Holm's procedure divides α for each of the p-values, in the order given.

    The smallest is tested at α/n, the next at α/(n − 1) and so on; from the first that is not significant on all have
    the divisor at which the procedure stopped.
    """
    divisors = [1] * len(p_values)
    stopped: int | None = None
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        divisor = len(p_values) - rank
        if stopped is None and divisor * p_values[index] > alpha:
            stopped = divisor
        divisors[index] = stopped or divisor
    return divisors


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def further_seeds(
    parts: Components, margin: float, alpha_difference: float, alpha_equivalence: float
) -> tuple[int | None, Literal["seeds", "examples"]]:
    """How many seeds beyond those of `parts` decide with 80 % power, and what limits it otherwise.

    Takes the estimate and the variance components as the truth, which they are not: with 3 seeds the answer is an
    order of magnitude. "Decide" is: the difference becomes significant at `alpha_difference`, or equivalence is
    shown at `alpha_equivalence`, whichever comes first. The examples' part of the variance does not shrink with
    seeds; if it alone forbids a decision the answer is (None, "examples").
    """
    totals = np.arange(parts.seeds + 1, parts.seeds + MOST_FURTHER_SEEDS + 1)
    expected = [crossed_error(parts, int(total)) for total in totals]
    errors, degrees = (np.array(column) for column in zip(*expected, strict=True))
    enough = _power(parts.estimate, errors, degrees, margin, alpha_difference, alpha_equivalence) >= POWER
    if bool(enough.any()):
        return int(np.argmax(enough)) + 1, "seeds"
    last_error = np.array([math.sqrt(parts.example_variance / parts.examples)])
    last_df = np.array([float(parts.examples - 1)])
    last = _power(parts.estimate, last_error, last_df, margin, alpha_difference, alpha_equivalence)
    return None, "seeds" if float(last[0]) >= POWER else "examples"


def difference_power(truth: float, errors_n: np.ndarray, degrees_n: np.ndarray, alpha: float) -> np.ndarray:
    """Power of the two-sided t test of a difference, per planned size n: `errors_n` are standard errors to expect."""
    return _power(truth, errors_n, degrees_n, None, alpha, alpha)


def _power(
    truth: float,
    errors_n: np.ndarray,
    degrees_n: np.ndarray,
    margin: float | None,
    alpha_difference: float,
    alpha_equivalence: float,
) -> np.ndarray:
    """The larger of the two tests' powers, per planned size n; without a margin that of the difference alone.

    Given the estimated standard error the estimate is normal, so each power is a normal probability averaged over
    the error's chi distribution (for the equivalence test this is Owen's Q), here at 200 equally likely points.
    """
    points_q = (np.arange(200) + 0.5) / 200
    factor_nq = np.sqrt(stats.chi2.ppf(points_q[None, :], degrees_n[:, None]) / degrees_n[:, None])
    errors_n1 = np.maximum(errors_n, 1e-300)[:, None]  # no spread at all: every probability below becomes 0 or 1
    reach_nq = stats.t.ppf(1 - alpha_difference / 2, degrees_n)[:, None] * factor_nq
    with np.errstate(over="ignore"):
        shift_n1 = abs(truth) / errors_n1
    significant_n = (stats.norm.cdf(shift_n1 - reach_nq) + stats.norm.cdf(-shift_n1 - reach_nq)).mean(axis=1)
    if margin is None:
        return significant_n
    with np.errstate(over="ignore"):
        upper_n1, lower_n1 = (margin - truth) / errors_n1, (margin + truth) / errors_n1
    need_nq = stats.t.ppf(1 - alpha_equivalence, degrees_n)[:, None] * factor_nq
    inside_nq = stats.norm.cdf(upper_n1 - need_nq) + stats.norm.cdf(lower_n1 - need_nq) - 1
    return np.maximum(significant_n, np.maximum(inside_nq, 0.0).mean(axis=1))


def _paired(method: SeedScores, control: SeedScores) -> Components | None:
    """The components of method − control over shared seeds; None for fewer than 2 of them."""
    shared = sorted(method.keys() & control.keys())
    if len(shared) < 2:
        return None
    rows = [np.asarray(side[seed], dtype=float) for seed in shared for side in (method, control)]
    sizes = sorted({row.shape for row in rows})
    if len(sizes) > 1 or rows[0].ndim != 1:
        raise ValueError(f"values of shapes {sizes} given; every run needs one value for each of the same examples")
    return crossed_components(np.stack(rows[0::2]) - np.stack(rows[1::2]))


def _t_tail(distance: float, parts: Components) -> float:
    """P(t > distance / standard error); with no spread, 0, ½ or 1 by the sign of the distance."""
    error = math.sqrt(parts.variance)
    if error == 0:
        return 0.5 if abs(distance) <= ROUNDING else float(distance < 0)
    return float(stats.t.sf(distance / error, parts.df))


def _p_difference(parts: Components) -> float:
    return 2 * _t_tail(abs(parts.estimate), parts)


def _p_equivalence(parts: Components, margin: float) -> float:
    return _t_tail(margin - abs(parts.estimate), parts)


def _verdict(estimate: float, p_holm: float, tost_p: float, alpha: float) -> Verdict:
    if tost_p <= alpha:
        return "equivalent"
    if p_holm <= alpha:
        return "better" if estimate > 0 else "worse"
    return "undecided"
