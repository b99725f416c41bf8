"""The difference of two methods within a study, and over several studies.

Not here: which studies are alike (`advise.py`). Within a study the interval is over seeds and test examples. Over k
studies it is the narrower of two: a t interval with k - 1 degrees of freedom whose error is the larger of what the
studies' spread and what their own intervals say, so that studies that agree by chance do not look certain; and the
range of the studies' own intervals. The first says nothing of two studies (one degree of freedom), the second cannot
contradict what every single study shows. Each is of 97.5 %, so that the narrower is of 95 %; both keep to what a
difference of the metric can be.

    pooled([Interval(-0.01, -0.02, 0.0, 8.0), Interval(-0.03, -0.05, -0.01, 6.0)], (-1.0, 1.0))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from paretune.report.facts import LEVEL, StudyFacts, bounds
from paretune.stats.compare import LEAST_DF, compare
from paretune.stats.intervals import Interval, interval_of, quantile


def difference_in(
    facts: StudyFacts, values: Mapping[str, Mapping[int, np.ndarray]], label: str, than: str, shared: Sequence[int]
) -> Interval:
    """label - than: the crossed interval, unbounded with one seed."""
    one = compare({than: values[than], label: values[label]}, than, facts.study.margin, LEVEL)[0].alone
    if one is not None:
        return one
    mean = float(np.mean([values[label][seed].mean() - values[than][seed].mean() for seed in shared]))
    return Interval(mean, -math.inf, math.inf, 0.0)


def pooled(
    differences: Sequence[Interval], bounds_of_difference: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """One interval over studies, within the bounds of a difference; a single study's is its own."""
    if len(differences) == 1:
        return differences[0].within(bounds_of_difference)
    estimates = np.array([one.estimate for one in differences])
    studies = len(estimates)
    between = float(estimates.var(ddof=1)) / studies
    errors = [_error(one) for one in differences]
    within = sum(error**2 for error in errors if error is not None) / studies**2
    each = 1 - (1 - LEVEL) / 2
    over_studies = interval_of(float(estimates.mean()), math.sqrt(max(between, within)), studies - 1, each)
    alone = 1 - (1 - each) / studies  # all studies' own intervals hold together
    ends = [_widened(one, error, alone) for one, error in zip(differences, errors, strict=True)]
    span = replace(over_studies, low=min(low for low, _ in ends), high=max(high for _, high in ends))
    narrower = span if studies - 1 < LEAST_DF else min(over_studies, span, key=lambda one: one.high - one.low)
    return narrower.within(bounds_of_difference)


def _widened(one: Interval, error: float | None, level: float) -> tuple[float, float]:
    """The ends of a study's own interval at another level; none where it has none."""
    if error is None:
        return -math.inf, math.inf
    widened = interval_of(one.estimate, error, one.df, level)
    return widened.low, widened.high


def _error(interval: Interval) -> float | None:
    """The standard error behind an interval; None where it has no ends."""
    ends = bounds(interval)
    if ends is None:
        return None
    return (ends[1] - ends[0]) / 2 / quantile(interval.df, 1 - (1 - LEVEL) / 2)
