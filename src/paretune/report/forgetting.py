"""Forgetting: what a method scores on the task that it learnt first, before and after the study's own task.

Not here: how it is recorded (`study/earlier.py`). Forgetting is before − after on the same test texts and seeds, with
the crossed interval of `stats/`; methods are compared with the control by Holm's correction, as everywhere.

    section = forgetting_section(facts, rows_of(facts), Words("en"))  # None where the study has no earlier task
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np

from paretune.core.errors import RecordError, said
from paretune.records.schema import EarlierRecord
from paretune.report.facts import LEVEL, MethodFacts, StudyFacts, bounds, quality_of, with_width
from paretune.report.page import Section
from paretune.report.sheets import Cell, Sheet, name_cell, verdict_interval
from paretune.report.tables import MethodRow, decided_name, metric_name, more_seeds_text
from paretune.report.wording import Words
from paretune.stats.compare import Comparison, compare
from paretune.stats.intervals import Interval, crossed_interval
from paretune.stats.metrics import metric_named, per_example, score

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class ForgettingRow:
    """One method on the earlier task, over its scored seeds; a baseline has no `after`, and so no forgetting.

    All intervals are over seeds and test texts: `before`, `after`, `forgetting` (before − after) and `kept`, the
    difference to the control (positive: less is forgotten). An interval over one seed has
    no ends. `unchanged` says that no prediction of any seed changed, `nothing_learnt` that the method was not even
    shown to beat the weakest baseline before, so that its forgetting cannot be judged.
    """

    method: str
    before: Interval
    after: Interval | None
    forgetting: Interval | None
    kept: Comparison | None
    unchanged: bool
    nothing_learnt: bool
    baselines_not_beaten: tuple[str, ...]


def forgetting_rows(facts: StudyFacts) -> list[ForgettingRow]:
    """A row for each method that was scored on the earlier task, in the study's order.

    Raises:
        RecordError: two runs have other test examples of that task.
    """
    earlier = facts.study.earlier
    if earlier is None:
        return []
    _check_aligned(facts)
    before = {method.label: _examples(method, earlier.metric, BEFORE) for method in facts.scored}
    after = {method.label: _examples(method, earlier.metric, AFTER) for method in facts.scored}
    kept = {
        label: {seed: values - before[label][seed] for seed, values in by_seed.items()}
        for label, by_seed in after.items()
        if by_seed
    }
    compared = _against(kept, facts.study.control, earlier)
    levels = {method.label: _seed_scores(method, earlier.metric, BEFORE) for method in facts.scored}
    known = [method.label for method in facts.scored if method.family == "baseline" and levels[method.label]]
    baselines = sorted(known, key=lambda label: (fmean(levels[label]), label))  # the weakest first
    beside = {baseline: _against(before, baseline, earlier) for baseline in baselines}
    rows: list[ForgettingRow] = []
    for method in facts.scored:
        label, before_quality = method.label, _quality(method, earlier.metric, BEFORE)
        if before_quality is None:
            continue
        trained = label in kept
        not_beaten = [one for one in baselines if trained and not _beats(beside[one].get(label))]
        rows.append(
            ForgettingRow(
                method=label,
                before=before_quality,
                after=_quality(method, earlier.metric, AFTER) if trained else None,
                forgetting=_forgotten(kept[label], earlier.metric) if trained else None,
                kept=compared.get(label),
                unchanged=trained and all(_unchanged(method, seed) for seed in kept[label]),
                nothing_learnt=bool(baselines) and baselines[0] in not_beaten,
                baselines_not_beaten=tuple(not_beaten),
            )
        )
    return rows


def _check_aligned(facts: StudyFacts) -> None:
    found = {
        tuple(part.ids): run.id
        for method in facts.scored
        for run in method.runs.values()
        for part in run.earlier.values()
    }
    if len(found) > 1:
        first, second, *_ = found.values()
        given = f"run {first} and run {second} have other test examples of the earlier task"
        raise RecordError(said(given, "the same examples in every run", do="run the study again in a new folder"))


def _examples(method: MethodFacts, metric: str, when: str) -> dict[int, np.ndarray]:
    parts = {seed: run.earlier[when] for seed, run in sorted(method.runs.items()) if when in run.earlier}
    return {seed: per_example(metric, part.labels, part.predictions) for seed, part in parts.items()}


def _seed_scores(method: MethodFacts, metric: str, when: str) -> list[float]:
    parts = [run.earlier[when] for _, run in sorted(method.runs.items()) if when in run.earlier]
    return [score(metric, part.labels, part.predictions) for part in parts]


def _quality(method: MethodFacts, metric: str, when: str) -> Interval | None:
    return quality_of([run.earlier[when] for _, run in sorted(method.runs.items()) if when in run.earlier], metric)


def _forgotten(kept: dict[int, np.ndarray], metric: str) -> Interval:
    lost_se = -np.stack(list(kept.values()))
    if len(lost_se) > 1:
        return crossed_interval(lost_se, LEVEL).within(metric_named(metric).difference_bounds)
    return Interval(float(lost_se.mean()), -np.inf, np.inf, 0.0)


def _against(values: dict[str, dict[int, np.ndarray]], other: str, earlier: EarlierRecord) -> dict[str, Comparison]:
    known = {label: by_seed for label, by_seed in values.items() if by_seed}
    if other not in known or len(known) < 2:
        return {}
    kept_bounds = metric_named(earlier.metric).difference_bounds  # a value is itself a difference
    found = compare(known, other, earlier.margin, LEVEL, kept_bounds)
    return {one.method: one for one in found}


def _beats(comparison: Comparison | None) -> bool:
    ends = bounds(comparison.alone) if comparison else None
    return ends is not None and ends[0] > 0


def _unchanged(method: MethodFacts, seed: int) -> bool:
    earlier = method.runs[seed].earlier
    return earlier[BEFORE].predictions == earlier[AFTER].predictions


def forgetting_sheet(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Sheet | None:
    """Before, after and forgetting of each method, beside its quality on the study's own task."""
    earlier = facts.study.earlier
    if earlier is None:
        return None
    found = {one.method: one for one in forgetting_rows(facts)}
    control = found.get(facts.study.control)
    lines = tuple((name_cell(row, words), *_cells(row, found.get(row.method), control, words)) for row in rows)
    metric = metric_name(words, earlier.metric)
    columns = (
        words.say("method"),
        words.say("{metric} before", {"metric": metric}),
        words.say("{metric} after", {"metric": metric}),
        words.say("forgetting"),
        words.say("less forgotten than by the control"),
        words.say("p (Holm)"),
        words.say("verdict"),
        words.say("own task: {metric}", {"metric": metric_name(words, facts.metric)}),
    )
    title = words.say("Forgetting of the earlier task {name}", {"name": earlier.name})
    return Sheet(title, columns, lines, tuple(_notes(earlier, words)), frozenset({6}))


