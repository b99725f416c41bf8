"""Which methods suit a case, by what published records measured on cases like it, and how far it lies from them.

Not here: sentences (`advise_lines.py`), nor any guess: methods are ranked by measured differences in quality to the
studies' control, on studies within a factor of `REACH` of the case; a budget only sorts out. Memory is as measured.
Seconds are the records' own throughput (tokens a second over all steps) times the case's tokens, an estimate, so no
rank rests on them. What was measured on another base model says nothing of cost. Nothing alike: no method is ranked.

    advise([Path("results/r8"), Path("results/demo")], Case(rows=800, classes=6, tokens=90)).ranked[0].method
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from paretune.core.config import JsonObject
from paretune.core.errors import ConfigError, said
from paretune.records.schema import MethodRecord
from paretune.records.store import StudyFolder
from paretune.report.facts import StudyFacts, gather
from paretune.stats.intervals import Interval
from paretune.study.advise_case import Case, Distance, check_case, distance
from paretune.study.advise_costs import Seconds, peak_memory, seconds_for
from paretune.study.advise_pooling import Key, Measured, measured_in, naming, pooled, tied

Fit = Literal["yes", "unsure", "no", "unknown"]


@dataclass(frozen=True)
class Advised:
    """One method. `difference` is to the control, over `studies` and their seeds: its interval is unbounded where one
    seed of one study is all there is. `rank` is None where a budget rules the method out, or its cost is not known.

    `tied`: the records do not tell it apart from the method of rank 1. `stopped` counts its runs that gave no result.
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
    recorded) or "control" (never scored, or another one). `never_scored` are methods of near studies whose every run
    gave no result, with the states they ended in. `machines`: processor and cores behind the costs.
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

    @property
    def nothing_comparable(self) -> bool:
        return not self.ranked


def advise(folders: Sequence[Path], case: Case) -> Advice:
    """Rank the methods of published studies for a case.

    Raises:
        ConfigError: a case that is none, no folder, or a study twice.
        RecordError: a folder is no study's, or a record of it is torn.
    """
    check_case(case)
    if not folders:
        raise ConfigError(
            said("no studies", "at least one published study's folder", do="`paretune publish` makes one")
        )
    found = [(facts, distance(case, facts)) for facts in map(_gathered, folders)]
    names = [facts.study.name for facts, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(said(f"study {', '.join(twice)} twice", "each study once: it would count double"))
    found.sort(key=lambda pair: _how_near(pair[1]))
    key_of = naming(method.record for facts, _ in found for method in facts.methods)
    near, far = _chosen(case, found, key_of)
    if not near:
        return Advice(case, case.metric, None, case.model, (), tuple(far), (), (), ())
    first, _ = near[0]
    model, metric = case.model or first.study.model_source, case.metric or first.metric
    measured = [(facts, apart, measured_in(facts, metric, key_of)) for facts, apart in near]
    ranked = _ranked(case, model, metric, measured)
    silent = [
        (facts.study.name, method.label, tuple(sorted(method.stopped)))
        for facts, _ in near
        for method in facts.methods
        if not method.runs
    ]
    machines = dict.fromkeys(_machine(facts) for facts, apart in near if apart.model == model)
    return Advice(
        case, metric, first.study.control, model, tuple(apart for _, apart in near), tuple(far), tuple(ranked),
        tuple(silent), tuple(machines),
    )  # fmt: skip


def _how_near(apart: Distance) -> tuple[bool, bool, bool, float, str]:
    """Sorts studies: those of the same base model and script first, then by distance."""
    return not apart.comparable, apart.other_model is True, apart.other_script is True, apart.total, apart.study


def _gathered(folder: Path) -> StudyFacts:
    return gather(StudyFolder(folder))


def _machine(facts: StudyFacts) -> tuple[str, str]:
    return str(facts.study.machine.get("processor", "?")), str(facts.study.machine.get("cores", "?"))


def _chosen(
    case: Case, found: Sequence[tuple[StudyFacts, Distance]], key_of: Callable[[MethodRecord], Key]
) -> tuple[list[tuple[StudyFacts, Distance]], list[tuple[Distance, str]]]:
    """Studies that tell of the case, nearest first, all with one kind of control; and the others with the reason."""
    near: list[tuple[StudyFacts, Distance]] = []
    far: list[tuple[Distance, str]] = []
    for facts, apart in found:
        control = facts.by_label.get(facts.study.control)
        tasks = {run.spec.task.get("kind") for method in facts.scored for run in method.runs.values()}
        if control is None or not control.runs:
            far.append((apart, "control"))
        elif tasks != {case.task}:
            far.append((apart, "task"))
        elif apart.tokens is None:
            far.append((apart, "lengths"))
        elif not apart.comparable:
            far.append((apart, "far"))
        elif near and key_of(near[0][0].by_label[near[0][0].study.control].record) != key_of(control.record):
            far.append((apart, "control"))
        else:
            near.append((facts, apart))
    return near, far


def _ranked(
    case: Case, model: str, metric: str, near: Sequence[tuple[StudyFacts, Distance, Mapping[Key, Measured]]]
) -> list[Advised]:
    """All methods near the case: those that fit by their difference to the control, then the others likewise."""
    keys = list(dict.fromkeys(key for _, _, table in near for key in table))
    advised = {key: _advised(case, model, key, near) for key in keys}
    order = sorted(keys, key=lambda key: (advised[key].fits in ("no", "unknown"), -advised[key].difference.estimate))
    kept = [key for key in order if advised[key].fits in ("yes", "unsure")]
    result: list[Advised] = []
    for key in order:
        rank = kept.index(key) + 1 if key in kept else None
        pairs = [(facts, table) for facts, _, table in near]
        alike = rank is not None and rank > 1 and tied(key, kept[0], pairs, metric)
        result.append(replace(advised[key], rank=rank, tied=alike))
    return result


def _advised(
    case: Case, model: str, key: Key, near: Sequence[tuple[StudyFacts, Distance, Mapping[Key, Measured]]]
) -> Advised:
    """One method over all near studies; its costs from those on the case's base model alone."""
    here = [(facts, table[key]) for facts, _, table in near if key in table]
    same = [(facts, facts.by_label[one.label]) for facts, one in here if facts.study.model_source == model]
    memory = peak_memory(same, case.rows, case.tokens)
    seconds = seconds_for(same, case.rows, case.tokens)
    record = here[0][0].by_label[here[0][1].label].record
    return Advised(
        rank=None,
        method=record.label,
        kind=record.kind,
        settings=record.settings,
        studies=tuple(facts.study.name for facts, _ in here),
        seeds=sum(one.seeds for _, one in here),
        difference=pooled([one.difference for _, one in here]),
        peak_memory_bytes=memory,
        seconds=seconds,
        memory_fits=_within(memory, memory, case.memory_bytes),
        time_fits=_within(*((seconds.low, seconds.high) if seconds else (None, None)), case.seconds),
        tied=False,
        stopped=sum(sum(facts.by_label[one.label].stopped.values()) for facts, one in here),
    )


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
