"""Record files read once and kept until they change: by times, size and inode.

The time of change is among them, which no program sets back: a record that was edited in its place is read again.
Not here: what a file means. A file that cannot be read is kept too, as `Trouble`: pages show it in its place.

    Kept().record(Path("runs/demo/study.json"), StudyRecord)
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from paretune.core.errors import RecordError
from paretune.records.schema import NEWEST_VERSION
from paretune.records.store import read_record

RecordT = TypeVar("RecordT", bound=BaseModel)
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Trouble:
    """A file that cannot be read: torn (or no record at all), missing, or of a newer schema than this program's."""

    place: str
    file: str
    kind: Literal["torn", "missing", "newer"]
    version: int = 0


def stamp_of(path: Path) -> Stamp | None:
    """Time of writing, size, inode and time of change; None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


class Kept:
    """All files that were read so far."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str], tuple[Stamp, object]] = {}
        self._lock = threading.Lock()

    def record(self, path: Path, into: type[RecordT]) -> RecordT | Trouble | None:
        """A record, or what is wrong with it; None where there is no file."""
        found = self.read(path, into.__name__, lambda one: _record(one, into))
        assert found is None or isinstance(found, Trouble | into), "a name stands for one model"
        return found

    def read(self, path: Path, what: str, reader: Callable[[Path], object]) -> object:
        """What `reader`, which `what` names, made of the file the last time that it changed; None without a file."""
        stamp = stamp_of(path)
        if stamp is None:
            return None
        kept = self._kept.get((path, what))
        if kept is not None and kept[0] == stamp:
            return kept[1]
        value = reader(path)  # a change during the reading is seen at the next: the older stamp is the one that is kept
        with self._lock:
            self._kept[path, what] = (stamp, value)
        return value


def _record(path: Path, into: type[RecordT]) -> RecordT | Trouble:
    try:
        return read_record(path, into)
    except (RecordError, ValueError, RecursionError):  # a number longer than Python reads is a plain ValueError
        return trouble_with(path)


def trouble_with(path: Path) -> Trouble:
    """What is wrong with a file that could not be read."""
    place = path.parent.name
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Trouble(place, path.name, "missing")
    except (OSError, ValueError, RecursionError):
        return Trouble(place, path.name, "torn")
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if isinstance(version, int) and version > NEWEST_VERSION:
        return Trouble(place, path.name, "newer", version)
    return Trouble(place, path.name, "torn")
