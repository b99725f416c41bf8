"""The engine: many adapters in one pass, checked against plain models. Numbers are those of the serving test list."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from toy_bundles import TEXTS, ToyBundle, assert_close, engine_for, probabilities, rows_of, toy_bundle
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from paretune.core.errors import BundleError, DataError, RunError, UnknownNameError, UsageError
from paretune.data.encoding import Encoded, encode
from paretune.kernels.low_rank import LowRank
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.probe import numerics_fingerprint
from paretune.serve import encoder
from paretune.serve.base_model import BaseModel
from paretune.serve.bundle import hexed
from paretune.serve.engine import Row

SEVEN = tuple("abcdefg")


@pytest.fixture(scope="module")
def toys(tiny_model: Path) -> dict[str, ToyBundle]:
    """Adapters of several ranks, targets, label sets and forms over one base."""
    return {
        "three": toy_bundle(tiny_model, "lora", {"rank": 4}, seed=1),
        "two": toy_bundle(tiny_model, "lora", {"rank": 2, "targets": ("query", "value")}, ("no", "yes"), seed=2),
        "seven": toy_bundle(tiny_model, "lora", {"rank": 7}, SEVEN, seed=3, pooling="cls", prefix="query: "),
        "head": toy_bundle(tiny_model, "head", labels=("x", "y"), seed=4),
        "full": toy_bundle(tiny_model, "full", seed=5),
        "bias": toy_bundle(tiny_model, "bitfit", labels=("p", "q"), seed=6),
    }


def test_a_mixed_batch_answers_as_each_text_alone(toys: dict[str, ToyBundle]) -> None:
    """1: in every order of three adapters and the base, each row equals the plain model's answer to 1e-5 in fp32."""
    chosen = [toys[name] for name in ("three", "two", "seven", "head")]
    engine = engine_for(chosen)
    texts = {toy.digest: TEXTS[place : place + 3] for place, toy in enumerate(chosen)}
    expected = {toy.digest: toy.expected(texts[toy.digest]) for toy in chosen}
    for order in permutations(chosen):
        rows = [row for toy in order for row in rows_of(engine, toy, texts[toy.digest])]
        outcomes = engine.run(rows)
        for place, toy in enumerate(order):
            assert_close(probabilities(outcomes[3 * place : 3 * place + 3]), expected[toy.digest])
            assert {one.batch for one in outcomes} == {tuple(sorted(texts))}


def test_heads_of_two_three_and_seven_classes_share_a_batch(toys: dict[str, ToyBundle]) -> None:
    """2: interleaved rows come back in their order, each with as many probabilities as its adapter has labels."""
    chosen = [toys[name] for name in ("two", "three", "seven")]
    engine = engine_for(chosen)
    rows = [rows_of(engine, toy, [text])[0] for text in TEXTS[:4] for toy in chosen]
    outcomes = engine.run(rows)
    assert [one.digest for one in outcomes] == [row.digest for row in rows]
    assert [len(one) for one in probabilities(outcomes)] == [2, 3, 7] * 4
    for place, toy in enumerate(chosen):
        assert_close(probabilities(outcomes[place::3]), toy.expected(TEXTS[:4]))


@pytest.mark.parametrize("name", ["three", "two", "seven", "head", "full", "bias"])
def test_served_answer_is_the_plain_model_s(toys: dict[str, ToyBundle], name: str) -> None:
    """3: for every form of bundle, peft's wrapped model among them, fp32 answers agree within 1e-5."""
    engine = engine_for([toys[name]])
    assert_close(probabilities(engine.run(rows_of(engine, toys[name], TEXTS))), toys[name].expected(TEXTS))


