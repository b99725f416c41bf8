"""Cores, memory and number formats that this process really has, cgroup caps included.

Not here: how fast they are (`measure/machine.py`). Sources: proc(5), cgroups(7), cgroup v2
(https://docs.kernel.org/admin-guide/cgroup-v2.html) and v1
(https://docs.kernel.org/admin-guide/cgroup-v1/memory.html), whose controllers may be shared out between both.

    usable_cores(), memory_limit_bytes()
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

SPINS = "2000"  # of some tens of ns each
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")


def _numbers(path: Path) -> list[int | None]:
    """The words of a file, None for one that is no number ("max", -1); empty where there is no file."""
    try:
        return [int(word) if word.isdecimal() else None for word in path.read_text().split()]
    except OSError:
        return []


def _folders(controller: str) -> Iterator[Path]:
    """Every folder whose limits hold for this process: its own group and those above it, in v2 and in v1.

    A container often sees its own group as the root of the mount while /proc names the path outside: the root is
    always among them, and what does not exist simply has no limits.
    """
    mounts = {"": CGROUP, controller: CGROUP / controller}
    yield from mounts.values()
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mount = mounts[controller] if controller in controllers.split(",") else CGROUP if not controllers else None
        group = Path(path.lstrip("/"))
        if mount is not None and ".." not in group.parts:  # a group above the one that this container sees
            yield from (mount / above for above in (group, *group.parents) if above.parts)


def _quota_cores(folder: Path) -> int | None:
    """Whole cores of a group's quota, at least one."""
    v2 = _numbers(folder / "cpu.max")
    v1 = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
    for numbers in (v2, v1):
        if len(numbers) == 2 and numbers[0] is not None and numbers[1]:
            return max(1, numbers[0] // numbers[1])
    return None


def usable_cores() -> int:
    """Cores that this process may use: its affinity, cut by a cgroup quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quotas = [_quota_cores(folder) for folder in _folders("cpu")]
    return min([cores, *(quota for quota in quotas if quota is not None)])


def wait_briefly() -> None:
    """Let OpenMP threads of processes started from here spin for about 0.1 ms before they sleep, unless the user's
    environment decides how they wait (GOMP_SPINCOUNT of libgomp,
    https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html)."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def memory_limit_bytes() -> int:
    """Memory that this process may use, in bytes: the machine's, cut by a cgroup cap."""
    files = [folder / name for folder in _folders("memory") for name in ("memory.max", "memory.limit_in_bytes")]
    caps = [number for file in files for number in _numbers(file) if number]
    return min([psutil.virtual_memory().total, *caps])


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX); slower than fp32 where it does not."""
    try:
        flags = CPUINFO.read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
