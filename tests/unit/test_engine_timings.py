"""Which engine and number format are taken: by what was timed, once, the same for all runs of a study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paretune.core import engine_timings
from paretune.core.engine_timings import (
    EngineTimings,
    hold,
    kept_at,
    known,
    machine_key,
    precision_of,
    read_timings,
    release,
    why_not_native,
    write_timings,
)
from paretune.kernels.native import build
from paretune.kernels.native import library as native
from paretune.models import precision
from paretune.models.precision import chosen_precision
from paretune.models.sources import ModelSpec
from paretune.serve.engine import Engine
from paretune.study import engines
from paretune.study.engines import prepare_engines
from paretune.train import engine_probe

NAME = "kernels-of-a-test"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own, no wish of the user, and nothing held before or after."""
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PARETUNE_NATIVE", raising=False)
    release()
    native.library.cache_clear()
    yield
    release()
    native.library.cache_clear()


def timings(fp32: float, bf16: float | None, cpp: float | None, library: str = NAME) -> EngineTimings:
    return EngineTimings(
        machine=machine_key(), library=library, fp32_seconds=fp32, bf16_seconds=bf16, native_seconds=cpp
    )


@pytest.mark.parametrize(
    ("fp32", "bf16", "cpp", "wanted", "taken"),
    [
        (0.30, 0.10, 0.07, None, ("bf16", True)),  # AVX512-BF16 of AMD
        (0.30, 0.06, 0.09, None, ("bf16", False)),  # AMX: torch's products are faster
        (0.30, 0.06, 0.09, "1", ("bf16", True)),  # the user's wish
        (0.10, 0.100, 0.104, None, ("bf16", True)),  # a tie in bf16 stays in C++
        (0.10, 0.50, 0.07, None, ("bf16", True)),  # torch is held to AVX2, C++ is not
        (0.10, 0.50, 0.07, "0", ("fp32", True)),  # without C++ fp32 is faster
        (0.10, 0.50, 0.12, None, ("fp32", True)),
        (0.10, 0.50, None, None, ("fp32", True)),
        (0.10, None, None, None, ("fp32", True)),
    ],
)
def test_the_faster_is_taken(
    fp32: float,
    bf16: float | None,
    cpp: float | None,
    wanted: str | None,
    taken: tuple[str, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number format by the best engine of each; within bf16 C++ unless torch is faster by more than 5 %."""
    if wanted is not None:
        monkeypatch.setenv("PARETUNE_NATIVE", wanted)
    found = timings(fp32, bf16, cpp)
    assert (precision_of(found), why_not_native(found, NAME) == "") == taken
    hold(found)
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: True)
    assert chosen_precision("auto") == taken[0]
    assert (chosen_precision("fp32"), chosen_precision("bf16")) == ("fp32", "bf16")


def test_a_server_does_not_count_kernels_that_it_has_not(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is held to older instructions training takes bf16 in C++, and a server, which is torch's, fp32."""
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: True)
    spec = ModelSpec(source=f"path:{tiny_model}")
    for found, served in ((timings(0.10, 0.50, 0.07), "fp32"), (timings(0.30, 0.06, 0.09), "bf16")):
        hold(found)
        assert chosen_precision("auto") == "bf16"
        assert Engine(spec, fetch=lambda digest: pytest.fail(digest)).precision == served


def test_a_flag_alone_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was timed, two products decide; without the flag nothing is timed at all."""
    monkeypatch.setattr(precision, "faster_products", lambda: "fp32")
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: True)
    assert chosen_precision("auto") == "fp32"
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: False)
    monkeypatch.setattr(precision, "faster_products", lambda: pytest.fail("timed"))
    assert chosen_precision("auto") == "fp32"


def test_two_products_are_really_timed() -> None:
    """It answers on any processor, and the same within a process."""
    precision.faster_products.cache_clear()
    assert precision.faster_products() == precision.faster_products()


def test_slower_kernels_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library says why in figures; timings of other kernels or of none decide nothing."""
    monkeypatch.setattr(native, "built", lambda: Path(f"/nowhere/{NAME}.so"))
    hold(timings(0.3, 0.06, 0.09))
    assert native.library().calls is None
    assert native.library().reason == (
        "torch's operators are faster on this processor (60 ms a step of two blocks, C++ 90 ms)"
    )
    for found in (timings(0.3, 0.06, 0.09, "others"), None):
        native.library.cache_clear()
        hold(found)
        assert "cannot be loaded" in native.library().reason, "they were wanted"


class Machine:
    """A processor with bf16 and C++ kernels, and a probe that counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.library, self.found, self.asked = NAME, timings(0.3, 0.06, 0.09), 0
        self.notes: list[str] = []
        monkeypatch.setattr(engines, "processor_has_bf16", lambda: True)
        monkeypatch.setattr(engines, "built", lambda note: Path(f"/nowhere/{self.library}.so"))

    def prepare(self, beside: Path | None = None) -> EngineTimings | None:
        def measure() -> EngineTimings:
            self.asked += 1
            return self.found.model_copy(update={"library": self.library, "machine": machine_key()})

        return prepare_engines(self.notes.append, beside, measure)


def test_it_is_timed_once_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again after the kernels were built anew, or where libraries are held to other instructions."""
    machine = Machine(monkeypatch)
    assert machine.prepare() == machine.prepare() == known()
    assert machine.asked == 1
    assert machine.notes[-1].startswith("engine: torch's operators in bf16; torch's operators are faster")
    machine.library = "rebuilt"
    machine.prepare()
    assert machine.asked == 2
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    machine.prepare()
    assert machine.asked == 3
    kept_at().write_text('{"torn')
    machine.prepare()
    assert machine.asked == 4


def test_a_study_decides_once_for_all_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside the runs wins over later timings of the machine; on another machine it is made anew."""
    machine, beside = Machine(monkeypatch), tmp_path / "study" / "engines.json"
    first = machine.prepare(beside)
    assert read_timings(beside) == first
    machine.found = timings(0.3, 0.09, 0.06)
    kept_at().unlink()
    assert machine.prepare(beside) == first and machine.asked == 1
    monkeypatch.setattr(engine_timings, "usable_cores", lambda: 3)
    other = machine.prepare(beside)
    assert other != first and read_timings(beside) == other
    assert machine.notes[-1] == "engine: C++ kernels in bf16"


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study goes on with what was timed."""
    monkeypatch.setenv("PARETUNE_HOME", "/dev/null/home")
    machine = Machine(monkeypatch)
    assert machine.prepare() is not None
    assert any(note.startswith("cannot keep the engines' timings") for note in machine.notes)


def test_where_there_is_nothing_to_choose_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without bf16: one line says what is used and why."""
    notes: list[str] = []
    monkeypatch.setattr(build, "processor_flags", lambda: ["avx2"])
    monkeypatch.setattr(engines, "processor_has_bf16", lambda: False)
    assert prepare_engines(notes.append, None, lambda: pytest.fail("timed")) is None
    assert notes == ["engine: torch's operators in fp32, no C++ kernels: this processor has no avx512f"]


def test_the_probe_times_each_engine_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real run: fp32 always, bf16 where it is worth it; what it found can be kept and read."""
    monkeypatch.setattr(engine_probe, "TEXTS", 4)
    monkeypatch.setattr(engine_probe, "TOKENS", 16)
    monkeypatch.setattr(engine_probe, "processor_has_bf16", lambda: True)
    found = engine_probe.measured()
    assert 0 < found.fp32_seconds < 60 and found.bf16_seconds is not None and found.bf16_seconds > 0
    assert (found.native_seconds is None) is (native.library().calls is None)
    write_timings(kept_at(), found)
    release()
    assert known() == found
