"""The front and how sure it is: dominance, ties, pairing of draws, failed seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paretune.stats.pareto import non_dominated, p_non_dominated


def test_front_of_a_worked_example() -> None:
    """Quality up, memory down: only the row that loses on both is off the front."""
    points = np.array([[0.9, 300.0], [0.8, 100.0], [0.7, 200.0], [0.9, 300.0]])
    assert non_dominated(points, (True, False)).tolist() == [True, True, False, True]


def test_worse_in_one_and_equal_in_the_rest_is_dominated() -> None:
    """Equal quality at a higher cost does not stand on the front."""
    assert non_dominated(np.array([[0.9, 1.0], [0.9, 2.0]]), (True, False)).tolist() == [True, False]


@given(arrays(float, (6, 3), elements=st.integers(0, 3).map(float)))
def test_front_equals_the_definition(points: np.ndarray) -> None:
    """The vectorised front is the plain double loop's, and never empty."""
    gain = points * [1, -1, -1]
    plain = [not any((gain[j] >= gain[i]).all() and (gain[j] > gain[i]).any() for j in range(6)) for i in range(6)]
    assert non_dominated(points, (True, False, False)).tolist() == plain
    assert any(plain)


def study(seeds: int = 3, examples: int = 60) -> tuple[dict[str, dict[int, np.ndarray]], dict[str, dict[int, float]]]:
    rng = np.random.default_rng(0)
    quality = {
        name: {seed: rng.normal(mean, 1, examples) for seed in range(seeds)}
        for name, mean in {"good": 2.0, "level": 2.0, "bad": 0.0}.items()
    }
    return quality, {
        name: dict.fromkeys(range(seeds), cost) for name, cost in {"good": 1, "level": 2, "bad": 3}.items()
    }


def test_sure_members_doubtful_members_and_sure_losers() -> None:
    """The cheapest is always on the front, a clear loser never, an equal but dearer one in some of the draws."""
    quality, cost = study()
    shares = p_non_dominated(quality, cost, rng=np.random.default_rng(1))
    assert shares["good"] == 1
    assert shares["bad"] == 0
    assert 0.05 < shares["level"] < 0.95


def test_the_generator_decides_the_draws() -> None:
    """The same generator gives the same shares, another one other shares."""
    quality, cost = study()
    first, again, other = (p_non_dominated(quality, cost, rng=np.random.default_rng(n))["level"] for n in (1, 1, 2))
    assert first == again != other


def test_identical_methods_tie_in_every_draw() -> None:
    """Draws are paired: two methods with the same figures stand on the front together, always."""
    quality, cost = study(examples=37)
    quality["twin"], cost["twin"] = quality["good"], cost["good"]
    shares = p_non_dominated(quality, cost, rng=np.random.default_rng(1))
    assert shares["twin"] == shares["good"] == 1


def test_equal_figures_tie_over_different_seeds() -> None:
    """Sums of the same figure over other seeds differ by rounding only, which is no reason to lose a draw."""
    runs = {"all": range(7), "some": range(5), "few": range(2, 5)}
    quality = {name: dict.fromkeys(seeds, np.full(13, 0.7)) for name, seeds in runs.items()}
    cost = {name: dict.fromkeys(seeds, (0.1, 7e9 / 3)) for name, seeds in runs.items()}
    assert set(p_non_dominated(quality, cost, rng=np.random.default_rng(0)).values()) == {1.0}


def test_resampled_variance_of_seeds_is_not_too_small() -> None:
    """With 3 seeds the means of the draws spread as far as the seeds' standard error says (n − 1 drawn of n)."""
    level = 0.62  # how often a fixed cost this many standard errors below the mean is undercut tells the spread
    by_seed = np.array([-1.0, 0.0, 1.0])
    error = by_seed.std(ddof=1) / np.sqrt(3)
    cost = {"random": dict(enumerate(by_seed)), "fixed": dict.fromkeys(range(3), -level * error)}
    quality = {name: dict.fromkeys(range(3), np.zeros(4)) for name in cost}
    shares = p_non_dominated(quality, cost, draws=20_000, rng=np.random.default_rng(0))
    # two of three seeds: sums −2, −1, −1, 0, 0, 0, 1, 1, 2 of nine; means at or below −0.358: 3 of 9
    assert shares["random"] == pytest.approx(3 / 9, abs=0.02)
    assert shares["fixed"] == pytest.approx(6 / 9, abs=0.02)


def test_a_failed_run_and_several_costs() -> None:
    """A method with one seed of three keeps its own mean in draws that miss the seed; costs may be several."""
    quality, _ = study()
    quality["good"] = {2: quality["good"][2]}
    cost = {name: dict.fromkeys(runs, (1.0, 5.0)) for name, runs in quality.items()}
    cost["bad"] = dict.fromkeys(quality["bad"], (3.0, 1.0))
    shares = p_non_dominated(quality, cost, draws=200, rng=np.random.default_rng(1))
    assert shares["bad"] == 1  # worst in two goals, best in the third
    assert shares["good"] + shares["level"] >= 1


def test_impossible_input_is_refused() -> None:
    """Seeds without a cost, NaN, unequal test sets and no draws are ValueErrors."""
    quality, cost = study()
    with pytest.raises(ValueError, match="'bad' needs quality and cost for the same seeds"):
        p_non_dominated(quality, cost | {"bad": {0: 1.0}}, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="differ in their number of examples"):
        p_non_dominated(quality | {"bad": {s: np.zeros(3) for s in range(3)}}, cost, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="NaN"):
        p_non_dominated(quality, cost | {"bad": dict.fromkeys(range(3), float("nan"))}, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="0 draws"):
        p_non_dominated(quality, cost, draws=0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="2 goals"):
        non_dominated(np.zeros((3, 3)), (True, False))
