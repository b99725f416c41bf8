"""Which texts of a batch the C++ kernels compute together, and what threads take one after another.

Not here: rows and positions (`kernels/rows.py`).

    batch = Batch([12, 5, 30], threads=2)
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

GROUP_ROWS = 192  # so many rows go through a block at once, or one longer text: they stay in the cache
SHARES = 8  # of a batch, for threads to take one after another; fixed, so that sums do not depend on their number


class _Batch(ctypes.Structure):
    """`Batch` of maps.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "shares", "threads")),
        *((name, ctypes.c_void_p) for name in ("of_share", "groups", "starts")),
    ]


class Batch:
    """Texts of so many tokens, one after another, cut into shares that threads take; always in the same way."""

    def __init__(self, lengths: Sequence[int], threads: int) -> None:
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        of_share, all_groups = [0], []
        found = neighbours(lengths, sum(lengths) / SHARES)
        for first, end in sorted(found, key=lambda one: starts[one[0]] - starts[one[1]]):  # the last ones are small
            all_groups += [
                [starts[first + a], starts[first + b], first + a, first + b]
                for a, b in neighbours(lengths[first:end], GROUP_ROWS)
            ]
            of_share.append(len(all_groups))
        self.rows, self.shares = starts[-1], len(of_share) - 1
        self._numbers = [torch.tensor(one, dtype=torch.int64) for one in (of_share, all_groups, starts)]
        self.struct = _Batch(
            self.rows, self.shares, min(threads, self.shares), *(one.data_ptr() for one in self._numbers)
        )


def neighbours(lengths: Sequence[int], most: float) -> list[tuple[int, int]]:
    """Texts that stand together, [first, end), with about so many tokens."""
    found: list[tuple[int, int]] = []
    first, rows = 0, 0
    for place, length in enumerate(lengths):
        if place > first and 2 * rows + length > 2 * most:  # nearer to a share without it
            found.append((first, place))
            first, rows = place, 0
        rows += length
    return [*found, (first, len(lengths))]
