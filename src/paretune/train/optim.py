"""AdamW with linear warm-up and linear decay (Loshchilov & Hutter 2019,
https://arxiv.org/abs/1711.05101).

Not here: which parameters decay; the method says so in its groups.

    optimizer = adamw(groups); set_learning_rate(optimizer, schedule_factor(step=1, steps=60, warmup_share=0.1))
"""

from __future__ import annotations

import torch


def adamw(groups: list[dict[str, object]]) -> torch.optim.AdamW:
    """AdamW (β 0.9/0.999, ε 1e-8) in its fused form; each group remembers its peak learning rate."""
    optimizer = torch.optim.AdamW(groups, fused=True)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def schedule_factor(step: int, steps: int, warmup_share: float) -> float:
    """Share of the peak learning rate at optimizer step 1…steps: rises over the warm-up, then falls to zero, or
    stays."""
    warmup = max(1, round(steps * warmup_share))
    if step <= warmup:
        return step / warmup
    return max(0.0, (steps - step + 1) / (steps - warmup + 1))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale each group's peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
