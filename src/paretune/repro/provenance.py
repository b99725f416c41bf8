"""Where a run comes from: commit, uncommitted changes, versions, processor, threads.

Not here: the hashes of data and model, which stand in the run's spec. No name of a person, host or folder is kept.

    provenance()["versions"]["torch"]
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

from paretune.core.config import JsonObject
from paretune.core.limits import memory_limit_bytes, processor_has_bf16, usable_cores

PACKAGES = ("paretune", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scikit-learn", "scipy")


def _git(*arguments: str) -> bytes | None:
    """Output of a git command in this package's checkout, which may be in any encoding; None outside one."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """The processor's own name for itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine() -> JsonObject:
    """What this machine is, as far as a run can feel it; memory in bytes."""
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_bytes": memory_limit_bytes(),
        "bf16": processor_has_bf16(),
    }


def provenance() -> JsonObject:
    """One record of code, versions and machine. `diff_sha256` is None for a clean checkout or outside git."""
    commit = _git("rev-parse", "HEAD")
    difference = _git("diff", "HEAD")
    return {
        "commit": commit.decode().strip() if commit else None,
        "diff_sha256": hashlib.sha256(difference).hexdigest() if difference else None,
        "python": sys.version.split()[0],
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "machine": machine(),
    }
