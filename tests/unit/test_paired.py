"""Exact tests, prediction intervals, variance shares and detectable differences agree with libraries and with draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from paretune.stats.intervals import Components, crossed_components
from paretune.stats.paired import (
    churn,
    detectable_difference,
    mcnemar,
    prediction_interval,
    sign_flip,
    variance_shares,
)


@pytest.mark.parametrize(("seeds", "smallest"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (10, 1 / 512)])
def test_the_smallest_p_of_a_sign_flip_test(seeds: int, smallest: float) -> None:
    """Differences of one sign give the smallest p there is; below 6 seeds that cannot decide."""
    found = sign_flip(np.linspace(0.01, 0.02, seeds))
    assert found.p == pytest.approx(smallest)
    assert found.smallest_p == pytest.approx(smallest)
    assert found.can_decide == (seeds >= 6)


def test_a_sign_flip_counts_all_patterns() -> None:
    """By hand: of the 8 patterns of 1, 2 and −4 all but ±1 with a sum of 3 reach the sum of −1."""
    sums = [abs(a + 2 * b + 4 * c) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    expected = sum(one >= abs(1 + 2 - 4) for one in sums) / 8
    assert sign_flip([1.0, 2.0, -4.0]).p == pytest.approx(expected)


def test_many_seeds_are_drawn_and_repeatable() -> None:
    """Beyond 16 seeds patterns are drawn by a fixed generator; two calls agree."""
    values = np.random.default_rng(0).normal(0.5, 1, 30)
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)


def test_mcnemar_is_the_binomial_test_of_the_disagreements() -> None:
    """Only examples on which the two disagree count."""
    first = [True] * 50 + [True] * 9 + [False] * 2 + [False] * 20
    second = [True] * 50 + [False] * 9 + [True] * 2 + [False] * 20
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (9, 2)
    assert found.p == pytest.approx(stats.binomtest(2, 11).pvalue)


@pytest.mark.parametrize(("seeds", "half"), [(3, 4.97), (5, 3.04), (10, 2.37)])
def test_half_width_of_a_prediction_interval(seeds: int, half: float) -> None:
    """In deviations, the published factors for one further run."""
    values = np.arange(seeds) / np.std(np.arange(seeds), ddof=1)
    found = prediction_interval(values)
    assert (found.high - found.low) / 2 == pytest.approx(half, abs=0.01)


@pytest.mark.parametrize("runs", [1, 3])
def test_a_prediction_interval_covers_further_runs(runs: int) -> None:
    """95 % of the means of further seeds lie in it."""
    drawn = np.random.default_rng(runs).normal(0.9, 0.02, (4000, 4 + runs))
    inside = [(one := prediction_interval(row[:4], runs)).low <= row[4:].mean() <= one.high for row in drawn]
    assert 0.94 <= np.mean(inside) <= 0.96


def test_variance_shares_sum_to_one_and_find_the_source() -> None:
    """Seeds that shift all examples, examples that shift all seeds, noise alone."""
    rng = np.random.default_rng(0)
    seeds, examples = rng.normal(0, 1, (6, 1)), rng.normal(0, 1, (1, 40))
    noise = rng.normal(0, 1, (6, 40))
    for matrix, name in ((seeds + 0.01 * noise, "seeds"), (examples + 0.01 * noise, "examples")):
        found = variance_shares(crossed_components(matrix))
        assert found.seeds + found.examples + found.rest == pytest.approx(1)
        assert getattr(found, name) > 0.95
    nothing = variance_shares(crossed_components(np.zeros((3, 5))))
    assert (nothing.seeds, nothing.examples, nothing.rest) == (0, 0, 0)


@pytest.mark.parametrize(("seeds", "deviations"), [(3, 3.3), (5, 1.7), (10, 1.0)])
def test_a_detectable_difference_in_deviations(seeds: int, deviations: float) -> None:
    """Where seeds alone make the doubt it is the published planning number of the paired t test."""
    parts = Components(0.0, 0.0, 0.0, 5, 1000, 1.0, 0.0, 0.0)
    assert detectable_difference(parts, seeds) == pytest.approx(deviations, rel=0.05)


def test_what_is_detectable_is_found_so_often() -> None:
    """Drawn with that difference, four of five studies are significant."""
    parts = Components(0.0, 0.0, 0.0, 5, 200, 0.01**2, 0.3**2, 0.0)
    difference = detectable_difference(parts, 5)
    rng = np.random.default_rng(0)
    drawn = difference + rng.normal(0, 0.01, (800, 5, 1)) + rng.normal(0, 0.3, (800, 1, 200))
    found = [crossed_components(one).interval() for one in drawn]
    assert np.mean([one.low > 0 or one.high < 0 for one in found]) == pytest.approx(0.8, abs=0.06)


def test_nothing_that_varies_detects_everything() -> None:
    """No spread at all: any difference is found."""
    assert detectable_difference(Components(0.0, 0.0, 0.0, 3, 10, 0.0, 0.0, 0.0), 3) == 0.0


def test_churn_is_the_mean_over_pairs() -> None:
    """Three seeds, pairs differ on 1, 2 and 1 of 4 examples."""
    assert churn([list("aabb"), list("aaba"), list("abba")]) == pytest.approx((1 + 2 + 1) / 12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sign_flip([0.1]),
        lambda: sign_flip([0.1, math.nan]),
        lambda: mcnemar([], []),
        lambda: mcnemar([True], [True, False]),
        lambda: prediction_interval([0.1, 0.2], 0),
        lambda: detectable_difference(Components(0.0, 0.0, 0.0, 3, 10, 0.0, 0.0, 0.0), 1),
        lambda: churn([["a"]]),
    ],
)
def test_too_little_is_an_error(call) -> None:
    """One line says what was given and what is needed."""
    with pytest.raises(ValueError, match="given; "):
        call()
