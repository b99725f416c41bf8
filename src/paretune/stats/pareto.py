"""Which methods no other beats at once in quality and in every cost, and how sure that is.

Not here: the drawing of a front (`report/`), verdicts on quality alone (`compare.py`).
Source: Pareto dominance; two-way bootstrap of seeds and examples, with n − 1 of n seeds per draw (Hesterberg 2015,
What Teachers Should Know About the Bootstrap, section 3.6), since n of n understates the variance by 1/n.

    non_dominated(np.array([[0.9, 100.0], [0.8, 200.0]]), maximise=(True, False))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

CELLS_AT_ONCE = 4_000_000  # draws × examples (× 8 bytes) held in memory at a time


def non_dominated(points: np.ndarray, maximise: tuple[bool, ...]) -> np.ndarray:
    """Which rows of `points` (n × k) no other row dominates: as good in every column and better in one.

    `maximise` says per column whether more is better. Equal rows do not dominate each other. Leading axes, if any,
    are independent tables: (…, n, k) gives (…, n).

    Raises:
        ValueError: a shape that does not fit `maximise`, or NaN.
    """
    if points.ndim < 2 or points.shape[-1] != len(maximise):
        raise ValueError(f"points of shape {points.shape} given; {len(maximise)} goals need as many columns")
    if bool(np.isnan(points).any()):
        raise ValueError("points hold NaN; leave methods without a figure out of the front")
    gain = points * np.where(maximise, 1.0, -1.0)
    other, own = gain[..., :, None, :], gain[..., None, :, :]  # axis −3: the other row, axis −2: the row judged
    dominates = (other >= own).all(axis=-1) & (other > own).any(axis=-1)
    beaten = np.logical_or.reduce(dominates, axis=-2)
    return np.logical_not(beaten)


def p_non_dominated(
    quality: Mapping[str, Mapping[int, np.ndarray]],
    cost: Mapping[str, Mapping[int, float | Sequence[float]]],
    draws: int = 1000,
    *,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Share of resampled studies in which each method stands on the front.

    `quality`: method → seed → one value per test example (more is better). `cost`: method → seed → one cost or
    several (less is better), for the same seeds. Each draw takes seeds and examples with replacement, the same for
    every method, and averages quality and costs over them. A method that lacks some seeds (a failed run) uses those
    of the draw it has, and all of its own where the draw holds none of them. Ties count as on the front.

    Raises:
        ValueError: no method or draw, methods or seeds that differ between quality and cost, NaN, or unequal numbers
            of examples or costs.
    """
    points_dmk = resampled(quality, cost, draws, rng)
    front_dm = non_dominated(points_dmk, (True, *(False,) * (points_dmk.shape[2] - 1)))
    return {name: float(share) for name, share in zip(quality, front_dm.mean(axis=0), strict=True)}


def resampled(
    quality: Mapping[str, Mapping[int, np.ndarray]],
    cost: Mapping[str, Mapping[int, float | Sequence[float]]],
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws × methods × (quality, costs…): means of resampled studies, as `p_non_dominated` explains them.

    Raises:
        ValueError: as there.
    """
    if draws < 1 or not quality:
        raise ValueError(f"{len(quality)} methods and {draws} draws given; at least one of each is needed")
    for name in quality.keys() | cost.keys():
        if not quality.get(name) or quality[name].keys() != cost.get(name, {}).keys():
            raise ValueError(f"{name!r} needs quality and cost for the same seeds, and at least one seed")
    all_seeds = sorted({seed for runs in quality.values() for seed in runs})
    quality_re = _stacked([quality[name][seed] for name in quality for seed in sorted(quality[name])])
    cost_rc = _stacked([cost[name][seed] for name in quality for seed in sorted(quality[name])])
    taken = max(1, len(all_seeds) - 1)
    seed_counts_ds = rng.multinomial(taken, np.full(len(all_seeds), 1 / len(all_seeds)), size=draws)
    quality_dr = _resampled_means(quality_re, draws, rng)
    points_dmk = np.empty((draws, len(quality), 1 + cost_rc.shape[1]))
    row = 0
    for index, runs in enumerate(quality.values()):
        own = slice(row, row + len(runs))
        row += len(runs)
        weight_dr = seed_counts_ds[:, [all_seeds.index(seed) for seed in sorted(runs)]].astype(float)
        weight_dr[weight_dr.sum(axis=1) == 0] = 1.0
        weight_dr /= weight_dr.sum(axis=1, keepdims=True)
        points_dmk[:, index, 0] = (weight_dr * quality_dr[:, own]).sum(axis=1)
        points_dmk[:, index, 1:] = weight_dr @ cost_rc[own]
    return _without_crumbs(points_dmk)


def _without_crumbs(points_dmk: np.ndarray) -> np.ndarray:
    """Points to 12 decimals (quality) and 40 bits (costs): equal runs add up equal only to rounding, and must tie."""
    mantissa, exponent = np.frexp(points_dmk)
    rounded = np.ldexp(np.round(mantissa * 2.0**40), exponent - 40)
    rounded[..., 0] = np.round(points_dmk[..., 0], 12)
    return rounded


def _stacked(rows: Sequence[np.ndarray | float | Sequence[float]]) -> np.ndarray:
    arrays = [np.atleast_1d(np.asarray(row, dtype=float)) for row in rows]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
        raise ValueError("runs differ in their number of examples or of costs; a front needs the same for all")
    return np.stack(arrays)


def _resampled_means(quality_re: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of every run (row) over resampled examples, draws × runs; a draw's examples are the same for all runs."""
    examples = quality_re.shape[1]
    at_once = max(1, CELLS_AT_ONCE // examples)
    parts = [
        rng.multinomial(examples, np.full(examples, 1 / examples), size=min(at_once, draws - start)) @ quality_re.T
        for start in range(0, draws, at_once)
    ]
    return np.concatenate(parts) / examples
