"""A low-rank update of one linear map, and its product with rows that belong to several adapters.

Not here: which rows belong to which adapter (`serve/`), nor training. Source: Hu et al. 2021
(https://arxiv.org/abs/2106.09685); the sorted segments follow Punica's SGMV (https://arxiv.org/abs/2310.18547).
Axes: n rows (tokens), i input features, o output features, r rank.

    add_segments(y_no, x_ni, [12, 5], [update, None])  # the first 12 rows of 17 are this adapter's
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True)
class LowRank:
    """ΔW = b_or @ a_ri; LoRA's alpha / rank is already in `b_or`."""

    a_ri: Tensor
    b_or: Tensor

    def to(self, dtype: torch.dtype) -> LowRank:
        """The same update in another number format, without a tie to a larger storage, laid out for `add_segments`."""
        a_ri = self.a_ri.detach().to(dtype, copy=True).contiguous()
        b_ro = self.b_or.detach().T.to(dtype, copy=True).contiguous()
        return LowRank(a_ri, b_ro.T)


def runs(keys: Sequence[KeyT], lengths: Sequence[int]) -> list[tuple[KeyT, int]]:
    """Neighbours of one key together, each with the sum of its lengths: texts sorted by adapter → its rows."""
    pairs = groupby(zip(keys, lengths, strict=True), key=lambda pair: pair[0])
    return [(key, sum(length for _, length in group)) for key, group in pairs]


def add_segments(y_no: Tensor, x_ni: Tensor, lengths: Sequence[int], updates: Sequence[LowRank | None]) -> Tensor:
    """Add to `y_no`, in place, what each segment's adapter adds; `lengths` are the segments' rows, n in all.

    Ranks may differ; None leaves a segment as it is. Returns `y_no`.
    """
    for y, x, update in zip(y_no.split(list(lengths)), x_ni.split(list(lengths)), updates, strict=True):
        if update is not None:
            y.addmm_(functional.linear(x, update.a_ri), update.b_or.T)
    return y_no


def merged(weight_oi: Tensor, update: LowRank) -> Tensor:
    """W + ΔW, added in fp32 and given in the weight's own number format; `weight_oi` stays as it is."""
    return torch.addmm(weight_oi.float(), update.b_or.float(), update.a_ri.float()).to(weight_oi.dtype)
