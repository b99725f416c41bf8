"""A claim about the settings of a method: whether one of them matters.

Not here: other rules (`claims.py`), the fit (`stats/effects.py`).

    weigh_effect(EffectCondition(study="lora-settings-r8", setting="rank", margin=0.01), facts).verdict
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from paretune.core.config import Settings, nearest
from paretune.core.errors import UnknownNameError, said
from paretune.report.factors import effects_of, groups_of
from paretune.report.facts import StudyFacts, bounds
from paretune.stats.effects import LevelEffect


class EffectCondition(Settings):
    """All levels of a `setting` lie "within_margin" of the mean over them, in the study's metric on its test split.

    `beside`: the pair of settings whose interaction the model has, as in the report's table.
    """

    study: str
    setting: str
    beside: tuple[str, str] | None = None
    rule: Literal["within_margin"] = "within_margin"
    margin: float = Field(gt=0)


@dataclass(frozen=True)
class Weighed:
    """The level that lies farthest from the mean, what the rule says, and the runs; None where nothing can be said."""

    farthest: LevelEffect | None
    verdict: Literal["supported", "refuted", "undecided", "not_measured"]
    run_ids: list[str]


def weigh_effect(condition: EffectCondition, facts: StudyFacts) -> Weighed:
    """Supported where every level's interval lies inside the margin, refuted where one lies outside.

    Raises:
        UnknownNameError: the study has no such setting.
    """
    groups = groups_of(facts)
    factors = groups[0].factors if groups else {}
    if condition.setting not in factors:
        given = f"claim about the setting {condition.setting!r} of study {condition.study!r}"
        raise UnknownNameError(said(given, "one of its settings", nearest=nearest(condition.setting, factors)))
    fit = effects_of(facts, groups[0], [condition.beside] if condition.beside else []).fit
    levels = fit.of(condition.setting) if fit is not None else []
    ends = [bounds(one.interval) for one in levels]
    if not levels:
        return Weighed(None, "not_measured", [])
    run_ids = [run.id for label in groups[0].settings for _, run in sorted(facts.by_label[label].runs.items())]
    farthest = max(levels, key=lambda one: abs(one.interval.estimate))
    known = [one for one in ends if one is not None]
    if any(low >= condition.margin or high <= -condition.margin for low, high in known):
        return Weighed(farthest, "refuted", run_ids)
    inside = all(-condition.margin < low and high < condition.margin for low, high in known)
    return Weighed(farthest, "supported" if inside and len(known) == len(ends) else "undecided", run_ids)
