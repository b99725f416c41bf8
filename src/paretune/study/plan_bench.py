"""How right the planner is: combinations of model, method, batch, length and number format, predicted, then measured.

Each is run for a few steps in a process of its own; its result stays in a folder, so that the bench can be done in
pieces and a killed one goes on. What is predicted uses the probe's constants alone, one probe a model and number
format; no combination is ever fitted to. Not here: the list (`benchmarks/plan_combinations.toml`).

    print(bench_plan(Path("benchmarks/plan_combinations.toml"), Path("runs/bench-plan"), note=print)["summary"])
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import Field, field_validator

from paretune.core.config import JsonObject, Settings, load_toml
from paretune.core.errors import ConfigError, UnknownNameError, said
from paretune.data.encoding import Encoded
from paretune.measure.calibration import EVALUATION_ROWS, Calibration, Sample
from paretune.methods.method import Adaptation
from paretune.models.loading import load_outline
from paretune.models.precision import chosen_precision
from paretune.records.schema import Predicted
from paretune.records.store import read_record, write_atomically
from paretune.study.calibrate import calibration, counted
from paretune.study.calibrations import ProbeShape
from paretune.study.design import make_method
from paretune.study.plan_record import percentile
from paretune.study.predict import VALIDATION, predict_run, shape_of, way_of
from paretune.study.trial import TrialEnd, run_trial
from paretune.study.trial_steps import EVALUATION_BATCHES, Trial, drawn_texts, longest_of

LONGEST_SECONDS = 300.0


class Combination(Trial):
    """A trial with a name; `held_out` ones were chosen before anything was fitted."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    held_out: bool = False

    @property
    def trial(self) -> Trial:
        return Trial.model_validate(self.model_dump(exclude={"name", "held_out"}))


class ProbeSize(Settings):
    """The shape at which each model is calibrated."""

    batch_size: int = Field(default=16, ge=1)
    max_tokens: int = Field(default=128, ge=4)


