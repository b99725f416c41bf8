"""Metrics equal scikit-learn's, and their per-example values average to them and carry the right standard error."""

from __future__ import annotations

import functools
import typing
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from paretune.records import schema
from paretune.report.sheets import METRIC_COLUMNS
from paretune.report.tables import metric_name
from paretune.report.wording import LANGUAGES, Words
from paretune.stats.metrics import (
    ALL_METRICS,
    METRICS,
    TOKEN_METRICS,
    all_scores,
    bias,
    calibration_error,
    class_metric,
    log_loss,
    merit,
    metric_named,
    per_example,
    score,
)
from paretune.tasks.classification import Classification

PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1, max_size=40)


def sample(seed: int, examples: int, right: float, classes: str = "abc") -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(classes), examples, p=np.arange(1, len(classes) + 1) / sum(range(1, len(classes) + 1)))
    guess = rng.choice(list(classes), examples)
    return labels.tolist(), np.where(rng.random(examples) < right, labels, guess).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learn(seed: int) -> None:
    """On random predictions the three metrics are scikit-learn's."""
    labels, predictions = sample(seed, 200, 0.6, "abcde")
    assert score("accuracy", labels, predictions) == sklearn.metrics.accuracy_score(labels, predictions)
    assert score("macro_f1", labels, predictions) == sklearn.metrics.f1_score(labels, predictions, average="macro")
    assert score("mcc", labels, predictions) == sklearn.metrics.matthews_corrcoef(labels, predictions)


AUTHORITY = {
    "accuracy": sklearn.metrics.accuracy_score,
    "macro_f1": functools.partial(sklearn.metrics.f1_score, average="macro"),
    "mcc": sklearn.metrics.matthews_corrcoef,
}


@pytest.mark.parametrize("metric", METRICS)
@given(pairs=PAIRS)
def test_every_registered_metric_equals_its_outside_authority(metric: str, pairs: list[tuple[str, str]]) -> None:
    """Whoever registers a metric names scikit-learn's function for it here; none computes another's value."""
    labels, predictions = [label for label, _ in pairs], [prediction for _, prediction in pairs]
    with warnings.catch_warnings(action="ignore"):  # one class alone, which scikit-learn remarks on
        wanted = AUTHORITY[metric](labels, predictions)
    assert score(metric, labels, predictions) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", ["balanced_accuracy", "kappa", "Accuracy", "f1", ""])
def test_a_metric_that_is_only_named_is_an_error_everywhere(name: str) -> None:
    """Nothing guesses what an unregistered name could mean: its value, its direction, its bounds or its words."""
    asked = [
        lambda: score(name, ["a", "b"], ["a", "a"]),
        lambda: per_example(name, ["a", "b"], ["a", "a"]),
        lambda: merit(name, 0.5),
        lambda: metric_named(name),
        lambda: class_metric(name),
        lambda: metric_name(Words("en"), name),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match="unknown metric"):
            ask()
    with pytest.raises(ValueError, match="unknown metric"):
        class_metric("nll")  # known, and none of labels and predictions


def test_every_list_of_metrics_is_the_registry() -> None:
    """Records, tables and tasks know the registered metrics, all of them, in the registry's order."""
    assert typing.get_args(schema.Metric) == (*METRICS, *TOKEN_METRICS)
    assert METRIC_COLUMNS == ("accuracy", "macro_f1", "mcc", "log_loss", "calibration_error")
    assert Classification.metrics == tuple(METRICS)
    assert [one.name for one in ALL_METRICS.values()] == list(ALL_METRICS)
    for lang in LANGUAGES:
        assert len({metric_name(Words(lang), name) for name in ALL_METRICS}) == len(ALL_METRICS)


