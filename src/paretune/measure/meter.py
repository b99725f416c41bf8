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

from paretune.core.config import JsonObject
from paretune.core.events import Event, PhaseEnded, PhaseStarted, StepEnded, TrainingPlanned
from paretune.records.schema import Grade, Graded, PhaseCost

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
ASSUMED_WATTS_PER_CORE = 8.0
TRAINING = ("prefix", "step")
COUNTS = ("steps", "examples", "tokens", "padded_tokens")


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

    def __init__(self, where: str = "") -> None:
        """`where` says on what is measured: parts of a run that were measured elsewhere add up to no measurement."""
        self.where = where
        self.whole = True  # whether all parts of the training were measured
        self.planned_steps = 0
        self._above_bytes = 0  # above the imports, of the parts before this process
        self._peaks: dict[str, int] = {}
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
        elif isinstance(event, TrainingPlanned):
            self.planned_steps = event.steps
        elif isinstance(event, StepEnded):
            self.steps += 1
            self.examples += event.examples
            self.tokens += event.tokens
            self.padded_tokens += event.padded_tokens
            if self.grade == "sampled":
                self._sampled_bytes = max(self._sampled_bytes, resident_bytes())

    def _end(self, phase: str, began: float, cpu_began: float, joules_began: float | None) -> None:
        peak = self._peak_now()
        self._costs[phase] = self._with_the_running(phase, began, cpu_began, peak)
        self._peaks[phase] = max(self._peaks.get(phase, 0), peak)
        joules_now = _rapl_joules()
        known = joules_began is not None and joules_now is not None and joules_now >= joules_began
        if phase in TRAINING and known and joules_began is not None and joules_now is not None:
            self._train_joules = (self._train_joules or 0.0) + joules_now - joules_began

    def _peak_now(self) -> int:
        """Of the running phase."""
        return (peak_bytes() or 0) if self.grade == "counter" else max(self._sampled_bytes, resident_bytes())

    def _with_the_running(self, phase: str, began: float, cpu_began: float, peak: int) -> PhaseCost:
        before = self.cost(phase)
        return PhaseCost(
            phase=phase,
            seconds=before.seconds + time.perf_counter() - began,
            cpu_seconds=before.cpu_seconds + time.process_time() - cpu_began,
            peak_memory_bytes=max(before.peak_memory_bytes, peak),
        )

    def costs(self) -> list[PhaseCost]:
        """Cost of each finished phase, in the order in which they first came."""
        return list(self._costs.values())

    def cost(self, phase: str) -> PhaseCost:
        """Cost of one phase; zero where it did not run."""
        return self._costs.get(phase, PhaseCost(phase=phase, seconds=0, cpu_seconds=0, peak_memory_bytes=0))

    def charge(self, cost: PhaseCost) -> None:
        """Count a phase that another process went through for this run as well, unless it ran here."""
        if cost.phase not in self._costs:
            self._costs[cost.phase] = cost
            self._peaks[cost.phase] = cost.peak_memory_bytes

    def training(self) -> PhaseCost:
        """Cost of the training as a whole: its steps, and what frozen blocks gave before them."""
        parts = [self.cost(phase) for phase in TRAINING]
        return PhaseCost(
            phase="training",
            seconds=sum(one.seconds for one in parts),
            cpu_seconds=sum(one.cpu_seconds for one in parts),
            peak_memory_bytes=max(one.peak_memory_bytes for one in parts),
        )

    def above_imports_bytes(self) -> int:
        """The training's peak above this process's size after its imports; of a resumed one the largest part's."""
        here = max((self._peaks.get(phase, 0) for phase in TRAINING), default=0) - self.memory_after_imports_bytes
        return max(0, here, self._above_bytes)

    def time_grade(self) -> Grade:
        """How the training's seconds are had."""
        return "counter" if self.whole else "estimated"

    def memory_grade(self) -> Grade:
        return self.grade if self.whole else "estimated"

    def carried(self, phase: str = "step") -> CarriedCosts:
        """What a checkpoint takes along of a phase (and, of the training's steps, of what came before them)."""
        return CarriedCosts(self, phase)

    def so_far(self, phase: str) -> JsonObject:
        """The cost of a phase that is running, with all that went on before it in other processes."""
        running = self.cost(phase)
        joules = self._train_joules
        if self._started is not None:
            began, cpu_began, joules_began = self._started
            running = self._with_the_running(phase, began, cpu_began, self._peak_now())
            joules_now = _rapl_joules()
            if joules_began is not None and joules_now is not None and joules_now >= joules_began:
                joules = (joules or 0.0) + joules_now - joules_began
        above = max(self._above_bytes, running.peak_memory_bytes - self.memory_after_imports_bytes)
        return {
            "where": self.where,
            "grade": self.memory_grade(),
            "phases": [one.model_dump() for one in (self.cost("prefix"), running)],
            "above_imports_bytes": max(above, self.above_imports_bytes()),
            "joules": joules,
            "counts": {name: self.__dict__[name] for name in COUNTS},
        }

    def resume(self, phase: str, cost: JsonObject | None) -> None:
        """Go on from what a checkpoint says was spent before it; a part that was not measured here makes the whole an
        estimate: the measured part, stretched to all steps."""
        if cost is None or cost["where"] != self.where or cost["grade"] == "estimated":
            self.whole = False
        if cost is None:
            return
        prefix, running = (PhaseCost.model_validate(one) for one in cost["phases"])
        own = self.cost("prefix")
        if phase == "step" and prefix.seconds:  # it is needed once; the first process made it, this one read it
            peak = max(own.peak_memory_bytes, prefix.peak_memory_bytes)
            self._costs["prefix"] = prefix.model_copy(update={"peak_memory_bytes": peak})
        self._costs[phase] = running
        if phase != "step":
            return
        self._above_bytes = cost["above_imports_bytes"]
        self._train_joules = None if cost["joules"] is None else (self._train_joules or 0.0) + cost["joules"]
        for name in COUNTS:
            self.__dict__[name] += cost["counts"][name]

    def stretch(self) -> None:
        """Of a resumed training whose first part nobody measured: what was measured, times all steps ÷ those."""
        if self.whole or not 0 < self.steps < self.planned_steps:
            return
        factor, step = self.planned_steps / self.steps, self.cost("step")
        update = {"seconds": step.seconds * factor, "cpu_seconds": step.cpu_seconds * factor}
        self._costs["step"] = step.model_copy(update=update)
        for name in COUNTS:
            self.__dict__[name] = round(self.__dict__[name] * factor)

    def energy(self) -> tuple[Graded, str]:
        """Joules of the training phase, and where they come from."""
        if self._train_joules is not None and self.whole:
            return Graded(
                value=self._train_joules, grade="counter"
            ), "RAPL package counter, all processes of the socket"
        joules = self.training().cpu_seconds * ASSUMED_WATTS_PER_CORE
        source = f"no RAPL: CPU seconds × {ASSUMED_WATTS_PER_CORE:g} W a busy core (assumed)"
        return Graded(value=joules, grade="estimated"), source


class CarriedCosts:
    """A meter as a training's checkpoints know it: asked when one is written, told when one is resumed from."""

    def __init__(self, meter: Meter, phase: str) -> None:
        self._meter, self._phase = meter, phase

    def so_far(self) -> JsonObject:
        return self._meter.so_far(self._phase)

    def resume(self, cost: JsonObject | None) -> None:
        self._meter.resume(self._phase, cost)
