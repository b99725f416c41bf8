"""A run, or the run that a study supports, as a certified bundle or as files for plain peft or transformers.

Everything is made in a temporary folder beside the place it goes to, proven in clean processes, and moved there at the
end: what cannot be proven leaves nothing behind. Not here: the choice (`choose.py`), the checks (`certify.py`), words
of the card (`card.py`).

    export(Path("runs/demo"), Path("bundles/demo"), "bundle", best=True).digest
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from paretune.core.disk import cannot_write
from paretune.core.errors import BundleError, ConfigError, RecordError, StorageError, said
from paretune.export.card import card
from paretune.export.certify import certify, failures, readme_check, recheck
from paretune.export.choose import Choice, choose_run, chosen_by_hand
from paretune.export.evidence import cost_of
from paretune.export.extract import extract
from paretune.export.fresh import in_fresh_process
from paretune.export.inference import measure_inference
from paretune.export.int8 import Variant, measure_int8, write_int8
from paretune.export.manifest import Order, card_facts, draft_manifest, loading_of
from paretune.export.plain import LABELS_FILE, check_snippet, write_merged, write_peft
from paretune.export.snippets import To, code
from paretune.export.targets import FORMS
from paretune.export.trained import check_exportable, scored_model, study_folder_of
from paretune.records.bundle import Check
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.facts import gather
from paretune.serve.bundle import (
    CERTIFICATE_FILE,
    GOLDENS_FILE,
    HEAD_FILE,
    MANIFEST_FILE,
    README_FILE,
    check_draft,
    seal,
)
from paretune.serve.names import id_of


@dataclass(frozen=True)
class Exported:
    """What lies where, and why it was chosen; `digest` and `checks` are a bundle's. `gap` is the largest difference of
    a probability to the run's own model, by the README's code in plain peft or transformers; `int8` has one entry a
    number format."""

    path: Path
    to: To
    method: str
    run_id: str
    why: dict[str, str]
    decided: bool
    digest: str | None = None
    checks: list[Check] = field(default_factory=list[Check])
    gap: float | None = None
    int8: list[Variant] = field(default_factory=list[Variant])


def export(
    source: Path,
    out: Path,
    to: To = "bundle",
    *,
    best: bool = False,
    memory_bytes: int | None = None,
    seconds: float | None = None,
    lang: str = "en",
    int8: bool = False,
    force: bool = False,
    target_risk: float | None = None,
    inference: bool = True,
    every: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Export a RUN folder, or with `best` the run that a STUDY's statistics support within the budget.

    `target_risk` is what the abstention threshold is fitted for (half the validation's expected risk by default). With
    `inference`, what answering costs is measured for the run that is exported (for a run of `every` method of its
    study), and kept in the study's folder.

    Raises:
        ConfigError: nothing to export, or settings that do not go together.
        BundleError: a check failed; the message names it, and nothing is left behind.
        StorageError: `out` is taken or cannot be written.
    """
    if to not in FORMS:
        raise ConfigError(said(f"--to {to}", "one of " + ", ".join(FORMS)))
    if int8 and to != "merged":
        raise ConfigError(said(f"--int8 with --to {to}", "--to merged: bundles are served in bf16 or fp32"))
    if target_risk is not None and not 0 <= target_risk <= 1:
        raise ConfigError(said(f"target risk {target_risk:g}", "a share, 0 to 1"))
    choice = _chosen(source, best, memory_bytes, seconds, lang)
    spec = check_exportable(choice.run)
    check_free(out, force)
    study = StudyFolder(study_folder_of(choice.run))
    with _part(out) as part:
        name = id_of(f"{spec.study}-{spec.method}")
        order = Order(choice, gather(study), part, name, target_risk, say)
        exported = _bundle(order, out) if to == "bundle" else _plain(order, out, to, int8)
        _move(part, out)
    if inference:
        measure_inference(study, say, None if every else exported.run_id)
    return exported


def _chosen(source: Path, best: bool, memory_bytes: int | None, seconds: float | None, lang: str) -> Choice:
    if (source / "spec.json").is_file():
        if best or memory_bytes is not None or seconds is not None:
            raise ConfigError(said(f"--best or a budget with the run {source.name}", "a STUDY folder to choose from"))
        return chosen_by_hand(RunFolder(source.resolve()))
    if not (source / "study.json").is_file():
        given = f"{source} holds neither a study nor a run"
        raise RecordError(said(given, "runs/NAME, or runs/NAME/runs/ID"))
    if not best:
        raise ConfigError(said(f"the study {source.name} without --best", f"--best, or {source}/runs/ID of one run"))
    return choose_run(StudyFolder(source), memory_bytes, seconds, lang)


