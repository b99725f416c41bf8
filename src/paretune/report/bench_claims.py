"""A claim about a figure of a published bench line.

Not here: other rules (`claims.py`), reading the lines (`bench_lines.py`).

    weigh_bench(BenchCondition(line="serve", figure="overhead_ratio", rule="at_most", limit=1.35), line)
"""

from __future__ import annotations

from typing import Literal

from paretune.core.config import Settings, nearest
from paretune.core.errors import UnknownNameError, said
from paretune.report.bench_lines import BenchLine


class BenchCondition(Settings):
    """One rule about a figure of a published bench line: results/bench/`line`.json must have it "at_most" or "at_least"
    `limit`. It is one measurement, so it has no interval and is never undecided.
    """

    line: str
    figure: str
    rule: Literal["at_most", "at_least"]
    limit: float


def weigh_bench(condition: BenchCondition, line: BenchLine) -> tuple[float | None, bool]:
    """The figure, and whether the rule holds; None where it was not measured.

    Raises:
        UnknownNameError: the line has no such figure.
    """
    if condition.figure not in line.figures:
        given = f"claim about {condition.figure!r} of {line.file}"
        known = said(given, "one of its figures", nearest=nearest(condition.figure, line.figures))
        raise UnknownNameError(known)
    value = line.figures[condition.figure]
    if value is None:
        return None, False
    return float(value), value <= condition.limit if condition.rule == "at_most" else value >= condition.limit
