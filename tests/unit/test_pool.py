"""Slots for adapters, and the lock whose waiters go in order."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import UsageError
from paretune.serve.merging import Merging
from paretune.serve.pool import NoFreeSlot, Pool

SOON = 20.0


def _pool(slots: int) -> tuple[Pool[str], list[str]]:
    loaded: list[str] = []

    def load(digest: str) -> str:
        if digest == "missing":
            raise LookupError(digest)
        loaded.append(digest)
        return digest.upper()

    return Pool(slots, load), loaded


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(1, 4))
def test_the_least_recently_used_goes(visits: list[str], slots: int) -> None:
    """After any visits the slots hold the last different ones, and each miss was one load."""
    pool, loaded = _pool(slots)
    recent: list[str] = []
    misses = 0
    for digest in visits:
        misses += digest not in recent
        recent = [*(one for one in recent if one != digest), digest][-slots:]
        with pool.held(digest) as value:
            assert value == digest.upper()
        assert pool.resident() == recent
    assert pool.swaps == len(loaded) == misses


def test_what_is_in_use_or_pinned_stays() -> None:
    """A third adapter finds no slot while one is held and one is pinned; after the release it takes the free one's."""
    pool, _ = _pool(2)
    pool.pin("a")
    pool.acquire("b")
    with pytest.raises(NoFreeSlot):
        pool.acquire("c")
    pool.release("b")
    with pool.held("c"):
        assert pool.resident() == ["a", "c"]
    with pytest.raises(UsageError, match="at most 1"):
        pool.pin("c")
    pool.unpin("a")
    with pool.held("d"), pool.held("e"):
        assert pool.resident() == ["d", "e"]


def test_evicting_what_is_in_use_waits_for_its_last_user() -> None:
    """10: the value stays for those who hold it, the slot is free when they are done, and the next user loads anew."""
    pool, loaded = _pool(2)
    pool.acquire("a")
    pool.acquire("a")
    pool.evict("a")
    pool.release("a")
    assert pool.resident() == ["a"]
    pool.release("a")
    assert pool.resident() == []
    with pool.held("a"):
        assert loaded == ["a", "a"]
    pool.evict("a")
    pool.evict("never there")
    assert pool.resident() == []


def test_a_load_that_fails_takes_nothing_away() -> None:
    """A missing bundle costs no slot and unpins itself."""
    pool, loaded = _pool(2)
    for digest in ("a", "b"):
        with pool.held(digest):
            pass
    for _ in range(25):
        with pytest.raises(LookupError):
            pool.acquire("missing")
        with pytest.raises(LookupError):
            pool.pin("missing")
    assert pool.resident() == ["a", "b"]
    assert loaded == ["a", "b"]
    pool.pin("a")


def test_many_threads_load_each_adapter_once_and_never_too_many() -> None:
    """8: ten adapters at once through two slots, three requests each: all served, never more than two in slots."""
    pool, loaded = _pool(2)
    served: Counter[str] = Counter()
    most: list[int] = []
    lock = threading.Lock()

    def client(pool: Pool[str], digest: str) -> None:
        for _ in range(3):
            while True:
                try:
                    with pool.held(digest) as value:
                        with lock:
                            served[value] += 1
                            most.append(len(pool.resident()))
                        break
                except NoFreeSlot:
                    continue

    clients = [threading.Thread(target=client, args=(pool, digest)) for digest in "abcdefghij"]
    for one in clients:
        one.start()
    for one in clients:
        one.join(SOON)
    assert served == dict.fromkeys("ABCDEFGHIJ", 3)
    assert max(most) <= 2
    assert pool.swaps == len(loaded)

    one_for_all, loaded = _pool(2)
    same = [threading.Thread(target=client, args=(one_for_all, "a")) for _ in range(8)]
    for one in same:
        one.start()
    for one in same:
        one.join(SOON)
    assert loaded == ["a"]


def test_merging_counts_batches_of_one_adapter_only() -> None:
    """Due after three batches in a row; another adapter starts the count anew; a refused one is never due again."""
    merging = Merging(3)
    for digests in ({"a"}, {"a"}, {"b"}, {"a"}, {"a"}):
        merging.saw(digests)
        assert merging.due is None
    merging.saw({"a"})
    assert merging.due == "a"
    merging.refuse("a")
    assert merging.due is None
    merging.forget("a")
    for _ in range(3):
        merging.saw({"a"})
    assert merging.due == "a"
    never = Merging(0)
    for _ in range(9):
        never.saw({"a"})
    assert never.due is None
