"""The interval of one method's metric: over new seeds and new examples together, within the metric's bounds.

Not here: differences of two methods (`compare.py`). Seeds × examples as in `intervals.py:crossed_components`, Wilson's
form as in `bounded_interval`; macro-F1 is centred at its bias-corrected value (`metrics.py:bias`), since that of few
examples a class lies below that of many. Coverage is simulated in `tests/invariants/test_coverage.py`.

    quality_interval("accuracy", ["a", "b"], [["a", "b"], ["a", "a"]])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from paretune.stats.intervals import Interval, bounded_interval, crossed_components
from paretune.stats.metrics import bias, class_metric, per_example


def quality_interval(
    metric: str, labels: Sequence[str], predictions_s: Sequence[Sequence[str]], level: float = 0.95
) -> Interval:
    """The mean of the metric over seeds, whose predictions for the same examples are given, with its interval.

    Raises:
        ValueError: as in `per_example`, or fewer than 2 seeds or 2 examples.
    """
    values_se = np.stack([per_example(metric, labels, row) for row in predictions_s])
    parts = crossed_components(values_se)
    lean = float(np.mean([bias(metric, labels, row) for row in predictions_s]))
    corrected = replace(parts, estimate=parts.estimate - lean)
    found = bounded_interval(corrected, class_metric(metric).bounds, values_se.size, values_se.shape[1], level)
    return Interval(parts.estimate, min(found.low, parts.estimate), max(found.high, parts.estimate), found.df)
