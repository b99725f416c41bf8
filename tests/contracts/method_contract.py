"""What every adaptation must keep, as a class that a method's test row inherits.

Not here: any method's name. A new method is one subclass in `test_methods.py` with its `kind` and what it trains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from toy_study import CLASSES, toy_rows

from paretune.core.config import validated
from paretune.core.errors import InertAdapterError, ReloadError
from paretune.core.events import Event
from paretune.data.encoding import Encoded, encode
from paretune.kernels.low_rank import LowRank
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec, settled
from paretune.models.surgery import trainable
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import torch_generator
from paretune.tasks.classification import Classification
from paretune.train.evaluate import Witness, predict_logits
from paretune.train.loop import TrainSpec, train

ROWS = toy_rows(48)
TASK = Classification(CLASSES)
SPEC = TrainSpec(epochs=2, batch_size=16, max_tokens=32, precision="fp32")
TARGETS_N = TASK.targets([label for _, label in ROWS])


def make_adaptation(kind: str, settings: dict[str, Any]) -> Adaptation:
    found = METHODS.load(kind)
    method = found(validated(settings, found.settings_model, "test"))
    assert isinstance(method, Adaptation)
    return method


def bare(source: str) -> EncoderClassifier:
    """A fresh toy model, pooled as its kind is."""
    return EncoderClassifier(load_encoder(source), len(CLASSES), settled(ModelSpec(source=source)).pooling)


def attached(method: Adaptation, source: str, seed: int = 0) -> EncoderClassifier:
    """A fresh toy model with the method attached, as a worker builds it."""
    model = bare(source)
    method.attach(model, torch_generator(seed, "init"))
    return model


def train_toy(model: EncoderClassifier, method: Adaptation, encoded: Encoded, **more: Any) -> list[Event]:
    """Six steps on the toy rows, or what `more` says; returns the events."""
    events: list[Event] = []
    settings: dict[str, Any] = {"spec": SPEC, "learning_rate": method.default_learning_rate, "seed": 0, **more}
    train(model, method, TASK, encoded, TARGETS_N[: len(encoded)], emit=events.append, **settings)
    return events


class AdaptationContract:
    """Inherit, set `kind`, `settings` and `expected`; every test below then holds for the method."""

    kind: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}

    def expected(self, name: str) -> bool:
        """Whether the encoder's tensor of this name (without the head's) is trained."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, tiny_model: Path) -> str:
        return f"path:{tiny_model}"

    @pytest.fixture
    def encoded(self, source: str) -> Encoded:
        return encode(read_tokenizer(source), [text for text, _ in ROWS], max_tokens=32)

    @pytest.fixture
    def method(self) -> Adaptation:
        return make_adaptation(self.kind, self.settings)

    def test_a_seed_decides_the_start(self, method: Adaptation, source: str, encoded: Encoded) -> None:
        """Logits before training are finite, the same for a seed whatever the global state, and others for another."""
        torch.manual_seed(1)
        first = predict_logits(attached(method, source, 0), encoded, "fp32")
        torch.manual_seed(2)
        state = torch.get_rng_state()
        again = predict_logits(attached(method, source, 0), encoded, "fp32")
        other = predict_logits(attached(method, source, 1), encoded, "fp32")
        assert torch.isfinite(first).all()
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state), "the global generator was drawn from"

    def test_it_trains_what_it_should(self, method: Adaptation, source: str) -> None:
        """The head always learns, and of the encoder exactly what is expected."""
        model = attached(method, source)
        names = set(trainable(model))
        assert {"head.weight", "head.bias"} <= names
        encoder = {name.removeprefix("encoder.") for name, _ in model.named_parameters() if name.startswith("encoder.")}
        wanted = {f"encoder.{name}" for name in encoder if self.expected(name)}
        assert {name for name in names if name.startswith("encoder.")} == wanted

    def test_each_trained_tensor_is_in_one_group(self, method: Adaptation, source: str) -> None:
        """The optimizer gets every trained tensor once; matrices decay, vectors do not; the head has its own rate."""
        model = attached(method, source)
        groups = method.parameter_groups(model, 1e-3, 1e-2, 0.1)
        head = {id(one) for one in model.head.parameters()}
        searched_is_heads = set(map(id, trainable(model).values())) == head
        listed = [parameter for group in groups for parameter in group["params"]]  # type: ignore[attr-defined]
        assert sorted(map(id, listed)) == sorted(map(id, trainable(model).values()))
        for group in groups:
            vectors = {parameter.ndim <= 1 for parameter in group["params"]}  # type: ignore[attr-defined]
            assert vectors == {group["weight_decay"] == 0.0}
            of_head = {id(one) in head for one in group["params"]}  # type: ignore[attr-defined]
            assert len(of_head) == 1
            assert group["lr"] == (1e-2 if of_head == {True} and not searched_is_heads else 1e-3)

    def test_training_moves_the_trained_and_nothing_else(
        self, method: Adaptation, source: str, encoded: Encoded
    ) -> None:
        """Frozen tensors keep every bit and get no gradient; training lowers the loss; the witness is content."""
        model = attached(method, source)
        witness = Witness(model, encoded, "fp32")
        learning = set(trainable(model))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        train_toy(model, method, encoded)
        witness.check(model)
        assert set(trainable(model)) == learning
        for name, parameter in model.named_parameters():
            if name not in learning:
                assert torch.equal(parameter, before[name]), name
                assert parameter.grad is None, name
        assert any(not torch.equal(dict(model.named_parameters())[name], before[name]) for name in learning)

    def test_saved_and_loaded_into_a_fresh_model_gives_the_same_bits(
        self, method: Adaptation, source: str, encoded: Encoded, tmp_path: Path
    ) -> None:
        """What `save` writes, `load` puts into a model of another start, and the logits are equal bit for bit."""
        model = attached(method, source)
        train_toy(model, method, encoded)
        size = method.save(model, tmp_path / "adapter")
        assert size == sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())
        fresh = attached(method, source, 0)
        assert not torch.equal(predict_logits(fresh, encoded, "fp32"), predict_logits(model, encoded, "fp32"))
        method.load(fresh, tmp_path / "adapter")
        assert torch.equal(predict_logits(fresh, encoded, "fp32"), predict_logits(model, encoded, "fp32"))

    def test_a_state_of_another_model_is_refused(self, method: Adaptation, source: str) -> None:
        """A missing tensor or another shape is a ReloadError, and the model keeps its values."""
        model = attached(method, source)
        state = {name: tensor.clone() for name, tensor in method.state(model).items()}
        with pytest.raises(ReloadError, match=r"head\.bias"):
            method.load_state(model, {name: tensor for name, tensor in state.items() if name != "head.bias"})
        with pytest.raises(ReloadError, match="shape"):
            method.load_state(model, {**state, "head.bias": torch.zeros(99)})

    def test_merged_equals_unmerged(self, method: Adaptation, source: str, encoded: Encoded) -> None:
        """After merging, logits are within 1e-5 (fp32 rounding of W + ΔW) and no inserted module is left."""
        model = attached(method, source)
        modules = [name for name, _ in load_encoder(source).named_modules()]
        train_toy(model, method, encoded)
        before = predict_logits(model, encoded, "fp32")
        method.merge(model)
        assert [name for name, _ in model.encoder.named_modules()] == modules
        torch.testing.assert_close(predict_logits(model, encoded, "fp32"), before, atol=1e-5, rtol=0)

    def test_the_delta_says_all_that_differs_from_the_base(
        self, method: Adaptation, source: str, encoded: Encoded
    ) -> None:
        """The delta put into a fresh base encoder by the base's own names, with the head, gives the same logits."""
        model = attached(method, source)
        train_toy(model, method, encoded)
        wanted = predict_logits(model, encoded, "fp32")
        fresh = bare(source)
        fresh.head.load_state_dict(model.head.state_dict())
        parameters = dict(fresh.encoder.named_parameters())
        with torch.no_grad():
            for name, change in method.delta(model).items():
                if isinstance(change, LowRank):
                    parameters[f"{name}.weight"] += change.b_or @ change.a_ri
                else:
                    parameters[name].copy_(change)
        torch.testing.assert_close(predict_logits(fresh, encoded, "fp32"), wanted, atol=1e-5, rtol=0)

    def test_training_at_rate_zero_is_caught(self, method: Adaptation, source: str, encoded: Encoded) -> None:
        """An adapter that did not move fails by name, instead of passing for a bad method."""
        model = attached(method, source)
        witness = Witness(model, encoded, "fp32")
        train_toy(model, method, encoded, learning_rate=0.0)
        with pytest.raises(InertAdapterError, match="moved"):
            witness.check(model)

    def test_the_same_seed_trains_the_same_bits(self, method: Adaptation, source: str, encoded: Encoded) -> None:
        """Two trainings of one seed end in equal tensors."""
        ends: list[dict[str, torch.Tensor]] = []
        for _ in range(2):
            model = attached(method, source, 3)
            train_toy(model, method, encoded, seed=3)
            ends.append(method.state(model))
        assert ends[0].keys() == ends[1].keys()
        assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
