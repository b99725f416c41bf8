"""Each export is opened by the real tool, in an environment of its own that this file makes.

The environments lie under PARETUNE_TEST_ENVS (kept between runs: then no network is needed), else in a temporary
folder. Where pip cannot install a tool its tests are skipped, and the reason is printed. None of the tools' packages
touches the environment that runs the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.records.exporters import other_python
from paretune.records.exporters.export import export_records
from paretune.records.exporters.flat import FlatRun, FlatStudy, flat_study
from paretune.records.store import StudyFolder

pytestmark = [pytest.mark.slow, pytest.mark.network]

PINS = {"mlflow": "mlflow==3.17.2", "trackio": "trackio==0.43.0", "tensorboard": "tensorboard==2.21.0"}
INSTALL_SECONDS = 540

READ_MLFLOW = """
import json, sys
import mlflow
client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = client.get_experiment_by_name(sys.argv[2])
found = {}
for run in client.search_runs([experiment.experiment_id], max_results=1000):
    history = client.get_metric_history(run.info.run_id, "train/loss")
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    name = "predictions.parquet"
    where = client.download_artifacts(run.info.run_id, name) if name in files else None
    found[run.info.run_name] = {
        "status": run.info.status, "params": run.data.params, "tags": run.data.tags, "metrics": run.data.metrics,
        "losses": sorted((point.step, point.value) for point in history), "files": files, "predictions": where,
        "seconds": (run.info.end_time or 0) / 1000,
    }
failed = client.search_runs([experiment.experiment_id], filter_string="tags.status = 'failed'")
print(json.dumps({"runs": found, "failed": [run.info.run_name for run in failed], "tags": experiment.tags}))
"""

READ_TRACKIO = """
import json, sys
import trackio
from trackio.sqlite_storage import SQLiteStorage
found = {}
for run in trackio.Api().runs(sys.argv[2]):
    logs = SQLiteStorage.get_logs(sys.argv[2], run.name, run_id=run.id)
    found[run.name] = {"config": run.config, "logs": logs}
