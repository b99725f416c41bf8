"""Typed records of a bundle: what an adapter is, the evidence for it, and the checks that it passed.

Not here: reading, checking or making a bundle (`serve/bundle.py`, `export/export.py`). Its identity is the SHA-256
of its manifest, which holds the hash of every other file.

    Manifest.model_validate_json(Path("bundle/manifest.json").read_text()).digest
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paretune.core.config import JsonObject, Settings, canonical_hash
from paretune.records.schema import is_absent

BUNDLE_VERSION = 1
CheckName = Literal["moved", "matters", "reloads", "head_present", "merge_parity", "goldens", "tokens", "readme"]
EARLIER_CHECKS: tuple[CheckName, ...] = ("moved", "matters", "reloads", "head_present", "merge_parity", "goldens")
CHECKS: tuple[CheckName, ...] = (*EARLIER_CHECKS, "tokens", "readme")


class FileEntry(Settings):
    """One file of a bundle."""

    sha256: str
    bytes: int = Field(ge=0)


class Golden(Settings):
    """An input with its output: probabilities in fp32, in the order of the manifest's labels.

    `served` maps a precision ("fp32", "bf16") to the hexadecimal float32 probabilities that the engine gave for this
    text alone; where the numerics fingerprint is the same they must come out equal bit for bit.
    """

    text: str
    label: str
    probabilities: list[float]
    served: dict[str, list[str]]


class Goldens(Settings):
    """The goldens of a bundle; `tolerance` is the largest difference of a probability that a load accepts.

    `logit_tolerances`: by precision, the largest difference of a logit between two ways of computing the same answer
    (alone, in a batch, mixed with other adapters, merged, on another machine). It is fitted on all validation texts,
    those near a boundary too; bundles from before there was such a field have none.
    """

    fingerprint: str
    tolerance: float
    logit_tolerances: dict[str, float] | None = Field(default=None, exclude_if=is_absent)
    rows: list[Golden]


class Check(Settings):
    """One check of the certificate: the measured value beside its limit, where there are such."""

    name: CheckName
    passed: bool
    value: float | None
    limit: float | None
    detail: str


class Certificate(Settings):
    """What a clean process found; a bundle without it, or with a failed check, is served by nobody."""

    checks: list[Check]
    fingerprint: str
    versions: dict[str, str]
    at: str

    @property
    def passed(self) -> bool:
        """All checks are there and passed; a bundle of an earlier version has those that there were then."""
        names = tuple(one.name for one in self.checks)
        return names in (CHECKS, EARLIER_CHECKS) and all(one.passed for one in self.checks)


class Score(Settings):
    """A metric on one split: the method's mean over seeds with its 95 % interval, and this very model's score."""

    metric: str
    split: str
    mean: float
    low: float | None
    high: float | None
    seeds: int
    this_model: float


class RiskPoint(Settings):
    """On test data, answering only where confidence ≥ `threshold`: share answered, and share wrong of those."""

    threshold: float
    coverage: float
    risk: float


class Abstention(Settings):
    """When to leave an answer to a person: confidence below `threshold`, fitted on validation data.

    Confidence is the largest probability after dividing logits by `temperature`. `target_risk` is what the threshold
    was fitted for; `reachable` is False where no threshold reaches it on validation data.
    """

    temperature: float
    threshold: float
    target_risk: float
    reachable: bool
    validation_rows: int
    test_coverage: float
    test_risk: float
    curve: list[RiskPoint]


class Domain(Settings):
    """When a text is too unlike the training texts to be answered: its distance to them is above `threshold`.

    The threshold was chosen so that at most `share` of texts like the validation texts are flagged.
    Measured were `validation_flagged`, `test_flagged` and `invented_flagged` (of invented strings: all should be).
    """

    threshold: float
    share: float
    validation_rows: int
    validation_flagged: float
    test_rows: int
    test_flagged: float
    invented_rows: int
    invented_flagged: float


class Manifest(Settings):
    """All that a server must know of a bundle. `model` is the study's [model] table; sizes are in bytes.

    `form` says how it is served: "adapter" (low-rank updates and head, or a head alone: shares one batch with others)
    or "model" (trained parameters in place of the base's: a pass of its own). `domain` goes with a file of its own;
    bundles from before there was one have neither.
    """

    schema_version: int = BUNDLE_VERSION
    name: str
    study: str
    run_id: str
    method: str
    kind: str
    settings: JsonObject
    form: Literal["adapter", "model"]
    seed: int
    labels: list[str]
    model: JsonObject
    base_digest: str
    tokenizer_sha256: str
    data_digest: str
    max_tokens: int
    precision: Literal["bf16", "fp32"]
    scores: list[Score]
    why: dict[str, str]
    cost: dict[str, float]
    licences: list[str]
    abstention: Abstention
    domain: Domain | None = Field(default=None, exclude_if=is_absent)
    paretune_version: str
    files: dict[str, FileEntry]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical manifest: the bundle's identity."""
        return canonical_hash(self)
