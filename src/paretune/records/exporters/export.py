"""Exports a study's records to another tool's own form: `mlflow`, `trackio`, `tensorboard` or `csv`.

Not here: what a tool's form is (one module a tool), nor exporting models (`paretune.export`). The records stay the
source: an export is made anew, never read back.

    export_records(Path("results/demo"), "csv", Path("demo-csv"))
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from paretune.core.config import nearest
from paretune.core.disk import cannot_write
from paretune.core.errors import ConfigError, StorageError, said
from paretune.records.exporters.csv_tables import write_csv
from paretune.records.exporters.flat import FlatStudy, flat_study
from paretune.records.exporters.other_python import REQUIREMENTS, python_with, write_mlflow, write_trackio
from paretune.records.exporters.tensorboard_events import write_tensorboard
from paretune.records.store import StudyFolder, write_atomically

MARKER = "paretune-export.json"
WRITERS: Mapping[str, Callable[[FlatStudy, Path], None]] = {
    "csv": write_csv,
    "tensorboard": write_tensorboard,
    "mlflow": write_mlflow,
    "trackio": write_trackio,
}
TARGETS = tuple(WRITERS)


def check_target(target: str) -> str:
    """The target itself.

    Raises:
        ConfigError: records cannot be exported to it.
    """
    if target not in WRITERS:
        raise ConfigError(said(f"--to {target}", "one of " + ", ".join(TARGETS), nearest=nearest(target, TARGETS)))
    return target


def export_records(folder: Path, target: str, out: Path) -> Path:
    """Write all runs of a study into the folder `out`, and return it; an earlier export there is replaced.

    Raises:
        ConfigError: an unknown target, or its library is nowhere to be found.
        RecordError: the folder is no study's, or a record of it is torn.
        StorageError: `out` holds something else, or cannot be written.
    """
    writer = WRITERS[check_target(target)]
    study = flat_study(StudyFolder(folder))
    if target in REQUIREMENTS:
        python_with(target)  # before an earlier export is cleared away
    _make_room(out, target, study)
    try:
        writer(study, out)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise cannot_write(out, error) from error
    return out


def _make_room(out: Path, target: str, study: FlatStudy) -> None:
    """Clear what an earlier export left, and mark the folder as an export's before anything is written to it."""
    if out.exists() and not out.is_dir():
        raise StorageError(said(f"{out} is a file", "a folder, new or empty"))
    if out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise StorageError(said(f"{out} holds files that no export made", "a folder, new or empty"))
        shutil.rmtree(out)
    marker = {"study": study.name, "target": target, "runs": len(study.runs)}
    write_atomically(out / MARKER, json.dumps(marker, ensure_ascii=False, indent=1) + "\n")
