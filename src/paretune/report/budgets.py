"""Methods at equal memory and at equal time: which of those that fit a budget is the best, and how sure that is.

Not here: resampling (`draws.py`), the dashboard's slider. Budgets are taken from the records: so much as the cheapest
third of the methods needs, as half of them need, as all need.

    budget_sheet(facts, Words("en"))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paretune.report.choice import other_question
from paretune.report.draws import Draws, chances, draws_of
from paretune.report.facts import PARETO_DRAWS, StudyFacts
from paretune.report.front import SURE
from paretune.report.sheets import Cell, Sheet
from paretune.report.wording import Words

Resource = Literal["memory", "time"]
Part = Literal["third", "half", "all"]
PARTS: tuple[tuple[Part, float], ...] = (("third", 1 / 3), ("half", 1 / 2), ("all", 1.0))
COLUMN: dict[Resource, int] = {"memory": 1, "time": 2}
LEAST_SHARE = 0.01  # what is rarer is left out of the words
MOST_NAMED, MOST_RANKED = 7, 5


@dataclass(frozen=True)
class Budget:
    """A limit on one cost; `fitting` methods stay within it in every draw, `sometimes` in some; `shares` of being best.

    `name` says which part of the methods it admits.
    """

    resource: Resource
    name: Part
    limit: float
    fitting: list[str]
    sometimes: list[str]
    shares: dict[str, float]

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Methods that are the best in some draws, the likeliest first."""
        found = [(name, share) for name, share in self.shares.items() if share >= LEAST_SHARE]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    @property
    def best(self) -> str | None:
        """The method that is the best with a probability of at least 95 %, or the only one; None: undecided."""
        if len(self.fitting) + len(self.sometimes) == 1 or (self.ranked and self.ranked[0][1] >= SURE):
            return self.ranked[0][0] if self.ranked else None
        return None


def budget_data(draws: Draws) -> list[Budget]:
    """Budgets of memory, then of time; those that admit the same methods stand once, under the larger part."""
    return [one for resource in COLUMN for one in _budgets(draws, resource)]


def _budgets(draws: Draws, resource: Resource) -> list[Budget]:
    needs_dm = draws.points_dmk[:, :, COLUMN[resource]]
    most = sorted(needs_dm.max(axis=0).tolist())
    parts: dict[float, Part] = {}
    for name, share in PARTS:
        parts[most[math.ceil(len(most) * share - 1e-9) - 1]] = name
    found: list[Budget] = []
    for limit, name in parts.items():
        memory, seconds = (limit, math.inf) if resource == "memory" else (math.inf, limit)
        within_m = (needs_dm <= limit).mean(axis=0)
        fitting = [method for method, share in zip(draws.methods, within_m, strict=True) if share == 1]
        sometimes = [method for method, share in zip(draws.methods, within_m, strict=True) if 0 < share < 1]
        found.append(Budget(resource, name, limit, fitting, sometimes, chances(draws, memory, seconds)))
    return found


def budget_text(one: Budget, words: Words) -> str:
    """ "peak memory up to 812 MB"."""
    if one.resource == "memory":
        return words.say("peak memory up to {limit}", {"limit": words.size(one.limit)})
    return words.say("training time up to {limit}", {"limit": words.duration(one.limit)})


def part_text(one: Budget, words: Words) -> str:
    """Which part of the methods a budget is enough for."""
    names = {
        "third": words.say("enough for the cheapest third"),
        "half": words.say("enough for half of the methods"),
        "all": words.say("enough for all"),
    }
    return names[one.name]


def shares_text(ranked: Sequence[tuple[str, float]], words: Words) -> str:
    """ "lora 62 %; full 38 %"; of many the likeliest, and the others together."""
    texts = [f"{name} {words.percent(share)}" for name, share in ranked[:MOST_RANKED]]
    if rest := [share for _, share in ranked[MOST_RANKED:]]:
        values = {"share": words.percent(sum(rest))}
        texts.append(words.plural("{n} other {share}", "{n} others {share}", len(rest), values))
    return "; ".join(texts)


def _names(methods: Sequence[str], words: Words) -> str:
    if len(methods) <= MOST_NAMED:
        return ", ".join(methods)
    return words.plural("{n} method", "{n} methods", len(methods))


def budget_sheet(facts: StudyFacts, words: Words) -> Sheet | None:
    """A row for each budget; None where no method has quality, memory and time."""
    draws = draws_of(facts)
    if draws is None:
        return None
    lines: list[tuple[Cell, ...]] = []
    for one in budget_data(draws):
        sometimes = words.say("not with every seed: {methods}", {"methods": _names(one.sometimes, words)})
        best, ranked = Cell(one.best or words.say("undecided")), shares_text(one.ranked, words)
        if len(one.fitting) + len(one.sometimes) == 1:
            best, ranked = Cell(one.fitting[0], words.say("nothing else fits: there is no choice")), "—"
        lines.append(
            (
                Cell(budget_text(one, words), part_text(one, words), "name"),
                Cell(_names(one.fitting, words), sometimes if one.sometimes else ""),
                best,
                Cell(ranked),
            )
        )
    columns = (
        words.say("budget"),
        words.say("methods that fit"),
        words.say("the highest quality"),
        words.say("probability to be the best"),
    )
    title = words.say("At equal memory and at equal time")
    return Sheet(title, columns, tuple(lines), tuple(_notes(facts, draws, words)), frozenset({1, 2, 3}))


def _notes(facts: StudyFacts, draws: Draws, words: Words) -> list[str]:
    notes = [
        other_question(facts.study.control, facts.study.margin, words),
        words.say(
            "Each budget limits one cost alone and is taken from the records. Probability: the share of {draws} "
            "resampled sets of seeds and test examples in which a method has the best quality of those that fit; below "
            "95 % the best one is undecided. Measured costs are compared: that a run would fit under a cap of that "
            "size is not claimed.",
            {"draws": words.count(PARETO_DRAWS)},
        ),
    ]
    if len(facts.study.seeds) == 1:
        notes.append(words.say("One seed: the chances tell of the test examples alone, not of other seeds."))
    if draws.left_out:
        names = {"methods": words.series(draws.left_out)}
        notes.append(words.say("Left out, without a scored run or a cost that may be compared: {methods}.", names))
    return notes