print(json.dumps(found, default=str))
"""

READ_TENSORBOARD = """
import json, sys
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
found = {}
for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    scalars = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"] if tag.endswith("text_summary")
    }
    contents = events.summary_metadata
    data = {}
    for tag in ("_hparams_/session_start_info", "_hparams_/session_end_info"):
        data[tag] = plugin_data_pb2.HParamsPluginData.FromString(contents[tag].plugin_data.content)
    hparams = data["_hparams_/session_start_info"].session_start_info.hparams
    found[folder.name] = {
        "scalars": scalars, "texts": texts,
        "hparams": {name: one.string_value or one.number_value for name, one in hparams.items()},
        "end": data["_hparams_/session_end_info"].session_end_info.status,
        "plugins": sorted({one.plugin_data.plugin_name for one in contents.values()}),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_study(tmp_path_factory.mktemp("study") / "made", seeds=(0, 1), test_rows=40)
    for run in StudyFolder(path).runs():
        if (run.spec().method, run.spec().seed) == ("head", 1):
            (run.path / "status").unlink()  # as a run that is still going on
    return path


@pytest.fixture(scope="module")
def study(folder: Path) -> FlatStudy:
    return flat_study(StudyFolder(folder))


@pytest.fixture(scope="module")
def python_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The Python of a tool's own environment, made at the first call."""
    kept = os.environ.get("PARETUNE_TEST_ENVS")
    root = Path(kept) if kept else tmp_path_factory.mktemp("envs")

    def python(tool: str) -> Path:
        home = root / PINS[tool].replace("==", "-")
        found, stamp = home / "bin" / "python", home / "installed"
        if stamp.exists():
            return found
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
        pip = [str(found), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PINS[tool]]
        try:
            done = subprocess.run(pip, capture_output=True, text=True, timeout=INSTALL_SECONDS)
            reason = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            reason = [f"no end after {INSTALL_SECONDS} s"]
        if reason:
            said = f"pip cannot install {PINS[tool]}: {reason[0]}"
            print(said, file=sys.__stderr__)
            pytest.skip(said)
        stamp.write_text(PINS[tool])
        return found

    return python


def _read(python: Path, script: str, out: Path, project: str) -> dict:
    """What the real tool says of an export, as JSON on its last line."""
    done = subprocess.run(
        [str(python), "-I", "-c", script, str(out), project],
        env={**os.environ, **other_python.QUIET, "TRACKIO_DIR": str(out)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _run(study: FlatStudy, method: str, seed: int) -> FlatRun:
    return next(one for one in study.runs if (one.method, one.seed) == (method, seed))


def _losses(run: FlatRun) -> list[list[float]]:
    return [[point.step, point.values["train/loss"]] for point in run.points]


def test_mlflow_reads_back_runs_params_metrics_and_files(
    folder: Path,
    study: FlatStudy,
    python_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """MLflow's client finds every run on SQLite with its parameters, curves, figures, files, tags and status."""
    python = python_of("mlflow")
    monkeypatch.setenv(other_python.VARIABLE, str(python))
    monkeypatch.chdir(tmp_path)
    out = export_records(folder, "mlflow", tmp_path / "out")
    found = _read(python, READ_MLFLOW, out, study.name)
    assert set(found["runs"]) == {run.name for run in study.runs}
    lora, flat = found["runs"]["lora seed 1"], _run(study, "lora", 1)
    assert {name: value for name, value in lora["params"].items() if value} == {
        name: value for name, value in flat.params.items() if value
    }
    assert lora["losses"] == _losses(flat)
    assert {name: lora["metrics"][name] for name in flat.finals} == flat.finals
    assert lora["tags"]["grade/peak_memory_bytes"] == "counter"
    assert (lora["status"], found["runs"]["bitfit seed 1"]["status"]) == ("FINISHED", "FAILED")
    assert found["runs"]["head seed 1"]["status"] == "RUNNING"
    assert found["failed"] == ["bitfit seed 1"]
    assert "not a finite number" in found["runs"]["bitfit seed 1"]["tags"]["reason"]
    predictions = next(Path(file) for file in flat.files if file.endswith("predictions.parquet"))
    assert Path(lora["predictions"]).read_bytes() == predictions.read_bytes()
    assert found["tags"]["control"] == "full"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # nothing is left beside it


def test_trackio_reads_back_runs_configs_and_logs(
    folder: Path,
    study: FlatStudy,
    python_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Trackio's own interface finds every run with its config, curves, figures, status and predictions."""
    python = python_of("trackio")
    monkeypatch.setenv(other_python.VARIABLE, str(python))
    out = export_records(folder, "trackio", tmp_path / "out")
    found = _read(python, READ_TRACKIO, out, study.name)
    assert set(found) == {run.name for run in study.runs}
    lora, flat = found["lora seed 1"], _run(study, "lora", 1)
    assert lora["config"]["params"] == flat.params
    assert lora["config"]["tags"]["run_id"] == flat.id
    losses = [[one["step"], one["train/loss"]] for one in lora["logs"] if "train/loss" in one]
    assert losses == _losses(flat)
    assert {name: lora["logs"][-1][name] for name in flat.finals} == flat.finals
    assert (lora["config"]["status"], found["bitfit seed 1"]["config"]["status"]) == ("ok", "failed")
    predictions = next(Path(file) for file in flat.files if file.endswith("predictions.parquet"))
    copies = [path for path in out.rglob("*") if path.is_file() and path.stat().st_size == predictions.stat().st_size]
    assert predictions.read_bytes() in [path.read_bytes() for path in copies]


def test_tensorboard_reads_back_scalars_text_and_hparams(
    folder: Path, study: FlatStudy, python_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """TensorBoard's EventAccumulator finds curves, figures, the records' text, parameters and how each run ended."""
    python = python_of("tensorboard")
    out = export_records(folder, "tensorboard", tmp_path / "out")
    found = _read(python, READ_TENSORBOARD, out, study.name)
    assert len(found) == len(study.runs)
    flat = _run(study, "lora", 1)
    lora = found[f"lora-seed1-{flat.id[:8]}"]
    assert [step for step, _ in lora["scalars"]["train/loss"]] == [step for step, _ in _losses(flat)]
    values = [value for _, value in lora["scalars"]["train/loss"]]
    assert values == pytest.approx([value for _, value in _losses(flat)], rel=1e-6)
    finals = {name: lora["scalars"][name][0][1] for name in flat.finals}
    assert finals == {name: pytest.approx(value, rel=1e-6) for name, value in flat.finals.items()}
    assert f"run_id: {flat.id}" in lora["texts"]["records/text_summary"]
    assert (lora["hparams"]["method"], lora["hparams"]["learning_rate"]) == ("lora", 0.001)
    assert {"text", "hparams"} <= set(lora["plugins"])
    ends = {name.rsplit("-", 1)[0]: one["end"] for name, one in found.items()}
    assert (ends["lora-seed1"], ends["bitfit-seed1"], ends["head-seed1"]) == (1, 2, 3)
    assert (
        "failed: the loss" in found[f"bitfit-seed1-{_run(study, 'bitfit', 1).id[:8]}"]["texts"]["reason/text_summary"]
    )


def test_the_tools_stay_out_of_this_environment() -> None:
    """None of the optional libraries is imported by exporting, nor needed to import the exporters."""
    code = (
        "import sys, paretune.records.exporters.export; "
        "print([name for name in ('mlflow', 'trackio', 'tensorboard', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
