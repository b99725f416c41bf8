"""Writes a study as three CSV tables: runs (one row a run), steps (one a logged figure), predictions (one an example).

Not here: statistics over runs (`report --format md` has them). UTF-8, commas, one header line, rows in a fixed order;
an empty cell is a figure that the run does not have.

    write_csv(flat_study(StudyFolder(Path("results/demo"))), Path("demo-csv"))
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from paretune.records.exporters.flat import FlatRun, FlatStudy
from paretune.records.schema import PREDICTION_COLUMNS
from paretune.records.store import RunFolder

RUN_COLUMNS = ("run_id", "study", "method", "seed", "status", "stage", "reason", "role", "finished")
STEP_COLUMNS = ("run_id", "method", "seed", "step", "at_seconds", "name", "value")


def write_csv(study: FlatStudy, out: Path) -> None:
    """Write `runs.csv`, `steps.csv` and `predictions.csv`.

    Raises:
        RecordError: a run's predictions are torn. OSError: the folder cannot be written.
    """
    params = [name for name in _names(run.params for run in study.runs) if name not in RUN_COLUMNS]
    finals = _names(run.finals for run in study.runs)
    grades = _names(run.grades for run in study.runs)
    header = [*RUN_COLUMNS, *params, *finals, *(f"grade/{name}" for name in grades)]
    rows = (
        [
            *(run.id, study.name, run.method, run.seed, run.state, run.stage, run.reason, run.role, run.finished),
            *(run.params.get(name, "") for name in params),
            *(_spelled(run.finals.get(name)) for name in finals),
            *(run.grades.get(name, "") for name in grades),
        ]
        for run in study.runs
    )
    _write(out / "runs.csv", header, rows)
    _write(out / "steps.csv", STEP_COLUMNS, (row for run in study.runs for row in _step_rows(run)))
    kept = ("run_id", "method", "seed", *PREDICTION_COLUMNS)
    _write(out / "predictions.csv", kept, (row for run in study.runs for row in _prediction_rows(run)))


def _names(tables: Iterable[dict[str, str] | dict[str, float]]) -> list[str]:
    """All keys, in the order in which they are first met."""
    return list(dict.fromkeys(name for table in tables for name in table))


def _spelled(value: float | None) -> str:
    """The shortest text that reads back as the same number, whole numbers without a point."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def _step_rows(run: FlatRun) -> Iterator[list[object]]:
    for point in run.points:
        for name, value in point.values.items():
            yield [run.id, run.method, run.seed, point.step, _spelled(point.at_seconds), name, _spelled(value)]


def _prediction_rows(run: FlatRun) -> Iterator[list[object]]:
    path = next((Path(one) for one in run.files if one.endswith("predictions.parquet")), None)
    if path is None:
        return
    table = RunFolder(path.parent).predictions()
    columns = [_texts(table.column(name).to_pylist(), name) for name in PREDICTION_COLUMNS]
    for cells in zip(*columns, strict=True):
        yield [run.id, run.method, run.seed, *cells]


def _texts(values: Sequence[object], name: str) -> list[str]:
    """A column's cells; probabilities as the shortest text of their 32 bits, not of the 64 they are read into."""
    if name in ("score", "label_probability"):
        return ["" if value is None else str(np.float32(str(value))) for value in values]
    return ["" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in values]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
