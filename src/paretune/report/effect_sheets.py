"""Tables of what settings do to quality — levels of each one, and pairs of levels — and the advice that follows.

Not here: what is a factor (`factors.py`), the figure (`effect_figures.py`), who is best within a budget (`budgets.py`).

    print(advice_of(facts, Words("en"), [("targets", "layers")]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from paretune.report.budgets import Budget, Resource, budget_data
from paretune.report.draws import draws_of
from paretune.report.factors import Effects, Group, effects_of, groups_of, level_text
from paretune.report.facts import StudyFacts, bounds
from paretune.report.front import SURE
from paretune.report.sheets import Cell, Sheet
from paretune.report.tables import metric_name
from paretune.report.wording import Words
from paretune.stats.effects import LevelEffect

Standing = Literal["better", "worse", "within", "undecided"]
Pairs = Sequence[tuple[str, str]]


def pairs_of(text: str) -> list[tuple[str, str]]:
    """Interactions from a slot's name: "targets:layers,rank:dropout"."""
    found = [one.partition(":") for one in text.split(",") if one]
    return [(first, second) for first, _, second in found]


def standing_of(one: LevelEffect, margin: float) -> Standing:
    """What an effect's interval says: within the margin, else on one side of zero, else nothing."""
    ends = bounds(one.interval)
    if ends is None:
        return "undecided"
    low, high = ends
    if -margin < low and high < margin:
        return "within"
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def standing_text(standing: Standing, words: Words) -> str:
    """For readers."""
    return {
        "better": words.say("better than the mean"),
        "worse": words.say("worse than the mean"),
        "within": words.say("within the margin"),
        "undecided": words.say("undecided"),
    }[standing]


def effect_sheets(facts: StudyFacts, group: Group, effects: Effects, words: Words) -> list[Sheet]:
    """Main effects, then interactions where the model has some; nothing where there is no fit."""
    if effects.fit is None:
        return []
    main = [one for one in effects.fit.effects if len(one.effect) == 1]
    paired = [one for one in effects.fit.effects if len(one.effect) == 2]
    sheets = [_sheet(words.say("Effect of each setting of {kind}", {"kind": group.kind}), main, facts, group, words)]
    notes = list(_notes(facts, effects, words))
    if paired:
        title = words.say("Interactions of settings of {kind}", {"kind": group.kind})
        sheets.append(_sheet(title, paired, facts, group, words))
        notes.append(
            words.say(
                "Interaction: how far a pair of levels lies from the sum of their two effects; where it does not "
                "matter each setting may be chosen by itself."
            )
        )
    return [*sheets[:-1], _noted(sheets[-1], notes)]


def _sheet(title: str, found: Sequence[LevelEffect], facts: StudyFacts, group: Group, words: Words) -> Sheet:
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        ends, standing = bounds(one.interval), standing_of(one, facts.study.margin)
        kind = "equivalent" if standing == "within" else standing
        having = [
            label
            for label, settings in group.settings.items()
            if all(settings[name] == level for name, level in zip(one.effect, one.level, strict=True))
        ]
        rows.append(
            (
                Cell(" × ".join(one.effect), kind="name"),
                Cell(" × ".join(level_text(words, level) for level in one.level)),
                Cell(words.number(one.interval.estimate, signed=True)),
                Cell(words.spread(*ends, signed=True) if ends else "—"),
                Cell(words.count(sum(len(facts.example_values.get(label, {})) for label in having))),
                Cell(standing_text(standing, words), kind=kind),
            )
        )
    columns = (
        words.say("setting"),
        words.say("value"),
        words.say("effect on {metric}", {"metric": metric_name(words, facts.metric)}),
        words.say("95 % interval"),
        words.say("scored runs"),
        words.say("verdict"),
    )
    return Sheet(title, columns, tuple(rows), left=frozenset({1, 5}))


def _noted(sheet: Sheet, notes: Sequence[str]) -> Sheet:
    return Sheet(sheet.title, sheet.columns, sheet.rows, tuple(notes), sheet.left)


def _notes(facts: StudyFacts, effects: Effects, words: Words) -> list[str]:
    assert effects.fit is not None
    values = {
        "columns": words.count(effects.columns),
        "runs": words.count(effects.runs),
        "deviation": words.number(effects.fit.residual_deviation),
        "margin": words.number(facts.study.margin),
    }
    return [
        words.say(
            "Effect: distance of a level from the mean over the levels of its setting, others equal; a linear model of "
            "{columns} columns over {runs} runs, which miss it by {deviation} (standard deviation). Interval: 95 %, "
            "over runs and test examples together, not corrected for the number of levels. Within the margin: the "
            "interval lies inside ±{margin}.",
            values,
        )
    ]


def advice_of(facts: StudyFacts, words: Words, interactions: Pairs = ()) -> str:
    """What to take within budgets of memory and of time, and which settings stayed undecided: three sentences at most.

    Raises:
        UnknownNameError: an interaction of what is no factor.
    """
    draws = draws_of(facts)
    if draws is None:
        return words.say("Nothing was measured that advice could rest on.")
    budgets = budget_data(draws)
    sentences = [
        words.say("By memory: {choices}.", {"choices": _choices(budgets, "memory", facts, words)}),
        words.say("By time: {choices}.", {"choices": _choices(budgets, "time", facts, words)}),
    ]
    return " ".join([*sentences, _settings_text(facts, words, interactions)])


def _choices(budgets: Sequence[Budget], resource: Resource, facts: StudyFacts, words: Words) -> str:
    """The likeliest best within each budget; a larger budget that changes nothing is left out."""
    texts: list[str] = []
    last = ""
    for one in budgets:
        if one.resource != resource or not one.ranked or one.ranked[0][0] == last:
            continue
        last, share = one.ranked[0]
        limit = words.size(one.limit) if resource == "memory" else words.duration(one.limit)
        quality = f"{metric_name(words, facts.metric)} {words.number(facts.quality[last].estimate)}"
        values = {"limit": limit, "method": last, "quality": quality, "chance": words.percent(share)}
        if len(one.fitting) + len(one.sometimes) == 1:
            text = words.say("with {limit} only {method} fits ({quality})", values)
        elif share >= SURE:
            text = words.say("with {limit} take {method} ({quality}; the best with probability {chance})", values)
        else:
            text = words.say(
                "with {limit} it is undecided, likeliest {method} ({quality}; the best with probability {chance})",
                values,
            )
        texts.append(text)
    return "; ".join(texts)


def _settings_text(facts: StudyFacts, words: Words, interactions: Pairs) -> str:
    """Which settings matter, which do not, and which are undecided, as one sentence."""
    groups = groups_of(facts)
    fit = effects_of(facts, groups[0], interactions).fit if groups else None
    if fit is None:
        return words.say("What each setting does stayed undecided: the runs do not tell their effects apart.")
    standings: dict[str, set[Standing]] = {}
    for one in fit.effects:
        standings.setdefault(" × ".join(one.effect), set()).add(standing_of(one, facts.study.margin))
    matter = [name for name, found in standings.items() if found & {"better", "worse"}]
    same = [name for name, found in standings.items() if found == {"within"}]
    undecided = [name for name in standings if name not in matter and name not in same]
    texts = list[str]()
    if matter:
        texts.append(words.say("these matter: {settings}", {"settings": ", ".join(matter)}))
    if same:
        texts.append(words.say("these do not, within the margin: {settings}", {"settings": ", ".join(same)}))
    if undecided:
        texts.append(words.say("undecided: {settings}", {"settings": ", ".join(undecided)}))
    return words.say("Settings: {parts}.", {"parts": "; ".join(texts)})
