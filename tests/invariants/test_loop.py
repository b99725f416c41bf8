"""What the training loop must keep whatever is trained: accumulation, resuming, padding, order, and its flat twin."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from toy_study import CLASSES, toy_rows

from paretune.core.errors import DivergedError
from paretune.core.events import (
    CheckpointSaved,
    Event,
    PhaseEnded,
    PhaseStarted,
    StepEnded,
    TrainingPlanned,
    TrainingResumed,
)
from paretune.data.encoding import Encoded, encode
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.surgery import trainable
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import make_repeatable, torch_generator
from paretune.tasks.classification import Classification
from paretune.train.batches import epoch_batches, length_batches
from paretune.train.evaluate import predict, predict_logits
from paretune.train.loop import Trained, TrainSpec, planned_batches, train

FLAT_LOOP = Path(__file__).parents[2] / "examples" / "flat_loop.py"
ROWS = toy_rows(128)
TEXTS = [text for text, _ in ROWS]
LABELS = [label for _, label in ROWS]
TASK = Classification(CLASSES)
SPEC = TrainSpec(epochs=3, batch_size=16, max_tokens=32, precision="fp32")
ADAPTATIONS = [kind for kind in METHODS if METHODS.load(kind).family == "adaptation"]


class Stopped(Exception):
    """Stands for the kill of a process at a step."""


@pytest.fixture
def source(tiny_model: Path) -> str:
    return f"path:{tiny_model}"


@pytest.fixture
def encoded(source: str) -> Encoded:
    return encode(read_tokenizer(source), TEXTS, max_tokens=32)


def new_method(kind: str) -> Adaptation:
    found = METHODS.load(kind)
    method = found(found.settings_model())
    assert isinstance(method, Adaptation)
    return method


def trained(
    source: str,
    encoded: Encoded,
    spec: TrainSpec = SPEC,
    kind: str = "lora",
    seed: int = 0,
    learning_rate: float = 1e-3,
    listener: Callable[[Event], None] = lambda event: None,
    checkpoint: Path | None = None,
) -> tuple[EncoderClassifier, Adaptation, list[Event]]:
    """A toy model after training, its method and the events."""
    method = new_method(kind)
    model = EncoderClassifier(load_encoder(source), len(CLASSES))
    method.attach(model, torch_generator(seed, "init"))
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        listener(event)

    targets_n = TASK.targets(LABELS)[: len(encoded)]
    train(model, method, TASK, encoded, targets_n, spec, learning_rate, seed, emit, checkpoint)
    return model, method, events


def steps(events: Sequence[Event]) -> list[StepEnded]:
    return [event for event in events if isinstance(event, StepEnded)]


def losses(events: Sequence[Event]) -> list[float]:
    return [event.loss for event in steps(events)]


def test_the_loop_says_what_it_did(source: str, encoded: Encoded) -> None:
    """Planned steps, one event each, warm-up then decay to near zero, and every example and token counted."""
    _, _, events = trained(source, encoded)
    assert events[0] == TrainingPlanned(steps=24, epochs=3, train_examples=128)
    assert (events[1], events[-1]) == (PhaseStarted("step"), PhaseEnded("step"))
    done = steps(events)
    assert [one.step for one in done] == list(range(1, 25))
    rates = [one.learning_rate for one in done]
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(1e-3) and peak == 1, "warm-up of a tenth: two steps of 24"
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 1e-4
    assert sum(one.examples for one in done) == 3 * 128
    assert sum(one.tokens for one in done) == 3 * int(encoded.lengths_n.sum())
    assert all(one.tokens <= one.padded_tokens for one in done)
    assert all(math.isfinite(one.gradient_norm) and one.gradient_norm > 0 for one in done)
    assert np.mean(losses(events)[-8:]) < np.mean(losses(events)[:8])


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_batch_of_16_equals_accumulation_of_4_by_4(source: str, encoded: Encoded, kind: str) -> None:
    """Same losses and gradient norms: 1e-4 relative over 24 steps.

    Not bit for bit: sums of 16 rows are added in another order, and AdamW's division by √v carries a rounding of 1e-7
    in a small gradient into a weight; growth over the steps stays three orders under a step of the loss itself.
    """
    whole = steps(trained(source, encoded, kind=kind)[2])
    parts = steps(trained(source, encoded, SPEC.model_copy(update={"micro_batch_size": 4}), kind=kind)[2])
    assert [one.tokens for one in whole] == [one.tokens for one in parts]
    np.testing.assert_allclose([one.loss for one in parts], [one.loss for one in whole], rtol=1e-4)
    np.testing.assert_allclose([one.gradient_norm for one in parts], [one.gradient_norm for one in whole], rtol=1e-3)
    assert [one.padded_tokens for one in parts] != [one.padded_tokens for one in whole], "it did go by parts"


def test_a_last_batch_that_is_small_weighs_its_rows(source: str) -> None:
    """The loss is the mean over the step's own rows, also where micro-batches do not divide it."""
    encoded = encode(read_tokenizer(source), TEXTS[:21], max_tokens=32)
    spec = SPEC.model_copy(update={"epochs": 2})
    whole = steps(trained(source, encoded, spec)[2])
    parts = steps(trained(source, encoded, spec.model_copy(update={"micro_batch_size": 4}))[2])
    assert [one.examples for one in whole] == [one.examples for one in parts] == [16, 5, 16, 5]
    np.testing.assert_allclose([one.loss for one in parts], [one.loss for one in whole], rtol=1e-5)


