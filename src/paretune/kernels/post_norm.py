"""One transformer block of BERT's kind (layer norm after each residual), forward and backward by hand.

Next to automatic differentiation of the plain modules it keeps less (no copy in fp32 of what a product took in bf16,
the activation's output is computed again) and multiplies queries, keys and values as one map. The arithmetic is that of
autocast: products, activation and attention in the format of the weights, residuals, norms and the softmax in fp32.
Not here: where weights come from (`train/fast_encoder.py`), products (`linear.py`), dropout inside a block.
Source: Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762).
Axes: b texts, w positions of each, n rows (tokens, some to spare), h hidden, o output features, d features of a head.

    z_nh, kept = forward(x_nh, around, block); dx_nh, gradients = backward(dz_nh, kept, around, block, wants_input=True)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from paretune.kernels.attention import attend, attend_backward
from paretune.kernels.linear import Linear, LinearGradients
from paretune.kernels.rows import Around


@dataclass(frozen=True)
class Norm:
    """Scale and shift of a layer norm, fp32, and which of the two learns."""

    scale_h: Tensor
    shift_h: Tensor
    epsilon: float
    scale_learns: bool = False
    shift_learns: bool = False


@dataclass(frozen=True)
class Block:
    """All of a block; `joined` gives queries, keys and values one after another: (3h, h)."""

    joined: Linear
    attention_out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    norm: Norm
    heads: int
    dtype: torch.dtype

    @property
    def linears(self) -> tuple[Linear, Linear, Linear, Linear]:
        """The linear maps in the order of the pass."""
        return self.joined, self.attention_out, self.up, self.down


@dataclass(frozen=True)
class BlockGradients:
    """Of the linear maps and of each norm's parts, both in the order of the pass."""

    linears: tuple[LinearGradients, ...]
    norms: tuple[tuple[Tensor | None, ...], ...]


def forward(x_nh: Tensor, around: Around, block: Block) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The block's output (n, h) in fp32, and what the way back wants to have kept; the activation is the exact GELU."""
    dtype, rows = block.dtype, around.rows
    shape = (rows.texts, rows.width, 3, block.heads, x_nh.shape[1] // block.heads)
    xs_nh = x_nh.to(dtype)
    qkv_no, qkv_kept = block.joined.forward(xs_nh)
    qkv_3bhwd = rows.by_text(qkv_no).view(shape).permute(2, 0, 3, 1, 4).contiguous()
    q, k, v = qkv_3bhwd
    p_bhww, mixed_bhwd = attend(q, k, v, around.unseen)
    mixed_nh = rows.from_texts(mixed_bhwd.transpose(1, 2))
    out_nh, out_kept = block.attention_out.forward(mixed_nh)
    r1_nh = x_nh + out_nh
    y_nh, mean1, rstd1 = _normed(r1_nh, block.attention_norm)
    ys_nh = y_nh.to(dtype)
    u_no, up_kept = block.up.forward(ys_nh)
    down_nh, down_kept = block.down.forward(functional.gelu(u_no))
    r2_nh = y_nh + down_nh
    z_nh, mean2, rstd2 = _normed(r2_nh, block.norm)
    kept = (
        xs_nh, qkv_3bhwd, p_bhww, mixed_nh, r1_nh.to(dtype), mean1, rstd1, ys_nh, u_no, r2_nh.to(dtype), mean2, rstd2,
        *qkv_kept, *out_kept, *up_kept, *down_kept,
    )  # fmt: skip
    return z_nh, kept


def backward(
    dz_nh: Tensor, kept: tuple[Tensor, ...], around: Around, block: Block, wants_input: bool
) -> tuple[Tensor | None, BlockGradients]:
    """Gradients of the input, where it is wanted, and of the parts."""
    xs, qkv, p, mixed, r1, mean1, rstd1, ys, u, r2, mean2, rstd2, *rest = kept
    qkv_kept, out_kept, up_kept, down_kept = ((rest[at], rest[at + 1]) for at in range(0, 8, 2))
    dtype, rows = block.dtype, around.rows
    dr2, norm = _norm_backward(dz_nh, r2, mean2, rstd2, block.norm)
    dg, down = block.down.backward(dr2.to(dtype), functional.gelu(u), down_kept, True)
    du = torch.ops.aten.gelu_backward(dg, u)
    dys, up = block.up.backward(du, ys, up_kept, True)
    assert dys is not None
    dr1, attention_norm = _norm_backward(dr2.add_(dys), r1, mean1, rstd1, block.attention_norm)
    dmixed, out = block.attention_out.backward(dr1.to(dtype), mixed, out_kept, True)
    assert dmixed is not None
    q, k, v = qkv
    dqkv = torch.empty_like(qkv)
    dmixed_bhwd = rows.by_text(dmixed).view(rows.texts, rows.width, block.heads, -1).transpose(1, 2)
    attend_backward(dmixed_bhwd, q, k, v, p, dqkv[0], dqkv[1], dqkv[2])
    dqkv_no = rows.from_texts(dqkv.permute(1, 3, 0, 2, 4))
    dxs, joined = block.joined.backward(dqkv_no, xs, qkv_kept, wants_input)
    dx = dr1.add_(dxs) if dxs is not None else None
    return dx, BlockGradients((joined, out, up, down), (attention_norm, norm))


def _normed(x_nh: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(x_nh, [x_nh.shape[1]], norm.scale_h, norm.shift_h, norm.epsilon)


def _norm_backward(
    dy_nh: Tensor, x_nh: Tensor, mean_n: Tensor, rstd_n: Tensor, norm: Norm
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    wanted = [True, norm.scale_learns, norm.shift_learns]
    dx_nh, dscale_h, dshift_h = torch.ops.aten.native_layer_norm_backward(
        dy_nh, x_nh.float(), [x_nh.shape[1]], mean_n, rstd_n, norm.scale_h, norm.shift_h, wanted
    )
    return dx_nh, (dscale_h if norm.scale_learns else None, dshift_h if norm.shift_learns else None)
