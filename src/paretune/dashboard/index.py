"""The light index of folders of studies: which there are, their runs, how far they are and when there was news.

Not here: predictions and statistics (`gathered.py`). A sweep looks at times and sizes of files and reads only what
changed since the last one, so that it is quick with hundreds of runs; it never locks anything.

    for entry in Index(Path("runs"), Path("results")).studies(): print(entry.name, progress(entry).done)
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paretune.core.errors import RecordError, said
from paretune.dashboard.kept import Kept, Stamp, Trouble, stamp_of
from paretune.dashboard.locks import held_inodes
from paretune.records.membership import Members, members
from paretune.records.schema import MethodRecord, RunSpec, Status, StudyRecord
from paretune.records.seal import SEAL_FILE
from paretune.records.serving import INFERENCE_FILE

NEWS_SECONDS = (
    60.0  # a run without a held lock (it may be another machine's) counts as alive so long after its last line
)
STUDY_FILES = ("study.json", "explore.json", "examples.json", INFERENCE_FILE, SEAL_FILE)
RUN_FILES = ("spec.json", "status", "measurements.json", "predictions.parquet")
RunState = Literal[
    "scored", "trained", "failed", "oom", "over_budget", "timeout", "cancelled", "running", "interrupted", "unreadable"
]
StudyState = Literal["running", "finished", "unfinished", "unreadable"]


@dataclass(frozen=True)
class RunEntry:
    """A run's folder as the index knows it; `newest` is when it last changed, `running`: somebody works on it."""

    folder: Path
    spec: RunSpec | None
    status: Status | None
    troubles: tuple[Trouble, ...]
    stamps: tuple[Stamp | None, ...]
    newest: float
    running: bool

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def state(self) -> RunState:
        """How far it came."""
        if self.troubles:
            return "unreadable"
        if self.running:
            return "running"
        if self.status is None:
            return "interrupted"
        if self.status.state != "ok":
            return self.status.state
        return self.status.stage


@dataclass(frozen=True)
class StudyEntry:
    """A study's folder as the index knows it. `facts_version` changes with every record that a page may show (events
    are left out), `version` also when somebody begins or leaves off working on a run."""

    name: str
    folder: Path
    study: StudyRecord | None
    troubles: tuple[Trouble, ...]
    runs: tuple[RunEntry, ...]
    newest: float
    version: str
    facts_version: str

    def run(self, identifier: str) -> RunEntry | None:
        """A run by its id."""
        return next((run for run in self.runs if run.id == identifier), None)


@dataclass(frozen=True)
class Progress:
    """Runs that ended for good and runs in all, as far as the study's record tells; `states` counts runs by state."""

    done: int
    total: int
    states: dict[RunState, int]
    state: StudyState


class Index:
    """Folders, each of which holds studies or is one."""

    def __init__(self, *roots: Path) -> None:
        """Open folders.

        Raises:
            RecordError: there is no such folder.
        """
        for root in roots:
            if not root.is_dir():
                given = f"{root} is {'a file' if root.exists() else 'not there'}"
                raise RecordError(said(given, "a folder of studies, such as runs/ or results/, or one study"))
        self.roots = roots
        self.kept = Kept()

    def folders(self) -> dict[str, Path]:
        """Studies by the names of their folders; of several with one name the later ones by their place too."""
        found: dict[str, Path] = {}
        seen: set[Path] = set()
        for path in (path for root in self.roots for path in studies_in(root)):
            whole = path.resolve()
            if whole not in seen:
                seen.add(whole)
                found[_free_name(whole, found)] = path
        return found

    def studies(self) -> list[StudyEntry]:
        """All studies, those with the newest news first."""
        held = held_inodes()
        entries = [self._entry(name, path, held) for name, path in self.folders().items()]
        return sorted(entries, key=lambda entry: (-entry.newest, entry.name))

    def study(self, name: str) -> StudyEntry | None:
        """One study; None where no folder has this name. A name is looked up, never joined to a path."""
        path = self.folders().get(name)
        return None if path is None else self._entry(name, path, held_inodes())

    def _entry(self, name: str, path: Path, held: frozenset[int]) -> StudyEntry:
        study = self.kept.record(path / "study.json", StudyRecord)
        runs = tuple(self._run(folder, held) for folder in _run_folders(path))
        stamps = [stamp_of(path / file) for file in STUDY_FILES]
        newest = max([*(run.newest for run in runs), *(stamp[0] / 1e9 for stamp in stamps if stamp)], default=0.0)
        troubles: tuple[Trouble, ...] = ()
        if study is None:
            troubles = (Trouble(name, "study.json", "missing"),)
        elif isinstance(study, Trouble):
            troubles = (study,)
        return StudyEntry(
            name,
            path,
            study if isinstance(study, StudyRecord) else None,
            troubles,
            runs,
            newest,
            _version((stamps, [(run.id, run.stamps, run.running) for run in runs])),
            _version((stamps, [(run.id, run.stamps) for run in runs])),
        )

    def _run(self, folder: Path, held: frozenset[int]) -> RunEntry:
        spec = self.kept.record(folder / "spec.json", RunSpec)
        status = self.kept.record(folder / "status", Status)
        troubles = [one for one in (spec, status) if isinstance(one, Trouble)]
        if spec is None:
            troubles.append(Trouble(folder.name, "spec.json", "missing"))
        stamps = tuple(stamp_of(folder / file) for file in RUN_FILES)
        events, lock = stamp_of(folder / "events.jsonl"), stamp_of(folder / "lock")
        times = [stamp[0] / 1e9 for stamp in (*stamps, events) if stamp]
        known = status if isinstance(status, Status) else None
        final = known is not None and (known.state != "ok" or known.stage == "scored")
        # A scored stage begins while the status still says "trained": then only newer events tell.
        told = stamps[1][0] if stamps[1] else 0
        lines = events[0] if events is not None and events[0] > told else 0
        fresh = time.time() - lines / 1e9 < NEWS_SECONDS
        running = not final and ((lock is not None and lock[2] in held) or fresh)
        return RunEntry(
            folder,
            spec if isinstance(spec, RunSpec) else None,
            known,
            tuple(troubles),
            stamps,
            max(times, default=0.0),
            running,
        )