class Combinations(Settings):
    """The bench's list."""

    probe: ProbeSize = ProbeSize()
    combinations: tuple[Combination, ...]

    @field_validator("combinations")
    @classmethod
    def _names_differ(cls, found: tuple[Combination, ...]) -> tuple[Combination, ...]:
        names = [one.name for one in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not found:
            raise ValueError(said(f"names {twice or names}", "at least one combination, no name twice"))
        return found


class Result(Settings):
    """What was predicted of a combination and what was measured; the file that stays."""

    combination: Combination
    predicted: Predicted
    measured: TrialEnd


@dataclass(frozen=True)
class Row:
    """Errors of one combination: predicted ÷ measured − 1."""

    name: str
    held_out: bool
    predicted_bytes: float
    measured_bytes: float
    memory_error: float
    above_imports_error: float
    predicted_seconds: float
    measured_seconds: float
    time_error: float


def bench_plan(
    listed: Path, folder: Path, note: Callable[[str], None], only: str | None = None, most: int | None = None
) -> JsonObject:
    """Measure what is missing, at most so many now, and sum up all that is there.

    Raises:
        ConfigError: the list cannot be read.
        UnknownNameError: no combination of that name.
    """
    settings = load_toml(listed, Combinations)
    names = [one.name for one in settings.combinations]
    if only is not None and only not in names:
        raise UnknownNameError(said(f"combination {only!r}", "one of " + ", ".join(names)))
    done = 0
    for one in settings.combinations:
        path = folder / f"{one.name}.json"
        if path.exists() or (only is not None and one.name != only) or (most is not None and done >= most):
            continue
        note(one.name)
        result = measured(one, settings.probe, note)
        write_atomically(path, result.model_dump_json(indent=1))
        done += 1
    found = [read_record(path, Result) for name in names if (path := folder / f"{name}.json").exists()]
    rows = [row for one in found if (row := errors_of(one)) is not None]
    failed = {one.combination.name: one.measured.reason for one in found if one.measured.sample is None}
    return {"listed": len(names), "rows": [asdict(row) for row in rows], "failed": failed, "summary": summed(rows)}


def measured(one: Combination, probe: ProbeSize, note: Callable[[str], None]) -> Result:
    """Predict a combination, then run it."""
    precision = chosen_precision(one.precision)
    constants = calibration(ProbeShape(one.model, precision, probe.batch_size, probe.max_tokens), note)
    predicted = prediction(one.trial, constants)
    return Result(combination=one, predicted=predicted, measured=run_trial(one.trial, LONGEST_SECONDS))


def prediction(trial: Trial, constants: Calibration | None) -> Predicted:
    """What the planner expects of a trial.

    Raises:
        ConfigError: the method trains no model, or does not fit this one.
    """
    method = make_method(trial.kind, trial.settings)
    if not isinstance(method, Adaptation):
        raise ConfigError(said(f"kind = {trial.kind!r}", "a method that trains the model"))
    found = counted(trial.model, method, trial.classes)
    longest = longest_of(trial, load_outline(trial.model))
    texts = drawn_texts(trial, found.words, longest)
    evaluated = Encoded(texts.ids[-1:] * (EVALUATION_ROWS * EVALUATION_BATCHES), texts.pad_id)
    precision = chosen_precision(trial.precision)
    shape = shape_of({"train": texts, VALIDATION: evaluated}, trial.training, way_of(found, precision))
    return predict_run(found, shape, precision, constants)


def measured_peak(sample: Sample) -> int:
    """The highest of a trial's phases."""
    return max(sample.peak_bytes, sample.evaluation_peak_bytes)


def errors_of(one: Result) -> Row | None:
    """None where the combination gave no sample, or nothing was predicted."""
    sample, predicted = one.measured.sample, one.predicted
    if sample is None or predicted.peak_memory_bytes is None or predicted.peak_memory_above_imports_bytes is None:
        return None
    peak = measured_peak(sample)
    seconds = sum(step.seconds for step in sample.steps)
    return Row(
        name=one.combination.name,
        held_out=one.combination.held_out,
        predicted_bytes=predicted.peak_memory_bytes,
        measured_bytes=peak,
        memory_error=predicted.peak_memory_bytes / peak - 1,
        above_imports_error=predicted.peak_memory_above_imports_bytes / (peak - sample.imports_bytes) - 1,
        predicted_seconds=predicted.seconds["step"],
        measured_seconds=seconds,
        time_error=predicted.seconds["step"] / seconds - 1,
    )


def summed(rows: Sequence[Row]) -> JsonObject:
    """The bench's last line: errors as shares, of the total peak and of the part above the imports; None where there
    is no row yet."""
    held_out = [row for row in rows if row.held_out]
    memory = [abs(row.memory_error) for row in rows]
    above = [abs(row.above_imports_error) for row in rows]
    return {
        "memory_error_median": _median(memory),
        "memory_error_p90": percentile(memory, 0.9) if memory else None,
        "worst_under_prediction": max([0.0, *(-row.memory_error for row in rows)]) if rows else None,
        "time_error_median": _median([abs(row.time_error) for row in rows]),
        "held_out_memory_error_median": _median([abs(row.memory_error) for row in held_out]),
        "held_out_time_error_median": _median([abs(row.time_error) for row in held_out]),
        "above_imports_error_median": _median(above),
        "above_imports_error_p90": percentile(above, 0.9) if above else None,
        "above_imports_worst_under_prediction": (
            max([0.0, *(-row.above_imports_error for row in rows)]) if rows else None
        ),
        "held_out_above_imports_error_median": _median([abs(row.above_imports_error) for row in held_out]),
        "combinations": len(rows),
        "held_out": len(held_out),
    }


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def report_lines(found: JsonObject) -> list[str]:
    """The bench in words."""
    lines = [
        f"{'*' if row['held_out'] else ' '} {row['name']:34} {row['measured_bytes'] / 2**20:7.0f} MiB "
        f"({row['memory_error']:+.1%}, above imports {row['above_imports_error']:+.1%}), "
        f"{row['measured_seconds']:6.2f} s ({row['time_error']:+.1%})"
        for row in found["rows"]
    ]
    lines += [f"  {name}: no sample: {reason}" for name, reason in found["failed"].items()]
    missing = found["listed"] - len(found["rows"]) - len(found["failed"])
    lines.append(f"{len(found['rows'])} measured (* held out), {missing} still to do")
    return lines
