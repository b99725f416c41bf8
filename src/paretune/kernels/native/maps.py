"""Linear maps as the C++ kernels want them.

Not here: the kernels (`maps.h`), building them (`build.py`, `library.py`), which parameter stands behind a map
(`train/native_blocks.py`). Axes: i input features, o output features, r numbers of all low-rank updates of a map.

    one = Map(384, 1536, bias_o, update, [Part(0, 1536, 0, 8)], back=True); Layouts(calls, [one.weight(w_oi, 0)], [one])
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paretune.kernels.low_rank import LowRank

PANEL = 64  # as in products.h
STRIP = 16


class MapStruct(ctypes.Structure):
    """`Map` of maps.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("inputs", "outputs")),
        *((name, ctypes.c_void_p) for name in ("forth", "back", "bias")),
        *((name, ctypes.c_int64) for name in ("rank", "stride")),
        *((name, ctypes.c_void_p) for name in ("a", "b", "a_strips", "b_panels", "b_strips", "a_panels")),
        *((name, ctypes.c_void_p) for name in ("forth_panels", "back_panels")),
        ("parts", ctypes.c_int64),
        ("part", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("at_a", "at_b", "at_bias")),
        ("dropped", ctypes.c_double),
    ]


@dataclass(frozen=True)
class Part:
    """One of the maps that are joined: its columns of the output, its numbers of the update (an even count), and what
    the gradient of B is multiplied by."""

    first: int
    columns: int
    first_rank: int
    rank: int
    factor: float = 1.0


def even(rank: int) -> int:
    """The kernels go through an update in pairs."""
    return rank + rank % 2


def stride_of(rank: int) -> int:
    """From one row of an update to the next."""
    return -(-rank // STRIP) * STRIP


def fits(features: int) -> bool:
    """Whether the kernels have maps with so many inputs or outputs."""
    return features % PANEL == 0


def address(tensor: Tensor | None) -> int | None:
    """Where its numbers are."""
    return None if tensor is None else tensor.data_ptr()


class Weight(ctypes.Structure):
    """`Weight` of weights.cpp."""

    _fields_ = [
        ("numbers", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "first", "inputs", "outputs")),
        *((name, ctypes.c_void_p) for name in ("forth", "back")),
    ]


class Map:
    """A linear map laid out for the kernels; `Layouts` brings its numbers in."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias_o: Tensor | None,
        update: LowRank | None,
        parts: Sequence[Part],
        back: bool,
        dropped: float = 0.0,
    ) -> None:
        """`bias_o` in fp32; `update` in bf16, with rows of A padded to even counts and B's to the stride."""
        self._held = bias_o, update  # the kernels have their addresses
        self.parts = tuple(parts)
        self._forth = torch.empty(outputs * inputs, dtype=torch.bfloat16)
        self._back = torch.empty(outputs * inputs, dtype=torch.bfloat16) if back else None
        rank = 0 if update is None else len(update.a_ri)
        self.rank, self.stride = rank, stride_of(rank)
        self._parts = _numbers([
            [one.first, one.columns, one.first_rank, one.rank, at]
            for one, at in zip(parts, _strip_places(parts), strict=True)
        ])  # fmt: skip
        forth_panels = _panels(outputs, parts, rank)
        self._forth_panels = _numbers(forth_panels)
        self._back_panels = _numbers([[0, rank, place * rank] for place in range(0, inputs, PANEL)])
        sizes = (
            self.stride * inputs,
            sum(PANEL * count for _, count, _ in forth_panels),
            sum(stride_of(one.rank) * one.columns for one in parts),
            inputs * rank,
        )
        self._packs = torch.zeros(sum(sizes), dtype=torch.bfloat16)
        a_strips, b_panels, b_strips, a_panels = self._packs.split(sizes)
        self.struct = MapStruct(
            inputs, outputs, address(self._forth), address(self._back), address(bias_o), rank, self.stride,
            address(update.a_ri) if update else None, address(update.b_or) if update else None,
            address(a_strips), address(b_panels), address(b_strips), address(a_panels),
            address(self._forth_panels), address(self._back_panels), len(parts), address(self._parts),
            -1, -1, -1, dropped,
        )  # fmt: skip

    def weight(self, weight_oi: Tensor, first: int) -> Weight:
        """One of the weights that are joined, fp32, whose outputs begin with number `first`."""
        numbers, to = weight_oi.data_ptr(), (address(self._forth), address(self._back))
        return Weight(numbers, len(weight_oi), first, self.struct.inputs, self.struct.outputs, *to)


