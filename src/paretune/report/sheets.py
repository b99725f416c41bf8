"""Tables of the page as words: a title, columns, rows of cells, and notes under it.

Not here: the numbers themselves (`tables.py`) and HTML (`templates/`). Every table has the baselines in it, and shows
a method without a scored run with the states its runs ended in.

    quality_sheet(facts, rows, Words("ru")).columns
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paretune.records.exploration import CleaningStep
from paretune.records.schema import StudyRecord
from paretune.report.facts import LEVEL, StudyFacts, bounds, with_width
from paretune.report.tables import (
    MethodRow,
    levelled,
    metric_name,
    more_seeds_text,
    runs_text,
    state_name,
    verdict_name,
)
from paretune.report.wording import Words
from paretune.stats.compare import Comparison, false_equivalence
from paretune.stats.metrics import METRICS, PROBABILITY_METRICS

METRIC_COLUMNS = (*METRICS, *PROBABILITY_METRICS)


@dataclass(frozen=True)
class Cell:
    """A cell; `kind` is a class of the page's style, such as a verdict or "sub" for a second line in small print."""

    text: str
    note: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table; the first column names the row, `left` gives the other columns that hold words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    left: frozenset[int] = field(default_factory=frozenset[int])


def plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> Sheet:
    """A table of bare texts."""
    cells = tuple(tuple(Cell(text) for text in row) for row in rows)
    return Sheet(title, tuple(columns), cells, left=frozenset(left))


