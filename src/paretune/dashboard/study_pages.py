"""The parts of a study's pages: results, budget, settings, runs, two runs, data, examples.

Not here: routes (`app.py`), HTML (`templates/`). Each function gives a part as HTML from gathered records; a study
whose records do not allow it says why in its place.

    results_part(desk, entry, Words("en"))
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paretune.core.config import JsonObject
from paretune.dashboard import mistakes
from paretune.dashboard.differences import result_lines, spec_lines
from paretune.dashboard.gathered import Gathered, Gatherer
from paretune.dashboard.index import Index, RunEntry, StudyEntry
from paretune.dashboard.kept import Kept
from paretune.dashboard.render import Renderer, figure_specs
from paretune.dashboard.run_costs import RunCosts
from paretune.dashboard.tail import News, Place, read_tail
from paretune.dashboard.words import ago, refusal_text, run_state, trouble_text
from paretune.records.schema import Measurements
from paretune.report.build import study_page
from paretune.report.choice import other_question
from paretune.report.classes import classes_sheet, pairs_sheet, shown_method, worst_text
from paretune.report.draws import Draws, chances, draws_of
from paretune.report.effect_figures import effect_figure, parallel_figure
from paretune.report.exploration_sheets import suspects_sheet
from paretune.report.explore_page import exploration_page
from paretune.report.factors import effects_of, groups_of, why_text
from paretune.report.facts import StudyFacts
from paretune.report.front import front_figures, front_note
from paretune.report.ink import Figure
from paretune.report.page import Section
from paretune.report.sheets import plain
from paretune.report.tables import metric_name
from paretune.report.wording import Words

RunColumn = Literal["id", "method", "seed", "rate", "score", "memory", "seconds", "state", "news"]
OWN_PAGES = ("data",)  # sections of the report that are pages here


@dataclass(frozen=True)
class Desk:
    """What pages are made with."""

    index: Index
    gatherer: Gatherer
    renderer: Renderer


def _with_facts(desk: Desk, entry: StudyEntry, words: Words, make: Callable[[Gathered, StudyFacts], str]) -> str:
    """The part of a study whose records can be used, or what is wrong with them."""
    found = desk.gatherer.gathered(entry)
    if found.facts is not None:
        return make(found, found.facts)
    values = {"troubles": _troubles(found, words), "refusal": refusal_text(words, found)}
    return desk.renderer.part("refused.html.j2", words, values)


def _troubles(found: Gathered, words: Words) -> list[str]:
    return [trouble_text(words, one) for one in found.troubles]


def results_part(desk: Desk, entry: StudyEntry, words: Words) -> str:
    """Answer, comparison table and figures: the report's own page, without what has a page of its own here."""

    def make(found: Gathered, facts: StudyFacts) -> str:
        page = study_page(facts, words)
        sections = [section for section in page.sections if section.name not in OWN_PAGES]
        figures = [figure for section in sections for figure in section.figures]
        one_method = words.say("One method: there is nothing to compare it with.") if len(facts.methods) == 1 else ""
        values = {
            "page": page,
            "sections": sections,
            "troubles": _troubles(found, words),
            "remark": one_method,
            "specs": figure_specs(figures),
        }
        return desk.renderer.part("results.html.j2", words, values)

    return _with_facts(desk, entry, words, make)


def budget_part(desk: Desk, entry: StudyEntry, words: Words) -> str:
    """The Pareto fronts, and the slider with the chances of each method."""

    def make(found: Gathered, facts: StudyFacts) -> str:
        draws, figures = draws_of(facts), front_figures(facts, words)
        remarks = [other_question(facts.study.control, facts.study.margin, words)]
        if len(facts.study.seeds) == 1:
            remarks.append(words.say("One seed: the chances tell of the test examples alone, not of other seeds."))
        if draws is not None and len(draws.methods) == 1:
            remarks.append(words.say("One method was scored and measured: there is nothing to choose from."))
        if draws is not None and draws.left_out:
            names = {"methods": words.series(draws.left_out)}
            remarks.append(
                words.say("Left out, without a scored run or a cost that may be compared: {methods}.", names)
            )
        values = {
            "troubles": _troubles(found, words),
            "remarks": remarks,
            "rows": _budget_rows(draws, words) if draws else [],
            "metric": metric_name(words, facts.metric),
            "ends": _ends(draws) if draws else None,
            "note": front_note(words) if figures else "",
            "figures": figures,
            "specs": figure_specs(figures),
        }
        return desk.renderer.part("budget.html.j2", words, values)

    return _with_facts(desk, entry, words, make)


def _budget_rows(draws: Draws, words: Words) -> list[tuple[str, str, str, str, str, float]]:
    """Method, quality, memory, time and the chance to be the best without any limit."""
    free = chances(draws, math.inf, math.inf)
    return [
        (
            name,
            words.number(quality),
            words.size(memory),
            words.duration(seconds),
            words.percent(free[name]),
            free[name],
        )
        for name, (quality, memory, seconds) in zip(draws.methods, draws.means_mk.tolist(), strict=True)
    ]


