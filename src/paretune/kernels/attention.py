"""Softmax attention over short texts, forward and backward by hand, a few texts at a time.

A few: so many that their scores stay in the processor's cache; what a pass holds beside the shares that it keeps does
not grow with the batch. Scores and shares have the format of queries and keys, the softmax is in fp32. Not here: where
queries, keys and values come from. Source: Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762). Axes: b texts,
k heads of keys and values, g queries' heads for each of them, t positions, d features of a head.

    p, mixed = attend(q_bktd, k_bktd, v_bktd, unseen)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SCORES = 2**20  # at a time: 4 MB in fp32


def attend(q_bktd: Tensor, k_bktd: Tensor, v_bktd: Tensor, unseen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Shares (b, k, g·t, t) and what they mix, (b, k, g·t, d); a key's g heads of queries stand one after another.

    `unseen` is added to the scores (0 where a position may be seen, a very low number where not): (b, 1, 1, t) or
    (1, 1, t, t); None: all may be seen.
    """
    b, k, gt, d = q_bktd.shape
    t = k_bktd.shape[2]
    p, mixed = q_bktd.new_empty(b, k, gt, t), torch.empty_like(q_bktd)
    for few in _few(p):
        scores = torch.matmul(q_bktd[few], k_bktd[few].transpose(2, 3)).mul_(d**-0.5)
        if unseen is not None:
            by_head = scores.view(len(scores), -1, t, t)
            by_head.add_(unseen[few] if len(unseen) > 1 else unseen)
        p[few] = torch.softmax(scores, -1, dtype=torch.float32)
        torch.matmul(p[few], v_bktd[few], out=mixed[few])
    return p, mixed


def attend_backward(
    dmixed: Tensor, q_bktd: Tensor, k_bktd: Tensor, v_bktd: Tensor, p: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
) -> None:
    """Write the gradients of queries, keys and values into the last three."""
    scale = q_bktd.shape[-1] ** -0.5
    for few in _few(p):
        dp = torch.matmul(dmixed[few], v_bktd[few].transpose(2, 3))
        ds = torch.ops.aten._softmax_backward_data(dp, p[few], -1, p.dtype).mul_(scale)
        torch.matmul(p[few].transpose(2, 3), dmixed[few], out=dv[few])
        torch.matmul(ds, k_bktd[few], out=dq[few])
        torch.matmul(ds.transpose(2, 3), q_bktd[few], out=dk[few])


def _few(p: Tensor) -> Iterator[slice]:
    """Texts whose scores are computed at once."""
    count = max(1, SCORES // max(1, p[0].numel()))
    return (slice(start, start + count) for start in range(0, len(p), count))
