"""Intervals equal those of scipy and statsmodels where these have them, and have no spread where the data has none."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from paretune.stats.intervals import crossed_components, crossed_interval, examples_interval, t_interval, wilson


@pytest.mark.parametrize("count", [2, 3, 5, 40])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_t_interval_equals_statsmodels_and_scipy(count: int, level: float) -> None:
    """The t interval is `tconfint_mean` and `ttest_1samp().confidence_interval`."""
    values = np.random.default_rng(count).normal(0.8, 0.05, count)
    ours = t_interval(values, level)
    assert (ours.low, ours.high) == pytest.approx(DescrStatsW(values).tconfint_mean(alpha=1 - level))
    assert (ours.low, ours.high) == pytest.approx(tuple(scipy.stats.ttest_1samp(values, 0).confidence_interval(level)))
    assert ours.estimate == pytest.approx(values.mean())
    assert ours.df == count - 1


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (10, 10), (3, 10), (1, 1), (998, 1000)])
def test_wilson_equals_statsmodels(successes: int, total: int) -> None:
    """The proportion's interval is statsmodels' Wilson interval, at the ends too."""
    ours = wilson(successes, total)
    assert (ours.low, ours.high) == pytest.approx(proportion_confint(successes, total, method="wilson"), abs=1e-12)
    assert ours.estimate == successes / total


def test_crossed_mean_squares_equal_statsmodels_anova() -> None:
    """Variance components, variance and degrees of freedom follow from statsmodels' two-way ANOVA table."""
    rng = np.random.default_rng(3)
    matrix_se = rng.normal(size=(4, 1)) + rng.normal(size=(1, 6)) + rng.normal(size=(4, 6))
    seed, example = np.meshgrid(range(4), range(6), indexing="ij")
    rows = pd.DataFrame({"y": matrix_se.ravel(), "seed": seed.ravel(), "example": example.ravel()})
    table = anova_lm(ols("y ~ C(seed) + C(example)", rows).fit())
    ms_seed, ms_example, ms_residual = table["sum_sq"] / table["df"]
    assert ms_seed + ms_example - ms_residual > max(ms_seed, ms_example)  # the floor is not in play here
    ours = crossed_components(matrix_se)
    combined = ms_seed + ms_example - ms_residual
    assert ours.estimate == pytest.approx(matrix_se.mean())
    assert ours.variance == pytest.approx(combined / 24)
    assert ours.df == pytest.approx(combined**2 / (ms_seed**2 / 3 + ms_example**2 / 5 + ms_residual**2 / 15))
    assert ours.seed_variance == pytest.approx((ms_seed - ms_residual) / 6)
    assert ours.example_variance == pytest.approx((ms_example - ms_residual) / 4)
    assert ours.residual_variance == pytest.approx(ms_residual)


def test_crossed_variance_is_never_below_one_of_its_parts() -> None:
    """Where the mean squares would subtract below seeds or examples alone, the larger of these stands."""
    matrix_se = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]]) + np.array([0.0, 0.1, 0.2, 0.3])
    ours = crossed_components(matrix_se)
    assert ours.variance == pytest.approx(2 * matrix_se.mean(axis=0).var(ddof=1) / 8)
    assert ours.df >= 1


def test_crossed_interval_of_repeated_rows_is_the_examples_interval() -> None:
    """Two methods that give the same in every seed leave only the examples' doubt, however many seeds there are."""
    row = np.random.default_rng(0).normal(0.1, 1, 50)
    crossed, single = crossed_interval(np.stack([row] * 5)), examples_interval(row)
    assert (crossed.low, crossed.high) == pytest.approx((single.low, single.high))
    assert crossed.df == pytest.approx(49)


def test_crossed_interval_of_equal_columns_is_the_seeds_interval() -> None:
    """A difference that is the same on each example leaves only the seeds' doubt."""
    by_seed = np.array([0.1, 0.3, 0.2])
    crossed, seeds = crossed_interval(np.repeat(by_seed[:, None], 40, axis=1)), t_interval(by_seed)
    assert (crossed.low, crossed.high) == pytest.approx((seeds.low, seeds.high))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_no_spread_gives_no_width(value: float) -> None:
    """Equal values, such as identical predictions, give an interval of width zero, with no NaN and no warning."""
    for interval in (t_interval([value] * 7), crossed_interval(np.full((3, 11), value))):
        assert interval.low == interval.high == interval.estimate == pytest.approx(value)
        assert math.isfinite(interval.df)


def test_impossible_input_is_refused() -> None:
    """Too few seeds, NaN and impossible counts are ValueErrors that say what is needed."""
    with pytest.raises(ValueError, match="at least 2 values"):
        t_interval([0.9])
    with pytest.raises(ValueError, match="NaN"):
        t_interval([0.9, float("nan")])
    with pytest.raises(ValueError, match="use examples_interval"):
        crossed_interval(np.zeros((1, 10)))
    with pytest.raises(ValueError, match="at least 2 seeds × 2 examples"):
        crossed_interval(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="level 95"):
        t_interval([0.9, 0.8], level=95)
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)
