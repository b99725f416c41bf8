"""What frozen blocks give is kept once: equal to the last bit, found again, made anew where anything differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_study import CLASSES, toy_rows

from paretune.core.events import Event, PhaseStarted
from paretune.core.limits import processor_has_bf16
from paretune.data.encoding import Encoded, encode
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.surgery import frozen_blocks, plain_encoder, trainable
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import torch_generator
from paretune.tasks.classification import Classification
from paretune.train.evaluate import predict, predict_logits
from paretune.train.frozen_prefix import Shelf
from paretune.train.loop import TrainSpec, train

ROWS = toy_rows(96)
TASK = Classification(CLASSES)
PARTLY: list[tuple[str, dict[str, Any]]] = [
    ("head", {}),
    ("last_layers", {"layers": 1}),
    ("lora", {"rank": 2, "layers": 1}),
    ("lora", {"rank": 2, "layers": 1, "dropout": 0.1}),
]
WHOLLY: list[tuple[str, dict[str, Any]]] = [("lora", {"rank": 2}), ("full", {}), ("bitfit", {})]
PRECISIONS = ["fp32", *(["bf16"] if processor_has_bf16() else [])]


@pytest.fixture
def source(tiny_model: Path) -> str:
    return f"path:{tiny_model}"


@pytest.fixture
def encoded(source: str) -> Encoded:
    return encode(read_tokenizer(source), [text for text, _ in ROWS], max_tokens=32)


def _spec(precision: str = "fp32") -> TrainSpec:
    return TrainSpec.model_validate({"epochs": 2, "batch_size": 8, "max_tokens": 32, "precision": precision})


def _model(source: str, kind: str, settings: dict[str, Any]) -> tuple[EncoderClassifier, Adaptation]:
    found = METHODS.load(kind)
    method = found(found.settings_model(**settings))
    assert isinstance(method, Adaptation)
    model = EncoderClassifier(load_encoder(source), len(CLASSES))
    method.attach(model, torch_generator(0, "init"))
    return model, method


def _trained(
    source: str, encoded: Encoded, choice: tuple[str, dict[str, Any]], shelf: Shelf | None, spec: TrainSpec
) -> tuple[EncoderClassifier, list[Event]]:
    model, method = _model(source, *choice)
    events: list[Event] = []
    torch.manual_seed(0)
    train(
        model, method, TASK, encoded, TASK.targets([label for _, label in ROWS]), spec, 1e-2, 0, events.append,
        shelf=shelf,
    )  # fmt: skip
    return model, events


def _phases(events: list[Event]) -> list[str]:
    return [event.phase for event in events if isinstance(event, PhaseStarted)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("choice", PARTLY, ids=["head", "last", "lora", "dropout"])
def test_nothing_changes_not_even_a_bit(
    source: str, encoded: Encoded, tmp_path: Path, choice: tuple[str, dict[str, Any]], precision: str
) -> None:
    """Trained tensors and predictions: computed in every step, kept, and found kept.

    In fp32 the processor's products of a few rows may sum in another order than those of many.
    """
    spec = _spec(precision)
    plain, none = _trained(source, encoded, choice, None, spec)
    made, first = _trained(source, encoded, choice, Shelf(tmp_path), spec)
    found, second = _trained(source, encoded, choice, Shelf(tmp_path), spec)
    assert [_phases(one) for one in (none, first, second)] == [["step"], ["prefix", "step"], ["step"]]
    exactly = precision == "bf16"
    off = 0.0 if exactly else 1e-4
    for name, wanted in trainable(plain).items():
        torch.testing.assert_close(trainable(made)[name], wanted, rtol=0, atol=off)
        assert torch.equal(trainable(found)[name], trainable(made)[name]), name
    how = "bf16" if exactly else "fp32"
    wanted_nc, given_nc = predict(plain, TASK, encoded, how), predict(made, TASK, encoded, how, Shelf(tmp_path))
    assert (abs(given_nc - wanted_nc) <= off).all()


@pytest.mark.parametrize("choice", WHOLLY, ids=["lora", "full", "bitfit"])
def test_where_the_first_block_learns_nothing_is_kept(
    source: str, encoded: Encoded, tmp_path: Path, choice: tuple[str, dict[str, Any]]
) -> None:
    """Nor is a file written."""
    model, events = _trained(source, encoded, choice, Shelf(tmp_path), _spec())
    assert frozen_blocks(plain_encoder(model.encoder)) == 0 and _phases(events) == ["step"]
    assert not list(tmp_path.iterdir())


def test_who_finds_it_kept_is_charged_for_it(source: str, encoded: Encoded, tmp_path: Path) -> None:
    """With what it cost the one that made it."""
    told: list[dict[str, object]] = []
    _trained(source, encoded, PARTLY[0], Shelf(tmp_path, lambda: {"seconds": 7.0}, told.append), _spec())
    assert told == []
    _trained(source, encoded, PARTLY[0], Shelf(tmp_path, dict, told.append), _spec())
    assert told == [{"seconds": 7.0}]


def _other_texts(model: EncoderClassifier, encoded: Encoded) -> Encoded:
    return Encoded((*encoded.ids[:-1], encoded.ids[0]), encoded.pad_id)


def _other_weights(model: EncoderClassifier, encoded: Encoded) -> Encoded:
    with torch.no_grad():
        model.encoder.get_parameter("encoder.layer.0.output.dense.weight")[0, 0] += 1.0
    return encoded


def _other_words(model: EncoderClassifier, encoded: Encoded) -> Encoded:
    with torch.no_grad():
        model.encoder.get_parameter("embeddings.word_embeddings.weight")[encoded.ids[0][1]] += 1.0
    return encoded


@pytest.mark.parametrize("change", [_other_texts, _other_weights, _other_words])
@pytest.mark.parametrize("choice", PARTLY[:2], ids=["head", "last"])
def test_other_texts_and_other_weights_are_kept_apart(
    source: str,
    encoded: Encoded,
    tmp_path: Path,
    choice: tuple[str, dict[str, Any]],
    change: Callable[[EncoderClassifier, Encoded], Encoded],
) -> None:
    """What is found is of the very texts and weights."""
    model, _ = _model(source, *choice)
    predict_logits(model, encoded, "fp32")
    predict(model, TASK, encoded, "fp32", Shelf(tmp_path))
    other = change(model, encoded)
    kept_nc, plain_nc = predict(model, TASK, other, "fp32", Shelf(tmp_path)), predict(model, TASK, other, "fp32")
    assert abs(kept_nc - plain_nc).max() < 1e-6
    assert len(list(tmp_path.glob("*.bin"))) == 2


def test_what_was_not_finished_is_made_anew(source: str, encoded: Encoded, tmp_path: Path) -> None:
    """A file whose cost is missing or torn does not count: a kill may have come between."""
    _trained(source, encoded, PARTLY[1], Shelf(tmp_path), _spec())
    (cost,) = tmp_path.glob("*.json")
    for text in (None, '{"seco'):
        cost.unlink()
        if text is not None:
            cost.write_text(text)
        _, events = _trained(source, encoded, PARTLY[1], Shelf(tmp_path), _spec())
        assert _phases(events) == ["prefix", "step"] and json.loads(cost.read_text()) == {}


def test_a_full_disk_costs_time_only(
    source: str, encoded: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little room, or none in the middle: every step computes the frozen blocks again."""
    wanted, _ = _trained(source, encoded, PARTLY[1], None, _spec())
    real = shutil.disk_usage(tmp_path)

    def little_room(path: Path) -> object:
        return real._replace(free=1000)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", little_room)
        little, events = _trained(source, encoded, PARTLY[1], Shelf(tmp_path), _spec())
        assert _phases(events) == ["step"]

    def full(*what: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("paretune.train.frozen_prefix.os.pwrite", full)
        stopped, events = _trained(source, encoded, PARTLY[1], Shelf(tmp_path), _spec())
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.part"))
    for model in (little, stopped):
        for name, parameter in trainable(wanted).items():
            assert torch.equal(trainable(model)[name], parameter)
