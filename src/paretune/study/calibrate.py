"""The probe: at most 30 s of steps of this model on this machine, once; its constants are kept in the user's cache.

Which ways to train are tried follows from counting: of all methods the one that computes most of each sort
(`accounting.computed`), so that none is named here. Not here: the formulas (`measure/`), the cache
(`calibrations.py`), nor what is predicted with the constants (`planner.py`).

    constants = calibration(ProbeShape("asset:minilm-l6", "bf16", batch_size=16, max_tokens=128), note=print)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from paretune.core.errors import RunError, UsageError
from paretune.measure.accounting import Census, census, computed
from paretune.measure.calibration import Calibration, Sample, fit
from paretune.methods.method import METHODS, Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_outline
from paretune.models.surgery import is_linear, layers, weight_oi
from paretune.repro.seeding import torch_generator
from paretune.study.calibrations import ProbeShape, keep, known
from paretune.study.engines import prepare_engines
from paretune.study.trial import run_trial
from paretune.study.trial_steps import CLASSES, Trial

PROBE_SECONDS = 30.0
MOST_STEPS, FEWEST_STEPS = 5, 2
USUAL_FLOPS_PER_SECOND = 1e11  # before anything is measured
# Than a forward pass, roughly; only to keep within the time.
SLOWER = {"forward": 1.2, "passed": 3.0, "low_rank": 3.0, "learning": 4.0}


def counted(model: str, method: Adaptation, classes: int) -> Census:
    """Numbers of a base model with a method attached; no weights are read.

    Raises:
        ConfigError: the method does not fit the model.
        UnknownNameError: a type of model that is not known.
    """
    outline = EncoderClassifier(load_outline(model), classes)
    method.attach(outline, torch_generator(0, "init"))
    return census(outline)


def representatives(model: str) -> dict[str, str]:
    """For each sort of products the method that has most of them, with its own default settings."""
    found: dict[str, tuple[int, str]] = {}
    for name in METHODS:
        cls = METHODS.load(name)
        if not issubclass(cls, Adaptation):
            continue
        try:
            one = counted(model, cls(cls.settings_model()), CLASSES)
        except UsageError:  # a method that this model has nothing for
            continue
        weight = one.arithmetic.passed + one.arithmetic.learning + one.arithmetic.low_rank
        sort = computed(one)
        if sort not in found or found[sort][0] < weight:
            found[sort] = (weight, name)
    return {sort: name for sort, (_, name) in found.items()}


def calibration(shape: ProbeShape, note: Callable[[str], None], again: bool = False) -> Calibration:
    """The constants of a shape, measured now where no earlier probe did.

    Raises:
        RunError: not one step could be measured.
        UnknownNameError: a type of model that is not known.
    """
    prepare_engines(note)
    found = None if again else known(shape)
    if found is not None and found.complete:
        return found
    where = f"{shape.model}, {shape.batch_size} × {shape.max_tokens} tokens, {shape.precision}"
    note(f"measuring steps of {where}: at most {PROBE_SECONDS:g} s, once")
    began = time.perf_counter()
    kinds = representatives(shape.model)
    samples = _samples(shape, kinds, began)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    complete = {one.kind for one in samples} >= set(kinds.values())
    took = time.perf_counter() - began
    found = fit(samples).model_copy(update={"measured_at": now, "probe_seconds": took, "complete": complete})
    keep(shape, found)
    return found


def _samples(shape: ProbeShape, kinds: dict[str, str], began: float) -> list[Sample]:
    """Each sort of step at the longest batch, and one at half its width, as far as time allows; what tells most comes
    first."""
    order = ("low_rank", "learning", "forward", "passed")
    wanted = [(sort, shape.max_tokens) for sort in order if sort in kinds]
    wanted.insert(3, (wanted[0][0], max(4, shape.max_tokens // 2)))
    found: list[Sample] = []
    reasons: list[str] = []
    forward_seconds = _forward_flops(shape) / USUAL_FLOPS_PER_SECOND
    for place, (sort, longest) in enumerate(wanted):
        left = PROBE_SECONDS - (time.perf_counter() - began)
        if left <= 0:
            break
        expected = SLOWER[sort] * forward_seconds * longest / shape.max_tokens
        trial = _trial(shape, kinds[sort], longest, left / max(2, len(wanted) - place - 1), expected)
        end = run_trial(trial, left)
        if end.sample is None:
            reasons.append(end.reason)
            continue
        found.append(end.sample)
        took = max(step.seconds * shape.positions / step.positions for step in end.sample.steps)
        forward_seconds = took / SLOWER[sort]
    if not found:
        raise RunError(f"no step of {shape.model} could be measured: {'; '.join(reasons) or 'no time was left'}")
    return found


def _forward_flops(shape: ProbeShape) -> float:
    """FLOP of the matrices' forward pass over the longest batch."""
    blocks = layers(load_outline(shape.model))
    matrices = sum(weight_oi(one).numel() for one in blocks.modules() if is_linear(one))
    return 2.0 * matrices * shape.positions


def _trial(shape: ProbeShape, kind: str, longest: int, seconds: float, step_seconds: float) -> Trial:
    """As many steps as fit into its share of the time, of fewer texts where even the fewest steps would not."""
    rows = _rows_in(seconds, step_seconds, shape.batch_size)
    steps = min(MOST_STEPS, max(FEWEST_STEPS, int(seconds * 0.7 / step_seconds)))
    return Trial(
        model=shape.model, kind=kind, batch_size=rows, max_tokens=longest, precision=shape.precision, steps=steps
    )


def _rows_in(seconds: float, step_seconds: float, rows: int) -> int:
    """Rows of which the fewest steps fit into the seconds."""
    return max(1, int(rows * min(1.0, seconds * 0.8 / (FEWEST_STEPS * step_seconds))))
