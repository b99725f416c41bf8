"""One transformer block of BERT's kind (layer norm after each residual), forward and backward by hand.

Next to automatic differentiation of the plain modules it keeps less (no copy in fp32 of what a product took in bf16,
the activation's output is computed again), multiplies queries, keys and values as one map, and an update of rank r
costs its own products only. The arithmetic is that of autocast: products, activation and attention in the format of
the weights, residuals and norms in fp32. Not here: where weights come from (`train/fast_encoder.py`), dropout.
Sources: Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762), Hu et al. 2021 (https://arxiv.org/abs/2106.09685).
Axes: b texts, t positions, n = b·t rows, h hidden, i and o input and output features, r rank, d features of a head.

    y_bth = post_norm_block(x_bth, mask_b11t, BlockWeights(...), heads=12, epsilon=1e-12)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class LinearWeights:
    """A linear map in the format in which it is multiplied, and its low-rank update ΔW = b_or @ a_ri, if any."""

    weight_oi: Tensor
    bias_o: Tensor
    a_ri: Tensor | None = None
    b_or: Tensor | None = None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """In the order in which the kernel takes them."""
        return self.weight_oi, self.bias_o, self.a_ri, self.b_or


@dataclass(frozen=True)
class NormWeights:
    """Scale and shift of a layer norm, fp32."""

    scale_h: Tensor
    shift_h: Tensor


@dataclass(frozen=True)
class BlockWeights:
    """All of a block; `joined` gives queries, keys and values one after another: (3h, h)."""

    joined: LinearWeights
    attention_out: LinearWeights
    attention_norm: NormWeights
    up: LinearWeights
    down: LinearWeights
    norm: NormWeights


def post_norm_block(
    x_bth: Tensor, mask_b11t: Tensor | None, weights: BlockWeights, heads: int, epsilon: float
) -> Tensor:
    """The block's output (b, t, h) in fp32; the activation is the exact GELU.

    `mask_b11t` is added to the scores: 0 where a position may be seen, a very low number where not; None: all may be.
    """
    norms = (weights.attention_norm, weights.norm)
    return _Block.apply(  # type: ignore[no-any-return]  torch's own annotation is missing
        x_bth,
        mask_b11t,
        heads,
        epsilon,
        *(tensor for one in norms for tensor in (one.scale_h, one.shift_h)),
        *weights.joined.tensors(),
        *weights.attention_out.tensors(),
        *weights.up.tensors(),
        *weights.down.tensors(),
    )


def _linear(x_ni: Tensor, weights: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor | None]:
    """(n, o) and the low-rank part's (n, r)."""
    weight_oi, bias_o, a_ri, b_or = weights
    assert weight_oi is not None
    y_no = functional.linear(x_ni, weight_oi, bias_o)
    if a_ri is None or b_or is None:
        return y_no, None
    low_nr = functional.linear(x_ni, a_ri)
    return y_no.addmm_(low_nr, b_or.T), low_nr


def _linear_backward(
    dy_no: Tensor,
    x_ni: Tensor,
    low_nr: Tensor | None,
    weights: tuple[Tensor | None, ...],
    wanted: tuple[bool, ...],
    wants_input: bool,
) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
    """Gradients of the input and of the four weights; None for what is not wanted."""
    weight_oi, _, a_ri, b_or = weights
    assert weight_oi is not None
    dx_ni = dy_no @ weight_oi if wants_input else None
    dweight_oi = dy_no.T @ x_ni if wanted[0] else None
    dbias_o = dy_no.sum(0) if wanted[1] else None
    da_ri = db_or = None
    if a_ri is not None and b_or is not None and low_nr is not None:
        dlow_nr = dy_no @ b_or
        if dx_ni is not None:
            dx_ni.addmm_(dlow_nr, a_ri)
        da_ri = dlow_nr.T @ x_ni if wanted[2] else None
        db_or = dy_no.T @ low_nr if wanted[3] else None
    return dx_ni, (dweight_oi, dbias_o, da_ri, db_or)


