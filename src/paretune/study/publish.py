"""Copies what others may read of a study from `runs/` to `results/`: records and predictions; no weights, no data.

A digest over all that was copied lies beside it. Not here: reports; they are built from what is published. Event lines
of losing trials are left out: the learning-rate table has their scores. So are runs from before the study was changed,
which no report reads.

    publish(Path("runs/demo"), Path("results"))
"""

from __future__ import annotations

import shutil
from pathlib import Path

from paretune.core.errors import RecordError, said
from paretune.records.membership import members
from paretune.records.seal import RUN_FILES, SEAL_FILE, STUDY_FILES, sealed, write_seal
from paretune.records.store import StudyFolder, recover_folder, replace_folder
from paretune.report.facts import faults_of
from paretune.report.faults import fault_text
from paretune.report.wording import Words


def publish(folder: Path, results: Path) -> tuple[Path, int]:
    """Copy a study's records into `results/NAME`, replacing what was there; returns the folder and its bytes.

    Raises:
        RecordError: the folder is no study's, the study is not finished, or its records do not hold.
    """
    source = StudyFolder(folder)
    study = source.study()
    runs = source.runs()
    own = members(study, {run.id: run.spec() for run in runs})
    if not own.complete:
        raise RecordError(said(f"{folder} is not finished", "a study that ran to its end", do="run it again"))
    _refuse_faults(source, "run the study again, which makes again what is lost")
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
    write_seal(fresh)
    replace_folder(fresh, target)
    return target, sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def seal_published(folder: Path) -> Path:
    """Write the digest of a study that was published before there were any; returns the file.

    Raises:
        RecordError: no study's folder, one that has a digest, or records that do not hold.
    """
    StudyFolder(folder).study()
    if sealed(folder):
        raise RecordError(said(f"{folder} has a digest", "records published without one", do="publish the study anew"))
    _refuse_faults(StudyFolder(folder), "publish the study anew")
    write_seal(folder)
    return folder / SEAL_FILE


def _refuse_faults(folder: StudyFolder, do: str) -> None:
    faults = [fault_text(Words("en"), fault) for fault in faults_of(folder)]
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise RecordError(said(f"{folder.path}: {faults[0]}{more}", "records that hold", do=do))
