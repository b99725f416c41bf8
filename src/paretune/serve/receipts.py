"""Receipts of answers, and computing an answer again from its receipt, offline and alone.

A receipt holds all that decided the answer: what was read, by which weights, merged or not, in which pass, with how
many threads. Replayed on a machine of the same numerics the bits are equal; elsewhere logits agree within what the
bundle's own validation texts showed. Every field has a digest, and the store's key seals them, so a changed field is
named. Not here: how an answer came about in the server.

    replay(Path("receipt.json"), Path("store")).verdict
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from paretune.core.config import JsonObject, canonical_hash, canonical_json, validated
from paretune.core.errors import DataError, RecordError, said
from paretune.models.sources import ModelSpec
from paretune.models.tokenizer import Tokens
from paretune.serve.answering import Answered
from paretune.serve.bundle import Bundle, hexed
from paretune.serve.engine import Engine, Outcome, Row
from paretune.serve.refusals import first_problem
from paretune.serve.resident import Answer, Company, Group
from paretune.serve.shapes import GroupOfTexts, Receipt
from paretune.serve.shelf import KEY_FILE, Shelf

Verdict = Literal["bit-equal", "within tolerance", "different", "edited"]
MOST_BYTES = 4 << 20
DIGITS = 16
SEALED = {"digests", "seal"}


@dataclass(frozen=True)
class ReplayResult:
    """What came out. `difference` is the largest of a logit (of a probability, for a receipt of version 1) and must
    not be above `tolerance`; `edited` names the fields that do not hold, `reasons` say what was not the same.
    `sealed` is None where the seal cannot be checked: no seal, or a store without its key."""

    verdict: Verdict
    label: str
    receipt_label: str
    difference: float
    tolerance: float
    reasons: tuple[str, ...]
    edited: tuple[str, ...] = ()
    sealed: bool | None = None

    @property
    def agrees(self) -> bool:
        """An unchanged receipt, and its answer again within the tolerance."""
        return self.verdict in ("bit-equal", "within tolerance")


def threads_of(answer: Answer) -> int | None:
    """With how many threads an answer was computed, where that is known."""
    return answer.company.threads if answer.company else None


def make_receipt(
    answered: Answered, request_id: str, truncate: bool, engine: Engine, fingerprint: str, key: bytes
) -> Receipt:
    """The receipt of one answer, sealed by the store's key."""
    manifest, answer, company = answered.bundle.manifest, answered.answer, answered.answer.company
    assert company is not None, "the engine says of every answer how it came about"
    receipt = Receipt(
        request_id=request_id,
        text=answered.wanted.text,
        truncate=truncate,
        tokens=len(answered.tokens.input_ids),
        ids_sha256=ids_digest(answered.tokens.input_ids),
        adapter_digest=answered.bundle.digest,
        base_digest=engine.base_digest,
        tokenizer_sha256=manifest.tokenizer_sha256,
        precision=engine.precision,
        threads=company.threads,
        fingerprint=fingerprint,
        labels=list(manifest.labels),
        label=answer.label(manifest.labels),
        probabilities=hexed(answer.probabilities),
        logits=hexed(answer.logits),
        confidence=answer.confidence,
        abstain=answer.abstain,
        out_of_domain=answer.out_of_domain,
        batch=list(answer.batch),
        groups=[GroupOfTexts(adapter=one.adapter, tokens=one.tokens, texts=one.texts) for one in company.groups],
        place=answer.place,
        merged=company.merged,
    )
    return sealed(receipt, key)


def sealed(receipt: Receipt, key: bytes) -> Receipt:
    """The receipt with digests of its fields, and their seal."""
    digests = _digests(receipt)
    return receipt.model_copy(update={"digests": digests, "seal": _seal(digests, key)})


def _digests(receipt: Receipt) -> dict[str, str]:
    tree = receipt.model_dump(mode="json", exclude=SEALED, exclude_none=True)
    return {name: canonical_hash([name, value])[:DIGITS] for name, value in tree.items()}


def _seal(digests: dict[str, str], key: bytes) -> str:
    return hmac.new(key, canonical_json(dict(digests)).encode(), "sha256").hexdigest()


def ids_digest(ids: Sequence[int]) -> str:
    """SHA-256 (hex) of token ids."""
    return hashlib.sha256(struct.pack(f">{len(ids)}I", *ids)).hexdigest()


