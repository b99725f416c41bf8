"""A decoder as a language model: losses of texts, what of it learns, its tokens; scores by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_study import toy_rows
from transformers import AutoModelForCausalLM

from paretune.core.config import validated
from paretune.core.errors import ConfigError
from paretune.core.events import Event, StepEnded
from paretune.data.encoding import Encoded, encode_whole
from paretune.methods.method import METHODS, Adaptation
from paretune.models.loading import load_language_model
from paretune.models.surgery import trainable
from paretune.models.tiny import write_tiny_llama
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import torch_generator
from paretune.stats.metrics import merit
from paretune.stats.token_scores import nll_per_example, token_scores
from paretune.tasks.next_token import NextToken
from paretune.train.evaluate import Witness, predict
from paretune.train.language import LanguageModel
from paretune.train.loop import TrainSpec, planned_batches, train
from paretune.train.optim import schedule_factor

TEXTS = [text for text, _ in toy_rows(24)]
METHODS_OF_DECODER = [("full", {}), ("lora", {"rank": 4}), ("last_layers", {"layers": 1})]


@pytest.fixture(params=["tied", "untied"])
def decoder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "decoder", tied=request.param == "tied")


def whole(folder: Path, texts: list[str], longest: int = 48) -> Encoded:
    return encode_whole(read_tokenizer(f"path:{folder}"), texts, longest)


def attached(kind: str, settings: dict[str, Any], folder: Path) -> tuple[LanguageModel, Adaptation]:
    method = METHODS.load(kind)
    method = method(validated(settings, method.settings_model, "test"))
    model = LanguageModel(*load_language_model(f"path:{folder}"))
    method.attach(model, torch_generator(0, "init"))
    return model, method


def test_losses_are_those_of_transformers(decoder: Path) -> None:
    """Each text alone through the causal model with labels gives the mean; here the sum, in one padded batch."""
    texts = ["a loan", "the barrel of crude said the company today", "x"]
    encoded = whole(decoder, texts)
    model = LanguageModel(*load_language_model(f"path:{decoder}"))
    theirs = AutoModelForCausalLM.from_pretrained(decoder).eval()
    with torch.inference_mode():
        found_b2 = model(*encoded.padded(range(len(texts))))
        for row, ids in enumerate(encoded.ids):
            ids_1t = torch.tensor([ids])
            wanted = float(theirs(input_ids=ids_1t, labels=ids_1t).loss) * (len(ids) - 1)
            assert found_b2[row].tolist() == pytest.approx([wanted, len(ids) - 1], rel=1e-5)


@pytest.mark.parametrize(("kind", "settings"), METHODS_OF_DECODER)
def test_gradients_are_those_of_plain_cross_entropy(decoder: Path, kind: str, settings: dict[str, Any]) -> None:
    """Of everything that a method trains, over texts of different lengths, padding left out."""
    model, _ = attached(kind, settings, decoder)
    encoded = whole(decoder, TEXTS[:6])
    input_ids_bt, mask_bt = encoded.padded(range(6))
    model(input_ids_bt, mask_bt)[:, 0].sum().backward()
    own = {name: one.grad for name, one in trainable(model).items()}
    model.zero_grad(set_to_none=True)
    hidden_bth = model.encoder(input_ids=input_ids_bt, attention_mask=mask_bt).last_hidden_state
    logits_btv = hidden_bth @ model._output_weight().T
    targets_bt = input_ids_bt.masked_fill(mask_bt == 0, -100)
    torch.nn.functional.cross_entropy(
        logits_btv[:, :-1].flatten(0, 1), targets_bt[:, 1:].flatten(), reduction="sum"
    ).backward()
    for name, one in trainable(model).items():
        assert one.grad is not None and own[name] is not None, name
        torch.testing.assert_close(own[name], one.grad, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("kind", "settings"), METHODS_OF_DECODER)
def test_training_lowers_the_loss_of_other_texts(
    decoder: Path, kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Every method trains through the one loop, at its own rate; what it saves gives the same losses again."""
    model, method = attached(kind, settings, decoder)
    task, encoded = NextToken(), whole(decoder, TEXTS)
    other = whole(decoder, [text for text, _ in toy_rows(12, seed=1)])
    before = task.scores(task.outcome(predict(model, task, other, "fp32"), [""] * 12), [""] * 12)
    witness = Witness(model, encoded, "fp32")
    frozen = {name: one.clone() for name, one in model.named_parameters() if not one.requires_grad}
    events: list[Event] = []
    spec = TrainSpec(epochs=2, batch_size=8, max_tokens=48, precision="fp32")
    train(model, method, task, encoded, task.targets(TEXTS), spec, 5e-3, 0, events.append)
    witness.check(model)
    assert all(torch.equal(dict(model.named_parameters())[name], one) for name, one in frozen.items())
    after = task.scores(task.outcome(predict(model, task, other, "fp32"), [""] * 12), [""] * 12)
    assert after["nll"] < before["nll"] - 0.02
    method.save(model, tmp_path / "adapter")
    again, _ = attached(kind, settings, decoder)
    method.load(again, tmp_path / "adapter")
    np.testing.assert_array_equal(predict(again, task, other, "fp32"), predict(model, task, other, "fp32"))


