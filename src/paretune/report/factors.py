"""Settings that vary between the methods of a study, as factors, and the effect of each of their levels on quality.

Not here: the model (`stats/effects.py`), figures (`effect_figures.py`). Alpha is asked of LoRA's users as a rule of the
rank, so that where both vary its factor is the rule; other settings stand as they are.

    for group in groups_of(facts): print(effects_of(facts, group).fit)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from paretune.core.config import JsonObject, nearest
from paretune.core.errors import UnknownNameError, said
from paretune.report.facts import LEVEL, StudyFacts
from paretune.report.wording import Words
from paretune.stats.designs import Level, coded
from paretune.stats.effects import Fit, fit_effects
from paretune.stats.metrics import metric_named

DEFAULT = "default"
ALPHA, ALPHA_RULE, RANK, STABILISED = "alpha", "alpha rule", "rank", "rank_stabilised"


@dataclass(frozen=True)
class Group:
    """Methods of one kind whose settings differ: factor → its levels in order, method → its level of each factor."""

    kind: str
    factors: dict[str, list[Level]]
    settings: dict[str, dict[str, Level]]


@dataclass(frozen=True)
class Effects:
    """The fitted model, or why there is none: too few runs for its columns, or settings that change together."""

    fit: Fit | None
    runs: int
    columns: int
    why: Literal["", "runs", "together", "confounded"] = ""
    together: tuple[tuple[str, str], ...] = ()


def groups_of(facts: StudyFacts) -> list[Group]:
    """Kinds of methods with at least two that differ in a setting; the largest group first."""
    by_kind: dict[str, dict[str, JsonObject]] = {}
    for method in facts.methods:
        by_kind.setdefault(method.record.kind, {})[method.label] = method.record.settings
    groups = [_group(kind, methods) for kind, methods in by_kind.items() if len(methods) > 1]
    return sorted((one for one in groups if one.factors), key=lambda one: -len(one.settings))


def _group(kind: str, methods: Mapping[str, JsonObject]) -> Group:
    plain = {label: {name: _level(value) for name, value in tree.items()} for label, tree in methods.items()}
    if _varies(plain, RANK) and _varies(plain, ALPHA):
        stabilised = {tree.get(ALPHA) for tree in methods.values() if tree.get(STABILISED)}
        plain = {label: _with_rule(one, methods[label], len(stabilised) == 1) for label, one in plain.items()}
    names = list(dict.fromkeys(name for one in plain.values() for name in one))
    settings = {label: {name: one.get(name, DEFAULT) for name in names} for label, one in plain.items()}
    factors = {name: _ordered([one[name] for one in settings.values()]) for name in names}
    varying = {name: levels for name, levels in factors.items() if len(levels) > 1}
    return Group(kind, varying, {label: {name: one[name] for name in varying} for label, one in settings.items()})


def _varies(plain: Mapping[str, Mapping[str, Level]], name: str) -> bool:
    return len({one.get(name, DEFAULT) for one in plain.values()}) > 1


def _with_rule(one: Mapping[str, Level], tree: JsonObject, one_stabilised: bool) -> dict[str, Level]:
    """Alpha as a rule: 2r (also what is not given), r, or a number; "rs" before it for a rank-stabilised scale.

    Where all rank-stabilised methods have one alpha their rule is that number, whatever the rank happens to be.
    """
    rank, alpha = tree.get(RANK), tree.get(ALPHA)
    rule = "2r" if alpha is None or alpha == 2 * (rank or 0) else "r" if alpha == rank else f"{alpha:g}"
    if tree.get(STABILISED):
        rule = f"rs {alpha:g}" if one_stabilised and alpha is not None else f"rs {rule}"
    given = {**one, ALPHA: rule}
    return {ALPHA_RULE if name == ALPHA else name: value for name, value in given.items() if name != STABILISED}


def _level(value: object) -> Level:
    if value is None:
        return DEFAULT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float | str):
        return value
    return ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)


def _ordered(levels: Sequence[Level]) -> list[Level]:
    numbers = sorted({one for one in levels if not isinstance(one, str)})
    return [*numbers, *sorted({one for one in levels if isinstance(one, str)})]


def effects_of(facts: StudyFacts, group: Group, interactions: Sequence[tuple[str, str]] = ()) -> Effects:
    """Main effects and these interactions over all scored runs of the group, over seeds and test examples together.

    Raises:
        UnknownNameError: an interaction of what is no factor here.
    """
    for name in (name for pair in interactions for name in pair):
        if name not in group.factors:
            given = said(
                f"setting {name!r}", "one of " + ", ".join(group.factors), nearest=nearest(name, group.factors)
            )
            raise UnknownNameError(given)
    runs = [(label, values) for label in group.settings for values in facts.example_values.get(label, {}).values()]
    settings = [group.settings[label] for label, _ in runs]
    levels = {name: len(found) - 1 for name, found in group.factors.items()}
    columns = 1 + sum(levels.values()) + sum(levels[first] * levels[second] for first, second in interactions)
    if len(runs) <= columns:
        return Effects(None, len(runs), columns, "runs")
    matrix, _ = coded(settings, group.factors, interactions)
    if np.linalg.matrix_rank(matrix) < columns:
        pairs = tuple(pair for pair in combinations(group.factors, 2) if _together(settings, *pair))
        return Effects(None, len(runs), columns, "together" if pairs else "confounded", pairs)
    values_re = np.stack([values for _, values in runs])
    reach = metric_named(facts.metric).difference_bounds
    return Effects(fit_effects(settings, group.factors, values_re, interactions, LEVEL, reach), len(runs), columns)


def _together(settings: Sequence[Mapping[str, Level]], first: str, second: str) -> bool:
    """Whether each level of one setting was only ever tried with one level of the other."""
    pairs = {(one[first], one[second]) for one in settings}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def why_text(effects: Effects, words: Words) -> str:
    """Why there are no effects, and what would give them; empty where there are."""
    values = {"runs": words.count(effects.runs), "columns": words.count(effects.columns)}
    if effects.why == "runs":
        return words.say(
            "No effects yet: a model of these settings has {columns} columns and needs more scored runs than that; "
            "there are {runs}.",
            values,
        )
    if effects.why == "together":
        pairs = words.series([words.say("{first} with {last}", {"first": a, "last": b}) for a, b in effects.together])
        return words.say(
            "The effects cannot be told apart: these settings only ever changed together — {pairs}. Add methods in "
            "which one changes without the other.",
            {"pairs": pairs},
        )
    if effects.why == "confounded":
        return words.say(
            "The effects cannot be told apart: the scored runs have too few different combinations of settings for a "
            "model of {columns} columns.",
            values,
        )
    return ""


def level_text(words: Words, level: Level) -> str:
    """A level for readers."""
    if isinstance(level, str):
        return {DEFAULT: words.say("default"), "yes": words.say("yes"), "no": words.say("no")}.get(level, level)
    return words.compact(level)
