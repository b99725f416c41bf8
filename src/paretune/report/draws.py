"""Resampled studies for budgets: computed once here, counted for every budget, in the dashboard by the browser.

Not here: resampling itself (`stats/pareto.py`) and its meaning (`stats/budget.py:p_best`, whose shares these are).
The browser needs no more of the quality than its order within a draw. Axes: d draws, m methods.

    draws = draws_of(facts); chances(draws, 2e9, 600.0)["lora"]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paretune.core.config import JsonObject
from paretune.report.costs import Costs
from paretune.report.facts import PARETO_DRAWS, StudyFacts
from paretune.stats.budget import shares_of_best
from paretune.stats.pareto import resampled

MEGABYTE_TENTH = 1e5  # what is sent is rounded to 0.1 MB and to a millisecond
MILLISECOND = 1e-3


@dataclass(frozen=True)
class Draws:
    """`points_dmk`: quality, peak memory in bytes, training seconds; `left_out`: methods without comparable costs.

    The majority class stands in neither: it is no candidate for any budget.
    """

    methods: list[str]
    points_dmk: np.ndarray
    means_mk: np.ndarray
    left_out: list[str]


def draws_of(facts: StudyFacts) -> Draws | None:
    """The draws of a study; None where no method has quality, memory and time."""
    judged = Costs(facts)
    costs: dict[str, dict[int, tuple[float, float]]] = {}
    for method in facts.scored:
        if not method.learns:  # no candidate, however cheap
            continue
        memory, seconds = judged.by_seed(method, "memory"), judged.by_seed(method, "seconds")
        if memory is not None and seconds is not None and method.label in facts.example_values:
            costs[method.label] = {seed: (memory[seed], seconds[seed]) for seed in method.runs}
    left_out = [method.label for method in facts.methods if method.learns and method.label not in costs]
    quality = {label: values for label, values in facts.example_values.items() if label in costs}
    if not quality:
        return None
    points_dmk = resampled(quality, {label: costs[label] for label in quality}, PARETO_DRAWS, np.random.default_rng(0))
    means = [
        [
            float(np.mean([values.mean() for values in quality[label].values()])),
            *(float(one) for one in np.mean(list(costs[label].values()), axis=0)),
        ]
        for label in quality
    ]
    return Draws(list(quality), points_dmk, np.asarray(means), left_out)


def chances(draws: Draws, memory_bytes: float, seconds: float) -> dict[str, float]:
    """Share of draws in which each method is the best of those that fit, as `p_best` counts them."""
    shares = shares_of_best(draws.points_dmk, (memory_bytes, seconds))
    return dict(zip(draws.methods, shares.tolist(), strict=True))


def for_browser(draws: Draws) -> JsonObject:
    """One list a method of: place of its quality in the draw (0 is worst, equal is equal), memory, time."""
    order_dm = np.stack([np.unique(row, return_inverse=True)[1].ravel() for row in draws.points_dmk[:, :, 0]])
    return {
        "methods": draws.methods,
        "places": [[int(place) for place in column] for column in order_dm.T],
        "memory": _whole(draws.points_dmk[:, :, 1] / MEGABYTE_TENTH),
        "seconds": _whole(draws.points_dmk[:, :, 2] / MILLISECOND),
    }


def _whole(values_dm: np.ndarray) -> list[list[int]]:
    return [[int(value) for value in np.ceil(column)] for column in values_dm.T]