def test_each_metric_says_which_values_are_better_and_which_there_are() -> None:
    """Direction and bounds are the metric's own, not guessed from its name; differences follow from the bounds."""
    better = {name: "higher" if merit(name, 2.0) > merit(name, 1.0) else "lower" for name in ALL_METRICS}
    lower = ["log_loss", "calibration_error", "nll", "perplexity", "bits_per_byte"]
    assert [name for name, direction in better.items() if direction == "lower"] == lower
    assert metric_named("accuracy").bounds == (0, 1) and metric_named("mcc").bounds == (-1, 1)
    assert metric_named("mcc").difference_bounds == (-2, 2)
    assert metric_named("nll").difference_bounds == (-np.inf, np.inf)


def test_macro_f1_counts_a_class_that_is_never_predicted() -> None:
    """A class absent from the predictions enters macro-F1 as 0: (2/3 + 0) / 2."""
    assert score("macro_f1", ["a", "b"], ["a", "a"]) == pytest.approx(1 / 3)
    assert per_example("macro_f1", ["a", "b"], ["a", "a"]).mean() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("labels", "predictions"), [("aabb", "aaaa"), ("aaaa", "abab"), ("aaaa", "aaaa")])
def test_mcc_of_one_class_is_zero(labels: str, predictions: str) -> None:
    """Where the Matthews correlation is undefined it is 0, for each example too."""
    assert score("mcc", list(labels), list(predictions)) == 0
    assert per_example("mcc", list(labels), list(predictions)).tolist() == [0.0] * 4


def test_accuracy_per_example_is_zero_or_one() -> None:
    """Accuracy needs no linearisation."""
    assert per_example("accuracy", ["a", "b", "b"], ["a", "a", "b"]).tolist() == [1, 0, 1]


@pytest.mark.parametrize("metric", METRICS)
@given(pairs=PAIRS)
def test_per_example_values_average_to_the_metric(metric: str, pairs: list[tuple[str, str]]) -> None:
    """Whatever the labels and predictions, the mean of the values is the metric, and none is NaN."""
    labels, predictions = [label for label, _ in pairs], [prediction for _, prediction in pairs]
    values = per_example(metric, labels, predictions)
    assert len(values) == len(pairs)
    assert values.mean() == pytest.approx(score(metric, labels, predictions), abs=1e-12)


@given(pairs=PAIRS)
def test_values_of_macro_f1_are_the_jackknifes(pairs: list[tuple[str, str]]) -> None:
    """As by leaving out each example in turn, with classes that vanish; what their mean lacks is the bias."""
    labels, predictions = [label for label, _ in pairs], [prediction for _, prediction in pairs]
    whole, size = score("macro_f1", labels, predictions), len(pairs)
    without = [
        score("macro_f1", labels[:i] + labels[i + 1 :], predictions[:i] + predictions[i + 1 :]) if size > 1 else whole
        for i in range(size)
    ]
    pseudo = size * whole - (size - 1) * np.array(without)
    assert per_example("macro_f1", labels, predictions) == pytest.approx(pseudo - pseudo.mean() + whole, abs=1e-9)
    assert bias("macro_f1", labels, predictions) == pytest.approx(whole - pseudo.mean(), abs=1e-9)


def test_metrics_that_are_means_have_no_bias() -> None:
    """Accuracy of few examples is neither above nor below that of many."""
    assert bias("accuracy", ["a", "b"], ["a", "a"]) == 0 == bias("mcc", ["a", "b"], ["a", "a"])


