"""Tables of what methods cost: memory, time, energy, size, latency, the search for a learning rate, and phases.

Not here: quality (`sheets.py`). What was not measured says so; what was not counted carries its grade.

    resources_sheet(rows, Words("ru")).columns
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from paretune.core.events import PHASES
from paretune.records.plan_errors import PlanError, error_of
from paretune.records.schema import Grade, Latency, Selection
from paretune.report.facts import MethodFacts, StudyFacts
from paretune.report.search_notes import fitted_setting, open_search, rule_note, weights_note
from paretune.report.sheets import Cell, Sheet, name_cell, or_not_measured
from paretune.report.tables import Cost, MethodRow, cost_text, doubts_text, metric_name, ranking_notes, state_name
from paretune.report.wording import Words


def resources_sheet(rows: list[MethodRow], words: Words) -> Sheet:
    """Memory, time, energy, parameters, size and latency; means over scored runs."""

    def cost(one: Cost | None, form: Callable[[float], str], marked: bool = True) -> Cell:
        if one is None:
            return Cell(words.say("not measured"))
        grade = grade_name(words, one.grade) if one.grade != "counter" else ""
        if not marked:
            return Cell(form(one.value), grade)
        return Cell(cost_text(one, form), doubts_text(one, words) or grade)

    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        share = ""
        if row.trainable_parameters is not None and row.total_parameters:
            share = words.percent(row.trainable_parameters / row.total_parameters, 2)
        lines.append(
            (
                name_cell(row, words),
                cost(row.peak_memory_bytes, words.size),
                cost(row.peak_memory_above_imports_bytes, words.size),
                cost(row.train_seconds, words.duration),
                cost(row.train_cpu_seconds, words.duration),
                cost(row.energy_joules, words.energy, marked=False),
                Cell(or_not_measured(row.trainable_parameters, words.compact, words), share),
                Cell(words.size(row.adapter_bytes) if row.adapter_bytes is not None else "—"),
            )
        )
    columns = (
        words.say("method"),
        words.say("peak memory"),
        words.say("above imports"),
        words.say("training time"),
        words.say("processor time"),
        words.say("energy"),
        words.say("trainable parameters"),
        words.say("saved weights"),
    )
    return Sheet(words.say("What it costs"), columns, tuple(lines), tuple(grade_notes(rows, words)))


def grade_name(words: Words, grade: Grade) -> str:
    """A grade in words."""
    names: dict[Grade, str] = {
        "counter": words.say("counted"),
        "sampled": words.say("sampled"),
        "estimated": words.say("estimated"),
        "assumed": words.say("assumed"),
    }
    return names[grade]


def grade_notes(rows: list[MethodRow], words: Words) -> list[str]:
    """What the grades mean."""
    notes = [
        words.say(
            "Figures are of the training phase alone; evaluation is never counted in. Peak memory is the "
            "high-water mark "
            "of a process of its own for each run; “above imports” is what it adds to the process after its imports."
        ),
        words.say(
            "Grades: without a mark — read from a counter; sampled — measured at intervals; estimated — "
            "computed from other "
            "figures; assumed — a constant. Nothing is ranked by an estimated or assumed figure."
        ),
        *ranking_notes(rows, words),
    ]
    if any(row.energy_joules and row.energy_joules.grade in ("estimated", "assumed") for row in rows):
        notes.append(words.say("Energy was not measured but estimated, so it stands in no comparison."))
    return notes


def latency_sheet(rows: list[MethodRow], words: Words) -> Sheet:
    """Seconds for one call, for each batch size that was probed."""
    batches = sorted({one.batch for row in rows for one in row.latency})
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        found: dict[int, Latency] = {one.batch: one for one in row.latency}
        cells: list[Cell] = []
        for batch in batches:
            one = found.get(batch)
            cells.append(Cell(words.duration(one.p50_seconds) if one else words.say("not measured")))
            cells.append(Cell(words.duration(one.p95_seconds) if one else words.say("not measured")))
        lines.append((name_cell(row, words), *cells))
    columns = [words.say("method")]
    for batch in batches:
        size = words.plural("{n} text", "{n} texts", batch)
        columns += [f"{size}, {words.say('median')}", f"{size}, {words.say('95th percentile')}"]
    note = words.say("Time of one call, tokenizing included, probed once for each method.")
    return Sheet(words.say("Latency"), tuple(columns), tuple(lines), (note,))


def search_sheet(facts: StudyFacts, words: Words) -> Sheet:
    """Learning rates that were tried on validation data, which one was taken, and what the search cost."""
    lines: list[tuple[Cell, ...]] = []
    for method in facts.methods:
        selection = method.selection
        trials: list[str] = []
        if selection:
            tried = sorted(selection.trials.items(), key=lambda item: float(item[0]))
            trials = [f"{words.rate(float(rate))}: {words.number(value)}" for rate, value in tried]
        trials += [
            f"{words.rate(float(rate))}: {state_name(words, state)}"
            for rate, state in sorted(method.failed_trials.items())
        ]
        lines.append(
            (
                Cell(method.label, kind="name"),
                Cell(words.rate(selection.learning_rate) if selection else fitted_setting(method, words) or "—"),
                Cell("; ".join(trials) or "—"),
                Cell(words.count(len(selection.trials)) if selection else "—"),
                Cell(words.duration(selection.trial_seconds) if selection else "—"),
            )
        )
    columns = (
        words.say("method"),
        words.say("chosen"),
        words.say("learning rate: {metric} on validation data", {"metric": metric_name(words, facts.metric)}),
        words.say("trials"),
        words.say("time of the search"),
    )
    note = words.say("The choice was made on validation data alone.")
    if len({len(selection.trials) for selection in facts.study.selections}) == 1:
        note = words.say(
            "Every trained method got the same number of trials; the choice was made on validation data alone."
        )
    notes = [note]
    if rule := rule_note(facts, words):
        notes.append(rule)
    if weights := weights_note(facts, words):
        notes.append(weights)
    notes += open_search(facts, words)
    if edge := [one.method for one in facts.study.selections if one.rule is None and at_the_edge(one)]:
        notes.append(
            words.say(
                "The chosen rate is the lowest or the highest tried, so a wider search might do better: {methods}.",
                {"methods": words.series(edge)},
            )
        )
    return Sheet(words.say("Search for the learning rate"), columns, tuple(lines), tuple(notes), frozenset({2}))


def at_the_edge(selection: Selection) -> bool:
    """Whether the best of several learning rates has no neighbour on one side."""
    tried = [float(rate) for rate in selection.trials]
    return len(tried) > 1 and selection.learning_rate in (min(tried), max(tried))


def phase_name(words: Words, phase: str) -> str:
    """A phase of a run, for readers."""
    names = {
        "load": words.say("loading"),
        "tokenize": words.say("tokenizing"),
        "earlier": words.say("earlier task"),
        "prefix": words.say("frozen blocks"),
        "step": words.say("training steps"),
        "eval": words.say("evaluation"),
        "save": words.say("saving"),
        "predict": words.say("prediction"),
        "latency": words.say("latency probe"),
    }
    return names.get(phase, phase)


def phases_sheet(facts: StudyFacts, words: Words) -> Sheet:
    """Seconds and peak memory of each phase, means over scored runs."""
    present = {phase.phase for method in facts.scored for one in method.measurements() for phase in one.phases}
    phases = [phase for phase in PHASES if phase in present] + sorted(present - set(PHASES))
    lines: list[tuple[Cell, ...]] = []
    for method in facts.methods:
        cells: list[Cell] = []
        for phase in phases:
            found = [one for run in method.measurements() for one in run.phases if one.phase == phase]
            if found:
                peak = words.size(fmean(one.peak_memory_bytes for one in found))
                cells.append(Cell(words.duration(fmean(one.seconds for one in found)), peak))
            else:
                cells.append(Cell("—"))
        lines.append((Cell(method.label, kind="name"), *cells))
    columns = (words.say("method"), *(phase_name(words, phase) for phase in phases))
    return Sheet(words.say("Phases of a run: time and peak memory"), columns, tuple(lines))


def planner_sheet(facts: StudyFacts, words: Words) -> Sheet | None:
    """Peak memory and training time, predicted before each run and measured in it; None where nothing was predicted."""
    found = {method.label: _plan_errors(method) for method in facts.methods}
    if not any(found.values()):
        return None
    lines: list[tuple[Cell, ...]] = []
    for label, errors in found.items():
        if not errors:
            lines.append((Cell(label, kind="name"), *[Cell("—")] * 5))
            continue
        memory, seconds = [one.memory for one in errors], [one.seconds for one in errors]
        lines.append(
            (
                Cell(label, kind="name"),
                Cell(words.count(len(errors))),
                Cell(words.size(fmean(one.predicted_bytes for one in errors)), _measured(errors, words)),
                Cell(_spread(memory, words)),
                Cell(
                    words.duration(fmean(one.predicted_seconds for one in errors)),
                    words.duration(fmean(one.measured_seconds for one in errors)),
                ),
                Cell(_spread(seconds, words)),
            )
        )
    columns = (
        words.say("method"),
        words.say("runs"),
        words.say("peak memory"),
        words.say("its error"),
        words.say("training time"),
        words.say("its error"),
    )
    note = words.say(
        "The large figure was predicted before the run, the small one below it measured; an error is predicted ÷ "
        "measured − 1, from the lowest to the highest of the runs. A run that began before its machine was calibrated "
        "(paretune plan) has no prediction."
    )
    return Sheet(words.say("How right the planner was"), columns, tuple(lines), (note,))


def _plan_errors(method: MethodFacts) -> list[PlanError]:
    return [error for one in method.measurements() if (error := error_of(one)) is not None]


def _measured(errors: list[PlanError], words: Words) -> str:
    return words.size(fmean(one.measured_bytes for one in errors))


def _spread(values: list[float], words: Words) -> str:
    """Lowest and highest, with signs."""
    low, high = (("" if one < 0 else "+") + words.percent(one, 1) for one in (min(values), max(values)))
    return low if low == high else f"{low} … {high}"