def read_receipt(path: Path) -> Receipt:
    """A receipt from a file: the receipt itself, or an answer of /v1/classify with exactly one in it.

    Raises:
        RecordError: neither.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RecordError(said(f"{path} is larger than {MOST_BYTES} bytes", "a receipt"))
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(said(f"{path} cannot be read ({type(error).__name__})", "a receipt as JSON")) from None
    found = _receipts(tree)
    if len(found) != 1:
        raise RecordError(said(f"{path} holds {len(found)} receipts", "one; cut the others out"))
    try:
        receipt = Receipt.model_validate(found[0])
        _ = [unhexed(one) for one in [*receipt.probabilities, *(receipt.logits or [])]]
    except (ValidationError, ValueError, struct.error) as error:
        reason = first_problem(error.errors()) if isinstance(error, ValidationError) else "probabilities or logits"
        raise RecordError(said(f"{path} is no receipt ({reason})", "what the service gave with an answer")) from None
    return receipt


def _receipts(tree: Any) -> list[JsonObject]:
    if not isinstance(tree, dict):
        return []
    if "adapter_digest" in tree:
        return [tree]
    results = tree.get("results", [tree])
    inner = [one.get("receipt") for one in results if isinstance(one, dict)] if isinstance(results, list) else []
    return [one for one in inner if isinstance(one, dict)]


def unhexed(digits: str) -> float:
    """The float32 that `hexed` wrote."""
    return float(struct.unpack(">f", bytes.fromhex(digits))[0])


def edited_fields(receipt: Receipt) -> list[str]:
    """Fields whose digest does not hold; a receipt of version 1 has none, and is checked by `replay` alone."""
    if receipt.schema_version == 1 and receipt.digests is None and receipt.seal is None:
        return []
    now, then = _digests(receipt), receipt.digests or {}
    changed = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    return [*changed, *(["seal"] if receipt.seal is None else [])]


def replay(receipt: Path, store: Path) -> ReplayResult:
    """Compute an answer again from its receipt and the store's bundle, in a pass of the same form.

    Raises:
        RecordError: the file is no receipt.
        BundleError: the store has no such bundle, or it is damaged.
    """
    given = read_receipt(receipt)
    shelf = Shelf(store)
    key = shelf.seal_key()
    seal_holds = None
    edited = edited_fields(given)
    if given.digests is not None and key is not None and "seal" not in edited:
        seal_holds = hmac.compare_digest(_seal(given.digests, key), given.seal or "")
        edited += [] if seal_holds or edited else ["seal"]
    if edited:
        return _edited(given, edited, seal_holds)
    bundle = shelf.fetch(given.adapter_digest)
    edited = _against_bundle(given, bundle)
    if edited:
        return _edited(given, edited, seal_holds)
    spec = validated(bundle.manifest.model, ModelSpec, "the bundle's model")
    engine = Engine(spec, precision=given.precision, slots=1, fetch=shelf.fetch)
    tokens = engine.encode(bundle.digest, [given.text])[0]
    edited = _against_text(given, tokens)
    if edited:
        return _edited(given, edited, seal_holds)
    fingerprint = engine.fingerprint(given.threads)
    reasons = _other_than(given, fingerprint)
    if given.seal is None:
        reasons.append("a receipt of version 1 has no seal: what computing does not decide is not checked")
    elif key is None:
        reasons.append(f"the seal is not checked: the store has no {KEY_FILE}")
    return _compared(given, _again(given, engine, tokens), bundle, fingerprint, reasons, seal_holds)


def _edited(given: Receipt, fields: Sequence[str], seal_holds: bool | None) -> ReplayResult:
    reasons = tuple(_why(one) for one in fields)
    return ReplayResult("edited", "", given.label, math.inf, 0.0, reasons, tuple(fields), seal_holds)


def _why(field: str) -> str:
    if field == "seal":
        return "seal: not that of this store over the receipt's digests"
    return f"{field}: not what the service wrote"


def _against_bundle(given: Receipt, bundle: Bundle) -> list[str]:
    """Fields that the bundle, or the receipt itself, says otherwise."""
    manifest, labels = bundle.manifest, given.labels
    wrong = {
        "base_digest": given.base_digest != manifest.base_digest,
        "tokenizer_sha256": given.tokenizer_sha256 != manifest.tokenizer_sha256,
        "labels": labels != manifest.labels,
        "probabilities": len(given.probabilities) != len(manifest.labels),
        "logits": given.logits is not None and len(given.logits) != len(manifest.labels),
        "batch": given.adapter_digest not in given.batch,
    }
    if not any(wrong.values()):
        values = [unhexed(one) for one in given.probabilities]
        wrong["label"] = given.label != labels[values.index(max(values))]
        wrong["probabilities"] = not all(0 <= one <= 1 for one in values)
    if not any(wrong.values()) and given.logits is not None:
        logits = [unhexed(one) for one in given.logits]
        wrong["logits"] = not all(map(math.isfinite, logits)) or not _is_softmax(
            logits, [unhexed(one) for one in given.probabilities]
        )
    if not any(wrong.values()) and given.groups is not None:
        own = [one.adapter for one in given.groups for _ in range(min(one.texts, MOST_BYTES))]
        at = given.place if given.place is not None else len(own)
        there = own[at] if at < len(own) else len(given.batch)
        wrong["groups"] = there >= len(given.batch) or given.batch[there] != given.adapter_digest
    return [name for name, one in wrong.items() if one]


def _is_softmax(logits: Sequence[float], probabilities: Sequence[float]) -> bool:
    top = max(logits)
    weights = [math.exp(one - top) for one in logits]
    pairs = zip(weights, probabilities, strict=True)
    return all(abs(weight / sum(weights) - probability) < 1e-5 for weight, probability in pairs)


def _against_text(given: Receipt, tokens: Tokens) -> list[str]:
    """Fields that the text, tokenized again, says otherwise."""
    wrong = {
        "tokens": len(tokens.input_ids) != given.tokens,
        "text": given.ids_sha256 is not None and ids_digest(tokens.input_ids) != given.ids_sha256,
        "truncate": tokens.truncated and not given.truncate,
    }
    return [name for name, one in wrong.items() if one]


def _other_than(given: Receipt, now: str) -> list[str]:
    """What is not as it was when the answer was given, though the receipt is unchanged."""
    found: list[str] = []
    if now != given.fingerprint:
        found.append(f"the numerics are {now[:12]}… instead of {given.fingerprint[:12]}…")
    if given.groups is None and len(given.batch) > 1:
        found.append(f"the batch held {len(given.batch)} adapters, the replay has one")
    return found


def _again(given: Receipt, engine: Engine, tokens: Tokens) -> Outcome:
    row = Row(given.adapter_digest, tokens.input_ids)
    if given.groups is None or given.place is None or given.threads is None:
        return engine.run([row])[0]
    groups = tuple(Group(one.adapter, one.tokens, one.texts) for one in given.groups)
    try:
        return engine.again(row, Company(groups, bool(given.merged), given.threads), given.place)
    except DataError as error:
        return error


def _compared(
    given: Receipt, answer: Outcome, bundle: Bundle, fingerprint: str, reasons: list[str], seal_holds: bool | None
) -> ReplayResult:
    labels, tolerances = bundle.manifest.labels, bundle.goldens.logit_tolerances or {}
    if not isinstance(answer, Answer):
        reason = f"no answer now: {answer}"
        return ReplayResult("different", "", given.label, math.inf, 0.0, (*reasons, reason), (), seal_holds)
    tolerance = tolerances.get(given.precision)
    if given.logits is None or tolerance is None:
        then, now, tolerance = given.probabilities, answer.probabilities, bundle.goldens.tolerance
    else:
        then, now = given.logits, answer.logits
    difference = max(abs(unhexed(one) - other) for one, other in zip(then, now, strict=True))
    same_logits = given.logits is not None and hexed(answer.logits) == given.logits
    same_probabilities = hexed(answer.probabilities) == given.probabilities
    if same_logits and given.fingerprint == fingerprint:  # then all that follows from the logits is equal too
        decided = {
            "probabilities": not same_probabilities,
            "confidence": answer.confidence != given.confidence,
            "abstain": answer.abstain != given.abstain,
            "out_of_domain": answer.out_of_domain != given.out_of_domain,
        }
        if any(decided.values()):
            return _edited(given, [name for name, one in decided.items() if one], seal_holds)
    verdict: Verdict = "different"
    if same_probabilities and (same_logits or given.logits is None):
        verdict = "bit-equal"
    elif difference <= tolerance:
        verdict = "within tolerance"
    label = answer.label(labels)
    if verdict == "within tolerance" and label != given.label:
        reasons.append(f"the text lies on a boundary: {given.label!r} and {label!r} are closer than the tolerance")
    return ReplayResult(verdict, label, given.label, difference, tolerance, tuple(reasons), (), seal_holds)
