"""Earns a bundle's certificate: eight checks in processes that have nothing but files to go by.

moved: the update changes the base; matters: the output depends on it; reloads: the bundle's files give the logits that
were kept after training; head_present: a whole head; merge_parity: folded into the base's weights it gives the same
logits; goldens: its golden inputs are answered as the run's model answered them, by a model rebuilt here and by the
engine that will serve them; tokens: the engine makes the tokens that training did of validation and odd texts, and the
tokenizer's file alone does; readme: the code of the README, run as it stands, answers validation texts as the run did.
Not here: making files (`extract.py`) or moving them into place (`export.py`).

    evidence = in_fresh_process(certify, run_path, part_folder, words, draft, None)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from paretune.core.config import validated
from paretune.core.errors import BundleError, ParetuneError
from paretune.core.limits import processor_has_bf16
from paretune.data.encoding import Encoded
from paretune.export.domain import fitted_domain
from paretune.export.evidence import abstention_of
from paretune.export.extract import Words
from paretune.export.goldens import SPREAD, choose_goldens, evenly, logit_tolerance
from paretune.export.plain import PROBABILITY_TOLERANCE, asked_places, snippet_gap
from paretune.export.snippets import answers_of
from paretune.export.trained import Setting, kept_logits, setting_of
from paretune.kernels.low_rank import LowRank
from paretune.methods.method import Adaptation, Delta
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision, autocast, chosen_precision
from paretune.models.sources import ModelSpec
from paretune.models.tokenizer import ODD_TEXTS, tokenizer_file
from paretune.records.bundle import CHECKS, Abstention, Certificate, Check, CheckName, Domain, Golden, Goldens, Manifest
from paretune.records.store import RunFolder
from paretune.repro.probe import numerics_fingerprint
from paretune.repro.provenance import provenance
from paretune.repro.seeding import torch_generator
from paretune.serve.alone import beside, fold_in
from paretune.serve.bundle import (
    ADAPTER_FILE,
    CERTIFICATE_FILE,
    DOMAIN_FILE,
    HEAD_FILE,
    README_FILE,
    Bundle,
    entry_of,
    hexed,
    read_bundle,
    read_delta,
    read_head,
    seal,
    write_space,
)
from paretune.serve.engine import Engine, Outcome, Row
from paretune.stats.selective import probabilities
from paretune.study.design import make_method
from paretune.study.desk import REFERENCE_ROWS, RELOAD_TOLERANCE
from paretune.train.evaluate import predict_logits

LEAST_EFFECT = 1e-6
PARITY_TOLERANCE = 1e-4
GOLDEN_TOLERANCE = 1e-4  # of two models in fp32 on one machine; what a server may differ by stands in the bundle
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
NEVER = 2**62  # batches: merged weights give other bits than the same text's first answer in a server
TWIN = "f" * 64  # the same bundle under another digest, to mix with itself
MOST_TOLERANCE_ROWS = 500
NOT_TRIED = "not tried: an earlier check failed"


@dataclass(frozen=True)
class Evidence:
    """What certification found; goldens, abstention and domain are there where the model could be judged at all."""

    certificate: Certificate
    goldens: Goldens | None
    abstention: Abstention | None
    domain: Domain | None

    def with_check(self, check: Check) -> Evidence:
        """With a check that was made later, in its place."""
        checks = [check if one.name == check.name else one for one in self.certificate.checks]
        return replace(self, certificate=self.certificate.model_copy(update={"checks": checks}))


@dataclass
class Desk:
    """What the checks work with; all of it was read here, from files."""

    setting: Setting
    model: EncoderClassifier
    delta: Delta
    words: Words

    @property
    def rows(self) -> Encoded:
        """The validation texts whose logits were kept after training."""
        return self.setting.encoded(self.setting.data.splits["validation"].texts[:REFERENCE_ROWS])

    def logits(self, precision: Precision, rows: Encoded) -> Tensor:
        """Logits of the bundle, its update beside the base's weights."""
        with beside(self.model.encoder, self.delta):
            return predict_logits(self.model, rows, precision)

    def features(self, rows: Encoded) -> Tensor:
        """Features of the base model alone."""
        with torch.inference_mode(), autocast("fp32"):
            return self.model.pooled(*rows.padded(range(len(rows))))

    def adapted_features(self, texts: Sequence[str]) -> Tensor:
        """Features (n, h) that the bundle's head gets; like lengths together, so that little is padded."""
        rows = self.setting.encoded(list(texts))
        order = sorted(range(len(rows)), key=lambda place: len(rows.ids[place]))
        with torch.inference_mode(), autocast("fp32"), beside(self.model.encoder, self.delta):
            parts = [self.model.pooled(*rows.padded(order[at : at + 32])) for at in range(0, len(order), 32)]
        return torch.cat(parts)[torch.tensor(order).argsort()]


