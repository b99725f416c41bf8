"""Receipts of answers: replayed offline to the bit, in whatever pass they were given; edited ones are named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from served import TEXTS, digest_of, make, post, serving
from toy_bundles import ToyBundle, engine_for, rows_of, toy_bundle
from toy_study import toy_rows

from paretune.core.errors import BundleError, DataError, RecordError
from paretune.serve.bundle import hexed
from paretune.serve.engine import Engine, Row
from paretune.serve.receipts import edited_fields, read_receipt, replay, sealed, unhexed
from paretune.serve.resident import Answer
from paretune.serve.shapes import Receipt

LONG = " ".join(["loan"] * 200)


@pytest.fixture(scope="module")
def answered(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store, and receipts of a text alone, of one in company, and of one that was cut."""
    home = tmp_path_factory.mktemp("receipts") / "home"
    with serving(home, {name: bundles[name] for name in ("news", "yesno")}) as service:

        def receipts(*inputs: object) -> list[dict[str, Any]]:
            body = {"inputs": list(inputs), "adapter": "news", "receipt": True}
            return [one["receipt"] for one in post(service, "/v1/classify", body).json()["results"]]

        alone, cut = receipts(TEXTS[0])[0], receipts(LONG)[0]
        mixed = receipts(TEXTS[0], {"text": TEXTS[2], "adapter": "yesno"}, TEXTS[1])[0]
    return home, {"alone": alone, "mixed": mixed, "cut": cut}


def replayed(receipt: dict[str, Any], home: Path, folder: Path) -> Any:
    path = folder / "receipt.json"
    path.write_text(json.dumps(receipt))
    return replay(path, home)


@pytest.mark.parametrize("which", ["alone", "mixed", "cut"])
def test_a_receipt_is_replayed_offline(answered: tuple[Path, dict[str, Any]], tmp_path: Path, which: str) -> None:
    """Alone, in company and cut short: the same bits come out, and the seal holds."""
    home, receipts = answered
    result = replayed(receipts[which], home, tmp_path)
    assert (result.verdict, result.difference, result.reasons, result.sealed) == ("bit-equal", 0.0, (), True)
    assert len(receipts["mixed"]["batch"]) == 2


def other(name: str, value: Any, receipts: dict[str, Any]) -> Any:
    """Another value of a field, of the right form."""
    if name == "label":
        return next(one for one in receipts["alone"]["labels"] if one != value)
    if name == "precision":
        return "fp32" if value == "bf16" else "bf16"
    if name == "probabilities":
        return [f"{int(value[0], 16) ^ 1:08x}", *value[1:]]
    if name == "schema_version":
        return 1
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2
        case str():
            return (
                value[:-1] + ("x" if value[-1] != "x" else "y") if name in ("text", "request_id") else "1" * len(value)
            )
        case dict():
            return {**value, "text": "0" * 16}
        case list():
            return value[1:] if len(value) > 1 else [*value, *value]
        case _:
            raise AssertionError(name)


