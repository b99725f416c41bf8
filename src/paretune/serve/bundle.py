"""Reads a bundle and says whether it is whole and certified; seals a new one.

A bundle is a folder: `manifest.json` (whose hash is the bundle's identity and which holds the hash of every other
file), `adapter.safetensors`, `head.safetensors`, `goldens.json`, `certificate.json`, `README.md`, and
`domain.safetensors` where the manifest speaks of a domain. Nothing else may lie in it. Not here: making one
(`export/`), whether it fits a base model and still answers as it did (`engine.py`).
Axes: r rank, i input and o output features, c classes, h hidden.

    bundle = read_bundle(Path("bundles/r8-lora")); delta, head_ch, bias_c = read_tensors(bundle)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from paretune.core.config import JsonObject, validated
from paretune.core.errors import BundleError, ConfigError, said
from paretune.kernels.low_rank import LowRank
from paretune.methods.method import Delta
from paretune.models.sources import ModelSpec
from paretune.records.bundle import BUNDLE_VERSION, Certificate, FileEntry, Goldens, Manifest
from paretune.serve.domain import Space, space_of
from paretune.serve.names import fault_of
from paretune.serve.tensors import open_plain, read_safetensors, write_safetensors

MANIFEST_FILE = "manifest.json"
ADAPTER_FILE = "adapter.safetensors"
HEAD_FILE = "head.safetensors"
GOLDENS_FILE = "goldens.json"
DOMAIN_FILE = "domain.safetensors"
CERTIFICATE_FILE = "certificate.json"
README_FILE = "README.md"
MOST_BYTES = {
    MANIFEST_FILE: 2**20,
    ADAPTER_FILE: 8 * 2**30,
    HEAD_FILE: 2**26,
    DOMAIN_FILE: 2**27,
    GOLDENS_FILE: 2**22,
    CERTIFICATE_FILE: 2**18,
    README_FILE: 2**18,
}
LISTED = tuple(name for name in MOST_BYTES if name not in (MANIFEST_FILE, DOMAIN_FILE))
MOST_NAME = 300
MOST_SENTENCE = 4000
PREFIX = ("model", "text_prefix")  # stands before texts and is shown nowhere
MOST_RANK = 1024
MOST_CLASSES = 10_000
MOST_GOLDENS = 100
LOW_RANK_PARTS = (".lora_A", ".lora_B")

RecordT = TypeVar("RecordT", bound=BaseModel)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are those of its manifest; `digest` is the manifest's."""

    path: Path
    manifest: Manifest
    goldens: Goldens
    certificate: Certificate
    digest: str


def hexed(probabilities: Sequence[float]) -> list[str]:
    """Each number as the hexadecimal of its float32, most significant byte first: equal bits are equal text."""
    return [np.array(value, dtype=">f4").tobytes().hex() for value in probabilities]


def read_bundle(path: Path) -> Bundle:
    """A whole, certified bundle; tensors are checked by `read_tensors`, which reads them.

    Raises:
        BundleError: anything that is not as it should be; one line that names the file and not the folder's path.
    """
    _check_names(path)
    manifest = _record(path / MANIFEST_FILE, Manifest)
    _check_manifest(manifest)
    if manifest.domain is None and (path / DOMAIN_FILE).exists():
        raise BundleError(said(f"{DOMAIN_FILE!r} without a domain in the manifest", "both or neither"))
    for name, entry in manifest.files.items():
        _check_file(path / name, entry)
    goldens = _record(path / GOLDENS_FILE, Goldens)
    _check_goldens(goldens, manifest)
    certificate = _record(path / CERTIFICATE_FILE, Certificate)
    _check_words(certificate.model_dump(mode="json"), CERTIFICATE_FILE)
    if not certificate.passed:
        failed = [one.name for one in certificate.checks if not one.passed]
        given = f"certificate: {failed[0]} failed" if failed else "certificate: not all checks are in it"
        raise BundleError(said(given, "every check passed", do="export it again"))
    return Bundle(path, manifest, goldens, certificate, manifest.digest)


def _check_names(path: Path) -> None:
    """The folder holds the known files, each a plain file, and nothing else."""
    if path.is_symlink() or not path.is_dir():
        given = f"{path.name!r} is {'a symlink' if path.is_symlink() else 'no folder'}"
        raise BundleError(said(given, "a bundle's own folder", do="`paretune export … --to bundle` makes one"))
    with os.scandir(path) as entries:
        found = {entry.name: entry.is_symlink() for entry in entries}
    linked = sorted(name for name, is_link in found.items() if is_link)
    if linked:
        raise BundleError(said(f"{linked[0]!r} is a symlink", "plain files"))
    odd = sorted((found.keys() - {DOMAIN_FILE}) ^ {MANIFEST_FILE, *LISTED})
    if odd:
        given = f"{odd[0][:80]!r} is {'not a file of a bundle' if odd[0] in found else 'missing'}"
        raise BundleError(said(given, "exactly " + ", ".join((MANIFEST_FILE, *LISTED))))


