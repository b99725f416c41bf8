"""Linear maps that several adapters share in one pass; maps of one input (query, key, value) are computed together.

A pass reads an explicit plan that is taken away again when the pass ends; nothing is hooked (a leak that peft has:
https://github.com/huggingface/peft/issues/3475). Joining maps of one input makes one large product and one small one
per adapter out of three each. Not here: the encoder around the maps (`base_model.py`).
Axes: n tokens of all texts, i input and o output features.

    places = join(encoder, Plan(), torch.bfloat16); places["encoder.layer.0.attention.self.key"].whole
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from paretune.kernels.low_rank import LowRank, add_segments
from paretune.models.surgery import linear_names

# Children of one module that always get one and the same input, by the names of `transformers`.
_OF_ONE_INPUT = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))
_JOINED = "joined"

Updates = Mapping[str, LowRank]  # by the name of the whole map


class Plan:
    """What the linear maps of the pass under way add; empty between passes."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing is added, and no tensor of a pass stays in memory."""
        self.lengths: Sequence[int] = ()
        self.updates: Sequence[Updates] = ()
        self._of: tuple[MixedLinear, Tensor] | None = None
        self._output: Tensor | None = None

    def output(self, whole: MixedLinear, x: Tensor) -> Tensor:
        """The whole map's output, computed when the first of its parts is asked."""
        if self._output is None or self._of is None or self._of[0] is not whole or self._of[1] is not x:
            self._output = cast(Tensor, whole(x))
            self._of = whole, x
        return self._output


class MixedLinear(nn.Module):
    """One or more frozen linear maps of one input, in the engine's number format, plus each segment's update."""

    def __init__(self, linears: Sequence[nn.Linear], name: str, plan: Plan, dtype: torch.dtype) -> None:
        super().__init__()
        self.name, self.plan = name, plan
        weight_oi = torch.cat([linear.weight.detach() for linear in linears])
        biases = [cast(Tensor | None, linear.bias) for linear in linears]
        zeros = [linear.weight.new_zeros(linear.out_features) for linear in linears]
        bias_o = torch.cat([zero if one is None else one.detach() for one, zero in zip(biases, zeros, strict=True)])
        self.weight = nn.Parameter(weight_oi.to(dtype), requires_grad=False)
        self.bias = nn.Parameter(bias_o.to(dtype), requires_grad=False)

    def forward(self, x_1ni: Tensor) -> Tensor:
        x_ni = x_1ni.to(self.weight.dtype).flatten(0, 1)
        y_no = functional.linear(x_ni, self.weight, self.bias)
        if self.plan.lengths:
            add_segments(y_no, x_ni, self.plan.lengths, [updates.get(self.name) for updates in self.plan.updates])
        return y_no.unsqueeze(0)


class Part(nn.Module):
    """Stands where one of several joined maps stood, and gives its share of their output."""

    def __init__(self, whole: MixedLinear, start: int, stop: int) -> None:
        super().__init__()
        self._whole = (whole,)  # in a tuple: its parameters belong to the parent, once
        self._start, self._stop = start, stop

    def forward(self, x_1ni: Tensor) -> Tensor:
        whole = self._whole[0]
        return whole.plan.output(whole, x_1ni)[..., self._start : self._stop]


@dataclass(frozen=True)
class Place:
    """Where a linear map of the base is now: output features start…stop of a whole map."""

    whole: MixedLinear
    start: int
    stop: int


def join(encoder: PreTrainedModel, plan: Plan, dtype: torch.dtype) -> dict[str, Place]:
    """Put mixed linear maps in place of those inside the transformer blocks; where each one is now, by its old name."""
    found: dict[str, Place] = {}
    for members in _of_one_input(linear_names(encoder)):
        linears = [cast(nn.Linear, encoder.get_submodule(member)) for member in members]
        alone = len(members) == 1
        name = members[0] if alone else f"{members[0].rpartition('.')[0]}.{_JOINED}"
        whole = MixedLinear(linears, name, plan, dtype)
        stops = list(accumulate(linear.out_features for linear in linears))
        for member, start, stop in zip(members, [0, *stops[:-1]], stops, strict=True):
            found[member] = Place(whole, start, stop)
            if not alone:
                _put(encoder, member, Part(whole, start, stop))
        _put(encoder, name, whole)
    return found


def _of_one_input(names: Sequence[str]) -> list[list[str]]:
    """Names of linear maps, those that may be joined together."""
    found: dict[str, list[str]] = {}
    for name in names:
        parent, _, child = name.rpartition(".")
        group = next((one for one in _OF_ONE_INPUT if child in one), (child,))
        together = {f"{parent}.{one}" for one in group} <= set(names)
        found.setdefault(f"{parent}.{group[0] if together else child}", []).append(name)
    return list(found.values())


def _put(encoder: PreTrainedModel, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    encoder.get_submodule(parent).register_module(child, module)


def joined_update(parts: Sequence[tuple[Place, LowRank]]) -> LowRank:
    """Updates of parts of one whole map as one update of it: ranks add up, each touches its own outputs."""
    whole = parts[0][0].whole
    a_ri = torch.cat([update.a_ri for _, update in parts])
    b_or = a_ri.new_zeros(whole.weight.shape[0], a_ri.shape[0])
    rank = 0
    for place, update in parts:
        b_or[place.start : place.stop, rank : rank + update.a_ri.shape[0]] = update.b_or
        rank += update.a_ri.shape[0]
    return LowRank(a_ri, b_or)
