"""Whether the records of a study hold: each fault is named, with the run that it is in.

Whoever reads records asks: the run's id is the hash of its spec, the files that its status tells of are there, true
labels are the same in all runs, classes are known, probabilities are some, scores recomputed from predictions are those
that were measured, numbers can be, every run that the study names is there, and nothing was changed since publication.
Not here: sentences about faults (`faults.py`), what is left out because of them (`facts.py`).

    [fault.kind for fault in gather(StudyFolder(Path("results/demo"))).faults]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel

from paretune.core.config import canonical_hash
from paretune.records.schema import ExampleText, Measurements, Member, RunSpec, StudyRecord
from paretune.records.seal import broken_seal
from paretune.stats.metrics import METRICS

Kind = Literal[
    "changed", "gone", "added", "study", "spec", "lost", "torn", "missing", "status", "rows", "labels", "marks",
    "class", "probability", "score", "number",
]  # fmt: skip
SCORE_TOLERANCE = 1e-5  # predictions keep probabilities as float32
ROUGH = {"calibration_error": 0.05}  # a probability that rounding moves over a bin's edge moves it
PROBABILITY_TOLERANCE = 1e-4
NOT_COUNTED = ("scores", "predicted", "notes", "precision", "energy_source", "engine", "schema_version")


@dataclass(frozen=True)
class Fault:
    """What does not hold; of a run with its id, method and seed as far as they are known; `what` is a file or value."""

    kind: Kind
    what: str = ""
    run_id: str = ""
    method: str = ""
    seed: int | None = None


class Split(Protocol):
    """Predictions of a run on a split (`facts.SplitPredictions`)."""

    @property
    def ids(self) -> list[str]: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def predictions(self) -> list[str]: ...
    @property
    def score(self) -> np.ndarray: ...
    @property
    def label_probability(self) -> np.ndarray: ...
    @property
    def near_duplicate(self) -> np.ndarray: ...
    def scores(self) -> dict[str, float]: ...


class Scored(Protocol):
    """A scored run (`facts.ScoredRun`)."""

    @property
    def id(self) -> str: ...
    @property
    def spec(self) -> RunSpec: ...
    @property
    def measurements(self) -> Measurements: ...
    @property
    def splits(self) -> Mapping[str, Split]: ...
    @property
    def earlier(self) -> Mapping[str, Split]: ...


def of_run(kind: Kind, run_id: str, spec: RunSpec | Member, what: str = "") -> Fault:
    """A fault of a run."""
    return Fault(kind, what, run_id, spec.method, spec.seed)


def seal_faults(folder: Path) -> list[Fault]:
    """Files that were changed since the study was published."""
    found: list[Fault] = []
    for one in broken_seal(folder):
        parts = Path(one.name).parts
        found.append(Fault(one.how, one.name, parts[1] if parts[0] == "runs" else ""))
    return found


def study_faults(
    study: StudyRecord, examples: Sequence[ExampleText], truth: Mapping[tuple[str, str], str]
) -> list[Fault]:
    """Whether a study's record says what the resolved file in it says, and its examples have the labels of the runs."""
    found: list[str] = []
    if canonical_hash(study.spec) != study.spec_hash:
        found.append("spec_hash")
    header = study.spec.get("study", {})
    said = {
        "name": study.name,
        "metric": study.metric,
        "margin": study.margin,
        "control": study.control,
        "seeds": study.seeds,
    }
    found += [name for name, value in said.items() if name in header and header[name] != value]
    methods = {method.label: method.kind for method in study.methods}
    tables = study.spec.get("methods")
    if tables is not None and methods != {label: table.get("kind", label) for label, table in tables.items()}:
        found.append("methods")
    odd = [one.id for one in examples if truth.get((one.split, one.id), one.label) != one.label]
    return [Fault("study", what) for what in [*found, *(f"examples: {one}" for one in odd[:1])]]


def selection_faults(study: StudyRecord, specs: Mapping[str, RunSpec]) -> list[Fault]:
    """Whether each choice of a learning rate is that of the run it names; of a record that lists its runs alone."""
    if study.membership is None:
        return []
    found: list[Fault] = []
    for one in study.selections:
        spec = specs.get(one.run_id)
        if spec is not None and (spec.method, spec.learning_rate) != (one.method, one.learning_rate):
            found.append(Fault("study", f"selections: {one.method}"))
    return found


