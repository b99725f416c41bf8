"""What a study's records say, gathered once for every table, figure and sentence of a report.

Not here: words, numbers for readers, or any figure that does not come from records or from `stats/`. A method without
a scored run stays in, with the states its runs ended in.

    facts = gather(StudyFolder(Path("results/demo"))); facts.comparisons["lora"].verdict
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paretune.core.config import JsonObject
from paretune.core.errors import NewerRecordError, RecordError, said
from paretune.records.exploration import Exploration
from paretune.records.membership import Members, Role, members
from paretune.records.schema import (
    MAJORITY,
    ExampleText,
    Family,
    Measurements,
    MethodRecord,
    RunSpec,
    Selection,
    StudyRecord,
)
from paretune.records.seal import sealed
from paretune.records.serving import INFERENCE_FILE, Inference
from paretune.records.store import (
    EARLIER_FILE,
    EXPLORATION_FILE,
    MEASUREMENTS_FILE,
    PREDICTIONS_FILE,
    RunFolder,
    StudyFolder,
    read_record,
)
from paretune.report.integrity import (
    SCORE_TOLERANCE,
    Fault,
    number_faults,
    of_run,
    run_faults,
    seal_faults,
    selection_faults,
    study_faults,
    unlike_others,
)
from paretune.stats.compare import Comparison, compare
from paretune.stats.intervals import Interval
from paretune.stats.metrics import METRICS, TOKEN_METRICS, all_scores, metric_named, per_example, score
from paretune.stats.paired import churn
from paretune.stats.pareto import p_non_dominated
from paretune.stats.quality import quality_interval

RecordT = TypeVar("RecordT")
LEVEL = 0.95
PARETO_DRAWS = 1000
MEASURED = ("counter", "sampled")  # grades that may be ranked (SCIENCE 8)


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of one run on one split; all arrays have one entry an example."""

    ids: list[str]
    labels: list[str]
    predictions: list[str]
    score: np.ndarray
    label_probability: np.ndarray
    near_duplicate: np.ndarray

    def scores(self) -> dict[str, float]:
        """All metrics of the split; without log-loss and calibration error where a method gives no probabilities."""
        if not (np.isfinite(self.score).all() and np.isfinite(self.label_probability).all()):
            return {metric: score(metric, self.labels, self.predictions) for metric in METRICS}
        return all_scores(self.labels, self.predictions, self.score, self.label_probability)

    def away_from_training(self, metric: str) -> float | None:
        """The metric over examples without a near-duplicate in training data; None where none or all have one."""
        kept = [index for index, marked in enumerate(self.near_duplicate) if not marked]
        if not kept:
            return None
        return score(metric, [self.labels[index] for index in kept], [self.predictions[index] for index in kept])


@dataclass(frozen=True)
class EpochScores:
    """Scores on validation data after an epoch."""

    epoch: int
    step: int
    scores: dict[str, float]


@dataclass(frozen=True)
class ScoredRun:
    """A run that was scored on the test splits; `earlier` has those of the task that it learnt first, "before" the
    study's own and "after" (a baseline: before alone)."""

    id: str
    spec: RunSpec
    finished: str
    measurements: Measurements
    splits: dict[str, SplitPredictions]
    losses: list[tuple[int, float]]
    provenance: JsonObject
    earlier: dict[str, SplitPredictions] = field(default_factory=dict[str, SplitPredictions])
    validation: list[EpochScores] = field(default_factory=list[EpochScores])


