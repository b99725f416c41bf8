"""How right the planner was: each run's prediction against what was then measured.

Not here: the predictions (`predict.py`). A run that began before its machine was calibrated has none.

    print(summary(errors([Path("runs")])))
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paretune.core.config import JsonObject
from paretune.core.errors import RecordError
from paretune.records.schema import Measurements, Predicted
from paretune.records.store import StudyFolder

FIRST_STAGE = ("load", "tokenize", "prefix", "step", "eval", "save")
TRAINING = ("prefix", "step")  # what a run's training time is made of


@dataclass(frozen=True)
class PlanError:
    """Predicted ÷ measured − 1 of one run: of its peak, of the part above the imports, of its training time."""

    name: str
    memory: float
    memory_above_imports: float
    seconds: float


def error_of(name: str, predicted: Predicted, measured: Measurements) -> PlanError | None:
    """None where nothing was predicted or measured."""
    peaks = [cost.peak_memory_bytes for cost in measured.phases if cost.phase in FIRST_STAGE]
    if predicted.peak_memory_bytes is None or not peaks or not measured.train_seconds.value:
        return None
    peak, above = max(peaks), max(peaks) - measured.memory_after_imports_bytes
    return PlanError(
        name,
        predicted.peak_memory_bytes / peak - 1,
        (predicted.peak_memory_above_imports_bytes or 0.0) / max(1, above) - 1,
        sum(predicted.seconds.get(phase, 0.0) for phase in TRAINING) / measured.train_seconds.value - 1,
    )


def errors(roots: Iterable[Path]) -> list[PlanError]:
    """Of all runs of the studies below some folders; what cannot be read is left out."""
    found: list[PlanError] = []
    for study in sorted({path.parent for root in roots for path in root.glob("*/study.json")}):
        for run in StudyFolder(study).runs():
            if not (run.path / "measurements.json").exists():
                continue
            try:
                measured = run.measurements()
            except RecordError:
                continue
            one = None
            if measured.predicted is not None:
                one = error_of(f"{study.name}/{run.id}", measured.predicted, measured)
            if one is not None:
                found.append(one)
    return found


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share does not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * round(share * 100) // 100) - 1)]


def summary(found: list[PlanError]) -> JsonObject | None:
    """Medians, 90th percentile and the worst under-prediction, as shares; None where there is no run yet."""
    if not found:
        return None
    memory = [abs(one.memory) for one in found]
    return {
        "runs": len(found),
        "memory_error_median": statistics.median(memory),
        "memory_error_p90": percentile(memory, 0.9),
        "worst_under_prediction": max(0.0, *(-one.memory for one in found)),
        "memory_above_imports_error_median": statistics.median(abs(one.memory_above_imports) for one in found),
        "time_error_median": statistics.median(abs(one.seconds) for one in found),
    }
