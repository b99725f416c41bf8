"""Build the C++ kernels once for this machine and load them; where that cannot be, say why.

They are compiled by g++ for the very processor (some 5 s) into the user's cache or PARETUNE_KERNELS, under a name that
has the sources, the compiler and the processor in it. PARETUNE_NATIVE=0 does without them. Not here: what they compute
(`post_norm.cpp` and the headers), tensors (`maps.py`).

    found = library(); found.calls.post_norm_forward(...) if found.calls else print(found.reason)
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch  # its OpenMP is loaded first, so that there is one pool of threads

from paretune.core.cache import home

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-w")
NEEDED = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16")
COMPILE_SECONDS = 300


@dataclass(frozen=True)
class Library:
    """The loaded kernels, or why there are none."""

    calls: ctypes.CDLL | None
    reason: str = ""


@cache
def library() -> Library:
    """The kernels, built where they are not yet."""
    if os.environ.get("PARETUNE_NATIVE", "") == "0":
        return Library(None, "PARETUNE_NATIVE=0")
    flags = _processor_flags()
    missing = [one for one in NEEDED if one not in flags]
    if missing:
        return Library(None, f"this processor has no {missing[0]}")
    compiler = shutil.which("g++")
    if compiler is None:
        return Library(None, "there is no g++")
    try:
        return Library(ctypes.CDLL(str(_built(compiler, flags))))
    except (OSError, subprocess.SubprocessError) as error:
        return Library(None, f"g++ did not build them: {str(error).splitlines()[0]}")


def kernels_in_use() -> str:
    """What tells numbers of these kernels from those of others: their sources' digest, empty without them."""
    return digest() if library().calls is not None else ""


def _processor_flags() -> list[str]:
    """What the processor can do, sorted; empty where the system does not say."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return sorted(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())


def digest() -> str:
    """SHA-256 of the sources."""
    total = hashlib.sha256(" ".join(FLAGS).encode())
    for file in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        total.update(f"{file.name}\0".encode() + file.read_bytes())
    return total.hexdigest()


def _built(compiler: str, flags: list[str]) -> Path:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=COMPILE_SECONDS).stdout
    key = hashlib.sha256(digest().encode() + version + " ".join(flags).encode() + torch.__version__.encode())
    folder = os.environ.get("PARETUNE_KERNELS")
    path = (Path(folder) if folder else home() / "kernels") / f"{key.hexdigest()[:32]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "kernels.so"
        objects = [str(Path(folder) / f"{unit.stem}.o") for unit in sorted(SOURCES.glob("*.cpp"))]
        with ThreadPoolExecutor() as side_by_side:
            list(side_by_side.map(_run, ([compiler, *FLAGS, "-c", "-o", to, _unit(to)] for to in objects)))
        _run([compiler, *FLAGS, "-shared", "-o", str(made), *objects])
        os.replace(made, path)
    return path


def _unit(to: str) -> str:
    return str(SOURCES / f"{Path(to).stem}.cpp")


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS)
