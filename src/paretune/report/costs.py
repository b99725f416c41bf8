"""Which costs of a study's runs may be compared with each other, and why the others may not.

A time is compared only between runs of the same processor, threads and engine on a quiet machine; a memory between
runs of the same engine. Both must be measured: a resumed run's cost is an estimate. The rest is shown with its mark and
ranked nowhere: fronts, budgets, answer, export, claims and advice all ask here. Not here: grades of a meter
(`records/schema.py`), means and tables.

    costs = Costs(facts); costs.by_seed(facts.by_label["lora"], "seconds")
    costs_of(study, [measured_run(run.id, run.spec(), run.measurements(), run.provenance())]).doubts(one, "memory")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, assert_never

from paretune.core.config import JsonObject
from paretune.records.schema import Graded, Measurements, RunSpec, StudyRecord
from paretune.report.facts import MEASURED, MethodFacts, ScoredRun, StudyFacts
from paretune.report.wording import Words

Resource = Literal["memory", "seconds", "cpu_seconds", "energy"]
Doubt = Literal["waited", "processor", "threads", "engine", "estimated"]

# A process on T threads needs CPU seconds × (s + (1 - s) / T) of wall time, s being the share of its work that runs on
# one thread (Amdahl). Quiet runs of the 13 published studies (two threads) have s = 0.02 … 0.26, those beside other
# work 0.42 … 0.98. `SLACK` is for clocks and reading files.
SERIAL = 0.3
SLACK = 1.05
APART = 1.3  # seeds of a method do the same work: wall ÷ CPU seconds of a quiet one differ by less than a fifth
SHORTEST_SECONDS = 0.5  # what is shorter is not judged: starting threads and reading files weigh too much in it


@dataclass(frozen=True)
class Surroundings:
    """What a cost was measured with; the engine is None in records from before it was written down."""

    processor: str
    threads: int
    engine: str | None


def surroundings(run: ScoredRun, facts: StudyFacts) -> Surroundings:
    """Of a run: by its measurements, else by its provenance, else by the study's own machine."""
    used, own = run.measurements.engine, run.provenance.get("machine")
    machine = own if isinstance(own, dict) and own else facts.study.machine
    processor = used.processor if used is not None and used.processor else str(machine.get("processor", ""))
    cores = machine.get("cores")
    threads = used.threads if used is not None and used.threads else cores if isinstance(cores, int) else 0
    return Surroundings(processor, threads, used.name if used is not None else None)


def waited(wall: float, cpu: float, threads: int, all_serial: bool = False) -> bool:
    """Whether a run took far longer than its own work on so many threads would: it waited for other processes.

    `all_serial`: a baseline's work may be of one thread as a whole.
    """
    if wall < SHORTEST_SECONDS or cpu <= 0 or threads < 1:
        return False
    serial = 1.0 if all_serial else SERIAL
    return wall > SLACK * cpu * (serial + (1 - serial) / threads)


