"""Predicted parameters and bytes against tiny models that are really built, trained and saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paretune.core.config import JsonObject
from paretune.measure.accounting import (
    FAULT_BYTES,
    BlockBytes,
    Census,
    MemoryConstants,
    Pass,
    Work,
    block_bytes,
    census,
    computed,
    held_parameters,
    memory_parts,
    weight_bytes,
    whole_table_bytes,
)
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.repro.seeding import torch_generator
from paretune.study.calibrate import counted
from paretune.study.trial_steps import kept_of_a_block
from paretune.train.optim import adamw

# The toy encoder: 2 blocks, hidden 32, feed-forward 64.
HIDDEN, WIDE, BLOCKS, CLASSES = 32, 64, 2, 5
HEAD = HIDDEN * CLASSES + CLASSES
BLOCK_BIASES = 4 * HIDDEN + WIDE + HIDDEN + 2 * HIDDEN
BLOCK = 4 * HIDDEN**2 + 2 * HIDDEN * WIDE + 4 * HIDDEN + WIDE + HIDDEN + 4 * HIDDEN
SQUARE, UP = HIDDEN + HIDDEN, HIDDEN + WIDE  # inputs + outputs of a linear map
CASES: list[tuple[str, JsonObject, int | None]] = [
    ("head", {}, HEAD),
    ("last_layers", {"layers": 1}, BLOCK + HEAD),
    ("bitfit", {}, BLOCKS * BLOCK_BIASES + HIDDEN + HEAD),
    ("lora", {"rank": 4}, BLOCKS * 4 * (4 * SQUARE + 2 * UP) + HEAD),
    ("lora", {"rank": 4, "layers": 1}, 4 * (4 * SQUARE + 2 * UP) + HEAD),
    ("lora", {"rank": 2, "targets": "query_value"}, BLOCKS * 2 * 2 * SQUARE + HEAD),
    ("lora", {"rank": 2, "targets": "attention"}, BLOCKS * 2 * 4 * SQUARE + HEAD),
    ("lora", {"rank": 2, "targets": "mlp"}, BLOCKS * 2 * 2 * UP + HEAD),
    ("full", {}, None),
]


def adapted(folder: Path, kind: str, settings: JsonObject) -> tuple[EncoderClassifier, Adaptation]:
    cls = METHODS.load(kind)
    method = cls(cls.settings_model(**settings))
    assert isinstance(method, Adaptation)
    model = EncoderClassifier(load_encoder(f"path:{folder}"), CLASSES)
    method.attach(model, torch_generator(0, "init"))
    return model, method


@pytest.mark.parametrize(("kind", "settings", "expected"), CASES)
def test_trainable_parameters_are_those_of_the_formula(
    tiny_model: Path, kind: str, settings: JsonObject, expected: int | None
) -> None:
    """Counted without weights, with weights and by hand: one number; the file has the predicted size to the byte."""
    model, method = adapted(tiny_model, kind, settings)
    built, outline = census(model), counted(f"path:{tiny_model}", method, CLASSES)
    assert built == outline
    if expected is None:
        expected = sum(one.numel() for one in model.parameters())
    assert built.trainable == expected


@pytest.mark.parametrize(("kind", "settings", "expected"), CASES)
def test_an_adapters_bytes_are_those_on_the_disk(
    tiny_model: Path, tmp_path: Path, kind: str, settings: JsonObject, expected: int | None
) -> None:
    """Header included."""
    model, method = adapted(tiny_model, kind, settings)
    assert census(model).saved_bytes == method.save(model, tmp_path)


@pytest.mark.parametrize("kind", ["full", "lora", "last_layers", "bitfit"])
def test_moments_of_adamw_are_two_numbers_for_each_held_parameter(tiny_model: Path, kind: str) -> None:
    """Where all words occur; the optimizer's own tensors are counted after a step."""
    model, method = adapted(tiny_model, kind, {})
    optimizer = adamw(method.parameter_groups(model, 1e-3, 1e-3, 0.0))
    ids_bt = torch.randint(0, 50, (2, 6), generator=torch.Generator().manual_seed(0))
    model(ids_bt, torch.ones_like(ids_bt)).sum().backward()
    optimizer.step()
    moments = [tensor.numel() for state in optimizer.state.values() for name, tensor in state.items() if name != "step"]
    found = census(model)
    assert sum(moments) == 2 * held_parameters(found, found.words)


def test_words_that_do_not_occur_have_no_moments(tiny_model: Path) -> None:
    """Only where the words learn: of them the rows that occur are held."""
    full, lora = (census(adapted(tiny_model, kind, {})[0]) for kind in ("full", "lora"))
    assert held_parameters(full, 10) == full.trainable - (full.words - 10) * HIDDEN
    assert held_parameters(lora, 10) == lora.trainable
    assert weight_bytes(full, 10, "fp32") < weight_bytes(full, full.words, "fp32")


