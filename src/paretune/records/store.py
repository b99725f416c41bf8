"""Run folders on disk: immutable spec, append-only events, atomic status; one writer a run, held by a lock.

Not here: what the records mean. A torn last line of events is tolerated; a status appears by rename or not at all; a
lock (flock) dies with its process, so a killed runner leaves nothing to clean.

    for run in StudyFolder(Path("runs/demo")).runs(): print(run.id, run.status())
"""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, TypeAdapter, ValidationError

from paretune.core.config import JsonObject
from paretune.core.disk import cannot_write
from paretune.core.errors import NewerRecordError, RecordError, said
from paretune.core.events import Event, Phase
from paretune.records.schema import (
    NEWEST_VERSION,
    PREDICTION_COLUMNS,
    SCHEMA_VERSION,
    ExampleText,
    Measurements,
    RunSpec,
    Stage,
    State,
    Status,
    StudyRecord,
)

RecordT = TypeVar("RecordT", bound=BaseModel)
_EXAMPLES = TypeAdapter(list[ExampleText])

PREDICTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("prediction", pa.string()),
        ("score", pa.float32()),
        ("label_probability", pa.float32()),
        ("near_duplicate", pa.bool_()),
    ]
)
assert tuple(PREDICTIONS.names) == PREDICTION_COLUMNS
STUDY_FILE = "study.json"
EXPLORATION_FILE = "explore.json"
EXAMPLES_FILE = "examples.json"
EARLIER_FILE = "earlier.parquet"
CHECKPOINT_FILE = "checkpoint.pt"
EARLIER_EVENTS_FILE = "events-before.jsonl"  # of an attempt that was killed, until it is gone on from
MEASUREMENTS_FILE = "measurements.json"
PREDICTIONS_FILE = "predictions.parquet"
FROZEN = "frozen"
WRITING_SECONDS = 600.0  # no file of a study's folder takes so long to be written
TOKEN_LOSSES = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("nll", pa.float64()),
        ("tokens", pa.int64()),
        ("text_bytes", pa.int64()),
        ("near_duplicate", pa.bool_()),
    ]
)
TOKEN_LOSSES_FILE = "token_losses.parquet"
VALIDATION_FILE = "validation.parquet"
_OF_TESTS = ("split", "near_duplicate")
VALIDATION = pa.schema([field for field in PREDICTIONS if field.name not in _OF_TESTS])
VALIDATION_LOSSES = pa.schema([field for field in TOKEN_LOSSES if field.name not in _OF_TESTS])


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a whole file by rename, so that readers see the old one or the new one.

    Raises:
        StorageError: the folder cannot be written or the disk is full; the old file is untouched.
    """
    payload = data.encode() if isinstance(data, str) else data
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def replace_folder(fresh: Path, target: Path) -> None:
    """Put a whole folder in the place of another: at every moment readers find the old one or the new one.

    Where the system cannot exchange two folders in one step, the old one is set aside for a moment; a kill just then is
    made good by `recover_folder`.

    Raises:
        StorageError: the folder cannot be written.
    """
    aside = target.with_name(f".{target.name}.old")
    try:
        if not target.exists():
            fresh.rename(target)
        elif _exchanged(fresh, target):
            shutil.rmtree(fresh)
        else:
            target.rename(aside)
            fresh.rename(target)
            shutil.rmtree(aside)
    except OSError as error:
        raise cannot_write(target, error) from error


def recover_folder(target: Path) -> None:
    """Set right what a killed `replace_folder` left: the old folder comes back where no new one took its place."""
    aside = target.with_name(f".{target.name}.old")
    if aside.exists() and not target.exists():
        aside.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step (renameat2(2), RENAME_EXCHANGE); False where the system cannot."""
    here, exchange = -100, 2
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def read_record(path: Path, into: type[RecordT]) -> RecordT:
    """Read one JSON record.

    Raises:
        RecordError: missing, not JSON, of a newer schema, or of another shape.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(said(f"{path} cannot be read ({error})", "a record that paretune wrote")) from error
    try:
        tree = json.loads(text)
        version = tree.get("schema_version", SCHEMA_VERSION)
        if version > NEWEST_VERSION:
            given = f"{path} has schema version {version}"
            raise NewerRecordError(said(given, f"at most {NEWEST_VERSION}", do="update paretune"))
        return into.model_validate_json(text)
    except (json.JSONDecodeError, AttributeError, TypeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise RecordError(said(f"{path} is not a {into.__name__} ({first})", "a record that paretune wrote")) from error


def _write_rows(path: Path, rows: pa.Table, schema: pa.Schema = PREDICTIONS) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(rows.select(schema.names).cast(schema), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def _read_rows(path: Path, schema: pa.Schema | None = PREDICTIONS) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema)
    except (OSError, pa.ArrowInvalid) as error:
        raise RecordError(said(f"{path} cannot be read ({error})", "predictions of a scored run")) from error


def _readable(read: Callable[[], object]) -> bool:
    """Whether a record is there and whole.

    Raises:
        NewerRecordError: it was written by a newer paretune, and is not to be made again by this one.
    """
    try:
        read()
    except NewerRecordError:
        raise
    except (RecordError, OSError, ValueError, pa.ArrowException):
        return False
    return True


def _whole_table(path: Path) -> bool:
    """Whether a Parquet file is there with its footer, which is written last."""
    try:
        pq.ParquetFile(path).close()
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.part)?|[^.].*\.part")


def _sweep(folder: Path, older_than_seconds: float) -> None:
    """Remove what a killed writer left in a folder: its name says that it is temporary, its age that nobody writes."""
    now = time.time()
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime >= older_than_seconds:
                    path.unlink()


class RunFolder:
    """One run's folder; reading never locks, writing needs `claimed()`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def frozen(self) -> Path:
        """As the study's."""
        return self.path.parent.parent / FROZEN

    @property
    def adapter(self) -> Path:
        """Where the trained weights lie (safetensors)."""
        return self.path / "adapter"

    @contextmanager
    def claimed(self) -> Generator[bool]:
        """Hold the run's lock; yields False where another live process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def spec(self) -> RunSpec:
        return read_record(self.path / "spec.json", RunSpec)

    def write_spec(self, spec: RunSpec) -> None:
        """Write the spec once; a second call with the same spec does nothing."""
        if not (self.path / "spec.json").exists():
            write_atomically(self.path / "spec.json", spec.model_dump_json(indent=1))

    def restore_spec(self, spec: RunSpec) -> bool:
        """Write the spec of a run that has come to an end and whose own is gone or torn; returns whether it was."""
        path = self.path / "spec.json"
        if not (self.path / "status").exists() or _readable(lambda: read_record(path, RunSpec)):
            return False
        write_atomically(path, spec.model_dump_json(indent=1))
        return True

    def status(self) -> Status | None:
        """None while the run has not come to an end of any kind."""
        path = self.path / "status"
        return read_record(path, Status) if path.exists() else None

    def set_status(self, state: State, stage: Stage, reason: str = "") -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomically(self.path / "status", Status(state=state, stage=stage, reason=reason, at=at).model_dump_json())

    def write_provenance(self, provenance: JsonObject) -> None:
        write_atomically(self.path / "provenance.json", json.dumps(provenance, indent=1, ensure_ascii=False))

    def provenance(self) -> JsonObject:
        path = self.path / "provenance.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def append_event(self, event: Event, at_seconds: float) -> None:
        """Append one line; `at_seconds` counts from the run's start."""
        line = {"event": type(event).__name__, "at_seconds": round(at_seconds, 3), **dataclasses.asdict(event)}
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def clear_events(self) -> None:
        """Begin a run anew: what a killed attempt left is not mixed with the next."""
        (self.path / "events.jsonl").unlink(missing_ok=True)
        (self.path / EARLIER_EVENTS_FILE).unlink(missing_ok=True)

    def set_events_aside(self) -> None:
        """Begin a run that may go on from a checkpoint: keep the curves of what was killed until that is known."""
        known = {
            (line["event"], line["step"]): line
            for line in (*self.events(EARLIER_EVENTS_FILE), *self.events())
            if line["event"] in ("StepEnded", "EpochEvaluated")
        }
        write_atomically(self.path / EARLIER_EVENTS_FILE, "".join(json.dumps(line) + "\n" for line in known.values()))
        (self.path / "events.jsonl").unlink(missing_ok=True)

    def recall_events(self, step: int) -> None:
        """Take the curves of a killed attempt back as far as a step; what it did after it is done again."""
        lines = [line for line in self.events(EARLIER_EVENTS_FILE) if line["step"] <= step]
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        (self.path / EARLIER_EVENTS_FILE).unlink(missing_ok=True)

    def keep_events_through(self, phase: Phase) -> None:
        """Begin the stage after a phase anew: cut off what follows the phase's end, torn lines included."""
        found = self.events()
        ends = [
            place for place, line in enumerate(found) if (line["event"], line.get("phase")) == ("PhaseEnded", phase)
        ]
        kept = found[: ends[-1] + 1] if ends else found
        write_atomically(self.path / "events.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def events(self, name: str = "events.jsonl") -> list[JsonObject]:
        """All whole lines of the file; a torn one is left out."""
        path = self.path / name
        if not path.exists():
            return []
        found: list[JsonObject] = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # torn, or a number longer than Python reads
                continue
            if isinstance(event, dict) and "event" in event:
                found.append(event)
        return found

    def write_predictions(self, rows: pa.Table) -> None:
        _write_rows(self.path / PREDICTIONS_FILE, rows)

    def predictions(self) -> pa.Table:
        """Columns of `PREDICTION_COLUMNS`, in the order of the splits.

        Raises:
            RecordError: the run was not scored, or the file is torn.
        """
        return _read_rows(self.path / PREDICTIONS_FILE)

    def write_token_losses(self, rows: pa.Table) -> None:
        _write_rows(self.path / TOKEN_LOSSES_FILE, rows, TOKEN_LOSSES)

    def token_losses(self) -> pa.Table:
        """Of a run whose task predicts tokens, in place of `predictions`: each text's summed nats, tokens and bytes.

        Raises:
            RecordError: the run was not scored, is of another task, or the file is torn.
        """
        return _read_rows(self.path / TOKEN_LOSSES_FILE, TOKEN_LOSSES)

    def write_validation(self, rows: pa.Table) -> None:
        """Write what a trained model said of each validation example; by these settings are compared."""
        labelled = "prediction" in rows.column_names
        _write_rows(self.path / VALIDATION_FILE, rows, VALIDATION if labelled else VALIDATION_LOSSES)

    def validation(self) -> pa.Table:
        """What `write_validation` wrote: id, label, prediction, score and label_probability, or id, nll, tokens and
        text_bytes of a task that predicts tokens.

        Raises:
            RecordError: the run was not trained, or the file is torn.
        """
        return _read_rows(self.path / VALIDATION_FILE, None)

    def write_earlier(self, rows: pa.Table) -> None:
        _write_rows(self.path / EARLIER_FILE, rows)

    def earlier(self) -> pa.Table | None:
        """Test predictions of the earlier task, columns as in `predictions`: split "before" with the model that has
        learnt it alone, "after" with its head on the final encoder; None where the study has no earlier task.

        Raises:
            RecordError: the file is torn.
        """
        path = self.path / EARLIER_FILE
        return _read_rows(path) if path.exists() else None

    def write_measurements(self, measurements: Measurements) -> None:
        write_atomically(self.path / MEASUREMENTS_FILE, measurements.model_dump_json(indent=1))

    def measurements(self) -> Measurements:
        return read_record(self.path / MEASUREMENTS_FILE, Measurements)

    def lost(self) -> list[str]:
        """Files that a run which ended well has written and that are gone or torn.

        Raises:
            NewerRecordError: one was written by a newer paretune.
        """
        status = self.status()
        if status is None or status.state != "ok":
            return []
        lost = [] if _readable(self.measurements) else [MEASUREMENTS_FILE]
        if status.stage == "scored":
            answers = PREDICTIONS_FILE if not (self.path / TOKEN_LOSSES_FILE).exists() else TOKEN_LOSSES_FILE
            lost += [] if _whole_table(self.path / answers) else [answers]
        return lost

    def sweep(self) -> None:
        """Remove temporary files of writers that were killed; call it with the run claimed."""
        _sweep(self.path, older_than_seconds=0)

    @property
    def scored(self) -> bool:
        status = self.status()
        return status is not None and status.state == "ok" and status.stage == "scored"


class StudyFolder:
    """A study's folder under `runs/` or `results/`: same layout, but what is published has no weights and no data."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def data(self) -> Path:
        """Prepared splits; never published."""
        return self.path / "data"

    @property
    def frozen(self) -> Path:
        """What frozen blocks give for the texts, while the study runs; never published."""
        return self.path / FROZEN

    @property
    def earlier_data(self) -> Path:
        """Prepared splits of the task that is learnt first, where the study has one."""
        return self.data / "earlier"

    def study(self) -> StudyRecord:
        """Read the study's record.

        Raises:
            RecordError: the folder is no study's.
        """
        if not (self.path / STUDY_FILE).exists():
            allowed = "a folder that `paretune study` or `paretune publish` wrote"
            raise RecordError(said(f"{self.path} has no study.json", allowed))
        return read_record(self.path / STUDY_FILE, StudyRecord)

    def sweep(self) -> None:
        """Remove temporary files of writers that were killed; a file is written in far less than the time waited."""
        for folder in (self.path, self.data, self.earlier_data):
            if folder.is_dir():
                _sweep(folder, WRITING_SECONDS)

    def write_study(self, study: StudyRecord) -> None:
        write_atomically(self.path / STUDY_FILE, study.model_dump_json(indent=1))

    def run(self, spec: RunSpec) -> RunFolder:
        return RunFolder(self.path / "runs" / spec.run_id)

    def runs(self) -> list[RunFolder]:
        """All folders that hold a spec, in the order of their ids."""
        return [RunFolder(path.parent) for path in sorted((self.path / "runs").glob("*/spec.json"))]

    def write_examples(self, examples: list[ExampleText]) -> None:
        lines = [example.model_dump(mode="json") for example in examples]
        write_atomically(self.path / EXAMPLES_FILE, json.dumps(lines, ensure_ascii=False, indent=1))

    def examples(self) -> list[ExampleText]:
        path = self.path / EXAMPLES_FILE
        if not path.exists():
            return []
        try:
            return _EXAMPLES.validate_json(path.read_bytes())
        except ValidationError as error:
            raise RecordError(
                said(f"{path} cannot be read", "a list of examples as `paretune study` writes it")
            ) from error
