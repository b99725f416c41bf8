"""Run folders: atomic writes, the lock, torn events, newer schemas, a full disk."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paretune.core.disk import cannot_write, is_full_disk
from paretune.core.errors import RecordError, StorageError
from paretune.core.events import EvaluationEnded, PhaseEnded, PhaseStarted, StepEnded
from paretune.records.schema import NEWEST_VERSION, PREDICTION_COLUMNS, ExampleText, RunSpec, Status
from paretune.records.store import RunFolder, StudyFolder, read_record, recover_folder, write_atomically

SPEC = RunSpec(
    study="toy", method="lora", kind="lora", family="adaptation", settings={"rank": 8}, seed=0, learning_rate=1e-3,
    model={"source": "path:tiny"}, model_digest="m", data={}, data_digest="d", task={}, train={},
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = StudyFolder(tmp_path / "toy").run(SPEC)
    folder.write_spec(SPEC)
    return folder


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_spec_comes_back_and_names_its_folder(run: RunFolder) -> None:
    """The id is the hash of all that decides the run; whatever differs, differs in the id."""
    assert run.spec() == SPEC and run.id == SPEC.run_id and len(run.id) == 16
    for change in ({"seed": 1}, {"learning_rate": 2e-3}, {"data_digest": "e"}, {"settings": {"rank": 9}}):
        assert SPEC.model_copy(update=change).run_id != SPEC.run_id


def test_a_spec_is_written_once(run: RunFolder) -> None:
    """A second write leaves the first file alone."""
    before = (run.path / "spec.json").stat().st_mtime_ns
    run.write_spec(SPEC.model_copy(update={"seed": 9}))
    assert (run.path / "spec.json").stat().st_mtime_ns == before and run.spec().seed == 0


def test_a_status_comes_back(run: RunFolder) -> None:
    """None before any end; then the last one set; only `ok` of stage `scored` counts as scored."""
    assert run.status() is None and not run.scored
    run.set_status("ok", "trained")
    assert not run.scored
    run.set_status("failed", "scored", "причина")
    assert not run.scored
    run.set_status("ok", "scored")
    status = run.status()
    assert run.scored and status is not None and status.at.endswith("+00:00")


def test_events_keep_their_order_and_a_torn_line_is_left_out(run: RunFolder) -> None:
    """What a kill -9 tore off at the end is not an event; what stands before it is."""
    run.append_event(PhaseStarted("step"), 0.0)
    run.append_event(StepEnded(1, 0.7, 1e-3, 2.0, 16, 100, 120), 0.12345)
    run.append_event(EvaluationEnded(1, "validation", {"accuracy": 0.5}), 1.0)
    run.append_event(PhaseEnded("step"), 2.0)
    path = run.path / "events.jsonl"
    whole = path.read_bytes()
    assert [event["event"] for event in run.events()] == ["PhaseStarted", "StepEnded", "EvaluationEnded", "PhaseEnded"]
    assert run.events()[1]["loss"] == 0.7 and run.events()[1]["at_seconds"] == 0.123
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found = run.events()
        assert len(found) in (whole[:cut].count(b"\n"), whole[:cut].count(b"\n") + 1)
        assert all("event" in one for one in found)
    run.clear_events()
    assert run.events() == []


def test_events_after_a_phase_are_cut_off(run: RunFolder) -> None:
    """What a killed second stage left, a torn line included, goes; what the first stage wrote stays byte for byte."""
    for phase in ("step", "save"):
        run.append_event(PhaseStarted(phase), 0.0)
        run.append_event(PhaseEnded(phase), 1.0)
    first = (run.path / "events.jsonl").read_bytes()
    run.append_event(PhaseStarted("predict"), 2.0)
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "Phase')
    run.keep_events_through("save")
    assert (run.path / "events.jsonl").read_bytes() == first
    run.keep_events_through("latency")
    assert (run.path / "events.jsonl").read_bytes() == first, "a phase that never was cuts nothing"


@given(st.binary(max_size=200))
@example(b"9" * 5000)
@example(b"[1]\n7\n")
def test_no_bytes_in_an_event_file_crash_a_reader(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    """Whatever a broken disk left, whole lines before it are read."""
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.append_event(PhaseStarted("step"), 0.0)
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(junk)
    assert run.events() == [{"event": "PhaseStarted", "at_seconds": 0.0, "phase": "step"}]


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    """The new content or the old one, readable by others, and nothing left beside it."""
    path = tmp_path / "deep" / "record.json"
    write_atomically(path, "old")
    write_atomically(path, "новое")
    assert path.read_text(encoding="utf-8") == "новое"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert left_behind(path.parent) == []


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Whichever step fails, one line says so, the old file stands, and no temporary file is left."""
    path = tmp_path / "record.json"
    write_atomically(path, "old")

    def fail(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError) as caught:
        write_atomically(path, "new")
    monkeypatch.undo()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and os.strerror(number) in str(caught.value)
    assert path.read_text() == "old" and left_behind(tmp_path) == []


