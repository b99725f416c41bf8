"""Negative log-likelihood of tokens without ever holding all their logits.

For n positions and a vocabulary of v the logits alone are n·v numbers (16 texts of 128 tokens and 49,152 pieces: 400 MB
in fp32, and as much again for their gradient). Here so many positions at a time as give `CELLS` logits; where the map
to the vocabulary is frozen the gradient of the hidden states is made on the way forward, else a part's logits are made
again on the way back (Hsu et al. 2024, https://arxiv.org/abs/2410.10989, for the former; Wijmans et al. 2024,
https://arxiv.org/abs/2411.09009, for the latter). Not here: which positions count. Axes: n positions, of which k are
in a part, h hidden, v pieces.

    token_losses(hidden_nh, weight_vh, targets_n).sum().backward()
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CELLS = 2**24  # 64 MiB of fp32


def token_losses(hidden_nh: Tensor, weight_vh: Tensor, targets_n: Tensor, cells: int = CELLS) -> Tensor:
    """−log softmax(W·h) at the target of each position, shape (n,), in fp32 (nats).

    Products run in the dtype of `hidden_nh`; exponents and sums in fp32. Gradients reach `hidden_nh` and `weight_vh`.
    """
    return _TokenLosses.apply(hidden_nh, weight_vh, targets_n, max(1, cells // len(weight_vh)))  # type: ignore[no-any-return]


def _parts(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, rows, size))


def _less_the_target(logits_kv: Tensor, log_sums_k: Tensor, targets_k: Tensor) -> Tensor:
    """In place: what a loss's derivative by its logits is, the softmax less 1 at the target."""
    slope_kv = logits_kv.sub_(log_sums_k[:, None]).exp_()
    slope_kv[torch.arange(len(targets_k), device=targets_k.device), targets_k] -= 1.0
    return slope_kv


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_nh: Tensor, weight_vh: Tensor, targets_n: Tensor, size: int) -> Tensor:  # type: ignore[override]
        dtype, rows = hidden_nh.dtype, len(hidden_nh)
        used_vh = weight_vh.to(dtype)
        losses_n = hidden_nh.new_empty(rows, dtype=torch.float32)
        log_sums_n = torch.empty_like(losses_n)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        slopes_nh = torch.empty_like(hidden_nh) if wants_hidden and not wants_weight else None
        for part in _parts(rows, size):
            logits_kv, targets_k = (hidden_nh[part] @ used_vh.T).float(), targets_n[part]
            log_sums_n[part] = torch.logsumexp(logits_kv, -1)
            losses_n[part] = log_sums_n[part] - logits_kv.gather(1, targets_k[:, None])[:, 0]
            if slopes_nh is not None:
                slopes_nh[part] = _less_the_target(logits_kv, log_sums_n[part], targets_k).to(dtype) @ used_vh
        if wants_weight:
            ctx.save_for_backward(hidden_nh, weight_vh, targets_n, log_sums_n)
        elif slopes_nh is not None:
            ctx.save_for_backward(slopes_nh)
        ctx.size, ctx.weight_learns = size, wants_weight
        return losses_n

    @staticmethod
    def backward(ctx: Any, dlosses_n: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if not ctx.weight_learns:
            (slopes_nh,) = ctx.saved_tensors
            return slopes_nh * dlosses_n[:, None].to(slopes_nh.dtype), None, None, None
        hidden_nh, weight_vh, targets_n, log_sums_n = ctx.saved_tensors
        dtype = hidden_nh.dtype
        used_vh = weight_vh.to(dtype)
        dhidden_nh = torch.empty_like(hidden_nh) if ctx.needs_input_grad[0] else None
        dweight_vh = torch.zeros_like(weight_vh)
        for part in _parts(len(hidden_nh), ctx.size):
            logits_kv = (hidden_nh[part] @ used_vh.T).float()
            slope_kv = _less_the_target(logits_kv, log_sums_n[part], targets_n[part])
            slope_kv = slope_kv.mul_(dlosses_n[part, None]).to(dtype)
            if dhidden_nh is not None:
                dhidden_nh[part] = slope_kv @ used_vh
            dweight_vh += slope_kv.T @ hidden_nh[part]
        return dhidden_nh, dweight_vh, None, None
