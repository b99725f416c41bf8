"""The parts that are about all studies of a folder: the list, and the claims with their verdicts.

Not here: one study's pages (`study_pages.py`), routes (`app.py`).

    list_part(desk, desk.index.studies(), Words("ru"))
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from paretune.dashboard.bodies import Bodies
from paretune.dashboard.gathered import Gathered
from paretune.dashboard.index import StudyEntry, progress
from paretune.dashboard.render import Renderer
from paretune.dashboard.study_pages import Desk
from paretune.dashboard.verdicts import Claims, claims_of, ledger_of
from paretune.dashboard.words import ago, run_state, runs_done, study_state, trouble_text, verdict_of_claim
from paretune.report.answer import answer_of
from paretune.report.facts import StudyFacts
from paretune.report.tables import metric_name, rows_of
from paretune.report.wording import Words

STOPPED = ("failed", "oom", "over_budget", "timeout", "cancelled", "interrupted", "unreadable")


@dataclass(frozen=True)
class Row:
    """A study in the list."""

    name: str
    question: str
    answer: str
    state: str
    state_text: str
    runs: str
    stopped: str
    metric: str
    news: str
    troubles: tuple[str, ...]


ANSWERS_SECONDS = 0.7  # how long the list waits for answers that are not worked out yet; they come with the next look


def list_part(desk: Desk, bodies: Bodies, entries: Sequence[StudyEntry], words: Words) -> str:
    """The table of studies, each with its answer."""
    until = time.monotonic() + ANSWERS_SECONDS
    rows: list[Row] = []
    for entry in entries:
        answer = bodies.soon(
            ("answer", entry.name, words.lang), entry.facts_version, partial(answer_text, desk, entry, words), until
        )
        rows.append(row_of(entry, words, time.time(), words.say("being worked out …") if answer is None else answer))
    ledger = ledger_of(desk.index).is_file()
    return desk.renderer.part("list.html.j2", words, {"rows": rows, "ledger": ledger})


def answer_text(desk: Desk, entry: StudyEntry, words: Words) -> str:
    """A study's answer in a sentence; empty where its records cannot be used, which its own page explains."""
    facts = desk.gatherer.gathered(entry).facts
    return answer_of(facts, rows_of(facts), words) if facts is not None else ""


def row_of(entry: StudyEntry, words: Words, now: float, answer: str = "") -> Row:
    """A study as the list shows it."""
    found, study = progress(entry), entry.study
    question = ""
    if study is not None:
        question = study.question.get(words.lang, next(iter(study.question.values()), ""))
    stopped = [
        f"{run_state(words, state)} × {words.count(number)}"
        for state in STOPPED
        for number in (found.states.get(state, 0),)
        if number
    ]
    return Row(
        name=entry.name,
        question=question,
        answer=answer,
        state=found.state,
        state_text=study_state(words, found.state),
        runs=runs_done(words, found),
        stopped="; ".join(stopped) or "—",
        metric=metric_name(words, study.metric) if study else "—",
        news=ago(words, max(0.0, now - entry.newest)) if entry.newest else "—",
        troubles=tuple(trouble_text(words, trouble) for trouble in entry.troubles),
    )


def judged_claims(desk: Desk, entries: Sequence[StudyEntry]) -> Claims:
    """The claims of the ledger over all studies that can be read."""
    ledger = ledger_of(desk.index)
    if not ledger.is_file():
        return Claims(there=False)
    return claims_of(ledger, _by_study(desk.gatherer.gathered(entry) for entry in entries), with_bench=True)


def _by_study(found: Iterable[Gathered]) -> dict[str, StudyFacts]:
    """Facts by the study's own name; of several with one name, that in the folder of this name, or with more runs."""
    known = [(one.entry.name, one.facts) for one in found if one.facts is not None]

    def rank(one: tuple[str, StudyFacts]) -> tuple[bool, int]:
        folder, facts = one
        return folder == facts.study.name, sum(len(method.runs) for method in facts.methods)

    return {facts.study.name: facts for _, facts in sorted(known, key=rank)}


def claims_part(claims: Claims, renderer: Renderer, words: Words) -> str:
    """Each claim with what the records say of it now, and what the ledger says."""
    rows = [
        {
            "name": one.name,
            "sentence": one.sentence(words),
            "verdict": one.verdict,
            "verdict_text": verdict_of_claim(words, one.verdict),
            "expected_text": verdict_of_claim(words, one.expected),
            "changed": one.verdict != one.expected,
            "runs": words.count(len({run for evidence in one.evidence.values() for run in evidence.run_ids})),
        }
        for one in claims.judged
    ]
    return renderer.part("claims.html.j2", words, {"claims": claims, "rows": rows})
