"""What a training step takes by each engine on this machine, measured once and kept; and what follows from it.

A flag of a processor says what it can do, not what is fast: products in C++ are slower than torch's where those use
AMX, and torch's bf16 is slower than its fp32 where libraries are held to older instructions. Not here: the measuring
(`train/engine_probe.py`). A study's runner lays the timings beside its runs (`ENGINES_FILE`) and its workers `hold`
them, so that all runs of a study decide alike, whatever is measured later.

    precision_of(known()) if known() else "fp32"
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from paretune.core.cache import home
from paretune.core.config import Settings, canonical_hash
from paretune.core.limits import CPUINFO, usable_cores

ENGINES_FILE = "engines.json"  # in a study's folder
FORM = 1  # raised when the probe measures something else
MARGIN = 1.05  # by so much torch's operators must be faster than the C++ kernels, which take less memory
ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")


class EngineTimings(Settings):
    """Seconds of one training step of two blocks of MiniLM's size by torch's operators in fp32 and bf16 and by the C++
    kernels (bf16); None for what this machine cannot do. `library` names the C++ kernels that were timed."""

    machine: str
    library: str = ""
    fp32_seconds: float
    bf16_seconds: float | None = None
    native_seconds: float | None = None


_held: list[EngineTimings | None] = []


def hold(found: EngineTimings | None) -> None:
    """Decide by these timings in this process from now on; None: as on a machine where nothing was timed."""
    _held[:] = [found]


def release() -> None:
    """Decide by what is kept for this machine again."""
    _held.clear()


def known() -> EngineTimings | None:
    """The timings that are held, else those that are kept for this machine, if there are any."""
    return _held[0] if _held else read_timings(kept_at())


def machine_key() -> str:
    """A hash of all that the timings depend on but the C++ kernels."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    about = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    key = {
        "form": FORM,
        "processor": about,
        "cores": usable_cores(),
        "torch": importlib.metadata.version("torch"),
        "held": {name: os.environ.get(name, "") for name in ISA_VARIABLES},
    }
    return canonical_hash(key)[:32]


def kept_at() -> Path:
    """The file with this machine's timings."""
    return home() / "engines" / f"{machine_key()}.json"


def read_timings(path: Path) -> EngineTimings | None:
    """Timings from a file; None where there is none, or a torn one, or one of an older form: they are measured anew."""
    try:
        return EngineTimings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_timings(path: Path, found: EngineTimings) -> None:
    """By rename: whole or not there.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(found.model_dump_json(indent=1))
    os.replace(part, path)


def kernels_wanted() -> bool | None:
    """What PARETUNE_NATIVE says of the C++ kernels: "0" never, "1" also where they are slower; None: the faster."""
    return {"0": False, "1": True}.get(os.environ.get("PARETUNE_NATIVE", ""))


def why_not_native(found: EngineTimings | None, library: str) -> str:
    """Why the C++ kernels of this name are not taken although they can be had; empty where they are."""
    if found is None or kernels_wanted() is True or found.library != library:
        return ""
    native, torch = found.native_seconds, found.bf16_seconds
    if native is None or torch is None or native <= torch * MARGIN:
        return ""
    return f"torch's operators are faster on this processor ({_ms(torch)} a step of two blocks, C++ {_ms(native)})"


def precision_of(found: EngineTimings, in_cpp: bool = True) -> Literal["bf16", "fp32"]:
    """The faster number format: bf16 by the faster of its engines against fp32. `in_cpp`: the C++ kernels are one of
    them, as in training; serving has none."""
    return "fp32" if why_fp32(found, in_cpp) else "bf16"


def why_fp32(found: EngineTimings, in_cpp: bool = True) -> str:
    """Why fp32 is taken on a processor with bf16; empty where it is not."""
    native = None if kernels_wanted() is False or not in_cpp else found.native_seconds
    ways = [one for one in (found.bf16_seconds, native) if one is not None]
    if not ways:
        return "nothing here multiplies in bf16"
    if min(ways) <= found.fp32_seconds:
        return ""
    return f"fp32 is faster here than bf16 ({_ms(found.fp32_seconds)} a step of two blocks, bf16 {_ms(min(ways))})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
