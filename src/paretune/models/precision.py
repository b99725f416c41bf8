"""In which number format encoder matrix products run: fp32, or bf16 under autocast with fp32 weights.

Not here: formats of stored weights. Pooling, head and loss are always fp32 (`classifier.py`).

    with autocast(chosen_precision("auto")): ...
"""

from __future__ import annotations

from typing import Literal

import torch

from paretune.core.limits import processor_has_bf16

Precision = Literal["bf16", "fp32"]


def chosen_precision(wanted: Literal["auto", "bf16", "fp32"]) -> Precision:
    """What "auto" means on this processor."""
    if wanted == "auto":
        return "bf16" if processor_has_bf16() else "fp32"
    return wanted


def autocast(precision: Precision) -> torch.autocast:
    """The context in which encoder matrix products run."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
