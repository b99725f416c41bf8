"""Seconds, memory and energy of the phases of a run."""

from __future__ import annotations

import json
import mmap
import time
from pathlib import Path

import pytest

from paretune.core.events import PHASES, PhaseEnded, PhaseStarted, StepEnded, TrainingPlanned
from paretune.measure import meter as room
from paretune.measure.latency import BATCHES, WARM_CALLS, probe
from paretune.measure.meter import Meter, peak_bytes, reset_peak, resident_bytes

MIB = 2**20


def step(number: int) -> StepEnded:
    return StepEnded(number, 0.5, 1e-3, 1.0, 16, 100, 120)


def needs_counter() -> None:
    if not (reset_peak() and peak_bytes() is not None):
        pytest.skip("this kernel has no resettable high-water mark (/proc/self/clear_refs)")


def test_a_peak_belongs_to_its_phase() -> None:
    """200 MiB that were taken and given back inside a phase are in its peak and not in the next one's."""
    needs_counter()
    meter = Meter()
    assert meter.grade == "counter"
    meter(PhaseStarted("load"))
    with mmap.mmap(-1, 200 * MIB) as block:  # pages of its own: a malloc may be served from memory the heap still holds
        for page in range(0, 200 * MIB, mmap.PAGESIZE):
            block[page] = 1
    meter(PhaseEnded("load"))
    meter(PhaseStarted("step"))
    meter(PhaseEnded("step"))
    above = meter.cost("load").peak_memory_bytes - meter.cost("step").peak_memory_bytes
    assert 150 * MIB < above < 260 * MIB


def test_time_is_split_from_cpu_time() -> None:
    """Sleeping costs seconds and no CPU; counting costs both."""
    meter = Meter()
    meter(PhaseStarted("load"))
    time.sleep(0.2)
    meter(PhaseEnded("load"))
    assert 0.2 <= meter.cost("load").seconds < 5
    assert meter.cost("load").cpu_seconds < 0.15
    meter(PhaseStarted("step"))
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    meter(PhaseEnded("step"))
    assert meter.cost("step").cpu_seconds >= 0.1
    assert meter.cost("step").seconds >= meter.cost("step").cpu_seconds * 0.9


def test_a_phase_that_comes_twice_adds_up_and_keeps_its_higher_peak() -> None:
    """Seconds add, peaks do not; order is that of the first coming."""
    meter = Meter()
    for phase in ("eval", "step", "eval"):
        meter(PhaseStarted(phase))
        time.sleep(0.02)
        meter(PhaseEnded(phase))
    assert [cost.phase for cost in meter.costs()] == ["eval", "step"]
    assert meter.cost("eval").seconds >= 0.04
    assert meter.cost("save").seconds == 0


def test_steps_are_counted() -> None:
    """Examples, tokens and padded tokens are sums over the steps."""
    meter = Meter()
    for number in (1, 2, 3):
        meter(step(number))
    assert (meter.steps, meter.examples, meter.tokens, meter.padded_tokens) == (3, 48, 300, 360)


def test_without_a_counter_the_peak_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the mark cannot be reset, memory is looked at with each step."""
    monkeypatch.setattr(room, "CLEAR", tmp_path / "none" / "clear_refs")
    meter = Meter()
    assert meter.grade == "sampled"
    sizes = iter([100, 100, 700, 300, 200])
    monkeypatch.setattr(room, "resident_bytes", lambda: next(sizes))
    meter(PhaseStarted("step"))
    for number in (1, 2, 3):
        meter(step(number))
    meter(PhaseEnded("step"))
    assert meter.cost("step").peak_memory_bytes == 700


def test_resident_memory_is_this_process() -> None:
    """VmRSS in bytes: that of psutil within a tenth, and a Python process has some megabytes."""
    import psutil

    assert resident_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert resident_bytes() > 5 * MIB


def test_energy_without_a_counter_is_an_estimate_that_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CPU seconds times the stated power, of the training phase alone."""
    monkeypatch.setattr(room, "RAPL", tmp_path / "none")
    meter = Meter()
    meter(PhaseStarted("step"))
    meter(PhaseEnded("step"))
    energy, source = meter.energy()
    assert energy.grade == "estimated" and "assumed" in source
    assert energy.value == pytest.approx(meter.cost("step").cpu_seconds * 8.0)


