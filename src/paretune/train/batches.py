"""Which examples stand together in a batch: those of similar length.

Not here: tokens and tensors (`data/encoding.py`), and what a batch is for. Axes, used in all names: b batch row,
t token position, h hidden unit, c class, n example, s seed, e test example, r rank, i input and o output feature.

    for index_b in epoch_batches(lengths_n, batch_size=16, seed=0, epoch=0): ...
"""

from __future__ import annotations

import numpy as np

from paretune.repro.seeding import numpy_generator

WINDOW_BATCHES = 16
LENGTH_NOISE = 0.1


def epoch_batches(lengths_n: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row indices of each batch of one epoch: shuffled, then sorted by length within windows of 16 batches.

    Lengths are taken with 10 % noise, so that a data set of one window does not give the same batches in every epoch.
    The same seed and epoch give every method the same batches. Only the last batch of all may be smaller.
    """
    random = numpy_generator(seed, "order", epoch)
    order_n = random.permutation(len(lengths_n))
    window = batch_size * WINDOW_BATCHES
    batches: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for start in range(0, len(order_n), window):
        chunk = order_n[start : start + window]
        noise = random.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(chunk))
        chunk = chunk[np.argsort(lengths_n[chunk] * noise, kind="stable")]
        for first in range(0, len(chunk), batch_size):
            batch = chunk[first : first + batch_size]
            (batches if len(batch) == batch_size else rest).append(batch)
    shuffled = [batches[place] for place in random.permutation(len(batches))]
    return shuffled + rest


def length_batches(lengths_n: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row indices in batches of like length, longest first: an out-of-memory shows at once."""
    order_n = np.argsort(-lengths_n, kind="stable")
    return [order_n[start : start + batch_size] for start in range(0, len(order_n), batch_size)]
