"""Who is best within a budget, and which experiment would decide most cheaply."""

from __future__ import annotations

import numpy as np
import pytest

from paretune.stats.budget import Experiment, decisive_experiments, p_best
from paretune.stats.compare import Comparison
from paretune.stats.pareto import p_non_dominated

SEEDS = range(5)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _study(shares: dict[str, float], examples: int = 300) -> dict[str, dict[int, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {
        name: {seed: (rng.random(examples) < share).astype(float) for seed in SEEDS} for name, share in shares.items()
    }


def _costs(*given: tuple[str, float, float]) -> dict[str, dict[int, tuple[float, float]]]:
    return {name: dict.fromkeys(SEEDS, (memory, seconds)) for name, memory, seconds in given}


def test_the_best_that_fits_is_best() -> None:
    """The dearest is the best; where it does not fit the second is, where nothing fits none."""
    quality = _study({"head": 0.6, "lora": 0.8, "full": 0.95})
    cost = _costs(("head", 1, 10), ("lora", 2, 100), ("full", 4, 90))
    assert p_best(quality, cost, (np.inf, np.inf), rng=_rng()) == {"head": 0, "lora": 0, "full": 1}
    assert p_best(quality, cost, (3, np.inf), rng=_rng()) == {"head": 0, "lora": 1, "full": 0}
    assert p_best(quality, cost, (np.inf, 20), rng=_rng()) == {"head": 1, "lora": 0, "full": 0}
    assert sum(p_best(quality, cost, (0.5, 5), rng=_rng()).values()) == 0


def test_equals_share_and_the_unsure_are_unsure() -> None:
    """Two equal methods have a half each; two near ones have shares that sum to 1."""
    one = _study({"a": 0.7})["a"]
    both = _costs(("a", 1, 1), ("b", 1, 1))
    assert p_best({"a": one, "b": one}, both, (2, 2), rng=_rng()) == {"a": 0.5, "b": 0.5}
    near = p_best(_study({"a": 0.80, "b": 0.81}), both, (2, 2), draws=2000, rng=_rng())
    assert sum(near.values()) == pytest.approx(1)
    assert 0.05 < near["a"] < 0.95


def test_a_cost_near_the_limit_makes_it_unsure() -> None:
    """A method whose seeds need 9 to 11 s is within 10 s in some draws only."""
    quality = _study({"a": 0.6, "b": 0.9})
    cost = {"a": dict.fromkeys(SEEDS, 1.0), "b": {seed: 9.0 + seed / 2 for seed in SEEDS}}
    found = p_best(quality, cost, (10.0,), rng=_rng())
    assert 0.2 < found["b"] < 0.8
    assert found["a"] + found["b"] == pytest.approx(1)


def test_limits_are_as_many_as_costs() -> None:
    """One line says how many."""
    with pytest.raises(ValueError, match="1 limits given; 2 costs"):
        p_best(_study({"a": 0.5}), _costs(("a", 1, 1)), (1.0,), rng=_rng())


def test_both_resample_alike() -> None:
    """Who is the best without limits is on the front of quality alone as often."""
    quality = _study({"a": 0.80, "b": 0.81})
    cost = {name: dict.fromkeys(SEEDS, 1.0) for name in quality}
    assert p_non_dominated(quality, cost, rng=_rng())["b"] == pytest.approx(
        p_best(quality, cost, (np.inf,), rng=_rng())["b"], abs=0.03
    )


def _undecided(method: str, seeds: int | None) -> Comparison:
    return Comparison(method, 3, None, None, None, None, "undecided", seeds, "seeds", None)


def test_the_cheapest_decisive_experiment_comes_first() -> None:
    """Seeds times the seconds of both sides; what nothing decides, or costs nobody knows, is no experiment."""
    seconds = {"full": 100.0, "lora": 80.0, "head": 5.0}
    several = [_undecided("head", 4), _undecided("lora", 2), _undecided("odd", 1), _undecided("never", None)]
    found = decisive_experiments(several, "full", seconds)
    assert found == [Experiment("lora", 2, 360.0, None), Experiment("head", 4, 420.0, None)]
    assert decisive_experiments([_undecided("never", None)], "full", seconds) == []


def test_its_energy_needs_the_power_of_both_sides() -> None:
    """Two seeds of 80 s at 45 W and 100 s at 54 W are 5 Wh; a side of unknown power leaves the energy unknown."""
    seconds, one = {"full": 100.0, "lora": 80.0}, [_undecided("lora", 2)]
    (found,) = decisive_experiments(one, "full", seconds, {"lora": 45.0, "full": 54.0})
    assert found.watt_hours == pytest.approx(5.0)
    (found,) = decisive_experiments(one, "full", seconds, {"lora": 45.0})
    assert found.watt_hours is None
