"""Cores, memory and number formats that this process really has, cgroup caps included.

Not here: how fast they are (`measure/machine.py`). Sources: proc(5), cgroup v2
(https://docs.kernel.org/admin-guide/cgroup-v2.html).

    usable_cores(), memory_limit_bytes()
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().split()[0]
    except (OSError, IndexError):
        return None
    return int(text) if text.isdigit() else None


def usable_cores() -> int:
    """Cores that this process may use: its affinity, cut by a cgroup quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def memory_limit_bytes() -> int:
    """Memory that this process may use, in bytes: the machine's, cut by a cgroup cap."""
    cap = _number(CGROUP / "memory.max")
    total = psutil.virtual_memory().total
    return min(total, cap) if cap else total


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX); slower than fp32 where it does not."""
    try:
        flags = CPUINFO.read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