def _cells(row: MethodRow, found: ForgettingRow | None, control: ForgettingRow | None, words: Words) -> list[Cell]:
    quality = Cell(
        words.number(row.quality) if row.quality is not None else words.say("not measured"),
        words.spread(*row.quality_interval) if row.quality_interval else "",
    )
    if found is None:
        return [*(Cell(words.say("not measured")) for _ in range(3)), *(Cell("—") for _ in range(3)), quality]
    forgetting = _interval_cell(found.forgetting, words, signed=True)
    if found.unchanged:
        forgetting = Cell(forgetting.text, words.say("no prediction changed"))
    kept = Cell("—")
    if found.kept is not None and found.kept.difference is not None:
        text = words.number(found.kept.difference.estimate, signed=True)
        kept = Cell(text, verdict_interval(found.kept, words))
    p_holm = found.kept.p_holm if found.kept else None
    return [
        _interval_cell(found.before, words),
        _interval_cell(found.after, words),
        forgetting,
        kept,
        Cell(words.probability(p_holm) if p_holm is not None else "—"),
        _verdict_cell(row, found, control, words),
        quality,
    ]


def _interval_cell(interval: Interval | None, words: Words, signed: bool = False) -> Cell:
    if interval is None:
        return Cell("—")
    ends = with_width(interval)
    note = words.spread(*ends, signed=signed) if ends else ""
    return Cell(words.number(interval.estimate, signed=signed), note)


