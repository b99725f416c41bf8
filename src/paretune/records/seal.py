"""The digest over a published study: `SHA256SUMS` names every file that `publish` wrote, as `sha256sum -c` reads it.

It shows that records were changed, lost or added after they were published; it is no signature. What a reader makes
beside them (reports) is not in it. Not here: whether the records agree with each other (`report/integrity.py`).

    write_seal(Path("results/demo")); broken_seal(Path("results/demo")) == []
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paretune.records.serving import INFERENCE_FILE
from paretune.records.store import (
    EARLIER_FILE,
    EXAMPLES_FILE,
    EXPLORATION_FILE,
    MEASUREMENTS_FILE,
    PREDICTIONS_FILE,
    STUDY_FILE,
    TOKEN_LOSSES_FILE,
    write_atomically,
)

SEAL_FILE = "SHA256SUMS"
STUDY_FILES = (STUDY_FILE, EXPLORATION_FILE, EXAMPLES_FILE, INFERENCE_FILE)
RUN_FILES = (
    *("spec.json", "status", "provenance.json", MEASUREMENTS_FILE),
    *(PREDICTIONS_FILE, TOKEN_LOSSES_FILE, EARLIER_FILE, "events.jsonl"),
)


@dataclass(frozen=True)
class Broken:
    """A file that is not as the digest says; `name` is its path in the study's folder."""

    name: str
    how: Literal["changed", "gone", "added"]


def write_seal(folder: Path) -> None:
    """Write the digest of a study's folder as it is now."""
    lines = (f"{_sha256(folder / name)}  {name}\n" for name in sorted(_files(folder)))
    write_atomically(folder / SEAL_FILE, "".join(lines))


def sealed(folder: Path) -> bool:
    return (folder / SEAL_FILE).is_file()


def broken_seal(folder: Path) -> list[Broken]:
    """Files that are not as the digest says; empty where it holds, and where there is none."""
    if not sealed(folder):
        return []
    named: dict[str, str] = {}
    for line in (folder / SEAL_FILE).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        named[name] = digest
    there = set(_files(folder))
    found: list[Broken] = []
    for name, digest in named.items():
        if name not in there:
            found.append(Broken(name, "gone"))
        elif _sha256(folder / name) != digest:
            found.append(Broken(name, "changed"))
    return found + [Broken(name, "added") for name in sorted(there - named.keys())]


def _files(folder: Path) -> Iterable[str]:
    """Records of a study by their paths in its folder: its own, and all that lies in its runs."""
    yield from (name for name in STUDY_FILES if (folder / name).is_file())
    for path in (folder / "runs").glob("*/*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
