"""The adapters of a server: loaded, replaced and unloaded while requests run, and still there after a crash.

Not here: computing (`engine.py`), files (`shelf.py`), HTTP. One thread loads and unloads, one after another. A request
holds a lease on the digests that answer it; unloading waits until nobody holds one, while new requests do not find the
digest any more. So an answer never mixes two versions.

    registry = Registry(Path("store"), engine, scheduler); registry.restore(); registry.add(Path("emotions-bundle"))
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paretune.core.errors import (
    BundleError,
    ConfigError,
    ParetuneError,
    StorageError,
    UnknownNameError,
    UsageError,
    said,
)
from paretune.serve.aliases import Alias, Aliases
from paretune.serve.bundle import Bundle
from paretune.serve.engine import Engine
from paretune.serve.entries import Entries, Entry
from paretune.serve.names import id_of, is_digest, is_id, without_paths
from paretune.serve.scheduler import Scheduler
from paretune.serve.shelf import Shelf

log = logging.getLogger(__name__)
MAX_WAITING_LOADS = 16
LEASE_SECONDS = 60.0  # longer than any request may take


class NoAdapterError(UnknownNameError):
    """No adapter that is ready has this name or digest."""


class NameTakenError(BundleError):
    """A name points to another digest already."""


class BusyError(ParetuneError):
    """Too many loads are waiting."""


class Registry:
    """The bundles of one home, and which of them answer; safe to use from several threads."""

    def __init__(self, home: Path, engine: Engine, scheduler: Scheduler) -> None:
        """Take the home for this process.

        Raises:
            ConfigError: another process has it.
            StorageError, RecordError: it cannot be written, or its index cannot be read.
        """
        self.shelf = Shelf(home)
        self.shelf.prepare()
        self._lock_file = (home / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise ConfigError(said(f"the store {home} is used by another server", "a store of its own")) from None
        self.seal_key = self.shelf.make_seal_key()
        self._engine = engine
        self._scheduler = scheduler
        self.aliases = Aliases(home / "aliases.json")
        self._entries = Entries(home / "index.json")
        self._ready: dict[str, Bundle] = {}
        self._leases: Counter[str] = Counter()
        self._changing = threading.RLock()  # held for short changes of entries and aliases, disk writes among them
        self._leasing = threading.Condition()  # held for moments
        self._loader = ThreadPoolExecutor(1, "loader")
        self._waiting: dict[tuple[str, ...], Future[Entry]] = {}

    # What answers

    def resolve(self, name: str, token: str) -> str:
        """The digest that answers `token` under a name; a digest stands for itself.

        Raises:
            NoAdapterError: none that is ready.
        """
        digest = name if is_digest(name) else self.aliases.pick(name, token)
        if digest is None or digest not in self._ready:
            raise NoAdapterError("no such adapter")
        return digest

    @contextmanager
    def lease(self, wanted: Sequence[tuple[str, str]]) -> Generator[list[Bundle]]:
        """The bundles that answer some (name, token); none of them is unloaded before the block ends.

        Raises:
            NoAdapterError: one of the names has none that is ready; nothing is held.
        """
        with self._leasing:
            bundles = [self._ready[self.resolve(name, token)] for name, token in wanted]
            held = {bundle.digest for bundle in bundles}
            self._leases.update(held)
        try:
            yield bundles
        finally:
            with self._leasing:
                self._leases.subtract(held)
                self._leasing.notify_all()

    def fetch(self, digest: str) -> Bundle:
        """A bundle from disk, checked; what the engine reads weights from."""
        return self.shelf.fetch(digest)

    def ready(self) -> list[Bundle]:
        """All bundles that answer."""
        return list(self._ready.values())

    def names_ready(self) -> list[str]:
        """Names all of whose digests answer."""
        found = ((name, self.aliases.get(name)) for name in self.aliases.names())
        return [name for name, alias in found if alias and all(digest in self._ready for digest in alias.weights)]

    def bundle(self, digest: str) -> Bundle | None:
        """A bundle that answers."""
        return self._ready.get(digest)

    def entries(self) -> list[Entry]:
        """All that is known, failed and unloaded ones too."""
        return self._entries.all()

    # Changes

    def restore(self) -> None:
        """Load again what was ready when the process ended; what fails now says why and stays out.

        A bundle that was refused when it came, and is refused again, is taken out of the store.
        """
        for entry in self._entries.all():
            if entry.digest is None:
                continue
            if entry.state in ("ready", "draining"):
                try:
                    self._bring_up(entry.digest, entry.id)
                except ParetuneError as error:
                    self._failed(Entry(digest=entry.digest, id=entry.id, state="failed", proven=True), error)
            elif entry.state == "failed" and entry.fault == "bundle" and not entry.proven:
                self._sweep(entry.digest)

    def _sweep(self, digest: str) -> None:
        """Take a refused bundle out, unless it is only for another base model or holds today."""
        if not self.shelf.has(digest):
            return
        try:
            bundle = self.shelf.fetch(digest)
            if bundle.manifest.base_digest == self._engine.base_digest:
                self._engine.check(bundle)
        except BundleError as error:
            log.warning("%s was refused and is taken out of the store: %s", digest[:12], error)
            self.shelf.remove(digest)

    def add(self, path: Path, name: str | None = None) -> str:
        """Copy a bundle in, check it and give it a name (its own, if none is given), which is returned.

        A name that has this digest among its weights stays as it is, so a restart changes no A/B test.

        Raises:
            BundleError: it may not serve, or the name is not allowed.
            StorageError: the store cannot take it.
        """
        if name is not None and not is_id(name):
            raise BundleError(said(f"adapter name {name!r}", "a name such as emotions-v2"))
        with self.shelf.taken(path) as bundle:
            digest, wanted = bundle.digest, name or id_of(bundle.manifest.name)
            self._prove(bundle, wanted)
        self._bring_up(digest, wanted, proven=True)
        with self._changing:
            alias = self.aliases.get(wanted)
            if alias is None or digest not in alias.weights:
                self.aliases.set(wanted, {digest: 1})
        return wanted

    def load(self, name: str, alias: str | None = None, in_place: bool = True) -> Future[Entry]:
        """Load what lies in the inbox under an id, or a digest that the store has; its entry says how it ended.

        The same load asked for twice at once is one load. Without `in_place` a name in use is not pointed elsewhere.

        Raises:
            NoAdapterError: neither an id of the inbox nor a digest of the store.
            BusyError: too many loads wait.
            BundleError: a name that is not allowed.
        """
        wanted = alias or (None if is_digest(name) else name)
        if wanted is not None and not is_id(wanted):
            raise BundleError("an adapter's name is no digest")
        if not (self.shelf.has(name) or self.shelf.in_inbox(name)):
            raise NoAdapterError("no such bundle in the inbox")
        return self._soon(("load", name, wanted or "", str(in_place)), self._load, name, wanted, in_place)

    def unload(self, name: str) -> list[Future[Entry]]:
        """Stop answering under a name or a digest; requests that run are answered first.

        A name's digests stay loaded where another name points to them.

        Raises:
            NoAdapterError: no such name or digest.
        """
        with self._changing:
            if is_digest(name):
                if name not in self._ready:
                    raise NoAdapterError("no such adapter")
                gone = [name]
                self.aliases.drop_digest(name)
            else:
                alias = self.aliases.drop(name)
                if alias is None:
                    raise NoAdapterError("no such adapter")
                gone = [one for one in alias.weights if one in self._ready and not self.aliases.names_of(one)]
            for digest in gone:
                self._leave(digest)
        return [self._soon(("unload", digest), self._unload, digest) for digest in gone]

    def set_alias(self, name: str, weights: Mapping[str, int]) -> Alias:
        """Point a name to digests that are ready.

        Raises:
            NoAdapterError: one of them is not.
            BundleError, StorageError: as `Aliases.set`.
        """
        with self._changing:
            if any(digest not in self._ready for digest in weights):
                raise NoAdapterError("no such adapter")
            return self.aliases.set(name, weights)

    def rollback(self, name: str) -> Alias:
        """Point a name to what it pointed to before.

        Raises:
            NoAdapterError: no such name.
            BundleError: no history, or what it pointed to is not ready now.
        """
        with self._changing:
            alias = self.aliases.get(name)
            if alias is None:
                raise NoAdapterError("no such adapter")
            if alias.history and any(digest not in self._ready for digest in alias.history[-1]):
                raise BundleError("what this name pointed to before is not loaded; load it again first")
            return self.aliases.rollback(name)

    def close(self) -> None:
        """Finish the load that runs, forget those that wait, and free the home."""
        self._loader.shutdown(wait=True, cancel_futures=True)
        self._lock_file.close()

    # In the loader's thread

    def _soon(self, key: tuple[str, ...], work: Any, *arguments: Any) -> Future[Entry]:
        with self._changing:
            if running := self._waiting.get(key):
                return running
            if len(self._waiting) >= MAX_WAITING_LOADS and key[0] == "load":
                raise BusyError("too many loads are waiting")
            future: Future[Entry] = self._loader.submit(work, *arguments)
            self._waiting[key] = future
        future.add_done_callback(lambda _: self._waiting.pop(key, None))
        return future

    def _load(self, name: str, alias: str | None, in_place: bool) -> Entry:
        entry = Entry(digest=name if is_digest(name) else None, id=alias or name[:12], state="pending")
        try:
            if entry.digest is None:
                self._entries.note(entry)
                folder = self.shelf.in_inbox(name)
                if folder is None:
                    raise BundleError(f"{name!r} is not in the inbox any more")
                with self.shelf.taken(folder) as bundle:
                    entry = Entry(digest=bundle.digest, id=entry.id, state="pending")
                    self._may_point(alias, bundle.digest, in_place)
                    self._prove(bundle, entry.id)
                self._bring_up(bundle.digest, entry.id, proven=True)
            else:
                self._may_point(alias, entry.digest, in_place)
                self._bring_up(entry.digest, entry.id)
            assert entry.digest is not None
            with self._changing:
                if alias is not None:
                    self._may_point(alias, entry.digest, in_place)
                    self.aliases.set(alias, {entry.digest: 1})
            return Entry(digest=entry.digest, id=entry.id, state="ready")
        except Exception as error:  # whatever a bad bundle or a full disk brings about, the server lives on
            return self._failed(entry, error)

    def _may_point(self, alias: str | None, digest: str, in_place: bool) -> None:
        there = self.aliases.get(alias) if alias else None
        if there is not None and not in_place and there.weights != {digest: 1}:
            raise NameTakenError(f"{alias!r} is loaded already; set load_inplace to replace it")

    def _prove(self, bundle: Bundle, name: str) -> None:
        """Let the engine check a bundle that came, before it stays in the store."""
        if bundle.digest in self._ready:
            return
        with self._changing:
            proven = self._entry(bundle.digest).proven
            self._entries.put(Entry(digest=bundle.digest, id=name, state="pending", proven=proven))
        self._engine.check(bundle)

    def _bring_up(self, digest: str, name: str, proven: bool = False) -> None:
        if digest in self._ready:
            return
        bundle = self.shelf.fetch(digest)
        if not proven:
            self._prove(bundle, name)
        with self._changing:
            self._entries.put(Entry(digest=digest, id=name, state="ready", proven=True))
            self._ready[digest] = bundle

    def _failed(self, entry: Entry, error: Exception) -> Entry:
        known = isinstance(error, ParetuneError)
        log.warning("loading %s failed: %s", entry.id, error if known else type(error).__name__, exc_info=not known)
        reason = without_paths(str(error)) if known else f"an error inside the server ({type(error).__name__})"
        bad = isinstance(error, UsageError) and not isinstance(error, StorageError)
        fault = "name" if isinstance(error, NameTakenError) else "bundle" if bad else "server"
        proven = entry.proven or (entry.digest is not None and self._entry(entry.digest).proven)
        failed = Entry(
            digest=entry.digest, id=entry.id, state="failed", reason=reason[:300], fault=fault, proven=proven
        )
        if entry.digest is not None and entry.digest in self._ready:
            return failed  # it answers under another name; only this wish failed
        with self._changing:
            try:
                self._entries.put(failed)
            except StorageError:
                self._entries.note(failed)
        return failed

    def _leave(self, digest: str) -> None:
        """From now on no request finds the digest."""
        name = self._entry(digest).id
        with self._leasing:
            self._ready.pop(digest, None)
        self._entries.note(Entry(digest=digest, id=name, state="draining", proven=True))

    def _unload(self, digest: str) -> Entry:
        with self._leasing:
            free = self._leasing.wait_for(lambda: self._leases[digest] <= 0, LEASE_SECONDS)
            if free:
                del self._leases[digest]
        if not free:
            log.warning("unloading %s: requests still hold it after %g s", digest[:12], LEASE_SECONDS)
        self._scheduler.retire(digest)
        with self._changing:
            entry = Entry(digest=digest, id=self._entry(digest).id, state="unloaded", proven=True)
            try:
                self._entries.put(entry)
            except StorageError as error:
                self._entries.note(entry)
                log.warning("the index could not be written: %s", error)
        return entry

    def _entry(self, digest: str) -> Entry:
        return self._entries.get(digest) or Entry(digest=digest, id=digest[:12], state="ready")
