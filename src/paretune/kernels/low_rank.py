"""A low-rank update of one linear map, and its product with rows that belong to several adapters.

Not here: which rows belong to which adapter (`serve/`), nor training. Source: Hu et al. 2021
(https://arxiv.org/abs/2106.09685); the sorted segments follow Punica's SGMV (https://arxiv.org/abs/2310.18547).
Axes: n rows (tokens), i input features, o output features, r rank.

    add_segments(y_no, x_ni, [Segment(0, 12, update)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """ΔW = b_or @ a_ri; LoRA's alpha / rank is already in `b_or`."""

    a_ri: Tensor
    b_or: Tensor


@dataclass(frozen=True)
class Segment:
    """Rows start…stop of one adapter, and its update of this linear map (None: it leaves this map alone)."""

    start: int
    stop: int
    update: LowRank | None


def add_segments(y_no: Tensor, x_ni: Tensor, segments: Sequence[Segment]) -> Tensor:
    """Add each segment's update to its rows of `y_no`, in place; ranks may differ. Returns `y_no`."""
    for one in segments:
        if one.update is not None:
            rows = slice(one.start, one.stop)
            y_no[rows].addmm_(x_ni[rows] @ one.update.a_ri.T, one.update.b_or.T)
    return y_no
