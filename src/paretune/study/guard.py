"""What guards the process of one run: it ends with its runner, and it feels its memory cap.

Not here: what the process does (`worker.py`). Sources: prctl(2), setrlimit(2), proc(5).

    die_with_parent(); cap_memory(2 * 2**30)
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection
from pathlib import Path

START_BYTES = 64 * 2**20  # a model that needs less than this is none
OUT_OF_MEMORY = (
    "can't allocate memory",
    "bad_alloc",
    "Cannot allocate memory",
    "not enough memory",
    "bad allocation",
    "can't start new thread",
)


def die_with_parent() -> None:
    """End this process with the runner that asked for it, however that ends, so that no orphan goes on.

    The runner is not the parent in the kernel's eyes (the forkserver is, and it lives as long as its workers do), so
    its pipe is watched; prctl (PR_SET_PDEATHSIG) covers the forkserver itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    runner = multiprocessing.parent_process()
    if runner is not None:
        threading.Thread(target=_follow, args=(runner.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def cap_memory(cap_bytes: int | None) -> None:
    """Let allocations beyond the cap fail: RLIMIT_DATA counts this process's private writable memory.

    Raises:
        MemoryError: the imports alone fill the cap. A limit below what is used would not fail cleanly: libraries wait
            for ever on threads that could not be started.
    """
    if cap_bytes is not None:
        import resource

        if used_bytes() + START_BYTES > cap_bytes:
            raise MemoryError
        resource.setrlimit(resource.RLIMIT_DATA, (cap_bytes, cap_bytes))


def used_bytes() -> int:
    """What RLIMIT_DATA counts of this process now (VmData of proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a library's error says, in its own words, that memory did not suffice."""
    return any(sign in str(error) for sign in OUT_OF_MEMORY)
