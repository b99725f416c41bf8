"""Bundles with random adapters for the bench: whole and sealed, so that they go the way of real ones.

Their certificate says in every check that nothing was checked but the goldens, which are the engine's own answers. Not
here: bundles of trained adapters (`export/export.py`). Texts are words of the base's own vocabulary, one token each.

    folders = write_synthetic(Path("/tmp/bench"), ModelSpec(source="asset:minilm-l6"), adapters=16)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from paretune.kernels.low_rank import LowRank
from paretune.methods.method import Delta
from paretune.models.sources import ModelSpec
from paretune.models.tokenizer import read_tokenizer
from paretune.records.bundle import CHECKS, Abstention, Certificate, Check, Golden, Goldens, Manifest
from paretune.serve.bundle import (
    ADAPTER_FILE,
    CERTIFICATE_FILE,
    GOLDENS_FILE,
    HEAD_FILE,
    README_FILE,
    Bundle,
    hexed,
    seal,
    write_delta,
    write_head,
)
from paretune.serve.engine import Engine, Row
from paretune.serve.resident import Answer, Tensors

GOLDEN_TEXTS = 4
TOLERANCE = 0.05
NOTE = "synthetic: made for the bench, checked by nobody"


def random_delta(shapes: Mapping[str, tuple[int, int]], rank: int, generator: torch.Generator) -> Delta:
    """A low-rank update of every linear map, of the size that training leaves; `shapes` are (outputs, inputs)."""
    found: Delta = {}
    for name, (outputs, inputs) in shapes.items():
        a_ri = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        found[name] = LowRank(a_ri, torch.randn(outputs, rank, generator=generator) * 0.02)
    return found


def texts(source: str, count: int, shortest: int, longest: int, seed: int = 0) -> list[str]:
    """Texts of so many tokens, special ones in: words that are one token each, lengths spread evenly."""
    tokenizer = read_tokenizer(source)
    words = sorted(
        word
        for word in (piece.removeprefix("▁") for piece in tokenizer.words)
        if word.isascii() and word.isalpha() and word.islower() and len(word) > 1
    )
    words = [word for word, one in zip(words, tokenizer.encode(words), strict=True) if one.length == 3]
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, size: int) -> list[int]:
        return torch.randint(low, high, (size,), generator=generator).tolist()

    lengths = draw(shortest - 2, longest - 1, count)
    return [" ".join(words[place] for place in draw(0, len(words), length)) for length in lengths]


def write_synthetic(
    folder: Path, spec: ModelSpec, adapters: int, rank: int = 8, precision: Literal["auto", "bf16", "fp32"] = "auto"
) -> list[Path]:
    """Write as many bundles, `synthetic-0` and so on; label sets of two, three and four classes in turn."""
    drafts: dict[str, tuple[Bundle, Tensors]] = {}
    engine = Engine(
        spec,
        precision,
        slots=1,
        fetch=lambda digest: drafts[digest][0],
        read=lambda bundle: drafts[bundle.digest][1],
        merge_after=0,
    )
    golden_texts = texts(spec.source, GOLDEN_TEXTS, 8, 24)
    found: list[Path] = []
    for number in range(adapters):
        generator = torch.Generator().manual_seed(number)
        classes = 2 + number % 3
        head_ch = torch.randn(classes, engine.hidden_size, generator=generator) * 0.2
        tensors = (random_delta(engine.linear_shapes, rank, generator), head_ch, torch.zeros(classes))
        draft = _draft(folder / f"synthetic-{number}", spec, engine, number, rank, classes)
        drafts[draft.digest] = (draft, tensors)
        rows = [Row(draft.digest, ids) for ids in engine.tokens(draft.digest, golden_texts)]
        answers = [engine.run([row])[0] for row in rows]
        goldens = _goldens(golden_texts, draft.manifest.labels, answers, engine)
        _write(replace(draft, goldens=goldens), tensors)
        engine.evict(drafts.popitem()[0])
        found.append(draft.path)
    return found


def _goldens(inputs: Sequence[str], labels: Sequence[str], answers: Sequence[object], engine: Engine) -> Goldens:
    rows: list[Golden] = []
    for text, answer in zip(inputs, answers, strict=True):
        assert isinstance(answer, Answer), answer
        probabilities = answer.probabilities
        label = labels[probabilities.index(max(probabilities))]
        served = {engine.precision: hexed(probabilities)}
        rows.append(Golden(text=text, label=label, probabilities=list(probabilities), served=served))
    return Goldens(fingerprint="", tolerance=TOLERANCE, rows=rows)


def _write(bundle: Bundle, tensors: Tensors) -> None:
    bundle.path.mkdir(parents=True)
    write_delta(bundle.path / ADAPTER_FILE, tensors[0])
    write_head(bundle.path / HEAD_FILE, tensors[1], tensors[2])
    (bundle.path / GOLDENS_FILE).write_text(bundle.goldens.model_dump_json(), encoding="utf-8")
    (bundle.path / CERTIFICATE_FILE).write_text(bundle.certificate.model_dump_json(), encoding="utf-8")
    (bundle.path / README_FILE).write_text(f"# {bundle.manifest.name}\n\n{NOTE}\n", encoding="utf-8")
    seal(bundle.path, bundle.manifest)


def _draft(path: Path, spec: ModelSpec, engine: Engine, number: int, rank: int, classes: int) -> Bundle:
    manifest = Manifest(
        name=path.name,
        study="synthetic",
        run_id=f"{number:016d}",
        method="lora",
        kind="lora",
        settings={"rank": rank},
        form="adapter",
        seed=number,
        labels=[f"class-{place}" for place in range(classes)],
        model=spec.model_dump(mode="json"),
        base_digest=engine.base_digest,
        tokenizer_sha256="0" * 64,
        data_digest="0" * 64,
        max_tokens=min(128, engine.max_tokens),
        precision=engine.precision,
        scores=[],
        why={"en": NOTE, "ru": NOTE},
        cost={},
        licences=[],
        abstention=Abstention(
            temperature=1.0,
            threshold=0.0,
            target_risk=1.0,
            reachable=True,
            validation_rows=0,
            test_coverage=1.0,
            test_risk=1.0,
            curve=[],
        ),
        paretune_version="0",
        files={},
    )
    checks = [Check(name=name, passed=True, value=None, limit=None, detail=NOTE) for name in CHECKS]
    certificate = Certificate(checks=checks, fingerprint="", versions={}, at="")
    return Bundle(path, manifest, Goldens(fingerprint="", tolerance=TOLERANCE, rows=[]), certificate, manifest.digest)
