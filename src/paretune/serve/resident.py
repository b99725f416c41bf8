"""What lies in a slot: the tensors of one bundle, in the engine's number formats, and how they answer.

Not here: reading files (`bundle.py`), slots (`pool.py`). Axes: r texts, h hidden, c classes.

    resident = fitted(base, bundle, tensors); answers = resident.answers(features_rh, batch=("9f86…",))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from paretune.core.config import validated
from paretune.core.errors import BundleError, RunError, said
from paretune.kernels.low_rank import LowRank
from paretune.methods.method import Delta
from paretune.models.classifier import unit_length
from paretune.models.sources import ModelSpec
from paretune.records.bundle import Goldens, Manifest
from paretune.serve.base_model import Base
from paretune.serve.domain import Space

Tensors = tuple[Delta, Tensor, Tensor]  # low-rank updates and replaced parameters, head weight (c, h), head bias (c)


@dataclass(frozen=True)
class Group:
    """`texts` neighbours in a pass, each of so many tokens, all of one adapter (its place in `Answer.batch`)."""

    adapter: int
    tokens: int
    texts: int


@dataclass(frozen=True)
class Company:
    """What the last bits of an answer depend on beside text, weights and machine: who else was in the pass, in which
    order, whether the update was merged into the base's weights, and the number of threads."""

    groups: tuple[Group, ...]
    merged: bool
    threads: int

    @property
    def texts(self) -> int:
        """How many texts the pass had."""
        return sum(one.texts for one in self.groups)


@dataclass(frozen=True)
class Answer:
    """One text's answer. `probabilities` are a plain softmax of `logits`, in the order of the bundle's labels.

    `confidence` is calibrated: the largest probability after dividing by the bundle's temperature; below the bundle's
    threshold `abstain` is true, and where the text is `out_of_domain`: unlike the training texts (None: the bundle
    cannot tell). `batch` names the adapters whose texts were in the same pass, where this text had the
    place `place` among those of `company`.
    """

    digest: str
    probabilities: tuple[float, ...]
    confidence: float
    abstain: bool
    logits: tuple[float, ...] = ()
    queue_seconds: float = 0.0
    batch: tuple[str, ...] = ()
    company: Company | None = None
    place: int = 0
    out_of_domain: bool | None = None

    def label(self, labels: Sequence[str]) -> str:
        """The label of the largest probability, the first of equal ones."""
        return labels[self.probabilities.index(max(self.probabilities))]


@dataclass(frozen=True)
class Resident:
    """One bundle's tensors; `replaced` is empty unless its form is "model"."""

    digest: str
    manifest: Manifest
    goldens: Goldens
    spec: ModelSpec
    updates: dict[str, LowRank]
    replaced: dict[str, Tensor]
    head_ch: Tensor
    head_bias_c: Tensor
    space: Space | None = None

    @property
    def shared(self) -> bool:
        """Whether its texts may lie in one pass with those of others."""
        return not self.replaced

    def pooled(self, hidden_nh: Tensor) -> Tensor:
        """Features (h) of one text from its tokens."""
        match self.spec.pooling:
            case "cls":
                return hidden_nh[0]
            case "cls_unit":
                return unit_length(hidden_nh[0])
            case "mean":
                return hidden_nh.mean(0)
            case "mean_unit":
                return unit_length(hidden_nh.mean(0))
            case "last":
                return hidden_nh[-1]
            case "last_unit":
                return unit_length(hidden_nh[-1])

    def answers(
        self, features_rh: Tensor, batch: tuple[str, ...], company: Company | None = None, first: int = 0
    ) -> list[Answer | Exception]:
        """One answer for each text, the first of which has the place `first` in its pass; a text whose numbers are not
        finite gets an error instead of a random label."""
        abstention = self.manifest.abstention
        logits_rc = functional.linear(features_rh, self.head_ch, self.head_bias_c)
        probabilities_rc = logits_rc.softmax(-1)
        confidence_r = (logits_rc / abstention.temperature).softmax(-1).amax(-1)
        finite_r = torch.isfinite(probabilities_rc).all(-1) & torch.isfinite(confidence_r)
        found: list[Answer | Exception] = []
        rows = zip(
            logits_rc.tolist(),
            probabilities_rc.tolist(),
            confidence_r.tolist(),
            finite_r.tolist(),
            self._out_of_domain(features_rh),
            strict=True,
        )
        for place, (logits, probabilities, confidence, finite, unlike) in enumerate(rows, start=first):
            if finite:
                found.append(
                    Answer(
                        self.digest,
                        tuple(probabilities),
                        confidence,
                        abstain=confidence < abstention.threshold or unlike is True,
                        logits=tuple(logits),
                        batch=batch,
                        company=company,
                        place=place,
                        out_of_domain=unlike,
                    )
                )
            else:
                given = f"{self.manifest.name}: the answer holds NaN or infinity"
                found.append(RunError(said(given, "finite numbers", do="load another version of the adapter")))
        return found

    def _out_of_domain(self, features_rh: Tensor) -> Sequence[bool | None]:
        domain = self.manifest.domain
        if self.space is None or domain is None:
            return [None] * len(features_rh)
        return [not one <= domain.threshold for one in self.space.distances(features_rh).tolist()]  # NaN is unlike too


def fitted(
    base: Base, digest: str, manifest: Manifest, goldens: Goldens, tensors: Tensors, space: Space | None = None
) -> Resident:
    """Check a bundle against the base model, and bring its tensors into the engine's number formats.

    Raises:
        BundleError: made for another base, or tensors whose names, shapes or number do not fit.
    """
    name = manifest.name
    if manifest.base_digest != base.digest:
        given = f"{name} was made for base model {manifest.base_digest[:12]}…"
        raise BundleError(said(given, f"{base.digest[:12]}…, the one that is served"))
    if not 1 <= manifest.max_tokens <= base.max_tokens:
        raise BundleError(said(f"{name}: max_tokens = {manifest.max_tokens}", f"1 to {base.max_tokens}"))
    delta, head_ch, head_bias_c = tensors
    updates, replaced = base.fitted(delta, name)
    form = "model" if replaced else "adapter"
    if form != manifest.form:
        raise BundleError(
            said(f"{name}: form {manifest.form!r} with tensors of form {form!r}", "one and the same form")
        )
    classes = len(manifest.labels)
    if tuple(head_ch.shape) != (classes, base.hidden_size) or tuple(head_bias_c.shape) != (classes,):
        given = f"{name}: the head has shapes {tuple(head_ch.shape)} and {tuple(head_bias_c.shape)}"
        raise BundleError(said(given, f"({classes}, {base.hidden_size}) and ({classes},)"))
    if space is not None and space.means_ch.shape[1] != base.hidden_size:
        given = f"{name}: the domain has {space.means_ch.shape[1]} features"
        raise BundleError(said(given, f"{base.hidden_size}, as the base model"))
    return Resident(
        digest=digest,
        manifest=manifest,
        goldens=goldens,
        spec=validated(manifest.model, ModelSpec, f"{name}: model"),
        updates=updates,
        replaced=replaced,
        head_ch=head_ch.detach().float().clone(),
        head_bias_c=head_bias_c.detach().float().clone(),
        space=space,
    )
