"""Training that is stopped by validation scores: what it leaves, what it says, and that a resumed one is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from toy_study import CLASSES, toy_rows

from paretune.core.events import (
    EpochEvaluated,
    Event,
    PhaseEnded,
    PhaseStarted,
    StepEnded,
    TrainingPlanned,
    TrainingStopped,
)
from paretune.data.encoding import Encoded, encode
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import make_repeatable, torch_generator
from paretune.tasks.classification import Classification
from paretune.train.loop import Trained, TrainSpec, train
from paretune.train.stopping import Watch

ROWS, OTHERS = toy_rows(48), toy_rows(24, seed=1)
LABELS = [label for _, label in ROWS]
TASK = Classification(CLASSES)
SPEC = TrainSpec(epochs=6, patience=2, batch_size=16, max_tokens=32, precision="fp32")
PER_EPOCH = 3


class Stopped(Exception):
    """Stands for the kill of a process at a step."""


class Bench:
    """A toy model whose validation scores are what a list says: epoch by epoch, better or not."""

    def __init__(self, source: str, folder: Path, script: Sequence[float], kind: str = "lora") -> None:
        tokenizer = read_tokenizer(source)
        self.encoded, self.others = (encode(tokenizer, [text for text, _ in rows], 32) for rows in (ROWS, OTHERS))
        self.source, self.folder, self.script, self.kind = source, folder, script, kind
        self.events: list[Event] = []
        self.after: list[dict[str, torch.Tensor]] = []  # each epoch's weights

    def train(
        self,
        spec: TrainSpec = SPEC,
        stop_at: int | None = None,
        checkpoint: Path | None = None,
        watched: bool = True,
    ) -> Trained:
        make_repeatable(0, torch.get_num_threads())
        found = METHODS.load(self.kind)
        method = found(found.settings_model())
        assert isinstance(method, Adaptation)
        self.method = method
        self.model = EncoderClassifier(load_encoder(self.source), len(CLASSES))
        method.attach(self.model, torch_generator(0, "init"))
        self.events.clear()

        def scores(outputs_nc: torch.Tensor) -> dict[str, float]:
            assert outputs_nc.shape == (len(OTHERS), len(CLASSES)) and not self.model.training
            epoch = sum(isinstance(one, EpochEvaluated) for one in self.events) + self.before
            self.after.append({name: tensor.clone() for name, tensor in method.state(self.model).items()})
            return {"made up": self.script[epoch], "sum": float(outputs_nc.sum())}

        def emit(event: Event) -> None:
            self.events.append(event)
            if isinstance(event, StepEnded) and event.step == stop_at:
                raise Stopped

        watch = Watch(self.others, scores, lambda one: one["made up"], self.folder / "best.pt")
        targets_n = TASK.targets(LABELS)
        more = {"checkpoint": checkpoint, "watch": watch if watched else None}
        return train(self.model, method, TASK, self.encoded, targets_n, spec, 1e-2, 0, emit, **more)

    before = 0  # epochs that an attempt before this one went through

    @property
    def evaluated(self) -> list[EpochEvaluated]:
        return [one for one in self.events if isinstance(one, EpochEvaluated)]

    @property
    def steps(self) -> list[StepEnded]:
        return [one for one in self.events if isinstance(one, StepEnded)]


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(tiny_model: Path, tmp_path: Path) -> MakeBench:
    def make(script: Sequence[float], kind: str = "lora") -> Bench:
        return Bench(f"path:{tiny_model}", tmp_path, script, kind)

    return make


@pytest.mark.parametrize("kind", ["lora", "full", "head"])
def test_the_best_epochs_weights_are_left(bench: MakeBench, kind: str) -> None:
    """It stops after two epochs without an improvement, and leaves what it was after the best one, bit for bit."""
    one = bench([0.5, 0.8, 0.8, 0.7, 0.9, 0.9], kind)
    trained = one.train()
    assert (trained.most, trained.epochs, trained.best, trained.steps) == (6, 4, 2, 2 * PER_EPOCH)
    left = one.method.state(one.model)
    if kind == "full":  # the table of words was in a smaller layout then
        left = {name: tensor for name, tensor in left.items() if "word_embeddings" not in name}
    assert left and all(torch.equal(left[name], one.after[1][name]) for name in left)
    assert any(not torch.equal(one.after[1][name], one.after[3][name]) for name in left)
    assert not list(one.folder.glob("best*")), "nothing is left on the disk"


def test_it_says_each_epochs_scores_and_where_it_stopped(bench: MakeBench) -> None:
    """Epochs count from 1; evaluation is a phase of its own between two phases of steps."""
    one = bench([0.5, 0.8, 0.8, 0.7])
    one.train()
    assert [(event.epoch, event.step, event.scores["made up"]) for event in one.evaluated] == [
        (1, 3, 0.5), (2, 6, 0.8), (3, 9, 0.8), (4, 12, 0.7),
    ]  # fmt: skip
    assert one.events[0] == TrainingPlanned(steps=6 * PER_EPOCH, epochs=6, train_examples=48)
    assert one.events[-1] == TrainingStopped(epoch=4, step=12, best_epoch=2, best_step=6)
    place = one.events.index(one.evaluated[0])
    assert one.events[place - 2 : place + 3] == [
        PhaseEnded("step"), PhaseStarted("eval"), one.evaluated[0], PhaseEnded("eval"), PhaseStarted("step"),
    ]  # fmt: skip


def test_without_a_watch_all_epochs_are_gone_through_and_the_last_one_counts(bench: MakeBench) -> None:
    """As with `patience = 0`: nothing is evaluated, and the steps are the same as with it, as far as both go."""
    free, watched = bench([0.5, 0.8, 0.8, 0.7]), bench([0.5, 0.8, 0.8, 0.7])
    trained = free.train(watched=False)
    assert (trained.epochs, trained.best, len(free.steps), free.evaluated) == (6, 6, 6 * PER_EPOCH, [])
    watched.train()
    assert free.steps[: len(watched.steps)] == watched.steps, "looking changes nothing"


def test_a_score_that_goes_on_rising_takes_all_epochs(bench: MakeBench) -> None:
    """The most is the end."""
    trained = bench([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).train()
    assert (trained.epochs, trained.best) == (6, 6)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("killed_at", [8, 11, 13])
def test_resumed_equals_uninterrupted(bench: MakeBench, kind: str, killed_at: int, tmp_path: Path) -> None:
    """Killed between two epochs, after the best one and after a worse one: weights, history and end are the same."""
    script = [0.5, 0.8, 0.7, 0.9, 0.85, 0.6]
    spec = SPEC.model_copy(update={"checkpoint_every_steps": 4})
    whole, torn = bench(script, kind), bench(script, kind)
    whole.folder = tmp_path / "whole"
    wanted = whole.train(spec)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Stopped):
        torn.train(spec, killed_at, checkpoint)
    torch.manual_seed(99)
    torn.before = (killed_at - 1) // 4 * 4 // PER_EPOCH if killed_at != 8 else 2
    trained = torn.train(spec, None, checkpoint)
    assert trained.best == wanted.best == 4 and trained.epochs == wanted.epochs == 6
    assert torn.events[-1] == whole.events[-1]
    ours, theirs = torn.method.state(torn.model), whole.method.state(whole.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("how", ["gone", "half", "flipped"])
def test_best_weights_that_are_lost_with_the_process_make_training_begin_anew(
    bench: MakeBench, how: str, tmp_path: Path
) -> None:
    """A whole checkpoint beside a best epoch that cannot be read: said, and the end is that of an undisturbed run."""
    script = [0.5, 0.8, 0.7, 0.9, 0.85, 0.6]
    spec = SPEC.model_copy(update={"checkpoint_every_steps": 4})
    whole, torn = bench(script), bench(script)
    whole.folder = tmp_path / "whole"
    wanted = whole.train(spec)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Stopped):
        torn.train(spec, 11, checkpoint)
    (best,) = tmp_path.glob("best-*.pt")
    if how == "gone":
        best.unlink()
    else:
        blob = best.read_bytes()
        middle = len(blob) // 2
        best.write_bytes(blob[:500] if how == "half" else blob[:middle] + bytes(64) + blob[middle + 64 :])
    trained = torn.train(spec, None, checkpoint)
    assert trained.resumed == 0 and "best-2.pt cannot be read" in trained.anew
    assert (trained.best, trained.epochs) == (wanted.best, wanted.epochs)
    ours, theirs = torn.method.state(torn.model), whole.method.state(whole.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_words_of_the_validation_texts_alone_are_read_and_decay_as_the_dense_optimizers(
    tiny_model: Path, tmp_path: Path
) -> None:
    """While the table of words is small the watched texts have their own rows in it, which no gradient reaches."""
    source = f"path:{tiny_model}"
    start = load_encoder(source).get_input_embeddings().weight.detach()
    train_rows, others = Encoded(((2, 7, 3), (2, 8, 3)), 0), Encoded(((2, 20, 3),), 0)
    found = METHODS.load("full")
    method = found(found.settings_model())
    assert isinstance(method, Adaptation)
    model = EncoderClassifier(load_encoder(source), 2)
    method.attach(model, torch_generator(0, "init"))
    seen: list[torch.Tensor] = []

    def scores(outputs_nc: torch.Tensor) -> dict[str, float]:
        seen.append(outputs_nc)
        return {"made up": float(len(seen))}

    spec = SPEC.model_copy(update={"epochs": 2, "weight_decay": 0.5})
    watch = Watch(others, scores, lambda one: one["made up"], tmp_path / "best.pt")
    task = Classification(("a", "b"))
    train(model, method, task, train_rows, task.targets(["a", "b"]), spec, 1e-2, 0, lambda event: None, watch=watch)
    words = model.encoder.get_input_embeddings().weight.detach()
    factor = (1 - 1e-2 * 1.0 * 0.5) * (1 - 1e-2 * 0.5 * 0.5)
    torch.testing.assert_close(words[20], start[20] * factor, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(words[30], start[30] * factor, atol=1e-6, rtol=1e-5)
    assert len(seen) == 2 and torch.isfinite(seen[0]).all()
