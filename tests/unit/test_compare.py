"""Comparisons against the control: p, Holm, equivalence, verdicts, and the seeds that would decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from paretune.stats.compare import Comparison, compare, false_equivalence, further_seeds, holm, holm_divisors
from paretune.stats.intervals import Components

Scores = dict[str, dict[int, np.ndarray]]


def scores(
    shift: float, *, seed_sd: float = 0.0, example_sd: float = 0.0, seeds: int = 5, examples: int = 200
) -> Scores:
    """A control of zeros and a method whose difference has exactly this mean and these spreads."""
    rng = np.random.default_rng(0)
    by_seed, by_example = rng.normal(size=seeds), rng.normal(size=examples)
    by_seed, by_example = (x / x.std(ddof=1) - (x / x.std(ddof=1)).mean() for x in (by_seed, by_example))
    matrix_se = shift + seed_sd * by_seed[:, None] + example_sd * by_example[None, :]
    return {"control": {s: np.zeros(examples) for s in range(seeds)}, "method": dict(enumerate(matrix_se))}


def only(given: Scores, margin: float = 0.01, level: float = 0.95) -> Comparison:
    (comparison,) = compare(given, "control", margin, level)
    return comparison


@pytest.mark.slow
@settings(max_examples=20)  # statsmodels collects garbage in every call: 0.1 s each
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    """Adjusted p are statsmodels' for any p, ties and ones included."""
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-12)


def test_p_and_equivalence_equal_the_paired_t_tests() -> None:
    """Where only seeds vary, p is scipy's paired t test and `tost_p` statsmodels' paired TOST."""
    given = scores(0.004, seed_sd=0.006)
    seed_means = [row.mean() for row in given["method"].values()]
    ours = only(given)
    assert ours.p == pytest.approx(scipy.stats.ttest_1samp(seed_means, 0).pvalue)
    assert ours.tost_p == pytest.approx(ttost_paired(np.array(seed_means), np.zeros(5), -0.01, 0.01)[0])


@pytest.mark.parametrize(
    ("shift", "seed_sd", "verdict"),
    [
        (0.05, 0.005, "better"),
        (-0.05, 0.005, "worse"),
        (0.0, 0.004, "equivalent"),
        (0.004, 0.001, "equivalent"),  # significant, and inside the margin
        (0.01, 0.02, "undecided"),
    ],
)
def test_verdicts(shift: float, seed_sd: float, verdict: str) -> None:
    """Each verdict is reached by a difference that calls for it, and only the undecided one asks for seeds."""
    ours = only(scores(shift, seed_sd=seed_sd))
    assert ours.verdict == verdict
    assert (ours.limited_by is not None) == (ours.more_seeds is not None) == (verdict == "undecided")
    assert ours.difference is not None
    assert (ours.difference.low <= 0 <= ours.difference.high) == (ours.p is not None and ours.p > 0.05)
    assert ours.reason is None


def test_identical_predictions_are_equivalent() -> None:
    """No difference anywhere: width zero, p = 1, equivalent, and no NaN."""
    ours = only(scores(0.0))
    assert ours.difference is not None
    assert (ours.difference.low, ours.difference.high, ours.p, ours.tost_p) == (0, 0, 1, 0)
    assert ours.verdict == "equivalent"


def test_a_constant_difference_is_decided() -> None:
    """A difference without any spread has p = 0 and a verdict by its size."""
    assert only(scores(0.005)).verdict == "equivalent"
    ours = only(scores(-0.02))
    assert (ours.verdict, ours.p, ours.tost_p) == ("worse", 0, 1)


