"""Recall of some of the classes: one value per example for paired differences, and an interval that holds near zero.

Not here: which classes are rare (`report/rare_classes.py`). The linearisation is that of `metrics.py:per_example`; the
interval is Wilson's with an effective number of rows, as for proportions of complex samples (Franco, Little, Louis &
Slud 2019, https://pmc.ncbi.nlm.nih.gov/articles/PMC6690503). Its coverage is simulated in
`tests/invariants/test_coverage.py`.

    recall_values(["a", "b", "b"], ["a", "b", "a"], {"b"}).mean() == 0.5
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set

import numpy as np

from paretune.stats.intervals import Interval, bounded_interval, crossed_components


def recall_values(labels: Sequence[str], predictions: Sequence[str], classes: Set[str]) -> np.ndarray:
    """One value for each example of `classes`, in their order; the mean is the mean of the classes' recalls.

    An example of a class with n of all N examples and k classes has the value R + N/(k·n)·(hit − the class's recall),
    R being the mean of the k recalls: how the classes differ is no part of the doubt, as they are chosen, not drawn.
    A class of one example adds nothing to the spread, so that an interval needs two of each class.

    Raises:
        ValueError: no example of these classes, or not as many predictions as labels.
    """
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels but {len(predictions)} predictions; one a label is needed")
    kept = [(label, label == prediction) for label, prediction in zip(labels, predictions, strict=True)]
    kept = [one for one in kept if one[0] in classes]
    if not kept:
        raise ValueError(f"no example of {', '.join(sorted(classes)) or 'no class'} given; at least one is needed")
    hit = np.array([right for _, right in kept], dtype=float)
    found, code, rows = np.unique([label for label, _ in kept], return_inverse=True, return_counts=True)
    recall = np.bincount(code, weights=hit) / rows
    weight = len(kept) / (len(found) * rows)
    return recall.mean() + weight[code] * (hit - recall[code])


def even_rows(labels: Sequence[str], classes: Set[str]) -> float:
    """So many rows of one class tell as much as these of k classes, whose recalls count alike: k² / Σ 1/n.

    Raises:
        ValueError: no example of these classes.
    """
    rows = Counter(label for label in labels if label in classes)
    if not rows:
        raise ValueError(f"no example of {', '.join(sorted(classes)) or 'no class'} given; at least one is needed")
    return len(rows) ** 2 / sum(1 / number for number in rows.values())


def recall_interval(values_se: np.ndarray, rows: float, level: float = 0.95) -> Interval:
    """The interval of a mean recall over new seeds and new examples; `values_se` has `recall_values` of each seed.

    Wilson's, which stays within 0..1 and keeps a width where nothing, or everything, is recognised: there the crossed
    variance is near zero by chance (`bounded_interval`). The effective number of rows is at most `rows` (`even_rows`):
    seeds add no text.

    Raises:
        ValueError: as in `crossed_components`, or `level` outside 0..1.
    """
    return bounded_interval(crossed_components(values_se), (0.0, 1.0), rows, rows, level)
