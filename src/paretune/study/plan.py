"""Which jobs of a study are still to do, decided from records alone.

Not here: running them. Two runners that look at the same folder see the same plan, so neither needs to know of the
other; and a study that was killed goes on where its records end.

    plan = look(study, StudyFolder(path), digests); plan.jobs[0].spec.method
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paretune.core.errors import NewerRecordError, RecordError
from paretune.methods.method import TRAINED_FILE
from paretune.records.schema import Member, Membership, RunSpec, Selection, Stage, Status
from paretune.records.store import EARLIER_FILE, MEASUREMENTS_FILE, RunFolder, StudyFolder
from paretune.stats.metrics import merit
from paretune.study.design import MethodChoice, Study, run_spec
from paretune.study.desk import REFERENCE_FILE
from paretune.study.earlier import FOLDER as EARLIER_FOLDER


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
    if MEASUREMENTS_FILE in lost:
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
        seeds = self.study.header.seeds
        trials = [self.spec(choice, seeds[0], rate) for rate in choice.learning_rates]
        for spec in trials:
            self.belongs(spec, "trial")
        jobs_of_method = len(trials) + len(seeds) - 1 + len(seeds)
        self.total += jobs_of_method
        before = self.ended
        open_trials = [spec for spec in trials if next_stage(self.folder.run(spec), spec, chosen=False)]
        waiting = [Job(spec, "trained", probe_latency=False, chosen=False) for spec in open_trials]
        self.ended += len(trials) - len(waiting)
        if waiting:
            self.jobs += waiting
            return
        selection = select(trials, self.folder, self.study.header.metric)
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


def select(trials: list[RunSpec], folder: StudyFolder, metric: str) -> Selection | None:
    """The learning rate with the best headline metric on validation data (ties: the lower log-loss); None if no trial
    gave a model."""
    found: list[tuple[float, float, RunSpec, float]] = []
    seconds = 0.0
    for spec in trials:
        run = folder.run(spec)
        status = status_of(run)
        if status is None or status.state != "ok":
            continue
        measured = run.measurements()
        scores = measured.scores["validation"]
        seconds += measured.train_seconds.value
        found.append((scores[metric], -scores.get("log_loss", 0.0), spec, measured.train_seconds.value))
    if not found:
        return None
    best = max(found, key=lambda one: (merit(metric, one[0]), one[1]))[2]
    assert best.learning_rate is not None
    return Selection(
        method=best.method,
        learning_rate=best.learning_rate,
        run_id=best.run_id,
        trials={f"{spec.learning_rate:g}": score for score, _, spec, _ in found},
        trial_seconds=seconds,
    )


def look(study: Study, folder: StudyFolder, digests: Digests) -> Plan:
    """Read the records and say what is left; jobs come in the order of the study file's methods."""
    view = _Look(study, folder, digests)
    for choice in study.methods.values():
        if choice.method.family == "baseline":
            view.baseline(choice)
        else:
            view.adaptation(choice)
    return Plan(
        view.jobs, view.total, view.ended, view.selections, list(view.members.values()), list(view.specs.values())
    )


def losing_trials(plan: Plan, folder: StudyFolder) -> list[RunFolder]:
    """Runs of this study whose setting was not chosen: their weights are not needed any more."""
    methods = {selection.method for selection in plan.selections}
    lost = {one.run_id for one in plan.members if one.role == "trial" and one.method in methods}
    return [run for run in folder.runs() if run.id in lost]