def test_deterministic_methods_compare_by_their_examples() -> None:
    """Two baselines that repeat their predictions in every seed are compared as one pair over examples."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 300).astype(float), rng.integers(0, 2, 300).astype(float)
    ours = only({"control": dict.fromkeys(range(3), a), "method": dict.fromkeys(range(3), b)})
    assert ours.p == pytest.approx(scipy.stats.ttest_rel(b, a).pvalue)


def test_holm_counts_every_method_and_can_take_a_verdict_away() -> None:
    """A p of about 0.02 alone is a verdict; among five such methods it is none."""
    given = scores(0.03, seed_sd=0.019)
    alone = only(given)
    assert alone.p is not None
    assert 0.01 < alone.p < 0.05
    assert alone.verdict == "better"
    many = compare(given | {f"other{n}": given["method"] for n in range(4)}, "control", 0.01)
    assert [c.p_holm for c in many] == pytest.approx([5 * alone.p] * 5)
    assert {c.verdict for c in many} == {"undecided"}


def test_more_seeds_are_planned_at_the_level_where_holm_stopped() -> None:
    """Undecided methods share α among themselves: two such ask for more seeds than one beside a decided method."""
    open_one, decided = scores(0.02, seed_sd=0.03), scores(0.5, seed_sd=0.01)["method"]
    beside_decided = compare(open_one | {"other": decided}, "control", 0.001)[0]
    beside_open = compare(open_one | {"other": open_one["method"]}, "control", 0.001)[0]
    assert beside_decided.more_seeds == only(open_one, margin=0.001).more_seeds
    assert (beside_open.more_seeds or 0) > (beside_decided.more_seeds or math.inf)


def test_failed_runs_are_left_out_of_the_pairs() -> None:
    """Where method and control lack seeds they are compared on the shared ones, by seed and not by position."""
    given = scores(0.01, seed_sd=0.02)
    for seed in range(5):
        given["control"][seed] = given["control"][seed] + seed  # a wrong pairing would show
    given["method"] = {seed: given["method"][seed] + seed for seed in (4, 0, 1, 2)}
    del given["control"][0]
    ours = only(given)
    assert ours.seeds == 3
    assert ours.difference is not None
    expected = np.mean([given["method"][s].mean() - s for s in (1, 2, 4)])
    assert ours.difference.estimate == pytest.approx(expected)


@pytest.mark.parametrize("kept", [(), (3,)])
def test_too_few_shared_seeds_is_undecided_without_p(kept: tuple[int, ...]) -> None:
    """With fewer than two shared seeds there is no interval and no p, a reason, and no weight in Holm's count."""
    given = scores(0.05, seed_sd=0.005)
    given["failed"] = {seed: given["method"][seed] for seed in kept}
    method, failed = compare(given, "control", 0.01)
    assert failed == Comparison("failed", len(kept), None, None, None, None, "undecided", None, None, "too few seeds")
    assert method.p_holm == method.p


def parts(estimate: float, seed_sd: float, example_error: float = 0.0, seeds: int = 3) -> Components:
    examples = 10_000
    example_variance = examples * example_error**2
    variance = seed_sd**2 / seeds + example_error**2
    return Components(estimate, variance, seeds - 1, seeds, examples, seed_sd**2, example_variance, 0.0)


def test_further_seeds_equal_statsmodels_power() -> None:
    """Where only seeds vary, the total is the smallest whose paired t test has 80 % power by statsmodels."""
    for effect in (0.4, 0.7, 1.0, 1.5):
        more, limit = further_seeds(parts(effect, 1.0), 1e-6, 0.05, 0.05)
        assert more is not None
        assert limit == "seeds"
        total = 3 + more
        assert TTestPower().power(effect, total, 0.05) >= 0.8
        assert more == 1 or TTestPower().power(effect, total - 1, 0.05) < 0.8


def test_further_seeds_for_equivalence_hold_in_simulation() -> None:
    """Of two equal methods the planned seeds show equivalence in 80 % of simulated studies; one seed less does not."""
    rng = np.random.default_rng(0)
    for margin in (0.94, 1.36):
        more, _ = further_seeds(parts(0.0, 1.0), margin, 1e-9, 0.05)
        assert more is not None
        passed: list[float] = []
        for total in (2 + more, 3 + more):
            values = rng.normal(size=(40_000, total))
            reach = scipy.stats.t.ppf(0.95, total - 1) * values.std(axis=1, ddof=1) / math.sqrt(total)
            passed.append(float(np.mean(np.abs(values.mean(axis=1)) + reach < margin)))
        assert passed[0] < 0.8 <= passed[1]


def test_examples_can_forbid_a_decision() -> None:
    """A test set too small for the difference is named as the limit; no number of seeds helps."""
    assert further_seeds(parts(0.005, 0.01, example_error=0.01), 0.006, 0.05, 0.05) == (None, "examples")


def test_hopelessly_many_seeds_are_not_a_plan() -> None:
    """More than 200 further seeds are answered None, limited by seeds."""
    assert further_seeds(parts(0.01, 1.0), 0.001, 0.05, 0.05) == (None, "seeds")


def test_fewer_seeds_are_needed_for_a_larger_difference() -> None:
    """The answer falls as the difference grows and rises as Holm's level tightens."""
    answers = [further_seeds(parts(effect, 1.0), 1e-6, 0.05, 0.05)[0] for effect in (0.3, 0.6, 1.2)]
    assert all(answer is not None for answer in answers)
    assert answers == sorted(answers, key=lambda n: -(n or 0))
    strict, _ = further_seeds(parts(0.6, 1.0), 1e-6, 0.005, 0.05)
    assert strict is not None
    assert strict > (answers[1] or math.inf)


