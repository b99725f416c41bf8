"""Finished parts of pages, kept until what they show changes; a slow new one does not keep a reader from the old one.

Not here: what is in them. A part that is out of date is made anew in the background; after a short patience the reader
gets the old part, and the page asks again.

    version, html = bodies.get(("demo", "results", "en"), entry.version, make)
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError

Key = tuple[str, ...]
MOST_BODIES = 200
PATIENCE_SECONDS = 0.7


class Bodies:
    """Parts by what they are of; safe to ask from many threads."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._made: OrderedDict[Key, tuple[str, str]] = OrderedDict()
        self._coming: dict[Key, Future[tuple[str, str]]] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="pages")

    def get(self, key: Key, version: str, make: Callable[[], str]) -> tuple[str, str]:
        """The part with the version that it shows: this one, or an older one while this one is made."""
        old, coming = self._begun(key, version, make)
        if coming is None:
            assert old is not None, "what is up to date was made"
            return old
        try:
            return coming.result(self._patience_seconds if old is not None else None)
        except NotYetError:
            assert old is not None, "only with an old part is there a limit of time"
            return old

    def soon(self, key: Key, version: str, make: Callable[[], str], until: float) -> str | None:
        """The part if it is there before `until` (of `time.monotonic`), else an older one or None; it is being made."""
        old, coming = self._begun(key, version, make)
        if coming is not None:
            try:
                return coming.result(max(0.0, until - time.monotonic()))[1]
            except NotYetError:
                pass
        return old[1] if old is not None else None

    def _begun(
        self, key: Key, version: str, make: Callable[[], str]
    ) -> tuple[tuple[str, str] | None, Future[tuple[str, str]] | None]:
        """What was made of a key, and the work on what is newer; None for the latter where nothing is."""
        with self._lock:
            old = self._made.get(key)
            if old is not None and old[0] == version:
                self._made.move_to_end(key)
                return old, None
            coming = self._coming.get(key)
            if coming is None:
                coming = self._workers.submit(self._make, key, version, make)
                self._coming[key] = coming
                coming.add_done_callback(lambda _: self._coming.pop(key, None))
            return old, coming

    def _make(self, key: Key, version: str, make: Callable[[], str]) -> tuple[str, str]:
        made = (version, make())
        with self._lock:
            self._made[key] = made
            self._made.move_to_end(key)
            while len(self._made) > MOST_BODIES:
                self._made.popitem(last=False)
        return made

    def close(self) -> None:
        """End the workers."""
        self._workers.shutdown(wait=True, cancel_futures=True)