@pytest.mark.parametrize(("metric", "examples", "apart"), [("mcc", 60, 1e-4), ("macro_f1", 3000, 2e-3)])
def test_influence_is_the_derivative(metric: str, examples: int, apart: float) -> None:
    """Giving one example slightly more weight moves the metric by the example's influence (finite difference).

    Of macro-F1 so in the limit of many examples: the jackknife differs from the slope by their number's inverse.
    """
    labels, predictions = sample(1, examples, 0.5)
    values = per_example(metric, labels, predictions)
    copies = 20_000  # one more copy among 60 × 20,000 is a step of 1 / 1.2 million
    for example in range(0, examples, examples // 9 + 1):
        weights = np.full(examples, copies)
        weights[example] += 1
        moved = weighted(metric, labels, predictions, weights) - weighted(metric, labels, predictions, weights * 0 + 1)
        assert moved * weights.sum() == pytest.approx(values[example] - values.mean(), abs=apart)


def weighted(metric: str, labels: list[str], predictions: list[str], weights: np.ndarray) -> float:
    if metric == "mcc":
        return float(sklearn.metrics.matthews_corrcoef(labels, predictions, sample_weight=weights))
    return float(sklearn.metrics.f1_score(labels, predictions, average="macro", sample_weight=weights))


@pytest.mark.parametrize("metric", ["macro_f1", "mcc"])
def test_standard_error_agrees_with_the_jackknife(metric: str) -> None:
    """The standard error from the values is within 3 % of the leave-one-out jackknife's."""
    labels, predictions = sample(2, 300, 0.7)
    left_out = [score(metric, labels[:i] + labels[i + 1 :], predictions[:i] + predictions[i + 1 :]) for i in range(300)]
    jackknife = np.sqrt(299 / 300 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    ours = per_example(metric, labels, predictions).std(ddof=1) / np.sqrt(300)
    assert ours == pytest.approx(jackknife, rel=0.03)


def test_log_loss_equals_scikit_learn_and_is_clipped() -> None:
    """Log-loss is scikit-learn's on the right label's probability, and a probability of 0 costs −ln 1e-12."""
    probability = np.random.default_rng(0).uniform(0.05, 0.95, 50)
    both = np.stack([1 - probability, probability], axis=1)
    assert log_loss(probability) == pytest.approx(sklearn.metrics.log_loss([1] * 50, both, labels=[0, 1]))
    assert log_loss([0.0]) == pytest.approx(-np.log(1e-12))
    assert log_loss([1.0]) == 0


def test_calibration_error_of_a_worked_example() -> None:
    """Two bins of two: |0.5 − 0.95| and |1 − 0.65|, each half the examples."""
    assert calibration_error([0.94, 0.96, 0.66, 0.64], [True, False, True, True], bins=5) == pytest.approx(0.4)


def test_calibration_error_bins_are_closed_on_the_right() -> None:
    """With two bins 0.5 belongs to the lower one, so its gap cannot cancel that of 0.6."""
    assert calibration_error([0.5, 0.6], [True, False], bins=2) == pytest.approx((0.5 + 0.6) / 2)
    assert calibration_error([0.0, 1.0], [False, True]) == 0


def test_all_scores_has_every_score() -> None:
    """One call gives the five scores under the names the records use."""
    scores = all_scores(["a", "b"], ["a", "a"], [0.9, 0.6], [0.9, 0.4])
    assert list(scores) == ["accuracy", "macro_f1", "mcc", "log_loss", "calibration_error"]
    assert scores["accuracy"] == 0.5
    assert scores["log_loss"] == pytest.approx(-(np.log(0.9) + np.log(0.4)) / 2)
    assert scores["calibration_error"] == pytest.approx((0.1 + 0.6) / 2)


def test_impossible_input_is_refused() -> None:
    """Each kind of nonsense is a ValueError that says what is allowed."""
    with pytest.raises(ValueError, match="allowed: accuracy, macro_f1, mcc"):
        score("f1", ["a"], ["a"])
    with pytest.raises(ValueError, match="2 labels but 1 predictions"):
        per_example("mcc", ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no examples"):
        score("accuracy", [], [])
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        log_loss([float("nan")])
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        calibration_error([1.2], [True])
    with pytest.raises(ValueError, match="1 scores but 2 outcomes"):
        calibration_error([1.0], [True, False])
    with pytest.raises(ValueError, match="at least 1"):
        calibration_error([1.0], [True], bins=0)
