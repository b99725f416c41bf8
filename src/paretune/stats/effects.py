"""What each factor of a designed study does to quality, with intervals over runs and test examples together.

Not here: which settings to run (`designs.py`), words and figures (`report/`). A linear model of factors is fitted to
all runs by least squares. The doubt has a part of the runs (training noise, and what the model leaves out) and a part
of the examples, put together as in `intervals.py:crossed_components`. Axes: r runs, e examples, p columns of the model.

    fit_effects(settings, factors, values_re).of("rank")[0].interval.estimate
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.stats.designs import Level, coded, deviations
from paretune.stats.intervals import Interval, interval_of


@dataclass(frozen=True)
class LevelEffect:
    """How far one level lies from the mean over the levels of its factor (or pair of factors), other factors equal."""

    effect: tuple[str, ...]
    level: tuple[Level, ...]
    interval: Interval


@dataclass(frozen=True)
class Fit:
    """`effects` of all levels; `residual_deviation` of a run around the model, `df` its degrees of freedom."""

    effects: list[LevelEffect]
    residual_deviation: float
    df: int

    def of(self, *effect: str) -> list[LevelEffect]:
        """The levels of one factor, or of one pair."""
        return [one for one in self.effects if one.effect == effect]


def fit_effects(
    settings: Sequence[Mapping[str, Level]],
    factors: Mapping[str, Sequence[Level]],
    values_re: np.ndarray,
    interactions: Iterable[tuple[str, str]] = (),
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Fit:
    """Fit the model: `settings` and rows of `values_re` are of the same runs; a setting may stand there several times.

    Intervals are cut at `bounds`, those of a difference.

    Raises:
        ValueError: runs that cannot tell the effects apart, or no run beyond what the effects need.
    """
    interactions = list(interactions)
    x_rp, owners = coded(settings, factors, interactions)
    runs, columns = x_rp.shape
    if values_re.ndim != 2 or len(values_re) != runs or not bool(np.isfinite(values_re).all()):
        raise ValueError(f"values of shape {values_re.shape} given; {runs} rows of finite numbers are needed")
    if np.linalg.matrix_rank(x_rp) < columns or runs <= columns:
        raise ValueError(f"{runs} runs of {len(settings)} settings given; they do not tell {columns} columns apart")
    weights_pr = np.linalg.pinv(x_rp)
    beta_pe = weights_pr @ values_re
    residual_re = values_re - x_rp @ beta_pe
    df_runs, examples = runs - columns, values_re.shape[1]
    own_r = residual_re.mean(axis=1)
    run_variance = (
        float((own_r**2).sum()) / df_runs
    )  # of a run's mean: training noise, lack of fit, a part of the cells
    inner_re = residual_re - own_r[:, None]
    cell_variance = float((inner_re**2).sum()) / (df_runs * (examples - 1))
    found: list[LevelEffect] = []
    for effect, levels, contrast_p in _contrasts(factors, owners, interactions):
        weight_r = contrast_p @ weights_pr
        spread = float(weight_r @ weight_r)
        by_example_e = contrast_p @ beta_pe
        parts = (
            run_variance * spread,
            float(by_example_e.var(ddof=1)) / examples,
            cell_variance * spread / examples,
        )
        variance, df = _together(parts, df_runs, examples)
        interval = interval_of(float(by_example_e.mean()), math.sqrt(variance), df, level).within(bounds)
        found.append(LevelEffect(effect, levels, interval))
    return Fit(found, math.sqrt(run_variance), df_runs)


def _together(parts: tuple[float, float, float], df_runs: int, examples: int) -> tuple[float, float]:
    """Runs + examples − cells, which both hold; at least the larger of the two. Satterthwaite's degrees of freedom."""
    runs, by_example, cells = parts
    variance = max(runs + by_example - cells, runs, by_example)
    weight = runs**2 / df_runs + by_example**2 / (examples - 1) + cells**2 / (df_runs * (examples - 1))
    return variance, variance**2 / weight if weight > 0 else float(df_runs)


def _contrasts(
    factors: Mapping[str, Sequence[Level]], owners: Sequence[tuple[str, ...]], interactions: Iterable[tuple[str, str]]
) -> Iterable[tuple[tuple[str, ...], tuple[Level, ...], np.ndarray]]:
    """Each level of each effect, and the weights of the model's columns that give it."""
    codes = {name: deviations(len(levels)) for name, levels in factors.items()}
    for name, levels in factors.items():
        for place, one in enumerate(levels):
            yield (name,), (one,), _spread(owners, (name,), codes[name][place])
    for first, second in interactions:
        for a, level_a in enumerate(factors[first]):
            for b, level_b in enumerate(factors[second]):
                pair = np.outer(codes[first][a], codes[second][b]).ravel()
                yield (first, second), (level_a, level_b), _spread(owners, (first, second), pair)


def _spread(owners: Sequence[tuple[str, ...]], effect: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    found = np.zeros(len(owners))
    found[[place for place, owner in enumerate(owners) if owner == effect]] = weights
    return found
