"""A study's facts for the pages: gathered by the report's own code, over the runs that can be read.

Not here: statistics (`report/facts.py`). One record that is torn or of a newer schema is left out and named, the other
runs stay; runs on different data or settings are not put into one chart: `refused` says what differs.

    found = Gatherer().gathered(index.study("demo")); found.facts or found.refused
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from paretune.core.config import JsonObject
from paretune.core.errors import RecordError, UsageError
from paretune.dashboard.index import Index, RunEntry, StudyEntry
from paretune.dashboard.kept import Kept, Trouble, trouble_with
from paretune.records.exploration import Exploration
from paretune.records.membership import shared_fields
from paretune.records.schema import (
    PREDICTION_COLUMNS,
    ExampleText,
    Measurements,
    RunSpec,
    Status,
    StudyRecord,
)
from paretune.records.serving import INFERENCE_FILE, Inference
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.facts import StudyFacts, gather

ROWS_FILE = "data.parquet"  # of the prepared data, as `data/prepare.py` writes it


@dataclass(frozen=True)
class Gathered:
    """What is known of a study; `facts` is None where its record cannot be read or its runs do not belong together.

    `texts` maps the id of a test example to its text: of all where the prepared data lie beside the runs
    (`whole_texts`), else of the published ones.
    """

    entry: StudyEntry
    facts: StudyFacts | None
    exploration: Exploration | None
    examples: tuple[ExampleText, ...]
    troubles: tuple[Trouble, ...]
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    whole_texts: bool = False
    refused: str = ""
    differing: tuple[tuple[str, int], ...] = ()


class KeptRun(RunFolder):
    """A run whose files are read once; without predictions, which `gather` turns into arrays."""

    def __init__(self, path: Path, kept: Kept) -> None:
        super().__init__(path)
        self._kept = kept

    def spec(self) -> RunSpec:
        found = self._kept.record(self.path / "spec.json", RunSpec)
        return found if isinstance(found, RunSpec) else super().spec()

    def status(self) -> Status | None:
        found = self._kept.record(self.path / "status", Status)
        return found if isinstance(found, Status) else super().status()

    def measurements(self) -> Measurements:
        found = self._kept.record(self.path / "measurements.json", Measurements)
        return found if isinstance(found, Measurements) else super().measurements()

    def events(self, name: str = "events.jsonl") -> list[JsonObject]:
        found = self._kept.read(self.path / name, "losses", lambda _: _losses(super(KeptRun, self).events(name)))
        return list(found) if isinstance(found, list) else []

    def provenance(self) -> JsonObject:
        found = self._kept.read(self.path / "provenance.json", "object", _object)
        return found if isinstance(found, dict) else {}

    def earlier(self) -> None:
        """Not read: no page shows an earlier task."""

    def predictions(self) -> pa.Table:
        try:
            return super().predictions()
        except RecordError:
            raise
        except (pa.ArrowException, ValueError, KeyError) as error:  # a torn file is not always an ArrowInvalid
            raise RecordError(f"{self.path / 'predictions.parquet'} cannot be read ({error})") from error


def _losses(events: list[JsonObject]) -> list[JsonObject]:
    """Steps with a loss and scores after epochs, and no more of them: the rest is not asked for again."""
    return _epochs(events) + [
        {"event": "StepEnded", "step": line["step"], "loss": line["loss"]}
        for line in events
        if line.get("event") == "StepEnded"
        and isinstance(line.get("step"), int)
        and isinstance(line.get("loss"), int | float)
    ]


def _epochs(events: list[JsonObject]) -> list[JsonObject]:
    """Scores on validation data after an epoch, where they are whole."""
    found: list[JsonObject] = []
    for line in events:
        match line:
            case {"event": "EpochEvaluated", "epoch": int(), "step": int(), "scores": dict(scores)}:
                numbers = {name: one for name, one in scores.items() if isinstance(one, int | float)}
                found.append({**line, "scores": numbers})
            case _:
                pass
    return found


def _object(path: Path) -> JsonObject | Trouble:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return trouble_with(path)
    return found if isinstance(found, dict) else trouble_with(path)


class ReadableStudy(StudyFolder):
    """A study's folder with the runs that can be read; its path leads nowhere, so that nothing else is read by it."""

    def __init__(self, entry: StudyEntry, study: StudyRecord, runs: list[RunFolder]) -> None:
        super().__init__(entry.folder / "runs" / ".none")
        self._study, self._runs = study, runs

    def study(self) -> StudyRecord:
        return self._study

    def runs(self) -> list[RunFolder]:
        return list(self._runs)

    def examples(self) -> list[ExampleText]:
        return []


