"""Choices under a budget from fixed constants: fits, splits the batch, changes the number format, cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paretune.core.errors import ConfigError
from paretune.data.encoding import Encoded
from paretune.measure.accounting import Census, Format, Pass
from paretune.measure.calibration import PRODUCTS, Calibration
from paretune.measure.flops import Arithmetic
from paretune.study.plan_command import Certificate, limits_of, lines, tree
from paretune.study.planner import Limits, MethodPlan, Option, StudyPlan, choose, formats, options, settings
from paretune.study.predict import VALIDATION, keeps_prefix, pass_of, predict_run, shape_of
from paretune.train.loop import TrainSpec

MB = 10**6
TRAIN = TrainSpec(epochs=2, batch_size=16, max_tokens=64, keep_frozen=False, precision="bf16")  # on any processor
ENCODED = {
    "train": Encoded(tuple(tuple(range(10 + row % 55)) for row in range(64)), 0),
    VALIDATION: Encoded(((1, 2, 3),) * 8, 0),
    "test": Encoded(((1, 2, 3, 4),) * 8, 0),
}
COUNTED = Census(
    trainable=1_000_000,
    total=20_000_000,
    inserted=1_000_000,
    words=1000,
    word_width=384,
    words_learn=False,
    copied=10_000_000,
    hidden=384,
    feed_forward=1536,
    heads=12,
    key_heads=12,
    classes=4,
    saved_bytes=4_000_100,
    own_pass=True,
    arithmetic=Arithmetic(10_000_000, 10_000_000, 0, 1_000_000, 384, 6, 6),
)


def constants(precision: Format) -> Calibration:
    """10 kB a position of each block in bf16, twice that in fp32, which is half as fast."""
    factor = 1 if precision == "bf16" else 2
    return Calibration(
        started_bytes=400e6,
        imports_bytes=380e6,
        saved_position_bytes=10e3 * factor,
        saved_pair_bytes=0.0,
        kept=1.0,
        working=0.0,
        evaluation=1.0,
        fixed_bytes=0.0,
        width_bytes=dict.fromkeys(PRODUCTS, 0.0),
        capped_over_bytes=50e6,
        capped_over_width_bytes=dict.fromkeys(PRODUCTS, 0.0),
        seconds_per_step=0.01,
        seconds_per_forward_flop=1e-11 * factor,
        seconds_per_backward_flop=1e-11 * factor,
        seconds_per_held_parameter=0.0,
        seconds_per_new_width=0.0,
        seconds_per_evaluation_flop=1e-11 * factor,
        start_seconds=0.1,
        tokenizer_seconds=0.0,
        encode_seconds_per_token=0.0,
        load_seconds=0.2,
        save_seconds=0.1,
    )


def found_with(limits: Limits, train: TrainSpec = TRAIN) -> tuple[Option, Option | None, Option]:
    return choose(options(COUNTED, ENCODED, train, True, constants), limits)


def own_bytes() -> float:
    return found_with(Limits())[0].memory_bytes


def test_the_studys_own_setting_comes_first_and_parts_are_halved() -> None:
    """Down to one text at a time, in each number format; then all again with activation checkpointing."""
    found = [(one.micro_batch_size, one.precision) for one in settings(TRAIN, ["bf16", "fp32"])]
    assert found[:5] == [(16, "bf16"), (8, "bf16"), (4, "bf16"), (2, "bf16"), (1, "bf16")]
    assert found[5:10] == [(size, "fp32") for size, _ in found[:5]]
    assert found[10:] == found[:10]
    odd = TRAIN.model_copy(update={"batch_size": 12, "micro_batch_size": 5})
    assert [(one.micro_batch_size, one.accumulation) for one in settings(odd, ["fp32"])][:4] == [
        (5, 3), (3, 4), (2, 6), (1, 12),
    ]  # fmt: skip


def test_where_the_processor_has_no_bf16_it_is_not_offered() -> None:
    """Unless the study itself asks for it."""
    assert formats(TRAIN.model_copy(update={"precision": "fp32"}), has_bf16=False) == ["fp32"]
    assert formats(TRAIN.model_copy(update={"precision": "fp32"}), has_bf16=True) == ["fp32", "bf16"]
    assert formats(TRAIN.model_copy(update={"precision": "bf16"}), has_bf16=False) == ["bf16", "fp32"]


def test_no_change_where_the_study_fits_as_it_is() -> None:
    """The own setting is taken even where another would need less."""
    own, chosen, _ = found_with(Limits(own_bytes() + 1, None))
    assert chosen is own


def test_the_batch_is_split_no_further_than_needed() -> None:
    """Half the batch at a time where that fits; the optimizer step stays the same."""
    half = next(iter(options(COUNTED, ENCODED, TRAIN.model_copy(update={"micro_batch_size": 8}), True, constants)))
    own, chosen, _ = found_with(Limits(half.memory_bytes + MB, None))
    assert chosen is not None and chosen is not own
    assert (chosen.setting.micro_batch_size, chosen.setting.accumulation) == (8, 2)
    assert chosen.setting.precision == own.setting.precision


def test_activation_checkpointing_is_taken_where_only_that_fits_or_where_it_is_faster() -> None:
    """Below what one text at a time needs; and a study that asks for it is not offered the way without."""
    long = {**ENCODED, "train": Encoded((tuple(range(500)),) * 16, 0)}
    found = list(options(COUNTED, long, TRAIN, True, constants))
    least, tightest = (
        min(one.memory_bytes for one in found if one.setting.activation_checkpointing is again)
        for again in (False, True)
    )
    assert tightest < least
    _, chosen, _ = choose(found, Limits((least + tightest) / 2, None))
    assert chosen is not None and chosen.setting.activation_checkpointing
    asked = TRAIN.model_copy(update={"activation_checkpointing": True})
    assert all(one.setting.activation_checkpointing for one in options(COUNTED, ENCODED, asked, True, constants))


def test_activation_checkpointing_costs_a_second_way_forward() -> None:
    """By the FLOP of the forward pass, at the rate of the forward pass."""
    plain, again = (shape_of(ENCODED, TRAIN.model_copy(update={"activation_checkpointing": on}), "rounded")
                    for on in (False, True))  # fmt: skip
    first, second = (predict_run(COUNTED, one, "bf16", constants("bf16")).seconds["step"] for one in (plain, again))
    rows = sum(one.positions for one in plain.training)
    pairs = sum(one.pairs for one in plain.training)
    assert second - first == pytest.approx(1e-11 * COUNTED.arithmetic.forward_flops(rows, pairs))


def test_our_own_pass_goes_over_real_tokens_and_another_over_padded_texts() -> None:
    """Two texts of 10 and 50 tokens: in C++ just these; by torch 60 and one to spare, rounded up, attention at the next
    multiple of eight."""
    assert pass_of([10, 50], "tokens") == Pass(2, 60, 10**2 + 50**2, in_cpp=True)
    assert pass_of([10, 50], "rounded") == Pass(2, 64, 2 * 56**2)
    assert pass_of([10, 50], "padded") == Pass(2, 100, 2 * 50**2)


def test_the_number_format_changes_where_that_is_faster() -> None:
    """A study in fp32 that is too slow gets bf16 at its whole batch."""
    slow = TRAIN.model_copy(update={"precision": "fp32"})
    own = found_with(Limits(), slow)[0]
    _, chosen, _ = found_with(Limits(None, own.seconds * 0.8), slow)
    assert chosen is not None
    assert (chosen.setting.precision, chosen.setting.micro_batch_size) == ("bf16", 16)


def test_where_nothing_fits_the_nearest_is_named_and_by_how_much() -> None:
    """One text at a time in the small format, and the bytes above the limit."""
    own, chosen, nearest = found_with(Limits(300 * MB, None))
    assert chosen is None
    assert nearest.memory_bytes <= min(one.memory_bytes for one in options(COUNTED, ENCODED, TRAIN, True, constants))
    assert nearest.misses(Limits(300 * MB, None)) == {"memory_bytes": nearest.memory_bytes - 300 * MB}
    assert nearest.memory_bytes < own.memory_bytes


def test_a_cap_counts_more_than_what_is_resident() -> None:
    """What must fit is the larger of the two, of both stages."""
    own = found_with(Limits())[0]
    assert own.predicted.capped_bytes == pytest.approx((own.predicted.peak_memory_bytes or 0) + 50e6)
    assert own.memory_bytes >= (own.predicted.capped_bytes or 0)


def test_seconds_and_flop_are_counted_over_all_epochs() -> None:
    """Eight steps of sixteen texts; twice the epochs, twice the arithmetic of the real tokens."""
    once = shape_of(ENCODED, TRAIN.model_copy(update={"epochs": 1}), "rounded")
    twice = shape_of(ENCODED, TRAIN, "rounded")
    first, second = (predict_run(COUNTED, one, "bf16", constants("bf16")) for one in (once, twice))
    assert second.train_flops == 2 * first.train_flops
    assert (once.steps, twice.steps) == (4, 8)
    assert first.seconds["step"] < second.seconds["step"] < 2.2 * first.seconds["step"]


def test_without_a_probe_only_what_is_counted_is_predicted() -> None:
    """Parameters, bytes on the disk and FLOP; no memory and no seconds."""
    found = predict_run(COUNTED, shape_of(ENCODED, TRAIN, "rounded"), "bf16", None)
    assert not found.calibrated and found.peak_memory_bytes is None and found.seconds == {}
    assert (found.trainable_parameters, found.adapter_bytes) == (1_000_000, 4_000_100)


def test_kept_activations_make_epochs_cheap() -> None:
    """Where the whole encoder is frozen and kept, more epochs cost steps of almost nothing."""
    frozen = replace(COUNTED, arithmetic=Arithmetic(10_000_000, 0, 0, 0, 384, 6, 0))
    kept = TRAIN.model_copy(update={"keep_frozen": True})
    assert keeps_prefix(frozen, kept) and not keeps_prefix(frozen, TRAIN) and not keeps_prefix(COUNTED, kept)
    shape = shape_of(ENCODED, kept, "rounded")
    with_it = predict_run(frozen, shape, "bf16", constants("bf16"), kept=True)
    without = predict_run(frozen, shape, "bf16", constants("bf16"), kept=False)
    assert with_it.seconds["step"] == pytest.approx(0.01 * shape.steps)
    assert with_it.seconds["prefix"] > 0
    assert with_it.seconds["step"] < without.seconds["step"]


def a_plan(limits: Limits) -> StudyPlan:
    own, chosen, nearest = found_with(limits)
    method = MethodPlan("lora-r8", "lora", own, chosen, nearest, 32 if chosen is None else None, trials=3, seeds=5)
    return StudyPlan("s", "asset:minilm-l6", limits, [method], {"bf16": constants("bf16")}, [])


def test_a_plan_says_what_fits_and_what_does_not() -> None:
    """In words and in the JSON object alike."""
    fits, tight = a_plan(Limits(own_bytes() + 1, None)), a_plan(Limits(300 * MB, None))
    assert fits.misfits == [] and tight.misfits == ["lora-r8"]
    assert any("fits (batch 16" in line for line in lines(fits, None))
    said = next(line for line in lines(tight, None) if line.startswith("lora-r8"))
    assert "fits with no setting" in said and "too much memory" in said and "max_tokens = 32" in said
    found = tree(tight, None)["methods"][0]
    assert found["fits"] is False and found["over"]["memory_bytes"] > 0
    assert tree(fits, None)["methods"][0]["activation_checkpointing"] is False


def test_the_studys_total_has_every_run() -> None:
    """Three trials of which one is the first seed, four further seeds, five scorings, answers timed once."""
    method = a_plan(Limits()).methods[0]
    best = method.chosen
    assert best is not None
    expected = 7 * best.train_seconds + 5 * best.scoring.seconds + best.scoring.latency_seconds
    assert method.total_seconds == pytest.approx(expected)


def test_a_certificate_is_said_either_way() -> None:
    """Held or not, and why not."""
    plan = a_plan(Limits(2000 * MB, None))
    held = lines(plan, None, Certificate("lora-r8", 2000 * MB, True, "", 700 * MB))
    broken = lines(plan, None, Certificate("lora-r8", 2000 * MB, False, "memory does not suffice", None))
    assert held[-1].startswith("certified:") and broken[-1].startswith("not certified:")
    assert "memory does not suffice" in broken[-1]


def test_an_unknown_unit_is_refused_and_the_machine_is_the_largest_limit(tmp_path: Path) -> None:
    """One line that names the units; no limit is above what this machine has."""
    from paretune.core.limits import memory_limit_bytes
    from paretune.study.design import read_study_file

    file = tmp_path / "s.toml"
    file.write_text(
        '[study]\nname = "s"\n[model]\nsource = "asset:minilm-l6"\n[data]\ntrain = "asset:reuters-r8"\n'
        '[budget]\nmemory = "2 GiB"\n[methods.full]\n',
        encoding="utf-8",
    )
    study = read_study_file(file)
    with pytest.raises(ConfigError, match="GiB"):
        limits_of(study, "4 gigs", None)
    with pytest.raises(ConfigError, match="min"):
        limits_of(study, None, "fast")
    assert limits_of(study, None, None).memory_bytes == min(2 * 2**30, memory_limit_bytes())
    assert limits_of(study, "9999 GiB", "1 h") == Limits(memory_limit_bytes(), 3600.0)
