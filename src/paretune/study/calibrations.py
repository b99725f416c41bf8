"""Where measured constants are kept: in the user's cache, by all that they depend on, one file for each shape.

They depend on the machine, the numerics fingerprint, the versions of the libraries and of our own training code, the
model and the number format. Not here: measuring them (`calibrate.py`).

    nearest(ProbeShape("asset:minilm-l6", "bf16", batch_size=16, max_tokens=128))
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from paretune.core.cache import home
from paretune.core.config import JsonObject, canonical_hash
from paretune.core.errors import RecordError
from paretune.kernels.native.library import kernels_in_use
from paretune.measure.accounting import Format
from paretune.measure.calibration import Calibration
from paretune.models.sources import model_digest
from paretune.records.store import read_record, write_atomically
from paretune.repro.probe import numerics_fingerprint
from paretune.repro.provenance import provenance

CONSTANTS_FILE = "calibration.json"  # in a study's folder: what an earlier probe of its model found
FORM = 5  # raised when the same samples would give other constants
TRAINING_CODE = ("kernels", "train", "models", "methods")


@dataclass(frozen=True)
class ProbeShape:
    """What is calibrated: a model in a number format, at the longest batch of a study."""

    model: str
    precision: Format
    batch_size: int
    max_tokens: int

    @property
    def positions(self) -> int:
        return self.batch_size * self.max_tokens


def _code_digest() -> str:
    """SHA-256 over our own code that training runs through."""
    total = hashlib.sha256()
    root = Path(__file__).parents[1]
    for room in TRAINING_CODE:
        for file in sorted((root / room).rglob("*.py")):
            total.update(f"{room}/{file.name}\0".encode() + file.read_bytes())
    return total.hexdigest()


def _folder(shape: ProbeShape) -> Path:
    """Where the constants of this model and number format lie, one file a shape."""
    here = provenance()
    key: JsonObject = {
        "form": FORM,
        "precision": shape.precision,
        "digest": model_digest(shape.model),
        "numerics": numerics_fingerprint(),
        "kernels": kernels_in_use(),
        "versions": here["versions"],
        "python": here["python"],
        "machine": {name: here["machine"][name] for name in ("system", "architecture", "processor", "cores")},
        "code": _code_digest(),
    }
    return home() / "calibrations" / canonical_hash(key)[:32]


def _file(shape: ProbeShape) -> Path:
    return _folder(shape) / f"{shape.batch_size}x{shape.max_tokens}.json"


def read(path: Path) -> Calibration | None:
    """Constants from a file; None where there is none, or a torn one, or one of an older form."""
    if not path.exists():
        return None
    try:
        return read_record(path, Calibration)
    except RecordError:  # measured anew
        return None


def known(shape: ProbeShape) -> Calibration | None:
    """What an earlier probe of this very shape found, if there was one."""
    return read(_file(shape))


def nearest(shape: ProbeShape) -> Calibration | None:
    """What an earlier probe found at this shape or at the one nearest in size."""
    found: list[tuple[float, Path]] = []
    for path in sorted(_folder(shape).glob("*x*.json")):
        rows, _, width = path.stem.partition("x")
        if rows.isdecimal() and width.isdecimal():
            found.append((abs(int(rows) * int(width) - shape.positions), path))
    return read(min(found)[1]) if found else None


def keep(shape: ProbeShape, found: Calibration) -> None:
    """Write constants for later calls.

    Raises:
        StorageError: the cache cannot be written.
    """
    write_atomically(_file(shape), found.model_dump_json(indent=1))
