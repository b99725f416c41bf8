"""Recall of some of the classes, one value per example: what intervals and paired differences of rare classes need.

Not here: which classes are rare (`report/rare_classes.py`). The linearisation is that of `metrics.py:per_example`; the
coverage of intervals made of it is simulated in `tests/invariants/test_coverage.py`.

    recall_values(["a", "b", "b"], ["a", "b", "a"], {"b"}).mean() == 0.5
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np


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