def test_an_edit_of_any_field_is_named(answered: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Each field in turn is changed: the verdict is "edited", and the field is named."""
    home, receipts = answered
    receipt = receipts["alone"]
    assert receipt.keys() | {"out_of_domain"} == Receipt.model_fields.keys()  # a toy bundle cannot tell
    for name, value in receipt.items():
        result = replayed({**receipt, name: other(name, value, receipts)}, home, tmp_path)
        named = {"digests": "text", "schema_version": "schema_version"}.get(name, name)
        assert result.verdict == "edited" and not result.agrees, (name, result)
        assert named in result.edited and any(one.startswith(f"{named}:") for one in result.reasons), (name, result)


@pytest.mark.parametrize(
    "name", [one for one in Receipt.model_fields if one not in ("seal", "digests", "out_of_domain")]
)
def test_an_edit_with_new_digests_breaks_the_seal(
    answered: tuple[Path, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    """Whoever has not the store's key cannot make a receipt of it, even with digests that hold."""
    home, receipts = answered
    forged = Receipt.model_validate({**receipts["mixed"], name: other(name, receipts["mixed"][name], receipts)})
    result = replayed(sealed(forged, b"a key of another store").model_dump(exclude_none=True), home, tmp_path)
    assert not result.agrees and result.edited and set(result.edited) <= {"seal", "digests"}


@pytest.mark.parametrize("name", ["text", "tokens", "ids_sha256", "base_digest", "tokenizer_sha256", "labels", "label",
                                  "probabilities", "logits", "truncate", "batch", "confidence", "abstain"])  # fmt: skip
def test_a_forgery_is_caught_by_the_bundle_too(
    answered: tuple[Path, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    """In a copy of the store without its key, what bundle, text and computation decide is still checked."""
    home, receipts = answered
    copy = tmp_path / "copy"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("receipts.key"))
    receipt = receipts["cut" if name == "truncate" else "mixed"]
    same = replayed(receipt, copy, tmp_path)
    assert same.agrees and same.sealed is None and "receipts.key" in same.reasons[0]
    forged = sealed(Receipt.model_validate({**receipt, name: other(name, receipt[name], receipts)}), b"x")
    assert not replayed(forged.model_dump(exclude_none=True), copy, tmp_path).agrees


def test_receipts_of_version_1_are_still_replayed(answered: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """They are compared by probabilities, alone in a pass; a base, tokenizer, label or count that is not theirs is
    named."""
    home, receipts = answered
    old = {
        name: value
        for name, value in receipts["mixed"].items()
        if Receipt.model_fields[name].is_required() or name == "schema_version"
    }
    old["schema_version"] = 1
    result = replayed(old, home, tmp_path)
    assert result.agrees and "2 adapters" in result.reasons[0] and "no seal" in result.reasons[1]
    for name in ("base_digest", "tokenizer_sha256", "tokens", "label", "labels"):
        result = replayed({**old, name: other(name, old[name], receipts)}, home, tmp_path)
        assert (result.verdict, result.edited) == ("edited", (name,))


def test_logits_are_compared_near_a_boundary(tiny_model: Path, tmp_path: Path) -> None:
    """What another machine gave agrees within the bundle's tolerance of logits, and differs beyond it."""
    folder = make(tiny_model, tmp_path / "news", seed=1, logit_tolerance=1e-3)
    with serving(tmp_path / "home", {"news": folder}) as service:
        body = {"inputs": [TEXTS[0]], "receipt": True}
        genuine = Receipt.model_validate(post(service, "/v1/classify", body).json()["results"][0]["receipt"])
        key = service.registry.seal_key
    assert genuine.logits is not None
    numbers = torch.tensor([unhexed(one) for one in genuine.logits])
    for off, verdict in ((5e-4, "within tolerance"), (5e-3, "different")):
        moved = numbers + torch.tensor([off, 0.0, 0.0])
        changed = {"logits": hexed(moved.tolist()), "probabilities": hexed(moved.softmax(0).tolist())}
        receipt = sealed(genuine.model_copy(update={**changed, "fingerprint": "0" * 32}), key)
        result = replayed(receipt.model_dump(exclude_none=True), tmp_path / "home", tmp_path)
        assert (result.verdict, result.tolerance, result.sealed) == (verdict, 1e-3, True)
        assert result.difference == pytest.approx(off, rel=1e-3) and "numerics" in result.reasons[0]


def test_a_receipt_of_a_bundle_that_is_gone(answered: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A store without the adapter is one line."""
    home, receipts = answered
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    shutil.rmtree(copy / "adapters" / receipts["alone"]["adapter_digest"])
    with pytest.raises(BundleError, match="no bundle"):
        replayed(receipts["alone"], copy, tmp_path)


@pytest.mark.parametrize(
    ("text", "named"),
    [("", ""), ("{", ""), ("[]", ""), ("5", ""), ("{}", ""), ('{"results": 5}', ""), ('{"results": [{}]}', ""),
     ('{"adapter_digest": 5}', "request_id")],
)  # fmt: skip
def test_what_is_no_receipt_is_said(text: str, named: str, tmp_path: Path) -> None:
    """Every other file is one clear line, never a stack."""
    path = tmp_path / "receipt.json"
    path.write_text(text)
    with pytest.raises(RecordError) as error:
        read_receipt(path)
    assert named in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(RecordError):
        read_receipt(tmp_path / "missing.json")


def on_a_boundary(toy: ToyBundle) -> ToyBundle:
    """The same adapter with a head whose classes are all but equal for every text."""
    delta, head_ch, bias_c = toy.tensors
    close_ch = head_ch[:1].repeat(head_ch.shape[0], 1) + 1e-6 * head_ch
    return replace(toy, tensors=(delta, close_ch, bias_c[:1].repeat(len(bias_c))))


def bits(answer: object) -> tuple[list[str], list[str], float]:
    assert isinstance(answer, Answer), answer
    return hexed(answer.logits), hexed(answer.probabilities), answer.confidence


def repeated(engine: Engine, rows: Sequence[Row], answers: Sequence[object]) -> list[tuple[object, object]]:
    found: list[tuple[object, object]] = []
    for row, answer in zip(rows, answers, strict=True):
        assert isinstance(answer, Answer) and answer.company is not None
        found.append((bits(answer), bits(engine.again(row, answer.company, answer.place))))
    return found


def test_a_thousand_answers_of_mixed_batches_come_again_bit_for_bit(tiny_model: Path) -> None:
    """Random batches of four adapters, texts on the boundary among them: a fresh engine gives the same bits from what
    the receipt says of the pass, though it knows no other adapter and no other text."""
    draw = random.Random(7)
    toys = [toy_bundle(tiny_model, "lora", {"rank": 2 + seed}, seed=seed) for seed in (1, 2)]
    toys += [on_a_boundary(toy_bundle(tiny_model, "lora", {"rank": 4}, seed=3)), toy_bundle(tiny_model, "head", seed=4)]
    texts = [text for text, _ in toy_rows(300, seed=9)]
    engine, count = engine_for(toys), 0
    fresh = {toy.digest: engine_for([toy], slots=1) for toy in toys}
    while count < 1000:
        rows = [rows_of(engine, draw.choice(toys), [draw.choice(texts)])[0] for _ in range(draw.randint(1, 24))]
        answers = engine.run(rows)
        for row, answer in zip(rows, answers, strict=True):
            first, second = repeated(fresh[row.digest], [row], [answer])[0]
            assert first == second, answer
        count += len(rows)


def test_merged_weights_and_other_forms_come_again_bit_for_bit(tiny_model: Path) -> None:
    """An adapter that was merged after some batches, one that replaces parameters, and another number of threads."""
    lora, full = toy_bundle(tiny_model, "lora", {"rank": 4}, seed=1), toy_bundle(tiny_model, "full", seed=2)
    texts = [text for text, _ in toy_rows(40, seed=11)]
    for toy, merge_after in ((lora, 2), (full, 0)):
        engine, fresh = engine_for([toy], merge_after=merge_after), engine_for([toy], slots=1)
        merged = set()
        for size in (3, 5, 8, 1):
            rows = rows_of(engine, toy, texts[:size])
            answers = engine.run(rows)
            merged |= {one.company.merged for one in answers if isinstance(one, Answer) and one.company}
            assert all(first == second for first, second in repeated(fresh, rows, answers))
        assert merged == ({False, True} if merge_after else {False})
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        engine = engine_for([lora])
        rows = rows_of(engine, lora, texts[:6])
        answers = engine.run(rows)
    finally:
        torch.set_num_threads(before)
    assert all(first == second for first, second in repeated(engine_for([lora], slots=1), rows, answers))
    assert torch.get_num_threads() == before


def test_a_pass_that_never_was_is_refused(tiny_model: Path) -> None:
    """A place that is not there, another length at it, or more tokens than a pass takes: one line, no computing."""
    toy = toy_bundle(tiny_model, "lora", {"rank": 2}, seed=1)
    engine = engine_for([toy])
    row = rows_of(engine, toy, [TEXTS[0]])[0]
    answer = engine.run([row])[0]
    assert isinstance(answer, Answer) and answer.company is not None
    company, group = answer.company, answer.company.groups[0]
    for groups, place in (
        (company.groups, 1),
        ((replace(group, tokens=group.tokens + 1),), 0),
        ((group, replace(group, texts=10**9)), 0),
        ((group, replace(group, tokens=10**6)), 0),
    ):
        with pytest.raises(DataError):
            engine.again(row, replace(company, groups=groups), place)


def test_edited_fields_needs_no_store(answered: tuple[Path, dict[str, Any]], bundles: dict[str, Path]) -> None:
    """Digests are plain: anybody sees that a genuine receipt is whole, and which field of another is not."""
    receipt = Receipt.model_validate(answered[1]["alone"])
    assert edited_fields(receipt) == [] and receipt.adapter_digest == digest_of(bundles["news"])
    assert edited_fields(receipt.model_copy(update={"label": "x", "tokens": 99})) == ["tokens", "label"]
    assert edited_fields(receipt.model_copy(update={"seal": None, "merged": None})) == ["merged", "seal"]
