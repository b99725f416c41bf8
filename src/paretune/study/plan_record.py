"""How right the planner was over many runs.

Not here: the predictions (`predict.py`), the error of one run (`records/plan_errors.py`). A run that began before its
machine was calibrated has none.

    print(summary(errors([Path("runs")])))
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from paretune.core.config import JsonObject
from paretune.core.errors import RecordError
from paretune.records.plan_errors import PlanError, error_of
from paretune.records.store import StudyFolder


def errors(roots: Iterable[Path]) -> list[PlanError]:
    """Of all runs of the studies below some folders; what cannot be read is left out."""
    found: list[PlanError] = []
    for study in sorted({path.parent for root in roots for path in root.glob("*/study.json")}):
        for run in StudyFolder(study).runs():
            if not (run.path / "measurements.json").exists():
                continue
            try:
                one = error_of(run.measurements())
            except RecordError:
                continue
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