def _ends(draws: Draws) -> JsonObject:
    """Where the sliders begin and end: just below the cheapest draw, just above the dearest one."""
    low = draws.points_dmk[:, :, 1:].min(axis=(0, 1))
    high = draws.points_dmk[:, :, 1:].max(axis=(0, 1))
    return {
        "memory": [float(low[0]) * 0.9, float(high[0]) * 1.05],
        "seconds": [max(float(low[1]) * 0.9, 1e-3), max(float(high[1]) * 1.05, 2e-3)],
    }


def settings_part(desk: Desk, entry: StudyEntry, words: Words) -> str:
    """Effects of settings and parallel axes, for each kind of method of which several differ in settings."""

    def make(found: Gathered, facts: StudyFacts) -> str:
        blocks: list[tuple[str, str, list[Figure]]] = []
        for group in groups_of(facts):
            effects = effects_of(facts, group)
            figures = [effect_figure(facts, group, effects, words), parallel_figure(facts, group, words)]
            blocks.append((group.kind, why_text(effects, words), [one for one in figures if one is not None]))
        values = {
            "troubles": _troubles(found, words),
            "blocks": blocks,
            "specs": figure_specs([figure for _, _, figures in blocks for figure in figures]),
        }
        return desk.renderer.part("settings.html.j2", words, values)

    return _with_facts(desk, entry, words, make)


def data_part(desk: Desk, entry: StudyEntry, words: Words) -> str:
    """The exploratory data analysis; it needs explore.json alone."""
    found = desk.gatherer.gathered(entry)
    page = exploration_page(found.exploration, words) if found.exploration else None
    sections: list[Section] = list(page.sections) if page else []
    values = {
        "troubles": _troubles(found, words),
        "page": page,
        "sections": sections,
        "specs": figure_specs([figure for section in sections for figure in section.figures]),
    }
    return desk.renderer.part("data.html.j2", words, values)


def examples_part(desk: Desk, entry: StudyEntry, words: Words, choice: mistakes.Choice, page: int) -> str:
    """Examples by mistakes, churn, and training rows with a suspicious label."""

    def make(found: Gathered, facts: StudyFacts) -> str:
        rows = mistakes.hard_examples(facts, choice, found.texts)
        counted = shown_method(facts, choice.method)
        pairs = pairs_sheet(counted, words) if counted else None
        pages = max(1, math.ceil(len(rows) / mistakes.PAGE_ROWS))
        at = min(max(page, 1), pages)
        shown = rows[(at - 1) * mistakes.PAGE_ROWS : at * mistakes.PAGE_ROWS]
        methods = [method.label for method in facts.scored]
        columns = [choice.method] if choice.method in methods else methods
        suspects = found.exploration is not None and bool(found.exploration.suspects)
        values = {
            "troubles": _troubles(found, words),
            "choice": choice,
            "labels": facts.study.labels,
            "methods": methods,
            "table": mistakes.hard_sheet(shown, columns, words),
            "found": words.plural("{n} example", "{n} examples", len(rows)),
            "pages": pages,
            "at": at,
            "texts": _which_texts(found, words),
            "worst": worst_text(counted, words) if counted else "",
            "classes": [one for one in (classes_sheet(counted, words, None), pairs) if one] if counted else [],
            "churn": mistakes.churn_sheet(facts, words),
            "suspects": suspects_sheet(found.exploration, words) if suspects and found.exploration else None,
        }
        return desk.renderer.part("examples.html.j2", words, values)

    return _with_facts(desk, entry, words, make)


def _which_texts(found: Gathered, words: Words) -> str:
    """Why only some examples have a text; empty where all have one."""
    if found.whole_texts:
        return ""
    return words.say(
        "Only the examples in examples.json have a text: a published study carries no data. Where a study ran, its "
        "prepared data lie beside its runs, and every example has one."
    )


@dataclass(frozen=True)
class Order:
    """By which column the runs are sorted; those that have no value in it stand last either way."""

    column: RunColumn = "method"
    falling: bool = False


def runs_part(desk: Desk, entry: StudyEntry, words: Words, order: Order) -> str:
    """All runs with their states, scores and costs, and the form that puts two side by side."""
    now, kept = time.time(), desk.index.kept
    metric = entry.study.metric if entry.study else ""
    costs = RunCosts(entry, kept)
    values = {run.id: _run_values(run, kept, metric, costs) for run in entry.runs}
    known = [run for run in entry.runs if values[run.id][order.column] is not None]
    known.sort(key=_by_method)
    known.sort(key=lambda run: values[run.id][order.column] or 0, reverse=order.falling)
    unknown = sorted((run for run in entry.runs if values[run.id][order.column] is None), key=_by_method)
    names: dict[RunColumn, str] = {
        "id": words.say("run"),
        "method": words.say("method"),
        "seed": words.say("seed"),
        "rate": words.say("learning rate"),
        "score": metric_name(words, metric) if metric else words.say("quality"),
        "memory": words.say("peak memory"),
        "seconds": words.say("training time"),
        "state": words.say("state"),
        "news": words.say("last news"),
    }
    heads = [
        {
            "text": text,
            "left": key in ("id", "method", "state", "news"),
            "sorted": ("descending" if order.falling else "ascending") if key == order.column else "none",
            "query": f"?sort={key}&falling={str(_falls_next(key, order)).lower()}",
        }
        for key, text in names.items()
    ]
    rows = [_run_row(run, kept, words, now, metric, costs) for run in (*known, *unknown)]
    given = {"rows": rows, "heads": heads, "name": entry.name, "notes": costs.notes(entry.runs, words)}
    return desk.renderer.part("runs.html.j2", words, given)