def test_bf16_stays_near_fp32(toys: dict[str, ToyBundle]) -> None:
    """bf16 differs from fp32 by no more than three times what autocast's bf16 differs at most over the same texts."""
    toy = toys["three"]
    engine = engine_for([toy], "bf16")
    expected = toy.expected(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = toy.expected(TEXTS)
    found = torch.tensor(probabilities(engine.run(rows_of(engine, toy, TEXTS))))
    assert 0 < (found - expected).abs().max() <= 3 * (autocast - expected).abs().max()


def _broken(toy: ToyBundle, delta: dict[str, LowRank | torch.Tensor]) -> ToyBundle:
    return replace(toy, tensors=(delta, *toy.tensors[1:]))


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("prefix", "fits nothing in the base"),
        ("missing", "golden input"),
        ("unused", "fits nothing in the base"),
        ("shape", "has shapes"),
        ("replaced_shape", "has shape"),
        ("form", "form"),
        ("head", "the head has shapes"),
        ("base", "base model"),
        ("length", "max_tokens"),
        ("certificate", "certificate"),
        ("goldens", "no golden inputs"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(toys: dict[str, ToyBundle], breakage: str, message: str) -> None:
    """4: wrong key prefix, missing layers, unused tensors and all else that does not fit fail the load, by name."""
    toy = toys["three"]
    delta, head_ch, bias_c = toy.tensors
    first = next(iter(delta))
    half = dict(list(delta.items())[: len(delta) // 2])
    broken = {
        "prefix": lambda: _broken(toy, {f"model.{name}": update for name, update in delta.items()}),
        "missing": lambda: _broken(toy, half),
        "unused": lambda: _broken(toy, {**delta, "encoder.layer.9.output.dense": delta[first]}),
        "shape": lambda: _broken(toy, {**delta, first: LowRank(torch.ones(2, 5), torch.ones(32, 2))}),
        "replaced_shape": lambda: _broken(toy, {f"{first}.bias": torch.ones(3)}),
        "form": lambda: _broken(toy, {f"{first}.bias": torch.ones(32)}),
        "head": lambda: replace(toy, tensors=(delta, head_ch[:2], bias_c)),
        "base": lambda: toy.with_manifest(base_digest="1" * 64),
        "length": lambda: toy.with_manifest(max_tokens=4096),
        "certificate": lambda: replace(
            toy, bundle=replace(toy.bundle, certificate=toy.bundle.certificate.model_copy(update={"checks": []}))
        ),
        "goldens": lambda: replace(
            toy, bundle=replace(toy.bundle, goldens=toy.bundle.goldens.model_copy(update={"rows": []}))
        ),
    }[breakage]()
    engine = engine_for([broken])
    with pytest.raises(BundleError, match=message):
        engine.check(broken.bundle)
    engine_for([toy]).check(toy.bundle)


def test_a_bundle_without_certificate_passes_only_while_it_is_being_certified(toys: dict[str, ToyBundle]) -> None:
    """`certified=False` leaves out the certificate, and nothing else."""
    toy = toys["two"]
    bundle = replace(toy.bundle, certificate=toy.bundle.certificate.model_copy(update={"checks": []}))
    engine = engine_for([toy])
    engine.check(bundle, certified=False)
    other = toy.bundle.goldens.model_copy(update={"tolerance": 1e-12})
    with pytest.raises(BundleError, match="off"):
        engine.check(replace(bundle, goldens=other), certified=False)


def test_goldens_must_be_bit_equal_where_the_numerics_are_the_same(toys: dict[str, ToyBundle]) -> None:
    """One flipped bit is refused under the goldens' own fingerprint, and accepted under another one."""
    toy = toys["seven"]
    engine = engine_for([toy])
    texts = [golden.text for golden in toy.bundle.goldens.rows]
    served = [hexed(probabilities(engine.run([row]))[0]) for row in rows_of(engine, toy, texts)]

    def with_served(values: list[list[str]], fingerprint: str) -> ToyBundle:
        rows = [
            golden.model_copy(update={"served": {"fp32": value}})
            for golden, value in zip(toy.bundle.goldens.rows, values, strict=True)
        ]
        goldens = toy.bundle.goldens.model_copy(update={"rows": rows, "fingerprint": fingerprint})
        return replace(toy, bundle=replace(toy.bundle, goldens=goldens))

    engine.check(with_served(served, numerics_fingerprint()).bundle)
    flipped = f"{int(served[2][0], 16) ^ 1:08x}"
    wrong = [*served[:2], [flipped, *served[2][1:]], *served[3:]]
    with pytest.raises(BundleError, match="last bits"):
        engine.check(with_served(wrong, numerics_fingerprint()).bundle)
    engine.check(with_served(wrong, "another machine").bundle)


def test_merged_weights_give_the_same_answers_and_go_when_the_mix_returns(toys: dict[str, ToyBundle]) -> None:
    """5: merged after three batches of one adapter, equal within 1e-5, dropped at the first batch with another."""
    toy, other = toys["three"], toys["two"]
    engine = engine_for([toy, other], merge_after=3)
    rows = rows_of(engine, toy, TEXTS)
    merged = []
    for _ in range(5):
        assert_close(probabilities(engine.run(rows)), toy.expected(TEXTS))
        merged.append(engine.merged_digest)
    assert merged == [None, None, toy.digest, toy.digest, toy.digest]
    mixed = engine.run([*rows, *rows_of(engine, other, TEXTS)])
    assert engine.merged_digest is None
    assert_close(probabilities(mixed[: len(rows)]), toy.expected(TEXTS))
    assert_close(probabilities(mixed[len(rows) :]), other.expected(TEXTS))
    engine.run(rows)
    assert engine.merged_digest is None


def test_merged_weights_that_miss_the_goldens_are_not_used(
    toys: dict[str, ToyBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """5: where merging gives other answers, the adapter stays unmerged, is not tried again, and answers as before."""
    toy = toys["three"]
    engine = engine_for([toy], merge_after=2)
    tried: list[int] = []

    def wrong(_: BaseModel, updates: dict[str, LowRank]) -> dict[str, torch.Tensor]:
        tried.append(len(updates))
        return {f"{name}.weight": torch.ones(one.b_or.shape[0], one.a_ri.shape[1]) for name, one in updates.items()}

    monkeypatch.setattr(BaseModel, "merged", wrong)
    for _ in range(4):
        assert_close(probabilities(engine.run(rows_of(engine, toy, TEXTS))), toy.expected(TEXTS))
    assert engine.merged_digest is None
    assert len(tried) == 1


def test_answers_do_not_depend_on_neighbours(toys: dict[str, ToyBundle]) -> None:
    """6: a text answers the same, to 1e-5 and in its label, whatever texts of whatever lengths stand beside it."""
    toy, others = toys["three"], [toys["two"], toys["seven"]]
    engine = engine_for([toy, *others])
    row = rows_of(engine, toy, ["crude oil of the new rig"])[0]
    alone = torch.tensor(probabilities(engine.run([row])))
    draw = random.Random(0)
    for _ in range(10):
        neighbours = []
        for _ in range(draw.randint(1, 12)):
            words = " ".join(draw.choices(["goal", "loan", "of", "barrel"], k=draw.choice([1, 3, 20, 60])))
            neighbours += rows_of(engine, draw.choice([toy, *others]), [words])
        place = draw.randint(0, len(neighbours))
        found = engine.run([*neighbours[:place], row, *neighbours[place:]])[place]
        assert_close(probabilities([found]), alone)
        assert probabilities([found])[0].index(max(probabilities([found])[0])) == int(alone.argmax())


@pytest.mark.parametrize("skew", ["uniform", "zipf"])
def test_swaps_explain_the_working_set(tiny_model: Path, skew: str) -> None:
    """13: no swap beyond the first load while K ≤ slots; above it at most one a batch and adapter, answers right."""
    slots = 4
    toys = [toy_bundle(tiny_model, "head", seed=seed) for seed in range(4 * slots)]
    for count in (slots // 2, slots, 2 * slots, 4 * slots):
        engine = engine_for(toys[:count], slots=slots)
        draw = random.Random(count)
        weights = [1.0 if skew == "uniform" else 1 / (place + 1) for place in range(count)]
        touched: set[str] = set()
        visits = 0
        for _ in range(20):
            chosen = draw.choices(toys[:count], weights, k=3)
            outcomes = engine.run([rows_of(engine, toy, TEXTS[:1])[0] for toy in chosen])
            assert_close(probabilities(outcomes), torch.cat([toy.expected(TEXTS[:1]) for toy in chosen]))
            touched |= {toy.digest for toy in chosen}
            visits += len({toy.digest for toy in chosen})
            assert len(engine.resident()) <= slots
        assert engine.swaps == len(touched) if count <= slots else len(touched) <= engine.swaps < visits


def test_a_batch_of_more_adapters_than_slots_is_answered(toys: dict[str, ToyBundle]) -> None:
    """Six adapters through two slots of which one is pinned: every row is answered and the pinned one never leaves."""
    engine = engine_for(list(toys.values()), slots=2)
    engine.pin(toys["two"].digest)
    rows = [rows_of(engine, toy, TEXTS[:1])[0] for toy in toys.values()]
    for outcome, toy in zip(engine.run(rows), toys.values(), strict=True):
        assert_close(probabilities([outcome]), toy.expected(TEXTS[:1]))
        assert toys["two"].digest in engine.resident()
    with pytest.raises(UsageError, match="at most 1"):
        engine.pin(toys["three"].digest)


@pytest.mark.parametrize("error", [ValueError("broken"), RuntimeError("DefaultCPUAllocator: not enough memory")])
def test_a_text_that_raises_fails_alone(
    toys: dict[str, ToyBundle], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """16: an exception or an out-of-memory in one member fails that row only; the next batch is fine."""
    chosen = [toys["three"], toys["two"]]
    engine = engine_for(chosen)
    rows = [*rows_of(engine, chosen[0], TEXTS[:4]), *rows_of(engine, chosen[1], TEXTS[4:8])]
    poison = rows[2].input_ids
    true_attention = encoder.attention
    texts_of_pass: list[Sequence[Sequence[int]]] = []
    true_hidden = BaseModel.hidden

    def hidden(base: BaseModel, texts, segments, replaced):
        texts_of_pass.append(texts)
        return true_hidden(base, texts, segments, replaced)

    def attention(*given: object) -> torch.Tensor:
        if poison in texts_of_pass[-1]:
            raise error  # deep in the pass
        return true_attention(*given)

    monkeypatch.setattr(BaseModel, "hidden", hidden)
    monkeypatch.setattr(encoder, "attention", attention)
    outcomes = engine.run(rows)
    assert outcomes[2] is error
    good = [one for place, one in enumerate(outcomes) if place != 2]
    assert_close(probabilities(good[:3]), toys["three"].expected(TEXTS[:4])[[0, 1, 3]])
    assert_close(probabilities(good[3:]), toys["two"].expected(TEXTS[4:8]))
    monkeypatch.undo()
    assert_close(probabilities(engine.run(rows)[:4]), toys["three"].expected(TEXTS[:4]))


def test_an_adapter_of_nan_gives_errors_and_not_labels(toys: dict[str, ToyBundle]) -> None:
    """20: rows of the adapter whose numbers are not finite fail; its neighbours in the same pass answer as ever."""
    toy, good = toys["three"], toys["two"]
    delta, head_ch, bias_c = toy.tensors
    name = next(iter(delta))
    update = delta[name]
    assert isinstance(update, LowRank)
    broken = replace(toy, tensors=({**delta, name: LowRank(update.a_ri, update.b_or * float("nan"))}, head_ch, bias_c))
    engine = engine_for([broken, good])
    rows = [row for text in TEXTS[:3] for toy in (broken, good) for row in rows_of(engine, toy, [text])]
    outcomes = engine.run(rows)
    assert all(isinstance(one, RunError) for one in outcomes[::2])
    assert_close(probabilities(outcomes[1::2]), good.expected(TEXTS[:3]))
    with pytest.raises(BundleError, match="could not be answered"):
        engine.check(broken.bundle)


def test_an_adapter_that_cannot_be_had_fails_its_rows_only(toys: dict[str, ToyBundle]) -> None:
    """The store's error stands at the rows of the missing digest, and no slot is lost to it."""
    toy = toys["three"]
    engine = engine_for([toy], slots=1)
    good = rows_of(engine, toy, TEXTS[:2])
    for _ in range(5):
        outcomes = engine.run([good[0], Row("f" * 64, good[0].input_ids), good[1]])
        assert isinstance(outcomes[1], BundleError)
        assert_close(probabilities([outcomes[0], outcomes[2]]), toy.expected(TEXTS[:2]))
    assert engine.resident() == [toy.digest]


@pytest.mark.parametrize("ids", [(), (10**6,), (-1,), (1,) * 129])
def test_ids_that_the_model_cannot_take_are_refused(toys: dict[str, ToyBundle], ids: tuple[int, ...]) -> None:
    """No tokens, ids outside the vocabulary and texts longer than the positions fail alone, before any pass."""
    toy = toys["three"]
    engine = engine_for([toy])
    outcomes = engine.run([Row(toy.digest, ids), *rows_of(engine, toy, TEXTS[:1])])
    assert isinstance(outcomes[0], DataError)
    assert_close(probabilities(outcomes[1:]), toy.expected(TEXTS[:1]))


def test_abstains_below_the_threshold_of_calibrated_confidence(tiny_model: Path) -> None:
    """Confidence is the largest probability at the bundle's temperature; abstention compares it to the threshold."""
    sure = toy_bundle(tiny_model, "head", seed=1, temperature=3.0, threshold=0.0)
    engine = engine_for([sure])
    answers = engine.run(rows_of(engine, sure, TEXTS))
    expected = (sure.expected(TEXTS).log() / 3.0).softmax(-1).amax(-1)
    assert_close([[one.confidence] for one in answers], expected.unsqueeze(1))
    assert not any(one.abstain for one in answers)
    middle = float(expected.median())
    unsure = toy_bundle(tiny_model, "head", seed=1, temperature=3.0, threshold=middle)
    again = engine_for([unsure])
    assert [one.abstain for one in again.run(rows_of(again, unsure, TEXTS))] == [
        one.confidence < middle for one in answers
    ]


def test_a_bundle_of_form_model_copies_nothing_that_did_not_change(toys: dict[str, ToyBundle]) -> None:
    """As many numbers lie in the slot as the bundle has, and the base answers as before after its pass."""
    bias, head = toys["bias"], toys["head"]
    engine = engine_for([bias, head])
    before = probabilities(engine.run(rows_of(engine, head, TEXTS)))
    engine.run(rows_of(engine, bias, TEXTS))
    with engine._pool.held(bias.digest) as resident:
        assert sum(one.numel() for one in resident.replaced.values()) == sum(
            one.numel() for one in bias.tensors[0].values()
        )
    assert probabilities(engine.run(rows_of(engine, head, TEXTS))) == before


def test_tokens_are_those_of_training_and_know_the_length_before_the_cut(toys: dict[str, ToyBundle]) -> None:
    """Prefix and truncation are the bundle's; a cut text says so; half a surrogate pair is refused."""
    toy = toys["seven"]
    engine = engine_for([toy])
    texts = ["a rig", "goal " * 100, ""]
    tokenizer = read_tokenizer(ModelSpec.model_validate(toy.bundle.manifest.model).source)
    found = engine.encode(toy.digest, texts)
    assert tuple(one.input_ids for one in found) == encode(tokenizer, texts, 32, "query: ").ids
    assert [one.length for one in found] == [len(ids) for ids in encode(tokenizer, texts, 10_000, "query: ").ids]
    assert [one.truncated for one in found] == [False, True, False]
    with pytest.raises(DataError, match="surrogate"):
        engine.encode(toy.digest, ["\ud800"])


def test_bundles_are_checked_and_texts_tokenized_while_passes_run(toys: dict[str, ToyBundle]) -> None:
    """Loader threads that check other bundles change no answer of the engine's thread, and no check goes wrong."""
    engine = engine_for(list(toys.values()), merge_after=2)
    toy = toys["three"]
    expected = toy.expected(TEXTS)
    rows = rows_of(engine, toy, TEXTS)
    errors: list[BaseException] = []

    def check() -> None:
        try:
            for other in toys.values():
                engine.check(other.bundle)
                engine.encode(other.digest, TEXTS)
        except BaseException as error:
            errors.append(error)

    loaders = [threading.Thread(target=check) for _ in range(3)]
    for loader in loaders:
        loader.start()
    for _ in range(20):
        assert_close(probabilities(engine.run(rows)), expected)
    for loader in loaders:
        loader.join()
    assert not errors


def test_evict_leaves_nothing_behind(toys: dict[str, ToyBundle]) -> None:
    """After evict the slot is empty, merged weights are gone, and the next row reads the bundle anew."""
    toy = toys["three"]
    engine = engine_for([toy], merge_after=1)
    rows = rows_of(engine, toy, TEXTS[:1])
    engine.run(rows)
    assert engine.merged_digest == toy.digest
    engine.evict(toy.digest)
    assert engine.resident() == []
    assert engine.merged_digest is None
    engine.run(rows)
    assert engine.swaps == 2


@pytest.mark.parametrize(
    ("config", "model", "more"),
    [
        (DistilBertConfig, DistilBertModel, {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
        (RobertaConfig, RobertaModel, {"hidden_size": 32, "intermediate_size": 64}),
        (XLMRobertaConfig, XLMRobertaModel, {"hidden_size": 32, "intermediate_size": 64}),
    ],
)
def test_every_kind_of_encoder_gives_its_own_hidden_states(
    tiny_model: Path, tmp_path: Path, config: type, model: type, more: dict[str, int]
) -> None:
    """DistilBERT, RoBERTa and XLM-R (whose positions begin after the padding index) agree with their padded pass."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path / name)
    if model is not DistilBertModel:
        more = {**more, "num_hidden_layers": 2, "num_attention_heads": 4}
    vocabulary = json.loads((tiny_model / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    built = model(config(vocab_size=vocabulary, max_position_embeddings=64, pad_token_id=0, **more))
    built.save_pretrained(tmp_path)
    spec = ModelSpec(source=f"path:{tmp_path}")
    rows = Encoded(((2, 9, 14, 3), (2, 3), (2, 30, 31, 32, 33, 3)), 0)
    with torch.no_grad():
        expected = EncoderClassifier(load_encoder(spec.source), 2).pooled(*rows.padded([0, 1, 2]))
    base = BaseModel(spec, "fp32")
    found = base.hidden(rows.ids, [], {})
    parts = found.split([len(one) for one in rows.ids])
    torch.testing.assert_close(torch.stack([one.mean(0) for one in parts]), expected, rtol=0, atol=1e-5)


def test_a_model_that_is_no_encoder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """A type of model that the engine does not know is named, with those that it knows."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path / name)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    ElectraModel(ElectraConfig(vocab_size=200, embedding_size=32, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(UnknownNameError, match="electra"):
        BaseModel(ModelSpec(source=f"path:{tmp_path}"), "fp32")
