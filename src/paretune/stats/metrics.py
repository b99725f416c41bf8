"""Quality of predictions: one registry of metrics, each with its direction, its bounds and what computes it.

A metric is an object: whoever lists, ranks, bounds or draws metrics asks it, and a name that is not registered is an
error. Not here: intervals or comparisons (`intervals.py`, `compare.py`), sums over tokens (`token_scores.py`),
anything that runs a model.
Source: accuracy, F1 and the Matthews correlation (R_K, Gorodkin 2004) as in scikit-learn; the linearisation is the
delta method (influence function of a smooth function of the confusion matrix); calibration error: Guo et al. 2017.

    score("macro_f1", ["a", "b", "b"], ["a", "b", "a"]); metric_named("nll").merit(2.0) == -2.0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    `score_of` gives the metric of two arrays of names, `values_of` one value per example whose mean is the metric.
    `hub_name` is its name on the Hugging Face Hub.
    """

    score_of: Callable[[np.ndarray, np.ndarray], float]
    values_of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    hub_name: str


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

    A metric is a function f of the confusion matrix P (proportions; row = label, column = prediction). The value of
    an example in cell (a, b) is f + ∂f/∂P_ab − Σ P·∂f: f plus its influence, which averages to zero. For accuracy
    this is plainly 0 or 1; for the others it is the first-order term, whose standard error is that of the delta
    method (close to the jackknife's). Values may lie outside the metric's own range.

    Where `mcc` is undefined it is the constant 0, so each value is 0: the slope there does not exist, and an interval
    made of it says nothing about how near the classifier is to leaving that state.

    Raises:
        ValueError: as in `score`.
    """
    return class_metric(metric).values_of(*_checked(labels, predictions))


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


def _macro_f1_slope(share_lp: np.ndarray) -> np.ndarray:
    """∂(macro F1)/∂P: F1 of class k is 2·P_kk / (row_k + column_k), and no class here has an empty denominator."""
    denominator = share_lp.sum(axis=1) + share_lp.sum(axis=0)
    diagonal = np.diag(share_lp)
    through_marginals = -2 * diagonal / denominator**2
    slope_lp = through_marginals[:, None] + through_marginals[None, :] + np.diag(2 / denominator)
    return slope_lp / len(share_lp)


def _mcc_slope(share_lp: np.ndarray) -> np.ndarray:
    """∂(MCC)/∂P of N / √(A·B): N = tr P − Σ r·c, A = 1 − Σ c², B = 1 − Σ r² (r: labels, c: predictions)."""
    row, column = share_lp.sum(axis=1), share_lp.sum(axis=0)
    if (row > 0).sum() == 1 or (column > 0).sum() == 1:
        return np.zeros_like(share_lp)
    a, b = 1 - column @ column, 1 - row @ row
    value = (np.trace(share_lp) - row @ column) / np.sqrt(a * b)
    numerator_slope_lp = np.eye(len(share_lp)) - column[:, None] - row[None, :]
    return numerator_slope_lp / np.sqrt(a * b) + value * (row[:, None] / b + column[None, :] / a)


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


def _linearised(
    score_of: Callable[[np.ndarray, np.ndarray], float], slope_of: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Values per example of a smooth function of the confusion matrix, from its slope there."""

    def values(labels_n: np.ndarray, predictions_n: np.ndarray) -> np.ndarray:
        classes, codes = np.unique(np.concatenate([labels_n, predictions_n]), return_inverse=True)
        label_codes, prediction_codes = codes[: len(labels_n)], codes[len(labels_n) :]
        share_lp = np.zeros((len(classes), len(classes)))
        np.add.at(share_lp, (label_codes, prediction_codes), 1 / len(labels_n))
        slope_n = slope_of(share_lp)[label_codes, prediction_codes]
        return score_of(labels_n, predictions_n) + slope_n - slope_n.mean()

    return values


M = TypeVar("M", bound=Metric)


def _registered(*metrics: M) -> Mapping[str, M]:
    return {one.name: one for one in metrics}


# May head a study of classes, in the order in which they are listed.
METRICS: Mapping[str, ClassMetric] = _registered(
    ClassMetric("accuracy", "higher", 0.0, 1.0, _accuracy, _hits, "accuracy"),
    ClassMetric("macro_f1", "higher", 0.0, 1.0, _macro_f1, _linearised(_macro_f1, _macro_f1_slope), "f1"),
    ClassMetric("mcc", "higher", -1.0, 1.0, _mcc, _linearised(_mcc, _mcc_slope), "matthews_correlation"),
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
