"""Each method's difference to the control within a study, and over several studies.

Not here: which studies are alike (`advise.py`). Within a study the interval is over seeds and test examples; over k
studies it is a t interval with k - 1 degrees of freedom whose error is the larger of what the studies' spread and what
their own intervals say, so that two studies that agree by chance do not look certain.

    pooled([Interval(-0.01, -0.02, 0.0, 8.0), Interval(-0.03, -0.05, -0.01, 6.0)])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.config import JsonObject, canonical_json
from paretune.core.errors import UsageError
from paretune.records.schema import MethodRecord
from paretune.report.facts import LEVEL, StudyFacts, bounds
from paretune.stats.compare import compare
from paretune.stats.intervals import Interval, interval_of, quantile

Key = tuple[str, str]  # a method's kind and its settings: the same method under whatever label


@dataclass(frozen=True)
class Measured:
    """A method in one study: its label there, seeds shared with the control, and its difference to it."""

    label: str
    seeds: int
    difference: Interval


def naming(records: Iterable[MethodRecord]) -> Callable[[MethodRecord], Key]:
    """What tells whether two methods of these studies are the same: equal keys.

    Where a method's settings have other names in some studies (an older version had fewer), what is missing is filled
    with the defaults, which reproduce the older behaviour.
    """
    names: dict[str, set[frozenset[str]]] = {}
    for record in records:
        names.setdefault(record.kind, set()).add(frozenset(record.settings))

    def key(record: MethodRecord) -> Key:
        settings = record.settings if len(names[record.kind]) == 1 else filled(record.kind, record.settings)
        return record.kind, canonical_json(settings)

    return key


def filled(kind: str, settings: JsonObject) -> JsonObject:
    """Settings with the defaults of today; as they are, where there is no such method or setting any more."""
    from paretune.study.design import make_method  # imports torch: only for records of different versions

    try:
        return make_method(kind, settings).settings.model_dump(mode="json")
    except UsageError:
        return settings


def measured_in(facts: StudyFacts, metric: str, key_of: Callable[[MethodRecord], Key]) -> dict[Key, Measured]:
    """All methods of a study that share a seed with its control; the control's difference to itself is 0."""
    values = {method.label: method.examples(metric) for method in facts.scored}
    control = facts.study.control
    found: dict[Key, Measured] = {}
    for method in facts.scored:
        shared = sorted(values[method.label].keys() & values[control].keys())
        if method.label == control:
            difference = Interval(0.0, 0.0, 0.0, math.inf)
        elif shared:
            difference = _difference(facts, values, method.label, control, shared)
        else:
            continue
        key = key_of(method.record)
        key = (key[0], f"{key[1]} {method.label}") if key in found else key  # the same method twice, at other rates
        found[key] = Measured(method.label, len(shared), difference)
    return found


def _difference(
    facts: StudyFacts, values: Mapping[str, Mapping[int, np.ndarray]], label: str, than: str, shared: Sequence[int]
) -> Interval:
    """label - than: the crossed interval, unbounded with one seed."""
    one = compare({than: values[than], label: values[label]}, than, facts.study.margin, LEVEL)[0].difference
    if one is not None:
        return one
    mean = float(np.mean([values[label][seed].mean() - values[than][seed].mean() for seed in shared]))
    return Interval(mean, -math.inf, math.inf, 0.0)


def pooled(differences: Sequence[Interval]) -> Interval:
    """One interval over studies; a single study's is its own."""
    if len(differences) == 1:
        return differences[0]
    estimates = np.array([one.estimate for one in differences])
    studies = len(estimates)
    between = float(estimates.var(ddof=1)) / studies
    errors = [_error(one) for one in differences]
    within = sum(error**2 for error in errors if error is not None) / studies**2
    return interval_of(float(estimates.mean()), math.sqrt(max(between, within)), studies - 1, LEVEL)


def _error(interval: Interval) -> float | None:
    """The standard error behind an interval; None where it has no ends."""
    ends = bounds(interval)
    if ends is None:
        return None
    return (ends[1] - ends[0]) / 2 / quantile(interval.df, 1 - (1 - LEVEL) / 2)


def tied(key: Key, first: Key, studies: Sequence[tuple[StudyFacts, Mapping[Key, Measured]]], metric: str) -> bool:
    """Whether the records leave it open that a method is as good as the first: they share no study, or 0 lies inside.

    The difference of the two is taken within each study that has both, and pooled as any other.
    """
    found: list[Interval] = []
    for facts, table in studies:
        if key not in table or first not in table:
            continue
        labels = table[key].label, table[first].label
        values = {label: facts.by_label[label].examples(metric) for label in labels}
        shared = sorted(values[labels[0]].keys() & values[labels[1]].keys())
        if shared:
            found.append(_difference(facts, values, *labels, shared))
    if not found:
        return True
    ends = bounds(pooled(found))
    return ends is None or ends[0] <= 0 <= ends[1]
