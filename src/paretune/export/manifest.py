"""What an export says of itself: the manifest before certification, and the facts of its card, from records alone.

Not here: the checks (`certify.py`), the words (`card.py`), moving files into place (`export.py`).

    draft_manifest(order).scores[0].mean
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paretune import __version__
from paretune.core.config import validated
from paretune.data.prepare import load
from paretune.export.card import CardFacts, languages_of
from paretune.export.certify import Evidence
from paretune.export.choose import Choice
from paretune.export.evidence import base_name, cost_of, licences_of, scores_of
from paretune.export.snippets import Loading, To
from paretune.export.trained import scored_model, study_folder_of
from paretune.models.loading import build_of, read_config
from paretune.models.sources import ModelSpec, model_folder, parse_source
from paretune.models.tokenizer import read_tokenizer, tokenizer_file
from paretune.records.bundle import Abstention, Manifest
from paretune.records.store import RunFolder
from paretune.report.facts import StudyFacts
from paretune.serve.bundle import ADAPTER_FILE, HEAD_FILE, entry_of, form_of, read_delta
from paretune.train.loop import TrainSpec


@dataclass(frozen=True)
class Order:
    """One export: the choice, the study's facts, and where files are made before they are moved."""

    choice: Choice
    facts: StudyFacts
    part: Path
    name: str
    target_risk: float | None
    say: Callable[[str], None]

    @property
    def run(self) -> RunFolder:
        return self.choice.run


def draft_manifest(order: Order) -> Manifest:
    """The manifest but for abstention and the files' hashes, which only certification knows."""
    spec = order.run.spec()
    model = scored_model(order.run)
    train = validated(spec.train, TrainSpec, "train")
    size = sum((order.part / name).stat().st_size for name in (ADAPTER_FILE, HEAD_FILE))
    nothing = Abstention(
        temperature=1.0, threshold=0.0, target_risk=0.0, reachable=False, validation_rows=0, test_coverage=1.0,
        test_risk=0.0, curve=[],
    )  # fmt: skip
    return Manifest(
        name=order.name,
        study=spec.study,
        run_id=order.run.id,
        method=spec.method,
        kind=spec.kind,
        settings=spec.settings,
        form="adapter" if form_of(read_delta(order.part / ADAPTER_FILE)) == "adapter" else "model",
        seed=spec.seed,
        labels=list(load(study_folder_of(order.run) / "data").labels),
        model=_found_from_anywhere(model).model_dump(mode="json"),
        base_digest=spec.model_digest,
        tokenizer_sha256=entry_of(tokenizer_file(model.source)).sha256,
        data_digest=spec.data_digest,
        max_tokens=train.max_tokens,
        precision="bf16" if order.run.measurements().precision == "bf16" else "fp32",
        scores=scores_of(order.facts, order.run),
        why=order.choice.why,
        cost=cost_of(order.facts, order.run, size),
        licences=licences_of(spec),
        abstention=nothing,
        paretune_version=__version__,
        files={},
    )


def _found_from_anywhere(model: ModelSpec) -> ModelSpec:
    """The table with a whole path: a bundle is read in other working folders than the study was."""
    if parse_source(model.source)[0] != "path":
        return model
    return model.model_copy(update={"source": f"path:{model_folder(model.source)}"})


def loading_of(order: Order, to: To, int8: bool = False) -> Loading:
    """What the README's code depends on."""
    spec = order.run.spec()
    model = scored_model(order.run)
    kind, _, revision = parse_source(model.source)
    tokenizer = read_tokenizer(model.source)
    return Loading(
        to=to,
        base=base_name(spec),
        revision=revision or "",
        build=build_of(read_config(model.source)),
        pooling=model.pooling,
        prefix=model.text_prefix,
        max_tokens=validated(spec.train, TrainSpec, "train").max_tokens,
        pad_id=tokenizer.pad_id,
        cut=tokenizer.cut,
        on_hub=kind == "hub",
        int8=int8,
    )


def card_facts(
    order: Order, to: To, cost: dict[str, float], evidence: Evidence | None = None, int8: bool = False
) -> CardFacts:
    """What the README says; a certificate and a threshold are a bundle's."""
    spec = order.run.spec()
    data = load(study_folder_of(order.run) / "data")
    return CardFacts(
        name=order.name,
        study=spec.study,
        kind=spec.kind,
        settings=spec.settings,
        seed=spec.seed,
        labels=data.labels,
        loading=loading_of(order, to, int8),
        scores=scores_of(order.facts, order.run),
        cost=cost,
        licences=licences_of(spec),
        why=order.choice.why,
        languages=languages_of(data.splits["validation"].texts),
        abstention=evidence.abstention if evidence else None,
        certificate=evidence.certificate if evidence else None,
        domain=evidence.domain if evidence else None,
    )
