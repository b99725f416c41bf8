"""With so much memory and time: how likely each method is the best that fits; and the next experiment worth its cost.

Not here: words (`report/`), fronts (`pareto.py`).

    p_best({"lora": {0: right_e}, "full": {0: other_e}}, {"lora": {0: (1e9, 60.0)}, …}, (2e9, 600.0), rng=rng)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.stats.compare import Comparison
from paretune.stats.pareto import resampled


def p_best(
    quality: Mapping[str, Mapping[int, np.ndarray]],
    cost: Mapping[str, Mapping[int, float | Sequence[float]]],
    budget: Sequence[float],
    draws: int = 1000,
    *,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Share of resampled studies in which each method has the best quality of those whose mean costs fit the budget.

    `budget` has one limit for each cost, infinite where there is none. Methods as good as each other share a draw. The
    shares sum to 1, or to less where in some draws nothing fits. Resampling, and errors, as in `p_non_dominated`.

    Raises:
        ValueError: as there, or a budget of another length than the costs.
    """
    points_dmk = resampled(quality, cost, draws, rng)
    return dict(zip(quality, shares_of_best(points_dmk, budget).tolist(), strict=True))


def shares_of_best(points_dmk: np.ndarray, budget: Sequence[float]) -> np.ndarray:
    """The shares of `p_best` from draws that were made before: draws × methods × (quality, then costs).

    Raises:
        ValueError: a budget of another length than the costs.
    """
    limits = np.asarray(budget, dtype=float)
    if limits.shape != (points_dmk.shape[2] - 1,):
        raise ValueError(f"{limits.size} limits given; {points_dmk.shape[2] - 1} costs need as many")
    fits_dm = (points_dmk[:, :, 1:] <= limits).all(axis=-1)
    quality_dm = np.where(fits_dm, points_dmk[:, :, 0], -np.inf)
    best_dm = fits_dm & (quality_dm == quality_dm.max(axis=1, keepdims=True))
    return (best_dm / np.maximum(best_dm.sum(axis=1, keepdims=True), 1)).mean(axis=0)


@dataclass(frozen=True)
class Experiment:
    """Further seeds of a method and of the control that would decide their comparison, and what they would cost."""

    method: str
    seeds: int
    seconds: float
    watt_hours: float | None


def decisive_experiments(
    comparisons: Iterable[Comparison],
    control: str,
    seconds: Mapping[str, float],
    watts: Mapping[str, float] | None = None,
) -> list[Experiment]:
    """For each undecided comparison that further seeds would decide, the experiment that does; the cheapest first.

    `seconds` of one seed and mean `watts` meanwhile, by method. Each further seed is run for the method and for the
    control: pairs are compared. Without the watts of both the energy is None.
    """
    power = watts or {}
    found: list[Experiment] = []
    for one in comparisons:
        pair = (one.method, control)
        if one.more_seeds is None or not all(name in seconds for name in pair):
            continue
        joules = sum(seconds[name] * power[name] for name in pair) if all(name in power for name in pair) else None
        time = one.more_seeds * sum(seconds[name] for name in pair)
        energy = one.more_seeds * joules / 3600 if joules is not None else None
        found.append(Experiment(one.method, one.more_seeds, time, energy))
    return sorted(found, key=lambda one: (one.seconds, one.method))