def _verdict_cell(row: MethodRow, found: ForgettingRow, control: ForgettingRow | None, words: Words) -> Cell:
    """None is given where either side has nothing to forget: equally little is no equivalence."""
    compared = found.kept
    if row.control:
        return Cell(words.say("control"), words.say("no learning shown") if found.nothing_learnt else "", "control")
    if compared is None:
        return Cell("—")
    if found.nothing_learnt or (control is not None and control.nothing_learnt):
        return Cell("—", words.say("no learning shown") if found.nothing_learnt else "")
    decide = more_seeds_text(words, compared.more_seeds, compared.limited_by)
    return Cell(decided_name(words, compared.verdict), decide, compared.verdict)


def _notes(earlier: EarlierRecord, words: Words) -> list[str]:
    margin = {"margin": words.number(earlier.margin)}
    return [
        words.say(
            "Before: the model that has learnt the earlier task alone. After: its head on the encoder as the study's "
            "own task left it. Both are scored on the same test texts; in small print the 95 % interval over seeds and "
            "test texts together. Forgetting: before − after, with an interval of the same kind."
        ),
        words.say(
            "Verdict: better is less forgotten than by the control; beside it the interval that it was taken from, in "
            "brackets its level where that is not 95 %. p: Holm's correction for several methods. Equivalent: two "
            "one-sided tests within ±{margin}.",
            margin,
        ),
        words.say(
            "Both tasks are learnt at one learning rate, chosen on validation data of the study's own task alone. A "
            "baseline is fitted to each task anew, so that it has nothing to forget; it shows what there was to learn."
        ),
    ]


def forgetting_section(facts: StudyFacts, rows: list[MethodRow], words: Words) -> Section | None:
    """The table with what must be known to read it; None where the study has no earlier task."""
    earlier, sheet = facts.study.earlier, forgetting_sheet(facts, rows, words)
    if earlier is None or sheet is None:
        return None
    values = {
        "name": earlier.name,
        "rows": words.plural("{n} training text", "{n} training texts", earlier.split_rows.get("train", 0)),
        "classes": words.plural("{n} class", "{n} classes", len(earlier.labels)),
        "test": words.count(earlier.split_rows.get("test", 0)),
    }
    lead = words.say(
        "Every trained method first learnt {name} ({rows}, {classes}) with a head of its own; then the same encoder "
        "and the same adapter learnt the study's own task with a new head. What is left of {name} is scored on its "
        "test texts ({test}).",
        values,
    )
    return Section(
        name="forgetting",
        title=words.say("Forgetting"),
        lead=lead,
        findings=tuple(_findings(forgetting_rows(facts), words)),
        first=(sheet,),
    )


def _findings(found: list[ForgettingRow], words: Words) -> list[str]:
    lines: list[str] = []
    if nothing := [row.method for row in found if row.nothing_learnt]:
        lines.append(
            words.say(
                "Forgetting cannot be judged: before the study's own task {methods} is not shown to beat even the "
                "weakest baseline.",
                {"methods": words.series(nothing)},
            )
        )
    for baseline in dict.fromkeys(name for row in found for name in row.baselines_not_beaten):
        short = [row.method for row in found if baseline in row.baselines_not_beaten and not row.nothing_learnt]
        if short:
            values = {"methods": words.series(short), "baseline": baseline}
            lines.append(
                words.say(
                    "On the earlier task alone, before the study's own, {methods} is not shown to beat the baseline "
                    "{baseline}.",
                    values,
                )
            )
    return lines
