"""The claims of a ledger that lies beside the studies, judged over the records as they are now.

Not here: the rules (`report/claims.py`). A claim that cannot be judged, such as one about a method that its study does
not have, says so in its place and hides no other.

    claims_of(Path("results"), {"r8": facts}).judged
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paretune.core.config import load_toml
from paretune.core.errors import UsageError
from paretune.dashboard.index import Index, is_study
from paretune.dashboard.kept import Stamp, stamp_of
from paretune.report.bench_lines import FOLDER, BenchLine, bench_lines
from paretune.report.claims import Judged, Ledger, judged
from paretune.report.facts import StudyFacts

LEDGER = "claims.toml"


@dataclass(frozen=True)
class Claims:
    """Judged claims, and those that cannot be with the reason; `broken` says why the ledger itself cannot be read."""

    there: bool
    judged: list[Judged] = field(default_factory=list[Judged])
    failed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    broken: str = ""


def ledger_of(index: Index) -> Path:
    """The first ledger that lies in a folder of studies, or beside a study; where there is none, its first place."""
    places = [(root.resolve().parent if is_study(root) else root) / LEDGER for root in index.roots]
    return next((place for place in places if place.is_file()), places[0])


def stamps_of(ledger: Path) -> list[Stamp | None]:
    """What changes when the ledger or a bench line beside it does."""
    lines = sorted((ledger.resolve().parent / FOLDER).glob("*.json"))
    return [stamp_of(ledger), *(stamp_of(line) for line in lines)]


def claims_of(ledger: Path, studies: Mapping[str, StudyFacts], with_bench: bool = False) -> Claims:
    """Judge every claim by the studies that are known, by their names, and where asked by the bench lines too."""
    if not ledger.is_file():
        return Claims(there=False)
    try:
        claims = load_toml(ledger, Ledger).claims
    except UsageError as error:
        return Claims(there=True, broken=str(error))
    found = Claims(there=True)
    lines: Mapping[str, BenchLine] = {}
    try:
        lines = bench_lines(ledger.resolve().parent / FOLDER) if with_bench else {}
    except UsageError as error:
        found.failed.append((FOLDER, str(error)))
    for name, claim in claims.items():
        try:
            found.judged.append(judged(Ledger(claims={name: claim}), studies, lines)[name])
        except (UsageError, KeyError, IndexError) as error:  # also a sentence with a placeholder that has no condition
            found.failed.append((name, str(error)))
    return found