class Copy(ctypes.Structure):
    """`Copy` of weights.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("numbers", "wide", "narrow")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "stride")),
        ("factor", ctypes.c_double),
    ]


def copy_of(parameter: Tensor, to: Tensor, factor: float) -> Copy:
    """Numbers of an fp32 parameter, one after another, into rows in fp32 (then as they are) or bf16, times `factor`."""
    rows, columns = (1, parameter.numel()) if parameter.dim() < 2 else parameter.shape
    wide, narrow = (to.data_ptr(), None) if to.dtype == torch.float32 else (None, to.data_ptr())
    return Copy(parameter.data_ptr(), wide, narrow, rows, columns, to.stride(0), factor)


class Layouts:
    """Brings weights, updates and what is copied before into the kernels' format and layout, all in one call."""

    def __init__(
        self, calls: ctypes.CDLL, weights: Sequence[Weight], updated: Sequence[Map], copies: Sequence[Copy] = ()
    ) -> None:
        self._calls = calls
        self._copies = (Copy * len(copies))(*copies)
        self._weights = (Weight * len(weights))(*weights)
        self._maps = [one for one in updated if one.rank]
        self._updates = (ctypes.c_void_p * len(self._maps))(*(ctypes.addressof(one.struct) for one in self._maps))

    def refresh(self) -> None:
        """As the numbers are now."""
        arrays = [(one, ctypes.c_int64(len(one))) for one in (self._copies, self._weights, self._updates)]
        self._calls.refresh(*(part for one in arrays for part in one), ctypes.c_int64(torch.get_num_threads()))


def _numbers(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64)


def _strip_places(parts: Sequence[Part]) -> list[int]:
    places = [0]
    for one in parts:
        places.append(places[-1] + stride_of(one.rank) * one.columns)
    return places[:-1]


def _panels(outputs: int, parts: Sequence[Part], rank: int) -> list[list[int]]:
    """For each panel of outputs the numbers of the update that it needs: its part's, where it lies in one part."""
    found: list[list[int]] = []
    place = 0
    for first in range(0, outputs, PANEL):
        inside = [one for one in parts if one.first <= first and first + PANEL <= one.first + one.columns]
        start, count = (inside[0].first_rank, inside[0].rank) if inside else (0, rank)
        found.append([start, count, place])
        place += PANEL * count
    return found


def products(calls: ctypes.CDLL) -> Callable[[Tensor, Tensor], Callable[[], object]]:
    """For rows (n, i) and a weight (o, i), both bf16: a call that multiplies them, the weight laid out beforehand."""

    def way(x_ni: Tensor, w_oi: Tensor) -> Callable[[], object]:
        (outputs, inputs), threads = w_oi.shape, ctypes.c_int64(torch.get_num_threads())
        held = Map(inputs, outputs, None, None, [], back=False)
        w_oi = w_oi.float()
        Layouts(calls, [held.weight(w_oi, 0)], []).refresh()
        y_no = torch.empty(len(x_ni), outputs, dtype=torch.bfloat16)

        def call() -> Tensor:
            calls.plain_product(
                ctypes.c_void_p(x_ni.data_ptr()), ctypes.c_int64(len(x_ni)), ctypes.c_int64(inputs),
                ctypes.c_void_p(held.struct.forth), ctypes.c_int64(outputs), ctypes.c_void_p(y_no.data_ptr()), threads,
            )  # fmt: skip
            return y_no

        return call

    return way
