"""Blocks by the C++ kernels, one after another in one call: tensors in, tensors out.

The arithmetic is that of `kernels/post_norm.py` and `pre_norm.py` with fewer roundings between the parts. Not here:
which parameters stand behind (`train/native_blocks.py`). Axes: n rows (tokens), h hidden.

    z_nh, kept = forward(x_nh, around, stack, keeps=True); dx_nh, grown = backward(dz_nh, kept, around, stack, True)
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paretune.kernels.linear import Learns
from paretune.kernels.native.maps import Map, MapStruct, address
from paretune.kernels.rows import Around

POINTER = ctypes.c_void_p


@dataclass(frozen=True)
class Norm:
    """Scale and shift (where it has one) of a norm, fp32, and which of the two learns."""

    scale_h: Tensor
    shift_h: Tensor | None
    epsilon: float
    scale_learns: bool
    shift_learns: bool = False


@dataclass(frozen=True)
class Layout:
    """What a kind of block keeps: so many numbers a row in bf16, beside the updates', and in fp32. `sizes` stand in the
    kernel's own description of a block."""

    kernel: str
    narrow: int
    wide: int
    sizes: tuple[int, ...]
    turns: bool = False


def post_norm_layout(hidden: int, inner: int, heads: int) -> Layout:
    """BERT's kind."""
    return Layout("post_norm", 8 * hidden + inner, heads + 4, (heads, hidden // heads))


def pre_norm_layout(hidden: int, inner: int, queries: int, keys: int, width: int) -> Layout:
    """Llama's kind; `width`: features of a head."""
    narrow = 4 * hidden + (2 * queries + 2 * keys) * width + 2 * inner
    return Layout("pre_norm", narrow, queries + 2, (queries, keys, width), turns=True)


class NormStruct(ctypes.Structure):
    _fields_ = [
        ("scale", POINTER), ("shift", POINTER), ("epsilon", ctypes.c_double),
        ("at_scale", ctypes.c_int64), ("at_shift", ctypes.c_int64),
    ]  # fmt: skip


class _PostNorm(ctypes.Structure):
    _fields_ = [
        ("maps", MapStruct * 4), ("norms", NormStruct * 2), ("sizes", ctypes.c_int64 * 2), ("size", ctypes.c_int64),
    ]  # fmt: skip


class _PreNorm(ctypes.Structure):
    _fields_ = [
        ("maps", MapStruct * 4), ("norms", NormStruct * 2), ("sizes", ctypes.c_int64 * 3), ("size", ctypes.c_int64),
    ]  # fmt: skip


class _Held(ctypes.Structure):
    _fields_ = [("narrow", POINTER), ("wide", POINTER), ("seeds", POINTER)]


class _Grown(ctypes.Structure):
    _fields_ = [
        *((name, POINTER) for name in ("sums", "total", "factors")),
        ("weights", ctypes.POINTER(POINTER)),
        ("slopes", POINTER),
    ]  # fmt: skip


class _Turn(ctypes.Structure):
    _fields_ = [("cos", POINTER), ("sin", POINTER)]


class Room:
    """Memory for what blocks keep, which a way back gives back for the next batch, and for what it computes itself: new
    memory costs its pages and leaves holes between what lasts."""

    def __init__(self) -> None:
        self._free: list[tuple[Tensor, Tensor]] = []
        self._slopes = torch.empty(0, dtype=torch.bfloat16)

    def taken(self, narrow: int, wide: int) -> tuple[Tensor, Tensor]:
        """So many numbers in bf16 and in fp32, or more."""
        for place, (first, second) in enumerate(self._free):
            if first.numel() >= narrow and second.numel() >= wide:
                return self._free.pop(place)
        self._free.clear()
        return torch.empty(narrow, dtype=torch.bfloat16), torch.empty(wide, dtype=torch.float32)

    def slopes(self, numbers: int) -> Tensor:
        """So many numbers in bf16, or more; until the next call."""
        if self._slopes.numel() < numbers:
            self._slopes = torch.empty(0, dtype=torch.bfloat16)  # first the old ones go
            self._slopes = torch.empty(numbers, dtype=torch.bfloat16)
        return self._slopes

    def given_back(self, kept: tuple[Tensor, ...]) -> None:
        """After a way back, which is gone only once."""
        self._free.append((kept[0], kept[1]))


class Block:
    """All of a block; maps and what of each learns in the order of the pass."""

    def __init__(self, layout: Layout, maps: Sequence[Map], learns: Sequence[Learns], norms: Sequence[Norm]) -> None:
        self.layout, self.maps, self.learns, self._norms = layout, maps, learns, norms
        self.size = 0
        for one, learn in zip(maps, learns, strict=True):
            if learn.update and one.rank:
                one.struct.at_a = self._take(one.rank * one.struct.inputs)
                one.struct.at_b = self._take(one.rank * one.struct.outputs)
            if learn.bias:
                one.struct.at_bias = self._take(one.struct.outputs)
        self.of_norms: list[NormStruct] = []
        for norm in norms:
            at_scale = self._take(len(norm.scale_h)) if norm.scale_learns else -1
            at_shift = self._take(len(norm.scale_h)) if norm.shift_learns else -1
            found = NormStruct(address(norm.scale_h), address(norm.shift_h), norm.epsilon, at_scale, at_shift)
            self.of_norms.append(found)
        self.factors = torch.ones(self.size)
        for one in maps:
            if one.struct.at_b >= 0:
                of_b = self.factors[one.struct.at_b :][: one.rank * one.struct.outputs].view(one.rank, -1)
                for part in one.parts:
                    of_b[part.first_rank : part.first_rank + part.rank] = part.factor
        self.narrow_width = layout.narrow + sum(one.stride for one in maps)
        self.drops = any(one.rank and one.struct.dropped > 0 for one in maps)
        self.slope_width = sum(one.struct.outputs for one, learn in zip(maps, learns, strict=True) if learn.weight) + (
            maps[3].struct.inputs if learns[3].weight else 0
        )

    def _take(self, size: int) -> int:
        at = self.size
        self.size += size
        return at

    def described(self) -> tuple[object, ...]:
        """For the kernel."""
        return (
            (MapStruct * 4)(*(one.struct for one in self.maps)),
            (NormStruct * 2)(*self.of_norms),
            self.layout.sizes,
            self.size,
        )


class Stack:
    """Blocks of one kind in a row."""

    def __init__(self, calls: ctypes.CDLL, blocks: Sequence[Block], room: Room) -> None:
        self.blocks, self.room = tuple(blocks), room
        layout = blocks[0].layout
        self.turns = layout.turns
        self.forth, self.back = (calls[f"{layout.kernel}_{way}"] for way in ("forward", "backward"))
        kind = _PreNorm if layout.turns else _PostNorm
        self.structs = (kind * len(blocks))(*(kind(*one.described()) for one in blocks))
        self.factors = torch.cat([one.factors for one in blocks])
        self.largest = max(one.size for one in blocks)
        self.narrow_width = sum(one.narrow_width for one in blocks)
        self.wide_width = layout.wide * len(blocks)
        self.slope_width = max(one.slope_width for one in blocks)
        self.drops = any(one.drops for one in blocks)
        self._nothing_dropped = torch.zeros(4 * len(blocks), dtype=torch.int64)

    def drawn(self) -> Tensor:
        """Seeds of what each map's update drops, four a block, from torch's global generator."""
        if not self.drops:
            return self._nothing_dropped
        return torch.cat(
            [torch.randint(2**62, (4,)) if one.drops else self._nothing_dropped[:4] for one in self.blocks]
        )

    def weights(self) -> list[Tensor | None]:
        """Room for the gradient of each map's weight, (o, i) in fp32, four a block; None where one does not learn."""
        return [
            torch.empty(one.struct.outputs, one.struct.inputs) if learn.weight else None
            for block in self.blocks
            for one, learn in zip(block.maps, block.learns, strict=True)
        ]


def _before(around: Around, stack: Stack) -> list[Any]:
    """The first arguments of either call."""
    assert around.batch is not None
    arguments: list[Any] = [stack.structs, ctypes.c_int64(len(stack.blocks)), ctypes.byref(around.batch.struct)]
    if not stack.turns:
        return arguments
    return [*arguments, ctypes.byref(_Turn(address(around.cos_wd), address(around.sin_wd)))]


def forward(x_nh: Tensor, around: Around, stack: Stack, keeps: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The last block's output (n, h) in fp32, and what the way back wants to have kept, where that is asked for."""
    z_nh = x_nh.clone(memory_format=torch.contiguous_format)
    rows, seeds = len(z_nh), stack.drawn()
    kept: tuple[Tensor, ...] = ()
    if keeps:
        kept = *stack.room.taken(rows * stack.narrow_width, rows * stack.wide_width), seeds
    held = _Held(*(one.data_ptr() for one in kept)) if keeps else _Held(seeds=seeds.data_ptr())
    stack.forth(*_before(around, stack), POINTER(z_nh.data_ptr()), ctypes.byref(held))
    return z_nh, kept


@dataclass(frozen=True)
class Grown:
    """Gradients of blocks: of the weights of the maps that learn, (o, i) in fp32, four a block, and all sums one after
    another."""

    weights: list[Tensor | None]
    sums: Tensor


def backward(
    dz_nh: Tensor, kept: tuple[Tensor, ...], around: Around, stack: Stack, wants_input: bool
) -> tuple[Tensor | None, Grown]:
    """Gradients of the input, where it is wanted, and of the parts."""
    d_nh = dz_nh.clone(memory_format=torch.contiguous_format)
    assert around.batch is not None
    grown = Grown(stack.weights(), torch.empty(len(stack.factors)))
    sums = torch.empty(around.batch.shares, stack.largest)
    slopes = stack.room.slopes(len(d_nh) * stack.slope_width)
    addresses = (POINTER * len(grown.weights))(*(address(one) for one in grown.weights))
    pointers = _Grown(
        sums.data_ptr(), grown.sums.data_ptr(), stack.factors.data_ptr(), addresses, slopes.data_ptr()
    )  # fmt: skip
    held = _Held(*(one.data_ptr() for one in kept))
    stack.back(
        *_before(around, stack), POINTER(d_nh.data_ptr()), ctypes.byref(held), ctypes.byref(pointers),
        ctypes.c_int64(wants_input),
    )  # fmt: skip
    stack.room.given_back(kept)
    return d_nh if wants_input else None, grown
