"""What a method would cost in a case: its peak memory as it was measured, its seconds by the records' own throughput.

Not here: whether that fits a budget (`advise.py`). Nothing is carried over from another base model, and no memory is
computed: where a case's texts could need more than what was measured, the answer is None.

    seconds_for([(facts, facts.by_label["lora-r8"])], rows=800, tokens=90.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretune.report.facts import MEASURED, MethodFacts, StudyFacts
from paretune.stats.intervals import quantile


@dataclass(frozen=True)
class Seconds:
    """Estimated seconds of one training, with a 95 % prediction interval from the spread of the runs' throughput.

    The interval is the estimate alone, both ends infinite, where one run is all there is.
    """

    estimate: float
    low: float
    high: float
    runs: int


def peak_memory(same: Sequence[tuple[StudyFacts, MethodFacts]], rows: int, tokens: float) -> float | None:
    """The largest measured peak; None where none was measured, or where the case could need more.

    A trained model needs more for longer texts, unless a batch already held a text that was cut to `max_tokens`: then
    all of it was padded to that length. A baseline, which holds all texts at once, needs more for more of them.
    """
    found: list[float] = []
    for facts, method in same:
        if _covers(facts, method, rows, tokens):
            costs = [one.peak_memory_bytes for one in method.measurements()]
            found += [cost.value for cost in costs if cost.grade in MEASURED]
    return max(found, default=None)


def _covers(facts: StudyFacts, method: MethodFacts, rows: int, tokens: float) -> bool:
    """Whether a measured peak holds for so many texts of so many tokens on average."""
    explored, read = facts.exploration, _text_read(facts)
    if explored is None or read is None:
        return False
    if method.family == "baseline":
        return rows * tokens <= read
    cut = explored.truncation_share.get("train", 0.0) * facts.study.split_rows["train"]
    return cut >= 1 or tokens <= read / facts.study.split_rows["train"]


def seconds_for(same: Sequence[tuple[StudyFacts, MethodFacts]], rows: int, tokens: float) -> Seconds | None:
    """Seconds of one training on so many rows, by the recipe of the first study; None where nothing was measured.

    An adaptation's work is the tokens of all its steps: rows × epochs × tokens of a text after cutting, for which the
    case's mean, cut, stands; a baseline's is the text it reads once. The throughput is that of all studies' runs.
    """
    pace = [
        math.log(max(one.train_seconds.value, 1e-6) / done)
        for facts, method in same
        for one in method.measurements()
        for done in [one.train_tokens or _text_read(facts)]
        if done and one.train_seconds.grade in MEASURED
    ]
    work = _work(*same[0], rows, tokens) if same else None
    if not pace or work is None:
        return None
    mean = float(np.mean(pace)) + math.log(work)
    if len(pace) == 1:
        return Seconds(math.exp(mean), -math.inf, math.inf, 1)
    spread = float(np.std(pace, ddof=1)) * math.sqrt(1 + 1 / len(pace)) * quantile(len(pace) - 1, 0.975)
    return Seconds(math.exp(mean), math.exp(mean - spread), math.exp(mean + spread), len(pace))


def _work(facts: StudyFacts, method: MethodFacts, rows: int, tokens: float) -> float | None:
    """Tokens that a training in the case would go through."""
    if method.family == "baseline":
        return rows * tokens
    seen = next((one.train_examples for one in method.measurements()), 0)
    epochs = seen / facts.study.split_rows["train"]
    return rows * epochs * min(tokens, facts.study.max_tokens) if epochs else None


def _text_read(facts: StudyFacts) -> float | None:
    """Tokens of the training texts, uncut."""
    lengths = facts.exploration.lengths if facts.exploration is not None else []
    mean = next((one.mean for one in lengths if (one.split, one.unit) == ("train", "tokens")), None)
    return mean * facts.study.split_rows["train"] if mean else None
