"""Temperature, threshold and risk-coverage curve, against plain searches and by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from paretune.stats.selective import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    at_threshold,
    confidences,
    expected_risk,
    fit_temperature,
    fit_threshold,
    probabilities,
    risk_coverage,
)


def made_up(rows: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn from softmax(logits / sharpness): the right temperature is `sharpness`."""
    rng = np.random.default_rng(seed)
    logits_nc = rng.normal(size=(rows, 4)) * 3
    chances_nc = probabilities(logits_nc, sharpness)
    return logits_nc, np.array([rng.choice(4, p=row) for row in chances_nc])


def log_loss(logits_nc: np.ndarray, targets_n: np.ndarray, temperature: float) -> float:
    """Against Platt's targets: the true class (n + 1) / (n + 2), the others the rest in equal shares."""
    rows, classes = logits_nc.shape
    wanted_nc = np.full((rows, classes), 1 / (rows + 2) / (classes - 1))
    wanted_nc[np.arange(rows), targets_n] = (rows + 1) / (rows + 2)
    return float(-(wanted_nc * np.log(probabilities(logits_nc, temperature))).sum(axis=1).mean())


def sure(confidence_n: np.ndarray) -> np.ndarray:
    """The same order with so little doubt that only wrong answers count as risk."""
    return 1 - (1 - confidence_n) * 1e-6


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_temperature_is_the_best_of_a_fine_grid(sharpness: float) -> None:
    """No temperature of a grid has less log-loss, and the one that made the data is found."""
    logits_nc, targets_n = made_up(4000, sharpness)
    found = fit_temperature(logits_nc, targets_n)
    grid = np.geomspace(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE, 400)
    assert log_loss(logits_nc, targets_n, found) <= min(log_loss(logits_nc, targets_n, one) for one in grid) + 1e-9
    assert found == pytest.approx(sharpness, rel=0.1)


def test_temperature_has_bounds() -> None:
    """All right: as sure as n right answers allow. Tiny logits: as sharp as may be. Worse than chance: as flat."""
    logits_nc = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    targets_n = np.array([0, 1, 2, 0, 1, 2])
    assert confidences(logits_nc, fit_temperature(logits_nc, targets_n)) == pytest.approx(7 / 8)
    assert fit_temperature(logits_nc / 1000, targets_n) == LOWEST_TEMPERATURE
    assert fit_temperature(logits_nc, (targets_n + 1) % 3) == HIGHEST_TEMPERATURE
    with pytest.raises(ValueError, match=r"\(n, c\)"):
        fit_temperature(logits_nc, targets_n[:2])


def test_confidence_is_the_largest_probability_and_survives_large_logits() -> None:
    """A softmax by hand; 1e4 overflows nothing."""
    assert confidences(np.array([[0.0, np.log(3.0)]]))[0] == pytest.approx(0.75)
    assert confidences(np.array([[1e4, 0.0]]))[0] == 1.0


def test_threshold_by_hand() -> None:
    """Five texts, the second surest wrong: at 30 % risk four are answered, at 0 only one, halfway to the next."""
    confidence_n = sure(np.array([0.5, 0.9, 0.8, 0.7, 0.6]))
    correct_n = np.array([False, True, False, True, True])
    found = fit_threshold(confidence_n, correct_n, 0.30)
    halfway = (confidence_n[4] + confidence_n[0]) / 2
    assert (found.value, found.coverage, found.risk, found.reachable) == (pytest.approx(halfway), 0.8, 0.25, True)
    strict = fit_threshold(confidence_n, correct_n, 1e-6)
    assert (strict.coverage, strict.risk) == (0.2, 0.0)
    assert fit_threshold(confidence_n, correct_n, 0.4).value == 0.0


def test_doubt_counts_where_nothing_is_wrong() -> None:
    """All right, mean doubt 0.2: for a risk of 0.1 only the surer ones are answered, whose mean doubt is 0.1."""
    confidence_n, correct_n = np.array([0.95, 0.85, 0.7, 0.7]), np.full(4, True)
    assert expected_risk(confidence_n, correct_n) == pytest.approx(0.2)
    assert expected_risk(confidence_n, np.array([True, True, False, False])) == 0.5
    found = fit_threshold(confidence_n, correct_n, 0.1 + 1e-9)
    assert (found.coverage, found.risk, found.reachable) == (0.5, 0.0, True)


def test_a_target_out_of_reach_takes_the_least_risk() -> None:
    """The surest text is wrong, so no threshold has risk 0: the least risk is said and marked."""
    found = fit_threshold(sure(np.array([0.9, 0.8, 0.7])), np.array([False, True, False]), 0.0)
    assert (found.reachable, found.risk, found.coverage) == (False, 0.5, pytest.approx(2 / 3))


def test_equal_confidences_are_answered_together() -> None:
    """A threshold cannot tell equal confidences apart: risk 0 is not reachable among them."""
    found = fit_threshold(np.full(4, 0.8), np.array([True, True, True, False]), 0.0)
    assert (found.reachable, found.coverage, found.risk, found.value) == (False, 1.0, 0.25, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_what_a_search_finds(seed: int) -> None:
    """On random data no other threshold within the target answers more, and the one found holds on its own data."""
    rng = np.random.default_rng(seed)
    confidence_n, correct_n = sure(rng.random(60).round(2)), rng.random(60) < 0.7
    target = float(rng.choice([0.05, 0.15, 0.25]))
    found = fit_threshold(confidence_n, correct_n, target)
    own = at_threshold(confidence_n, correct_n, found.value)
    assert (own.coverage, own.risk) == (pytest.approx(found.coverage), pytest.approx(found.risk))
    reached = [at_threshold(confidence_n, correct_n, one) for one in confidence_n]
    allowed = [one.coverage for one in reached if one.risk <= target]
    assert found.reachable == bool(allowed)
    if allowed:
        assert found.coverage == pytest.approx(max(allowed)) and found.risk <= target


def test_the_curve_is_short_ends_at_all_texts_and_its_points_hold() -> None:
    """At most 50 points, coverage rises to 1, and every point is what its threshold gives."""
    rng = np.random.default_rng(3)
    confidence_n, correct_n = rng.random(777), rng.random(777) < 0.8
    curve = risk_coverage(confidence_n, correct_n)
    assert len(curve) <= 50 and curve[-1].coverage == 1.0
    assert curve[-1].risk == pytest.approx(1 - correct_n.mean())
    assert all(a.coverage < b.coverage and a.threshold > b.threshold for a, b in pairwise(curve))
    for one in curve:
        assert at_threshold(confidence_n, correct_n, one.threshold) == one
    assert len(risk_coverage(np.array([0.5]), np.array([True]))) == 1


def test_nothing_answered_is_no_risk_and_nothing_given_is_an_error() -> None:
    """Coverage 0 has risk 0 by definition; no examples, or a target that is no share, are refused."""
    assert at_threshold(np.array([0.4]), np.array([False]), 0.9).risk == 0.0
    for confidence, correct, target in (([], [], 0.1), ([0.5], [True, False], 0.1), ([0.5], [True], 1.5)):
        with pytest.raises(ValueError, match="given"):
            fit_threshold(np.array(confidence), np.array(correct), target)
