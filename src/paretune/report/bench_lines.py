"""Published lines of a bench: one JSON object in results/bench/NAME.json, whose numbers claims may rest on.

Not here: measuring (`paretune bench serve`, `deploy/container.sh verify`), and rules over the figures (`claims.py`). A
line may say its `date` and its `machine`; what is neither a number nor null is left alone.

    bench_lines(Path("results/bench"))["serve"].figures["overhead_ratio"]
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paretune.core.config import JsonObject
from paretune.core.errors import RecordError, said

FOLDER = "bench"  # beside the ledger and the studies


@dataclass(frozen=True)
class BenchLine:
    """One line: `figures` by name (None: the bench could not have it), when it was measured and on what, if it says."""

    file: str
    figures: Mapping[str, float | int | None]
    date: str = ""
    processor: str = ""
    cores: int | None = None


def bench_lines(folder: Path) -> dict[str, BenchLine]:
    """All lines of a folder by the names of their files; none where there is no such folder.

    Raises:
        RecordError: a file that is no JSON object of finite figures.
    """
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return {file.stem: _line(file) for file in files}


def study_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders without that of bench lines, which lies among studies: results/*/ names it too."""
    return [one for one in folders if one.resolve().name != FOLDER or (one / "study.json").exists()]


def _line(file: Path) -> BenchLine:
    try:
        tree: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(said(f"{file} cannot be read: {error}", "the last line of a bench")) from error
    if not isinstance(tree, dict):
        raise RecordError(said(f"{file} holds no object", "the last line of a bench"))
    found: JsonObject = tree
    figures = {name: value for name, value in found.items() if value is None or _is_number(value)}
    if wrong := [name for name, value in figures.items() if value is not None and not math.isfinite(value)]:
        raise RecordError(said(f"{file}: {wrong[0]} is {figures[wrong[0]]}", "finite figures, or null"))
    date, machine = found.get("date"), found.get("machine")
    known: JsonObject = machine if isinstance(machine, dict) else {"processor": machine}
    processor, cores = str(known.get("processor") or ""), known.get("cores")
    where = f"{FOLDER}/{file.name}"
    return BenchLine(where, figures, str(date or ""), processor, cores if isinstance(cores, int) else None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