def quality_sheet(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Sheet:
    """Quality with intervals, difference to the control, verdict, and quality away from near-duplicates."""
    metric = metric_name(words, facts.metric)
    one_seed = len(facts.study.seeds) == 1
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        decide = more_seeds_text(words, row.more_seeds, row.limited_by)
        if row.verdict == "undecided" and row.difference_interval is None:
            decide = words.say("too few shared seeds")
        lines.append(
            (
                name_cell(row, words),
                Cell(
                    words.number(row.quality) if row.quality is not None else words.say("not measured"),
                    _spread_or_same(row, words),
                ),
                Cell(or_not_measured(row.quality_away_from_training, words.number, words)),
                Cell(
                    words.number(row.difference, signed=True) if row.difference is not None else "—",
                    levelled(words, row.difference_interval, row.difference_level) if row.difference_interval else "",
                ),
                Cell(words.probability(row.p_holm) if row.p_holm is not None and row.difference_interval else "—"),
                Cell(verdict_name(words, row), decide, row.verdict or ("control" if row.control else "none")),
                Cell(runs_text(words, row)),
            )
        )
    margin = {"margin": words.number(facts.study.margin), "control": facts.study.control}
    notes = [
        words.say(
            "Quality: mean over seeds, below it the 95 % interval over new seeds and new test texts together. "
            "Difference: to {control} on the same seeds and test texts, below it the interval that the verdict was "
            "taken from, over seeds and test texts. Better, worse: it does not hold 0, at 95 % with Holm's correction "
            "for several methods (so has p). Equivalent: the 90 % interval lies within the study's margin of ±{margin} "
            "(two one-sided tests at 5 %). Undecided: the wider of both. In brackets its level, where it is not 95 %.",
            margin,
        )
    ]
    if several := false_equivalence_note(rows, words):
        notes.append(several)
    if one_seed:
        notes.append(words.say("One seed: there is no interval over seeds, and no difference can be decided."))
    columns = (
        words.say("method"),
        metric,
        words.say("without near-duplicates"),
        words.say("difference to the control"),
        words.say("p (Holm)"),
        words.say("verdict"),
        words.say("scored runs"),
    )
    return Sheet(
        words.say("Quality and difference to the control"), columns, tuple(lines), tuple(notes), frozenset({5, 6})
    )


def false_equivalence_note(rows: Sequence[MethodRow], words: Words) -> str:
    """That equivalence is tested for each method by itself, and what survives a correction; empty for one method."""
    compared = [row for row in rows if row.tost_holm is not None]
    if len(compared) < 2 or not any(row.verdict == "equivalent" for row in compared):
        return ""
    kept = [row.method for row in compared if row.verdict == "equivalent" and (row.tost_holm or 0.0) <= 1 - LEVEL]
    values = {
        "methods": words.count(len(compared)),
        "share": words.percent(false_equivalence(len(compared), LEVEL)),
        "kept": words.series(kept) if kept else words.say("none"),
    }
    return words.say(
        "Equivalence is tested for each method by itself: if all {methods} differed by just the margin, at least one "
        "would be called equivalent with a probability of up to {share}. With Holm's correction for all of them it "
        "is shown of: {kept}.",
        values,
    )


def _spread_or_same(row: MethodRow, words: Words) -> str:
    if row.quality_interval is None:
        return ""
    low, high = row.quality_interval
    return words.say("the same for all seeds and texts") if low == high else words.spread(low, high)


def name_cell(row: MethodRow, words: Words) -> Cell:
    """A method's name, and what it is in the study."""
    role = words.say("control") if row.control else words.say("baseline") if row.family == "baseline" else ""
    return Cell(row.method, role, "name")


def or_not_measured(value: float | None, form: Callable[[float], str], words: Words) -> str:
    return words.say("not measured") if value is None else form(value)


def findings(facts: StudyFacts, rows: list[MethodRow], words: Words) -> list[str]:
    """Methods that do not beat a baseline, runs that stopped and runs that learnt nothing, in words."""
    lines: list[str] = []
    for baseline in dict.fromkeys(name for row in rows for name in row.baselines_not_beaten):
        short = [row.method for row in rows if baseline in row.baselines_not_beaten]
        names = {"methods": words.series(short), "baseline": baseline}
        lines.append(
            words.say(
                "Not shown to beat the baseline {baseline}: {methods} (the 95 % interval of the difference "
                "reaches 0 or below, or there is none).",
                names,
            )
        )
    for row in rows:
        for state, number in row.stopped.items():
            reason = f" — {'; '.join(row.reasons)}" if row.reasons else ""
            runs = words.plural("{n} run", "{n} runs", number)
            values = {"method": row.method, "runs": runs, "state": state_name(words, state), "reason": reason}
            lines.append(words.say("{method}: {runs} without a result, state “{state}”{reason}.", values))
        if number := facts.by_label[row.method].one_class_runs():
            values = {"method": row.method, "runs": words.plural("{n} run", "{n} runs", number)}
            lines.append(
                words.say(
                    "{method}: {runs} with one and the same class for every test example; at the learning rate that "
                    "its first seed chose the training did not take hold.",
                    values,
                )
            )
    return lines


def split_name(words: Words, split: str) -> str:
    """A split's name for readers; a study's own names stay as they are."""
    return {"train": words.say("training"), "validation": words.say("validation"), "test": words.say("test")}.get(
        split, split
    )


def scores_sheet(facts: StudyFacts, rows: list[MethodRow], words: Words, split: str) -> Sheet:
    """All metrics on one split, means over seeds; then churn, or on other splits the difference to the control."""
    main = split == "test"
    comparisons = {} if main else facts.against(facts.study.control, split)
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        scores = row.scores.get(split, {})
        quality = bounds(facts.quality_on(row.method, split))
        cells: list[Cell] = []
        for metric in METRIC_COLUMNS:
            interval = words.spread(*quality) if metric == facts.metric and quality else ""
            cells.append(Cell(or_not_measured(scores.get(metric), words.number, words), interval))
        if main:
            cells.append(Cell(words.percent(row.churn, 1) if row.churn is not None else "—"))
        else:
            cells.append(_difference_cell(comparisons.get(row.method), words))
        lines.append((name_cell(row, words), *cells))
    columns = [words.say("method"), *(metric_name(words, metric) for metric in METRIC_COLUMNS)]
    if not main:
        columns.append(words.say("difference to the control"))
        title = words.say("Scores on the split “{split}”", {"split": split_name(words, split)})
        note = words.say(
            "Small print: 95 % intervals over seeds and texts; of a difference with Holm's correction, in brackets its "
            "level where that is not 95 %."
        )
        return Sheet(title, tuple(columns), tuple(lines), (note,))
    note = words.say(
        "Churn: share of test examples on which two seeds of the same method disagree. Log-loss and calibration error: "
        "less is better. Small print: 95 % interval over seeds and test texts."
    )
    return Sheet(words.say("All scores on test data"), (*columns, words.say("churn")), tuple(lines), (note,))


def _difference_cell(comparison: Comparison | None, words: Words) -> Cell:
    if comparison is None or comparison.difference is None:
        return Cell("—")
    return Cell(words.number(comparison.difference.estimate, signed=True), zero_interval(comparison, words))


def verdict_interval(comparison: Comparison, words: Words) -> str:
    """The interval that a comparison's verdict was taken from, with its level where that is not 95 %."""
    if comparison.too_few_seeds:
        return words.say("too few seeds for an interval")
    ends = with_width(comparison.difference)
    return levelled(words, ends, comparison.level) if ends else ""


def zero_interval(comparison: Comparison, words: Words) -> str:
    """The interval that belongs to p (Holm), for a table without verdicts; its level where that is not 95 %."""
    if comparison.too_few_seeds:
        return words.say("too few seeds for an interval")
    ends = with_width(comparison.zero.interval) if comparison.zero is not None else None
    return levelled(words, ends, comparison.zero.level) if ends and comparison.zero is not None else ""


def cleaning_sheet(steps: list[CleaningStep], words: Words) -> Sheet:
    """What cleaning took out or marked, in its order."""
    names = {
        "empty_text": words.say("empty text"),
        "missing_label": words.say("no label"),
        "unknown_label": words.say("unknown label"),
        "exact_duplicate": words.say("exact duplicate"),
        "conflicting_label": words.say("same text, different labels"),
        "near_duplicate": words.say("near-duplicate"),
        "exact_in_train": words.say("exact duplicate of a training text"),
        "near_in_train": words.say("near-duplicate of a training text"),
        "subset": words.say("subset drawn"),
        "test_split": words.say("test part split off"),
        "validation_split": words.say("validation part split off"),
    }
    rows = [
        [
            names.get(step.step, step.step.replace("_", " ")),
            split_name(words, step.split),
            words.count(step.rows_in),
            words.count(step.rows_out),
            words.count(step.marked),
            ", ".join(step.example_ids) or "—",
        ]
        for step in steps
    ]
    columns = [
        words.say("step"),
        words.say("split"),
        words.say("rows in"),
        words.say("rows out"),
        words.say("marked"),
        words.say("for example"),
    ]
    return plain(words.say("Cleaning"), columns, rows, left=(1, 5))


def settings_sheet(study: StudyRecord, words: Words) -> Sheet:
    """What the study was asked to do."""
    seeds = ", ".join(str(seed) for seed in study.seeds)
    rows = [
        [words.say("base model"), study.model_source],
        [words.say("data"), study.data_source],
        [
            words.say("texts in each split"),
            ", ".join(
                f"{split_name(words, split)} {words.count(number)}" for split, number in study.split_rows.items()
            ),
        ],
        [words.say("classes"), words.count(len(study.labels))],
        [words.say("tokens of a text, at most"), words.count(study.max_tokens)],
        [words.say("headline metric"), metric_name(words, study.metric)],
        [words.say("margin that does not matter"), f"±{words.number(study.margin)}"],
        [words.say("control"), study.control],
        [words.say("seeds"), seeds],
        [words.say("methods"), ", ".join(f"{method.label} ({method.kind})" for method in study.methods)],
        [words.say("command"), study.command],
        [words.say("hash of the study"), study.spec_hash],
    ]
    return plain(words.say("Settings"), [words.say("setting"), words.say("value")], rows, left=(1,))
