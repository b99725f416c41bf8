"""Which classes a method gets right and which it takes for which: precision, recall and F1, the pairs most confused.

Not here: the heat map of all pairs (`confusion.py`), the rarest classes (`rare_classes.py`). Test predictions of all
seeds are counted together; a class that no test example has is left out, since nothing is known of it.

    worst_text(facts.by_label["lora"], Words("en"))
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from paretune.report.facts import MethodFacts, StudyFacts
from paretune.report.sheets import Cell, Sheet
from paretune.report.wording import Words

MOST_CLASSES = 12  # shown first; all of them stand in a table that is folded away
MOST_PAIRS = 10


@dataclass(frozen=True)
class ClassScore:
    """One class over all seeds of a method: `right` of `predictions` in all, which are `examples` test examples each
    seen by every seed. `taken_for` is the class that its errors name most often, with their number."""

    label: str
    precision: float | None
    recall: float
    f1: float
    right: int
    predictions: int
    examples: int
    taken_for: tuple[str, int] | None


def class_scores(method: MethodFacts) -> list[ClassScore]:
    """Every class with a test example, the worst F1 first."""
    runs = [run.splits["test"] for run in method.runs.values() if "test" in run.splits]
    pairs: Counter[tuple[str, str]] = Counter()
    for test in runs:
        pairs.update(zip(test.labels, test.predictions, strict=True))
    truth, said = Counter[str](), Counter[str]()
    for (label, prediction), number in pairs.items():
        truth[label] += number
        said[prediction] += number
    found: list[ClassScore] = []
    for label, number in truth.items():
        right = pairs[label, label]
        wrong = [(other, times) for (true, other), times in pairs.items() if true == label and other != label]
        found.append(
            ClassScore(
                label=label,
                precision=right / said[label] if said[label] else None,
                recall=right / number,
                f1=2 * right / (number + said[label]),
                right=right,
                predictions=number,
                examples=number // len(runs),
                taken_for=max(wrong, key=lambda one: (one[1], one[0])) if wrong else None,
            )
        )
    return sorted(found, key=lambda one: (one.f1, one.recall, one.label))


def confused_pairs(method: MethodFacts) -> list[tuple[str, str, int, float]]:
    """(true class, prediction, predictions, share of the true class), the most frequent first."""
    scores = {one.label: one for one in class_scores(method)}
    pairs: Counter[tuple[str, str]] = Counter()
    for run in method.runs.values():
        test = run.splits.get("test")
        if test is not None:
            pairs.update(one for one in zip(test.labels, test.predictions, strict=True) if one[0] != one[1])
    ordered = sorted(pairs.items(), key=lambda one: (-one[1], one[0]))
    return [(true, other, number, number / scores[true].predictions) for (true, other), number in ordered]


def shown_method(facts: StudyFacts, wanted: str = "") -> MethodFacts | None:
    """The wanted method, else that of the best mean; None where nothing is scored."""
    if wanted in facts.by_label and facts.by_label[wanted].runs:
        return facts.by_label[wanted]
    return max(facts.scored, key=lambda one: facts.quality[one.label].estimate, default=None)


def worst_text(method: MethodFacts, words: Words) -> str:
    """The class with the worst F1 in a sentence; empty where every class is right."""
    scores = class_scores(method)
    if not scores or scores[0].f1 == 1:
        return ""
    worst = scores[0]
    values = {
        "method": method.label,
        "class": worst.label,
        "f1": words.number(worst.f1),
        "right": words.count(worst.right),
        "all": words.count(worst.predictions),
    }
    if worst.taken_for is None:
        values["precision"] = words.number(worst.precision or 0.0)
        return words.say(
            "{method} is worst at {class}: F1 {f1}; all its examples are found, but of the predictions of this class "
            "only {precision} are right.",
            values,
        )
    values |= {"other": worst.taken_for[0], "times": words.count(worst.taken_for[1])}
    return words.say(
        "{method} is worst at {class}: F1 {f1}; {right} of {all} predictions are right, {times} say {other}.", values
    )


def classes_sheet(method: MethodFacts, words: Words, most: int | None = MOST_CLASSES) -> Sheet:
    """Precision, recall and F1 of each class, the worst first; `most` None is all."""
    scores = class_scores(method)
    rows = [
        (
            Cell(one.label, kind="name"),
            Cell(words.number(one.precision) if one.precision is not None else words.say("never predicted")),
            Cell(words.number(one.recall)),
            Cell(words.number(one.f1)),
            Cell(words.count(one.examples)),
            Cell(f"{one.taken_for[0]} × {words.count(one.taken_for[1])}" if one.taken_for else "—"),
        )
        for one in scores[:most]
    ]
    columns = (
        words.say("class"),
        words.say("precision"),
        words.say("recall"),
        words.say("F1"),
        words.say("test examples"),
        words.say("most often taken for"),
    )
    notes = [words.say("All seeds counted together; the class with the worst F1 first.")]
    if most is not None and len(scores) > most:
        values = {"shown": words.count(most), "all": words.count(len(scores))}
        notes.append(words.say("The {shown} worst of {all} classes.", values))
    title = words.say("Classes: {method}", {"method": method.label})
    if most is None:
        title = words.say("All classes: {method}", {"method": method.label})
    return Sheet(title, columns, tuple(rows), tuple(notes), frozenset({5}))


def pairs_sheet(method: MethodFacts, words: Words) -> Sheet | None:
    """The pairs of classes most confused; None where no prediction is wrong."""
    pairs = confused_pairs(method)[:MOST_PAIRS]
    if not pairs:
        return None
    rows = [
        (
            Cell(true, kind="name"),
            Cell(other),
            Cell(words.count(number)),
            Cell(words.percent(share, 1)),
        )
        for true, other, number, share in pairs
    ]
    columns = (
        words.say("true class"),
        words.say("taken for"),
        words.say("predictions"),
        words.say("share of the true class"),
    )
    title = words.say("Pairs most often confused: {method}", {"method": method.label})
    return Sheet(title, columns, tuple(rows), (), frozenset({1}))
