"""In which number format encoder matrix products run: fp32, or bf16 under autocast with fp32 weights.

Not here: formats of stored weights. Pooling, head and loss are always fp32 (`classifier.py`).

    with autocast(chosen_precision("auto")): ...
"""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from paretune.core.engine_timings import known, precision_of
from paretune.core.limits import processor_has_bf16

Precision = Literal["bf16", "fp32"]
PRODUCTS = 6


def chosen_precision(wanted: Literal["auto", "bf16", "fp32"], in_cpp: bool = True) -> Precision:
    """What "auto" means on this processor: the format in which it is faster, by what was timed of it, else by two
    products that are timed now. `in_cpp`: the C++ kernels may take part, as in training; a server has none."""
    if wanted != "auto":
        return wanted
    if not processor_has_bf16():
        return "fp32"
    found = known()
    return faster_products() if found is None else precision_of(found, in_cpp)


@cache
def faster_products() -> Precision:
    """The format in which torch multiplies faster, by a few products of each in turn; some ten milliseconds."""
    generator = torch.Generator().manual_seed(0)
    x_ni, w_oi = torch.randn(512, 384, generator=generator), torch.randn(1536, 384, generator=generator)
    operands: dict[Precision, tuple[Tensor, Tensor]] = {
        "fp32": (x_ni, w_oi),
        "bf16": (x_ni.bfloat16(), w_oi.bfloat16()),
    }
    seconds: dict[Precision, float] = {"fp32": float("inf"), "bf16": float("inf")}
    with torch.inference_mode():
        for _ in range(PRODUCTS):
            for one, (x, w) in operands.items():
                began = time.perf_counter()
                functional.linear(x, w)
                seconds[one] = min(seconds[one], time.perf_counter() - began)
    return "bf16" if seconds["bf16"] <= seconds["fp32"] else "fp32"


def autocast(precision: Precision) -> torch.autocast:
    """The context in which encoder matrix products run."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