def _falls_next(key: RunColumn, order: Order) -> bool:
    """What a click on a column asks for: first the best score and the newest news, else the least; then the reverse."""
    return not order.falling if key == order.column else key in ("score", "news")


def _run_values(run: RunEntry, kept: Kept, metric: str, costs: RunCosts) -> dict[RunColumn, Any]:
    """What the columns are sorted by; None where a run has no such value, or a cost that is compared with no other."""
    spec, measured = run.spec, _measured(run, kept)
    return {
        "id": run.id,
        "method": spec.method if spec else None,
        "seed": spec.seed if spec else None,
        "rate": spec.learning_rate if spec else None,
        "score": _score(measured, metric)[1] if measured else None,
        "memory": costs.ranked(run, "memory"),
        "seconds": costs.ranked(run, "seconds"),
        "state": run.state,
        "news": run.newest,
    }


def _measured(run: RunEntry, kept: Kept) -> Measurements | None:
    found = kept.record(run.folder / "measurements.json", Measurements)
    return found if isinstance(found, Measurements) else None


def _score(measured: Measurements, metric: str) -> tuple[str, float | None]:
    """The headline metric on test data, else on validation data, and on which of them it is."""
    for split in ("test", "validation"):
        if metric in measured.scores.get(split, {}):
            return split, measured.scores[split][metric]
    return "", None


def _by_method(run: RunEntry) -> tuple[str, int, float, str]:
    spec = run.spec
    return (spec.method, spec.seed, spec.learning_rate or 0.0, run.id) if spec else ("", 0, 0.0, run.id)


def _run_row(run: RunEntry, kept: Kept, words: Words, now: float, metric: str, costs: RunCosts) -> Mapping[str, str]:
    spec, status, measured = run.spec, run.status, _measured(run, kept)
    split, score = _score(measured, metric) if measured else ("", None)
    notes = [trouble_text(words, trouble) for trouble in run.troubles]
    if status is not None and status.reason:
        notes.append(status.reason)
    if run.state == "interrupted":
        notes += _torn_lines(run, kept, words)
    return {
        "id": run.id,
        "method": spec.method if spec else "—",
        "seed": str(spec.seed) if spec else "—",
        "rate": words.rate(spec.learning_rate) if spec and spec.learning_rate else "—",
        "score": words.number(score) if score is not None else "—",
        "score_note": words.say("validation") if split == "validation" else "",
        "memory": costs.text(run, "memory", words),
        "seconds": costs.text(run, "seconds", words),
        "state": run.state,
        "state_text": run_state(words, run.state),
        "news": ago(words, max(0.0, now - run.newest)),
        "notes": "; ".join(notes),
    }


def _torn_lines(run: RunEntry, kept: Kept, words: Words) -> list[str]:
    """How a killed run's events end, and lines in them that are none."""
    news = kept.read(run.folder / "events.jsonl", "tail", lambda path: read_tail(path, Place(0, 0)))
    if not isinstance(news, News):
        return []
    step = news.points[-1][0] if news.points else 0
    values = {"step": words.count(step), "steps": words.count(news.steps or 0)}
    notes = [words.say("step {step} of {steps}", values)] if step and news.steps else []
    if news.rest:
        notes.append(words.say("The last line of its events is torn."))
    if news.torn:
        notes.append(words.say("unreadable lines: {count}", {"count": words.count(news.torn)}))
    return notes


def compare_part(desk: Desk, entry: StudyEntry, words: Words, first: RunEntry, second: RunEntry) -> str:
    """Two runs side by side."""
    specs = spec_lines(first, second)
    kept, costs = desk.index.kept, RunCosts(entry, desk.index.kept)
    values = {
        "name": entry.name,
        "first": _run_row(first, kept, words, time.time(), "", costs),
        "second": _run_row(second, kept, words, time.time(), "", costs),
        "results": result_lines(first, second, kept, costs, words),
        "notes": costs.notes((first, second), words),
        "differing": [line for line in specs if line.differs],
        "same": plain(
            words.say("Entries that are the same"),
            [words.say("entry"), words.say("value")],
            [[line.name, line.first] for line in specs if not line.differs],
            (1,),
        ),
    }
    return desk.renderer.part("compare.html.j2", words, values)
