"""Training only the touched rows of the word embeddings gives what the dense optimizer gives."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from paretune.core.events import Event
from paretune.data.encoding import Encoded, encode
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.surgery import trainable
from paretune.models.tiny import write_tiny_llama
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import torch_generator
from paretune.tasks.task import TASKS
from paretune.train import loop
from paretune.train.active_vocabulary import Active, active_vocabulary
from paretune.train.loop import TrainSpec, train
from paretune.train.optim import adamw

TEXTS = ["goal match", "bank rate rises", "goal", "rate", "match goal bank", "rises rises rises"] * 4
LABELS = ["a", "b", "a", "b", "a", "b"] * 4
SPEC = TrainSpec(epochs=3, batch_size=4, max_tokens=16, precision="fp32", weight_decay=0.1)
WORDS = "encoder.embeddings.word_embeddings.weight"


def _adapted(folder: Path) -> tuple[Adaptation, EncoderClassifier]:
    method = METHODS.load("full")(METHODS.load("full").settings_model())
    assert isinstance(method, Adaptation)
    model = EncoderClassifier(load_encoder(f"path:{folder}"), 2)
    method.attach(model, torch_generator(0, "init"))
    return method, model


def _trained(
    folder: Path, words: str, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[EncoderClassifier, Encoded, set[int]]:
    method, model = _adapted(folder)
    task = TASKS.load("classification")(("a", "b"))
    encoded = encode(read_tokenizer(f"path:{folder}"), TEXTS, 16)
    sizes: set[int] = set()

    def listen(event: Event) -> None:
        sizes.add(trainable(model)[words].shape[0])

    with monkeypatch.context() as patch:
        if dense:
            patch.setattr(loop, "active_vocabulary", lambda model, *texts: nullcontext(Active(texts)))
        train(model, method, task, encoded, task.targets(LABELS), SPEC, 1e-2, 0, listen)
    return model, encoded, sizes


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
def test_every_weight_is_the_dense_optimizers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: bool
) -> None:
    """Rows that occur, rows that never do, and all other tensors; while only the touched rows were held."""
    folder = write_tiny_llama(tmp_path) if decoder else tiny_model
    words = "encoder.embed_tokens.weight" if decoder else WORDS
    dense, encoded, whole = _trained(folder, words, True, monkeypatch)
    ours, _, few = _trained(folder, words, False, monkeypatch)
    start = load_encoder(f"path:{folder}").get_parameter(words.removeprefix("encoder."))
    touched = sorted({one for row in encoded.ids for one in row} | {encoded.pad_id})
    assert whole == {start.shape[0]} and few == {len(touched)} and len(touched) < start.shape[0]
    for name, wanted in trainable(dense).items():
        torch.testing.assert_close(trainable(ours)[name], wanted, atol=2e-6, rtol=1e-5)
    untouched = [one for one in range(start.shape[0]) if one not in touched]
    assert not torch.allclose(trainable(ours)[words][untouched], start[untouched])  # decayed
    assert all(one.grad is None for one in ours.parameters())


def test_nothing_of_the_optimizer_is_left_when_the_table_is_whole_again(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both at once would be the peak of a training with a large vocabulary."""
    made: list[weakref.ref[torch.optim.AdamW]] = []
    alive: list[bool] = []

    def remembered(groups: list[dict[str, object]]) -> torch.optim.AdamW:
        optimizer = adamw(groups)
        made.append(weakref.ref(optimizer))
        return optimizer

    @contextmanager
    def watched(model: EncoderClassifier, *texts: Encoded) -> Generator[Active]:
        yield Active(texts)
        alive.append(made[0]() is not None)

    monkeypatch.setattr(loop, "adamw", remembered)
    monkeypatch.setattr(loop, "active_vocabulary", watched)
    method, model = _adapted(tiny_model)
    task = TASKS.load("classification")(("a", "b"))
    encoded = encode(read_tokenizer(f"path:{tiny_model}"), TEXTS, 16)
    train(model, method, task, encoded, task.targets(LABELS), SPEC, 1e-2, 0, lambda event: None)
    assert alive == [False]


def test_the_whole_table_is_back_after_a_failure(tiny_model: Path) -> None:
    """An exception inside the block leaves a model that works; what did not come to its end decays nothing."""
    model = EncoderClassifier(load_encoder(f"path:{tiny_model}"), 2)
    start = model.encoder.get_parameter(WORDS.removeprefix("encoder.")).detach().clone()
    encoded = Encoded(((2, 7, 3), (2, 9, 3)), 0)
    with pytest.raises(ZeroDivisionError), active_vocabulary(model, encoded) as active:
        (texts,) = active.texts
        assert texts.ids == ((1, 3, 2), (1, 4, 2)) and texts.pad_id == 0
        raise ZeroDivisionError
    torch.testing.assert_close(model.encoder.get_parameter(WORDS.removeprefix("encoder.")).detach(), start)


def test_frozen_words_stay_as_they_are(tiny_model: Path) -> None:
    """The same texts, the same table."""
    model = EncoderClassifier(load_encoder(f"path:{tiny_model}"), 2)
    model.encoder.requires_grad_(False)
    encoded = Encoded(((2, 7, 3),), 0)
    before = model.encoder.get_parameter(WORDS.removeprefix("encoder."))
    with active_vocabulary(model, encoded) as active:
        active.decay = 0.5
        assert active.texts[0] is encoded
    assert model.encoder.get_parameter(WORDS.removeprefix("encoder.")) is before
