"""Which method a study says to take: one rule for answer, report, dashboard, export and model card.

Of the methods that are shown to be better than the control or equivalent to it, the one of least peak memory; the
control itself only where no better method remains. The majority class, which reads no text, is never taken unless it
is the control. It answers "what is the cheapest that is as good?". Not here: which
method has the best quality within a budget (`budgets.py`), which is another question, and sentences (`answer.py`).

    chosen(rows).row.method
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paretune.report.tables import MethodRow
from paretune.report.wording import Words

Reason = Literal["better", "equivalent", "control_cheapest", "control_best", "undecided"]


@dataclass(frozen=True)
class Chosen:
    """The row to take; `reason` says what shows it, "undecided" that nothing does.

    `by_memory`: the peak memories of the rows may be compared, so that the least one decided.
    """

    row: MethodRow
    reason: Reason
    by_memory: bool


def chosen(candidates: Sequence[MethodRow], compared: Sequence[MethodRow] | None = None) -> Chosen:
    """Of scored rows, the one to take. `compared` are all rows of the study, where some may not be taken.

    Where nothing is shown: the control if all others are shown to be worse, else the cheapest that is not.

    Raises:
        ValueError: no candidate.
    """
    candidates = takeable(candidates)
    if not candidates:
        raise ValueError("no method given; at least one that was scored and learns is needed")
    shown = [row for row in candidates if row.verdict in ("better", "equivalent")]
    if shown:
        best, by_memory = cheapest([*shown, *(row for row in candidates if row.control)])
        better = [row for row in shown if row.verdict == "better"]
        if best.control and better:
            best, by_memory = cheapest(better)
        if best.control:
            return Chosen(best, "control_cheapest", by_memory)
        return Chosen(best, "better" if best.verdict == "better" else "equivalent", by_memory)
    control = next((row for row in candidates if row.control), None)
    others = [row for row in takeable(compared or candidates) if not row.control and row.scored_runs]
    if control is not None and all(row.verdict == "worse" for row in others):
        return Chosen(control, "control_best", False)
    best, by_memory = cheapest([row for row in candidates if row.verdict != "worse"] or list(candidates))
    return Chosen(best, "undecided", by_memory)


def takeable(rows: Sequence[MethodRow]) -> list[MethodRow]:
    """Rows that may be taken: all that learn, and the control."""
    return [row for row in rows if row.learns or row.control]


def cheapest(rows: Sequence[MethodRow]) -> tuple[MethodRow, bool]:
    """The least peak memory, if all are measured and may be compared; else what is better, then the best quality.

    Of equal memories the earlier in the study.
    """
    memory = [row.peak_memory_bytes.value for row in rows if row.peak_memory_bytes and row.peak_memory_bytes.ranked]
    if len(memory) == len(rows):
        return rows[memory.index(min(memory))], True
    return max(rows, key=lambda row: (row.verdict == "better", not row.control, row.quality or 0.0)), False


def rule_text(one: Chosen, words: Words) -> str:
    """The rule in one sentence, to stand beside the answer."""
    if one.by_memory:
        return words.say(
            "Rule: of the methods shown to be better than the control or equivalent to it, the one of least peak memory"
        )
    return words.say(
        "Rule: of the methods shown to be better than the control or equivalent to it, a better one, then the best in "
        "quality (their peak memories are not all measured alike)"
    )


def other_question(control: str, margin: float, words: Words) -> str:
    """What stands beside a ranking within budgets, so that it is not taken for another answer to the same question."""
    return words.say(
        "This is another question than the answer's. The answer: the least memory among methods that are shown to be "
        "better than {control} or equivalent to it within ±{margin}. Here: the highest quality among those that fit, "
        "where a difference smaller than the margin counts too.",
        {"control": control, "margin": words.number(margin)},
    )