@dataclass
class MethodFacts:
    """What is known of one method; `runs` maps a seed to its scored run, `stopped` a state to its number of runs."""

    record: MethodRecord
    selection: Selection | None
    runs: dict[int, ScoredRun] = field(default_factory=dict[int, ScoredRun])
    stopped: Counter[str] = field(default_factory=Counter[str])
    reasons: list[str] = field(default_factory=list[str])
    failed_trials: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def label(self) -> str:
        return self.record.label

    @property
    def family(self) -> Family:
        return self.record.family

    @property
    def learns(self) -> bool:
        """Whether it reads the texts: all do but the majority class, which is measured beside them and never taken."""
        return self.record.kind != MAJORITY

    def examples(self, metric: str, split: str = "test") -> dict[int, np.ndarray]:
        """Per-example values of a metric for each seed; their mean is the metric."""
        return {
            seed: np.asarray(per_example(metric, run.splits[split].labels, run.splits[split].predictions))
            for seed, run in sorted(self.runs.items())
            if split in run.splits
        }

    def seed_scores(self, metric: str, split: str = "test") -> list[float]:
        """The metric for each seed, in the order of the seeds."""
        found = [run.splits[split] for _, run in sorted(self.runs.items()) if split in run.splits]
        return [score(metric, one.labels, one.predictions) for one in found]

    def quality(self, metric: str, split: str = "test") -> Interval | None:
        """Mean of a metric with its interval over seeds and examples of a split; None where it was not scored there."""
        return quality_of([run.splits[split] for _, run in sorted(self.runs.items()) if split in run.splits], metric)

    def measurements(self) -> list[Measurements]:
        return [run.measurements for _, run in sorted(self.runs.items())]

    def one_class_runs(self) -> int:
        """Runs of a trained method that gave every test example one and the same class."""
        if self.family == "baseline":
            return 0
        return sum("test" in run.splits and len(set(run.splits["test"].predictions)) == 1 for run in self.runs.values())

    def churn(self) -> float | None:
        """Mean share of test examples on which two seeds of this method say different things."""
        said_by = [run.splits["test"].predictions for run in self.runs.values() if "test" in run.splits]
        return churn(said_by) if len(said_by) > 1 else None


