"""What this machine can do at most, measured: matrix products at a model's own shapes, and bytes copied.

A ceiling holds for the minute in which it was measured: clocks change and neighbours come. Not here: how much
arithmetic a training needs (`flops.py`), what the machine is called (`repro/provenance.py`), and how many threads are
used, which the caller sets. Roofline: Williams et al. 2009 (https://doi.org/10.1145/1498765.1498785).

    matrix_flops_per_second({(384, 384): 4, (384, 1536): 1, (1536, 384): 1}, rows=1500)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch

Way = Callable[[torch.Tensor, torch.Tensor], Callable[[], object]]  # rows, weight → a call that multiplies them

LEAST_ROUNDS = 5
COPIED_BYTES = 256 * 2**20  # beyond any cache
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def matrix_flops_per_second(
    shapes: Mapping[tuple[int, int], int],
    rows: int,
    precision: Literal["bf16", "fp32"] = "bf16",
    seconds: float = 2.0,
    others: Sequence[Way] = (),
) -> float:
    """FLOP a second of products (rows × inputs)·(inputs × outputs), each shape weighted by how often it occurs.

    `shapes`: (inputs, outputs) → count. Each is timed in turn for about `seconds` in all, in both layouts of the
    weights and by the `others`, and the fastest median counts; so no product of the model is asked for more than was
    reached.
    """
    draw = torch.Generator().manual_seed(0)
    total_flops = total_seconds = 0.0
    with torch.inference_mode():
        for (inputs, outputs), count in shapes.items():
            x_ni = torch.randn(rows, inputs, generator=draw).to(DTYPES[precision])
            w_oi = torch.randn(outputs, inputs, generator=draw).to(DTYPES[precision])
            w_io = w_oi.t().contiguous()
            out_no = torch.empty(rows, outputs, dtype=DTYPES[precision])
            calls: list[Callable[[], object]] = [
                partial(torch.mm, x_ni, w_oi.t(), out=out_no),
                partial(torch.mm, x_ni, w_io, out=out_no),
                *(way(x_ni, w_oi) for way in others),
            ]
            took = min(_median_seconds(call, seconds / len(shapes) / len(calls)) for call in calls)
            total_flops += 2.0 * rows * inputs * outputs * count
            total_seconds += took * count
    return total_flops / total_seconds


def copy_bytes_per_second(seconds: float = 1.0) -> float:
    """Bytes read plus bytes written a second, copying more than the caches hold."""
    with torch.inference_mode():
        source, target = (torch.zeros(COPIED_BYTES, dtype=torch.uint8) for _ in range(2))
        return 2.0 * COPIED_BYTES / _median_seconds(lambda: target.copy_(source), seconds)


def _median_seconds(work: Callable[[], object], seconds: float) -> float:
    """Median of repeated calls for about so long, at least a few; the first call is not counted."""
    work()
    found: list[float] = []
    until = time.perf_counter() + seconds
    while len(found) < LEAST_ROUNDS or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)
