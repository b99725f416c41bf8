"""Hands a study to a writer that needs MLflow or Trackio, in a process of its own: no pin of theirs touches ours.

Not here: the writers (`mlflow_writer.py`, `trackio_writer.py`): scripts that import nothing of paretune. The process is
this Python where it has the library, else the one that PARETUNE_EXPORT_PYTHON names.

    write_mlflow(flat_study(StudyFolder(Path("results/demo"))), Path("demo-mlflow"))
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from paretune.core.errors import ConfigError, StorageError, said
from paretune.records.exporters.flat import FlatStudy

VARIABLE = "PARETUNE_EXPORT_PYTHON"
REQUIREMENTS = {"mlflow": "mlflow>=3.10,<4", "trackio": "trackio>=0.40,<1"}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONIOENCODING": "utf-8",
    "PYTHONWARNINGS": "ignore",
}


def write_mlflow(study: FlatStudy, out: Path) -> None:
    """`mlflow.db` (SQLite) and `artifacts/`; open with `mlflow ui --backend-store-uri sqlite:///OUT/mlflow.db`.

    MLflow keeps the artefacts' absolute place: a moved folder shows everything but the files.

    Raises:
        ConfigError: MLflow is nowhere to be found. StorageError: it could not write.
    """
    _run("mlflow", study, out)


def write_trackio(study: FlatStudy, out: Path) -> None:
    """A Trackio folder; open with `TRACKIO_DIR=OUT trackio show`.

    Raises:
        ConfigError: Trackio is nowhere to be found. StorageError: it could not write.
    """
    _run("trackio", study, out)


def python_with(library: str) -> str:
    """The Python to run.

    Raises:
        ConfigError: the library is not here and no other Python is named, or none is there.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise ConfigError(said(f"{VARIABLE}={named}", f"the Python of an environment that has {library}"))
        return found
    if importlib.util.find_spec(library) is not None:
        return sys.executable
    do = (
        f"python -m venv tools && tools/bin/pip install '{REQUIREMENTS[library]}' && export {VARIABLE}=tools/bin/python"
    )
    raise ConfigError(said(f"{library} is not installed", f"{library} here or in an environment of its own", do=do))


def _run(library: str, study: FlatStudy, out: Path) -> None:
    script = Path(__file__).with_name(f"{library}_writer.py")
    # -I: neither PYTHONPATH nor the script's folder is searched, so only that environment's own packages are.
    done = subprocess.run(
        [python_with(library), "-I", str(script), str(out.resolve())],
        input=_handed(study),
        env={**os.environ, **QUIET, "TRACKIO_DIR": str(out.resolve())},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit {done.returncode}")
        if "No module named" in last:
            do = f"pip install '{REQUIREMENTS[library]}' there"
            raise ConfigError(said(f"{VARIABLE}: {last}", f"a Python that has {library}", do=do))
        raise StorageError(
            said(f"{library} could not write {out}: {last}", f"{REQUIREMENTS[library]} and room on disk")
        )


def _handed(study: FlatStudy) -> str:
    """The study as JSON, each run with its tags, so that a script needs no rule of ours."""
    runs = [{**run.model_dump(mode="json"), "tags": study.tags_of(run)} for run in study.runs]
    return json.dumps({**study.model_dump(mode="json", exclude={"runs"}), "runs": runs}, ensure_ascii=False)