def test_energy_from_the_counter_is_the_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Microjoules before and after the training phase; a counter that wrapped round is not believed."""
    counter = tmp_path / "energy_uj"
    counter.write_text("1000000\n")
    monkeypatch.setattr(room, "RAPL", counter)
    meter = Meter()
    meter(PhaseStarted("step"))
    counter.write_text("3500000\n")
    meter(PhaseEnded("step"))
    assert meter.energy()[0].model_dump() == {"value": 2.5, "grade": "counter"}
    wrapped = Meter()
    wrapped(PhaseStarted("step"))
    counter.write_text("7\n")
    wrapped(PhaseEnded("step"))
    assert wrapped.energy()[0].grade == "estimated"


def test_phases_are_the_declared_ones() -> None:
    """Events name no phase that the table does not have."""
    from typing import get_args

    from paretune.core.events import Phase

    assert get_args(Phase) == PHASES


def test_latency_is_of_warm_calls_on_real_texts() -> None:
    """Every batch size is asked with whole batches of the given texts; the warm calls are not in the percentiles."""
    asked: list[int] = []

    def answer(texts: object) -> None:
        assert isinstance(texts, list)
        asked.append(len(texts))
        time.sleep(0.2 if len(asked) == 1 else 0.001)

    found = probe(answer, ["a", "b", "c"])
    assert [(one.batch, one.calls) for one in found] == list(BATCHES)
    assert asked == [batch for batch, calls in BATCHES for _ in range(calls + WARM_CALLS)]
    for one in found:
        assert 0.001 <= one.p50_seconds <= one.p95_seconds
    assert found[0].p95_seconds < 0.15, "the slow first call is not counted"


def busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_resumed_training_is_the_sum_of_its_parts() -> None:
    """Seconds, CPU seconds, steps, tokens and the highest peak of both processes; what came after the checkpoint in
    the first is lost and not counted."""
    first = Meter("here")
    first(PhaseStarted("prefix"))
    busy(0.02)
    first(PhaseEnded("prefix"))
    first(TrainingPlanned(4, 1, 64))
    first(PhaseStarted("step"))
    busy(0.05)
    first(step(1))
    first(step(2))
    cost = json.loads(json.dumps(first.carried().so_far()))
    busy(0.05)
    first(step(3))
    second = Meter("here")
    second(PhaseStarted("prefix"))
    second(PhaseEnded("prefix"))
    second.carried().resume(cost)
    second(PhaseStarted("step"))
    busy(0.05)
    second(step(3))
    second(step(4))
    second(PhaseEnded("step"))
    assert (second.steps, second.tokens, second.examples, second.padded_tokens) == (4, 400, 64, 480)
    part = cost["phases"][1]["seconds"]
    assert part >= 0.05 and second.cost("step").seconds >= part + 0.05
    assert second.cost("prefix").seconds == first.cost("prefix").seconds
    assert second.training().cpu_seconds > cost["phases"][1]["cpu_seconds"]
    assert second.training().peak_memory_bytes >= cost["phases"][1]["peak_memory_bytes"]
    assert second.above_imports_bytes() >= cost["above_imports_bytes"] >= 0
    assert second.whole and second.time_grade() == "counter"


@pytest.mark.parametrize("where", ["elsewhere", None])
def test_parts_that_were_not_measured_here_make_an_estimate(where: str | None) -> None:
    """Another machine's, or nobody's: then all steps at the pace of the measured ones."""
    meter = Meter("here")
    meter.carried().resume(None if where is None else Meter(where).carried().so_far())
    meter(TrainingPlanned(4, 1, 64))
    meter(PhaseStarted("step"))
    busy(0.02)
    meter(step(4))
    meter(PhaseEnded("step"))
    seconds = meter.cost("step").seconds
    meter.stretch()
    assert meter.time_grade() == meter.memory_grade() == meter.energy()[0].grade == "estimated"
    if where is None:
        assert (meter.steps, meter.tokens) == (4, 400)
        assert meter.training().seconds == pytest.approx(4 * seconds)
