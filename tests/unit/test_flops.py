"""FLOP of training against numbers counted by hand and against what PyTorch itself counts; ceilings of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from paretune.core.config import JsonObject
from paretune.measure.flops import Arithmetic, arithmetic, output_flops
from paretune.measure.machine import matrix_flops_per_second
from paretune.methods.method import METHODS
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder

# The toy encoder: 2 blocks, hidden 32, feed-forward 64; matrices of a block: 4·32·32 + 2·32·64.
BLOCK = 4 * 32 * 32 + 2 * 32 * 64
ROWS, LENGTH, CLASSES, RANK = 3, 7, 5, 2
TOKENS, SQUARES = ROWS * LENGTH, ROWS * LENGTH**2
ATTENTION = 2 * 4 * 32 * SQUARES  # of both blocks, forward


def _model(folder: Path, kind: str, settings: JsonObject | None = None) -> EncoderClassifier:
    model = EncoderClassifier(load_encoder(f"path:{folder}"), CLASSES)
    method = METHODS.load(kind)
    method(method.settings_model(**(settings or {}))).attach(model, torch.Generator().manual_seed(0))
    return model


def _counted(model: EncoderClassifier) -> int:
    """What PyTorch counts in one step, without the head."""
    ids_bt = torch.randint(0, 50, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(ids_bt, torch.ones_like(ids_bt)).sum().backward()
    passed = any(one.requires_grad for one in model.encoder.parameters())
    return counter.get_total_flops() - int(output_flops(ROWS, 32, CLASSES, passed=passed, learns=True))


def test_full_fine_tuning_needs_six_flop_a_weight_and_token(tiny_model: Path) -> None:
    """By hand: 6·N·tokens and three times the attention's forward; PyTorch counts the same, to the last FLOP."""
    model = _model(tiny_model, "full")
    found = arithmetic(model.encoder)
    assert (found.weights, found.width, found.blocks) == (2 * BLOCK, 32, 2)
    assert found.useful_flops(TOKENS, SQUARES) == 6 * 2 * BLOCK * TOKENS + 3 * ATTENTION
    assert found.useful_flops(TOKENS, SQUARES) == _counted(model)


def test_lora_needs_four_and_its_own_six(tiny_model: Path) -> None:
    """By hand: 4·N·tokens, and 6·R of the updates apart.

    PyTorch counts less by what no step needs: the gradient of the first block's input, through its queries, keys and
    values and through their updates.
    """
    model = _model(tiny_model, "lora", {"rank": RANK})
    found = arithmetic(model.encoder)
    low_rank = 2 * RANK * (4 * (32 + 32) + 2 * (32 + 64))
    assert (found.weights, found.passed, found.learning, found.low_rank) == (2 * BLOCK, 2 * BLOCK, 0, low_rank)
    assert found.useful_flops(TOKENS, SQUARES) == 4 * 2 * BLOCK * TOKENS + 3 * ATTENTION
    assert found.low_rank_flops(TOKENS) == 6 * low_rank * TOKENS
    unneeded = 2 * TOKENS * 3 * (32 * 32 + RANK * 32)
    assert found.useful_flops(TOKENS, SQUARES) + found.low_rank_flops(TOKENS) - unneeded == _counted(model)


def test_blocks_below_the_lowest_that_learns_need_the_forward_pass_only(tiny_model: Path) -> None:
    """Head alone: 2·N; the last of two blocks: 2·N of the lower, 6·N of the upper; biases: 4·N."""
    head = arithmetic(_model(tiny_model, "head").encoder)
    assert head.useful_flops(TOKENS, SQUARES) == 2 * 2 * BLOCK * TOKENS + ATTENTION
    assert head.forward_flops(TOKENS, SQUARES) == head.useful_flops(TOKENS, SQUARES)
    last = arithmetic(_model(tiny_model, "last_layers", {"layers": 1}).encoder)
    assert last.useful_flops(TOKENS, SQUARES) == (2 + 6) * BLOCK * TOKENS + (0.5 + 1.5) * ATTENTION
    assert arithmetic(_model(tiny_model, "bitfit").encoder).useful_flops(TOKENS, 0) == 4 * 2 * BLOCK * TOKENS


@pytest.mark.parametrize(("kind", "settings"), [("head", None), ("last_layers", {"layers": 1})])
def test_pytorch_counts_frozen_blocks_alike(tiny_model: Path, kind: str, settings: JsonObject | None) -> None:
    """But for the gradient of the lowest learning block's input, which no step needs."""
    model = _model(tiny_model, kind, settings)
    unneeded = 0 if settings is None else 2 * TOKENS * 3 * 32 * 32
    assert arithmetic(model.encoder).useful_flops(TOKENS, SQUARES) - unneeded == _counted(model)


def test_shapes_are_those_of_the_linear_maps(tiny_model: Path) -> None:
    """Both methods have the same; together they hold all weights."""
    for kind in ("full", "lora"):
        found = arithmetic(_model(tiny_model, kind).encoder)
        assert dict(found.shapes) == {(32, 32): 8, (32, 64): 2, (64, 32): 2}
        assert sum(inputs * outputs * count for (inputs, outputs), count in found.shapes.items()) == found.weights


def test_a_causal_model_attends_to_half_of_the_pairs() -> None:
    """Of s tokens each sees those before it."""
    both = Arithmetic(0, 0, 0, 0, width=8, blocks=1, passed_blocks=1)
    causal = Arithmetic(0, 0, 0, 0, width=8, blocks=1, passed_blocks=1, causal=True)
    assert both.useful_flops(10, 100) == 12 * 8 * 100
    assert causal.useful_flops(10, 100) == 6 * 8 * 100


def test_a_ceiling_is_a_rate_of_products() -> None:
    """Finite and positive, in both formats; more of one shape changes nothing where there is only one."""
    for precision in ("bf16", "fp32"):
        assert 0 < matrix_flops_per_second({(32, 64): 3}, rows=16, precision=precision, seconds=0.02) < 1e15


def test_the_ceiling_comes_from_a_process_of_its_own() -> None:
    """One JSON object on standard output."""
    asked = {"shapes": [[32, 64, 2], [64, 32, 2]], "rows": 16, "threads": 1, "seconds": 0.02, "precision": "fp32"}
    command = [sys.executable, "-m", "paretune.study.bench_train_ceiling", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["flops_per_second"] > 0
    assert found["precision"] == "fp32"
