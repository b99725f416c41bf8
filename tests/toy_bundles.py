"""Bundles of toy adapters in memory: certified records, and the plain model whose answers the service must give.

Not here: bundles on disk (`paretune.export.export` makes those). What would be trained is drawn at random, large enough
that the adapters disagree.

    toy = toy_bundle(model_folder, "lora", {"rank": 4}, labels=("a", "b")); store = ToyStore([toy])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from toy_study import CLASSES, toy_rows

from paretune.core.config import JsonObject
from paretune.core.errors import BundleError
from paretune.data.encoding import encode
from paretune.kernels.low_rank import LowRank
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec, model_digest
from paretune.models.surgery import trainable
from paretune.models.tokenizer import read_tokenizer
from paretune.records.bundle import CHECKS, Abstention, Certificate, Check, Golden, Goldens, Manifest
from paretune.serve.bundle import Bundle
from paretune.serve.engine import Engine, Row
from paretune.serve.resident import Answer, Tensors

TEXTS = tuple(text for text, _ in toy_rows(24, seed=5))
MAX_TOKENS = 32


@dataclass(frozen=True)
class ToyBundle:
    """A bundle, its tensors, and the classifier that they come from."""

    bundle: Bundle
    tensors: Tensors
    classifier: EncoderClassifier

    @property
    def digest(self) -> str:
        return self.bundle.digest

    def expected(self, texts: Sequence[str]) -> torch.Tensor:
        """Probabilities (r, c) of the plain classifier, each text alone, in fp32."""
        spec = ModelSpec.model_validate(self.bundle.manifest.model)
        rows = encode(read_tokenizer(spec.source), texts, self.bundle.manifest.max_tokens, spec.text_prefix)
        return alone(self.classifier, rows)

    def with_manifest(self, **changes: object) -> ToyBundle:
        """The same tensors under another manifest."""
        manifest = self.bundle.manifest.model_copy(update=changes)
        return replace(self, bundle=replace(self.bundle, manifest=manifest, digest=manifest.digest))


@torch.no_grad()
def alone(classifier: EncoderClassifier, rows) -> torch.Tensor:
    return torch.cat([classifier(*rows.padded([place])).softmax(-1) for place in range(len(rows))])


def toy_bundle(
    model: Path,
    method: str = "lora",
    settings: Mapping[str, object] | None = None,
    labels: Sequence[str] = CLASSES,
    *,
    seed: int = 0,
    pooling: str = "mean",
    prefix: str = "",
    threshold: float = 0.5,
    temperature: float = 2.0,
    tolerance: float = 1e-4,
    logit_tolerance: float | None = None,
) -> ToyBundle:
    """A certified bundle; its goldens are answers of the plain classifier in fp32."""
    source = f"path:{model}"
    cls = METHODS.load(method)
    chosen = cls.settings_model.model_validate(dict(settings or {}))
    adaptation = cls(chosen)
    assert isinstance(adaptation, Adaptation)
    generator = torch.Generator().manual_seed(seed)
    classifier = EncoderClassifier(load_encoder(source), len(labels), pooling).eval()
    adaptation.attach(classifier, generator)
    with torch.no_grad():
        for parameter in trainable(classifier).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.25)
    delta = adaptation.delta(classifier)
    spec = ModelSpec.model_validate({"source": source, "pooling": pooling, "text_prefix": prefix})
    texts = TEXTS[:4]
    rows = encode(read_tokenizer(source), texts, MAX_TOKENS, prefix)
    probabilities_rc = alone(classifier, rows)
    goldens = Goldens(
        fingerprint="0" * 32,
        tolerance=tolerance,
        logit_tolerances=None if logit_tolerance is None else {"fp32": logit_tolerance},
        rows=[
            Golden(text=text, label=labels[int(row.argmax())], probabilities=row.tolist(), served={})
            for text, row in zip(texts, probabilities_rc, strict=True)
        ],
    )
    checks = [Check(name=name, passed=True, value=None, limit=None, detail="toy") for name in CHECKS]
    certificate = Certificate(checks=checks, fingerprint="0" * 32, versions={}, at="2026-11-25T00:00:00+00:00")
    manifest = _manifest(
        name=f"toy-{method}-{seed}",
        method=method,
        settings=chosen.model_dump(mode="json"),
        form="model" if any(not isinstance(one, LowRank) for one in delta.values()) else "adapter",
        seed=seed,
        labels=list(labels),
        spec=spec,
        abstention=_abstention(temperature, threshold),
    )
    head = (classifier.head.weight.detach(), classifier.head.bias.detach())
    bundle = Bundle(Path("nowhere"), manifest, goldens, certificate, manifest.digest)
    return ToyBundle(bundle, (delta, *head), classifier)


def _abstention(temperature: float, threshold: float) -> Abstention:
    return Abstention(
        temperature=temperature,
        threshold=threshold,
        target_risk=0.1,
        reachable=True,
        validation_rows=100,
        test_coverage=0.9,
        test_risk=0.1,
        curve=[],
    )


def _manifest(
    *,
    name: str,
    method: str,
    settings: JsonObject,
    form: str,
    seed: int,
    labels: list[str],
    spec: ModelSpec,
    abstention: Abstention,
) -> Manifest:
    return Manifest.model_validate(
        {
            "name": name,
            "study": "toy",
            "run_id": "0" * 16,
            "method": method,
            "kind": method,
            "settings": settings,
            "form": form,
            "seed": seed,
            "labels": labels,
            "model": spec.model_dump(mode="json"),
            "base_digest": model_digest(spec.source),
            "tokenizer_sha256": "0" * 64,
            "data_digest": "0" * 64,
            "max_tokens": MAX_TOKENS,
            "precision": "fp32",
            "scores": [],
            "why": {},
            "cost": {},
            "licences": [],
            "abstention": abstention,
            "paretune_version": "0",
            "files": {},
        }
    )


class ToyStore:
    """Bundles by digest, as the registry would fetch them; counts the reads."""

    def __init__(self, toys: Iterable[ToyBundle]) -> None:
        self.toys = {toy.digest: toy for toy in toys}
        self.fetched: list[str] = []

    def fetch(self, digest: str) -> Bundle:
        self.fetched.append(digest)
        if digest not in self.toys:
            raise BundleError(f"no bundle {digest[:12]}")
        return self.toys[digest].bundle

    def read(self, bundle: Bundle) -> Tensors:
        return self.toys[bundle.digest].tensors


def engine_for(toys: Sequence[ToyBundle], precision: str = "fp32", slots: int = 8, merge_after: int = 0) -> Engine:
    store = ToyStore(toys)
    spec = ModelSpec.model_validate(toys[0].bundle.manifest.model)
    return Engine(spec, precision, slots, fetch=store.fetch, read=store.read, merge_after=merge_after)


def rows_of(engine: Engine, toy: ToyBundle, texts: Sequence[str]) -> list[Row]:
    return [Row(toy.digest, ids) for ids in engine.tokens(toy.digest, texts)]


def probabilities(outcomes: Sequence[Answer | Exception]) -> list[tuple[float, ...]]:
    assert all(isinstance(one, Answer) for one in outcomes), outcomes
    return [one.probabilities for one in outcomes if isinstance(one, Answer)]


def assert_close(found: Sequence[Sequence[float]], expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=atol)
