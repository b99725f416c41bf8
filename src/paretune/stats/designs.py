"""Which settings to try when all of them are too many: a D-optimal fraction of a grid of factors.

Not here: what the runs said (`effects.py`), nor a study file's form. The fraction makes the information matrix X'X of
the wanted effects as large as it can be made by exchanges (Fedorov 1972, Theory of Optimal Experiments; Cook &
Nachtsheim 1980, https://doi.org/10.1080/00401706.1980.10486162). Same factors, number of runs and seed: same fraction.

    fraction({"rank": [1, 8], "dropout": [0.0, 0.1]}, runs=4, seed=0)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np

Level = int | float | str
Setting = dict[str, Level]
STARTS = 12  # exchanges end in local optima


def coded(
    settings: Sequence[Mapping[str, Level]],
    factors: Mapping[str, Sequence[Level]],
    interactions: Iterable[tuple[str, str]] = (),
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The model matrix (settings × columns) and the effect that each column belongs to.

    A mean, then for each factor its levels but the last, coded as deviations that sum to zero over levels; products of
    these for each interaction. The mean's effect is the empty tuple.

    Raises:
        ValueError: a setting with a level that its factor does not have.
    """
    parts: dict[str, np.ndarray] = {}
    for name, levels in factors.items():
        unknown = [one[name] for one in settings if one[name] not in levels]
        if unknown:
            raise ValueError(f"{name} = {unknown[0]!r} given; its levels are {list(levels)}")
        parts[name] = deviations(len(levels))[[list(levels).index(one[name]) for one in settings]]
    columns, owners = [np.ones((len(settings), 1))], [()]
    for name, part in parts.items():
        columns.append(part)
        owners += [(name,)] * part.shape[1]
    for first, second in interactions:
        pair = (parts[first][:, :, None] * parts[second][:, None, :]).reshape(len(settings), -1)
        columns.append(pair)
        owners += [(first, second)] * pair.shape[1]
    return np.hstack(columns), owners


def deviations(levels: int) -> np.ndarray:
    """Codes of levels (levels × levels − 1) that sum to zero: an effect is the distance from the mean over levels."""
    return np.vstack([np.eye(levels - 1), -np.ones(levels - 1)])


def grid(factors: Mapping[str, Sequence[Level]]) -> list[Setting]:
    """Every combination of levels, in order."""
    return [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]


def fraction(
    factors: Mapping[str, Sequence[Level]],
    runs: int,
    seed: int,
    interactions: Iterable[tuple[str, str]] = (),
    wanted: Sequence[Mapping[str, Level]] = (),
) -> list[Setting]:
    """So many settings of the grid, no two alike, that say most about the effects; `wanted` ones are kept among them.

    Raises:
        ValueError: fewer runs than the effects have columns, more than the grid has settings, or a wanted setting that
            is not of the grid.
    """
    candidates = grid(factors)
    x_cp, _ = coded(candidates, factors, interactions := list(interactions))
    if not x_cp.shape[1] <= runs <= len(candidates):
        given = f"runs = {runs} given; {x_cp.shape[1]} (one for each column of the effects) to {len(candidates)}"
        raise ValueError(f"{given} (the whole grid) are possible")
    if foreign := [one for one in wanted if dict(one) not in candidates]:
        raise ValueError(f"{dict(foreign[0])} given; a wanted setting is one of the grid")
    kept = [candidates.index(dict(one)) for one in wanted]
    rng = np.random.default_rng(seed)
    free = [place for place in range(len(candidates)) if place not in kept]
    found = [_exchanged(x_cp, kept, rng.permutation(free)[: runs - len(kept)].tolist()) for _ in range(STARTS)]
    best = max(found, key=lambda chosen: _log_determinant(x_cp[chosen]))
    return [candidates[place] for place in sorted(best)]


def _exchanged(x_cp: np.ndarray, kept: list[int], chosen: list[int]) -> list[int]:
    """Exchange a chosen setting for one outside while that raises the determinant."""
    ridge = 1e-6 * np.eye(x_cp.shape[1])  # a first choice may be singular
    improved = True
    while improved:
        improved = False
        for place in range(len(chosen)):
            others = [*kept, *chosen[:place], *chosen[place + 1 :]]
            inverse = np.linalg.inv(x_cp[others].T @ x_cp[others] + ridge)
            gain_c = np.einsum("cp,pq,cq->c", x_cp, inverse, x_cp)  # by the matrix determinant lemma
            gain_c[others] = -np.inf
            best = int(np.argmax(gain_c))
            if gain_c[best] > gain_c[chosen[place]] * (1 + 1e-9):
                chosen[place] = best
                improved = True
    return [*kept, *chosen]


def _log_determinant(x_rp: np.ndarray) -> float:
    sign, value = np.linalg.slogdet(x_rp.T @ x_rp)
    return float(value) if sign > 0 else -np.inf


def efficiency(
    settings: Sequence[Mapping[str, Level]],
    factors: Mapping[str, Sequence[Level]],
    interactions: Iterable[tuple[str, str]] = (),
) -> float:
    """D-efficiency of settings against the whole grid: |X'X / runs|^(1/p) ÷ the same of the grid.

    At 1 each run says as much as one of the grid's.
    """
    interactions = list(interactions)
    own, _ = coded(settings, factors, interactions)
    whole, _ = coded(grid(factors), factors, interactions)
    logs = [_log_determinant(x) - x.shape[1] * np.log(len(x)) for x in (own, whole)]
    return float(np.exp((logs[0] - logs[1]) / own.shape[1]))
