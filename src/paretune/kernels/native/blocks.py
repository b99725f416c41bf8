"""A block by the C++ kernels: tensors in, tensors out.

The arithmetic is that of `kernels/post_norm.py` and `pre_norm.py` with fewer roundings between the parts. Not here:
which parameters stand behind (`train/native_blocks.py`). Axes: n rows (tokens), h hidden.

    z_nh, kept = forward(x_nh, around, block, keeps=True); dx_nh, grown = backward(dz_nh, kept, around, block, True)
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paretune.kernels.linear import Learns
from paretune.kernels.native.maps import Map, MapStruct, address, weight_slope
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
    """What a kind of block keeps: numbers a row of seven arrays in bf16 and of two in fp32; `given`: which of the seven
    went into each map, None: computed again. `sizes` close the kernel's own description of a block."""

    kernel: str
    narrow: tuple[int, ...]
    wide: tuple[int, int]
    given: tuple[int | None, ...]
    sizes: tuple[int, ...]
    turns: bool = False


def post_norm_layout(hidden: int, inner: int, heads: int) -> Layout:
    """BERT's kind."""
    narrow = (hidden, 3 * hidden, hidden, hidden, hidden, inner, hidden)
    return Layout("post_norm", narrow, (heads, 4), (0, 2, 4, None), (heads, hidden // heads))


def pre_norm_layout(hidden: int, inner: int, queries: int, keys: int, width: int) -> Layout:
    """Llama's kind; `width`: features of a head."""
    narrow = (hidden, hidden, (queries + 2 * keys) * width, queries * width, hidden, hidden, 2 * inner)
    return Layout("pre_norm", narrow, (queries, 2), (1, 3, 5, None), (queries, keys, width), turns=True)


class NormStruct(ctypes.Structure):
    _fields_ = [
        ("scale", POINTER), ("shift", POINTER), ("epsilon", ctypes.c_double),
        ("at_scale", ctypes.c_int64), ("at_shift", ctypes.c_int64),
    ]  # fmt: skip


class _Block(ctypes.Structure):
    _fields_ = [("maps", MapStruct * 4), ("norms", NormStruct * 2), ("sizes", ctypes.c_int64 * 3)]


class _Kept(ctypes.Structure):
    _fields_ = [("narrow", POINTER * 7), ("wide", POINTER * 2), ("low", POINTER * 4), ("seeds", ctypes.c_int64 * 4)]


class _Slopes(ctypes.Structure):
    _fields_ = [("maps", POINTER * 4), ("inner", POINTER)]


class _Turn(ctypes.Structure):
    _fields_ = [("cos", POINTER), ("sin", POINTER)]


class Room:
    """Memory for what blocks keep; a way back gives it back for the next batch, as new memory costs its pages."""

    def __init__(self) -> None:
        self._free: list[tuple[Tensor, Tensor]] = []

    def taken(self, narrow: int, wide: int) -> tuple[Tensor, Tensor]:
        """So many numbers in bf16 and in fp32, or more."""
        for place, (first, second) in enumerate(self._free):
            if first.numel() >= narrow and second.numel() >= wide:
                return self._free.pop(place)
        self._free.clear()
        return torch.empty(narrow, dtype=torch.bfloat16), torch.empty(wide, dtype=torch.float32)

    def given_back(self, kept: tuple[Tensor, ...]) -> None:
        """After a way back, which is gone only once."""
        self._free.append((kept[0], kept[1]))


class Block:
    """All of a block; maps and what of each learns in the order of the pass."""

    def __init__(
        self, calls: ctypes.CDLL, layout: Layout, maps: Sequence[Map], learns: Sequence[Learns],
        norms: Sequence[Norm], room: Room,
    ) -> None:  # fmt: skip
        self.calls, self.layout, self.maps, self.learns, self._norms = calls, layout, maps, learns, norms
        self.forth, self.back = (calls[f"{layout.kernel}_{way}"] for way in ("forward", "backward"))
        self.room = room
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
        self.struct = _Block(
            (MapStruct * 4)(*(one.struct for one in maps)),
            (NormStruct * 2)(*self.of_norms),
            (ctypes.c_int64 * 3)(*layout.sizes),
        )
        self.factors = torch.ones(self.size)
        for one in maps:
            if one.struct.at_b >= 0:
                of_b = self.factors[one.struct.at_b :][: one.rank * one.struct.outputs].view(one.rank, -1)
                for part in one.parts:
                    of_b[part.first_rank : part.first_rank + part.rank] = part.factor
        self.narrow_width = sum(layout.narrow) + sum(one.stride for one in maps)

    def _take(self, size: int) -> int:
        at = self.size
        self.size += size
        return at

    def drawn(self) -> Tensor:
        """Seeds of what each map's update drops, from torch's global generator."""
        drops = any(one.rank and one.struct.dropped > 0 for one in self.maps)
        return torch.randint(2**62, (4,)) if drops else torch.zeros(4, dtype=torch.int64)

    def pointers(self, kept: tuple[Tensor, ...], rows: int) -> _Kept:
        """Where each array begins."""
        place, at = kept[0].data_ptr(), list[int]()
        for width in (*self.layout.narrow, *(one.stride for one in self.maps)):
            at.append(place)
            place += 2 * rows * width
        low = [where if one.rank else None for where, one in zip(at[7:], self.maps, strict=True)]
        first = kept[1].data_ptr()
        return _Kept(
            (POINTER * 7)(*at[:7]),
            (POINTER * 2)(first, first + 4 * rows * self.layout.wide[0]),
            (POINTER * 4)(*low),
            (ctypes.c_int64 * 4)(*kept[2].tolist()),
        )

    def given(self, kept: tuple[Tensor, ...], rows: int, which: int) -> Tensor:
        """One of the seven arrays."""
        start = rows * sum(self.layout.narrow[:which])
        width = self.layout.narrow[which]
        return kept[0][start : start + rows * width].view(rows, width)


def _before(around: Around, block: Block) -> list[Any]:
    """The first arguments of either call."""
    assert around.batch is not None
    arguments: list[Any] = [ctypes.byref(block.struct), ctypes.byref(around.batch.struct)]
    if not block.layout.turns:
        return arguments
    return [*arguments, ctypes.byref(_Turn(address(around.cos_wd), address(around.sin_wd)))]


def forward(x_nh: Tensor, around: Around, block: Block, keeps: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The block's output (n, h) in fp32, and what the way back wants to have kept, where that is asked for."""
    x_nh = x_nh.contiguous()
    z_nh, rows = torch.empty_like(x_nh), len(x_nh)
    kept: tuple[Tensor, ...] = ()
    if keeps:
        kept = *block.room.taken(rows * block.narrow_width, rows * sum(block.layout.wide)), block.drawn()
    pointers = block.pointers(kept, rows) if keeps else _Kept(seeds=(ctypes.c_int64 * 4)(*block.drawn().tolist()))
    into = POINTER(x_nh.data_ptr()), POINTER(z_nh.data_ptr())
    block.forth(*_before(around, block), *into, ctypes.byref(pointers))
    return z_nh, kept


@dataclass(frozen=True)
class Grown:
    """Gradients of a block: of the weights of the maps that learn, (o, i) in fp32, and all sums one after another."""

    weights: tuple[Tensor | None, ...]
    sums: Tensor


def backward(
    dz_nh: Tensor, kept: tuple[Tensor, ...], around: Around, block: Block, wants_input: bool
) -> tuple[Tensor | None, Grown]:
    """Gradients of the input, where it is wanted, and of the parts."""
    dz_nh, rows = dz_nh.contiguous(), len(dz_nh)
    dx_nh = torch.empty_like(dz_nh) if wants_input else None
    slopes = _slopes(block, rows)
    assert around.batch is not None
    sums, total = torch.empty(around.batch.shares, block.size), torch.empty(block.size)
    pointers = _Slopes((POINTER * 4)(*(address(one) for one in slopes[:4])), address(slopes[4]))
    block.back(
        *_before(around, block), POINTER(dz_nh.data_ptr()), POINTER(address(dx_nh)),
        ctypes.byref(block.pointers(kept, rows)), ctypes.byref(pointers), POINTER(sums.data_ptr()),
        ctypes.c_int64(block.size), POINTER(block.factors.data_ptr()), POINTER(total.data_ptr()),
    )  # fmt: skip
    weights = tuple(_weight(block, kept, rows, slopes, place) for place in range(4))
    block.room.given_back(kept)
    return dx_nh, Grown(weights, total)


def _slopes(block: Block, rows: int) -> list[Tensor | None]:
    """Room for the gradients of what each map gave whose weight learns, and for what the last map got."""
    widths = [one.struct.outputs if learn.weight else 0 for one, learn in zip(block.maps, block.learns, strict=True)]
    widths.append(block.maps[3].struct.inputs if block.learns[3].weight else 0)
    return [torch.empty(rows, width, dtype=torch.bfloat16) if width else None for width in widths]


def _weight(
    block: Block, kept: tuple[Tensor, ...], rows: int, slopes: list[Tensor | None], place: int
) -> Tensor | None:
    """Gradient of a weight that learns, from what its map got and what its output's gradient is."""
    slope, which = slopes[place], block.layout.given[place]
    if slope is None:
        return None
    given = slopes[4] if which is None else block.given(kept, rows, which)
    assert given is not None
    return weight_slope(block.calls, slope, given)
