"""Exporting records: CSV whole, TensorBoard's bytes read by a reader of this test, the other two up to their client.

The real tools open the same exports in `tests/integration/test_exporters_real.py`.
"""

from __future__ import annotations

import csv
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fabricated_study import write_study

from paretune.core.errors import ConfigError, RecordError, StorageError
from paretune.core.events import EvaluationEnded
from paretune.records.exporters import mlflow_writer, other_python, trackio_writer
from paretune.records.exporters.export import MARKER, TARGETS, export_records
from paretune.records.exporters.flat import FlatStudy, flat_study, plain_name
from paretune.records.exporters.tensorboard_events import crc32c
from paretune.records.store import StudyFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_study(tmp_path_factory.mktemp("study") / "made", seeds=(0, 1), test_rows=24)
    for run in StudyFolder(path).runs():
        if run.spec().method == "bitfit" and run.spec().seed == 0:
            with (run.path / "events.jsonl").open("a") as file:
                file.write("\n")
            run.append_event(EvaluationEnded(step=45, split="validation", scores={"accuracy": 0.75}), 4.6)
            (run.path / "status").unlink()  # as a run that is still going on
    return path


ACCURACY = 23 / 24  # of lora's second seed, by its made-up predictions


@pytest.fixture(scope="module")
def study(folder: Path) -> FlatStudy:
    return flat_study(StudyFolder(folder))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_one_row_a_run_and_one_an_example(folder: Path, tmp_path: Path) -> None:
    """Each run has a row with its spec, scores and graded costs; each prediction of a scored run has one too."""
    out = export_records(folder, "csv", tmp_path / "out")
    runs = {(row["method"], row["seed"]): row for row in _rows(out / "runs.csv")}
    assert len(runs) == 14
    header = (out / "runs.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert len(set(header)) == len(header)
    lora = runs["lora", "1"]
    assert (lora["status"], lora["role"], lora["train.epochs"], lora["learning_rate"]) == ("ok", "result", "3", "0.001")
    assert float(lora["score/test/accuracy"]) == ACCURACY
    assert (lora["grade/train_seconds"], lora["grade/energy_joules"]) == ("counter", "estimated")
    measured = next(run for run in StudyFolder(folder).runs() if run.id == lora["run_id"]).measurements()
    assert float(lora["cost/train_seconds"]) == measured.train_seconds.value
    assert runs["majority", "0"]["learning_rate"] == ""
    predictions = _rows(out / "predictions.csv")
    table = next(run for run in StudyFolder(folder).runs() if run.id == lora["run_id"]).predictions()
    mine = [row for row in predictions if row["run_id"] == lora["run_id"]]
    assert [row["id"] for row in mine] == table["id"].to_pylist()
    assert struct.pack("<f", float(mine[3]["score"])) == struct.pack("<f", table["score"].to_pylist()[3])
    assert len(mine[3]["score"]) <= 11  # 32 bits, not the 17 digits of 64
    assert {row["near_duplicate"] for row in mine} == {"true", "false"}


def test_failed_and_unfinished_runs_are_exported_as_such(folder: Path, tmp_path: Path) -> None:
    """A run that failed keeps its row with its state and reason, one without a status is unfinished."""
    out = export_records(folder, "csv", tmp_path / "out")
    runs = {(row["method"], row["seed"]): row for row in _rows(out / "runs.csv")}
    assert runs["bitfit", "1"]["status"] == "failed"
    assert "not a finite number" in runs["bitfit", "1"]["reason"]
    assert runs["bitfit", "1"]["score/test/accuracy"] == ""
    assert (runs["bitfit", "0"]["status"], runs["bitfit", "0"]["finished"]) == ("unfinished", "")


def test_csv_steps_hold_loss_rate_and_scores_in_between(folder: Path, tmp_path: Path) -> None:
    """Curves come from the events, step by step; a torn line is left out."""
    steps = _rows(export_records(folder, "csv", tmp_path / "out") / "steps.csv")
    mine = [row for row in steps if (row["method"], row["seed"]) == ("bitfit", "0")]
    assert [int(row["step"]) for row in mine if row["name"] == "train/loss"] == list(range(1, 91))
    assert {row["value"] for row in mine if row["name"] == "train/learning_rate"} == {"0.003"}
    between = [(row["step"], row["name"], row["value"]) for row in mine if row["name"].startswith("during/")]
    assert between == [("45", "during/validation/accuracy", "0.75")]


def test_csv_is_the_same_each_time_and_utf8(folder: Path, tmp_path: Path) -> None:
    """Two exports are equal byte for byte, also over an earlier one, and end their lines with a line feed alone."""
    first = export_records(folder, "csv", tmp_path / "a")
    kept = {path.name: path.read_bytes() for path in first.iterdir()}
    assert set(kept) == {"runs.csv", "steps.csv", "predictions.csv", MARKER}
    again = {path.name: path.read_bytes() for path in export_records(folder, "csv", tmp_path / "a").iterdir()}
    assert again == kept
    assert all(b"\r" not in data and data.decode("utf-8") for data in kept.values())


def test_trials_and_left_over_runs_are_told_apart(tmp_path: Path) -> None:
    """A run at a rate that was not chosen is a trial; one of a seed that the study no longer has is left over."""
    folder = StudyFolder(write_study(tmp_path / "made", seeds=(0, 1), test_rows=8, broken=False))
    record = folder.study()
    fewer = record.model_copy(
        update={
            "seeds": [0],
            "selections": [one.model_copy(update={"learning_rate": 0.5}) for one in record.selections[:1]],
        }
    )
    folder.write_study(fewer)
    roles = {(run.method, run.seed): run.role for run in flat_study(folder).runs}
    assert roles[record.selections[0].method, 0] == "trial"
    assert roles["full", 0] == "result"
    assert roles["full", 1] == "left_over"


@pytest.mark.parametrize("target", ["mlfow", "CSV", "wandb"])
def test_unknown_target_names_the_nearest(folder: Path, tmp_path: Path, target: str) -> None:
    """A target that there is not is refused in one line with what there is, before anything is written."""
    with pytest.raises(ConfigError, match="mlflow") as caught:
        export_records(folder, target, tmp_path / "out")
    assert ("did you mean" in str(caught.value)) == (target == "mlfow")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """What no export made is never cleared; a file in the folder's place is refused too."""
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(StorageError, match="no export made"):
        export_records(folder, "csv", tmp_path)
    with pytest.raises(StorageError, match="is a file"):
        export_records(folder, "csv", tmp_path / "kept.txt")
    assert (tmp_path / "kept.txt").read_text() == "mine"
    with pytest.raises(RecordError, match=r"study\.json"):
        export_records(tmp_path, "csv", tmp_path / "out")


@pytest.mark.parametrize("target", ["mlflow", "trackio"])
def test_missing_library_is_one_clear_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Without the library the error says how to get it, and an earlier export stays."""
    monkeypatch.delenv(other_python.VARIABLE, raising=False)
    monkeypatch.setattr(other_python.importlib.util, "find_spec", lambda name: None)
    out = export_records(folder, "csv", tmp_path / "out")
    with pytest.raises(ConfigError, match="pip install") as caught:
        export_records(folder, target, out)
    assert "\n" not in str(caught.value)
    assert (out / "runs.csv").exists()
    monkeypatch.setenv(other_python.VARIABLE, str(tmp_path / "no-python"))
    with pytest.raises(ConfigError, match="no-python"):
        export_records(folder, target, out)


def test_another_python_without_the_library_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python that is named is really run: one that lacks the library gives a line that names it."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: no installed packages at all
    bare.chmod(0o755)
    monkeypatch.setenv(other_python.VARIABLE, str(bare))
    with pytest.raises(ConfigError, match="No module named 'mlflow'"):
        export_records(folder, "mlflow", tmp_path / "out")


def _records(path: Path) -> Iterator[bytes]:
    """Records of an event file, their checksums checked by their own arithmetic."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        body = data[at + 12 : at + 12 + length]
        for place, part in ((at + 8, data[at : at + 8]), (at + 12 + length, body)):
            crc = crc32c(part)
            rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
            assert struct.unpack_from("<I", data, place)[0] == (rotated + 0xA282EAD8) & 0xFFFFFFFF
        yield body
        at += length + 16


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Fields of a protobuf message."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not data[at - 1] & 0x80:
                return value, at

    at = 0
    while at < len(data):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
            yield key >> 3, value
            continue
        size, at = (8, at) if key & 7 == 1 else (4, at) if key & 7 == 5 else varint(at)
        yield key >> 3, data[at : at + size]
        at += size


def _scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for body in _records(path):
        event = dict(_fields(body))
        if 5 in event:
            value = dict(_fields(dict(_fields(event[5]))[1]))
            if 2 in value:
                found.setdefault(value[1].decode(), []).append((event[2], struct.unpack("<f", value[2])[0]))
    return found


@pytest.mark.parametrize(
    ("data", "crc"),
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"123456789", 0xE3069283)],
)
def test_checksum_is_that_of_the_rfc(data: bytes, crc: int) -> None:
    """CRC-32C gives the test vectors of RFC 3720, B.4, and the usual check value."""
    assert crc32c(data) == crc


