"""Which jobs of a study are still to do, decided from records alone.

Not here: running them. Two runners that look at the same folder see the same plan, so neither needs to know of the
other; and a study that was killed goes on where its records end.

    plan = look(study, StudyFolder(path), digests); plan.jobs[0].spec.method
"""

from __future__ import annotations

from dataclasses import dataclass

from paretune.records.schema import RunSpec, Selection, Stage, Status
from paretune.records.store import RunFolder, StudyFolder
from paretune.stats.metrics import merit
from paretune.study.design import MethodChoice, Study, run_spec


@dataclass(frozen=True)
class Digests:
    """Hashes of what every run of a study starts from."""

    model: str
    data: str
    earlier: str | None = None


@dataclass(frozen=True)
class Job:
    """One stage of one run."""

    spec: RunSpec
    stage: Stage
    probe_latency: bool


@dataclass(frozen=True)
class Plan:
    """What can be done now (`jobs`), how many jobs the study has in all and how many have ended, and the choices."""

    jobs: list[Job]
    total: int
    ended: int
    selections: list[Selection]

    @property
    def finished(self) -> bool:
        return self.ended >= self.total


def _open(status: Status | None) -> bool:
    """A run with no end, or one that was cancelled, is to be done."""
    return status is None or status.state == "cancelled"


class _Look:
    def __init__(self, study: Study, folder: StudyFolder, digests: Digests) -> None:
        self.study, self.folder, self.digests = study, folder, digests
        self.jobs: list[Job] = []
        self.total = self.ended = 0
        self.selections: list[Selection] = []

    def spec(self, choice: MethodChoice, seed: int, learning_rate: float | None) -> RunSpec:
        digests = self.digests
        return run_spec(self.study, choice, seed, learning_rate, digests.model, digests.data, digests.earlier)

    def baseline(self, choice: MethodChoice) -> None:
        for place, seed in enumerate(self.study.header.seeds):
            spec = self.spec(choice, seed, None)
            self.total += 1
            if _open(self.folder.run(spec).status()):
                self.jobs.append(Job(spec, "scored", probe_latency=place == 0))
            else:
                self.ended += 1

    def adaptation(self, choice: MethodChoice) -> None:
        seeds = self.study.header.seeds
        trials = [self.spec(choice, seeds[0], rate) for rate in choice.learning_rates]
        jobs_of_method = len(trials) + len(seeds) - 1 + len(seeds)
        self.total += jobs_of_method
        before = self.ended
        waiting = [Job(spec, "trained", False) for spec in trials if _open(self.folder.run(spec).status())]
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
        status = self.folder.run(spec).status()
        if _open(status):
            self.jobs.append(Job(spec, "trained", False))
            return
        assert status is not None
        self.ended += 0 if counted else 1
        if status.state == "ok" and status.stage == "trained":
            self.jobs.append(Job(spec, "scored", probe_latency))
        else:
            self.ended += 1


def select(trials: list[RunSpec], folder: StudyFolder, metric: str) -> Selection | None:
    """The learning rate with the best headline metric on validation data (ties: the lower log-loss); None if no trial
    gave a model."""
    found: list[tuple[float, float, RunSpec, float]] = []
    seconds = 0.0
    for spec in trials:
        run = folder.run(spec)
        status = run.status()
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
    return Plan(view.jobs, view.total, view.ended, view.selections)


def losing_trials(plan: Plan, folder: StudyFolder) -> list[RunFolder]:
    """Runs whose learning rate was not chosen: their weights are not needed any more."""
    chosen = {(selection.method, selection.learning_rate) for selection in plan.selections}
    methods = {selection.method for selection in plan.selections}
    specs = [(run, run.spec()) for run in folder.runs()]
    return [run for run, spec in specs if spec.method in methods and (spec.method, spec.learning_rate) not in chosen]
