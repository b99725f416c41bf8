"""Names that point to digests: a weight a digest, a history to go back in, one file that is replaced as a whole.

Not here: whether a digest may answer (`registry.py`). Which digest answers a text is decided by a hash of name and
text, so the same text gets the same version as long as the weights stay.

    aliases = Aliases(home / "aliases.json"); aliases.set("emotions", {digest: 1}); aliases.pick("emotions", "a text")
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from paretune.core.config import Settings
from paretune.core.errors import BundleError, UnknownNameError, said
from paretune.records.store import read_record, write_atomically
from paretune.serve.names import NAME_ALLOWED, is_id

HISTORY = 20


class Alias(Settings):
    """What a name points to now, and what it pointed to before, the latest last."""

    weights: dict[str, int]
    history: list[dict[str, int]] = Field(default_factory=list)


class AliasFile(Settings):
    """The file."""

    schema_version: int = 1
    aliases: dict[str, Alias] = Field(default_factory=dict)


class Aliases:
    """All aliases; safe to use from several threads. A change is on disk before it is seen.

    Readers take no lock: the table is never changed, only replaced, so that a request does not wait for the disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._table = dict(read_record(path, AliasFile).aliases) if path.exists() else {}

    def names(self) -> list[str]:
        return sorted(self._table)

    def get(self, name: str) -> Alias | None:
        return self._table.get(name)

    def names_of(self, digest: str) -> list[str]:
        """The names that have a digest among their weights."""
        return sorted(name for name, alias in self._table.items() if digest in alias.weights)

    def set(self, name: str, weights: Mapping[str, int]) -> Alias:
        """Point a name somewhere; what it pointed to goes into its history.

        Raises:
            BundleError: not a name, or a weight below 1.
            StorageError: the file cannot be written; nothing changes.
        """
        if not is_id(name):
            raise BundleError(said(f"adapter name {name!r}", NAME_ALLOWED))
        if not weights or min(weights.values()) < 1:
            raise BundleError(said(f"weights {dict(weights)}", "one digest or more with whole numbers from 1"))
        with self._lock:
            old = self._table.get(name)
            if old is not None and old.weights == dict(weights):
                return old
            history = [*old.history, old.weights][-HISTORY:] if old else []
            return self._commit(name, Alias(weights=dict(weights), history=history))

    def rollback(self, name: str) -> Alias:
        """One step back in a name's history.

        Raises:
            UnknownNameError: no such name.
            BundleError: it has no history.
        """
        with self._lock:
            old = self._table.get(name)
            if old is None:
                raise UnknownNameError(said(f"adapter name {name!r}", "a name that is in use"))
            if not old.history:
                raise BundleError(said(f"{name!r} was never changed", "a name with a history"))
            return self._commit(name, Alias(weights=old.history[-1], history=old.history[:-1]))

    def drop_digest(self, digest: str) -> None:
        """Take a digest out of every name; a name with no other digest is gone."""
        with self._lock:
            table = dict(self._table)
            for name, alias in self._table.items():
                if digest in alias.weights:
                    rest = {one: weight for one, weight in alias.weights.items() if one != digest}
                    table.pop(name)
                    if rest:
                        table[name] = Alias(weights=rest, history=[*alias.history, alias.weights][-HISTORY:])
            self._write(table)

    def drop(self, name: str) -> Alias | None:
        """Forget a name."""
        with self._lock:
            table = dict(self._table)
            gone = table.pop(name, None)
            if gone is not None:
                self._write(table)
            return gone

    def pick(self, name: str, token: str) -> str | None:
        """The digest that answers `token` under this name; None where there is no such name."""
        alias = self.get(name)
        if alias is None:
            return None
        if len(alias.weights) == 1:
            return next(iter(alias.weights))
        seed = hashlib.sha256(f"{name}\0{token}".encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(seed[:8]) % sum(alias.weights.values())
        for digest in sorted(alias.weights):
            place -= alias.weights[digest]
            if place < 0:
                return digest
        raise AssertionError("place is below the sum of weights")

    def _commit(self, name: str, alias: Alias) -> Alias:
        self._write({**self._table, name: alias})
        return alias

    def _write(self, table: dict[str, Alias]) -> None:
        text = AliasFile(aliases=dict(sorted(table.items()))).model_dump_json(indent=1)
        write_atomically(self._path, text)
        self._table = table
