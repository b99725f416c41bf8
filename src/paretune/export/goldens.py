"""Which texts become a bundle's golden inputs, how far an answer to them may be off, and any answer's logits.

Not here: answering them (`certify.py`, `serve/engine.py`). Axes: n rows, c classes.

    chosen, tolerance = choose_goldens(fp32_nc, bf16_nc, texts)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GOLDENS = 20
LEAST_TOLERANCE = 1e-3
MOST_TOLERANCE = 0.2
SPREAD = 3.0  # × the largest difference between precisions
GAP = 4.0  # × tolerance: so that no answer within the tolerance has another label
MOST_CHARACTERS = 20_000


def choose_goldens(fp32_nc: np.ndarray, bf16_nc: np.ndarray, texts: Sequence[str]) -> tuple[list[int], float]:
    """Places of at most 20 texts, evenly spread, and the tolerance; no place where no text is sure enough.

    Only texts whose two largest probabilities lie more than 4 tolerances apart are taken. The tolerance is three times
    the largest difference between bf16 and fp32 on the texts taken, 1e-3 at least; it never falls while texts are
    taken anew, so that the search ends.
    """
    top_n2 = np.sort(fp32_nc, axis=1)[:, -2:]
    gap_n = top_n2[:, 1] - top_n2[:, 0]
    off_n = np.abs(bf16_nc - fp32_nc).max(axis=1)
    usable_n = np.isfinite(gap_n) & np.isfinite(off_n) & np.array([0 < len(text) <= MOST_CHARACTERS for text in texts])
    tolerance = LEAST_TOLERANCE
    while True:
        candidates = np.flatnonzero(usable_n & (gap_n > GAP * tolerance))
        if not len(candidates) or tolerance > MOST_TOLERANCE:
            return [], tolerance
        chosen = candidates[evenly(len(candidates), GOLDENS)]
        needed = max(tolerance, SPREAD * float(off_n[chosen].max()))
        if bool((gap_n[chosen] > GAP * needed).all()):
            return chosen.tolist(), needed
        tolerance = needed


def logit_tolerance(own_nc: np.ndarray, ways: Sequence[np.ndarray]) -> float:
    """How far apart logits of one text may be that were computed in two ways.

    Twice the largest difference of any way to the run's own logits bounds the ways that were measured; the third
    part is left for machines that were not.
    """
    worst = max((float(np.abs(way_nc - own_nc).max()) for way_nc in ways), default=0.0)
    return max(LEAST_TOLERANCE, SPREAD * worst)


def evenly(count: int, most: int) -> np.ndarray:
    """At most so many places of `count`, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