def _record(path: Path, into: type[RecordT]) -> RecordT:
    with open_plain(path, MOST_BYTES[path.name]) as file:
        data = file.read(MOST_BYTES[path.name] + 1)
    try:
        tree = json.loads(data)
        version = tree.get("schema_version", BUNDLE_VERSION)
        if isinstance(version, int) and version > BUNDLE_VERSION:
            given = f"{path.name} has version {version}"
            raise BundleError(said(given, f"at most {BUNDLE_VERSION}", do="update paretune"))
        return into.model_validate_json(data)
    except (ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        reason = _first_problem(error)
        raise BundleError(
            said(f"{path.name} is no {into.__name__} ({reason})", "what `paretune export` wrote")
        ) from None


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])[:80]}: {first['msg']}"
    return "not JSON of that form"


def _check_words(tree: JsonObject, where: str) -> None:
    """Nothing that a page or a terminal would show as something else.

    Raises:
        BundleError: control characters, bidirectional overrides, markup, or more than a name or a sentence.
    """
    for place, text in _words_of(tree, ()):
        most = MOST_SENTENCE if place[0] in ("why", "licences", "model", "settings", "checks") else MOST_NAME
        of_data = place[0] == "labels"
        fault = fault_of(text, most, breaks=of_data or place == PREFIX, markup=of_data or place == PREFIX)
        if fault:
            at = ".".join(place)[:80]
            at = at if at.isprintable() else ascii(at)[1:-1]
            raise BundleError(said(f"{where}: {at} holds {fault}", f"printable words, at most {most} characters"))


