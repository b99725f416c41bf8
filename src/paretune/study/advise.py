"""Which methods suit a case, by what published records measured on cases like it, and how far it lies from them.

Not here: sentences (`advise_lines.py`), nor any guess: methods are ranked by measured differences in quality to the
studies' control, on studies within a factor of `REACH` of the case; a budget only sorts out. A method is a kind: a
study of one kind's settings ranks nothing, and is told beside (`variants`). Memory is as measured.
Seconds are the records' own throughput (tokens a second over all steps) times the case's tokens, an estimate, so no
rank rests on them. What was measured on another base model says nothing of cost. Nothing alike: no method is ranked.
The majority class, which reads no text, is no method to take: which others are not shown to be better is told.

    advise([Path("results/r8"), Path("results/demo")], Case(rows=800, classes=6, tokens=90)).ranked[0].method
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from paretune.core.config import JsonObject
from paretune.core.errors import ConfigError, said
from paretune.records.schema import MAJORITY
from paretune.records.store import StudyFolder
from paretune.report.facts import bounds, gather
from paretune.stats.intervals import Interval
from paretune.stats.metrics import metric_named
from paretune.study.advise_case import Case, Distance, check_case, distance
from paretune.study.advise_costs import Seconds, peak_memory, seconds_for
from paretune.study.advise_pooling import pooled
from paretune.study.advise_records import Evidence, MethodEvidence, Variants, evidence_of

NEAR = 3.0  # beyond so many times on a side the evidence is called low
SURE_STUDIES, SURE_SEEDS = 2, 5
Fit = Literal["yes", "unsure", "no", "unknown"]


@dataclass(frozen=True)
class Advised:
    """One method. `difference` is to the control, over `studies` and their seeds: its interval is unbounded where one
    seed is all there is, in the only study or in one of two. `rank` is None where a budget rules the method out, or its
    cost is not known.

    `method` is the label that it has in the studies, its kind where they differ. `tied`: the records do not tell it
    apart from the method of rank 1. `stopped` counts its runs that gave no result.
    """

    rank: int | None
    method: str
    kind: str
    settings: JsonObject
    studies: tuple[str, ...]
    seeds: int
    difference: Interval
    peak_memory_bytes: float | None
    seconds: Seconds | None
    memory_fits: Fit
    time_fits: Fit
    tied: bool
    stopped: int

    @property
    def fits(self) -> Fit:
        return _worst(self.memory_fits, self.time_fits)


@dataclass(frozen=True)
class Advice:
    """The answer. `ranked` has every method that was measured near the case, the ranked ones first.

    `near` are the studies it rests on, `far` those that were left out with the reason: "task", "far", "lengths" (not
    recorded), "settings" (of one kind of method alone), "majority" (nothing else was scored), "control" (never scored,
    or another one) or "records" (incomplete, or they do not hold). `low` says why the evidence is low: "one_study",
    "pilot", "far", "model", "script". `variants` are settings within a method, by study. `never_scored` are methods of
    near studies whose every run gave no result, with the states they ended in. `machines`: processor and cores behind
    the costs. `majority`: the near studies that have the majority class, and `not_above_majority` the kinds of method
    that those, taken together, do not show to be better than it.
    """

    case: Case
    metric: str | None
    control: str | None
    model: str | None
    near: tuple[Distance, ...]
    far: tuple[tuple[Distance, str], ...]
    ranked: tuple[Advised, ...]
    never_scored: tuple[tuple[str, str, tuple[str, ...]], ...]
    machines: tuple[tuple[str, str], ...]
    variants: tuple[tuple[str, Variants], ...] = ()
    low: tuple[str, ...] = ()
    majority: tuple[str, ...] = ()
    not_above_majority: tuple[str, ...] = ()

    @property
    def nothing_comparable(self) -> bool:
        return not self.ranked

    @property
    def nothing_learnt(self) -> bool:
        """Whether all ranked methods were held against the majority class and none is shown to be better."""
        return bool(self.not_above_majority) and len(self.not_above_majority) == len(self.ranked)


def advise(folders: Sequence[Path], case: Case) -> Advice:
    """Rank the methods of published studies for a case.

    Raises:
        ConfigError: a case that is none, no folder, or a study twice.
        RecordError: a folder is no study's, or a record of it is torn.
    """
    check_case(case)
    return advise_on([evidence_of(gather(StudyFolder(folder))) for folder in folders], case)


def advise_on(studies: Sequence[Evidence], case: Case) -> Advice:
    """The same from evidence that was gathered already."""
    check_case(case)
    if not studies:
        raise ConfigError(
            said("no studies", "at least one published study's folder", do="`paretune publish` makes one")
        )
    names = [study.study for study in studies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(said(f"study {', '.join(twice)} twice", "each study once: it would count double"))
    found = sorted(((study, distance(case, study)) for study in studies), key=lambda pair: _how_near(pair[1]))
    near, far = _chosen(case, found)
    told = {*(study.study for study, _ in near), *(apart.study for apart, why in far if why == "settings")}
    variants = tuple((study.study, one) for study, _ in found if study.study in told for one in study.variants)
    if not near:
        return Advice(case, case.metric, None, case.model, (), tuple(far), (), (), (), variants)
    first, _ = near[0]
    model, metric = case.model or first.model, case.metric or first.metric
    ranked = _ranked(case, model, metric, first.control, [study for study, _ in near])
    silent = [(study.study, method, tuple(states)) for study, _ in near for method, states in study.silent.items()]
    machines = dict.fromkeys((study.processor, study.cores) for study, apart in near if apart.model == model)
    control = next((one.method for one in ranked if one.kind == first.control), first.control)
    return Advice(
        case, metric, control, model, tuple(apart for _, apart in near), tuple(far), tuple(ranked), tuple(silent),
        tuple(machines), variants, _low(near),
        tuple(study.study for study, _ in near if study.method(MAJORITY) is not None),
        tuple(one.kind for one in ranked if _above_majority(one.kind, [study for study, _ in near], metric) is False),
    )  # fmt: skip


def _how_near(apart: Distance) -> tuple[bool, bool, bool, float, str]:
    """Sorts studies: those of the same base model and script first, then by distance."""
    return not apart.comparable, apart.other_script is True, apart.other_model is True, apart.total, apart.study


def _low(near: Sequence[tuple[Evidence, Distance]]) -> tuple[str, ...]:
    """Why little rests on the near studies; empty where much does."""
    sources = {study.data for study, _ in near}
    reasons = {
        "one_study": len(sources) < SURE_STUDIES,
        "pilot": max(study.seeds for study, _ in near) < SURE_SEEDS,
        "far": min(max(abs(one) for one in apart.logs) for _, apart in near) > math.log(NEAR),
        "script": all(apart.other_script is True for _, apart in near),
        "model": all(apart.other_model is True for _, apart in near),
    }
    return tuple(name for name, holds in reasons.items() if holds)


def _chosen(
    case: Case, found: Sequence[tuple[Evidence, Distance]]
) -> tuple[list[tuple[Evidence, Distance]], list[tuple[Distance, str]]]:
    """Studies that tell of the case, nearest first, all with one kind of control; and the others with the reason."""
    near: list[tuple[Evidence, Distance]] = []
    far: list[tuple[Distance, str]] = []
    for study, apart in found:
        if not study.holds:
            far.append((apart, "records"))
        elif not study.control:
            far.append((apart, "control"))
        elif study.tasks != [case.task]:
            far.append((apart, "task"))
        elif apart.tokens is None:
            far.append((apart, "lengths"))
        elif not apart.comparable:
            far.append((apart, "far"))
        elif all(method.kind == MAJORITY for method in study.methods):
            far.append((apart, "majority"))
        elif len(study.methods) == 1 and study.variants:
            far.append((apart, "settings"))
        elif near and near[0][0].control != study.control:
            far.append((apart, "control"))
        else:
            near.append((study, apart))
    return near, far


def _ranked(case: Case, model: str, metric: str, control: str, near: Sequence[Evidence]) -> list[Advised]:
    """All methods near the case: those that fit by their difference to the control, then the others likewise."""
    kinds = list(dict.fromkeys(method.kind for study in near for method in study.methods if method.kind != MAJORITY))
    found = [_advised(case, model, metric, kind, control, near) for kind in kinds]
    advised = sorted(
        (one for one in found if one is not None),
        key=lambda one: (one.fits in ("no", "unknown"), -metric_named(metric).merit(one.difference.estimate)),
    )
    kept = [one.kind for one in advised if one.fits in ("yes", "unsure")]
    result: list[Advised] = []
    for one in advised:
        rank = kept.index(one.kind) + 1 if one.kind in kept else None
        alike = rank is not None and rank > 1 and _tied(one.kind, kept[0], near, metric)
        result.append(replace(one, rank=rank, tied=alike))
    return result


def _tied(kind: str, first: str, near: Sequence[Evidence], metric: str) -> bool:
    """Whether the records leave it open that a method is as good as the first: they share no study, or 0 lies inside.

    The difference of the two is taken within each study that has both, and pooled as any other.
    """
    difference = _between(kind, first, near, metric)
    ends = bounds(difference)
    return ends is None or ends[0] <= 0 <= ends[1]


def _above_majority(kind: str, near: Sequence[Evidence], metric: str) -> bool | None:
    """Whether a method is shown to be better than the majority class; None where no study has both."""
    difference = _between(kind, MAJORITY, near, metric)
    if difference is None:
        return None
    ends = bounds(difference)
    return ends is not None and min(metric_named(metric).merit(end) for end in ends) > 0


def _between(kind: str, than: str, near: Sequence[Evidence], metric: str) -> Interval | None:
    """kind − than over the studies that have both; None where none has."""
    found = [one.interval for one in (study.difference(kind, than, metric) for study in near) if one is not None]
    return pooled(found, metric_named(metric).difference_bounds) if found else None


def _advised(case: Case, model: str, metric: str, kind: str, control: str, near: Sequence[Evidence]) -> Advised | None:
    """One method over all near studies; its costs from those on the case's base model alone. None where it shares no
    seed with a control."""
    here: list[tuple[Evidence, MethodEvidence, int, Interval]] = []
    for study in near:
        method = study.method(kind)
        if method is None:
            continue
        if kind == control:
            here.append((study, method, method.seeds, Interval(0.0, 0.0, 0.0, math.inf)))
        elif (difference := study.difference(kind, control, metric)) is not None:
            here.append((study, method, difference.seeds, difference.interval))
    if not here:
        return None
    same = [(study, method) for study, method, _, _ in here if study.model == model]
    memory = peak_memory(same, case.rows, case.tokens)
    seconds = seconds_for(same, case.rows, case.tokens)
    labels = {method.label for _, method, _, _ in here}
    return Advised(
        rank=None,
        method=labels.pop() if len(labels) == 1 else kind,
        kind=kind,
        settings=here[0][1].settings,
        studies=tuple(study.study for study, _, _, _ in here),
        seeds=sum(seeds for _, _, seeds, _ in here),
        difference=pooled([one for _, _, _, one in here], metric_named(metric).difference_bounds),
        peak_memory_bytes=memory,
        seconds=seconds,
        memory_fits=_within(memory, memory, case.memory_bytes),
        time_fits=_within(*((seconds.low, seconds.high) if seconds else (None, None)), case.seconds),
        tied=False,
        stopped=sum(sum(method.stopped.values()) for _, method, _, _ in here),
    )  # fmt: skip


def _within(low: float | None, high: float | None, limit: float | None) -> Fit:
    """Whether a cost keeps a limit, all of its interval considered."""
    if limit is None:
        return "yes"
    if low is None or high is None:
        return "unknown"
    return "yes" if high <= limit else "no" if low > limit else "unsure"


def _worst(*fits: Fit) -> Fit:
    order: tuple[Fit, ...] = ("yes", "unsure", "unknown", "no")
    return max(fits, key=order.index)
