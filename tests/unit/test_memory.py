"""Free memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys

import pytest

from paretune.core import memory
from paretune.core.memory import return_free_memory
from paretune.measure.meter import resident_bytes

SIZE, BLOCKS = 1024, 60_000


def test_what_was_freed_in_small_pieces_is_no_longer_resident() -> None:
    """60 MB in blocks of 1 KiB, below a last one that stays: the heap cannot shrink from its end."""
    library = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(library, "malloc_trim"):
        pytest.skip("no GNU C library here")
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(SIZE) for _ in range(BLOCKS)]
    for one in blocks:
        ctypes.memset(one, 1, SIZE)
    for one in blocks[:-1]:
        library.free(one)
    before = resident_bytes()
    return_free_memory()
    assert before - resident_bytes() > 0.8 * SIZE * BLOCKS
    library.free(blocks[-1])


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such function nothing is called."""
    asked: list[object] = []
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", asked.append)
    return_free_memory()
    assert asked == []
