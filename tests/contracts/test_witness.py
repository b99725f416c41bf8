"""The proof that training moved what it should: each tensor by itself, none falsely."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from method_contract import ROWS, attached, make_adaptation, train_toy
from torch import nn

from paretune.core.errors import InertAdapterError
from paretune.data.encoding import Encoded, encode
from paretune.models.surgery import trainable
from paretune.models.tokenizer import read_tokenizer
from paretune.train import evaluate
from paretune.train.evaluate import Witness
from paretune.train.loop import TrainSpec


@pytest.fixture
def source(tiny_model: Path) -> str:
    return f"path:{tiny_model}"


@pytest.fixture
def encoded(source: str) -> Encoded:
    return encode(read_tokenizer(source), [text for text, _ in ROWS], max_tokens=32)


@pytest.mark.parametrize(("kind", "tensor"), [("full", "encoder.layer.1.output.LayerNorm.bias"), ("lora", "lora_A")])
def test_one_tensor_that_did_not_move_is_caught_by_name(source: str, encoded: Encoded, kind: str, tensor: str) -> None:
    """As where an engine passes over a tensor that the plain modules would have trained."""
    method = make_adaptation(kind, {})
    model = attached(method, source)
    witness = Witness(model, encoded, "fp32")
    name = next(name for name in trainable(model) if tensor in name)
    before = trainable(model)[name].detach().clone()
    train_toy(model, method, encoded)
    assert witness.check(model) == []
    with torch.no_grad():
        trainable(model)[name].copy_(before)
    with pytest.raises(InertAdapterError, match=f"1 of .*{name}"):
        witness.check(model)


def test_a_tensor_that_the_output_does_not_depend_on_is_named_in_a_note(source: str, encoded: Encoded) -> None:
    """Such as a pooler, whose output is not asked for: no failure, and not a word unsaid."""
    method = make_adaptation("full", {})
    model = attached(method, source)
    model.encoder.add_module("pooler_of_a_test", nn.Linear(32, 32))
    witness = Witness(model, encoded, "fp32")
    train_toy(model, method, encoded)
    (note,) = witness.check(model)
    assert "does not depend on it" in note and "pooler_of_a_test.weight and 1 more" in note


def test_a_single_step_cannot_move_a_while_b_is_zero(source: str, encoded: Encoded) -> None:
    """Without weight decay LoRA's A stays where it was in the first step; from the second on it must move."""
    method = make_adaptation("lora", {})
    model = attached(method, source)
    witness = Witness(model, encoded, "fp32")
    spec = TrainSpec(epochs=1, batch_size=len(encoded), max_tokens=32, precision="fp32", weight_decay=0.0)
    train_toy(model, method, encoded, spec=spec)
    assert witness.check(model, steps=1) == []
    with pytest.raises(InertAdapterError, match="lora_A"):
        witness.check(model, steps=2)


def test_of_a_large_table_of_words_the_touched_rows_are_looked_at(
    source: str, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without decay no other row moves, and the first numbers of the table are those of rows that no text has."""
    monkeypatch.setattr(evaluate, "WITNESSED_NUMBERS", 40)
    rows = tuple(tuple(one for one in row if one > 3) for row in encoded.ids)
    few = Encoded(rows, encoded.pad_id)
    method = make_adaptation("full", {})
    model = attached(method, source)
    witness = Witness(model, Encoded(few.ids[:8], few.pad_id), "fp32", few)
    spec = TrainSpec(epochs=2, batch_size=16, max_tokens=32, precision="fp32", weight_decay=0.0)
    train_toy(model, method, few, spec=spec)
    assert witness.check(model) == []


def test_looking_leaves_no_gradient_behind(source: str, encoded: Encoded) -> None:
    """The model is as training left it."""
    method = make_adaptation("full", {})
    model = attached(method, source)
    model.encoder.add_module("pooler_of_a_test", nn.Linear(32, 32))
    witness = Witness(model, encoded, "fp32")
    train_toy(model, method, encoded)
    witness.check(model)
    assert all(parameter.grad is None for parameter in model.parameters())
