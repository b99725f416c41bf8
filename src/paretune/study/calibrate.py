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
from paretune.repro.seeding import torch_generator
from paretune.study.calibrations import ProbeShape, keep, known
from paretune.study.trial import run_trial
from paretune.study.trial_steps import CLASSES, Trial

PROBE_SECONDS = 30.0
MOST_STEPS, FEWEST_STEPS = 5, 2
SLOWER = {
    "forward": 1.2,
    "passed": 3.0,
    "low_rank": 3.0,
    "learning": 4.0,
}  # than a forward pass; only to keep within the time


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
    found = None if again else known(shape)
    if found is not None:
        return found
    where = f"{shape.model}, {shape.batch_size} × {shape.max_tokens} tokens, {shape.precision}"
    note(f"measuring steps of {where}: at most {PROBE_SECONDS:g} s, once")
    began = time.perf_counter()
    samples = _samples(shape, began)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = fit(samples).model_copy(update={"measured_at": now, "probe_seconds": time.perf_counter() - began})
    keep(shape, found)
    return found


def _samples(shape: ProbeShape, began: float) -> list[Sample]:
    """Each sort of step at the longest batch, and one at half its width, as far as time allows."""
    kinds = representatives(shape.model)
    half = next(sort for sort in ("low_rank", "passed", "learning", "forward") if sort in kinds)
    wanted = [(sort, shape.max_tokens) for sort in ("forward", "low_rank", "learning") if sort in kinds]
    wanted += [(half, max(4, shape.max_tokens // 2))]
    wanted += [("passed", shape.max_tokens)] if "passed" in kinds else []
    found: list[Sample] = []
    reasons: list[str] = []
    forward_seconds = 0.0
    for place, (sort, longest) in enumerate(wanted):
        left = PROBE_SECONDS - (time.perf_counter() - began)
        share = left / (len(wanted) - place)
        expected = SLOWER[sort] * forward_seconds * longest / shape.max_tokens
        steps = MOST_STEPS if not expected else int(share * 0.7 / expected)
        rows = shape.batch_size if not expected else min(shape.batch_size, _rows_in(share, expected, shape.batch_size))
        if left <= 0:
            break
        trial = Trial(
            model=shape.model,
            kind=kinds[sort],
            batch_size=rows,
            max_tokens=longest,
            precision=shape.precision,
            steps=min(MOST_STEPS, max(FEWEST_STEPS, steps)),
        )
        end = run_trial(trial, left)
        if end.sample is None:
            reasons.append(end.reason)
            continue
        found.append(end.sample)
        if sort == "forward":
            forward_seconds = max(step.seconds for step in end.sample.steps)
    if not found:
        raise RunError(f"no step of {shape.model} could be measured: {'; '.join(reasons) or 'no time was left'}")
    return found


def _rows_in(seconds: float, step_seconds: float, rows: int) -> int:
    """Rows of which the fewest steps fit into the seconds."""
    return max(1, int(rows * min(1.0, seconds * 0.8 / (FEWEST_STEPS * step_seconds))))
