"""Receipts of answers, and computing an answer again from its receipt, offline and alone.

Not here: how an answer came about in the server. Bits may be equal only under the same numerics and the same company
in the batch; else the probabilities must agree within the bundle's tolerance.

    replay(Path("receipt.json"), Path("store")).verdict
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from paretune.core.config import JsonObject, validated
from paretune.core.errors import RecordError, said
from paretune.models.sources import ModelSpec
from paretune.repro.probe import numerics_fingerprint
from paretune.serve.answering import Answered
from paretune.serve.bundle import hexed
from paretune.serve.engine import Engine, Row
from paretune.serve.resident import Answer
from paretune.serve.shapes import Receipt
from paretune.serve.shelf import Shelf

Verdict = Literal["bit-equal", "within tolerance", "different"]
MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class ReplayResult:
    """What came out: `difference` is the largest of a probability, `reasons` say what was not the same."""

    verdict: Verdict
    label: str
    receipt_label: str
    difference: float
    tolerance: float
    reasons: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """The same label, and probabilities within the tolerance."""
        return self.verdict != "different"


def make_receipt(
    answered: Answered, label: str, request_id: str, truncate: bool, engine: Engine, fingerprint: str
) -> Receipt:
    """The receipt of one answer."""
    manifest, answer = answered.bundle.manifest, answered.answer
    return Receipt(
        request_id=request_id,
        text=answered.wanted.text,
        truncate=truncate,
        tokens=len(answered.tokens.input_ids),
        adapter_digest=answered.bundle.digest,
        base_digest=engine.base_digest,
        tokenizer_sha256=manifest.tokenizer_sha256,
        precision=engine.precision,
        fingerprint=fingerprint,
        labels=list(manifest.labels),
        label=label,
        probabilities=hexed(answer.probabilities),
        batch=list(answer.batch),
    )


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
        _ = [unhexed(one) for one in receipt.probabilities]
    except (ValidationError, ValueError, struct.error) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(said(f"{path} is no receipt ({reason})", "what the service gave with an answer")) from None
    if len(receipt.probabilities) != len(receipt.labels) or receipt.label not in receipt.labels:
        raise RecordError(said(f"{path}: labels and probabilities do not belong together", "an unchanged receipt"))
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


def replay(receipt: Path, store: Path) -> ReplayResult:
    """Compute an answer again from its receipt and the store's bundle, the text alone in its batch.

    Raises:
        RecordError: the file is no receipt.
        BundleError: the store has no such bundle, or it is damaged.
    """
    given = read_receipt(receipt)
    shelf = Shelf(store)
    bundle = shelf.fetch(given.adapter_digest)
    manifest = bundle.manifest
    spec = validated(manifest.model, ModelSpec, "the bundle's model")
    engine = Engine(spec, precision=given.precision, slots=1, fetch=shelf.fetch)
    reasons = _other_than(given, engine.base_digest, manifest.tokenizer_sha256, manifest.labels)
    tokens = engine.encode(bundle.digest, [given.text])[0]
    if len(tokens.input_ids) != given.tokens:
        reasons.append(f"the text has {len(tokens.input_ids)} tokens instead of {given.tokens}")
    answer = engine.run([Row(bundle.digest, tokens.input_ids)])[0]
    if not isinstance(answer, Answer):
        reason = f"no answer now: {answer}"
        return ReplayResult("different", "", given.label, float("inf"), bundle.goldens.tolerance, (*reasons, reason))
    return _compared(given, answer, manifest.labels, bundle.goldens.tolerance, reasons)


def _other_than(given: Receipt, base: str, tokenizer: str, labels: list[str]) -> list[str]:
    """What is not as it was when the answer was given."""
    found: list[str] = []
    if given.base_digest != base:
        found.append(f"the base model is {base[:12]}… instead of {given.base_digest[:12]}…")
    if given.tokenizer_sha256 != tokenizer:
        found.append("the tokenizer is another one")
    if given.labels != labels:
        found.append("the labels are others")
    if (now := numerics_fingerprint()) != given.fingerprint:
        found.append(f"the numerics are {now[:12]}… instead of {given.fingerprint[:12]}…")
    if len(given.batch) > 1:
        found.append(f"the batch held {len(given.batch)} adapters, the replay has one")
    return found


def _compared(given: Receipt, answer: Answer, labels: list[str], tolerance: float, reasons: list[str]) -> ReplayResult:
    label = labels[answer.probabilities.index(max(answer.probabilities))]
    verdict: Verdict = "different"
    difference = float("inf")
    if len(given.probabilities) == len(answer.probabilities):
        pairs = zip(map(unhexed, given.probabilities), answer.probabilities, strict=True)
        difference = max(abs(one - other) for one, other in pairs)
        if label == given.label and given.labels == labels:
            if hexed(answer.probabilities) == given.probabilities:
                verdict = "bit-equal"
            elif difference <= tolerance:
                verdict = "within tolerance"
    return ReplayResult(verdict, label, given.label, difference, tolerance, tuple(reasons))