def _norm_backward(
    dy_nh: Tensor, x_nh: Tensor, mean_n: Tensor, rstd_n: Tensor, scale_h: Tensor, shift_h: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    found = torch.ops.aten.native_layer_norm_backward(  # type: ignore[no-any-return]
        dy_nh, x_nh.float(), [x_nh.shape[1]], mean_n, rstd_n, scale_h, shift_h, wanted
    )
    return found[0], found[1] if wanted[1] else None, found[2] if wanted[2] else None


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x_bth: Tensor, mask_b11t: Tensor | None, heads: int, epsilon: float, *weights: Tensor | None
    ) -> Tensor:
        scale1, shift1, scale2, shift2 = weights[:4]
        joined, out, up, down = (weights[start : start + 4] for start in (4, 8, 12, 16))
        assert scale1 is not None and scale2 is not None and joined[0] is not None
        dtype = joined[0].dtype
        b, t, h = x_bth.shape
        x_nh = x_bth.reshape(b * t, h)
        xs_nh = x_nh.to(dtype)
        qkv_no, qkv_low = _linear(xs_nh, joined)
        qkv_3bhtd = qkv_no.view(b, t, 3, heads, h // heads).permute(2, 0, 3, 1, 4).contiguous()
        q, k, v = qkv_3bhtd
        scores_bhtt = torch.matmul(q, k.transpose(2, 3)).mul_((h // heads) ** -0.5)
        if mask_b11t is not None:
            scores_bhtt.add_(mask_b11t.to(dtype))
        p_bhtt = torch.softmax(scores_bhtt, -1)
        mixed_nh = torch.matmul(p_bhtt, v).transpose(1, 2).reshape(b * t, h)
        out_nh, out_low = _linear(mixed_nh, out)
        r1_nh = out_nh.float() + x_nh
        y_nh, mean1, rstd1 = torch.native_layer_norm(r1_nh, [h], scale1, shift1, epsilon)
        ys_nh = y_nh.to(dtype)
        u_no, up_low = _linear(ys_nh, up)
        g_no = functional.gelu(u_no)
        down_nh, down_low = _linear(g_no, down)
        r2_nh = down_nh.float() + y_nh
        z_nh, mean2, rstd2 = torch.native_layer_norm(r2_nh, [h], scale2, shift2, epsilon)
        ctx.save_for_backward(
            xs_nh, qkv_3bhtd, p_bhtt, mixed_nh, r1_nh.to(dtype), mean1, rstd1, ys_nh, u_no,
            r2_nh.to(dtype), mean2, rstd2, qkv_low, out_low, up_low, down_low, *weights,
        )  # fmt: skip
        ctx.shape = (b, t, h, heads)
        return z_nh.view(b, t, h)

    @staticmethod
    def backward(ctx: Any, dz_bth: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        xs, qkv, p, mixed, r1, mean1, rstd1, ys, u, r2, mean2, rstd2, *rest = ctx.saved_tensors
        qkv_low, out_low, up_low, down_low, scale1, shift1, scale2, shift2, *weights = rest
        joined, out, up, down = (tuple(weights[start : start + 4]) for start in (0, 4, 8, 12))
        b, t, h, heads = ctx.shape
        wants_x, wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[4:]
        dtype = xs.dtype
        dr2, dscale2, dshift2 = _norm_backward(
            dz_bth.reshape(b * t, h), r2, mean2, rstd2, scale2, shift2, [True, wanted[2], wanted[3]]
        )
        dg, ddown = _linear_backward(dr2.to(dtype), functional.gelu(u), down_low, down, wanted[16:20], True)
        assert dg is not None
        du = torch.ops.aten.gelu_backward(dg, u)
        dys, dup = _linear_backward(du, ys, up_low, up, wanted[12:16], True)
        assert dys is not None
        dr1, dscale1, dshift1 = _norm_backward(
            dr2.add_(dys), r1, mean1, rstd1, scale1, shift1, [True, wanted[0], wanted[1]]
        )
        dmixed, dout = _linear_backward(dr1.to(dtype), mixed, out_low, out, wanted[8:12], True)
        assert dmixed is not None
        dmixed_bhtd = dmixed.view(b, t, heads, h // heads).transpose(1, 2)
        q, k, v = qkv
        dqkv = torch.empty_like(qkv)
        torch.matmul(p.transpose(2, 3), dmixed_bhtd, out=dqkv[2])
        dp = torch.matmul(dmixed_bhtd, v.transpose(2, 3))
        ds = torch.ops.aten._softmax_backward_data(dp, p, -1, dtype).mul_((h // heads) ** -0.5)
        torch.matmul(ds, k, out=dqkv[0])
        torch.matmul(ds.transpose(2, 3), q, out=dqkv[1])
        dqkv_no = dqkv.permute(1, 3, 0, 2, 4).reshape(b * t, 3 * h)
        dxs, djoined = _linear_backward(dqkv_no, xs, qkv_low, joined, wanted[4:8], wants_x)
        dx = dr1.add_(dxs).view(b, t, h) if dxs is not None else None
        norms = (dscale1, dshift1, dscale2, dshift2)
        return (dx, None, None, None, *norms, *djoined, *dout, *dup, *ddown)
