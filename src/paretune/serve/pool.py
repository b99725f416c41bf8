"""Slots for adapters: the least recently used free one goes when room is wanted; pinned ones and those in use stay.

Not here: what lies in a slot (`resident.py`), nor who asks for it. Counting references is SGLang's rule for adapters
(https://github.com/sgl-project/sglang/pull/11526), and so is "pinned at most slots − 1".

    pool = Pool(16, load); with pool.held("digest") as adapter: ...
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from paretune.core.errors import ParetuneError, UsageError, said

ValueT = TypeVar("ValueT")


class NoFreeSlot(ParetuneError):
    """Every slot is pinned or in use now."""


@dataclass
class _Slot(Generic[ValueT]):
    value: ValueT
    users: int = 0
    leaving: bool = False


class Pool(Generic[ValueT]):
    """At most `slots` loaded values by digest. Every method may be called from any thread."""

    def __init__(self, slots: int, load: Callable[[str], ValueT]) -> None:
        self.slots = slots
        self.swaps = 0
        self._load = load
        self._slots: OrderedDict[str, _Slot[ValueT]] = OrderedDict()  # least recently used first
        self._pinned: set[str] = set()
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # taken before `_lock`: reading a disk keeps nobody from a loaded value

    def acquire(self, digest: str) -> ValueT:
        """The value, loaded where it is not there; its slot stays until `release`.

        Raises:
            NoFreeSlot: nothing can make room.
            whatever `load` raises.
        """
        value = self._taken(digest)
        if value is not None:
            return value
        with self._loading:
            value = self._taken(digest)  # another thread was faster
            if value is not None:
                return value
            with self._lock:
                self._oldest_free()  # raises before the disk is read
            value = self._load(digest)
            with self._lock:
                if len(self._slots) >= self.slots:
                    del self._slots[self._oldest_free()]
                self._slots[digest] = _Slot(value, users=1)
                self.swaps += 1
            return value

    def _taken(self, digest: str) -> ValueT | None:
        with self._lock:
            slot = self._slots.get(digest)
            if slot is None:
                return None
            slot.users += 1
            self._slots.move_to_end(digest)
            return slot.value

    def _oldest_free(self) -> str:
        """Which one would make room, or "" where there is room."""
        if len(self._slots) < self.slots:
            return ""
        free = (digest for digest, slot in self._slots.items() if not slot.users and digest not in self._pinned)
        oldest = next(free, None)
        if oldest is None:
            raise NoFreeSlot(said(f"all {self.slots} slots are pinned or in use", "a free one"))
        return oldest

    def release(self, digest: str) -> None:
        """Give back what `acquire` took."""
        with self._lock:
            slot = self._slots[digest]
            slot.users -= 1
            if slot.leaving and not slot.users:
                del self._slots[digest]

    @contextmanager
    def held(self, digest: str) -> Generator[ValueT]:
        """`acquire` and `release` around a block."""
        value = self.acquire(digest)
        try:
            yield value
        finally:
            self.release(digest)

    def pin(self, digest: str) -> None:
        """Load and keep, whatever the traffic.

        Raises:
            UsageError: one slot must stay free for all others.
            as `acquire`.
        """
        with self._lock:
            if len(self._pinned | {digest}) >= self.slots:
                given = f"pinning {len(self._pinned) + 1} adapters in {self.slots} slots"
                raise UsageError(said(given, f"at most {self.slots - 1}, so that one slot stays free"))
            self._pinned.add(digest)
        try:
            with self.held(digest):
                pass
        except BaseException:
            self.unpin(digest)
            raise

    def unpin(self, digest: str) -> None:
        """Let it go when room is wanted; nothing happens where it was not pinned."""
        with self._lock:
            self._pinned.discard(digest)

    def evict(self, digest: str) -> None:
        """Take out now, or when its last user is done."""
        with self._lock:
            self._pinned.discard(digest)
            slot = self._slots.get(digest)
            if slot is None:
                return
            if slot.users:
                slot.leaving = True
            else:
                del self._slots[digest]

    def resident(self) -> list[str]:
        """Digests in slots, least recently used first."""
        with self._lock:
            return list(self._slots)
