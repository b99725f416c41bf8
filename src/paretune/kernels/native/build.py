"""Build the C++ kernels once for this machine; where that cannot be, say why.

They are compiled by g++ for the very processor (some 5 s) into the user's cache or PARETUNE_KERNELS, under a name that
has the sources, the compiler and the processor in it. PARETUNE_NATIVE=0 does without them, PARETUNE_NATIVE=1 takes
them even where they are slower than torch's operators. Not here: loading them
(`library.py`); nothing here needs torch, so that a runner can build them before its workers measure anything.

    built(print)  # the file
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paretune.core.cache import home
from paretune.core.engine_timings import kernels_wanted

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-w")
NEEDED = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16")
COMPILE_SECONDS = 300


class NoKernels(Exception):
    """Why there are none, in a line."""


def built(note: Callable[[str], None] | None = None) -> Path:
    """The library's file, made where it is not there yet; `note` is told of that.

    Raises:
        NoKernels: switched off, another processor, no compiler, or one that fails.
    """
    if kernels_wanted() is False:
        raise NoKernels("PARETUNE_NATIVE=0")
    flags = processor_flags()
    missing = [one for one in NEEDED if one not in flags]
    if missing:
        raise NoKernels(f"this processor has no {missing[0]}")
    compiler = shutil.which("g++")
    if compiler is None:
        raise NoKernels("there is no g++")
    try:
        path = _path(compiler, flags)
        if not path.exists():
            if note is not None:
                note("building kernels in C++ for this processor, once")
            _build(compiler, path)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoKernels(f"g++ did not build them: {str(error).splitlines()[0]}") from error
    return path


def processor_flags() -> list[str]:
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


def _path(compiler: str, flags: list[str]) -> Path:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=COMPILE_SECONDS).stdout
    key = hashlib.sha256(digest().encode() + version + " ".join(flags).encode())
    folder = os.environ.get("PARETUNE_KERNELS")
    return (Path(folder) if folder else home() / "kernels") / f"{key.hexdigest()[:32]}.so"


def _build(compiler: str, path: Path) -> None:
    """Each unit by a compiler of its own; the file appears by rename or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "kernels.so"
        units = {str(Path(folder) / f"{unit.stem}.o"): str(unit) for unit in sorted(SOURCES.glob("*.cpp"))}
        with ThreadPoolExecutor() as side_by_side:
            list(side_by_side.map(_run, ([compiler, *FLAGS, "-c", "-o", to, unit] for to, unit in units.items())))
        _run([compiler, *FLAGS, "-shared", "-o", str(made), *units])
        os.replace(made, path)


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS)