def certify(run: Path, folder: Path, words: Words, draft: Manifest, target_risk: float | None) -> Evidence:
    """Check the adapter and head that lie in `folder` against their run; `draft` is the manifest so far.

    Raises:
        ConfigError, BundleError, DataError, AssetError: the run, its data or its base model cannot be used.
    """
    setting = setting_of(RunFolder(run))
    found: dict[CheckName, Check] = {name: _check(name, False, NOT_TRIED) for name in CHECKS}
    try:
        delta = read_delta(folder / ADAPTER_FILE)
        head_ch, bias_c = read_head(folder / HEAD_FILE, len(setting.data.labels))
        desk = Desk(setting, setting.bare(), delta, words)
        _check_head(desk, head_ch, bias_c)
    except BundleError as error:
        found["head_present"] = _check("head_present", False, str(error))
        return Evidence(_certificate(found), None, None, None)
    checks: dict[CheckName, Callable[[Desk], Check]] = {
        "moved": _moved, "matters": _matters, "reloads": _reloads, "merge_parity": _merge_parity,
    }  # fmt: skip
    found["head_present"] = _check("head_present", True, f"weight {tuple(head_ch.shape)}, all finite, not all zero")
    for name, check in checks.items():
        found[name] = check(desk)
        if not found[name].passed:
            return Evidence(_certificate(found), None, None, None)
    abstention = _abstention(desk, target_risk)
    space, domain = fitted_domain(desk.adapted_features, setting.data)
    write_space(folder / DOMAIN_FILE, space)
    files = {name: entry_of(folder / name) for name in (ADAPTER_FILE, HEAD_FILE, DOMAIN_FILE)}
    manifest = draft.model_copy(update={"abstention": abstention, "domain": domain, "files": files})
    found["goldens"], goldens = _goldens(desk, folder, manifest)
    if goldens is not None:
        found["tokens"] = _tokens(desk, folder, manifest, goldens)
    return Evidence(_certificate(found), goldens, abstention, domain)


