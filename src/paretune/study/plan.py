"""Which jobs of a study are still to do, decided from records alone.

Not here: running them. Two runners that look at the same folder see the same plan, so neither needs to know of the
other; and a study that was killed goes on where its records end.

    plan = look(study, StudyFolder(path), digests); plan.jobs[0].spec.method
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paretune.core.errors import NewerRecordError, RecordError
from paretune.methods.method import TRAINED_FILE
from paretune.records.schema import Member, Membership, RunSpec, Selection, Stage, Status
from paretune.records.store import EARLIER_FILE, MEASUREMENTS_FILE, VALIDATION_FILE, RunFolder, StudyFolder
from paretune.stats.metrics import TOKEN_METRICS, merit, per_example
from paretune.stats.noise import nearly_best
from paretune.stats.token_scores import nll_per_example
from paretune.study.design import MethodChoice, Study, run_spec
from paretune.study.desk import REFERENCE_FILE
from paretune.study.earlier import FOLDER as EARLIER_FOLDER

STEP = 3.0  # between rates past the edge of a search


@dataclass(frozen=True)
class Digests:
    """Hashes of what every run of a study starts from."""

    model: str
    data: str
    earlier: str | None = None


@dataclass(frozen=True)
class Job:
    """One stage of one run; `chosen` says that the run is to be scored, if not in this stage then in the next."""

    spec: RunSpec
    stage: Stage
    probe_latency: bool
    chosen: bool = True


@dataclass(frozen=True)
class Plan:
    """What can be done now (`jobs`), how many jobs the study has in all and how many have ended, the choices, and the
    runs that belong to the study, also those that are still to come, with their specs."""

    jobs: list[Job]
    total: int
    ended: int
    selections: list[Selection]
    members: list[Member]
    specs: list[RunSpec]

    @property
    def finished(self) -> bool:
        return self.ended >= self.total

    @property
    def membership(self) -> Membership:
        return Membership(complete=self.finished, runs=self.members)


def next_stage(run: RunFolder, spec: RunSpec, chosen: bool) -> Stage | None:
    """What a run needs next; None where it has come to its end. `chosen`: it is to be scored.

    A run without an end, or one that was cancelled, begins; so does one that lost what its first stage left. A failure
    is an end.
    """
    first: Stage = "scored" if spec.family == "baseline" else "trained"
    status = status_of(run)
    if status is None or status.state == "cancelled":
        return first
    if status.state != "ok":
        return None
    lost = run.lost()
    compared = chosen or (run.path / VALIDATION_FILE).exists()  # by what a trial said of the validation data
    if MEASUREMENTS_FILE in lost or not compared:
        return first
    earlier = spec.earlier is not None and not (run.path / EARLIER_FILE).exists()
    if chosen and (status.stage == "trained" or lost or earlier):
        folders = [run.adapter, *([run.adapter / EARLIER_FOLDER] if spec.earlier else [])]
        weights = all((path / name).is_file() for path in folders for name in (TRAINED_FILE, REFERENCE_FILE))
        return "scored" if weights else first
    return None


def status_of(run: RunFolder) -> Status | None:
    """A run's status; one that is torn says nothing."""
    try:
        return run.status()
    except NewerRecordError:
        raise
    except RecordError:
        return None


class _Look:
    def __init__(self, study: Study, folder: StudyFolder, digests: Digests) -> None:
        self.study, self.folder, self.digests = study, folder, digests
        self.jobs: list[Job] = []
        self.total = self.ended = 0
        self.selections: list[Selection] = []
        self.members: dict[str, Member] = {}
        self.specs: dict[str, RunSpec] = {}

    def belongs(self, spec: RunSpec, role: Literal["result", "trial"]) -> None:
        """Note a run of the study; a trial whose setting is chosen becomes a result."""
        self.specs[spec.run_id] = spec
        self.members[spec.run_id] = Member(run_id=spec.run_id, method=spec.method, seed=spec.seed, role=role)

    def spec(self, choice: MethodChoice, seed: int, learning_rate: float | None) -> RunSpec:
        digests = self.digests
        return run_spec(self.study, choice, seed, learning_rate, digests.model, digests.data, digests.earlier)

    def baseline(self, choice: MethodChoice) -> None:
        for place, seed in enumerate(self.study.header.seeds):
            spec = self.spec(choice, seed, None)
            self.belongs(spec, "result")
            self.total += 1
            if next_stage(self.folder.run(spec), spec, chosen=True):
                self.jobs.append(Job(spec, "scored", probe_latency=place == 0))
            else:
                self.ended += 1

    def adaptation(self, choice: MethodChoice) -> None:
        if not choice.learning_rates:
            for place, seed in enumerate(self.study.header.seeds):
                self.total += 2
                self.run(self.spec(choice, seed, None), counted=False, probe_latency=place == 0)
            return
        seeds = self.study.header.seeds
        rates = list(choice.learning_rates)
        before, extended = self.ended, 0
        while True:
            trials = [self.spec(choice, seeds[0], rate) for rate in rates]
            for spec in trials:
                self.belongs(spec, "trial")
            open_trials = [spec for spec in trials if next_stage(self.folder.run(spec), spec, chosen=False)]
            waiting = [Job(spec, "trained", probe_latency=False, chosen=False) for spec in open_trials]
            selection = None
            if not waiting:
                selection = select(trials, self.folder, self.study.header.metric, choice.default_rate, extended)
            most = self.study.header.extensions if len(choice.learning_rates) > 1 else 0
            if selection is None or selection.edge is None or extended == most:
                break
            rates.append(beyond(rates, selection.edge))
            extended += 1
        jobs_of_method = len(trials) + len(seeds) - 1 + len(seeds)
        self.total += jobs_of_method
        self.ended = before + len(trials) - len(waiting)
        self.jobs += waiting
        if waiting:
            return
        if selection is None:
            self.ended = before + jobs_of_method  # no trial gave a model: the failures are the method's result
            return
        self.selections.append(selection)
        for place, seed in enumerate(seeds):
            self.run(self.spec(choice, seed, selection.learning_rate), counted=place == 0, probe_latency=place == 0)

    def run(self, spec: RunSpec, counted: bool, probe_latency: bool) -> None:
        """Both stages of a chosen setting; `counted` says that its first stage was counted as a trial."""
        self.belongs(spec, "result")
        stage = next_stage(self.folder.run(spec), spec, chosen=True)
        if stage is not None:
            self.jobs.append(Job(spec, stage, probe_latency and stage == "scored"))
        if not counted and stage != "trained":
            self.ended += 1
        if stage is None:
            self.ended += 1