@dataclass
class StudyFacts:
    """A study's records with its statistics; `faults` is what of the records does not hold, `sealed` says that there is
    a digest over them, `complete` that nothing of the study is still to be run, `working` that it ran in this folder.
    """

    study: StudyRecord
    exploration: Exploration | None
    examples: list[ExampleText]
    methods: list[MethodFacts]
    inference: Inference | None = None
    faults: list[Fault] = field(default_factory=list[Fault])
    complete: bool = True
    sealed: bool = False
    working: bool = True
    _fronts: dict[object, dict[str, float]] = field(
        init=False, repr=False, compare=False, default_factory=dict[object, dict[str, float]]
    )

    @property
    def hold(self) -> bool:
        """Whether all records that the study names are there and agree: else nothing may be claimed of it."""
        return self.complete and not self.faults

    @cached_property
    def by_label(self) -> dict[str, MethodFacts]:
        return {method.label: method for method in self.methods}

    @property
    def metric(self) -> str:
        return self.study.metric

    @cached_property
    def scored(self) -> list[MethodFacts]:
        """Methods with at least one scored run, in the study's order."""
        return [method for method in self.methods if method.runs]

    @cached_property
    def example_values(self) -> dict[str, dict[int, np.ndarray]]:
        return {method.label: method.examples(self.metric) for method in self.scored}

    @cached_property
    def quality(self) -> dict[str, Interval]:
        """Mean of the headline metric with its interval over seeds and test examples (unbounded with one seed)."""
        found = {method.label: self.quality_on(method.label, "test") for method in self.scored}
        return {label: interval for label, interval in found.items() if interval is not None}

    def against(self, control: str, split: str = "test") -> dict[str, Comparison]:
        """Differences of every other scored method to one of them; empty where that one was never scored."""
        values = self.example_values
        if split != "test":
            found = {method.label: method.examples(self.metric, split) for method in self.scored}
            values = {label: by_seed for label, by_seed in found.items() if by_seed}
        if control not in values or len(values) < 2:
            return {}
        metric = metric_named(self.metric)
        found = compare(values, control, self.study.margin, LEVEL, metric.bounds, metric.undefined)
        return {one.method: one for one in found}

    def quality_on(self, label: str, split: str) -> Interval | None:
        """Mean of the headline metric on any split; None where the method was not scored on it."""
        return self.by_label[label].quality(self.metric, split)

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        return self.against(self.study.control)

    def mean_difference(self, label: str) -> float | None:
        """Mean difference to the control over the seeds that both have; None where they share none."""
        control, values = self.example_values.get(self.study.control, {}), self.example_values.get(label, {})
        shared = sorted(control.keys() & values.keys())
        if label == self.study.control or not shared:
            return None
        return float(np.mean([values[seed].mean() - control[seed].mean() for seed in shared]))

    @cached_property
    def not_beaten(self) -> dict[str, list[str]]:
        """For each method that learns, the baselines it does not beat: its difference's interval reaches 0 or below.

        An adaptation is held against every baseline, a baseline against the majority class.
        """
        found: dict[str, list[str]] = {method.label: [] for method in self.scored if method.learns}
        for baseline in self.scored:
            if baseline.family != "baseline":
                continue
            for label, comparison in self.against(baseline.label).items():
                ends = bounds(comparison.alone)
                held = label in found and not (baseline.learns and self.by_label[label].family == "baseline")
                if held and (ends is None or ends[0] <= 0):
                    found[label].append(baseline.label)
        return found

    @cached_property
    def nothing_learnt(self) -> bool:
        """Whether no method that learns is shown to be better than the majority class; False where that was not run."""
        majority = {method.label for method in self.scored if not method.learns}
        return bool(majority and self.not_beaten) and all(majority & {*found} for found in self.not_beaten.values())

    def on_the_front(self, cost: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
        """P(no other method is at least as good in quality and in cost, and better in one) for each method.

        `cost` maps a method to its cost for each seed. Empty where fewer than two methods have a cost. A front that was
        computed once is kept: the other language needs it too, and resampling takes long.
        """
        key = tuple((label, tuple(sorted(by_seed.items()))) for label, by_seed in cost.items())
        if key not in self._fronts:
            self._fronts[key] = self._chances(cost)
        return self._fronts[key]

    def _chances(self, cost: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
        quality = {label: values for label, values in self.example_values.items() if label in cost}
        if len(quality) < 2:
            return {}
        return p_non_dominated(
            quality, {label: cost[label] for label in quality}, PARETO_DRAWS, rng=np.random.default_rng(0)
        )


def quality_of(runs: Sequence[SplitPredictions], metric: str) -> Interval | None:
    """Mean of a metric over runs of one method, with its interval over seeds and examples; None without a run.

    Unbounded with one run or one example, which tell of no others.
    """
    if not runs:
        return None
    values = [score(metric, one.labels, one.predictions) for one in runs]
    if len(runs) < 2 or len(runs[0].labels) < 2:
        return Interval(float(np.mean(values)), -np.inf, np.inf, 0.0)
    return quality_interval(metric, runs[0].labels, [one.predictions for one in runs], LEVEL)


def bounds(interval: Interval | None) -> tuple[float, float] | None:
    """Both ends of an interval, or None where the data give no interval."""
    if interval is None:
        return None
    low, high = interval.low, interval.high
    return (low, high) if np.isfinite(low) and np.isfinite(high) else None


def with_width(interval: Interval | None) -> tuple[float, float] | None:
    """Both ends, or None where there are none or no value differs from another: that says nothing about new data."""
    ends = bounds(interval)
    return ends if ends is not None and ends[0] < ends[1] else None


def gather(folder: StudyFolder, published: Path | None = None) -> StudyFacts:
    """Read all records of a study. A run whose records do not hold is named among `faults` and left out of all figures.

    `published` is where the digest of what was published lies, the study's folder by default.

    Raises:
        RecordError: the folder is no study's, its own record is torn, or runs have other test examples.
    """
    study = folder.study()
    if study.metric in TOKEN_METRICS:
        given = f"study {study.name} is of a task that predicts tokens ({study.metric})"
        do = "`paretune study` prints its table; its scores are in runs/*/measurements.json"
        raise RecordError(said(given, "a study of classification: nothing else is drawn yet", do=do))
    chosen = {selection.method: selection for selection in study.selections}
    methods = {record.label: MethodFacts(record, chosen.get(record.label)) for record in study.methods}
    reading = _Reading(study, methods)
    specs = reading.specs(folder.runs())
    own = members(study, {run.id: spec for run, spec in specs})
    reading.check_members(specs, own)
    for run, spec in specs:
        if own.role(run.id) != "left_over" and run.id not in reading.odd:
            reading.add(methods[spec.method], run, spec, own.role(run.id))
    explored = folder.path / EXPLORATION_FILE
    exploration = read_record(explored, Exploration) if explored.exists() else None
    served = folder.path / INFERENCE_FILE
    inference = read_record(served, Inference) if served.exists() else None
    if inference is not None:  # it may be from before the study was changed
        current = [one for one in inference.methods if own.role(one.run_id) == "result"]
        inference = inference.model_copy(update={"methods": current}) if current else None
    facts = StudyFacts(study, exploration, folder.examples(), list(methods.values()), inference)
    facts.faults += [*reading.faults, *selection_faults(study, {run.id: spec for run, spec in specs})]
    where = published or folder.path
    facts.complete, facts.sealed, facts.working = own.complete, sealed(where), StudyFolder(where).data.is_dir()
    _check_aligned(facts)
    _leave_out(facts, seal_faults(where))
    return facts


def faults_of(folder: StudyFolder) -> list[Fault]:
    """What of a study's records does not hold, of whatever task.

    Raises:
        RecordError: as `gather`.
    """
    study = folder.study()
    if study.metric not in TOKEN_METRICS:
        return gather(folder).faults
    reading = _Reading(study, {record.label: MethodFacts(record, None) for record in study.methods})
    specs = reading.specs(folder.runs())
    own = members(study, {run.id: spec for run, spec in specs})
    reading.check_members(specs, own)
    for run, spec in specs:
        if own.role(run.id) != "left_over" and run.id not in reading.odd:
            reading.faults += _token_faults(run, spec)
    return [*reading.faults, *seal_faults(folder.path)]


def _token_faults(run: RunFolder, spec: RunSpec) -> list[Fault]:
    """Of a run that predicts tokens: files that are there, figures that can be, and the loss of its own table."""
    lost = run.lost()
    if lost or not (run.path / MEASUREMENTS_FILE).exists():
        return [of_run("torn" if (run.path / one).exists() else "lost", run.id, spec, one) for one in lost]
    measured = run.measurements()
    found = number_faults(run.id, spec, measured)
    if not run.scored:
        return found
    table = run.token_losses()
    rows = table.filter(pc.field("split") == "test")
    nats, tokens = (float(np.sum(rows[name].to_numpy())) for name in ("nll", "tokens"))
    given, own = measured.scores.get("test", {}).get("nll", np.nan), nats / max(1.0, tokens)
    if not abs(given - own) <= SCORE_TOLERANCE * max(1.0, own):
        found.append(of_run("score", run.id, spec, f"test nll {given:.6g} ≠ {own:.6g}"))
    return found


class _Reading:
    """Reads the runs of a study into its methods, and names what does not hold; `odd` are the ids of such runs."""

    def __init__(self, study: StudyRecord, methods: Mapping[str, MethodFacts]) -> None:
        self.study, self.methods = study, methods
        self.faults: list[Fault] = []
        self.odd: set[str] = set()
        self._listed = {one.run_id: one for one in study.membership.runs} if study.membership is not None else None

    def specs(self, runs: Sequence[RunFolder]) -> list[tuple[RunFolder, RunSpec]]:
        """The runs whose specs can be read."""
        found: list[tuple[RunFolder, RunSpec]] = []
        for run in runs:
            try:
                found.append((run, run.spec()))
            except NewerRecordError:
                raise
            except RecordError:
                if self._listed is None:
                    self.faults.append(Fault("torn", "spec.json", run.id))
                elif run.id in self._listed:
                    self._name(of_run("torn", run.id, self._listed[run.id], "spec.json"))
        return found

    def check_members(self, specs: Sequence[tuple[RunFolder, RunSpec]], own: Members) -> None:
        """Whether each run's id is the hash of its spec, and each run that the study names is there."""
        for run, spec in specs:
            mine = self._listed is None or run.id in self._listed
            named = own.listed.get(run.id, spec)
            if mine and (spec.run_id != run.id or (named.method, named.seed) != (spec.method, spec.seed)):
                self._name(of_run("spec", run.id, named))
        present = {run.id for run, _ in specs} | self.odd
        for one in own.absent(present):
            self.methods[one.method].stopped["missing" if own.complete else "unfinished"] += 1
            if own.complete:
                self.faults.append(of_run("missing", one.run_id, one))
        for one in own.listed.values():
            if own.complete and one.role == "trial" and one.run_id not in present:
                self.faults.append(of_run("missing", one.run_id, one, "trial"))

    def _name(self, fault: Fault) -> None:
        """A run with a fault is none of the study's results: it is counted as one that gave none."""
        self.faults.append(fault)
        self.odd.add(fault.run_id)
        if fault.method in self.methods:
            self.methods[fault.method].stopped["missing" if fault.kind == "lost" else "broken"] += 1

    def add(self, method: MethodFacts, run: RunFolder, spec: RunSpec, role: Role) -> None:
        """Put one run where it belongs: scored, stopped, or a trial of the learning-rate search."""
        status = self._read(run, spec, "status", run.status)
        if run.id in self.odd:
            return
        selection = method.selection
        trial = role == "trial" and selection is not None
        state = "unfinished" if status is None else status.state
        if state != "ok" or status is None:
            if status is not None and _has_scores(run):
                self._name(of_run("status", run.id, spec, state))
            elif trial:
                method.failed_trials[str(spec.learning_rate)] = state
            else:
                method.stopped[state] += 1
                if status is not None and status.reason and status.reason not in method.reasons:
                    method.reasons.append(status.reason)
            return
        measured = self._read(run, spec, MEASUREMENTS_FILE, run.measurements)
        if measured is None:
            return
        if role == "trial":
            self.faults += number_faults(run.id, spec, measured)
            return
        if status.stage != "scored":  # the last stage is still to come, unless nothing is chosen of an older record's
            if _has_scores(run):
                self._name(of_run("status", run.id, spec, status.stage))
            elif selection is not None or not method.record.searched:
                method.stopped["unfinished"] += 1
            return
        previous = method.runs.get(spec.seed)
        if previous is not None and previous.finished >= status.at:  # of an older record's several the newest counts
            return
        scored = self._scored(run, spec, status.at, measured)
        if scored is not None:
            method.runs[spec.seed] = scored

    def _read(self, run: RunFolder, spec: RunSpec, file: str, read: Callable[[], RecordT]) -> RecordT | None:
        """What a file holds; None, and a fault, where it is gone or torn."""
        try:
            return read()
        except NewerRecordError:
            raise
        except RecordError:
            self._name(of_run("torn" if (run.path / file).exists() else "lost", run.id, spec, file))
            return None

    def _scored(self, run: RunFolder, spec: RunSpec, finished: str, measured: Measurements) -> ScoredRun | None:
        rows = self._read(run, spec, PREDICTIONS_FILE, run.predictions)
        if rows is None:
            return None
        earlier = self._read(run, spec, EARLIER_FILE, run.earlier)
        if earlier is None and spec.earlier is not None and not (run.path / EARLIER_FILE).exists():
            self._name(of_run("lost", run.id, spec, EARLIER_FILE))
        if run.id in self.odd:
            return None
        events = run.events()
        losses = [(int(line["step"]), float(line["loss"])) for line in events if line.get("event") == "StepEnded"]
        epochs = [
            EpochScores(
                int(line["epoch"]), int(line["step"]), {name: float(one) for name, one in line["scores"].items()}
            )
            for line in events
            if line.get("event") == "EpochEvaluated"
        ]
        try:
            provenance = run.provenance()
        except ValueError:
            self.faults.append(of_run("torn", run.id, spec, "provenance.json"))
            provenance = {}
        own, before = _splits(rows), {} if earlier is None else _splits(earlier)
        return ScoredRun(run.id, spec, finished, measured, own, losses, provenance, before, epochs)


def _has_scores(run: RunFolder) -> bool:
    """Whether a run has what only one that was scored has."""
    try:
        return "test" in run.measurements().scores and (run.path / PREDICTIONS_FILE).exists()
    except RecordError:
        return False


def _leave_out(facts: StudyFacts, since: list[Fault]) -> None:
    """Name what does not hold in the runs that were read, and since they were published, and leave those runs out."""
    runs = [run for method in facts.methods for run in method.runs.values()]  # `scored` is kept: not asked for yet
    unlike = unlike_others(runs)
    facts.faults += [*since, *unlike, *(fault for run in runs for fault in run_faults(run, facts.study))]
    odd = {fault.run_id for fault in facts.faults if fault.run_id}
    truth: dict[tuple[str, str], str] = {}
    for method in facts.methods:
        for seed, run in list(method.runs.items()):
            if run.id in odd:
                del method.runs[seed]
                method.stopped["broken"] += 1
            else:
                for name, split in run.splits.items():
                    truth |= {(name, at): label for at, label in zip(split.ids, split.labels, strict=True)}
    facts.faults += study_faults(facts.study, facts.examples, truth)


def _splits(table: pa.Table) -> dict[str, SplitPredictions]:
    splits: dict[str, SplitPredictions] = {}
    for split in dict.fromkeys(table["split"].to_pylist()):
        part = table.filter(pc.field("split") == split)
        splits[split] = SplitPredictions(
            ids=part["id"].to_pylist(),
            labels=part["label"].to_pylist(),
            predictions=part["prediction"].to_pylist(),
            score=np.asarray(part["score"].to_pylist(), dtype=float),
            label_probability=np.asarray(part["label_probability"].to_pylist(), dtype=float),
            near_duplicate=np.asarray([bool(value) for value in part["near_duplicate"].to_pylist()]),
        )
    return splits


def _check_aligned(facts: StudyFacts) -> None:
    """Paired statistics need the same test examples in the same order in every run."""
    first: dict[str, tuple[str, list[str]]] = {}
    for method in facts.methods:
        for run in method.runs.values():
            for name in {"test", *run.splits}:
                ids = run.splits[name].ids if name in run.splits else []
                other, wanted = first.setdefault(name, (run.id, ids))
                if not ids or ids != wanted:
                    given = f"run {run.id} and run {other} have other {name} examples"
                    do = "run the study again in a new folder"
                    raise RecordError(said(given, "the same examples in every run", do=do))
