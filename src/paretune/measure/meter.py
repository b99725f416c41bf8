"""What a run costs, phase by phase: seconds, CPU seconds, peak memory, energy; a listener that cannot change the run.

Peaks come from the kernel's high-water mark (VmHWM), which is reset at each phase's start by writing 5 to
/proc/self/clear_refs (proc(5)). Where the kernel has neither, the peak is sampled at events and marked so.
Energy is read from RAPL where the machine has it; otherwise it is CPU seconds × a stated power, marked estimated.

    meter = Meter(); meter(PhaseStarted("step")); …; meter.costs()
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from paretune.core.events import Event, PhaseEnded, PhaseStarted, StepEnded
from paretune.records.schema import Grade, Graded, PhaseCost

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
ASSUMED_WATTS_PER_CORE = 8.0


def _status_bytes(field: str) -> int | None:
    try:
        text = STATUS.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak() -> bool:
    """Begin a new high-water mark; False where the kernel cannot."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def resident_bytes() -> int:
    """Memory of this process now."""
    return _status_bytes("VmRSS") or psutil.Process().memory_info().rss


def peak_bytes() -> int | None:
    """High-water mark of this process since the last reset; None where the kernel has none."""
    return _status_bytes("VmHWM")


def _rapl_joules() -> float | None:
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


class Meter:
    """Adds up the cost of each phase of one run; make it right after the imports and before anything is loaded."""

    def __init__(self) -> None:
        self.memory_after_imports_bytes = resident_bytes()
        self.grade: Grade = "counter" if reset_peak() and peak_bytes() is not None else "sampled"
        self.tokens = self.padded_tokens = self.examples = self.steps = 0
        self._costs: dict[str, PhaseCost] = {}
        self._started: tuple[float, float, float | None] | None = None
        self._sampled_bytes = 0
        self._train_joules: float | None = None

    def __call__(self, event: Event) -> None:
        """Listen to one event of the run."""
        if isinstance(event, PhaseStarted):
            reset_peak()
            self._sampled_bytes = resident_bytes()
            self._started = (time.perf_counter(), time.process_time(), _rapl_joules())
        elif isinstance(event, PhaseEnded) and self._started is not None:
            self._end(event.phase, *self._started)
            self._started = None
        elif isinstance(event, StepEnded):
            self.steps += 1
            self.examples += event.examples
            self.tokens += event.tokens
            self.padded_tokens += event.padded_tokens
            if self.grade == "sampled":
                self._sampled_bytes = max(self._sampled_bytes, resident_bytes())

    def _end(self, phase: str, began: float, cpu_began: float, joules_began: float | None) -> None:
        before = self._costs.get(phase, PhaseCost(phase=phase, seconds=0, cpu_seconds=0, peak_memory_bytes=0))
        peak = peak_bytes() if self.grade == "counter" else max(self._sampled_bytes, resident_bytes())
        self._costs[phase] = PhaseCost(
            phase=phase,
            seconds=before.seconds + time.perf_counter() - began,
            cpu_seconds=before.cpu_seconds + time.process_time() - cpu_began,
            peak_memory_bytes=max(before.peak_memory_bytes, peak or 0),
        )
        joules_now = _rapl_joules()
        known = joules_began is not None and joules_now is not None and joules_now >= joules_began
        if phase in ("prefix", "step") and known and joules_began is not None and joules_now is not None:
            self._train_joules = (self._train_joules or 0.0) + joules_now - joules_began

    def costs(self) -> list[PhaseCost]:
        """Cost of each finished phase, in the order in which they first came."""
        return list(self._costs.values())

    def cost(self, phase: str) -> PhaseCost:
        """Cost of one phase; zero where it did not run."""
        return self._costs.get(phase, PhaseCost(phase=phase, seconds=0, cpu_seconds=0, peak_memory_bytes=0))

    def charge(self, cost: PhaseCost) -> None:
        """Count a phase that another process went through for this run as well, unless it ran here."""
        self._costs.setdefault(cost.phase, cost)

    def training(self) -> PhaseCost:
        """Cost of the training as a whole: its steps, and what frozen blocks gave before them."""
        parts = [self.cost("prefix"), self.cost("step")]
        return PhaseCost(
            phase="training",
            seconds=sum(one.seconds for one in parts),
            cpu_seconds=sum(one.cpu_seconds for one in parts),
            peak_memory_bytes=max(one.peak_memory_bytes for one in parts),
        )

    def energy(self) -> tuple[Graded, str]:
        """Joules of the training phase, and where they come from."""
        if self._train_joules is not None:
            return Graded(
                value=self._train_joules, grade="counter"
            ), "RAPL package counter, all processes of the socket"
        joules = self.training().cpu_seconds * ASSUMED_WATTS_PER_CORE
        source = f"no RAPL: CPU seconds × {ASSUMED_WATTS_PER_CORE:g} W a busy core (assumed)"
        return Graded(value=joules, grade="estimated"), source