def test_tensorboard_files_hold_curves_and_final_figures(folder: Path, study: FlatStudy, tmp_path: Path) -> None:
    """Every record's checksums hold, and curves, scores and costs are those of the records, at their steps."""
    out = export_records(folder, "tensorboard", tmp_path / "out")
    files = sorted(out.glob("*/events.out.tfevents.*"))
    assert len(files) == len(study.runs)
    run = next(one for one in study.runs if (one.method, one.seed) == ("lora", 1))
    found = _scalars(next(file for file in files if run.id[:8] in file.parent.name))
    losses = [(point.step, point.values["train/loss"]) for point in run.points]
    assert [step for step, _ in found["train/loss"]] == [step for step, _ in losses]
    assert [value for _, value in found["train/loss"]] == pytest.approx([value for _, value in losses], rel=1e-6)
    assert found["score/test/accuracy"] == [(90, pytest.approx(ACCURACY))]
    assert found["cost/peak_memory_bytes"][0][1] == pytest.approx(run.finals["cost/peak_memory_bytes"], rel=1e-6)
    again = export_records(folder, "tensorboard", tmp_path / "again")
    assert len({file.parent for file in files}) == len(files)
    assert all((again / file.relative_to(out)).read_bytes() == file.read_bytes() for file in files)


class _Client:
    """Stands in for MLflow's client: keeps what it is told, and holds to the limits of the real one."""

    def __init__(self, tracking_uri: str) -> None:
        self.uri, self.runs = tracking_uri, {}

    def create_experiment(self, name: str, artifact_location: str, tags: dict[str, str]) -> str:
        assert artifact_location.startswith("file:///")
        return name

    def create_run(self, experiment: str, start_time: int, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        self.runs[run_name] = {"tags": tags, "metrics": [], "params": {}, "files": [], "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_batch(self, run_id: str, metrics: object = (), params: object = ()) -> None:
        assert len(metrics) <= 1000 and len(params) <= 100
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] |= dict(params)

    def log_artifact(self, run_id: str, path: str) -> None:
        self.runs[run_id]["files"].append(Path(path).name)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self.runs[run_id]["status"] = status


def _handed(study: FlatStudy) -> dict:
    return other_python.json.loads(other_python._handed(study))


def test_mlflow_is_told_of_every_run(study: FlatStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Params, curves in batches, final figures, files and states go to the client; a running one is left running."""
    made: list[_Client] = []
    monkeypatch.setitem(
        sys.modules,
        "mlflow",
        SimpleNamespace(MlflowClient=lambda tracking_uri: made.append(_Client(tracking_uri)) or made[0]),
    )
    entities = SimpleNamespace(Param=lambda *of: of, Metric=lambda *of: of)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    mlflow_writer.write(_handed(study), tmp_path)
    assert made[0].uri == f"sqlite:///{tmp_path}/mlflow.db"
    runs = made[0].runs
    assert {name: run["status"] for name, run in runs.items() if "seed 1" in name or "bitfit" in name} == {
        "majority seed 1": "FINISHED", "tfidf seed 1": "FINISHED", "head seed 1": "FINISHED",
        "last2 seed 1": "FINISHED", "bitfit seed 0": "RUNNING", "bitfit seed 1": "FAILED", "lora seed 1": "FINISHED",
        "full seed 1": "FINISHED",
    }  # fmt: skip
    lora = runs["lora seed 1"]
    assert lora["params"]["train.epochs"] == "3"
    assert lora["tags"]["method"] == "lora" and lora["tags"]["grade/train_seconds"] == "counter"
    assert [step for name, _, _, step in lora["metrics"] if name == "train/loss"] == list(range(1, 91))
    assert ("score/test/accuracy", ACCURACY, 90) in [(name, value, step) for name, value, _, step in lora["metrics"]]
    assert "predictions.parquet" in lora["files"]


def test_trackio_is_told_of_every_run(study: FlatStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is opened under its method, logged step by step, and finished; the state stands in its config."""
    configs: dict[str, dict] = {}
    ended: list[str] = []
    logged: dict[str, list[tuple[int, dict[str, float]]]] = {}
    kept: list[str] = []

    def init(*, project, name, group, config, embed, auto_log_gpu, auto_log_cpu) -> SimpleNamespace:
        logged[name], configs[name] = [], config
        return SimpleNamespace(
            log=lambda values, step: logged[name].append((step, values)),
            finish=lambda: ended.append(name),
        )

    fake = SimpleNamespace(init=init, log_artifact=lambda path, name, type: kept.append(name))
    monkeypatch.setitem(sys.modules, "trackio", fake)
    trackio_writer.write(_handed(study))
    assert ended == [run.name for run in study.runs]
    states = [configs[name]["status"] for name in ("lora seed 1", "bitfit seed 1", "bitfit seed 0")]
    assert states == ["ok", "failed", "unfinished"]
    assert logged["lora seed 1"][-1][1]["score/test/accuracy"] == ACCURACY
    assert len(logged["lora seed 1"]) == 91
    assert len(kept) == sum(any("predictions" in file for file in run.files) for run in study.runs)


def test_names_are_made_safe() -> None:
    """A label of any letters becomes a folder's and a metric's name; both keep the slash's meaning apart."""
    assert plain_name("LoRA r=8 / α") == "LoRA-r-8-α"
    assert plain_name("../..") == "run"
    assert mlflow_writer.key("score/вне домена?/f1") == "score/вне домена_/f1"
    assert set(TARGETS) == {"csv", "tensorboard", "mlflow", "trackio"}
