"""Copies what others may read of a study from `runs/` to `results/`: records and predictions; no weights, no data.

Not here: reports; they are built from what is published. Event lines of losing trials are left out: the learning-rate
table has their scores. So are runs from before the study was changed, which no report reads.

    publish(Path("runs/demo"), Path("results"))
"""

from __future__ import annotations

import shutil
from pathlib import Path

from paretune.core.errors import RecordError, said
from paretune.records.membership import members
from paretune.records.store import EARLIER_FILE, TOKEN_LOSSES_FILE, StudyFolder, recover_folder, replace_folder

STUDY_FILES = ("study.json", "explore.json", "examples.json", "inference.json")
RUN_FILES = (
    *("spec.json", "status", "provenance.json", "measurements.json"),
    *("predictions.parquet", TOKEN_LOSSES_FILE, EARLIER_FILE, "events.jsonl"),
)


def publish(folder: Path, results: Path) -> tuple[Path, int]:
    """Copy a study's records into `results/NAME`, replacing what was there; returns the folder and its bytes.

    Raises:
        RecordError: the folder is no study's, or the study is not finished.
    """
    source = StudyFolder(folder)
    study = source.study()
    runs = source.runs()
    own = members(study, {run.id: run.spec() for run in runs})
    if not own.complete:
        raise RecordError(said(f"{folder} is not finished", "a study that ran to its end", do="run it again"))
    target = results / study.name
    recover_folder(target)
    fresh = results / f".{study.name}.part"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name in STUDY_FILES:
        if (folder / name).exists():
            shutil.copyfile(folder / name, fresh / name)
    for run in runs:
        if run.status() is None or own.role(run.id) == "left_over":
            continue
        (fresh / "runs" / run.id).mkdir(parents=True)
        for name in RUN_FILES:
            if name == "events.jsonl" and not run.scored:
                continue
            if (run.path / name).exists():
                shutil.copyfile(run.path / name, fresh / "runs" / run.id / name)
    replace_folder(fresh, target)
    return target, sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
