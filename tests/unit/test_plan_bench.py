"""The planner's bench: its list, its summary, its record over runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paretune.core.config import load_toml
from paretune.core.errors import ConfigError, UnknownNameError
from paretune.records.plan_errors import error_of
from paretune.records.schema import Graded, Measurements, PhaseCost, Predicted
from paretune.study.plan_bench import Combinations, Row, bench_plan, report_lines, summed
from paretune.study.plan_record import percentile, summary

LISTED = Path(__file__).parents[2] / "benchmarks" / "plan_combinations.toml"


def row(name: str, memory: float, seconds: float, held_out: bool = False) -> Row:
    """Errors as given; above the imports twice as large."""
    return Row(name, held_out, 1e9 * (1 + memory), 1e9, memory, 2 * memory, 10 * (1 + seconds), 10.0, seconds)


def test_the_list_covers_what_it_must() -> None:
    """Three models, every way to train, several batches, lengths and number formats; eight held out at least."""
    found = load_toml(LISTED, Combinations).combinations
    assert len(found) >= 24
    assert sum(one.held_out for one in found) >= 8
    assert {one.model for one in found} == {"asset:minilm-l6", "asset:e5-small", "asset:smollm2-135m"}
    assert {one.kind for one in found} == {"lora", "full", "last_layers", "bitfit", "head"}
    assert len({one.batch_size for one in found}) >= 3 and len({one.max_tokens for one in found}) >= 3
    assert {one.precision for one in found} >= {"auto", "fp32"}


def test_two_combinations_of_one_name_are_refused(tmp_path: Path) -> None:
    """They would share one result."""
    file = tmp_path / "c.toml"
    one = '[[combinations]]\nname = "a"\nmodel = "asset:minilm-l6"\nkind = "lora"\n'
    file.write_text(one * 2, encoding="utf-8")
    with pytest.raises(ConfigError, match="no name twice"):
        load_toml(file, Combinations)


def test_the_summary_is_of_absolute_errors_and_of_the_worst_shortfall() -> None:
    """Medians, nearest-rank 90th percentile; held-out rows alone beside all."""
    rows = [row("a", 0.02, 0.1), row("b", -0.04, -0.3), row("c", 0.06, 0.2, held_out=True), row("d", -0.01, 0.0)]
    found = summed(rows)
    assert found["memory_error_median"] == pytest.approx(0.03)
    assert found["memory_error_p90"] == pytest.approx(0.06)
    assert found["worst_under_prediction"] == pytest.approx(0.04)
    assert found["time_error_median"] == pytest.approx(0.15)
    assert found["held_out_memory_error_median"] == pytest.approx(0.06)
    assert found["held_out_time_error_median"] == pytest.approx(0.2)
    assert found["above_imports_error_median"] == pytest.approx(0.06)
    assert (found["combinations"], found["held_out"]) == (4, 1)


def test_nothing_too_low_is_no_shortfall_and_no_row_is_no_figure() -> None:
    """Zero, and None."""
    assert summed([row("a", 0.02, 0.1)])["worst_under_prediction"] == 0.0
    assert summed([])["memory_error_median"] is None


def test_percentile_is_a_value_that_was_there() -> None:
    """The smallest that nine of ten do not exceed."""
    assert percentile([float(value) for value in range(1, 11)], 0.9) == 9.0
    assert percentile([5.0], 0.9) == 5.0


def test_a_bench_with_nothing_left_to_do_runs_nothing(tmp_path: Path) -> None:
    """`most` 0 only sums up; an unknown name is refused with the names."""
    found = bench_plan(LISTED, tmp_path, lambda line: pytest.fail(line), most=0)
    assert found["rows"] == [] and "32 still to do" in report_lines(found)[-1]
    with pytest.raises(UnknownNameError, match="minilm-lora-16x128"):
        bench_plan(LISTED, tmp_path, print, only="minilm-lora")


def measured(peaks: dict[str, int], predicted: Predicted | None) -> Measurements:
    return Measurements(
        phases=[
            PhaseCost(phase=name, seconds=1, cpu_seconds=1, peak_memory_bytes=peak) for name, peak in peaks.items()
        ],
        memory_after_imports_bytes=400,
        train_seconds=Graded(value=10.0, grade="counter"),
        train_cpu_seconds=Graded(value=20.0, grade="counter"),
        peak_memory_bytes=Graded(value=1000, grade="counter"),
        peak_memory_above_imports_bytes=Graded(value=600, grade="counter"),
        energy_joules=None,
        energy_source="",
        trainable_parameters=1,
        total_parameters=1,
        adapter_bytes=1,
        train_examples=1,
        train_tokens=1,
        padding_ratio=1.0,
        steps=1,
        precision="fp32",
        scores={},
        predicted=predicted,
    )


EXPECTED = Predicted(
    calibrated=True,
    trainable_parameters=1,
    adapter_bytes=1,
    train_flops=1.0,
    peak_memory_bytes=1100.0,
    peak_memory_above_imports_bytes=680.0,
    seconds={"step": 12.0},
)


def test_a_runs_error_is_of_its_first_stage() -> None:
    """The test set's peak, in another process, is not what was predicted."""
    one = error_of(measured({"load": 500, "step": 900, "eval": 1000, "predict": 5000}, EXPECTED))
    assert one is not None
    assert one.memory == pytest.approx(0.1)
    assert one.memory_above_imports == pytest.approx(680 / 600 - 1)
    assert one.seconds == pytest.approx(0.2)
    found = summary([one])
    assert found is not None and found["runs"] == 1 and found["worst_under_prediction"] == 0.0
    assert summary([]) is None


def test_a_run_without_a_calibration_has_no_error() -> None:
    """Counts alone are no prediction of memory or time."""
    counted = Predicted(calibrated=False, trainable_parameters=1, adapter_bytes=1, train_flops=1.0)
    assert error_of(measured({"step": 900}, counted)) is None


def test_records_from_before_there_were_predictions_stay_as_they_are() -> None:
    """The field is not written where it is not there, and not needed to read."""
    old = measured({"step": 900}, None)
    text = old.model_dump_json()
    assert "predicted" not in json.loads(text)
    assert Measurements.model_validate_json(text) == old
    new = measured({"step": 900}, EXPECTED)
    assert Measurements.model_validate_json(new.model_dump_json()).predicted == EXPECTED
