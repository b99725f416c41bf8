"""What a method would cost in a case: its peak memory as it was measured, its seconds by the records' own throughput.

Not here: whether that fits a budget (`advise.py`). Nothing is carried over from another base model, and no memory is
computed: where a case's texts could need more than what was measured, the answer is None.

    seconds_for([(study, study.methods[0])], rows=800, tokens=90.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretune.stats.compare import LEAST_DF
from paretune.stats.intervals import quantile
from paretune.study.advise_records import Evidence, MethodEvidence


@dataclass(frozen=True)
class Seconds:
    """Estimated seconds of one training, with a 95 % prediction interval from the spread of the runs' throughput.

    Both ends are infinite where one or two runs are all there is.
    """

    estimate: float
    low: float
    high: float
    runs: int


def peak_memory(same: Sequence[tuple[Evidence, MethodEvidence]], rows: int, tokens: float) -> float | None:
    """The largest measured peak; None where none was measured, or where the case could need more.

    A trained model needs more for longer texts, unless a batch already held a text that was cut to `max_tokens`: then
    all of it was padded to that length. A baseline, which holds all texts at once, needs more for more of them.
    """
    found: list[float] = []
    for study, method in same:
        if _covers(study, method, rows, tokens):
            found += [one.peak_memory_bytes for one in method.costs if one.peak_memory_bytes is not None]
    return max(found, default=None)


def _covers(study: Evidence, method: MethodEvidence, rows: int, tokens: float) -> bool:
    """Whether a measured peak holds for so many texts of so many tokens on average."""
    if study.tokens is None or study.cut_share is None:
        return False
    if method.family == "baseline":
        return rows * tokens <= study.tokens * study.rows
    return study.cut_share * study.rows >= 1 or tokens <= study.tokens


def seconds_for(same: Sequence[tuple[Evidence, MethodEvidence]], rows: int, tokens: float) -> Seconds | None:
    """Seconds of one training on so many rows, by the recipe of the first study; None where nothing was measured.

    An adaptation's work is the tokens of all its steps: rows × epochs × tokens of a text after cutting, for which the
    case's mean, cut, stands; a baseline's is the text it reads once. The throughput is that of all studies' runs.
    """
    pace = [
        math.log(max(one.train_seconds, 1e-6) / done)
        for study, method in same
        if (study.processor, study.cores) == (same[0][0].processor, same[0][0].cores)  # other seconds are no measure
        for one in method.costs
        for done in [one.tokens or (study.tokens or 0.0) * study.rows]
        if done and one.train_seconds is not None
    ]
    work = _work(*same[0], rows, tokens) if same else None
    if not pace or work is None:
        return None
    mean = float(np.mean(pace)) + math.log(work)
    if len(pace) - 1 < LEAST_DF:  # one or two runs say nothing of how others spread
        return Seconds(math.exp(mean), -math.inf, math.inf, len(pace))
    spread = float(np.std(pace, ddof=1)) * math.sqrt(1 + 1 / len(pace)) * quantile(len(pace) - 1, 0.975)
    return Seconds(math.exp(mean), math.exp(mean - spread), math.exp(mean + spread), len(pace))


def _work(study: Evidence, method: MethodEvidence, rows: int, tokens: float) -> float | None:
    """Tokens that a training in the case would go through."""
    if method.family == "baseline":
        return rows * tokens
    epochs = next((one.examples for one in method.costs), 0) / study.rows
    return rows * epochs * min(tokens, study.max_tokens) if epochs else None
