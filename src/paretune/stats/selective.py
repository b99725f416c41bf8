"""Answering only when sure: temperature, threshold and risk-coverage curve.

Not here: which data they are fitted on (`study/`), nor any model. A threshold is empirical: on the data that it was
fitted for it holds exactly, on others it carries no guarantee (El-Yaniv & Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html;
Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500). Temperature: Guo et al. 2017
(https://arxiv.org/abs/1706.04599). Axes: n examples, c classes.

    temperature = fit_temperature(logits_nc, targets_n)
    fit_threshold(confidences(logits_nc, temperature), correct_n, target_risk=0.05)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
HALVINGS = 60
CURVE_POINTS = 50


@dataclass(frozen=True)
class Threshold:
    """Answer where confidence ≥ `value`; `coverage` and `risk` are those on the data that it was fitted on.

    `reachable` is False where no threshold has the wanted risk: then `value` is the one of least risk.
    """

    value: float
    coverage: float
    risk: float
    reachable: bool


@dataclass(frozen=True)
class Point:
    """Answering where confidence ≥ `threshold`: the share answered, and the share wrong of those (0 where none is)."""

    threshold: float
    coverage: float
    risk: float


def probabilities(logits_nc: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits ÷ temperature, in float64."""
    scaled_nc = np.asarray(logits_nc, dtype=float) / temperature
    powers_nc = np.exp(scaled_nc - scaled_nc.max(axis=1, keepdims=True))
    return powers_nc / powers_nc.sum(axis=1, keepdims=True)


def confidences(logits_nc: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The largest probability of each example."""
    return probabilities(logits_nc, temperature).max(axis=1)


def fit_temperature(logits_nc: np.ndarray, targets_n: np.ndarray) -> float:
    """The temperature of least log-loss within 0.05 … 20, against targets that leave room for doubt.

    As in Platt 1999, the true class is wanted with (n + 1) / (n + 2) and the others share the rest: a model that is
    right on all n examples is not made infinitely sure by it. Log-loss is convex in β = 1 / temperature (a log-sum-exp
    less a linear term), so its slope changes sign once and is halved to.

    Raises:
        ValueError: no examples, or other shapes than (n, c) and (n,).
    """
    logits_nc = np.asarray(logits_nc, dtype=float)
    targets_n = np.asarray(targets_n, dtype=int)
    if logits_nc.ndim != 2 or targets_n.shape != logits_nc.shape[:1] or not len(targets_n):
        raise ValueError(f"logits {logits_nc.shape} and targets {targets_n.shape} given; (n, c) and (n,) are needed")
    rows, classes = logits_nc.shape
    of_label_n = logits_nc[np.arange(rows), targets_n]
    of_others_n = (logits_nc.sum(axis=1) - of_label_n) / max(1, classes - 1)
    wanted_n = ((rows + 1) * of_label_n + of_others_n) / (rows + 2)

    def slope(beta: float) -> float:
        return float(((probabilities(logits_nc, 1 / beta) * logits_nc).sum(axis=1) - wanted_n).mean())

    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    if slope(low) >= 0:
        return HIGHEST_TEMPERATURE
    if slope(high) <= 0:
        return LOWEST_TEMPERATURE
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def expected_risk(confidence_n: np.ndarray, correct_n: np.ndarray) -> float:
    """Risk of answering everything: the share wrong, or the mean doubt (1 − confidence) where that is larger."""
    return float(max((~np.asarray(correct_n, dtype=bool)).mean(), (1 - np.asarray(confidence_n, dtype=float)).mean()))


def _steps(confidence_n: np.ndarray, correct_n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct confidences k, highest first, with coverage and risk of answering from each one upwards."""
    confidence_n, correct_n = np.asarray(confidence_n, dtype=float), np.asarray(correct_n, dtype=bool)
    if confidence_n.shape != correct_n.shape or confidence_n.ndim != 1 or not len(confidence_n):
        raise ValueError(f"{confidence_n.shape} confidences and {correct_n.shape} outcomes given; as many are needed")
    order_n = np.argsort(-confidence_n, kind="stable")
    sorted_n, wrong_n = confidence_n[order_n], np.cumsum(~correct_n[order_n])
    last_k = np.flatnonzero(np.append(sorted_n[1:] != sorted_n[:-1], True))  # equal confidences go together
    answered_k = last_k + 1
    return sorted_n[last_k], answered_k / len(sorted_n), wrong_n[last_k] / answered_k


def fit_threshold(confidence_n: np.ndarray, correct_n: np.ndarray, target_risk: float) -> Threshold:
    """The threshold that answers most while the risk of what is answered is at most `target_risk`.

    The risk is the larger of two: the share wrong, which is coarse on few examples and says nothing where none is
    wrong, and the mean doubt (1 − confidence), which is as good as the calibration. The threshold lies halfway between
    the least confidence that is answered and the next lower one, so that a rounding of the confidence changes no
    answer; it is 0 where everything is answered. Where no threshold has that risk, the one of least risk is taken, of
    these the one that answers most.

    Raises:
        ValueError: no examples, unequal numbers, or a target outside 0..1.
    """
    if not 0 <= target_risk <= 1:
        raise ValueError(f"target risk {target_risk} given; it is a share, 0..1")
    value_k, coverage_k, risk_k = _steps(confidence_n, correct_n)
    doubt_n = np.cumsum(1 - np.sort(np.asarray(confidence_n, dtype=float))[::-1])
    answered_k = np.rint(coverage_k * len(doubt_n)).astype(int)
    counted_k = np.maximum(risk_k, doubt_n[answered_k - 1] / answered_k)
    good_k = np.flatnonzero(counted_k <= target_risk)
    reachable = bool(len(good_k))
    place = int(good_k[-1]) if reachable else int(np.flatnonzero(counted_k == counted_k.min())[-1])
    value = float((value_k[place] + value_k[place + 1]) / 2) if place + 1 < len(value_k) else 0.0
    return Threshold(value, float(coverage_k[place]), float(risk_k[place]), reachable)


def at_threshold(confidence_n: np.ndarray, correct_n: np.ndarray, threshold: float) -> Point:
    """Coverage and risk of one threshold on any data."""
    confidence_n, correct_n = np.asarray(confidence_n, dtype=float), np.asarray(correct_n, dtype=bool)
    answered_n = confidence_n >= threshold
    answered = int(answered_n.sum())
    risk = float((answered_n & ~correct_n).sum() / answered) if answered else 0.0
    return Point(float(threshold), answered / max(1, len(confidence_n)), risk)


def risk_coverage(confidence_n: np.ndarray, correct_n: np.ndarray, points: int = CURVE_POINTS) -> list[Point]:
    """The curve, from the surest answers to all of them: at most `points`, evenly spread over the coverage.

    Raises:
        ValueError: no examples, or unequal numbers.
    """
    value_k, coverage_k, risk_k = _steps(confidence_n, correct_n)
    wanted = np.linspace(0, 1, points + 1)[1:]
    places = sorted({min(int(np.searchsorted(coverage_k, one - 1e-12)), len(value_k) - 1) for one in wanted})
    return [Point(float(value_k[place]), float(coverage_k[place]), float(risk_k[place])) for place in places]