def test_a_really_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The same on a file system of 64 KiB that is full, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        made = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("this user may not mount a small file system")
    try:
        write_atomically(disk / "record.json", "old")
        with pytest.raises(StorageError, match="No space left on device"):
            write_atomically(disk / "record.json", "x" * 200_000)
        assert (disk / "record.json").read_text() == "old" and left_behind(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    """A file where a folder should be cannot be written below."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "file" / "record.json", "x")


def test_a_claim_shuts_another_process_out_until_it_ends(run: RunFolder) -> None:
    """A second process gets False while the first holds the run, and True after it, also when that was killed."""
    held = "import sys; from pathlib import Path; from paretune.records.store import RunFolder\n"
    asks = held + "with RunFolder(Path(sys.argv[1])).claimed() as mine: print(mine)"
    holds = held + "with RunFolder(Path(sys.argv[1])).claimed() as mine: print(mine, flush=True); sys.stdin.read()"

    def ask() -> str:
        done = subprocess.run([sys.executable, "-c", asks, str(run.path)], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with run.claimed() as mine:
        assert mine and ask() == "False"
    assert ask() == "True"
    other = subprocess.Popen(
        [sys.executable, "-c", holds, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline().strip() == "True"
    with run.claimed() as mine:
        assert not mine
    other.kill()
    other.communicate()
    with run.claimed() as mine:
        assert mine


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (json.dumps({"schema_version": NEWEST_VERSION + 1, "anything": 1}), "schema version 3.*update paretune"),
        ('{"state": "ok"', "is not a Status"),
        ("[]", "is not a Status"),
        ('{"state": "perhaps", "stage": "scored", "reason": "", "at": ""}', "is not a Status"),
        ('{"schema_version": "two"}', "is not a Status"),
        ("", "is not a Status"),
    ],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, text: str, wanted: str) -> None:
    """A newer schema, a torn file or another shape: a RecordError of one line, never a traceback of a parser."""
    (tmp_path / "status").write_text(text)
    with pytest.raises(RecordError, match=wanted) as caught:
        read_record(tmp_path / "status", Status)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_study_says_so(tmp_path: Path) -> None:
    """One line that names what writes such a folder."""
    with pytest.raises(RecordError, match=r"has no study\.json.*paretune study"):
        StudyFolder(tmp_path).study()
    assert StudyFolder(tmp_path).runs() == [] and StudyFolder(tmp_path).examples() == []


def table(rows: int) -> pa.Table:
    return pa.table(
        {
            "id": [f"test-{row}" for row in range(rows)],
            "split": ["test"] * rows,
            "label": ["нефть"] * rows,
            "prediction": ["oil"] * rows,
            "score": [0.1 * row for row in range(rows)],
            "label_probability": [0.25] * rows,
            "near_duplicate": [row % 2 == 0 for row in range(rows)],
        }
    )


def test_predictions_come_back(run: RunFolder) -> None:
    """Columns, order and values survive; probabilities are kept as float32."""
    run.write_predictions(table(5))
    found = run.predictions()
    assert tuple(found.column_names) == PREDICTION_COLUMNS
    assert found["id"].to_pylist() == [f"test-{row}" for row in range(5)]
    assert found["score"].to_pylist() == pytest.approx([0.1 * row for row in range(5)], rel=1e-6)
    assert found["near_duplicate"].to_pylist() == [True, False, True, False, True]


def test_torn_or_missing_predictions_are_one_line(run: RunFolder) -> None:
    """A trained run has none, a torn file is none."""
    with pytest.raises(RecordError, match="predictions of a scored run"):
        run.predictions()
    run.write_predictions(table(5))
    path = run.path / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecordError, match="predictions of a scored run"):
        run.predictions()


def test_examples_come_back(tmp_path: Path) -> None:
    """Texts of the report, in any alphabet."""
    examples = [ExampleText(id="test-1", split="test", label="радость", text="Ура! \u2028 «да»")]
    StudyFolder(tmp_path).write_examples(examples)
    assert StudyFolder(tmp_path).examples() == examples


def test_runs_are_listed_by_their_specs(run: RunFolder) -> None:
    """A folder without a spec (a runner was killed before it wrote one) is no run yet."""
    study = StudyFolder(run.path.parents[1])
    (study.path / "runs" / "0000000000000000").mkdir()
    assert [one.id for one in study.runs()] == [run.id]


def test_files_of_killed_writers_are_swept(run: RunFolder) -> None:
    """In a claimed run all of them, in a study's folder those that nobody can still be writing; records stay."""
    study = StudyFolder(run.path.parents[1])
    study.data.mkdir()
    left = [".status.k3j4h5g6.part", ".spec.json.tmp12345", "checkpoint.part"]
    for folder in (run.path, study.path, study.data):
        for name in left:
            (folder / name).write_text("half")
    run.sweep()
    assert {path.name for path in run.path.iterdir()} == {"spec.json"}
    study.sweep()
    assert {path.name for path in study.path.iterdir()} >= set(left), "somebody may be writing these"
    for folder in (study.path, study.data):
        for name in left:
            os.utime(folder / name, (0, 0))
    study.sweep()
    assert {path.name for path in study.path.iterdir()} == {"data", "runs"} and not list(study.data.iterdir())


def folders(tmp_path: Path) -> tuple[Path, Path]:
    fresh, target = tmp_path / ".results.part", tmp_path / "results"
    for path, text in ((fresh, "new"), (target, "old")):
        (path / "runs").mkdir(parents=True)
        (path / "study.json").write_text(text)
    return fresh, target


KILLED = """
import os, sys
from pathlib import Path
import paretune.records.store as store

steps, stop = 0, int(sys.argv[1])
def counted(event, arguments):
    global steps
    if event in ("os.rename", "shutil.rmtree", "os.remove", "os.rmdir"):
        steps += 1
        if steps > stop:
            os._exit(9)
if sys.argv[2] == "no exchange":
    store._exchanged = lambda one, other: False
sys.addaudithook(counted)
store.replace_folder(Path(sys.argv[3]), Path(sys.argv[4]))
print("whole")
"""


@pytest.mark.parametrize("system", ["exchange", "no exchange"])
def test_a_kill_at_any_step_of_replacing_a_folder_loses_nothing(tmp_path: Path, system: str) -> None:
    """The old or the new folder stands there, whole; at the latest after the next call has set it right."""
    found: set[str] = set()
    for stop in range(12):
        place = tmp_path / str(stop)
        fresh, target = folders(place)
        command = [sys.executable, "-c", KILLED, str(stop), system, str(fresh), str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert system == "no exchange" or target.exists(), "there is no moment without a folder"
        recover_folder(target)
        found.add((target / "study.json").read_text())
        assert (target / "runs").is_dir() and not (place / ".results.old").exists()
        if done.returncode == 0:
            assert (target / "study.json").read_text() == "new" and not fresh.exists()
            break
        assert done.returncode == 9, done.stderr
    else:
        pytest.fail("never came to its end")
    assert "new" in found and found <= {"old", "new"}


def test_a_full_disk_is_named_with_what_is_free(tmp_path: Path) -> None:
    """In a library's words too; any other reason is no matter of space."""
    for error in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):
        assert is_full_disk(error)
        text = str(cannot_write(tmp_path / "not" / "there" / "record.json", error))
        assert re.search(r"No space left on device.*\(file system /\S*: \S+ \S+ of \S+ \S+ free\)", text)
        assert "\n" not in text and "free space" in text
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert not is_full_disk(refused) and "file system /" not in str(cannot_write(tmp_path, refused))
