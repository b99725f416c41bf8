"""A linear map with a low-rank update: its gradients against automatic differentiation, and what dropout draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from paretune.kernels.linear import Learns, Linear, keeps
from paretune.kernels.low_rank import LowRank

ALL = Learns(weight=True, bias=True, update=True)


def _tensors(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Input, weight, bias, A, B and the gradient of the output: n = 7, i = 6, o = 5, r = 3."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 6), (5, 6), (5,), (3, 6), (5, 3), (7, 5))
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dropped", [0.0, 0.4])
def test_gradients_are_those_of_automatic_differentiation(dropped: float) -> None:
    """With the very mask that was drawn."""
    x, weight, bias, a, b, dy = _tensors()
    linear = Linear(weight, bias, LowRank(a, b), ALL, dropped)
    y, kept = linear.forward(x)
    dx, found = linear.backward(dy, x, kept, wants_input=True)
    leaves = [one.clone().requires_grad_() for one in (x, weight, bias, a, b)]
    thinned = leaves[0] if kept[1] is None else leaves[0] * kept[1] / (1 - dropped)
    plain = functional.linear(leaves[0], leaves[1], leaves[2]) + thinned @ leaves[3].T @ leaves[4].T
    plain.backward(dy)
    assert (kept[1] is not None) == bool(dropped)
    torch.testing.assert_close(y, plain.detach())
    ours = (dx, found.weight_oi, found.bias_o, found.a_ri, found.b_or)
    for given, leaf in zip(ours, leaves, strict=True):
        torch.testing.assert_close(given, leaf.grad, atol=1e-5, rtol=1e-5)


def test_what_does_not_learn_gets_no_gradient() -> None:
    """And a frozen map multiplies by its packed weight as by the plain one, both ways."""
    x, weight, bias, a, b, dy = _tensors(torch.bfloat16)
    frozen, learning = (Linear(weight, bias, LowRank(a, b), one) for one in (Learns(), ALL))
    (y, kept), (wanted, _) = frozen.forward(x), learning.forward(x)
    torch.testing.assert_close(y, wanted)
    dx, found = frozen.backward(dy, x, kept, wants_input=True)
    torch.testing.assert_close(dx, learning.backward(dy, x, kept, wants_input=True)[0])
    assert (found.weight_oi, found.bias_o, found.a_ri, found.b_or) == (None, None, None, None)
    assert frozen.backward(dy, x, kept, wants_input=False)[0] is None


def test_dropout_drops_its_share_anew_each_time() -> None:
    """Of 200,000 inputs a share within five standard errors of 0.1; columns and rows alike; the seed decides."""
    torch.manual_seed(0)
    x = torch.zeros(500, 400)
    first, second = keeps(x, 0.1), keeps(x, 0.1)
    assert abs(float((~first).float().mean()) - 0.1) < 5 * (0.1 * 0.9 / x.numel()) ** 0.5
    assert float((~first).float().mean(0).std()) < 2 * (0.1 * 0.9 / 500) ** 0.5
    assert abs(float((~first & ~second).float().mean()) - 0.01) < 5 * (0.01 * 0.99 / x.numel()) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(keeps(x, 0.1), first)
