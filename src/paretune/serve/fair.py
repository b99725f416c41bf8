"""A queue that is fair between adapters by tokens: deficit round robin (Shreedhar & Varghese 1996,
https://doi.org/10.1109/90.502236).

An adapter that got nothing for want of a slot or of room comes first in the next batch, so that with one slot and two
adapters each has every other batch. Not here: threads, bounds and futures (`scheduler.py`).

    queue = FairQueue[str](512); queue.put("a", 12, "row"); queue.take(4096, most_keys=16, alive=lambda row: True)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class FairQueue(Generic[ItemT]):
    """Items with a key and a cost; not safe for threads."""

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._queues: dict[str, deque[tuple[int, ItemT]]] = {}
        self._credit: dict[str, int] = {}
        self._ring: deque[str] = deque()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def put(self, key: str, cost: int, item: ItemT) -> None:
        """Behind all others of its key."""
        if key not in self._queues:
            self._queues[key], self._credit[key] = deque(), 0
            self._ring.append(key)
        self._queues[key].append((cost, item))

    def take(self, most_cost: int, most_keys: int, alive: Callable[[ItemT], bool]) -> list[ItemT]:
        """The next batch: at most so many keys, and so much cost (one item more expensive than that comes alone).

        Items that are no longer alive are dropped.
        """
        taken: list[ItemT] = []
        keys: set[str] = set()
        passed_over: list[str] = []
        room = most_cost
        while self._ring:
            key = self._ring.popleft()
            if key not in keys and len(keys) >= most_keys:
                passed_over.append(key)
                continue
            cost = self._next_cost(key, alive)
            if cost > self._credit[key]:
                self._credit[key] += self._quantum
            while cost and cost <= self._credit[key] and (cost <= room or not taken):
                taken.append(self._queues[key].popleft()[1])
                keys.add(key)
                room -= cost
                self._credit[key] -= cost
                cost = self._next_cost(key, alive)
            if not cost:
                del self._queues[key], self._credit[key]
                continue
            full = cost <= self._credit[key]
            if full and key not in keys:
                passed_over.append(key)
            else:
                self._ring.append(key)
            if full:
                break
        self._ring.extendleft(reversed(passed_over))
        return taken

    def _next_cost(self, key: str, alive: Callable[[ItemT], bool]) -> int:
        """Cost of the first item that is still alive; 0 where there is none."""
        queue = self._queues[key]
        while queue and not alive(queue[0][1]):
            queue.popleft()
        return queue[0][0] if queue else 0

    def purge(self, alive: Callable[[ItemT], bool]) -> None:
        """Drop every item that is no longer alive."""
        for key in list(self._queues):
            kept = deque(one for one in self._queues[key] if alive(one[1]))
            self._queues[key] = kept
            if not kept:
                del self._queues[key], self._credit[key]
                self._ring.remove(key)
