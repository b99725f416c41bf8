"""What the registry knows of each bundle: its state, and the file that outlives the process.

Not here: how a state comes about (`registry.py`). States: pending → ready → draining → unloaded, or failed with a
reason. The file is replaced as a whole, so a killed process leaves the old or the new one.

    entries = Entries(home / "index.json"); entries.put(Entry(digest=digest, id="emotions", state="ready"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from paretune.core.config import Settings
from paretune.records.store import read_record, write_atomically
from paretune.serve.shapes_admin import State

MAX_FAILED = 64


class Entry(Settings):
    """One bundle; `digest` is None where what lies in the inbox could not be read, `id` is the name it came under.

    `fault` of a failed one: the bundle itself, its name (taken by another), or the server (a full disk, a defect).
    `proven`: it has answered its goldens in this store once, so that it is kept there whatever comes later.
    """

    digest: str | None
    id: str
    state: State
    reason: str = ""
    fault: Literal["", "bundle", "name", "server"] = ""
    proven: bool = False

    @property
    def key(self) -> str:
        return self.digest or f"inbox:{self.id}"


class IndexFile(Settings):
    """The file."""

    schema_version: int = 1
    adapters: list[Entry] = Field(default_factory=list)


class Entries:
    """All entries in the order in which they came; not safe to change from two threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        found = read_record(path, IndexFile).adapters if path.exists() else []
        self._table = {entry.key: entry for entry in found}

    def all(self) -> list[Entry]:
        return list(self._table.values())

    def get(self, key: str) -> Entry | None:
        return self._table.get(key)

    def is_ready(self, digest: str) -> bool:
        entry = self._table.get(digest)
        return entry is not None and entry.state == "ready"

    def put(self, entry: Entry) -> None:
        """Set an entry, on disk first. A pending one is not written: after a crash there is nothing to go on with.

        Raises:
            StorageError: the file cannot be written; nothing changes.
        """
        table = {**self._table, entry.key: entry}
        if entry.digest is not None:
            table.pop(f"inbox:{entry.id}", None)  # an earlier attempt under this id that could not be read
        for key in [key for key, one in table.items() if one.state == "failed"][:-MAX_FAILED]:
            table.pop(key)
        if entry.state != "pending":
            kept = [one for one in table.values() if one.state != "pending"]
            write_atomically(self._path, IndexFile(adapters=kept).model_dump_json(indent=1))
        self._table = table

    def note(self, entry: Entry) -> None:
        """Set an entry in memory only: where the disk is full, the failure is still told."""
        self._table = {**self._table, entry.key: entry}