class Costs:
    """The costs of a study's scored runs, with what stands against comparing them."""

    def __init__(self, facts: StudyFacts) -> None:
        self._facts = facts
        self._around = {run.id: surroundings(run, facts) for method in facts.scored for run in method.runs.values()}
        self._doubts: dict[str, tuple[Doubt, ...]] = {}
        self.common = common = _common(facts, self._around)
        for method in facts.scored:
            waiting = self._waiting(method)
            for run in method.runs.values():
                self._doubts[run.id] = tuple(_doubts(self._around[run.id], common, run.id in waiting))

    def _waiting(self, method: MethodFacts) -> set[str]:
        """Runs that waited by their own figures, or far longer than the method's quietest run."""
        wall = {run.id: run.measurements.train_seconds.value for run in method.runs.values()}
        cpu = {run.id: run.measurements.train_cpu_seconds.value for run in method.runs.values()}
        found = {
            one for one in wall if waited(wall[one], cpu[one], self._around[one].threads, method.family == "baseline")
        }
        ratios = {one: wall[one] / cpu[one] for one in wall if cpu[one] > 0 and wall[one] >= SHORTEST_SECONDS}
        return found | {one for one, ratio in ratios.items() if ratio > APART * min(ratios.values())}

    def doubts(self, run: ScoredRun, resource: Resource) -> tuple[Doubt, ...]:
        """Why a run's cost is not compared; empty where it is. An absent cost has none of its own.

        A run that is no result of the study, such as a trial of its search, is held against what the results have.
        """
        every = self._doubts[run.id] if run.id in self._doubts else self._of_another(run)
        match resource:
            case "seconds" | "energy":
                against: tuple[Doubt, ...] = every
            case "memory":
                against = tuple(one for one in every if one == "engine")
            case "cpu_seconds":
                against = tuple(one for one in every if one != "waited")
            case _:
                assert_never(resource)
        cost = graded(run, resource)
        estimated: Doubt = "estimated"
        return (*against, estimated) if cost is not None and cost.grade not in MEASURED else against

    def _of_another(self, run: ScoredRun) -> tuple[Doubt, ...]:
        around, measured = surroundings(run, self._facts), run.measurements
        wall, cpu = measured.train_seconds.value, measured.train_cpu_seconds.value
        return tuple(_doubts(around, self.common, waited(wall, cpu, around.threads, run.spec.family == "baseline")))

    def by_seed(self, method: MethodFacts, resource: Resource) -> dict[int, float] | None:
        """The cost of each seed; None where no run of the method has one that may be compared.

        A cost is no matter of the seed: a run whose own may not be compared counts with the mean of the others.
        """
        found: dict[int, float | None] = {}
        for seed, run in method.runs.items():
            cost = graded(run, resource)
            found[seed] = cost.value if cost is not None and not self.doubts(run, resource) else None
        known = [value for value in found.values() if value is not None]
        if not known:
            return None
        return {seed: fmean(known) if value is None else value for seed, value in found.items()}

    def left_out(self, runs: Iterable[ScoredRun], resource: Resource) -> dict[Doubt, int]:
        """How many of a method's runs are not compared, by the first reason of each."""
        return dict(Counter(found[0] for run in runs if (found := self.doubts(run, resource))))


def measured_run(run_id: str, spec: RunSpec, measured: Measurements, provenance: JsonObject) -> ScoredRun:
    """A run with its costs alone, without predictions."""
    return ScoredRun(run_id, spec, "", measured, {}, [], provenance)


def costs_of(study: StudyRecord, results: Iterable[ScoredRun]) -> Costs:
    """The costs of a study's results, of whose predictions nothing need be known."""
    methods = {record.label: MethodFacts(record, None) for record in study.methods}
    for run in results:
        methods[run.spec.method].runs[run.spec.seed] = run
    return Costs(StudyFacts(study, None, [], list(methods.values())))


def graded(run: ScoredRun, resource: Resource) -> Graded | None:
    """A run's figure with its grade; None where there is none."""
    measured = run.measurements
    match resource:
        case "memory":
            return measured.peak_memory_bytes
        case "seconds":
            return measured.train_seconds
        case "cpu_seconds":
            return measured.train_cpu_seconds
        case "energy":
            return measured.energy_joules
        case _:
            assert_never(resource)


def _common(facts: StudyFacts, around: Mapping[str, Surroundings]) -> Surroundings:
    """What most of a study's runs were measured with; a baseline has no engine, so it does not count for that."""
    machines = Counter((one.processor, one.threads) for one in around.values())
    engines = Counter(one.engine for one in around.values() if one.engine != "none")
    (processor, threads), _ = machines.most_common(1)[0] if machines else (("", 0), 0)
    return Surroundings(processor, threads, engines.most_common(1)[0][0] if engines else None)


def _doubts(own: Surroundings, common: Surroundings, waiting: bool) -> list[Doubt]:
    found: list[Doubt] = []
    if own.processor != common.processor:
        found.append("processor")
    if own.threads != common.threads:
        found.append("threads")
    if own.engine not in ("none", common.engine):
        found.append("engine")
    if waiting:
        found.append("waited")
    return found


def doubt_text(doubt: Doubt, words: Words) -> str:
    """For readers: how the runs that are not compared were measured."""
    match doubt:
        case "waited":
            return words.say("measured beside other work")
        case "processor":
            return words.say("measured on another processor")
        case "threads":
            return words.say("measured with another number of threads")
        case "engine":
            return words.say("measured with another engine")
        case "estimated":
            return words.say("estimated")
        case _:
            assert_never(doubt)
