"""Constants are found again in samples that were made from known ones."""

from __future__ import annotations

import pytest

from paretune.measure.calibration import Calibration, Sample, StepSample, fit

BLOCK = (9000.0, 24.0)
KEPT, WORKING, FIXED, STARTED = 1.4, 2.5, 40e6, 460e6
STEP, FORWARD, BACKWARD, UPDATE = 0.02, 1e-11, 2e-11, 5e-9


def block(rows: int, width: int) -> float:
    """Bytes that one block keeps of so many texts, all of one length."""
    return BLOCK[0] * rows * width + BLOCK[1] * rows * width**2


def made(sort: str, width: int, passed: int, held: int, delays: dict[int, float] | None = None) -> Sample:
    """Sixteen texts a step, four widths up to the given one; 3 MB are remembered for each new width."""
    backward = 40e6 if passed else 0.0
    widths = [width // 2, width, width * 3 // 4, width * 5 // 8]
    steps = [
        StepSample(
            seconds=(STEP + (20e6 * FORWARD + backward * BACKWARD) * 16 * one + held * UPDATE)
            * (delays or {}).get(place, 1.0),
            positions=16 * one,
            pairs=16 * one**2,
            new_width=True,
        )
        for place, one in enumerate(widths)
    ]
    weights = 110e6
    lasting = 1.2 * 3e6 * 4
    kept = KEPT * block(16, width) * passed
    peak = STARTED + FIXED + weights + held * 8 + kept + WORKING * block(16, width) + lasting
    peak += max(0.0, held * 4 - block(16, width) * passed)
    return Sample(
        kind=sort,
        precision="bf16",
        passed_blocks=passed,
        computed=sort,
        forward_flops_per_position=20e6,
        forward_flops_per_pair=0.0,
        backward_flops_per_position=backward,
        backward_flops_per_pair=0.0,
        held_parameters=held,
        weight_bytes=weights,
        back_bytes=0.0,
        whole_table_bytes=0.0,
        in_cpp=False,
        imports_bytes=450_000_000,
        tokenizer_bytes=int(STARTED),
        peak_bytes=round(peak),
        evaluation_peak_bytes=round(STARTED + FIXED + weights + 1.2 * 3e6 + 3.5 * block(32, width)),
        growth_bytes=9_000_000,
        growth_widths=3,
        capped_over_before_bytes=100_000_000,
        capped_over_bytes=120_000_000,
        widths=4,
        saved_position_bytes=BLOCK[0],
        saved_pair_bytes=BLOCK[1],
        steps=steps,
        evaluation_seconds=2 * 20e6 * 32 * width * FORWARD,
        evaluation_batches=2,
        evaluation_positions=32 * width,
        evaluation_pairs=32 * width**2,
        start_seconds=0.1,
        tokenizer_seconds=0.2,
        encode_seconds_per_token=1e-6,
        load_seconds=0.3,
        save_seconds=0.4,
        save_bytes=1000,
    )


def fitted() -> Calibration:
    return fit(
        [
            made("forward", 128, 0, 3_000),
            made("low_rank", 128, 6, 300_000),
            made("learning", 128, 6, 11_000_000),
            made("low_rank", 64, 6, 300_000),
        ]
    )


def test_memory_constants_are_found_again() -> None:
    """The allocator's slack, the work on a block, evaluation and what is fixed."""
    found = fitted()
    assert found.kept == pytest.approx(KEPT, rel=0.02)
    assert found.working == pytest.approx(WORKING, rel=0.05)
    assert found.fixed_bytes == pytest.approx(FIXED, rel=0.05)
    assert found.started_bytes == STARTED
    assert found.evaluation == pytest.approx(3.5, rel=0.02)
    assert found.width_bytes["low_rank"] == pytest.approx(3.6e6)
    assert found.capped_over("learning", 10) == pytest.approx(100e6 + 10 * 5e6)


def test_seconds_are_found_again() -> None:
    """A step, a forward and a backward FLOP, and what the optimizer moves; the share of new widths is in the step."""
    found = fitted()
    assert found.seconds_per_step + found.seconds_per_new_width == pytest.approx(STEP, rel=0.02)
    assert found.seconds_per_forward_flop == pytest.approx(FORWARD, rel=0.02)
    assert found.seconds_per_backward_flop == pytest.approx(BACKWARD, rel=0.02)
    assert found.seconds_per_held_parameter == pytest.approx(UPDATE, rel=0.05)
    assert found.seconds_per_evaluation_flop == pytest.approx(FORWARD)


def test_a_delayed_step_does_not_count() -> None:
    """One step that something else held up for three times its time leaves the constants as they are."""
    samples = [
        made("forward", 128, 0, 3_000),
        made("low_rank", 128, 6, 300_000, delays={1: 3.0}),
        made("learning", 128, 6, 11_000_000),
        made("low_rank", 64, 6, 300_000),
    ]
    assert fit(samples).seconds_per_backward_flop == pytest.approx(BACKWARD, rel=0.03)


def test_what_the_probe_had_no_time_for_is_named_and_stays_finite() -> None:
    """From forward passes alone a backward FLOP is taken to cost as much, and nothing is infinite."""
    found = fit([made("forward", 128, 0, 3_000)])
    assert found.unmeasured == ["passed", "low_rank", "learning"]
    assert found.seconds_per_backward_flop == found.seconds_per_forward_flop > 0
    assert all(value < 1e12 for value in found.model_dump(exclude={"samples", "measured_at", "width_bytes",
                                                                  "capped_over_width_bytes"}).values())  # fmt: skip
