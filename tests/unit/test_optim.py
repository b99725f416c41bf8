"""The schedule and the optimizer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretune.train.optim import adamw, schedule_factor, set_learning_rate


def test_the_schedule_by_hand() -> None:
    """Ten steps with a warm-up of two: up to 1, then straight down."""
    found = [schedule_factor(step, 10, 0.2) for step in range(1, 11)]
    assert found == pytest.approx([0.5, 1.0, *(left / 9 for left in (8, 7, 6, 5, 4, 3, 2, 1))])


@given(st.integers(1, 400), st.floats(0, 0.99))
def test_the_schedule_rises_then_falls_and_never_stops_early(steps: int, share: float) -> None:
    """Always above 0 and at most 1, at its peak once or twice, rising before and falling after."""
    found = [schedule_factor(step, steps, share) for step in range(1, steps + 1)]
    assert all(0 < factor <= 1 for factor in found)
    peak = found.index(max(found))
    assert max(found) == 1
    assert found[: peak + 1] == sorted(found[: peak + 1]) and found[peak:] == sorted(found[peak:], reverse=True)


def test_each_group_keeps_its_own_peak() -> None:
    """A factor scales every group's own rate, however often it is set."""
    first, second = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optimizer = adamw([{"params": [first], "lr": 1e-3, "weight_decay": 0.1}, {"params": [second], "lr": 1e-2}])
    for factor in (0.5, 0.25, 1.0):
        set_learning_rate(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3 * factor, 1e-2 * factor])


def test_one_step_of_adamw_by_hand() -> None:
    """Loshchilov & Hutter 2019, algorithm 2, first step: θ − lr·(g/(|g|+ε) + λθ)."""
    theta = torch.nn.Parameter(torch.tensor([[2.0, -1.0]]))
    optimizer = adamw([{"params": [theta], "lr": 0.1, "weight_decay": 0.5}])
    theta.grad = torch.tensor([[3.0, -4.0]])
    optimizer.step()
    wanted = torch.tensor([[2.0 * (1 - 0.1 * 0.5) - 0.1, -1.0 * (1 - 0.1 * 0.5) + 0.1]])
    torch.testing.assert_close(theta.detach(), wanted, atol=1e-6, rtol=0)
