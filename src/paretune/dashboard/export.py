"""A study as one file that opens from disk: the report's own page, with settings, budgets, examples and claims added.

Not here: the slider, which needs the server's draws; a table of budgets stands in its place. A study that is still
running is exported as it is now, and says so.

    export_page(Path("results/demo"), Path("demo.html"), "ru")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from paretune.core.errors import RecordError, said
from paretune.dashboard import mistakes
from paretune.dashboard.gathered import Gatherer
from paretune.dashboard.index import Index, StudyEntry, progress
from paretune.dashboard.verdicts import claims_of, ledger_of
from paretune.dashboard.words import refusal_text, runs_done, study_state, trouble_text, verdict_of_claim
from paretune.records.store import write_atomically
from paretune.report.build import study_page
from paretune.report.draws import Draws, chances, draws_of
from paretune.report.effect_figures import effect_figure, parallel_figure
from paretune.report.factors import effects_of, groups_of, why_text
from paretune.report.facts import StudyFacts
from paretune.report.page import Section, rendered
from paretune.report.sheets import Sheet, plain
from paretune.report.wording import Words

BUDGETS = 4  # of memory, and as many of time
MOST_EXAMPLES = 40


def export_page(folder: Path, out: Path, lang: str) -> Path:
    """Write the file; `folder` is a study, or holds exactly one.

    Raises:
        ConfigError: an unknown language. RecordError: no study, several, or one whose records cannot be used.
        StorageError: `out` cannot be written.
    """
    words, index = Words(lang), Index(folder)
    entry = _only(index, folder)
    found = Gatherer(index).gathered(entry)
    troubles = [trouble_text(words, one) for one in found.troubles]
    if found.facts is None:
        reason = refusal_text(words, found) or "; ".join(troubles)
        raise RecordError(said(f"{folder} cannot be exported ({reason})", "a study whose records can be read"))
    facts = found.facts
    page = study_page(facts, words)
    added = (
        _budget(facts, words),
        *_settings(facts, words),
        _examples(facts, words),
        _claims(index, facts, words),
    )
    status = progress(entry)
    state = words.say("state when this was saved")
    overview = (*page.facts, (state, f"{study_state(words, status.state)} ({runs_done(words, status)})"))
    first = Section("troubles", words.say("Records that cannot be read"), notes=tuple(troubles)) if troubles else None
    sections = [one for one in (first, *page.sections, *added) if one is not None]
    write_atomically(out, rendered(replace(page, facts=overview, sections=tuple(sections)), words))
    return out


def _only(index: Index, folder: Path) -> StudyEntry:
    entries = index.studies()
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries)
        given = f"{folder} holds {len(entries)} studies ({names})" if entries else f"{folder} holds no study"
        raise RecordError(said(given, "one study", do="give the folder of one"))
    return entries[0]


def _budget(facts: StudyFacts, words: Words) -> Section | None:
    """Chances to be the best within a few budgets of memory and time."""
    draws = draws_of(facts)
    if draws is None or len(draws.methods) < 2:
        return None
    title = words.say("Probability to be the best within the budget")
    budgets = [(memory, seconds) for memory in _limits(draws, 1) for seconds in _limits(draws, 2)]
    rows: list[list[str]] = []
    for memory, seconds in budgets:
        found = chances(draws, memory, seconds)
        named = sorted(((share, name) for name, share in found.items() if share >= 0.005), reverse=True)
        rows.append(
            [
                words.size(memory) if math.isfinite(memory) else words.say("no limit"),
                words.duration(seconds) if math.isfinite(seconds) else words.say("no limit"),
                ", ".join(f"{name} {words.percent(share)}" for share, name in named) or words.say("nothing fits"),
            ]
        )
    columns = [words.say("Memory, at most"), words.say("Training time, at most"), title]
    return Section("budget", words.say("Within a budget"), sheets=(plain(title, columns, rows, (1, 2)),))


def _limits(draws: Draws, cost: int) -> list[float]:
    """Budgets between which methods begin to fit, and none at all."""
    most = np.sort(draws.points_dmk[:, :, cost].max(axis=0))
    places = np.unique(np.linspace(0, len(most) - 1, min(BUDGETS, len(most))).astype(int))
    return [*(float(most[place]) * 1.001 for place in places[:-1]), math.inf]


def _settings(facts: StudyFacts, words: Words) -> Sequence[Section]:
    sections: list[Section] = []
    for number, group in enumerate(groups_of(facts)):
        effects = effects_of(facts, group)
        figures = [effect_figure(facts, group, effects, words), parallel_figure(facts, group, words)]
        why = why_text(effects, words)
        sections.append(
            Section(
                name=f"settings-{number}",
                title=words.say("Settings of {kind}", {"kind": group.kind}),
                paragraphs=(why,) if why else (),
                figures=tuple(figure for figure in figures if figure is not None),
            )
        )
    return sections


def _examples(facts: StudyFacts, words: Words) -> Section | None:
    rows = mistakes.hard_examples(facts, mistakes.Choice())[:MOST_EXAMPLES]
    if not rows:
        return None
    methods = [method.label for method in facts.scored]
    tables = (mistakes.hard_sheet(rows, methods, words), mistakes.churn_sheet(facts, words))
    return Section("examples", words.say("Examples"), sheets=tables)


def _claims(index: Index, facts: StudyFacts, words: Words) -> Section | None:
    """Claims that rest on this study alone; others need records that are not in this file."""
    claims = claims_of(ledger_of(index), {facts.study.name: facts})
    rows = [
        [one.sentence(words), verdict_of_claim(words, one.verdict)]
        for one in claims.judged
        if one.verdict != "not_measured"
    ]
    if not rows:
        return None
    sheet: Sheet = plain(words.say("Claims"), [words.say("claim"), words.say("verdict")], rows, (1,))
    return Section("claims", words.say("Claims"), sheets=(sheet,))
