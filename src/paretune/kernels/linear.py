"""A linear map with an optional low-rank update, forward and backward by hand.

A weight that does not learn is laid out once as the processor's products want it, the way forward and the way back; an
update of rank r costs its own products only. Not here: which parameters stand behind it (`train/fast_encoder.py`).
Sources: Hu et al. 2021 (https://arxiv.org/abs/2106.09685); dropout: Srivastava et al. 2014
(https://jmlr.org/papers/v15/srivastava14a.html). Axes: n rows (tokens), i input features, o output features, r rank.

    y_no, kept = linear.forward(x_ni); dx_ni, gradients = linear.backward(dy_no, x_ni, kept, wants_input=True)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from paretune.kernels.low_rank import LowRank

DRAWN_BITS = 16  # of each random number that decides whether an input is dropped


@dataclass(frozen=True)
class Learns:
    """What of a linear map gets a gradient."""

    weight: bool = False
    bias: bool = False
    update: bool = False


@dataclass(frozen=True)
class LinearGradients:
    """Of a linear map's parts, in the format of its products; None for what does not learn."""

    weight_oi: Tensor | None = None
    bias_o: Tensor | None = None
    a_ri: Tensor | None = None
    b_or: Tensor | None = None


Kept = tuple[Tensor | None, Tensor | None]  # the update's rows (n, r), and which inputs were not dropped (n, i)


class Linear:
    """y = x Wᵀ + bias + drop(x) aᵀ bᵀ. What learns may be written anew between passes, what does not may not."""

    def __init__(
        self, weight_oi: Tensor, bias_o: Tensor | None, update: LowRank | None, learns: Learns, dropped: float = 0.0
    ) -> None:
        self.bias_o, self.update, self.learns, self.dropped = bias_o, update, learns, dropped
        self._weight_oi: Tensor | None = weight_oi
        self._forth = self._back = None
        if not learns.weight and _packs(weight_oi.dtype):
            self._forth = _packed(weight_oi)

    def forward(self, x_ni: Tensor) -> tuple[Tensor, Kept]:
        """(n, o), and what the way back wants to have kept beside `x_ni`."""
        if self._forth is None:
            assert self._weight_oi is not None
            y_no = functional.linear(x_ni, self._weight_oi, self.bias_o)
        else:
            y_no = _product(x_ni, self._forth, self.bias_o)
        if self.update is None:
            return y_no, (None, None)
        kept_ni = keeps(x_ni, self.dropped) if self.dropped else None
        low_nr = functional.linear(self._thinned(x_ni, kept_ni), self.update.a_ri)
        return y_no.addmm_(low_nr, self.update.b_or.T), (low_nr, kept_ni)

    def backward(
        self, dy_no: Tensor, x_ni: Tensor, kept: Kept, wants_input: bool
    ) -> tuple[Tensor | None, LinearGradients]:
        """Gradients of the input, where it is wanted, and of the parts."""
        dx_ni = self._towards_input(dy_no) if wants_input else None
        dweight_oi = dy_no.T @ x_ni if self.learns.weight else None
        dbias_o = dy_no.sum(0) if self.learns.bias else None
        low_nr, kept_ni = kept
        if self.update is None or low_nr is None:
            return dx_ni, LinearGradients(dweight_oi, dbias_o)
        dlow_nr = dy_no @ self.update.b_or
        if dx_ni is not None and kept_ni is None:
            dx_ni.addmm_(dlow_nr, self.update.a_ri)
        elif dx_ni is not None:
            dx_ni.add_(self._thinned(dlow_nr @ self.update.a_ri, kept_ni))
        if not self.learns.update:
            return dx_ni, LinearGradients(dweight_oi, dbias_o)
        da_ri = dlow_nr.T @ self._thinned(x_ni, kept_ni)
        return dx_ni, LinearGradients(dweight_oi, dbias_o, da_ri, dy_no.T @ low_nr)

    def _towards_input(self, dy_no: Tensor) -> Tensor:
        if self._back is None:
            assert self._weight_oi is not None
            if self._forth is None:
                return dy_no @ self._weight_oi
            self._back = _packed(self._weight_oi.T.contiguous())  # inference never wants it
            self._weight_oi = None
        return _product(dy_no, self._back, None)

    def _thinned(self, x_ni: Tensor, kept_ni: Tensor | None) -> Tensor:
        return x_ni if kept_ni is None else x_ni * kept_ni * (1 / (1 - self.dropped))


def keeps(x_ni: Tensor, dropped: float) -> Tensor:
    """Which of the inputs stay, each with probability 1 − `dropped`: bool (n, i), from torch's global generator.

    Its own generator draws one seed; a fast one of numpy's draws from it (torch's makes one number after another).
    """
    seed = int(torch.randint(2**62, (1,)))
    bits = np.random.SFC64(seed).random_raw(-(-x_ni.numel() * DRAWN_BITS // 64)).view(np.uint16)
    drawn = bits[: x_ni.numel()] >= round(dropped * 2**DRAWN_BITS)
    return torch.from_numpy(drawn).view(x_ni.shape)


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this format with weights in its own layout."""
    if dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _packed(weight_oi: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight_oi))


def _product(x_ni: Tensor, packed_oi: Tensor, bias_o: Tensor | None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x_ni, packed_oi, bias_o, "none", [], ""))