@dataclass(frozen=True)
class _Trial:
    """A trial that gave a model: its rate, the headline metric, and values of the validation examples whose mean is it,
    with the sign that makes more better."""

    spec: RunSpec
    rate: float
    score: float
    values_m: np.ndarray
    seconds: float


def select(
    trials: list[RunSpec], folder: StudyFolder, metric: str, default_rate: float, extended: int
) -> Selection | None:
    """The learning rate of a method, by the headline metric on validation data; None if no trial gave a model.

    Rates that do not differ from the best beyond noise are tied with it; of them the nearest to the method's default is
    taken (its logarithm; of two as near the better, then the lower), as the default is what many studies of before say
    and one seed on some hundred examples says little. `extended`: how often the search was extended already.
    """
    found = [one for spec in trials if (one := _trial(folder.run(spec), spec, metric)) is not None]
    if not found:
        return None
    near = nearly_best([one.values_m for one in found])
    tied = [one for one, is_tied in zip(found, near.tied, strict=True) if is_tied]
    best = min(tied, key=lambda one: (_distance(one.rate, default_rate), -merit(metric, one.score), one.rate))
    tried = [spec.learning_rate for spec in trials if spec.learning_rate is not None]
    edge: Literal["low", "high"] | None = None
    if len(tried) > 1 and best.rate in (min(tried), max(tried)):
        edge = "low" if best.rate == min(tried) else "high"
    return Selection(
        method=best.spec.method,
        learning_rate=best.rate,
        run_id=best.spec.run_id,
        trials={f"{one.rate:g}": one.score for one in found},
        trial_seconds=sum(one.seconds for one in found),
        rule="extended",
        noise={f"{one.rate:g}": error for one, error in zip(found, near.noise, strict=True) if np.isfinite(error)},
        tied=[one.rate for one in tied if one is not best],
        extended=extended,
        edge=edge,
    )


def _trial(run: RunFolder, spec: RunSpec, metric: str) -> _Trial | None:
    status = status_of(run)
    if status is None or status.state != "ok" or spec.learning_rate is None:
        return None
    measured, rows = run.measurements(), run.validation()
    if metric in TOKEN_METRICS:
        values_m = -nll_per_example(rows["nll"].to_numpy(), rows["tokens"].to_numpy())
    else:
        values_m = per_example(metric, rows["label"].to_pylist(), rows["prediction"].to_pylist())
    score = measured.scores["validation"][metric]
    return _Trial(spec, spec.learning_rate, score, values_m, measured.train_seconds.value)


def _distance(rate: float, default_rate: float) -> float:
    """How far a rate is from the default, in factors; rounded, so that ⅓ and 3 are as far."""
    return round(abs(math.log(rate / default_rate)), 1)


def beyond(rates: Sequence[float], edge: Literal["low", "high"]) -> float:
    """The next rate past an edge of those that were tried."""
    rate = max(rates) * STEP if edge == "high" else min(rates) / STEP
    return float(f"{rate:.3g}")


def look(study: Study, folder: StudyFolder, digests: Digests) -> Plan:
    """Read the records and say what is left: the control's jobs first, so that differences can be shown while the study
    runs, then those of the other methods in the order of the study file, which is also that of the choices."""
    view = _Look(study, folder, digests)
    for choice in sorted(study.methods.values(), key=lambda one: one.label != study.header.control):
        if choice.method.family == "baseline":
            view.baseline(choice)
        else:
            view.adaptation(choice)
    order = list(study.methods)
    return Plan(
        view.jobs,
        view.total,
        view.ended,
        sorted(view.selections, key=lambda one: order.index(one.method)),
        list(view.members.values()),
        list(view.specs.values()),
    )


def losing_trials(plan: Plan, folder: StudyFolder) -> list[RunFolder]:
    """Runs of this study whose setting was not chosen: their weights are not needed any more."""
    methods = {selection.method for selection in plan.selections}
    lost = {one.run_id for one in plan.members if one.role == "trial" and one.method in methods}
    return [run for run in folder.runs() if run.id in lost]
