"""A study's records as what a tracking tool knows: parameters, tags, final figures, curves and files of each run.

Not here: how a tool stores them (one module a tool), nor statistics: a run is told as it ended, failed ones too.

    flat_study(StudyFolder(Path("results/demo"))).runs[0].finals["score/test/accuracy"]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from paretune.core.config import JsonObject, JsonValue, Settings
from paretune.records.membership import Role, members
from paretune.records.schema import Graded, Measurements, RunSpec, Status, StudyRecord
from paretune.records.store import EARLIER_FILE, RunFolder, StudyFolder

UNFINISHED = "unfinished"
ARTIFACTS = ("spec.json", "measurements.json", "provenance.json", "predictions.parquet", EARLIER_FILE)
SPEC_PARTS = ("settings", "model", "data", "task", "train")
SPEC_FIELDS = ("kind", "family", "seed", "learning_rate", "model_digest", "data_digest", "recipe", "memory_cap_bytes")


class Point(Settings):
    """What was logged at one step, so many seconds after the run's start."""

    step: int
    at_seconds: float
    values: dict[str, float]


class FlatRun(Settings):
    """One run. `params` is the spec, flattened; `finals` scores and costs; `grades` how a cost was had.

    `state` is the status's, or "unfinished". `role`: "result" counts in the study, "trial" is of the learning-rate
    search, "left_over" is from before the study was changed. `files` are paths of what may go along as artefacts.
    """

    id: str
    name: str
    method: str
    seed: int
    state: str
    stage: str
    reason: str
    role: Role
    finished: str
    params: dict[str, str]
    finals: dict[str, float]
    grades: dict[str, str]
    points: list[Point]
    files: list[str]

    @property
    def last_step(self) -> int:
        return max((point.step for point in self.points), default=0)


class FlatStudy(Settings):
    """A study; its tags are also every run's."""

    name: str
    tags: dict[str, str]
    runs: list[FlatRun]

    def tags_of(self, run: FlatRun) -> dict[str, str]:
        """By what a reader filters: study, method, seed, run id, status and its reason, and how each cost was had."""
        found = {
            "study": self.name,
            "method": run.method,
            "seed": str(run.seed),
            "run_id": run.id,
            "status": run.state,
            "stage": run.stage,
            "role": run.role,
        }
        if run.reason:
            found["reason"] = run.reason
        return found | {f"grade/{name}": grade for name, grade in run.grades.items()}


def flat_study(folder: StudyFolder) -> FlatStudy:
    """Read all runs of a study, in the order of methods, seeds, roles and ids.

    Raises:
        RecordError: the folder is no study's, or a record of it is torn.
    """
    study = folder.study()
    specs = {run.id: (run, run.spec()) for run in folder.runs()}
    own = members(study, {run_id: spec for run_id, (_, spec) in specs.items()})
    runs = [_flat_run(run, spec, own.role(run.id)) for run, spec in specs.values()]
    order = {method.label: place for place, method in enumerate(study.methods)}
    runs.sort(key=lambda one: (order.get(one.method, len(order)), one.method, one.role, one.seed, one.id))
    return FlatStudy(name=study.name, tags=_study_tags(study), runs=runs)


def _study_tags(study: StudyRecord) -> dict[str, str]:
    return {
        "metric": study.metric,
        "margin": repr(study.margin),
        "control": study.control,
        "model_source": study.model_source,
        "data_source": study.data_source,
        "labels": str(len(study.labels)),
        "spec_hash": study.spec_hash,
        "command": study.command,
    } | {f"rows/{split}": str(rows) for split, rows in study.split_rows.items()}


def _flat_run(run: RunFolder, spec: RunSpec, role: Role) -> FlatRun:
    status = run.status()
    measured = run.measurements() if (run.path / "measurements.json").exists() else None
    return FlatRun(
        id=run.id,
        name=f"{spec.method} seed {spec.seed}" + ("" if role == "result" else f" {role} {run.id[:8]}"),
        method=spec.method,
        seed=spec.seed,
        state=status.state if status else UNFINISHED,
        stage=status.stage if status else "",
        reason=status.reason if status else "",
        role=role,
        finished=_finished(status),
        params=params_of(spec),
        finals=dict(_finals(measured)) if measured else {},
        grades=_grades(measured) if measured else {},
        points=_points(run),
        files=[str((run.path / name).resolve()) for name in ARTIFACTS if (run.path / name).exists()],
    )


