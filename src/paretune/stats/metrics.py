"""Quality of predictions: one registry of metrics, each with its direction, its bounds and what computes it.

A metric is an object: whoever lists, ranks, bounds or draws metrics asks it, and a name that is not registered is an
error. Not here: intervals or comparisons (`intervals.py`, `compare.py`), sums over tokens (`token_scores.py`),
anything that runs a model.
Source: accuracy, F1 and the Matthews correlation (R_K, Gorodkin 2004) as in scikit-learn; per example,
the jackknife (Efron & Stein 1981) and the delta method; calibration error: Guo et al. 2017.

    score("macro_f1", ["a", "b", "b"], ["a", "b", "a"]); metric_named("nll").merit(2.0) == -2.0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, assert_never

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

Direction = Literal["higher", "lower"]  # which values are better
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are: which values are better, and between which ones all lie."""

    name: str
    direction: Direction
    lowest: float
    highest: float
    undefined: float | None = field(default=None, kw_only=True)  # what it is called where it has no value

    def merit(self, value: float) -> float:
        """The value with the sign that makes more better."""
        match self.direction:
            case "higher":
                return value
            case "lower":
                return -value
            case _:
                assert_never(self.direction)

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value there is; infinite where there is none."""
        return self.lowest, self.highest

    @property
    def difference_bounds(self) -> tuple[float, float]:
        """The lowest and the highest difference of two values."""
        return self.lowest - self.highest, self.highest - self.lowest


@dataclass(frozen=True)
class ClassMetric(Metric):
    """A metric of labels and predicted labels; it may head a study.

    `score_of` gives the metric of two arrays of names, `values_of` one value per example whose mean is the metric, and
    `bias_of` how far the metric of so few examples is expected to lie from that of all there could be (the
    jackknife's; 0 for a plain mean). `hub_name` is its name on the Hugging Face Hub; `classes_alike`: a rare class
    counts as much as a frequent one.
    """

    score_of: Callable[[np.ndarray, np.ndarray], float]
    values_of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    bias_of: Callable[[np.ndarray, np.ndarray], float]
    hub_name: str
    classes_alike: bool = False


def score(metric: str, labels: Sequence[str], predictions: Sequence[str]) -> float:
    """The metric's value, as scikit-learn gives it.

    `macro_f1` is over the classes that appear in the labels or in the predictions. `mcc` is 0 where it is undefined
    (one class only among the labels or among the predictions).

    Raises:
        ValueError: unknown metric, no examples, or as many labels as predictions were not given.
    """
    return class_metric(metric).score_of(*_checked(labels, predictions))


def per_example(metric: str, labels: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """One value per example, whose mean is the metric; what paired comparisons average over examples.

    For accuracy it is plainly 0 or 1. For macro-F1 it is the jackknife's pseudo-value, n·f − (n − 1)·f without the
    example, less the bias that these have on average: classes with a handful of examples bend the metric so much that
    its slope alone gives too narrow intervals. `mcc` is a function f of the confusion matrix P (proportions; row =
    label, column = prediction); the value of an example in cell (a, b) is f + ∂f/∂P_ab − Σ P·∂f: f plus its influence,
    which averages to zero. Values may lie outside the metric's own range.

    Where `mcc` is undefined it is the constant 0, so each value is 0: the slope there does not exist, and an interval
    made of it says nothing about how near the classifier is to leaving that state.

    Raises:
        ValueError: as in `score`.
    """
    return class_metric(metric).values_of(*_checked(labels, predictions))


def bias(metric: str, labels: Sequence[str], predictions: Sequence[str]) -> float:
    """How far the metric of these examples is expected to lie above that of all there could be, by the jackknife.

    Raises:
        ValueError: as in `score`.
    """
    return class_metric(metric).bias_of(*_checked(labels, predictions))


def log_loss(label_probability: Sequence[float] | np.ndarray) -> float:
    """Mean negative logarithm (nats) of the probability given to the right label, which is clipped at 1e-12.

    Raises:
        ValueError: no values, or one outside 0..1.
    """
    return float(-np.log(np.clip(_probabilities(label_probability), SMALLEST_PROBABILITY, 1.0)).mean())


def calibration_error(
    score: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray, bins: int = 15
) -> float:
    """Expected calibration error: the mean |accuracy − confidence| over bins, weighted by their examples.

    `score` is the probability of the predicted label; bins are `bins` equal widths of (0, 1], closed on the right
    (Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3).

    Raises:
        ValueError: no values, one outside 0..1, unequal lengths or no bins.
    """
    confidence = _probabilities(score)
    hit = np.asarray(correct, dtype=float)
    if hit.shape != confidence.shape:
        raise ValueError(f"{len(confidence)} scores but {len(hit)} outcomes; one outcome a score is needed")
    if bins < 1:
        raise ValueError(f"{bins} bins given; at least 1 is needed")
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap_per_bin = np.bincount(bin_of, weights=hit - confidence, minlength=bins)
    return float(np.abs(gap_per_bin).sum() / len(confidence))


def all_scores(
    labels: Sequence[str],
    predictions: Sequence[str],
    score: Sequence[float] | np.ndarray,
    label_probability: Sequence[float] | np.ndarray,
) -> dict[str, float]:
    """Every score of one run on one split: the three metrics, `log_loss` and `calibration_error`.

    `score` is the probability of the predicted label, `label_probability` that of the right one.

    Raises:
        ValueError: as in the single scores.
    """
    scores = {metric: _score(metric, labels, predictions) for metric in METRICS}
    scores["log_loss"] = log_loss(label_probability)
    correct = np.asarray(labels, dtype=str) == np.asarray(predictions, dtype=str)
    scores["calibration_error"] = calibration_error(score, correct)
    return scores


_score = score  # `all_scores` has an argument of the record column's name, "score"


def _macro_f1_left_out(labels_n: np.ndarray, predictions_n: np.ndarray) -> tuple[float, np.ndarray]:
    """Macro-F1, and what it would be without each of the examples (nothing is left without the only one: its own).

    F1 of class k is 2·P_kk / (row_k + column_k). Leaving out a right example changes one class, a wrong one two; a
    class whose last example or prediction goes is no longer averaged over.
    """
    classes, codes = np.unique(np.concatenate([labels_n, predictions_n]), return_inverse=True)
    label_n, prediction_n = codes[: len(labels_n)], codes[len(labels_n) :]
    right_n = label_n == prediction_n
    both_c = np.bincount(label_n, minlength=len(classes)) + np.bincount(prediction_n, minlength=len(classes))
    hit_c = np.bincount(label_n[right_n], minlength=len(classes))
    f1_c = 2 * hit_c / both_c
    total, value = float(f1_c.sum()), float(f1_c.mean())
    if len(labels_n) == 1:
        return value, np.array([value])

    def without(class_n: np.ndarray, fewer_n: np.ndarray, fewer_hits_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F1 of a class without an example of it, and whether the class is gone."""
        left_n = both_c[class_n] - fewer_n
        gone_n = left_n <= 0
        return np.where(gone_n, 0.0, 2 * (hit_c[class_n] - fewer_hits_n) / np.where(gone_n, 1, left_n)), gone_n

    own_n, own_gone_n = without(label_n, np.where(right_n, 2, 1), right_n.astype(int))
    other_n, other_gone_n = without(prediction_n, np.ones_like(label_n), np.zeros_like(label_n))
    changed_n = own_n - f1_c[label_n] + np.where(right_n, 0.0, other_n - f1_c[prediction_n])
    left_n = len(classes) - own_gone_n - (other_gone_n & ~right_n)
    return value, (total + changed_n) / left_n


def _macro_f1_values(labels_n: np.ndarray, predictions_n: np.ndarray) -> np.ndarray:
    value, left_out_n = _macro_f1_left_out(labels_n, predictions_n)
    return value - (len(left_out_n) - 1) * (left_out_n - left_out_n.mean())


def _macro_f1_bias(labels_n: np.ndarray, predictions_n: np.ndarray) -> float:
    value, left_out_n = _macro_f1_left_out(labels_n, predictions_n)
    return (len(left_out_n) - 1) * float(left_out_n.mean() - value)


def _mcc_and_slope(share_lp: np.ndarray) -> tuple[float, np.ndarray]:
    """MCC, and ∂(MCC)/∂P of N / √(A·B): N = tr P − Σ r·c, A = 1 − Σ c², B = 1 − Σ r² (r: labels, c: predictions)."""
    row, column = share_lp.sum(axis=1), share_lp.sum(axis=0)
    if (row > 0).sum() == 1 or (column > 0).sum() == 1:
        return 0.0, np.zeros_like(share_lp)
    a, b = 1 - column @ column, 1 - row @ row
    value = (np.trace(share_lp) - row @ column) / np.sqrt(a * b)
    numerator_slope_lp = np.eye(len(share_lp)) - column[:, None] - row[None, :]
    return float(value), numerator_slope_lp / np.sqrt(a * b) + value * (row[:, None] / b + column[None, :] / a)


def _checked(labels: Sequence[str], predictions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels but {len(predictions)} predictions; one a label is needed")
    if len(labels) == 0:
        raise ValueError("no examples given; a metric needs at least one")
    return np.asarray(labels, dtype=str), np.asarray(predictions, dtype=str)


def _probabilities(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.size == 0 or not bool(np.all((array >= 0) & (array <= 1 + 1e-6))):
        raise ValueError("probabilities must be at least one number, each within 0..1")
    return np.minimum(array, 1.0)  # float32 soft-max can end a hair above 1


def _accuracy(labels_n: np.ndarray, predictions_n: np.ndarray) -> float:
    return float(accuracy_score(labels_n, predictions_n))


def _hits(labels_n: np.ndarray, predictions_n: np.ndarray) -> np.ndarray:
    return (labels_n == predictions_n).astype(float)


def _macro_f1(labels_n: np.ndarray, predictions_n: np.ndarray) -> float:
    return float(f1_score(labels_n, predictions_n, average="macro"))


def _mcc(labels_n: np.ndarray, predictions_n: np.ndarray) -> float:
    if len(np.unique(labels_n)) == 1 or len(np.unique(predictions_n)) == 1:
        return 0.0
    return float(matthews_corrcoef(labels_n, predictions_n))


def _mcc_values(labels_n: np.ndarray, predictions_n: np.ndarray) -> np.ndarray:
    classes, codes = np.unique(np.concatenate([labels_n, predictions_n]), return_inverse=True)
    label_codes, prediction_codes = codes[: len(labels_n)], codes[len(labels_n) :]
    share_lp = np.zeros((len(classes), len(classes)))
    np.add.at(share_lp, (label_codes, prediction_codes), 1 / len(labels_n))
    value, slope_lp = _mcc_and_slope(share_lp)
    slope_n = slope_lp[label_codes, prediction_codes]
    return value + slope_n - slope_n.mean()


def _unbiased(labels_n: np.ndarray, predictions_n: np.ndarray) -> float:
    """Accuracy is a plain mean; what the Matthews correlation lacks is small beside its error."""
    return 0.0


M = TypeVar("M", bound=Metric)


def _registered(*metrics: M) -> Mapping[str, M]:
    return {one.name: one for one in metrics}


# May head a study of classes, in the order in which they are listed.
METRICS: Mapping[str, ClassMetric] = _registered(
    ClassMetric("accuracy", "higher", 0.0, 1.0, _accuracy, _hits, _unbiased, "accuracy"),
    ClassMetric("macro_f1", "higher", 0.0, 1.0, _macro_f1, _macro_f1_values, _macro_f1_bias, "f1", True),
    ClassMetric("mcc", "higher", -1.0, 1.0, _mcc, _mcc_values, _unbiased, "matthews_correlation", undefined=0.0),
)
# Stand beside them; a classifier without probabilities has none of them.
PROBABILITY_METRICS: Mapping[str, Metric] = _registered(
    Metric("log_loss", "lower", 0.0, -math.log(SMALLEST_PROBABILITY)), Metric("calibration_error", "lower", 0.0, 1.0)
)
# May head a study of next tokens; computed in `token_scores.py`.
TOKEN_METRICS: Mapping[str, Metric] = _registered(
    Metric("nll", "lower", 0.0, math.inf),
    Metric("perplexity", "lower", 1.0, math.inf),
    Metric("bits_per_byte", "lower", 0.0, math.inf),
)
ALL_METRICS: Mapping[str, Metric] = {**METRICS, **PROBABILITY_METRICS, **TOKEN_METRICS}


def metric_named(name: str) -> Metric:
    """Any registered metric.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in ALL_METRICS:
        raise ValueError(f"unknown metric {name!r}; allowed: {', '.join(ALL_METRICS)}")
    return ALL_METRICS[name]


def class_metric(name: str) -> ClassMetric:
    """A registered metric of labels and predictions.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; allowed: {', '.join(METRICS)}")
    return METRICS[name]


def merit(metric: str, value: float) -> float:
    """The value of a metric with the sign that makes more better.

    Raises:
        ValueError: unknown metric.
    """
    return metric_named(metric).merit(value)
