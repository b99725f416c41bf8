"""Blocks that go through the kernels in C++, and for which models there are such.

Not here: blocks by torch's operators (`fast_blocks.py`), the kernels (`kernels/native/`).

    block = native_bert_block(library().calls, module, "bert", heads=12, fixed=False, back=True)
    stack = NativeStack(library().calls, [block], Room())
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from paretune.kernels.native import blocks as native
from paretune.kernels.native.library import library
from paretune.kernels.native.maps import Copy, Layouts, Map, Weight, copy_of, fits
from paretune.kernels.rows import Around
from paretune.train.fast_blocks import FastBlock, Joined, bert_parts, llama_parts, parameters_of

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

    def moved(self, weights: int, sums: int) -> _Place:
        """Where so many weights and sums of other blocks stand before."""
        if self.weight < 0:
            return replace(self, first=self.first + sums)
        return replace(self, weight=self.weight + weights)

    def of(self, grown: native.Grown) -> Tensor | None:
        if self.weight < 0:
            return grown.sums.as_strided(self.size, self.stride, self.first)
        whole = grown.weights[self.weight]
        return None if whole is None else whole[self.first : self.first + self.size[0]]


class NativeBlock:
    """`weights`, `updated` and `copied`: what learns, for `Layouts` to bring in. `places`: where the gradients of
    `parameters` are. `back`: gradients may pass, for which weights have a second layout."""

    def __init__(
        self,
        calls: CDLL,
        layout: native.Layout,
        linears: list[Joined],
        norms: list[native.Norm],
        fixed: bool,
        back: bool,
    ) -> None:
        found = [one.map(back=back) for one in linears]
        maps = [one for one, _ in found]
        Layouts(calls, [weight for _, weights in found for weight in weights], maps).refresh()
        learnt = zip(linears, found, strict=True)
        self.fixed, self.back = fixed, back
        self.weights: list[Weight] = [weight for one, (_, weights) in learnt if one.learns.weight for weight in weights]
        self.updated: list[Map] = [one for one, joined in zip(maps, linears, strict=True) if joined.learns.update]
        self.copied: list[Copy] = [copy_of(one, to, factor) for linear in linears for to, one, factor in linear.copies]
        self.block = native.Block(layout, maps, [one.learns for one in linears], norms)
        of_norms = [tuple(one for one in (norm.scale_h, norm.shift_h) if one is not None) for norm in norms]
        parameters = [] if fixed else parameters_of(linears, of_norms)
        places = [*_of_norms(self.block, norms), *_of_maps(maps, linears)]
        learning = [at for at, one in enumerate(parameters) if one.requires_grad]
        self.places = [places[at] for at in learning]
        self.parameters = [parameters[at] for at in learning]


class NativeStack(FastBlock):
    """Blocks in a row that go through the kernels in one call."""

    def __init__(self, calls: CDLL, blocks: Sequence[NativeBlock], room: native.Room) -> None:
        self._stack = native.Stack(calls, [one.block for one in blocks], room)
        self._keeps = not any(one.fixed for one in blocks)
        self._back = all(one.back for one in blocks)
        super().__init__([one for block in blocks for one in block.parameters], [], self._stack.drops)
        self._places: list[_Place] = []
        sums = 0
        for at, one in enumerate(blocks):
            self._places += [place.moved(4 * at, sums) for place in one.places]
            sums += one.block.size

    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        return native.forward(x_nh, around, self._stack, keeps=self._keeps)

    def output(self, x_nh: Tensor, around: Around) -> Tensor:
        return native.forward(x_nh, around, self._stack, keeps=False)[0]

    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        assert self._back, "no gradient passes what is frozen with all below it"
        dx, grown = native.backward(dx_nh, kept, around, self._stack, wants_input)
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
            first = struct.at_b + part.first_rank * struct.outputs
            found.append(_Place(-1, first, (part.columns, rank), (part.rank, 1)))
    return found


def native_bert_block(
    calls: CDLL, module: nn.Module, kind_name: str, heads: int, fixed: bool, back: bool
) -> NativeBlock:
    """A block whose norms come after each part."""
    linears, norms = bert_parts(module, kind_name, torch.bfloat16, fixed, native=True)
    of_norms = [native.Norm(one.scale_h, one.shift_h, one.epsilon, one.scale_learns, one.shift_learns) for one in norms]
    layout = native.post_norm_layout(linears[0].inputs, linears[2].outputs, heads)
    return NativeBlock(calls, layout, linears, of_norms, fixed, back)


def native_llama_block(calls: CDLL, module: nn.Module, config: Any, fixed: bool, back: bool) -> NativeBlock:
    """A block whose norms come before each part; `config` is that of `transformers`."""
    linears, norms = llama_parts(module, config, torch.bfloat16, fixed, native=True)
    of_norms = [native.Norm(one.scale_h, None, one.epsilon, one.scale_learns) for one in norms]
    queries, keys = cast(int, config.num_attention_heads), cast(int, config.num_key_value_heads)
    layout = native.pre_norm_layout(
        linears[0].inputs, linears[3].inputs, queries, keys, linears[0].outputs // (queries + 2 * keys)
    )
    return NativeBlock(calls, layout, linears, of_norms, fixed, back)