def _finished(status: Status | None) -> str:
    return status.at if status else ""


def params_of(spec: RunSpec) -> dict[str, str]:
    """The spec's fields under dotted names; text as it is, everything else as JSON."""
    tree = spec.model_dump(mode="json")
    found = {name: spelled(tree[name]) for name in SPEC_FIELDS}
    for part in SPEC_PARTS:
        found |= {f"{part}.{name}": value for name, value in _leaves(tree[part])}
    return found


def _leaves(tree: JsonObject) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", leaf) for inner, leaf in _leaves(value))
        else:
            yield name, spelled(value)


def spelled(value: JsonValue) -> str:
    """Text as it is, nothing as an empty text, the rest as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _graded(measured: Measurements) -> dict[str, Graded | None]:
    return {
        "train_seconds": measured.train_seconds,
        "train_cpu_seconds": measured.train_cpu_seconds,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "peak_memory_above_imports_bytes": measured.peak_memory_above_imports_bytes,
        "energy_joules": measured.energy_joules,
    }


def _grades(measured: Measurements) -> dict[str, str]:
    return {name: cost.grade for name, cost in _graded(measured).items() if cost is not None}


def _finals(measured: Measurements) -> Iterator[tuple[str, float]]:
    """Scores of each split, then costs: graded ones, plain counts, phases and latency."""
    for split, scores in measured.scores.items():
        yield from ((f"score/{split}/{metric}", value) for metric, value in scores.items())
    for name, cost in _graded(measured).items():
        if cost is not None:
            yield f"cost/{name}", cost.value
    counts: dict[str, float | None] = {
        "memory_after_imports_bytes": measured.memory_after_imports_bytes,
        "trainable_parameters": measured.trainable_parameters,
        "total_parameters": measured.total_parameters,
        "adapter_bytes": measured.adapter_bytes,
        "train_examples": measured.train_examples,
        "train_tokens": measured.train_tokens,
        "padding_ratio": measured.padding_ratio,
        "steps": measured.steps,
        "search_seconds": measured.search_seconds,
    }
    yield from ((f"cost/{name}", float(value)) for name, value in counts.items() if value is not None)
    for phase in measured.phases:
        yield f"cost/phase/{phase.phase}/seconds", phase.seconds
        yield f"cost/phase/{phase.phase}/cpu_seconds", phase.cpu_seconds
        yield f"cost/phase/{phase.phase}/peak_memory_bytes", float(phase.peak_memory_bytes)
    for latency in measured.latency:
        yield f"cost/latency/batch_{latency.batch}/p50_seconds", latency.p50_seconds
        yield f"cost/latency/batch_{latency.batch}/p95_seconds", latency.p95_seconds


def _points(run: RunFolder) -> list[Point]:
    """Loss, learning rate and gradient norm of each step, and what was scored in between; odd lines are left out."""
    found: list[Point] = []
    for line in run.events():
        step, seconds = line.get("step"), line.get("at_seconds", 0.0)
        if not isinstance(step, int) or not isinstance(seconds, int | float):
            continue
        values: dict[str, float] = {}
        if line["event"] == "StepEnded":
            named = {name: line.get(name) for name in ("loss", "learning_rate", "gradient_norm")}
            values = {f"train/{name}": float(value) for name, value in named.items() if isinstance(value, int | float)}
        elif line["event"] == "EvaluationEnded" and isinstance(line.get("scores"), dict):
            scores: dict[str, object] = line["scores"]
            prefix = f"during/{line.get('split', 'validation')}"
            values = {f"{prefix}/{name}": float(one) for name, one in scores.items() if isinstance(one, int | float)}
        if values:
            found.append(Point(step=step, at_seconds=float(seconds), values=values))
    return found


def plain_name(text: str) -> str:
    """A name that every file system and tool takes: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "run"
