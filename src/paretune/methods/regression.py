"""Multinomial logistic regression with an L2 penalty, fitted until it converges, its settings chosen on validation
data.

What the cheap methods share: a head on frozen features (`probe.py`) and TF-IDF (`baselines.py`). Tried are the
penalty's strengths, each kind of features that is offered, and, where the metric counts classes alike, weights that do
too. Of the settings that do not differ from the best beyond noise (`stats/noise.py`) the one with the lowest log-loss
is taken: it is smooth where the metric of some hundred examples goes in steps. A choice at an edge of the strengths
extends them. Not here: where features come from. Source: scikit-learn's L-BFGS (https://scikit-learn.org,
LogisticRegression).

    searched({"plain": train_nh}, labels_n, {"plain": validation_mh}, labels_m, ("a", "b"), "accuracy", (1.0, 10.0))
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import numpy as np
from pydantic import AfterValidator, Field
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from paretune.core.errors import RunError, said
from paretune.methods.method import Choice
from paretune.stats.metrics import class_metric, log_loss, per_example
from paretune.stats.noise import nearly_best

Features = np.ndarray | csr_matrix
EXTENSIONS = 2  # times that the search goes past an edge
STEP = 10.0  # between strengths past the edge
TOLERANCE = 1e-6  # of the mean loss's largest slope
MOST_ITERATIONS = 10_000
# Multiplications of one pass over dense data below which several threads of the BLAS cost more than they save: L-BFGS
# makes hundreds of passes, and threads that wait for each other beside other work took 13 times as long as one.
# Products with sparse data have one thread anyway.
ONE_THREAD_BELOW = 10**8
NEVER = -1e4  # the score of a class that no training row has


def _strengths(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 < one < math.inf for one in values) or len(set(values)) != len(values):
        raise ValueError(said(f"{list(values)}", "values of C above 0, none twice"))
    return values


Strengths = Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(_strengths)]


@dataclass(frozen=True)
class Setting:
    """What is tried: the features, whether rare classes weigh as much as frequent ones, and C (less is more
    penalty)."""

    features: str
    balanced: bool
    strength: float

    def __str__(self) -> str:
        return f"{self.features}, {'balanced' if self.balanced else 'unweighted'}, C={self.strength:g}"


@dataclass(frozen=True)
class Fit:
    """A fitted setting: weights (c, h) and biases (c) in the order of the labels."""

    setting: Setting
    weight_ch: np.ndarray
    bias_c: np.ndarray

    def probabilities(self, features: Features) -> np.ndarray:
        """Shape (n, c) in the order of the labels."""
        return _softmax(np.asarray(features @ self.weight_ch.T) + self.bias_c)


@dataclass(frozen=True)
class Tried:
    """How good a setting is on validation data; `values_m` has one value an example, whose mean is the metric. Its
    weights are not kept: those of some settings of TF-IDF would fill the memory."""

    setting: Setting
    values_m: np.ndarray
    log_loss: float


@dataclass(frozen=True)
class Searched:
    """The fit that is taken, and the choice as it is recorded."""

    fit: Fit
    choice: Choice


def searched(
    train: Mapping[str, Features],
    train_labels: Sequence[str],
    validation: Mapping[str, Features],
    validation_labels: Sequence[str],
    labels: tuple[str, ...],
    metric: str,
    strengths: Sequence[float],
) -> Searched:
    """Fit every setting, choose one and fit it anew; `train` and `validation` map a kind of features to them.

    A fit past an edge that does not converge ends the search there, at an edge.

    Raises:
        RunError: a fit of one of `strengths` that does not converge.
    """
    balances = (False, True) if class_metric(metric).classes_alike else (False,)
    tried: list[Tried] = []

    def go_through(features: str, balanced: bool, wanted: Sequence[float]) -> None:
        regression = _regression(balanced)
        for strength in sorted(wanted):  # each begins where the one before ended
            fit = _fitted(regression, Setting(features, balanced, strength), train[features], train_labels, labels)
            tried.append(_judged(fit, validation[features], validation_labels, labels, metric))

    for features in train:
        for balanced in balances:
            go_through(features, balanced, strengths)
    extended = 0
    best, tied = _choose(tried)
    while extended < EXTENSIONS and (beyond := _beyond(best, tried)) is not None:
        try:
            go_through(best.setting.features, best.setting.balanced, [beyond])
        except RunError:  # nobody asked for that strength
            break
        extended += 1
        best, tied = _choose(tried)
    setting = best.setting
    choice = Choice(
        setting={
            "features": setting.features,
            "class_weights": "balanced" if setting.balanced else "none",
            "strength": setting.strength,
        },
        trials={str(one.setting): float(one.values_m.mean()) for one in tried},
        tied=tuple(str(one.setting) for one in tied if one is not best),
        extended=extended,
        edge=_beyond(best, tried) is not None,
    )
    last = _regression(setting.balanced).set_params(max_iter=3 * MOST_ITERATIONS)  # it begins at zero: some need more
    return Searched(_fitted(last, setting, train[setting.features], train_labels, labels), choice)


def _regression(balanced: bool) -> LogisticRegression:
    weights = "balanced" if balanced else None
    return LogisticRegression(max_iter=MOST_ITERATIONS, tol=TOLERANCE, class_weight=weights, warm_start=True)


def _fitted(
    regression: LogisticRegression,
    setting: Setting,
    features: Features,
    train_labels: Sequence[str],
    labels: tuple[str, ...],
) -> Fit:
    """One setting; a class that training lacks is never answered."""
    present = sorted(set(train_labels))
    weight_ch, bias_c = np.zeros((len(labels), _width(features))), np.full(len(labels), NEVER)
    place = [labels.index(label) for label in present]
    if len(present) == 1:
        bias_c[place] = 0.0
        return Fit(setting, weight_ch, bias_c)
    regression.set_params(C=setting.strength)
    dense = isinstance(features, np.ndarray)
    small = not dense or len(train_labels) * _width(features) * len(present) < ONE_THREAD_BELOW
    with threadpool_limits(1 if small else None), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            regression.fit(features, list(train_labels))
        except ConvergenceWarning:
            given = f"logistic regression ({setting}) has not converged after {regression.max_iter} iterations"
            raise RunError(said(given, "a fit that converges", do="leave out the largest strengths")) from None
    weights, biases = np.asarray(regression.coef_, dtype=float), np.asarray(regression.intercept_, dtype=float)
    if len(present) == 2:  # one row: that of the second class against the first
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    weight_ch[place], bias_c[place] = weights, biases
    return Fit(setting, weight_ch, bias_c)


def _width(features: Features) -> int:
    return cast(tuple[int, int], features.shape)[1]


def _judged(fit: Fit, features: Features, truth: Sequence[str], labels: tuple[str, ...], metric: str) -> Tried:
    probabilities_mc = fit.probabilities(features)
    answers = [labels[place] for place in probabilities_mc.argmax(axis=1)]
    right_m = probabilities_mc[np.arange(len(truth)), [labels.index(label) for label in truth]]
    loss = log_loss(right_m)
    if class_metric(metric).classes_alike:
        truth_m = np.asarray(truth)
        loss = float(np.mean([log_loss(right_m[truth_m == label]) for label in sorted(set(truth))]))
    return Tried(fit.setting, per_example(metric, truth, answers), loss)


def _choose(tried: Sequence[Tried]) -> tuple[Tried, list[Tried]]:
    """The setting with the lowest log-loss of those that are tied with the best, and the tied ones."""
    found = nearly_best([one.values_m for one in tried])
    tied = [one for one, near in zip(tried, found.tied, strict=True) if near]
    return min(tied, key=lambda one: one.log_loss), tied


def _beyond(best: Tried, tried: Sequence[Tried]) -> float | None:
    """The strength past the edge at which a setting stands; None where it has neighbours on both sides."""
    own = [
        one.setting.strength
        for one in tried
        if (one.setting.features, one.setting.balanced) == (best.setting.features, best.setting.balanced)
    ]
    if len(own) < 2:
        return None
    if best.setting.strength == max(own):
        return max(own) * STEP
    return min(own) / STEP if best.setting.strength == min(own) else None


def _softmax(scores_nc: np.ndarray) -> np.ndarray:
    shifted_nc = np.exp(scores_nc - scores_nc.max(axis=1, keepdims=True))
    return shifted_nc / shifted_nc.sum(axis=1, keepdims=True)