@pytest.mark.parametrize("kind", ADAPTATIONS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_equals_uninterrupted(source: str, encoded: Encoded, kind: str, precision: str, tmp_path: Path) -> None:
    """Killed after step 11, resumed from the checkpoint of step 10: later losses and all tensors equal bit for bit."""
    spec = SPEC.model_copy(update={"checkpoint_every_steps": 5, "precision": precision})
    checkpoint = tmp_path / "checkpoint.pt"
    whole, method, events = trained(source, encoded, spec, kind)

    def stop(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step == 11:
            raise Stopped

    with pytest.raises(Stopped):
        trained(source, encoded, spec, kind, listener=stop, checkpoint=checkpoint)
    torch.manual_seed(99)  # another process has other random states
    resumed, _, later = trained(source, encoded, spec, kind, checkpoint=checkpoint)
    assert [one.step for one in steps(later)] == list(range(11, 25))
    assert steps(later) == steps(events)[10:]
    ours, theirs = method.state(whole), method.state(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_checkpoint_brings_back_all_random_states(source: str, encoded: Encoded, tmp_path: Path) -> None:
    """LoRA's own dropout draws from torch's generator: resumed equals uninterrupted with it too."""
    spec = SPEC.model_copy(update={"checkpoint_every_steps": 4})
    found = METHODS.load("lora")
    ends: list[dict[str, torch.Tensor]] = []
    for name, stops in (("whole", (None,)), ("torn", (9, None))):
        make_repeatable(0, torch.get_num_threads())
        for stop_at in stops:
            method = found(found.settings_model(dropout=0.3))
            model = EncoderClassifier(load_encoder(source), len(CLASSES))
            method.attach(model, torch_generator(0, "init"))

            def emit(event: Event, stop_at: int | None = stop_at) -> None:
                if isinstance(event, StepEnded) and event.step == stop_at:
                    raise Stopped

            try:
                arguments = (model, method, TASK, encoded, TASK.targets(LABELS), spec, 1e-3, 0, emit)
                train(*arguments, checkpoint=tmp_path / f"{name}.pt")
            except Stopped:
                torch.manual_seed(1234)
            else:
                ends.append(method.state(model))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def _damaged(path: Path, how: str) -> None:
    """What a power cut, a bad disk, another version or another training leaves in a checkpoint's place."""
    blob = path.read_bytes()
    tree = torch.load(path, weights_only=True)
    match how:
        case "half":
            path.write_bytes(blob[: len(blob) // 2])
        case "empty":
            path.write_bytes(b"")
        case "zeros":
            path.write_bytes(bytes(len(blob)))
        case "flipped":
            path.write_bytes(blob[: len(blob) // 2] + bytes(64) + blob[len(blob) // 2 + 64 :])
        case "no notes":
            torch.save({name: value for name, value in tree.items() if name != "notes"}, path)
        case "other kind":
            torch.save([1, 2], path)
        case "other tensors":
            torch.save({**tree, "state": {"head.bias": tree["state"]["head.bias"]}}, path)
        case "other shapes":
            torch.save({**tree, "state": {**tree["state"], "head.bias": torch.zeros(9)}}, path)
        case "other optimizer":
            groups = tree["optimizer"]["param_groups"][:1]
            torch.save({**tree, "optimizer": {**tree["optimizer"], "param_groups": groups}}, path)
        case _:
            raise AssertionError(how)


DAMAGES = ("half", "empty", "zeros", "flipped", "no notes", "other kind", "other tensors", "other shapes")


@pytest.mark.parametrize("how", [*DAMAGES, "other optimizer"])
def test_a_checkpoint_that_cannot_be_read_is_named_and_training_begins_anew(
    source: str, encoded: Encoded, tmp_path: Path, how: str
) -> None:
    """Every way to damage one: the training is the undisturbed one bit for bit, and says why it began anew."""
    few = Encoded(encoded.ids[:48], encoded.pad_id)
    spec = SPEC.model_copy(update={"checkpoint_every_steps": 4})
    path = tmp_path / "checkpoint.pt"
    make_repeatable(0, torch.get_num_threads())
    whole, method, events = trained(source, few, spec, checkpoint=path)
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [4, 8]
    _damaged(path, how)
    make_repeatable(0, torch.get_num_threads())
    again, _, later = trained(source, few, spec, checkpoint=path)
    (told,) = [event for event in later if isinstance(event, TrainingResumed)]
    assert told.step == 0 and told.reason and "\n" not in told.reason
    assert "checkpoint.pt" in told.reason or how in ("other tensors", "other shapes")
    assert steps(later) == steps(events)
    assert all(torch.equal(one, method.state(again)[name]) for name, one in method.state(whole).items())


def test_a_method_that_changes_more_than_its_state_holds_begins_anew(
    source: str, encoded: Encoded, tmp_path: Path
) -> None:
    """As AdaLoRA, whose budget moves after each step: resumed it would go on with another; with a state of its own that
    is the method's affair."""

    class Moving(METHODS.load("lora")):  # type: ignore[misc]
        def after_step(self, model: EncoderClassifier, step: int) -> None:
            self.moved = step

    class Whole(Moving):
        def state(self, model: EncoderClassifier) -> dict[str, torch.Tensor]:
            return super().state(model)

    few = Encoded(encoded.ids[:48], encoded.pad_id)
    spec = SPEC.model_copy(update={"checkpoint_every_steps": 4})
    for kind, first in ((Moving, 1), (Whole, 9), (METHODS.load("lora"), 9)):
        path, method = tmp_path / f"{kind.__name__}.pt", kind(kind.settings_model())

        def again(method: Adaptation = method, path: Path = path) -> tuple[Trained, list[Event]]:
            model, events = EncoderClassifier(load_encoder(source), len(CLASSES)), list[Event]()
            method.attach(model, torch_generator(0, "init"))
            arguments = (TASK, few, TASK.targets(LABELS)[:48], spec, 1e-3, 0, events.append, path)
            return train(model, method, *arguments), events

        again()
        came, events = again()
        assert steps(events)[0].step == first and came.resumed == first - 1
        assert ("more after each step than its state holds" in came.anew) is (first == 1)


def test_the_loop_equals_its_flat_twin(source: str, encoded: Encoded) -> None:
    """20 losses of `examples/flat_loop.py`, which shares no code with the loop, within 1e-6."""
    about = importlib.util.spec_from_file_location("flat_loop", FLAT_LOOP)
    assert about is not None and about.loader is not None
    flat = importlib.util.module_from_spec(about)
    about.loader.exec_module(flat)
    with torch.random.fork_rng(devices=[]), pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        theirs = flat.losses(source, TEXTS, LABELS, seed=5, steps=20, max_tokens=32)
    ours = losses(trained(source, encoded, seed=5)[2])[:20]
    assert len(theirs) == 20
    np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=0)


def test_the_loop_equals_plain_peft_and_adamw(source: str, encoded: Encoded) -> None:
    """A loop of peft's model, torch's AdamW and transformers' own linear schedule gives the same losses within 1e-6.

    Warm-up differs by convention (ours starts at 1/warm-up, theirs at 0), so the schedule here is ours in one formula.
    """
    start, _, events = trained(source, encoded, spec=SPEC.model_copy(update={"epochs": 1}), seed=2)
    model = EncoderClassifier(load_encoder(source), len(CLASSES))
    new_method("lora").attach(model, torch_generator(2, "init"))
    assert isinstance(model.encoder, peft.PeftModel)
    parameters = [one for one in model.parameters() if one.requires_grad]
    head = set(model.head.parameters())
    groups = [
        {"params": [one], "lr": 1e-2 if one in head else 1e-3, "weight_decay": 0.01 if one.ndim > 1 else 0.0}
        for one in parameters
    ]
    optimizer = torch.optim.AdamW(groups)
    batches = epoch_batches(encoded.lengths_n, 16, seed=2, epoch=0)
    warm = max(1, round(len(batches) / 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / warm, (len(batches) - done) / (len(batches) - warm + 1))
    )
    theirs: list[float] = []
    model.train()
    for batch in batches:
        logits_bc = model(*encoded.padded(batch.tolist()))
        loss = torch.nn.functional.cross_entropy(logits_bc, TASK.targets([LABELS[row] for row in batch]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        theirs.append(loss.item())
    np.testing.assert_allclose(losses(events), theirs, atol=1e-6, rtol=0)
    assert trainable(start).keys() == trainable(model).keys()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padded_equals_unpadded(source: str, pooling: str) -> None:
    """Logits of a batch of mixed lengths are those of its rows one at a time: 1e-5, fp32 sums of other shapes."""
    rows = ["oil", *TEXTS[:10], " ".join(TEXTS[:3])]
    encoded = encode(read_tokenizer(source), rows, max_tokens=64)
    assert len(set(encoded.lengths_n.tolist())) > 4
    model = EncoderClassifier(load_encoder(source), len(CLASSES), pooling)
    model.new_head(torch_generator(0, "init"))
    with torch.inference_mode():
        together = model(*encoded.padded(range(len(rows))))
        alone = torch.cat([model(*encoded.padded([row])) for row in range(len(rows))])
        wide_ids = torch.nn.functional.pad(encoded.padded([0])[0], (0, 40), value=encoded.pad_id)
        wide_mask = torch.nn.functional.pad(encoded.padded([0])[1], (0, 40))
        wide = model(wide_ids, wide_mask)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(wide[0], alone[0], atol=1e-5, rtol=0)


def test_predictions_stand_in_the_order_of_the_texts(source: str, encoded: Encoded) -> None:
    """Batches go by length, answers come back by row."""
    model, _, _ = trained(source, encoded, SPEC.model_copy(update={"epochs": 1}))
    order = list(reversed(range(len(encoded))))
    mirrored = Encoded(tuple(encoded.ids[row] for row in order), encoded.pad_id)
    ours, theirs = predict_logits(model, encoded, "fp32"), predict_logits(model, mirrored, "fp32")
    torch.testing.assert_close(theirs, ours[order], atol=1e-5, rtol=0)
    found_nc = predict(model, TASK, encoded, "fp32")
    np.testing.assert_allclose(found_nc, torch.softmax(ours, -1).numpy(), atol=1e-6)


def test_every_method_sees_the_same_batches(source: str, encoded: Encoded) -> None:
    """With one seed the tokens of every step are the same for all methods; another seed has another order."""
    seen = {
        kind: [(one.tokens, one.padded_tokens) for one in steps(trained(source, encoded, kind=kind)[2])]
        for kind in ADAPTATIONS
    }
    assert len({tuple(one) for one in seen.values()}) == 1
    other = [(one.tokens, one.padded_tokens) for one in steps(trained(source, encoded, seed=1)[2])]
    assert other != seen["lora"]


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 255, 256, 300])
def test_an_epoch_covers_every_row_once(rows: int) -> None:
    """Each epoch is a permutation of the rows, epochs differ, and only the last batch may be small."""
    encoded = Encoded(tuple((1,) * (2 + row % 40) for row in range(rows)), 0)
    planned = planned_batches(encoded, TrainSpec(epochs=2, batch_size=16), seed=4)
    each = -(-rows // 16)
    assert len(planned) == 2 * each
    for first in (0, each):
        epoch = planned[first : first + each]
        assert Counter(row for batch in epoch for row in batch) == Counter(range(rows))
        assert all(len(batch) == 16 for batch in epoch[:-1])
    if rows > 32:  # of so few rows, sorted by length, an epoch has the same batches
        assert planned[:each] != planned[each:]


def test_little_is_padded_on_realistic_lengths() -> None:
    """Log-normal lengths of 20 to 128 tokens: computed positions are at most 1.25 times the real ones."""
    draw = np.random.default_rng(0)
    lengths_n = np.clip(np.exp(draw.normal(4.0, 0.6, 1000)), 20, 128).astype(int)
    for seed in range(5):
        batches = epoch_batches(lengths_n, 16, seed, epoch=0)
        assert sum(len(batch) * lengths_n[batch].max() for batch in batches) / lengths_n.sum() <= 1.25
    for batches in (length_batches(lengths_n, 32),):
        assert sum(len(batch) * lengths_n[batch].max() for batch in batches) / lengths_n.sum() <= 1.1
        assert lengths_n[batches[0]].max() == lengths_n.max(), "longest first"


def test_a_loss_that_is_not_a_number_ends_the_run_with_place_and_rate(source: str, encoded: Encoded) -> None:
    """DivergedError names the step and the learning rate of that step, and the step is not taken."""

    class Broken(Classification):
        def loss_sum(self, logits_bc: torch.Tensor, targets_b: torch.Tensor) -> torch.Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            return super().loss_sum(logits_bc, targets_b) * (math.nan if self.calls == 7 else 1.0)

    method = new_method("full")
    model = EncoderClassifier(load_encoder(source), len(CLASSES))
    method.attach(model, torch_generator(0, "init"))
    events: list[Event] = []
    arguments: tuple[Any, ...] = (Broken(CLASSES), encoded, TASK.targets(LABELS), SPEC, 1e-3, 0, events.append)
    with pytest.raises(DivergedError, match=r"loss is nan at step 7 of 24, learning rate 0\.0007[0-9]+.*try a lower"):
        train(model, method, *arguments)
    assert len(steps(events)) == 6
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_an_exploding_rate_diverges_by_name(source: str, encoded: Encoded) -> None:
    """A learning rate that blows the weights up to infinity is DivergedError, not a score."""
    with pytest.raises(DivergedError, match="learning rate"):
        trained(source, encoded, kind="full", learning_rate=1e30)


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_activation_checkpointing_changes_no_number(
    source: str, encoded: Encoded, tmp_path: Path, activation: str, kind: str
) -> None:
    """On our own pass, and on the plain one that another activation is left to."""
    folder = shutil.copytree(source.removeprefix("path:"), tmp_path / activation)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": activation}))
    few = Encoded(encoded.ids[:32], encoded.pad_id)
    plain, again = (
        trained(f"path:{folder}", few, SPEC.model_copy(update={"activation_checkpointing": wanted}), kind)
        for wanted in (False, True)
    )
    assert losses(plain[2]) == losses(again[2])
    for name, parameter in trainable(plain[0]).items():
        assert torch.equal(trainable(again[0])[name], parameter), name