def check_free(out: Path, force: bool) -> None:
    """Whether an export may go there: nothing, an empty folder, or with `force` an earlier export.

    Raises:
        StorageError: something else is there.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise StorageError(said(f"{out} is no folder", "a new folder for --out"))
    if not out.exists() or not any(out.iterdir()):
        return
    ours = (out / MANIFEST_FILE).is_file() or ((out / LABELS_FILE).is_file() and (out / HEAD_FILE).is_file())
    if not force or not ours:
        do = "--force replaces it" if ours else "choose another folder"
        raise StorageError(said(f"{out} is not empty", "a new or empty folder for --out", do=do))


@contextmanager
def _part(out: Path) -> Generator[Path]:
    """A folder beside `out` to be filled; whatever is left of it is cleared away."""
    part = out.parent / f".{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(out.parent, error) from error
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _move(part: Path, out: Path) -> None:
    for file in part.rglob("*"):
        if file.is_file():
            file.chmod(0o644)  # safetensors writes 0600, and a container reads as another user
    old = out.parent / f".{out.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.rename(out, old)
    os.rename(part, out)
    shutil.rmtree(old, ignore_errors=True)


def _bundle(order: Order, out: Path) -> Exported:
    order.say("taking the adapter out of its run")
    words = in_fresh_process(extract, order.run.path, order.part)
    draft = draft_manifest(order)
    try:
        check_draft(draft)
    except BundleError as error:
        do = "change it in the data or the study file; nothing was written"
        raise BundleError(f"run {order.run.id} ({order.choice.method}) fits no bundle: {error} — {do}") from None
    order.say("certifying in a clean process: moved, matters, reloads, head present, merge parity, goldens, tokens")
    evidence = in_fresh_process(certify, order.run.path, order.part, words, draft, order.target_risk)
    failed = failures(evidence.certificate)
    if failed or evidence.goldens is None or evidence.abstention is None:
        raise BundleError(_refusal(order, failed))
    manifest = draft.model_copy(update={"abstention": evidence.abstention, "domain": evidence.domain})
    _write(order.part / GOLDENS_FILE, evidence.goldens.model_dump_json(indent=1))
    order.say("running the README's code in a clean process")
    text = code(loading_of(order, "bundle"))
    readme = in_fresh_process(readme_check, order.run.path, order.part, words, manifest, evidence, text)
    evidence = evidence.with_check(readme)
    if not readme.passed:
        raise BundleError(_refusal(order, [readme]))
    _write(order.part / CERTIFICATE_FILE, evidence.certificate.model_dump_json(indent=1))
    _write(order.part / README_FILE, card(card_facts(order, "bundle", manifest.cost, evidence)))
    sealed = seal(order.part, manifest)
    order.say("reading the bundle as a server does")
    digest = in_fresh_process(recheck, order.part)
    assert digest == sealed.digest
    return Exported(
        path=out,
        to="bundle",
        method=order.choice.method,
        run_id=order.run.id,
        why=order.choice.why,
        decided=order.choice.decided,
        digest=digest,
        checks=evidence.certificate.checks,
    )


def _refusal(order: Order, failed: list[Check]) -> str:
    reasons = "; ".join(
        f"{one.name}: {one.detail}"
        + (f" {one.value:.3g}, limit {one.limit:g}" if one.value is not None and one.limit is not None else "")
        for one in failed
    )
    given = f"run {order.run.id} ({order.choice.method}) earns no certificate: {reasons or 'no evidence'}"
    return said(given, "every check passed", do="nothing was written")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _plain(order: Order, out: Path, to: To, int8: bool) -> Exported:
    """Files for plain peft or transformers, loaded there once in a clean process."""
    write = write_peft if to == "peft" else write_merged
    order.say(f"writing files for plain {'peft' if to == 'peft' else 'transformers'}")
    in_fresh_process(write, order.run.path, order.part)
    order.say("running the README's code in a clean process")
    gap = in_fresh_process(check_snippet, order.run.path, order.part, code(loading_of(order, to)))
    variants: list[Variant] = []
    if int8:
        order.say("rounding the linear maps to int8, and measuring")
        in_fresh_process(write_int8, order.part, scored_model(order.run).pooling)
        variants = in_fresh_process(measure_int8, order.run.path, order.part, order.facts.metric)
    size = sum(file.stat().st_size for file in order.part.glob("*.safetensors"))
    _write(order.part / README_FILE, card(card_facts(order, to, cost_of(order.facts, order.run, size), None, int8)))
    return Exported(
        path=out,
        to=to,
        method=order.choice.method,
        run_id=order.run.id,
        why=order.choice.why,
        decided=order.choice.decided,
        gap=gap,
        int8=variants,
    )