def number_faults(run_id: str, spec: RunSpec, measured: Measurements) -> list[Fault]:
    """Costs and counts below nothing or without end, and scores outside their metric's bounds."""
    odd = [f"{name} = {value:g}" for name, value in _numbers(measured) if not (math.isfinite(value) and value >= 0)]
    for split, scores in measured.scores.items():
        for name, value in scores.items():
            low, high = METRICS[name].bounds if name in METRICS else (-math.inf, math.inf)
            if not math.isfinite(value) or not low - SCORE_TOLERANCE <= value <= high + SCORE_TOLERANCE:
                odd.append(f"{split} {name} = {value:g}")
    if measured.trainable_parameters > measured.total_parameters:
        odd.append(f"trainable_parameters = {measured.trainable_parameters}")
    return [of_run("number", run_id, spec, ", ".join(odd[:3]))] if odd else []


def _numbers(record: BaseModel, prefix: str = "") -> Iterable[tuple[str, float]]:
    for name in type(record).model_fields:
        value = record.__dict__[name]
        if not prefix and name in NOT_COUNTED:
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                yield from _numbers(one, f"{prefix}{name}.")
            elif isinstance(one, int | float):
                yield f"{prefix}{name}".removesuffix(".value"), float(one)


def run_faults(run: Scored, study: StudyRecord) -> list[Fault]:
    """Whether a scored run's predictions are possible, and give the scores that were measured."""
    found = list(number_faults(run.id, run.spec, run.measurements))
    earlier = set(study.earlier.labels) if study.earlier is not None else set[str]()
    for classes, splits in ((set(study.labels), run.splits), (earlier, run.earlier)):
        for name, split in splits.items():
            unknown = sorted({*split.labels, *split.predictions} - classes)
            if unknown:
                found.append(of_run("class", run.id, run.spec, repr(unknown[0])))
            if reason := _impossible(split):
                found.append(of_run("probability", run.id, run.spec, f"{name}: {reason}"))
    if not any(fault.kind in ("class", "probability") for fault in found):
        found += _score_faults(run)
    for name, split in run.splits.items():
        rows = study.split_rows.get(name)
        if rows is not None and (len(split.ids), len(set(split.ids))) != (rows, rows):
            found.append(of_run("rows", run.id, run.spec, f"{name}: {len(split.ids)} ≠ {rows}"))
    return found


def _impossible(split: Split) -> str:
    """The first value that no classifier gives; nothing where all can be. A method without probabilities has none."""
    score_n, label_n = split.score, split.label_probability
    if np.isnan(score_n).all() and np.isnan(label_n).all():
        return ""
    for name, values_n in (("score", score_n), ("label_probability", label_n)):
        odd = ~((values_n >= -PROBABILITY_TOLERANCE) & (values_n <= 1 + PROBABILITY_TOLERANCE))  # NaN too
        if odd.any():
            return f"{name} = {values_n[int(odd.argmax())]:g}"
    right_n = np.asarray(split.labels, dtype=object) == np.asarray(split.predictions, dtype=object)
    gap_n = label_n - score_n
    odd = np.where(right_n, np.abs(gap_n), gap_n) > PROBABILITY_TOLERANCE
    if odd.any():
        at = int(odd.argmax())
        return f"{split.ids[at]}: score {score_n[at]:.4g}, label_probability {label_n[at]:.4g}"
    return ""


def _score_faults(run: Scored) -> list[Fault]:
    for name, split in run.splits.items():
        measured = run.measurements.scores.get(name)
        if measured is None:
            return [of_run("score", run.id, run.spec, f"{name}: —")]
        for metric, value in split.scores().items():
            given = measured.get(metric)
            if given is not None and not abs(given - value) <= ROUGH.get(metric, SCORE_TOLERANCE * max(1, abs(value))):
                return [of_run("score", run.id, run.spec, f"{name} {metric} {given:.6g} ≠ {value:.6g}")]
    return []


def unlike_others(runs: Sequence[Scored]) -> list[Fault]:
    """Runs whose true labels, or marks of near-duplicates, are not those of most runs; all, where no side has most."""
    found: list[Fault] = []
    for kind in ("labels", "marks"):
        for which in ("splits", "earlier"):
            found += _minority(kind, runs, which)
    return list(dict.fromkeys(found))


def _minority(kind: Literal["labels", "marks"], runs: Sequence[Scored], which: str) -> Iterable[Fault]:
    names = dict.fromkeys(name for run in runs for name in _splits_of(run, which))
    for name in names:
        values: dict[str, Hashable] = {}
        for run in runs:
            split = _splits_of(run, which).get(name)
            if split is not None:
                values[run.id] = tuple(split.labels) if kind == "labels" else split.near_duplicate.tobytes()
        counts = Counter(values.values())
        if len(counts) < 2:
            continue
        most, number = counts.most_common(1)[0]
        kept = most if 2 * number > len(values) else None
        for run in runs:
            if run.id in values and values[run.id] != kept:
                yield of_run(kind, run.id, run.spec, name)


def _splits_of(run: Scored, which: str) -> Mapping[str, Split]:
    return run.splits if which == "splits" else run.earlier
