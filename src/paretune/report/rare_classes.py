"""Recall of the rarest classes beside accuracy: what a mean over all examples hides where classes are unequal.

Not here: the per-example values (`stats/recall.py`). Rare is the quarter of the classes with the fewest training rows;
the table stands where there are at least four classes and that quarter holds at most half of an equal share of rows.

    section = rare_classes_section(facts, rows_of(facts), Words("en"))  # None where the classes are equal enough
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from paretune.report.facts import LEVEL, MethodFacts, StudyFacts, with_width
from paretune.report.page import Section
from paretune.report.sheets import Cell, Sheet, name_cell, or_not_measured, zero_interval
from paretune.report.tables import MethodRow, metric_name
from paretune.report.wording import Words
from paretune.stats.compare import Comparison, SeedScores, compare
from paretune.stats.recall import even_rows, recall_interval, recall_values

FEWEST_CLASSES = 4  # a quarter of them is one class
UNEQUAL = 0.5  # share of an equal share that the rare quarter may hold
FEWEST_TEST_ROWS = 2  # of a class, to say how sure its recall is
NAMES_SHOWN = 8
RECALLS = (0.0, 1.0)


@dataclass(frozen=True)
class RareClasses:
    """The rare classes with test rows enough, rarest first; `left_out` are rare ones without."""

    labels: tuple[str, ...]
    left_out: tuple[str, ...]
    train_rows: int
    test_rows: int
    all_train_rows: int


def rare_classes(facts: StudyFacts) -> RareClasses | None:
    """The quarter of classes with the fewest training rows; None where that would mean nothing."""
    if facts.exploration is None or not facts.scored:
        return None
    train = {one.label: one.rows.get("train", 0) for one in facts.exploration.classes}
    number, total = len(train) // FEWEST_CLASSES, sum(train.values())
    rarest = sorted(train, key=lambda label: (train[label], label))[:number]
    if not rarest or sum(train[label] for label in rarest) > UNEQUAL * total * number / len(train):
        return None
    run = next(iter(facts.scored[0].runs.values()))
    test = Counter(run.splits["test"].labels)
    kept = tuple(label for label in rarest if test[label] >= FEWEST_TEST_ROWS)
    if not kept:
        return None
    return RareClasses(
        labels=kept,
        left_out=tuple(label for label in rarest if label not in kept),
        train_rows=sum(train[label] for label in kept),
        test_rows=sum(test[label] for label in kept),
        all_train_rows=total,
    )


@dataclass(frozen=True)
class RareRow:
    """One method: means over seeds of accuracy and of both recalls; intervals over seeds and examples together.

    `interval` is Wilson's with an effective number of rows, None with one seed; the difference's is the crossed one.
    """

    method: str
    accuracy: float
    rare: float
    interval: tuple[float, float] | None
    others: float | None
    against_control: Comparison | None


def rare_rows(facts: StudyFacts, rare: RareClasses) -> list[RareRow]:
    """One row for each scored method, in the study's order."""
    labels = set(rare.labels)
    values = {method.label: _values(method, labels) for method in facts.scored}
    compared: dict[str, Comparison] = {}
    if facts.study.control in values and len(values) > 1:
        compared = {one.method: one for one in compare(values, facts.study.control, facts.study.margin, LEVEL, RECALLS)}
    others = set(facts.study.labels) - labels - set(rare.left_out)
    found: list[RareRow] = []
    for method in facts.scored:
        by_seed = values[method.label]
        test = method.runs[min(method.runs)].splits["test"]
        found.append(
            RareRow(
                method=method.label,
                accuracy=float(np.mean(method.seed_scores("accuracy"))),
                rare=float(np.mean([one.mean() for one in by_seed.values()])),
                interval=_interval(by_seed, even_rows(test.labels, labels)),
                others=_mean_recall(method, others),
                against_control=compared.get(method.label),
            )
        )
    return found


def _values(method: MethodFacts, labels: set[str]) -> dict[int, np.ndarray]:
    tests = {seed: run.splits["test"] for seed, run in sorted(method.runs.items())}
    return {seed: recall_values(test.labels, test.predictions, labels) for seed, test in tests.items()}


def _mean_recall(method: MethodFacts, labels: set[str]) -> float | None:
    seen = {label for run in method.runs.values() for label in run.splits["test"].labels}
    if not labels & seen:
        return None
    return float(np.mean([one.mean() for one in _values(method, labels).values()]))


def _interval(by_seed: SeedScores, rows: float) -> tuple[float, float] | None:
    if len(by_seed) < 2:
        return None
    interval = recall_interval(np.stack(list(by_seed.values())), rows, LEVEL)
    return interval.low, interval.high


def rare_classes_sheet(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Sheet | None:
    """The table; None where the study's classes are too equal or too few."""
    rare = rare_classes(facts)
    if rare is None:
        return None
    found = {one.method: one for one in rare_rows(facts, rare)}
    lines = tuple((name_cell(row, words), *_cells(found.get(row.method), words)) for row in rows)
    columns = (
        words.say("method"),
        metric_name(words, "accuracy"),
        words.say("recall of the other classes"),
        words.say("recall of rare classes"),
        words.say("difference to the control"),
        words.say("p (Holm)"),
    )
    return Sheet(words.say("Recall of rare classes"), columns, lines, tuple(_notes(rare, words)))


def _cells(row: RareRow | None, words: Words) -> list[Cell]:
    if row is None:
        return [Cell(words.say("not measured")) for _ in range(5)]
    compared = row.against_control
    difference = compared.difference if compared else None
    return [
        Cell(words.number(row.accuracy)),
        Cell(or_not_measured(row.others, words.number, words)),
        Cell(words.number(row.rare), words.spread(*row.interval) if row.interval else ""),
        Cell(
            words.number(difference.estimate, signed=True) if difference else "—",
            zero_interval(compared, words) if compared else "",
        ),
        Cell(
            words.probability(compared.p_holm)
            if compared and compared.p_holm is not None and with_width(compared.difference)
            else "—"
        ),
    ]


def _notes(rare: RareClasses, words: Words) -> list[str]:
    values = {
        "classes": words.series(_named(rare.labels, words)),
        "train": words.plural("{n} training text", "{n} training texts", rare.train_rows),
        "share": words.percent(rare.train_rows / rare.all_train_rows, 1),
        "test": words.plural("{n} test text", "{n} test texts", rare.test_rows),
    }
    notes = [
        words.say(
            "Rare: the quarter of the classes with the fewest training texts, here {classes} ({train}, {share} of "
            "all; {test}). Recall: share of a class's test texts that are recognised, every class counting alike; mean "
            "over seeds, in small print the 95 % interval over seeds and test texts together (recall: Wilson's, with "
            "an effective number of texts). The difference has Holm's correction; in brackets the level of its "
            "interval where that is not 95 %.",
            values,
        )
    ]
    if rare.left_out:
        names = {"classes": words.series(_named(rare.left_out, words))}
        notes.append(words.say("Left out, with fewer than two test texts each: {classes}.", names))
    return notes


def _named(labels: tuple[str, ...], words: Words) -> list[str]:
    """The first few names, and how many more there are."""
    rest = len(labels) - NAMES_SHOWN
    return [*labels[:NAMES_SHOWN], *([words.plural("{n} more", "{n} more", rest)] if rest > 0 else [])]


def rare_classes_section(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Section | None:
    """The table as a part of the study's page."""
    sheet = rare_classes_sheet(facts, rows, words)
    return Section("rare-classes", words.say("Rare classes"), sheets=(sheet,)) if sheet else None
