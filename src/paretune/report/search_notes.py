"""What the search of settings leaves open, in sentences: a choice at an edge, rates that noise does not tell apart.

Not here: the search itself (`study/plan.py`, `methods/regression.py`). Records of before the search had a rule by name
say by which rule they were made instead.

    open_search(gather(folder), Words("en"))
"""

from __future__ import annotations

from paretune.report.facts import MethodFacts, StudyFacts
from paretune.report.wording import Words


def at_the_edge(method: MethodFacts) -> bool:
    """Whether the setting that was chosen is at an edge of those that were tried, the search's extensions included."""
    if method.selection is not None and method.selection.rule is not None:
        return method.selection.edge is not None
    choices = [run.measurements.choice for run in method.runs.values()]
    return any(choice is not None and choice.edge for choice in choices)


def fitted_setting(method: MethodFacts, words: Words) -> str:
    """What a fitted method chose for itself, each different choice of its seeds once; empty where it chose nothing."""
    found: list[str] = []
    for run in method.runs.values():
        choice = run.measurements.choice
        if choice is None or "strength" not in choice.setting:
            continue
        parts = [f"C = {float(choice.setting['strength']):g}"]
        if choice.setting.get("class_weights") == "balanced":
            parts.append(words.say("classes weigh alike"))
        if choice.setting.get("features") == "of length 1":
            parts.append(words.say("features of length 1"))
        found.append(", ".join(parts))
    return "; ".join(dict.fromkeys(found))


def weights_note(facts: StudyFacts, words: Words) -> str:
    """That training weighed classes alike; empty where it did not."""
    train = facts.study.spec.get("train", {})
    if not isinstance(train, dict) or train.get("class_weights", "none") == "none":
        return ""
    return words.say("In training every class weighs alike in the loss, whatever its share (`class_weights`).")


def open_search(facts: StudyFacts, words: Words) -> list[str]:
    """Sentences for beside the answer; none where nothing is open, or the records are of the older rule."""
    found: list[str] = []
    if edge := [method.label for method in facts.methods if at_the_edge(method)]:
        found.append(
            words.say(
                "Open: the search ended at an edge of the settings that were tried, and further ones might do better: "
                "{methods}.",
                {"methods": words.series(edge)},
            )
        )
    tied = [one.label for one in facts.methods if one.selection is not None and one.selection.tied]
    if tied:
        found.append(
            words.say(
                "Learning rates that noise does not tell apart, of which the nearest to the default was taken: "
                "{methods}.",
                {"methods": words.series(tied)},
            )
        )
    return found


def rule_note(facts: StudyFacts, words: Words) -> str:
    """By which rule the study's settings were searched; empty where there was nothing to search."""
    if not facts.study.selections:
        return ""
    if any(selection.rule is None for selection in facts.study.selections):
        return words.say(
            "Searched by the older rule: fixed rates, ties decided by the log-loss of one seed, no extension past an "
            "edge, a fixed number of epochs."
        )
    return words.say(
        "Rule of the search: of rates within one standard error of the best (the paired difference over validation "
        "examples) the nearest to the default; a choice at an edge tries the next factor of three, as often for every "
        "method."
    )