def test_a_table_that_learns_is_whole_only_after_training(tiny_model: Path) -> None:
    """Of a table larger than what its touched rows bring in: the rest of it, less the rows' own table."""
    full, lora = (replace(census(adapted(tiny_model, kind, {})[0]), words=10**6) for kind in ("full", "lora"))
    assert whole_table_bytes(full, 10) == 4.0 * 10**6 * HIDDEN - 10 * FAULT_BYTES - 4.0 * 10 * HIDDEN
    assert whole_table_bytes(lora, 10) == 0.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_what_backward_keeps_of_a_block_is_what_the_formula_says(tiny_model: Path, kind: str, precision: str) -> None:
    """Seen through the hooks of saved tensors; beside the formula stand two norms' statistics and low-rank products."""
    assert precision in ("fp32", "bf16")
    model, _ = adapted(tiny_model, kind, {"rank": 1} if kind == "lora" else {})
    found = census(model)
    position, pair = kept_of_a_block(model, found, 64, precision)
    expected = block_bytes(found, precision)
    assert pair == pytest.approx(expected.pair, rel=0.02)
    assert expected.position <= position * 1.001
    assert position == pytest.approx(expected.position, rel=0.25 if precision == "bf16" else 0.12)


def test_twice_the_blocks_through_which_a_gradient_passes_keep_twice_as_much(tiny_model: Path) -> None:
    """What is kept is given for one block, however many there are."""
    one, two = (adapted(tiny_model, "last_layers", {"layers": layers})[0] for layers in (1, 2))
    first, second = (kept_of_a_block(model, census(model), 64, "fp32")[0] for model in (one, two))
    assert first == pytest.approx(second, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("head", "forward"), ("bitfit", "passed"), ("lora", "low_rank"), ("last_layers", "learning")],
)
def test_a_steps_sort_follows_from_the_model(tiny_model: Path, kind: str, expected: str) -> None:
    """No method is asked for its name."""
    settings: JsonObject = {"layers": 1} if kind == "last_layers" else {}
    assert computed(census(adapted(tiny_model, kind, settings)[0])) == expected


CONSTANTS = MemoryConstants(
    started_bytes=1000.0,
    block=BlockBytes(10.0, 1.0),
    kept=1.5,
    working=2.0,
    evaluation=3.0,
    fixed_bytes=500.0,
    width_bytes={"forward": 7.0, "learning": 11.0},
)


def full_census(tiny_model: Path) -> Census:
    return census(adapted(tiny_model, "full", {})[0])


def test_the_parts_add_up_to_the_peak(tiny_model: Path) -> None:
    """Two rows of four positions: 8 positions and 32 pairs of one block."""
    found = full_census(tiny_model)
    parts = memory_parts(found, Work(Pass(2, 8, 32), found.words, 3), [], "fp32", CONSTANTS)
    block = 10.0 * 8 + 32
    assert parts.activations == pytest.approx(1.5 * block * BLOCKS + 2.0 * block)
    assert parts.kernels == 33.0
    assert parts.optimizer == 8.0 * found.trainable
    assert parts.gradients == 4.0 * found.trainable
    assert parts.shared == pytest.approx(-1.5 * block * BLOCKS), "gradients are larger and take their place"
    expected = 1500.0 + parts.weights + 12.0 * found.trainable + 2.0 * block + 33.0 + parts.logits
    assert parts.total == pytest.approx(expected)


def test_what_gradients_pass_has_a_second_layout_in_cpp(tiny_model: Path) -> None:
    """Of the upper block's weights alone where that alone learns; an evaluation has none of it."""
    full = full_census(tiny_model)
    last = census(adapted(tiny_model, "last_layers", {"layers": 1})[0])
    for found, share in ((full, 1.0), (last, 1 / BLOCKS)):
        once, twice = (weight_bytes(found, 10, "bf16", in_cpp) for in_cpp in (False, True))
        assert twice - once == pytest.approx(2 * found.copied * share)
    work = Work(Pass(1, 4, 16, in_cpp=True), 10)
    long = Work(Pass(32, 10**6, 10**6, in_cpp=True), 10)
    parts = memory_parts(full, work, [long], "bf16", CONSTANTS)
    assert parts.weights == weight_bytes(full, 10, "bf16", in_cpp=True)
    assert parts.shared == 0.0 and parts.gradients == 4.0 * held_parameters(full, 10)
    several = memory_parts(full, replace(work, accumulates=True), [], "bf16", CONSTANTS)
    assert several.gradients == 2 * parts.gradients, "what a pass gives is there beside what it is added to"
    weights = weight_bytes(full, 10, "bf16") + whole_table_bytes(full, 10)
    evaluating = 1500.0 + weights + 3.0 * (10.0 * 10**6 + 10**6) + 7.0
    assert parts.evaluation > 0 and parts.total == pytest.approx(evaluating)


def test_activation_checkpointing_keeps_a_blocks_input_and_one_block_again(tiny_model: Path) -> None:
    """Hidden states in fp32 of each block, and all that one block keeps while its way back is under way."""
    found = full_census(tiny_model)
    work = Work(Pass(2, 8, 32), found.words, recomputed=True)
    block = 10.0 * 8 + 32
    expected = 1.5 * 4 * HIDDEN * 8 * BLOCKS + 1.5 * block + 2.0 * block
    assert memory_parts(found, work, [], "fp32", CONSTANTS).activations == pytest.approx(expected)


def test_an_evaluation_that_needs_more_than_a_step_is_the_peak(tiny_model: Path) -> None:
    """The largest of several counts, and only by what it is above the step."""
    found = census(adapted(tiny_model, "head", {})[0])
    work, long = Work(Pass(1, 4, 16), 10), Work(Pass(32, 32 * 64, 32 * 64**2), 10)
    small = memory_parts(found, work, [work], "fp32", CONSTANTS)
    large = memory_parts(found, work, [work, long], "fp32", CONSTANTS)
    block = 10.0 * 32 * 64 + 32 * 64**2
    assert large.total == pytest.approx(1500.0 + large.weights + 3.0 * block + 7.0)
    assert small.total < large.total
