"""Losses of tokens in parts against plain cross-entropy over all logits: values, gradients, memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from paretune.kernels.token_loss import token_losses

ROWS, HIDDEN, PIECES = 23, 8, 40


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden_nh = torch.randn((ROWS, HIDDEN), generator=random)
    weight_vh = torch.randn((PIECES, HIDDEN), generator=random)
    return hidden_nh, weight_vh, torch.randint(PIECES, (ROWS,), generator=random)


@pytest.mark.parametrize("cells", [PIECES, 5 * PIECES, 10**6])
@pytest.mark.parametrize("learns", ["hidden", "weight", "both"])
def test_values_and_gradients_are_those_of_cross_entropy(cells: int, learns: str) -> None:
    """One position at a time, some, or all; with another upstream gradient for each position."""
    grads: list[list[torch.Tensor | None]] = []
    values: list[torch.Tensor] = []
    upstream_n = torch.linspace(-1, 2, ROWS)
    for ours in (True, False):
        hidden_nh, weight_vh, targets_n = drawn()
        hidden_nh.requires_grad_(learns != "weight")
        weight_vh.requires_grad_(learns != "hidden")
        if ours:
            losses_n = token_losses(hidden_nh, weight_vh, targets_n, cells)
        else:
            losses_n = cross_entropy(hidden_nh @ weight_vh.T, targets_n, reduction="none")
        (losses_n * upstream_n).sum().backward()
        values.append(losses_n.detach())
        grads.append([hidden_nh.grad, weight_vh.grad])
    torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=1e-5)
    for own, wanted in zip(*grads, strict=True):
        assert (own is None) == (wanted is None)
        if own is not None:
            torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-5)


def test_the_derivative_is_that_of_small_differences() -> None:
    """In double precision, of hidden states and weights."""
    hidden_nh, weight_vh, targets_n = drawn(1)
    hidden, weight = hidden_nh[:4].double().requires_grad_(), weight_vh.double().requires_grad_()

    def losses(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return token_losses(hidden, weight, targets_n[:4], 2 * PIECES)

    # sums are in fp32 throughout: steps and tolerance are as wide as that needs
    assert torch.autograd.gradcheck(losses, (hidden, weight), eps=1e-2, atol=2e-3, rtol=2e-3, nondet_tol=1e-6)


def test_half_precision_is_near_and_keeps_its_dtypes() -> None:
    """bf16 hidden states with fp32 weights: losses in fp32, each gradient in the dtype of its own tensor."""
    hidden_nh, weight_vh, targets_n = drawn()
    half_nh = hidden_nh.bfloat16().requires_grad_()
    weight_vh.requires_grad_()
    losses_n = token_losses(half_nh, weight_vh, targets_n, 7 * PIECES)
    losses_n.sum().backward()
    assert losses_n.dtype == torch.float32
    assert half_nh.grad is not None and half_nh.grad.dtype == torch.bfloat16
    assert weight_vh.grad is not None and weight_vh.grad.dtype == torch.float32
    wanted_n = cross_entropy(hidden_nh @ weight_vh.detach().T, targets_n, reduction="none")
    torch.testing.assert_close(losses_n.detach(), wanted_n, atol=0.1, rtol=0.02)


def test_extreme_logits_and_no_position_at_all() -> None:
    """Finite where a naive softmax overflows; an empty loss where nothing is predicted."""
    hidden_nh, weight_vh, targets_n = drawn()
    assert torch.isfinite(token_losses(hidden_nh * 1e4, weight_vh, targets_n)).all()
    none_n = token_losses(hidden_nh[:0].requires_grad_(), weight_vh, targets_n[:0])
    assert none_n.shape == (0,)
    none_n.sum().backward()


@pytest.mark.parametrize("learns", [False, True])
def test_the_logits_are_never_held_whole(learns: bool) -> None:
    """No tensor that a step makes has more numbers than a part's logits or the weights have."""
    rows, pieces, cells = 512, 1000, 20_000
    hidden_nh = torch.randn((rows, HIDDEN), requires_grad=True)
    weight_vh = torch.randn((pieces, HIDDEN), requires_grad=learns)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            found = function(*arguments, **(named or {}))
            if isinstance(found, torch.Tensor):
                largest = max(largest, found.numel())
            return found

    with Watch():
        token_losses(hidden_nh, weight_vh, torch.zeros(rows, dtype=torch.long), cells).sum().backward()
    assert 0 < largest <= max(cells, pieces * HIDDEN)