class Gatherer:
    """Facts of studies, each kept until a file of the study changes."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._found: dict[str, Gathered] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def gathered(self, entry: StudyEntry) -> Gathered:
        """The facts of a study as its index entry saw it."""
        with self._guard:
            lock = self._locks.setdefault(entry.name, threading.Lock())
        with lock:
            known = self._found.get(entry.name)
            if known is None or known.entry.facts_version != entry.facts_version:
                known = _gather(entry, self._index.kept)
                self._found[entry.name] = known
            return known


def _gather(entry: StudyEntry, kept: Kept) -> Gathered:
    troubles = [*entry.troubles, *(trouble for run in entry.runs for trouble in run.troubles)]
    exploration = kept.record(entry.folder / "explore.json", Exploration)
    inference = kept.record(entry.folder / INFERENCE_FILE, Inference)
    examples = kept.read(entry.folder / "examples.json", "examples", _examples)
    troubles += [one for one in (exploration, inference, examples) if isinstance(one, Trouble)]
    explored = exploration if isinstance(exploration, Exploration) else None
    texts = examples if isinstance(examples, tuple) else ()
    if entry.study is None:
        return Gathered(entry, None, explored, texts, tuple(troubles))
    found = [run for run in entry.runs if not run.troubles]
    wrong = {run.id: _unreadable(run, kept) for run in found}  # by their footers; what that does not show gather does
    runs: list[RunFolder] = [KeptRun(run.folder, kept) for run in found if wrong[run.id] is None]
    troubles += [one for one in wrong.values() if one is not None]
    try:
        facts = gather(ReadableStudy(entry, entry.study, runs), entry.folder)
    except UsageError as error:
        return Gathered(entry, None, explored, texts, tuple(troubles), refused=str(error))
    differing = tuple(_differing(facts))
    if differing:
        return Gathered(entry, None, explored, texts, tuple(troubles), differing=differing)
    facts.exploration, facts.examples = explored, list(texts)
    facts.inference = inference if isinstance(inference, Inference) else None
    prepared = kept.read(entry.folder / "data" / ROWS_FILE, "texts", _test_texts)
    if isinstance(prepared, dict):
        return Gathered(entry, facts, explored, texts, tuple(troubles), prepared, whole_texts=True)
    known = {one.id: one.text for one in texts if one.split == "test"}
    return Gathered(entry, facts, explored, texts, tuple(troubles), known)


def _unreadable(run: RunEntry, kept: Kept) -> Trouble | None:
    """What is wrong with the files of a scored run."""
    if run.status is None or run.status.state != "ok" or run.status.stage != "scored":
        return None
    measured = kept.record(run.folder / "measurements.json", Measurements)
    if not isinstance(measured, Measurements):
        return measured or Trouble(run.id, "measurements.json", "missing")
    path = run.folder / "predictions.parquet"
    found = kept.read(path, "footer", _footer)
    if found is None:
        return Trouble(run.id, path.name, "missing")
    return None if found is True else Trouble(run.id, path.name, "torn")


def _footer(path: Path) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            return set(PREDICTION_COLUMNS) <= set(file.schema_arrow.names) and file.metadata.num_rows > 0
    except (OSError, ValueError, pa.ArrowException):
        return False


def _examples(path: Path) -> tuple[ExampleText, ...] | Trouble:
    try:
        return tuple(ExampleText.model_validate(line) for line in json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, ValidationError, RecursionError):
        return Trouble(path.parent.name, path.name, "torn")


def _test_texts(path: Path) -> dict[str, str] | Trouble:
    """Texts of the test examples, as they were prepared for the runs."""
    try:
        table = pq.read_table(path, columns=["split", "id", "text"]).to_pydict()
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return Trouble(path.parent.name, path.name, "torn")
    rows = zip(table["split"], table["id"], table["text"], strict=True)
    return {str(identifier): str(text) for split, identifier, text in rows if split == "test"}


def _differing(facts: StudyFacts) -> list[tuple[str, int]]:
    """Fields of the specs that should be the same in all scored runs and are not, with their numbers of values."""
    shared = [shared_fields(run.spec) for method in facts.scored for run in method.runs.values()]
    names = dict.fromkeys(name for fields in shared for name in fields)
    counts = {name: len({fields.get(name) for fields in shared}) for name in names}
    return [(name, count) for name, count in counts.items() if count > 1]
