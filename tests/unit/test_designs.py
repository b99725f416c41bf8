"""Fractions of a grid say as much as they can, and the effects fitted to them are the ones that were put in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paretune.stats.designs import coded, efficiency, fraction, grid
from paretune.stats.effects import fit_effects

FACTORS = {"rank": [1, 4, 16], "targets": ["qv", "all"], "dropout": [0.0, 0.1]}
LORA = {
    "rank": [1, 2, 4, 8, 16, 64],
    "alpha": ["16", "r", "2r", "rslora"],
    "targets": ["qv", "attention", "mlp", "all"],
    "layers": ["all", "upper half", "last two"],
    "dropout": [0.0, 0.1],
}


def test_two_levels_give_the_known_half_fraction() -> None:
    """Four of the eight corners of a cube are as good a run as all eight: the two halves with an even or odd sum."""
    cube = {name: [0, 1] for name in "abc"}
    found = fraction(cube, 4, seed=0)
    assert len({sum(one.values()) % 2 for one in found}) == 1
    assert efficiency(found, cube) == pytest.approx(1.0)


def test_a_fraction_is_repeatable_and_nearly_as_good_a_run() -> None:
    """24 of 576 settings of LoRA: the same each time, no two alike, over 0.9 of the whole grid's efficiency."""
    found = fraction(LORA, 24, seed=0)
    assert found == fraction(LORA, 24, seed=0)
    assert len({tuple(one.values()) for one in found}) == 24
    assert efficiency(found, LORA) > 0.9
    drawn = [grid(LORA)[place] for place in np.random.default_rng(0).permutation(576)[:24]]
    assert efficiency(found, LORA) > efficiency(drawn, LORA)


def test_wanted_settings_are_kept() -> None:
    """A setting that must be run, such as the usual default, is among them."""
    usual = {"rank": 8, "alpha": "2r", "targets": "all", "layers": "all", "dropout": 0.0}
    assert usual in fraction(LORA, 20, seed=1, wanted=[usual])


def test_interactions_take_columns_of_their_own() -> None:
    """A pair of factors has the product of their columns."""
    x, owners = coded(grid(FACTORS), FACTORS, [("rank", "targets")])
    assert x.shape == (12, 1 + 2 + 1 + 1 + 2)
    assert owners.count(("rank", "targets")) == 2
    np.testing.assert_allclose(x.T @ x - np.diag(np.diag(x.T @ x)), 0, atol=12)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fraction(FACTORS, 3, 0), "5 "),
        (lambda: fraction(FACTORS, 13, 0), "to 12"),
        (lambda: fraction(FACTORS, 6, 0, wanted=[{"rank": 3, "targets": "qv", "dropout": 0.0}]), "one of the grid"),
        (lambda: coded([{"rank": 3, "targets": "qv", "dropout": 0.0}], FACTORS), "its levels are"),
        (lambda: fit_effects(grid(FACTORS)[:5], FACTORS, np.zeros((5, 9))), "columns apart"),
        (lambda: fit_effects(grid(FACTORS), FACTORS, np.zeros((3, 9))), "12 rows"),
    ],
)
def test_what_cannot_be_is_said(call, said: str) -> None:
    """One line with what was given and what is possible."""
    with pytest.raises(ValueError, match=said):
        call()


def _values(rng: np.random.Generator, truth_r: np.ndarray, run: float, example: float, cell: float, examples: int):
    runs = len(truth_r)
    rows = truth_r[:, None] + rng.normal(0, run, (runs, 1)) + rng.normal(0, example, (1, examples))
    return rows + rng.normal(0, cell, (runs, examples))


def test_effects_are_found_and_sum_to_zero() -> None:
    """Without noise each level's effect is exact, interactions too; what was not put in is zero."""
    settings = grid(FACTORS)
    rank = {1: -0.1, 4: 0.02, 16: 0.08}
    pair = {(1, "qv"): 0.03, (1, "all"): -0.03}
    truth = np.array([0.5 + rank[s["rank"]] + pair.get((s["rank"], s["targets"]), 0.0) for s in settings])
    # (1, …) alone would shift nothing on average: the pair's effects over other ranks are zero and its own sum to zero
    found = fit_effects(settings, FACTORS, np.repeat(truth[:, None], 4, axis=1), [("rank", "targets")])
    assert {one.level[0]: round(one.interval.estimate, 9) for one in found.of("rank")} == rank
    assert all(abs(one.interval.estimate) < 1e-9 for one in found.of("dropout"))
    by_level = {one.level: one.interval.estimate for one in found.of("rank", "targets")}
    assert by_level[1, "qv"] == pytest.approx(0.02)  # 0.03 less a third of it, which goes to "targets"
    assert sum(by_level.values()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("run", "example"), [(0.02, 0.0), (0.02, 0.02), (0.004, 0.4)])
def test_intervals_of_effects_cover(run: float, example: float) -> None:
    """Noise of runs, of examples (each example its own dependence on the factor too) or of both: 93 to 98 %."""
    settings = fraction(FACTORS, 9, seed=0) * 2
    rng = np.random.default_rng(7)
    inside: list[bool] = []
    for _ in range(400):
        slope = rng.normal(0, example, 60)  # what the factor does differs from example to example; its mean is 0
        codes = np.array([1.0 if one["dropout"] else -1.0 for one in settings])
        values = _values(rng, np.zeros(len(settings)), run, example, 0.05, 60) + codes[:, None] * slope
        for one in fit_effects(settings, FACTORS, values).of("dropout"):
            inside.append(one.interval.low <= 0 <= one.interval.high)
    assert 0.93 <= np.mean(inside) <= 0.985


def test_one_factor_is_the_t_interval_of_a_difference() -> None:
    """Two levels, many runs, no doubt of examples: half the difference with Student's pooled interval."""
    rng = np.random.default_rng(0)
    factor = {"a": [0, 1]}
    settings = [{"a": 0}] * 6 + [{"a": 1}] * 6
    means = rng.normal(0, 1, 12)
    found = fit_effects(settings, factor, np.repeat(means[:, None], 3, axis=1)).of("a")[0].interval
    pooled = math.sqrt((means[:6].var(ddof=1) + means[6:].var(ddof=1)) / 2)
    half = 2.228 * pooled * math.sqrt(2 / 6) / 2
    assert found.estimate == pytest.approx((means[:6].mean() - means[6:].mean()) / 2)
    assert found.high - found.estimate == pytest.approx(half, rel=1e-3)
    assert found.df == pytest.approx(10)
