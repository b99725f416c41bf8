"""Texts of a batch without padding: their tokens stand one after another, and a few spare rows make the number round.

Products take such rows, so that nothing is computed for padding; only attention gets them text by text. Round numbers,
because a library of matrix products makes and keeps its kernels anew for each number of rows: some 0.6 MB and 1 ms a
product (LOG.md). Spare rows hold what no text sees in a pass forward, and zeros in a pass back. Source: Krell et al.
2021 (https://arxiv.org/abs/2107.02027). Axes: b texts, t positions of the longest, w the same rounded up, m real
tokens, n rows, k features.

    rows = rows_of(mask_bt); x_nk = rows.packed(x_btk); x_bwk = rows.by_text(x_nk)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paretune.kernels.native.batches import Batch

STEPS = 8  # sizes between a power of two and the next
WIDTH_STEP = 8


@dataclass(frozen=True)
class Rows:
    """Where the tokens of a batch are.

    `given_m` and `wide_m` are their places among b·t and b·w positions; `row_p` the row of each of the b·w positions,
    the first spare one for padding.
    """

    texts: int
    length: int
    width: int
    count: int
    given_m: Tensor
    wide_m: Tensor
    row_p: Tensor

    def packed(self, x_btk: Tensor) -> Tensor:
        """(b, t, k) → (n, k)."""
        return self._rows(x_btk.reshape(self.texts * self.length, -1), self.given_m)

    def from_texts(self, x_bwk: Tensor) -> Tensor:
        """(b, w, k) → (n, k)."""
        return self._rows(x_bwk.reshape(self.texts * self.width, -1), self.wide_m)

    def by_text(self, x_nk: Tensor) -> Tensor:
        """(n, k) → (b, w, k); padding holds a spare row."""
        return x_nk.index_select(0, self.row_p).view(self.texts, self.width, -1)

    def padded(self, x_nk: Tensor) -> Tensor:
        """(n, k) → (b, t, k); padding holds zeros."""
        x_pk = x_nk.new_zeros(self.texts * self.length, x_nk.shape[1])
        x_pk[self.given_m] = x_nk[: len(self.given_m)]
        return x_pk.view(self.texts, self.length, -1)

    def _rows(self, x_pk: Tensor, place_m: Tensor) -> Tensor:
        x_nk = x_pk.new_empty(self.count, x_pk.shape[1])
        torch.index_select(x_pk, 0, place_m, out=x_nk[: len(place_m)])
        x_nk[len(place_m) :].zero_()
        return x_nk


@dataclass(frozen=True)
class Around:
    """What a block gets beside its rows.

    `unseen` is added to attention's scores: 0 where a position may be seen, a very low number where not; (b, 1, 1, w)
    or (1, 1, w, w), None: all may be. `cos_wd` and `sin_wd`, of half a head's features, turn queries and keys by their
    position, where a model wants that. `batch`: the same texts for kernels in C++, which need no mask.
    """

    rows: Rows
    unseen: Tensor | None = None
    batch: Batch | None = None
    cos_wd: Tensor | None = None
    sin_wd: Tensor | None = None


def round_count(tokens: int) -> int:
    """Rows for so many tokens: at least one to spare, then the next of 8 sizes between two powers of two."""
    step = max(1, 2 ** (tokens.bit_length() - 1) // STEPS)
    return -(-(tokens + 1) // step) * step


def round_width(length: int) -> int:
    """Positions of each text in attention, where the longest has so many tokens."""
    return -(-length // WIDTH_STEP) * WIDTH_STEP


def rows_of(mask_bt: Tensor, spare: bool = True) -> Rows:
    """`mask_bt` is 1 where a token stands; padding stands on the right. `spare`: up to a round number of rows."""
    b, t = mask_bt.shape
    w = round_width(t)
    text_m, position_m = mask_bt.nonzero(as_tuple=True)
    wide_m = text_m * w + position_m
    row_p = torch.full((b * w,), len(text_m), dtype=torch.long)
    row_p[wide_m] = torch.arange(len(text_m))
    count = round_count(len(text_m)) if spare else len(text_m)
    return Rows(b, t, w, count, text_m * t + position_m, wide_m, row_p)