def progress(entry: StudyEntry) -> Progress:
    """How far a study is, counted over the runs that its record asks for."""
    states: Counter[RunState] = Counter(run.state for run in entry.runs)
    done = total = 0
    if entry.study is not None:
        own = members(entry.study, {run.id: run.spec for run in entry.runs if run.spec is not None})
        for method in entry.study.methods:
            ended, wanted = _method_progress(entry, own, method)
            done, total = done + ended, total + wanted
    whole = entry.study is not None and (entry.study.membership is None or entry.study.membership.complete)
    state: StudyState = "finished" if whole and total and done >= total else "unfinished"
    if entry.study is None:
        state = "unreadable"
    elif any(run.running for run in entry.runs):
        state = "running"
    return Progress(done, total, dict(states), state)


def _method_progress(entry: StudyEntry, members: Members, method: MethodRecord) -> tuple[int, int]:
    """Ended and wanted runs of a method: its trials on the first seed, those that extended its search too, and the
    other seeds at the chosen rate."""
    seeds, rates = members.study.seeds, method.learning_rates
    listed = {run_id for run_id, one in members.listed.items() if one.method == method.label}
    own = [run for run in entry.runs if run.id in listed and run.spec is not None]
    ends = [run for run in own if _ended(run, own, method, seeds)]
    if not rates:
        return min(len(ends), len(seeds)), len(seeds)
    first = [one for one in members.listed.values() if one.method == method.label and one.seed == seeds[0]]
    trials = max(len(rates), len(first))
    tried = [run for run in own if run.spec is not None and run.spec.seed == seeds[0]]
    lost = [run for run in tried if run.status is not None and run.status.state not in ("ok", "cancelled")]
    wanted = trials if len(lost) >= trials else trials + len(seeds) - 1  # no trial gave a model: no more
    return min(len(ends), wanted), wanted


def _ended(run: RunEntry, own: list[RunEntry], method: MethodRecord, seeds: list[int]) -> bool:
    """Whether nothing more comes of a run: it stopped, was scored, or lost the choice of the learning rate."""
    status, spec = run.status, run.spec
    if status is None or spec is None or status.state == "cancelled":
        return False
    if status.state != "ok" or status.stage == "scored":
        return True
    others = [one for one in own if one.spec is not None and one.spec.seed == seeds[0] and one.id != run.id]
    chosen = any(one.status is not None and one.status.stage == "scored" for one in others)
    return bool(method.learning_rates) and spec.seed == seeds[0] and chosen


def is_study(path: Path) -> bool:
    """Whether the folder itself is a study, be its record there yet or not."""
    return (path / "study.json").exists() or (path / "runs").is_dir()


def studies_in(root: Path) -> list[Path]:
    """The folder itself where it is a study, else the studies that lie in it."""
    if is_study(root):
        return [root]
    try:
        inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    return [path for path in inside if is_study(path)]


def _free_name(path: Path, taken: Mapping[str, Path]) -> str:
    """ "demo", or "demo (results)" where that is another study's name, or "demo (results 2)" where this is too."""
    names = [path.name, f"{path.name} ({path.parent.name})"]
    more = (f"{path.name} ({path.parent.name} {number})" for number in itertools.count(2))
    return next(name for name in itertools.chain(names, more) if name not in taken)


def _run_folders(path: Path) -> list[Path]:
    try:
        return sorted(one for one in (path / "runs").iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []


def _version(of: object) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]
