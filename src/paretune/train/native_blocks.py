"""Blocks that go through the kernels in C++, and for which models there are such.

Not here: blocks by torch's operators (`fast_blocks.py`), the kernels (`kernels/native/`).

    block = native_bert_block(library().calls, module, "bert", heads=12, fixed=False, room=Room())
"""

from __future__ import annotations

from ctypes import CDLL
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from paretune.kernels.native import blocks as native
from paretune.kernels.native.library import library
from paretune.kernels.native.maps import Layouts, Map, Weight, fits
from paretune.kernels.rows import Around
from paretune.train.fast_blocks import FastBlock, Joined, bert_parts, llama_parts

HEAD_STEP = 32  # the features of a head are computed sixteen at a time, in two halves


@dataclass(frozen=True)
class Shape:
    """Sizes of a block: hidden, inner of the feed-forward part, heads of queries and of keys, features of a head."""

    hidden: int
    inner: int
    queries: int
    keys: int
    head: int


def refused(shape: Shape) -> str:
    """Why the kernels do not take blocks of these sizes, or cannot be had here; empty where they can."""
    widths = (shape.hidden, shape.inner, shape.queries * shape.head, shape.keys * shape.head)
    if shape.head % HEAD_STEP or shape.queries % shape.keys or not all(fits(one) for one in widths):
        return f"they do not know blocks of {shape.hidden} features with {shape.queries} heads"
    return library().reason


@dataclass(frozen=True)
class _Place:
    """Where a parameter's gradient is: rows of a weight's, or numbers of the sums in this form."""

    weight: int = -1
    first: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def of(self, grown: native.Grown) -> Tensor | None:
        if self.weight < 0:
            return grown.sums.as_strided(self.size, self.stride, self.first)
        whole = grown.weights[self.weight]
        return None if whole is None else whole[self.first : self.first + self.size[0]]


class NativeBlock(FastBlock):
    """`weights` and `updated` are what learns, for `Layouts` to bring in."""

    def __init__(
        self,
        calls: CDLL,
        layout: native.Layout,
        linears: list[Joined],
        norms: list[native.Norm],
        fixed: bool,
        room: native.Room,
    ) -> None:
        of_norms = [tuple(one for one in (norm.scale_h, norm.shift_h) if one is not None) for norm in norms]
        super().__init__(linears, of_norms, fixed)
        self._fixed = fixed
        found = [one.map(back=not fixed) for one in linears]
        maps = [one for one, _ in found]
        Layouts(calls, [weight for _, weights in found for weight in weights], maps).refresh()
        learnt = zip(linears, found, strict=True)
        self.weights: list[Weight] = [weight for one, (_, weights) in learnt if one.learns.weight for weight in weights]
        self.updated: list[Map] = [one for one, joined in zip(maps, linears, strict=True) if joined.learns.update]
        self._block = native.Block(calls, layout, maps, [one.learns for one in linears], norms, room)
        places = [*_of_norms(self._block, norms), *_of_maps(maps, linears)]
        learning = [at for at, one in enumerate(self.parameters) if one.requires_grad]
        self._places = [places[at] for at in learning]
        self.parameters = [self.parameters[at] for at in learning]

    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        return native.forward(x_nh, around, self._block, keeps=not self._fixed)

    def output(self, x_nh: Tensor, around: Around) -> Tensor:
        return native.forward(x_nh, around, self._block, keeps=False)[0]

    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        dx, grown = native.backward(dx_nh, kept, around, self._block, wants_input)
        return dx, [place.of(grown) for place in self._places]


def _of_norms(block: native.Block, norms: list[native.Norm]) -> list[_Place]:
    """Of scale and shift of each norm, in the order of a block's parameters."""
    found: list[_Place] = []
    for one, norm in zip(block.of_norms, norms, strict=True):
        size = tuple(norm.scale_h.shape)
        found.append(_Place(first=one.at_scale, size=size, stride=(1,)))
        if norm.shift_h is not None:
            found.append(_Place(first=one.at_shift, size=size, stride=(1,)))
    return found


def _of_maps(maps: list[Map], linears: list[Joined]) -> list[_Place]:
    """Of weights, biases, A and B of each map's parts, in the order of a block's parameters."""
    found: list[_Place] = []
    for place, (one, joined) in enumerate(zip(maps, linears, strict=True)):
        struct = one.struct
        found += [_Place(place, part.first, (part.columns,)) for part in one.parts]
        if joined.biased:
            found += [_Place(-1, struct.at_bias + part.first, (part.columns,), (1,)) for part in one.parts]
        updated = [(part, rank) for part, rank in zip(one.parts, joined.ranks, strict=True) if rank]
        for part, rank in updated:
            first = struct.at_a + part.first_rank * struct.inputs
            found.append(_Place(-1, first, (rank, struct.inputs), (struct.inputs, 1)))
        for part, rank in updated:
            first = struct.at_b + part.first_rank * struct.outputs + part.first
            found.append(_Place(-1, first, (part.columns, rank), (1, struct.outputs)))
    return found


def native_bert_block(
    calls: CDLL, module: nn.Module, kind_name: str, heads: int, fixed: bool, room: native.Room
) -> NativeBlock:
    """A block whose norms come after each part."""
    linears, norms = bert_parts(module, kind_name, torch.bfloat16, fixed, native=True)
    of_norms = [native.Norm(one.scale_h, one.shift_h, one.epsilon, one.scale_learns, one.shift_learns) for one in norms]
    layout = native.post_norm_layout(linears[0].inputs, linears[2].outputs, heads)
    return NativeBlock(calls, layout, linears, of_norms, fixed, room)


def native_llama_block(calls: CDLL, module: nn.Module, config: Any, fixed: bool, room: native.Room) -> NativeBlock:
    """A block whose norms come before each part; `config` is that of `transformers`."""
    linears, norms = llama_parts(module, config, torch.bfloat16, fixed, native=True)
    of_norms = [native.Norm(one.scale_h, None, one.epsilon, one.scale_learns) for one in norms]
    queries, keys = cast(int, config.num_attention_heads), cast(int, config.num_key_value_heads)
    layout = native.pre_norm_layout(
        linears[0].inputs, linears[3].inputs, queries, keys, linears[0].outputs // (queries + 2 * keys)
    )
    return NativeBlock(calls, layout, linears, of_norms, fixed, room)