def _words_of(tree: object, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string of a tree of JSON, keys too, with where it stands."""
    match tree:
        case str():
            yield place, tree
        case dict():
            for key, value in cast(JsonObject, tree).items():
                yield (*place, key), key
                yield from _words_of(value, (*place, key))
        case list():
            for value in cast(list[object], tree):
                yield from _words_of(value, place)
        case _:
            return  # numbers, true, false, null


def check_draft(draft: Manifest) -> None:
    """Whether a manifest that is still to be sealed has words and labels that `read_bundle` takes.

    Raises:
        BundleError: names the field and what it holds.
    """
    _check_words(draft.model_dump(mode="json"), MANIFEST_FILE)
    if not 2 <= len(draft.labels) <= MOST_CLASSES or len(set(draft.labels)) != len(draft.labels):
        raise BundleError(said(f"manifest.json: {len(draft.labels)} labels", "at least two, none twice"))


def _check_manifest(manifest: Manifest) -> None:
    check_draft(manifest)
    abstention = manifest.abstention
    numbers = [abstention.temperature, abstention.threshold, *manifest.cost.values()]
    if not all(math.isfinite(one) for one in numbers) or abstention.temperature <= 0:
        raise BundleError(said("manifest.json: a number that is not finite, or a temperature not above 0", "numbers"))
    listed = {*LISTED, *([DOMAIN_FILE] if manifest.domain else [])}
    if manifest.files.keys() != listed:
        odd = sorted(manifest.files.keys() ^ listed)[0]
        raise BundleError(said(f"manifest.json: files differ at {odd[:80]!r}", "exactly " + ", ".join(sorted(listed))))
    if manifest.domain and not math.isfinite(manifest.domain.threshold):
        raise BundleError(said("manifest.json: the domain's threshold is not finite", "a number"))
    try:
        validated(manifest.model, ModelSpec, "manifest.json: model")
        _ = manifest.digest
    except ConfigError as error:
        raise BundleError(str(error)) from None
    except ValueError:  # NaN somewhere, which has no canonical spelling
        raise BundleError(said("manifest.json holds NaN or infinity", "finite numbers")) from None


def _check_file(path: Path, entry: FileEntry) -> None:
    with open_plain(path, MOST_BYTES[path.name]) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise BundleError(said(f"{path.name} has {size} bytes", f"{entry.bytes}, as the manifest says"))
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            raise BundleError(said(f"{path.name} was changed", "the content that the manifest names"))


def _check_goldens(goldens: Goldens, manifest: Manifest) -> None:
    if not 1 <= len(goldens.rows) <= MOST_GOLDENS or not 0 < goldens.tolerance < 0.5:
        given = f"goldens.json: {len(goldens.rows)} rows, tolerance {goldens.tolerance:g}"
        raise BundleError(said(given, f"1 to {MOST_GOLDENS} rows, a tolerance above 0 and below 0.5"))
    if not all(0 < one < math.inf for one in (goldens.logit_tolerances or {}).values()):
        raise BundleError(said("goldens.json: a tolerance of logits", "finite numbers above 0"))
    for place, row in enumerate(goldens.rows):
        widths = {len(row.probabilities), *(len(values) for values in row.served.values())}
        if row.label not in manifest.labels or widths != {len(manifest.labels)}:
            raise BundleError(said(f"goldens.json: row {place}", "a label of the manifest, a probability for each"))
        if not all(0 <= one <= 1 for one in row.probabilities):
            raise BundleError(said(f"goldens.json: row {place}: a probability outside 0 … 1", "probabilities"))


def read_tensors(bundle: Bundle) -> tuple[Delta, torch.Tensor, torch.Tensor]:
    """The update of the encoder, head weight (c, h) and head bias (c), as they stand in the manifest.

    Raises:
        BundleError: files changed since, tensors of other names or shapes, or values that are not finite.
    """
    for name in (ADAPTER_FILE, HEAD_FILE):
        _check_file(bundle.path / name, bundle.manifest.files[name])
    delta = read_delta(bundle.path / ADAPTER_FILE)
    form = form_of(delta)
    if form != bundle.manifest.form:
        raise BundleError(said(f"{ADAPTER_FILE} has tensors of form {form!r}", f"{bundle.manifest.form!r}"))
    return delta, *read_head(bundle.path / HEAD_FILE, len(bundle.manifest.labels))


def read_space(bundle: Bundle) -> Space | None:
    """What it takes to tell whether a text is like the training texts; None where the bundle has nothing of it.

    Raises:
        BundleError: as `read_tensors`.
    """
    if bundle.manifest.domain is None:
        return None
    _check_file(bundle.path / DOMAIN_FILE, bundle.manifest.files[DOMAIN_FILE])
    return space_of(read_safetensors(bundle.path / DOMAIN_FILE, MOST_BYTES[DOMAIN_FILE]), DOMAIN_FILE)


def form_of(delta: Delta) -> str:
    """ "adapter" where every update is of low rank (or there is none), else "model"."""
    return "adapter" if all(isinstance(one, LowRank) for one in delta.values()) else "model"


def read_delta(path: Path) -> Delta:
    """Read an adapter file.

    Raises:
        BundleError: not a safetensors file, half an update, matrices that do not fit, or a rank beyond the limit.
    """
    tensors = read_safetensors(path, MOST_BYTES[ADAPTER_FILE])
    delta: Delta = {}
    for key, tensor in tensors.items():
        name, dot, part = key.rpartition(".")
        if dot + part not in LOW_RANK_PARTS:
            delta[key] = tensor
        elif dot + part == ".lora_A":
            delta[name] = _low_rank(name, tensor, tensors.get(f"{name}.lora_B"))
        elif f"{name}.lora_A" not in tensors:
            raise BundleError(said(f"{path.name}: {key!r} without its lora_A", "both halves of an update"))
    return delta


def _low_rank(name: str, a_ri: torch.Tensor, b_or: torch.Tensor | None) -> LowRank:
    if b_or is None:
        raise BundleError(said(f"{ADAPTER_FILE}: {name!r} has lora_A without lora_B", "both halves of an update"))
    if a_ri.ndim != 2 or b_or.ndim != 2 or a_ri.shape[0] != b_or.shape[1]:
        given = f"{ADAPTER_FILE}: {name!r} has shapes {tuple(a_ri.shape)} and {tuple(b_or.shape)}"
        raise BundleError(said(given, "(rank, inputs) and (outputs, rank)"))
    if not 1 <= a_ri.shape[0] <= MOST_RANK:
        raise BundleError(said(f"{ADAPTER_FILE}: {name!r} has rank {a_ri.shape[0]}", f"1 to {MOST_RANK}"))
    return LowRank(a_ri, b_or)


def read_head(path: Path, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a head: weight (c, h) and bias (c).

    Raises:
        BundleError: not a safetensors file, other names, or shapes that do not fit the number of classes.
    """
    tensors = read_safetensors(path, MOST_BYTES[HEAD_FILE])
    if tensors.keys() != {"weight", "bias"}:
        raise BundleError(said(f"{path.name} holds {', '.join(sorted(tensors))[:80] or 'nothing'}", "weight and bias"))
    weight_ch, bias_c = tensors["weight"], tensors["bias"]
    if weight_ch.ndim != 2 or weight_ch.shape[0] != classes or tuple(bias_c.shape) != (classes,):
        given = f"{path.name} has shapes {tuple(weight_ch.shape)} and {tuple(bias_c.shape)}"
        raise BundleError(said(given, f"({classes}, hidden size) and ({classes},)"))
    return weight_ch, bias_c


def write_delta(path: Path, delta: Delta) -> None:
    """Write the update of the encoder in the bundle's form."""
    tensors: dict[str, torch.Tensor] = {}
    for name, one in delta.items():
        if isinstance(one, LowRank):
            tensors |= {f"{name}.lora_A": one.a_ri, f"{name}.lora_B": one.b_or}
        else:
            tensors[name] = one
    write_safetensors(path, tensors)


def write_head(path: Path, weight_ch: torch.Tensor, bias_c: torch.Tensor) -> None:
    """Write a head."""
    write_safetensors(path, {"weight": weight_ch, "bias": bias_c})


def write_space(path: Path, space: Space) -> None:
    """Write what `read_space` reads."""
    write_safetensors(path, space.tensors())


def entry_of(path: Path) -> FileEntry:
    """Hash and size of one file."""
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def seal(folder: Path, draft: Manifest) -> Manifest:
    """Write the manifest over the files that lie in the folder; whatever changes afterwards breaks the seal."""
    listed = [*LISTED, *([DOMAIN_FILE] if draft.domain else [])]
    manifest = draft.model_copy(update={"files": {name: entry_of(folder / name) for name in listed}})
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest
