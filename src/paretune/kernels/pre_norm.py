"""One block of a Llama-type decoder (RMS norm before each part), forward and backward by hand.

Rotary positions, grouped queries, SwiGLU; each position sees itself and what is before it, so that padding on the right
needs no mask of its own. Kept as in `post_norm.py`: products, activation and attention in the format of the weights,
residuals, norms, rotation and softmax in fp32. Not here: where weights come from (`train/fast_blocks.py`), dropout.
Sources: Touvron et al. 2023 (https://arxiv.org/abs/2302.13971), Zhang & Sennrich 2019
(https://arxiv.org/abs/1910.07467), Su et al. 2021 (https://arxiv.org/abs/2104.09864), Ainslie et al. 2023
(https://arxiv.org/abs/2305.13245). Axes: b texts, w positions of each, n rows (tokens, and some to spare), h hidden,
f inner features, s heads of queries and keys, k heads of keys and values, d features of a head.

    x_nh, kept = forward(x_nh, around, block)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from paretune.kernels.attention import attend, attend_backward
from paretune.kernels.linear import Linear
from paretune.kernels.post_norm import BlockGradients
from paretune.kernels.rows import Around


@dataclass(frozen=True)
class RmsNorm:
    """Scale of a root-mean-square norm, fp32, and whether it learns."""

    scale_h: Tensor
    epsilon: float
    scale_learns: bool = False


@dataclass(frozen=True)
class Block:
    """All of a block; `joined` gives queries, keys and values, `gate_up` the gate and what it lets through."""

    joined: Linear
    attention_out: Linear
    attention_norm: RmsNorm
    gate_up: Linear
    down: Linear
    norm: RmsNorm
    query_heads: int
    key_heads: int
    dtype: torch.dtype

    @property
    def linears(self) -> tuple[Linear, Linear, Linear, Linear]:
        """The linear maps in the order of the pass."""
        return self.joined, self.attention_out, self.gate_up, self.down


def forward(x_nh: Tensor, around: Around, block: Block) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The block's output (n, h) in fp32, and what the way back wants to have kept."""
    rows = around.rows
    y_nh, rstd1 = _normed(x_nh, block.attention_norm)
    ys_nh = y_nh.to(block.dtype)
    qkv_no, qkv_kept = block.joined.forward(ys_nh)
    heads = block.query_heads + 2 * block.key_heads
    qkv_bswd = rows.by_text(qkv_no).view(rows.texts, rows.width, heads, -1).transpose(1, 2)
    qk_bswd, v_bkwd = qkv_bswd.split([heads - block.key_heads, block.key_heads], 1)
    qk_bswd, v_bkwd = _turned(qk_bswd, around, 1).to(block.dtype), v_bkwd.contiguous()
    p, mixed = attend(*_parts(qk_bswd, block), v_bkwd, around.unseen)
    mixed_nh = rows.from_texts(mixed.view(rows.texts, block.query_heads, rows.width, -1).transpose(1, 2))
    out_nh, out_kept = block.attention_out.forward(mixed_nh)
    x1_nh = x_nh + out_nh
    z_nh, rstd2 = _normed(x1_nh, block.norm)
    zs_nh = z_nh.to(block.dtype)
    gate_up_no, gate_up_kept = block.gate_up.forward(zs_nh)
    gate_nf, up_nf = gate_up_no.chunk(2, 1)
    down_nh, down_kept = block.down.forward(functional.silu(gate_nf).mul_(up_nf))
    kept = (
        x_nh.to(block.dtype), rstd1, ys_nh, qk_bswd, v_bkwd, p, mixed_nh, x1_nh.to(block.dtype), rstd2, zs_nh,
        gate_up_no, *qkv_kept, *out_kept, *gate_up_kept, *down_kept,
    )  # fmt: skip
    return x1_nh + down_nh, kept


def backward(
    dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, block: Block, wants_input: bool
) -> tuple[Tensor | None, BlockGradients]:
    """Gradients of the input, where it is wanted, and of the parts."""
    x, rstd1, ys, qk, v, p, mixed, x1, rstd2, zs, gate_up_no, *rest = kept
    qkv_kept, out_kept, gate_up_kept, down_kept = ((rest[at], rest[at + 1]) for at in range(0, 8, 2))
    gate, up = gate_up_no.chunk(2, 1)
    let_through = functional.silu(gate)
    dinner, down = block.down.backward(dx_nh.to(block.dtype), let_through * up, down_kept, True)
    assert dinner is not None
    dgate_up = torch.cat([torch.ops.aten.silu_backward(dinner * up, gate), let_through.mul_(dinner)], 1)
    dzs, gate_up = block.gate_up.backward(dgate_up, zs, gate_up_kept, True)
    assert dzs is not None
    dx1, dscale2 = _norm_backward(dzs, x1, rstd2, block.norm)
    dx1 = dx1.add_(dx_nh)
    dmixed, out = block.attention_out.backward(dx1.to(block.dtype), mixed, out_kept, True)
    assert dmixed is not None
    dqkv = _attention_backward(dmixed, qk, v, p, around, block)
    through = wants_input or block.attention_norm.scale_learns
    dys, joined = block.joined.backward(dqkv, ys, qkv_kept, through)
    dx: Tensor | None = None
    dscale1: Tensor | None = None
    if dys is not None:
        dx, dscale1 = _norm_backward(dys, x, rstd1, block.attention_norm)
        dx = dx.add_(dx1)
    return dx if wants_input else None, BlockGradients((joined, out, gate_up, down), ((dscale1,), (dscale2,)))


def _parts(qk_bswd: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Queries, all heads of one key head one after another, and keys."""
    b, _, _, d = qk_bswd.shape
    q, k = qk_bswd.split([block.query_heads, block.key_heads], 1)
    return q.view(b, block.key_heads, -1, d), k


def _attention_backward(
    dmixed_nh: Tensor, qk_bswd: Tensor, v_bkwd: Tensor, p: Tensor, around: Around, block: Block
) -> Tensor:
    """Gradient of queries, keys and values before they are turned, one after another."""
    rows, (b, _, w, d) = around.rows, qk_bswd.shape
    dmixed = rows.by_text(dmixed_nh).view(b, w, block.query_heads, d).transpose(1, 2)
    dqk, dv = torch.empty_like(qk_bswd), torch.empty_like(v_bkwd)
    dmixed = dmixed.reshape(b, block.key_heads, -1, d)
    attend_backward(dmixed, *_parts(qk_bswd, block), v_bkwd, p, *_parts(dqk, block), dv)
    dqk = _turned(dqk, around, -1).to(p.dtype)
    return rows.from_texts(torch.cat([dqk, dv], 1).transpose(1, 2))


def _turned(x_bswd: Tensor, around: Around, sign: int) -> Tensor:
    """Each head's features turned by the angles of its position, in fp32; with sign −1 back again."""
    assert around.cos_wd is not None and around.sin_wd is not None
    first, second = x_bswd.float().chunk(2, -1)
    cos_wd, sin_wd = around.cos_wd, sign * around.sin_wd
    return torch.cat([first * cos_wd - second * sin_wd, second * cos_wd + first * sin_wd], -1)


def _normed(x_nh: Tensor, norm: RmsNorm) -> tuple[Tensor, Tensor]:
    """Output, and the reciprocal root mean square of each row, (n, 1)."""
    mean_square_n1 = torch.linalg.vector_norm(x_nh, dim=1, keepdim=True).square_().div_(x_nh.shape[1])
    rstd_n1 = torch.rsqrt(mean_square_n1 + norm.epsilon)
    return (x_nh * rstd_n1).mul_(norm.scale_h), rstd_n1


def _norm_backward(dy_nh: Tensor, x_nh: Tensor, rstd_n1: Tensor, norm: RmsNorm) -> tuple[Tensor, Tensor | None]:
    dy_nh, unit_nh = dy_nh.float(), x_nh.float() * rstd_n1
    dscale_h = (dy_nh * unit_nh).sum(0) if norm.scale_learns else None
    dunit_nh = dy_nh * norm.scale_h
    along_n1 = torch.linalg.vecdot(dunit_nh, unit_nh, dim=1).div_(x_nh.shape[1]).unsqueeze(1)
    return dunit_nh.sub_(unit_nh.mul_(along_n1)).mul_(rstd_n1), dscale_h
