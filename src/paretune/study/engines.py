"""Finds out once which engine and number format are faster on this machine, before anything is measured.

Not here: the timing itself (`train/engine_probe.py`), what is decided by it (`core/engine_timings.py`). What was found
is kept in the user's cache for this machine, and beside the runs of a study, whose later runs decide by the same
figures.

    hold(prepare_engines(print, study_folder / ENGINES_FILE))
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from paretune.core.engine_timings import (
    EngineTimings,
    kept_at,
    machine_key,
    precision_of,
    read_timings,
    why_fp32,
    why_not_native,
    write_timings,
)
from paretune.core.limits import processor_has_bf16, wait_briefly
from paretune.kernels.native.build import NoKernels, built
from paretune.train.engine_probe import measured


def prepare_engines(
    note: Callable[[str], None],
    beside: Path | None = None,
    measure: Callable[[], EngineTimings] | None = None,
) -> EngineTimings | None:
    """Build the C++ kernels where they can be had and time each engine, unless that was done; `note` is told of both.

    `beside`: the study's own file, which wins over what is kept for the machine. None where there is nothing to choose:
    on a processor without bf16, which has no C++ kernels either.
    """
    try:
        library, refused = built(note).stem, ""
    except NoKernels as error:
        library, refused = "", str(error)
    if not processor_has_bf16():
        note(f"engine: torch's operators in fp32, no C++ kernels: {refused}")
        return None
    found = _usable(beside, library) or _usable(kept_at(), library)
    if found is None:
        note("timing a training step by each engine, once on this machine")
        try:
            found = (measure or _in_a_process)()
        except BrokenProcessPool as error:
            note(f"engine: not timed ({error})")
            return None
        _keep(kept_at(), found, note)
    if beside is not None:
        _keep(beside, found, note)
    note(f"engine: {spoken(found, library, refused)}")
    return found


def _usable(path: Path | None, library: str) -> EngineTimings | None:
    """Timings of this very machine and of these C++ kernels, if there are any here."""
    found = read_timings(path) if path is not None else None
    if found is None or found.machine != machine_key():
        return None
    return found if found.library == library or not library else None


def _keep(path: Path, found: EngineTimings, note: Callable[[str], None]) -> None:
    try:
        write_timings(path, found)
    except OSError as error:
        note(f"cannot keep the engines' timings in {path}: {error.strerror or error}")


def _in_a_process() -> EngineTimings:
    wait_briefly()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured).result()


def spoken(found: EngineTimings, library: str, refused: str) -> str:
    """In a line: the engine and number format that "auto" takes, and why."""
    precision = precision_of(found)
    if precision == "fp32":
        return f"torch's operators in fp32; {why_fp32(found)}"
    if not library:
        return f"torch's operators in bf16; no C++ kernels: {refused}"
    slower = why_not_native(found, library)
    return f"torch's operators in bf16; {slower}" if slower else "C++ kernels in bf16"
