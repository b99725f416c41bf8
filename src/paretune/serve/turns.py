"""A lock whose waiters go in the order in which they came.

Under load the engine's thread takes its lock again at once; with `threading.Lock` a loader that checks a bundle could
wait for ever. Not here: what is locked (`engine.py`).

    turn = Turn(); with turn: ...
"""

from __future__ import annotations

import threading
from types import TracebackType


class Turn:
    """First come, first served; not re-entrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._serving = 0

    def __enter__(self) -> None:
        with self._changed:
            mine = self._next
            self._next += 1
            while self._serving != mine:
                self._changed.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._serving += 1
            self._changed.notify_all()