def test_impossible_input_is_refused() -> None:
    """Unknown control, no margin, wrong level and unequal test sets are ValueErrors that say what is allowed."""
    given = scores(0.01, seed_sd=0.02)
    with pytest.raises(ValueError, match="allowed: control, method"):
        compare(given, "full", 0.01)
    for margin in (0.0, -0.01, math.nan, math.inf):
        with pytest.raises(ValueError, match="margin"):
            only(given, margin=margin)
    with pytest.raises(ValueError, match="level 95"):
        only(given, level=95)
    given["method"][0] = np.zeros(3)
    with pytest.raises(ValueError, match="same examples"):
        only(given)


def families(seed: int, methods: int = 5, seeds: int = 3) -> dict[str, dict[int, np.ndarray]]:
    """A control and methods at random distances, with doubt of seeds and of examples."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0.8, 0.1, (seeds, 50))
    rows = {"control": base}
    for n in range(methods):
        away = rng.choice([-0.05, -0.02, 0.0, 0.001, 0.02, 0.05])
        rows[f"m{n}"] = base + away + rng.normal(0, 0.01, (seeds, 1)) + rng.normal(0, 0.03, (seeds, 50))
    return {name: dict(enumerate(row)) for name, row in rows.items()}


@pytest.fixture
def without_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the number of further seeds, which costs most of the time."""
    monkeypatch.setattr("paretune.stats.compare.further_seeds", lambda *_: (None, "seeds"))


@pytest.mark.usefixtures("without_planning")
@pytest.mark.parametrize("seed", range(40))
def test_the_interval_beside_a_verdict_is_the_one_it_was_taken_from(seed: int) -> None:
    """No undecided interval excludes 0 or lies within the margin, no decided one says anything but its verdict."""
    margin = 0.015
    for found in compare(families(seed, seeds=2 + seed % 4), "control", margin):
        assert found.difference is not None and found.zero is not None and found.margin is not None
        low, high = found.difference.low, found.difference.high
        excludes, inside = low > 0 or high < 0, -margin < low and high < margin
        match found.verdict:
            case "better":
                assert low > 0
            case "worse":
                assert high < 0
            case "equivalent":
                assert inside and found.level == pytest.approx(0.9)
            case "undecided":
                assert not excludes and not inside
        assert (found.zero.interval.low > 0 or found.zero.interval.high < 0) == (found.p_holm <= 0.05)  # type: ignore[operator]
        assert (-margin < found.margin.interval.low and found.margin.interval.high < margin) == (found.tost_p <= 0.05)  # type: ignore[operator]


@pytest.mark.usefixtures("without_planning")
def test_every_verdict_is_among_the_random_families() -> None:
    """The test above sees each of the four."""
    seen = {found.verdict for seed in range(40) for found in compare(families(seed), "control", 0.015)}
    assert seen == {"better", "worse", "equivalent", "undecided"}


def test_holm_divides_by_fewer_after_each_rejection() -> None:
    """Of four p-values the smallest is tested at α/4; from the first that stays on the divisor is that of the stop."""
    assert holm_divisors([0.001, 0.2, 0.01, 0.04], 0.05) == [4, 2, 3, 2]
    assert holm_divisors([0.001, 0.002], 0.05) == [2, 1]
    assert holm_divisors([0.03, 0.04], 0.05) == [2, 2]
    assert holm_divisors([], 0.05) == []


def test_ends_of_a_difference_stay_where_a_difference_can_be() -> None:
    """Two seeds that disagree give an end far outside; it is cut, and an undecided one is called too few seeds."""
    given = {"control": {0: np.full(4, 0.0), 1: np.full(4, 0.9)}, "method": {0: np.full(4, -0.5), 1: np.full(4, 0.1)}}
    (found,) = compare(given, "control", 0.01, bounds=(-1.0, 1.0))
    assert found.difference is not None and found.difference.low == -2.0 and found.difference.high < 2
    assert found.alone is not None and found.alone.low < -2
    assert found.verdict == "undecided" and found.too_few_seeds
    assert not only(scores(0.0, seed_sd=0.02)).too_few_seeds


def test_false_equivalence_is_bounded_by_independent_tests() -> None:
    """One test errs in 5 %, six at most in 26 %."""
    assert false_equivalence(1) == pytest.approx(0.05)
    assert false_equivalence(6) == pytest.approx(0.265, abs=1e-3)
