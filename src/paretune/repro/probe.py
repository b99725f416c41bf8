"""The numerics fingerprint: a hash of what about 30 small fixed operations give here, bit for bit.

Two processes with the same fingerprint (same kernels, processor type and number of threads) may be asked for equal
bits; others only for equal answers within a tolerance. Not here: what must be equal (`serve/`), nor any timing.
Some operands are large enough to be split over threads, because the split of a sum depends on their number.

    numerics_fingerprint()  # the same in every process of one machine with as many threads
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "1"
ROWS, WIDTH, WIDER = 96, 384, 1536


def numerics_fingerprint() -> str:
    """First 32 hex digits of the SHA-256 over outputs, thread count and torch's version; takes some 50 ms."""
    import torch

    total = hashlib.sha256(f"{VERSION}/{torch.__version__}/{torch.get_num_threads()}".encode())
    with torch.inference_mode():
        for name, operation in _operations().items():
            out = operation().contiguous()
            total.update(f"\0{name}\0{tuple(out.shape)}\0".encode())
            total.update(out.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:32]


def _operations() -> dict[str, Callable[[], Tensor]]:
    """What is computed, by name; inputs come from one fixed seed."""
    import torch
    from torch.nn import functional as f

    generator = torch.Generator().manual_seed(20_260_101)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x, w, bias, up = normal(ROWS, WIDTH), normal(WIDTH, WIDTH), normal(WIDTH), normal(WIDER, WIDTH)
    queries, keys, scores = normal(12, 40, 32), normal(12, 40, 32), normal(12, 40, 40) * 4
    low_a, low_b, ids = normal(8, WIDTH), normal(WIDTH, 8), torch.arange(0, ROWS, 3)
    xb, wb, upb, qb, kb = (one.bfloat16() for one in (x, w, up, queries, keys))

    def under_autocast() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return f.linear(f.gelu(f.linear(x, up)), up.T)

    return {
        "input": lambda: x,
        "matmul": lambda: x @ w,
        "matmul_one_row": lambda: x[:1] @ w,
        "matmul_wide": lambda: x @ up.T,
        "linear": lambda: f.linear(x, w, bias),
        "bmm": lambda: queries @ keys.transpose(1, 2),
        "addmm_low_rank": lambda: (x @ w).addmm_(x @ low_a.T, low_b.T),
        "matmul_bf16": lambda: xb @ wb,
        "matmul_one_row_bf16": lambda: xb[:1] @ wb,
        "matmul_wide_bf16": lambda: xb @ upb.T,
        "linear_bf16": lambda: f.linear(xb, wb, bias.bfloat16()),
        "bmm_bf16": lambda: qb @ kb.transpose(1, 2),
        "autocast": under_autocast,
        "softmax": lambda: torch.softmax(scores, dim=-1),
        "log_softmax": lambda: torch.log_softmax(scores, dim=-1),
        "softmax_bf16": lambda: torch.softmax(scores.bfloat16(), dim=-1),
        "layer_norm": lambda: f.layer_norm(x, (WIDTH,), bias, bias),
        "layer_norm_bf16": lambda: f.layer_norm(xb, (WIDTH,), bias.bfloat16(), bias.bfloat16()),
        "gelu": lambda: f.gelu(x),
        "gelu_tanh": lambda: f.gelu(x, approximate="tanh"),
        "gelu_bf16": lambda: f.gelu(xb),
        "silu": lambda: f.silu(x),
        "tanh": lambda: torch.tanh(x),
        "sigmoid": lambda: torch.sigmoid(x),
        "erf": lambda: torch.erf(x),
        "exp": lambda: torch.exp(x),
        "log": lambda: torch.log(x.abs() + 1e-3),
        "rsqrt": lambda: torch.rsqrt(x.abs() + 1e-3),
        "sum": lambda: x.sum(dim=0),
        "sum_all": lambda: up.sum().reshape(1),
        "mean": lambda: up.mean(dim=1),
        "variance": lambda: torch.var(up, dim=1),
        "squares": lambda: (up * up).sum(dim=1),
        "gather": lambda: f.embedding(ids, x) + bias,
    }
