"""The difference of two methods within a study, and over several studies.

Not here: which studies are alike (`advise.py`). Within a study the interval is over seeds and test examples; over k
studies it is a t interval with k - 1 degrees of freedom whose error is the larger of what the studies' spread and what
their own intervals say, so that two studies that agree by chance do not look certain.

    pooled([Interval(-0.01, -0.02, 0.0, 8.0), Interval(-0.03, -0.05, -0.01, 6.0)])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from paretune.report.facts import LEVEL, StudyFacts, bounds
from paretune.stats.compare import compare
from paretune.stats.intervals import Interval, interval_of, quantile


def difference_in(
    facts: StudyFacts, values: Mapping[str, Mapping[int, np.ndarray]], label: str, than: str, shared: Sequence[int]
) -> Interval:
    """label - than: the crossed interval, unbounded with one seed."""
    one = compare({than: values[than], label: values[label]}, than, facts.study.margin, LEVEL)[0].difference
    if one is not None:
        return one
    mean = float(np.mean([values[label][seed].mean() - values[than][seed].mean() for seed in shared]))
    return Interval(mean, -math.inf, math.inf, 0.0)


def pooled(differences: Sequence[Interval]) -> Interval:
    """One interval over studies; a single study's is its own."""
    if len(differences) == 1:
        return differences[0]
    estimates = np.array([one.estimate for one in differences])
    studies = len(estimates)
    between = float(estimates.var(ddof=1)) / studies
    errors = [_error(one) for one in differences]
    within = sum(error**2 for error in errors if error is not None) / studies**2
    return interval_of(float(estimates.mean()), math.sqrt(max(between, within)), studies - 1, LEVEL)


def _error(interval: Interval) -> float | None:
    """The standard error behind an interval; None where it has no ends."""
    ends = bounds(interval)
    if ends is None:
        return None
    return (ends[1] - ends[0]) / 2 / quantile(interval.df, 1 - (1 - LEVEL) / 2)