def test_a_training_is_that_of_plain_transformers(decoder: Path) -> None:
    """Full, three steps in fp32: the losses of a hand-written loop over the causal model with labels, to 1e-4."""
    model, method = attached("full", {}, decoder)
    task, encoded = NextToken(), whole(decoder, TEXTS)
    spec = TrainSpec(epochs=1, batch_size=8, max_tokens=48, precision="fp32", weight_decay=0.0)
    events: list[Event] = []
    train(model, method, task, encoded, task.targets(TEXTS), spec, 1e-2, 0, events.append)
    theirs = AutoModelForCausalLM.from_pretrained(decoder, attn_implementation="eager")
    theirs.config.use_cache = False
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.0)
    batches, losses = planned_batches(encoded, spec, 0), list[float]()
    for step, rows in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * schedule_factor(step, len(batches), spec.warmup_share)
        input_ids_bt, mask_bt = encoded.padded(rows)
        labels_bt = input_ids_bt.masked_fill(mask_bt == 0, -100)
        loss = theirs(input_ids=input_ids_bt, attention_mask=mask_bt, labels=labels_bt).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), spec.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [one.loss for one in events if isinstance(one, StepEnded)] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0] - 0.05


def test_accumulated_steps_are_those_of_the_whole_batch(tiny_decoder: Path) -> None:
    """The loss is a mean over the tokens of the optimizer step, not of its parts, which have other lengths."""
    ends: list[dict[str, torch.Tensor]] = []
    losses: list[list[float]] = []
    for micro in (None, 3):
        model, method = attached("full", {}, tiny_decoder)
        events: list[Event] = []
        spec = TrainSpec(epochs=1, batch_size=8, micro_batch_size=micro, max_tokens=48, precision="fp32")
        encoded, task = whole(tiny_decoder, TEXTS), NextToken()
        train(model, method, task, encoded, task.targets(TEXTS), spec, 1e-3, 0, events.append)
        ends.append(method.state(model))
        losses.append([one.loss for one in events if isinstance(one, StepEnded)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], atol=1e-5, rtol=1e-4)


def test_a_separate_output_map_learns_in_full_training_alone(tmp_path: Path) -> None:
    """At the method's rate, not the head's; tied embeddings are one parameter."""
    folder = write_tiny_llama(tmp_path / "untied", tied=False)
    full, method = attached("full", {}, folder)
    assert "output.weight" in trainable(full) and not any(name.startswith("head") for name in trainable(full))
    assert {group["lr"] for group in method.parameter_groups(full, 1e-3, 1e-2, 0.0)} == {1e-3}
    assert "output.weight" not in trainable(attached("lora", {}, folder)[0])
    tied, _ = attached("full", {}, write_tiny_llama(tmp_path / "tied"))
    assert sum("embed_tokens" in name or "output" in name for name in trainable(tied)) == 1