def _certificate(found: dict[CheckName, Check]) -> Certificate:
    return Certificate(
        checks=[found[name] for name in CHECKS],
        fingerprint=numerics_fingerprint(),
        versions=provenance()["versions"],
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _check(name: CheckName, passed: bool, detail: str, value: float | None = None, limit: float | None = None) -> Check:
    finite = value if value is not None and np.isfinite(value) else None
    return Check(name=name, passed=passed, value=finite, limit=limit, detail=detail)


def _check_head(desk: Desk, head_ch: Tensor, bias_c: Tensor) -> None:
    if head_ch.shape != desk.model.head.weight.shape:
        raise BundleError(f"the head has shape {tuple(head_ch.shape)}, the model {tuple(desk.model.head.weight.shape)}")
    if not bool(head_ch.any()):
        raise BundleError("the head's weights are all zero")
    with torch.no_grad():
        desk.model.head.weight.copy_(head_ch)
        desk.model.head.bias.copy_(bias_c)


def _moved(desk: Desk) -> Check:
    """Updates that change the base; where there is none, the head against the one that training began with."""
    if not desk.delta:
        began = desk.setting.bare()
        method = make_method(desk.setting.spec.kind, desk.setting.spec.settings)
        assert isinstance(method, Adaptation)
        method.attach(began, torch_generator(desk.setting.spec.seed, "init"))
        far = float((began.head.weight - desk.model.head.weight).detach().abs().max())
        return _check("moved", far >= LEAST_EFFECT, "largest change of the head by training", far, LEAST_EFFECT)
    parameters = dict(desk.model.encoder.named_parameters())
    moved = sum(
        bool(update.a_ri.any() and update.b_or.any())
        if isinstance(update, LowRank)
        else name in parameters and not torch.equal(update, parameters[name])
        for name, update in desk.delta.items()
    )
    detail = f"tensors that differ from the base model's, of {len(desk.delta)}"
    return _check("moved", moved > 0, detail, float(moved), 1.0)


def _matters(desk: Desk) -> Check:
    """Features with and without the update; where there is none, logits over different texts."""
    rows = desk.rows
    if not desk.delta:
        logits_nc = desk.logits("fp32", rows)
        spread = float((logits_nc.amax(0) - logits_nc.amin(0)).max())
        return _check("matters", spread >= LEAST_EFFECT, "spread of logits over texts", spread, LEAST_EFFECT)
    without_nh = desk.features(rows)
    with beside(desk.model.encoder, desk.delta):
        with_nh = desk.features(rows)
    far = float((with_nh - without_nh).abs().max())
    return _check("matters", far >= LEAST_EFFECT, "largest change of the features by the update", far, LEAST_EFFECT)


def _reloads(desk: Desk) -> Check:
    """The bundle's logits against those that were kept after training, under the run's precision.

    A low-rank update's scale is folded into it. Where that scale is no power of two, bf16 rounds the product otherwise:
    then the run's own model must give its kept logits, and the bundle that model's in fp32.
    """
    kept_nc = kept_logits(desk.setting.run)
    now_nc = desk.logits(desk.setting.precision, desk.rows)
    worst = float((now_nc - kept_nc).abs().max()) if now_nc.shape == kept_nc.shape else float("inf")
    detail = f"largest difference to the logits kept after training, in {desk.setting.precision}"
    if not worst <= RELOAD_TOLERANCE and desk.setting.precision == "bf16":
        own_nc = torch.from_numpy(desk.words.validation_nc["fp32"][:REFERENCE_ROWS])
        gap = float((desk.logits("fp32", desk.rows) - own_nc).abs().max())
        detail = (
            f"larger of: the run's model to the logits kept after training (bf16, {desk.words.reference_gap:.2g}); the "
            f"bundle to the run's model (fp32, {gap:.2g}); the bundle in bf16 is {worst:.2g} off"
        )
        worst = max(gap, desk.words.reference_gap)
    return _check("reloads", worst <= RELOAD_TOLERANCE, detail, worst, RELOAD_TOLERANCE)


def _merge_parity(desk: Desk) -> Check:
    beside_nc = desk.logits("fp32", desk.rows)
    folded = desk.setting.bare()
    folded.head.load_state_dict(desk.model.head.state_dict())
    fold_in(folded.encoder, desk.delta)
    worst = float((predict_logits(folded, desk.rows, "fp32") - beside_nc).abs().max())
    detail = "largest difference of fp32 logits, update folded in against beside"
    return _check("merge_parity", worst <= PARITY_TOLERANCE, detail, worst, PARITY_TOLERANCE)


def _abstention(desk: Desk, target_risk: float | None) -> Abstention:
    data, words = desk.setting.data, desk.words
    index = {label: place for place, label in enumerate(data.labels)}
    validation, test = ([index[one] for one in data.splits[split].labels] for split in ("validation", "test"))
    return abstention_of(words.validation_nc[words.precision], validation, words.test_nc, test, target_risk)


def _goldens(desk: Desk, folder: Path, draft: Manifest) -> tuple[Check, Goldens | None]:
    """Choose golden inputs by what the run's model said, and answer them from the bundle's files alone."""
    texts, labels = desk.setting.data.splits["validation"].texts, desk.setting.data.labels
    told_nc = probabilities(desk.words.validation_nc["fp32"])
    places, tolerance = choose_goldens(told_nc, probabilities(desk.words.validation_nc["bf16"]), texts)
    if not places:
        detail = f"no validation text has its two largest probabilities more than {4 * tolerance:.2g} apart"
        return _check("goldens", False, detail, 0.0, 1.0), None
    chosen = [texts[place] for place in places]
    now_nc = probabilities(desk.logits("fp32", desk.setting.encoded(chosen)).numpy())
    worst = float(np.abs(now_nc - told_nc[places]).max())
    same = bool((now_nc.argmax(axis=1) == told_nc[places].argmax(axis=1)).all())
    if not same or not worst <= GOLDEN_TOLERANCE:
        detail = "largest difference of a golden probability to the run's own model"
        return _check("goldens", False, detail, worst, GOLDEN_TOLERANCE), None
    rows = [
        Golden(text=text, label=labels[int(row_c.argmax())], probabilities=row_c.tolist(), served={})
        for text, row_c in zip(chosen, told_nc[places], strict=True)
    ]
    goldens = Goldens(fingerprint=numerics_fingerprint(), tolerance=tolerance, rows=rows)
    try:
        bundle = Bundle(folder, draft, goldens, _none_yet(), draft.digest)
        served = {one: _served(bundle, one) for one in here()}
        tolerances = {one: _logit_tolerance(desk, bundle, one) for one in PRECISIONS}
    except ParetuneError as error:
        return _check("goldens", False, f"by the engine: {error}", worst, GOLDEN_TOLERANCE), None
    rows = [
        row.model_copy(update={"served": {one: hexed(found[place]) for one, found in served.items()}})
        for place, row in enumerate(rows)
    ]
    apart = ", ".join(f"{value:.2g} in {precision}" for precision, value in tolerances.items())
    detail = (
        f"{len(rows)} golden inputs answered alike, and by the engine in {' and '.join(served)}; alone, in batches, "
        f"mixed and merged the logits of any text may be apart by {apart}"
    )
    found = goldens.model_copy(update={"rows": rows, "logit_tolerances": tolerances})
    return _check("goldens", True, detail, worst, GOLDEN_TOLERANCE), found


def _tokens(desk: Desk, folder: Path, draft: Manifest, goldens: Goldens) -> Check:
    """Ids of the engine, of training and of the tokenizer's file with nothing of ours around it."""
    setting = desk.setting
    texts = [*setting.data.splits["validation"].texts, *ODD_TEXTS]
    engine = _engine(Bundle(folder, draft, goldens, _none_yet(), draft.digest), "fp32")
    witness = Tokenizer.from_file(str(tokenizer_file(setting.model_spec.source)))
    witness.no_padding()
    witness.enable_truncation(setting.max_tokens, direction=setting.tokenizer.cut)
    trained, served = setting.encoded(texts).ids, engine.tokens(draft.digest, texts)
    odd = 0
    for text, *ids in zip(texts, trained, served, strict=True):
        alone = tuple(witness.encode(setting.model_spec.text_prefix + text).ids)
        odd += any(one != alone for one in ids)
    detail = f"of {len(texts)} validation and odd texts so many have other tokens than in training"
    return _check("tokens", odd == 0, detail, float(odd), 0.0)


def readme_check(run: Path, folder: Path, words: Words, manifest: Manifest, evidence: Evidence, text: str) -> Check:
    """The code of a bundle's README, run in a copy that is sealed as the bundle will be."""
    assert evidence.goldens is not None
    validation = setting_of(RunFolder(run)).data.splits["validation"].texts
    places = asked_places(len(validation))
    precision: Precision = chosen_precision("auto", in_cpp=False)
    told_nc = {one: probabilities(words.validation_nc[one][places]) for one in ("fp32", precision)}
    spread = float(np.abs(told_nc[precision] - told_nc["fp32"]).max())
    limit = max(PROBABILITY_TOLERANCE, SPREAD * spread)
    passed = [one.model_copy(update={"passed": True}) for one in evidence.certificate.checks]
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-readme-") as place:
        there = Path(place)
        for file in folder.iterdir():
            os.link(file, there / file.name)
        certificate = evidence.certificate.model_copy(update={"checks": passed})
        (there / CERTIFICATE_FILE).write_text(certificate.model_dump_json(), encoding="utf-8")
        (there / README_FILE).write_text(text, encoding="utf-8")
        seal(there, manifest)
        try:
            found_nc = answers_of(text, there, [validation[place] for place in places], manifest.labels)
            gap = snippet_gap(found_nc, told_nc["fp32"], limit)
        except BundleError as error:
            return _check("readme", False, str(error))
    detail = f"largest difference of a probability, over {len(places)} validation texts, to the run's own model"
    return _check("readme", True, detail, gap, limit)


def here() -> list[Precision]:
    """The precisions in which this machine serves."""
    return ["fp32", "bf16"] if processor_has_bf16() else ["fp32"]


def _none_yet() -> Certificate:
    return Certificate(checks=[], fingerprint="", versions={}, at="")


def _engine(bundle: Bundle, precision: Precision, merge_after: int = NEVER) -> Engine:
    """An engine that has this bundle under its own digest and under any other."""
    spec = validated(bundle.manifest.model, ModelSpec, "model")
    return Engine(
        spec, precision, slots=2, fetch=lambda digest: replace(bundle, digest=digest), merge_after=merge_after
    )


def _served(bundle: Bundle, precision: Precision) -> list[tuple[float, ...]]:
    """What the engine answers to each golden input alone.

    Raises:
        BundleError, RunError: the engine would not serve this bundle.
    """
    engine = _engine(bundle, precision)
    engine.check(bundle, certified=False)
    return served_probabilities(engine, bundle.digest, [row.text for row in bundle.goldens.rows])


def _logit_tolerance(desk: Desk, bundle: Bundle, precision: Precision) -> float:
    """How far apart two logits of one text may be: by every way in which the engine can come to them.

    On validation texts as they come, those near a boundary too: each alone, all in batches, mixed with another adapter,
    and with the update merged, against the run's own model in fp32. Of a precision in which this machine does not serve
    the run's own model stands for all ways.

    Raises:
        what the engine gave in place of an answer.
    """
    texts = desk.setting.data.splits["validation"].texts
    places = evenly(len(texts), MOST_TOLERANCE_ROWS)
    own_nc = desk.words.validation_nc["fp32"][places]
    if precision not in here():
        return logit_tolerance(own_nc, [desk.words.validation_nc[precision][places]])
    engine = _engine(bundle, precision)
    ids = engine.tokens(bundle.digest, [texts[place] for place in places])
    rows, twin = [Row(bundle.digest, one) for one in ids], [Row(TWIN, one) for one in ids]
    mixed = [pair[place % 2] for place, pair in enumerate(zip(rows, twin, strict=True))]
    ways = [[outcome for row in rows for outcome in engine.run([row])], engine.run(rows), engine.run(mixed)]
    merging = _engine(bundle, precision, merge_after=1)
    ways += [merging.run(rows), [outcome for row in rows for outcome in merging.run([row])]]
    return logit_tolerance(own_nc, [np.array([_logits(outcome) for outcome in way]) for way in ways])


def _logits(outcome: Outcome) -> tuple[float, ...]:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome.logits


def served_probabilities(engine: Engine, digest: str, texts: list[str]) -> list[tuple[float, ...]]:
    """Probabilities of each text, each in a pass of its own.

    Raises:
        what the engine gave in place of an answer.
    """
    found: list[tuple[float, ...]] = []
    for text in texts:
        outcome = engine.run([Row(digest, engine.tokens(digest, [text])[0])])[0]
        if isinstance(outcome, Exception):
            raise outcome
        found.append(outcome.probabilities)
    return found


def recheck(folder: Path) -> str:
    """Read a finished bundle and let the engine check it as a server will, bits included; returns its digest.

    Raises:
        BundleError: says what does not hold.
    """
    bundle = read_bundle(folder)
    for precision in here():
        engine = _engine(bundle, precision)
        engine.check(bundle)
    return bundle.digest


def failures(certificate: Certificate) -> list[Check]:
    """The checks that failed, without those that were not tried because of them."""
    return [one for one in certificate.checks if not one.passed and one.detail != NOT_TRIED]
