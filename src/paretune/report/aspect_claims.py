"""A claim about another side of a study than its leading metric: forgetting, or the recall of rare classes.

Not here: other rules (`claims.py`), what is computed (`forgetting.py`, `rare_classes.py`).

    weigh_aspect(AspectCondition(study="shift", method="full", aspect="forgetting", rule="forgets"), facts).verdict
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import model_validator

from paretune.core.config import Settings
from paretune.core.errors import said
from paretune.report.facts import LEVEL, StudyFacts, bounds
from paretune.report.forgetting import ForgettingRow, forgetting_rows
from paretune.report.rare_classes import rare_classes, rare_rows
from paretune.stats.compare import Comparison
from paretune.stats.intervals import Interval


class AspectCondition(Settings):
    """A method against the study's control, as the study's own table has it, with Holm's correction and its margin.

    "forgetting": how much less it forgot of the earlier task; "rare_recall": how much higher its recall of rare classes
    is. The rule: "better" or "equivalent"; or, of the method alone, that it "forgets" at all.
    """

    study: str
    method: str
    aspect: Literal["forgetting", "rare_recall"]
    rule: Literal["better", "equivalent", "forgets"]

    @model_validator(mode="after")
    def _known(self) -> AspectCondition:
        if self.rule == "forgets" and self.aspect != "forgetting":
            raise ValueError(said(f"{self.aspect} that forgets", "better or equivalent"))
        return self


@dataclass(frozen=True)
class WeighedAspect:
    """The difference (or what was forgotten), the margin, and what the rule says; None where nothing can be said."""

    interval: Interval | None
    margin: float | None
    verdict: Literal["supported", "refuted", "undecided", "not_measured"]
    level: float = LEVEL


def weigh_aspect(condition: AspectCondition, facts: StudyFacts) -> WeighedAspect:
    """Of a method that was scored; the control has no difference to itself."""
    if condition.aspect == "rare_recall":
        rare = rare_classes(facts)
        rows = {one.method: one for one in rare_rows(facts, rare)} if rare is not None else {}
        compared = rows[condition.method].against_control if condition.method in rows else None
        return _against_control(condition, compared, facts.study.margin)
    found = {one.method: one for one in forgetting_rows(facts)}.get(condition.method)
    if found is None or facts.study.earlier is None or found.nothing_learnt:
        return WeighedAspect(None, None, "not_measured")
    if condition.rule == "forgets":
        return _forgets(found)
    return _against_control(condition, found.kept, facts.study.earlier.margin)


def _forgets(found: ForgettingRow) -> WeighedAspect:
    ends = bounds(found.forgetting) if found.forgetting is not None else None
    if ends is None:
        return WeighedAspect(None, None, "not_measured")
    verdict = "supported" if ends[0] > 0 else "refuted" if ends[1] <= 0 else "undecided"
    return WeighedAspect(found.forgetting, None, verdict)


def _against_control(condition: AspectCondition, compared: Comparison | None, margin: float) -> WeighedAspect:
    if compared is None or compared.zero is None or compared.margin is None:
        return WeighedAspect(None, margin, "not_measured")
    tested = compared.zero if condition.rule == "better" else compared.margin
    low, high = tested.interval.low, tested.interval.high
    if condition.rule == "better":
        shown, refuted = low > 0, high <= 0
    else:
        shown, refuted = compared.verdict == "equivalent", low >= margin or high <= -margin
    verdict = "supported" if shown else "refuted" if refuted else "undecided"
    return WeighedAspect(tested.interval, margin, verdict, tested.level)
