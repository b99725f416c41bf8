"""Quality of a classifier's predictions: the metrics, and their shares per example.

Not here: intervals or comparisons (`intervals.py`, `compare.py`), generation metrics, anything that runs a model.
Source: accuracy, F1 and the Matthews correlation (R_K, Gorodkin 2004) as in scikit-learn; the linearisation is the
delta method (influence function of a smooth function of the confusion matrix); calibration error: Guo et al. 2017.

    score("macro_f1", ["a", "b", "b"], ["a", "b", "a"])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

METRICS = ("accuracy", "macro_f1", "mcc")
SMALLEST_PROBABILITY = 1e-12


def score(metric: str, labels: Sequence[str], predictions: Sequence[str]) -> float:
    """The metric's value, as scikit-learn gives it.

    `macro_f1` is over the classes that appear in the labels or in the predictions. `mcc` is 0 where it is undefined
    (one class only among the labels or among the predictions).

    Raises:
        ValueError: unknown metric, no examples, or as many labels as predictions were not given.
    """
    _check(metric, labels, predictions)
    label_array, prediction_array = np.asarray(labels, dtype=str), np.asarray(predictions, dtype=str)
    if metric == "accuracy":
        return float(accuracy_score(label_array, prediction_array))
    if metric == "macro_f1":
        return float(f1_score(label_array, prediction_array, average="macro"))
    if len(set(labels)) == 1 or len(set(predictions)) == 1:
        return 0.0
    return float(matthews_corrcoef(label_array, prediction_array))


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
    value = score(metric, labels, predictions)
    label_array, prediction_array = np.asarray(labels, dtype=str), np.asarray(predictions, dtype=str)
    if metric == "accuracy":
        return (label_array == prediction_array).astype(float)
    classes, codes = np.unique(np.concatenate([label_array, prediction_array]), return_inverse=True)
    label_codes, prediction_codes = codes[: len(labels)], codes[len(labels) :]
    share_lp = np.zeros((len(classes), len(classes)))
    np.add.at(share_lp, (label_codes, prediction_codes), 1 / len(labels))
    slope_lp = _macro_f1_slope(share_lp) if metric == "macro_f1" else _mcc_slope(share_lp)
    slope = slope_lp[label_codes, prediction_codes]
    return value + slope - slope.mean()


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


def _check(metric: str, labels: Sequence[str], predictions: Sequence[str]) -> None:
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; allowed: {', '.join(METRICS)}")
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels but {len(predictions)} predictions; one a label is needed")
    if len(labels) == 0:
        raise ValueError("no examples given; a metric needs at least one")


def _probabilities(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.size == 0 or not bool(np.all((array >= 0) & (array <= 1 + 1e-6))):
        raise ValueError("probabilities must be at least one number, each within 0..1")
    return np.minimum(array, 1.0)  # float32 soft-max can end a hair above 1