def test_bf16_is_near_fp32(tiny_decoder: Path) -> None:
    """Nats per token within 1 % of those in fp32."""
    model = LanguageModel(*load_language_model(f"path:{tiny_decoder}"))
    task, encoded = NextToken(), whole(tiny_decoder, TEXTS)
    fp32, bf16 = (
        task.scores(task.outcome(predict(model, task, encoded, precision), TEXTS), TEXTS)["nll"]
        for precision in ("fp32", "bf16")
    )
    assert bf16 == pytest.approx(fp32, rel=0.01) and bf16 != fp32


def test_an_encoder_predicts_no_next_token(tiny_model: Path) -> None:
    """One line with the type of the model."""
    with pytest.raises(ConfigError, match=r"type 'bert'.*no next token.*a decoder"):
        load_language_model(f"path:{tiny_model}")


# --- tokens and bytes -----------------------------------------------------------------------------------------------


def test_a_text_follows_its_beginning_and_is_counted_in_bytes(tiny_decoder: Path) -> None:
    """The token that begins is not of the text; letters of several bytes count as such."""
    encoded = whole(tiny_decoder, ["a loan", "ёж", ""])
    assert all(row[0] == 1 for row in encoded.ids)  # <|im_start|>
    assert encoded.text_bytes == (6, 4, 0)
    assert len(encoded.ids[1]) == 1 + 4  # a byte a token
    assert encoded.ids[2] == (1,)


def test_bytes_past_the_cut_do_not_count(tiny_decoder: Path) -> None:
    """Of a text that is cut the bytes of the tokens that are left; the beginning counts to the longest length."""
    encoded = whole(tiny_decoder, ["xyz abc"], longest=4)
    assert len(encoded.ids[0]) == 4
    assert encoded.text_bytes == (3,)


def test_scores_by_hand() -> None:
    """exp and bits of the means; long texts weigh more."""
    found = token_scores([2 * math.log(4), 6 * math.log(2)], [2, 6], [5, 15])
    assert found["nll"] == pytest.approx(10 / 8 * math.log(2))
    assert found["perplexity"] == pytest.approx(2 ** (10 / 8))
    assert found["bits_per_byte"] == pytest.approx(10 / 20)
    assert merit("nll", 2.0) < merit("nll", 1.0) and merit("accuracy", 0.9) > merit("accuracy", 0.8)


@pytest.mark.parametrize("given", [([1.0], [1, 2], [3]), ([], [], []), ([0.0], [0], [0])])
def test_scores_of_nothing_are_refused(given: tuple[list[float], list[int], list[int]]) -> None:
    """No token, or lists of different lengths."""
    with pytest.raises(ValueError, match="token"):
        token_scores(*given)


def test_shares_of_texts_average_to_the_ratio_and_give_its_error() -> None:
    """The mean is nats per token, and the standard error that of the ratio over many redrawn samples."""
    draw = np.random.default_rng(0)

    def sample(texts: int) -> tuple[np.ndarray, np.ndarray]:
        tokens_n = draw.integers(5, 60, texts)
        return tokens_n * draw.normal(3.0, 0.5, texts), tokens_n

    nll_n, tokens_n = sample(400)
    shares_n = nll_per_example(nll_n, tokens_n)
    assert shares_n.mean() == pytest.approx(nll_n.sum() / tokens_n.sum())
    ratios = [nll.sum() / tokens.sum() for nll, tokens in (sample(400) for _ in range(2000))]
    assert shares_n.std(ddof=1) / math.sqrt(400) == pytest.approx(np.std(ratios), rel=0.12)
