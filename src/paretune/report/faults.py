"""Sentences about records that do not hold: one for each fault, and the one that stands beside an answer.

Not here: finding faults (`integrity.py`).

    [fault_text(words, fault) for fault in facts.faults]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from paretune.report.facts import StudyFacts
from paretune.report.integrity import Fault
from paretune.report.wording import Words

SHOWN = 3


def fault_text(words: Words, fault: Fault) -> str:
    """What does not hold, and where."""
    values = {"run": _run(words, fault), "what": fault.what}
    match fault.kind:
        case "changed":
            return words.say("{what} was changed after it was published", values)
        case "gone":
            return words.say("{what} was published and is gone", values)
        case "added":
            return words.say("{what} was added after the study was published", values)
        case "study":
            return words.say("study.json does not agree with the study file in it or with the runs: {what}", values)
        case "spec":
            return words.say("{run}: the folder's name is not the hash of its spec.json", values)
        case "lost":
            return words.say("{run}: {what} is gone", values)
        case "torn":
            return words.say("{run}: {what} is torn or no record of paretune", values)
        case "missing":
            if fault.what == "trial":
                return words.say("{run}: a trial of the search has no record", values)
            return words.say("{run}: there is no record", values)
        case "status":
            return words.say("{run}: is said to have ended as “{what}”, and has scores of the test", values)
        case "rows":
            return words.say("{run}: other rows than the study has ({what})", values)
        case "labels":
            return words.say("{run}: true labels are not those of the other runs ({what})", values)
        case "marks":
            return words.say("{run}: marks of near-duplicates are not those of the other runs ({what})", values)
        case "class":
            return words.say("{run}: names a class that the study does not have: {what}", values)
        case "probability":
            return words.say("{run}: probabilities that cannot be ({what})", values)
        case "score":
            return words.say("{run}: the measured score is not that of its predictions ({what})", values)
        case "number":
            return words.say("{run}: figures that cannot be ({what})", values)
        case _:
            assert_never(fault.kind)


def _run(words: Words, fault: Fault) -> str:
    if not fault.method:
        return words.say("run {run}", {"run": fault.run_id})
    values = {"method": fault.method, "seed": words.count(fault.seed or 0), "run": fault.run_id}
    if not fault.run_id:
        return words.say("{method}, seed {seed}", values)
    return words.say("{method}, seed {seed} (run {run})", values)


def fault_lines(words: Words, facts: StudyFacts) -> list[str]:
    """Each fault once, in the order in which they were found."""
    return list(dict.fromkeys(fault_text(words, fault) for fault in facts.faults))


def faults_note(words: Words, facts: StudyFacts) -> str:
    """What stands beside an answer: the first faults, and that such runs are left out; empty where all holds."""
    return note_of(words, fault_lines(words, facts))


def note_of(words: Words, lines: Sequence[str]) -> str:
    """The same of sentences that are there already."""
    if not lines:
        return ""
    more = len(lines) - SHOWN
    shown = "; ".join(lines[:SHOWN]) + (words.plural("; and {n} more", "; and {n} more", more) if more > 0 else "")
    return words.say("Records do not hold, and runs with such records are left out: {faults}.", {"faults": shown})
