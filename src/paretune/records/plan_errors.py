"""How far a run's prediction was from what was then measured.

Not here: the predictions (`study/predict.py`), sums over studies (`study/plan_record.py`), tables (`report/`).

    error_of(run.measurements()).memory
"""

from __future__ import annotations

from dataclasses import dataclass

from paretune.records.schema import Measurements

FIRST_STAGE = ("load", "tokenize", "prefix", "step", "eval", "save")
TRAINING = ("prefix", "step")  # what a run's training time is made of


@dataclass(frozen=True)
class PlanError:
    """One run's peak and training time, predicted and measured, in bytes and seconds; `imports_bytes` lie below both
    peaks."""

    predicted_bytes: float
    measured_bytes: float
    imports_bytes: float
    predicted_above_imports_bytes: float
    predicted_seconds: float
    measured_seconds: float

    @property
    def memory(self) -> float:
        """Predicted ÷ measured − 1."""
        return self.predicted_bytes / self.measured_bytes - 1

    @property
    def memory_above_imports(self) -> float:
        """The same of the part above the imports."""
        return self.predicted_above_imports_bytes / max(1.0, self.measured_bytes - self.imports_bytes) - 1

    @property
    def seconds(self) -> float:
        """The same of the training time."""
        return self.predicted_seconds / self.measured_seconds - 1


def error_of(measured: Measurements) -> PlanError | None:
    """None where nothing was predicted or measured."""
    predicted = measured.predicted
    peaks = [cost.peak_memory_bytes for cost in measured.phases if cost.phase in FIRST_STAGE]
    if predicted is None or predicted.peak_memory_bytes is None or not peaks or not measured.train_seconds.value:
        return None
    seconds = dict(predicted.seconds)
    if predicted.steps and measured.steps < predicted.steps:  # stopped early
        seconds["step"] = seconds.get("step", 0.0) * measured.steps / predicted.steps
    return PlanError(
        predicted_bytes=predicted.peak_memory_bytes,
        measured_bytes=max(peaks),
        imports_bytes=measured.memory_after_imports_bytes,
        predicted_above_imports_bytes=predicted.peak_memory_above_imports_bytes or 0.0,
        predicted_seconds=sum(seconds.get(phase, 0.0) for phase in TRAINING),
        measured_seconds=measured.train_seconds.value,
    )
