"""Words that several pages share: states, troubles, when something happened.

Not here: the catalogue (`report/locale`).

    run_state(words, "interrupted")
"""

from __future__ import annotations

from paretune.dashboard.gathered import Gathered
from paretune.dashboard.index import Progress
from paretune.dashboard.kept import Trouble
from paretune.report.tables import state_name
from paretune.report.wording import Words


def study_state(words: Words, state: str) -> str:
    """How a study stands."""
    names = {
        "running": words.say("running"),
        "finished": words.say("complete"),
        "unfinished": words.say("incomplete"),
        "unreadable": words.say("cannot be read"),
    }
    return names.get(state, state)


def run_state(words: Words, state: str) -> str:
    """How a run stands."""
    names = {
        "scored": words.say("scored"),
        "trained": words.say("trained"),
        "running": words.say("running"),
        "interrupted": words.say("interrupted"),
        "unreadable": words.say("cannot be read"),
    }
    return names.get(state) or state_name(words, state)


def verdict_of_claim(words: Words, verdict: str) -> str:
    """What records say of a claim."""
    names = {
        "supported": words.say("supported"),
        "refuted": words.say("refuted"),
        "undecided": words.say("undecided"),
        "not_measured": words.say("not measured"),
    }
    return names.get(verdict, verdict)


def trouble_text(words: Words, trouble: Trouble) -> str:
    """What is wrong with a file, and what to do."""
    values = {"place": trouble.place, "file": trouble.file, "version": words.count(trouble.version)}
    if trouble.kind == "newer":
        return words.say(
            "{place}: {file} was written by a newer paretune (schema {version}); update paretune to read it.", values
        )
    if trouble.kind == "missing":
        return words.say("{place}: {file} is not there.", values)
    return words.say("{place}: {file} is torn or no record of paretune; it is left out here.", values)


def refusal_text(words: Words, found: Gathered) -> str:
    """Why a study's runs are not put into one table and chart; empty where they are."""
    names = {
        "data_digest": words.say("data"),
        "model_digest": words.say("base model"),
        "recipe": words.say("version of the training"),
        "train": words.say("training settings"),
        "task": words.say("task"),
        "study": words.say("study"),
        "data": words.say("data settings"),
        "model": words.say("model settings"),
        "earlier": words.say("earlier task"),
        "memory_cap_bytes": words.say("memory cap"),
    }
    if found.differing:
        parts = [f"{names.get(field, field)} ({words.count(number)})" for field, number in found.differing]
        return words.say(
            "These runs are not put into one table: they differ in {fields}. Run the study again in a new folder.",
            {"fields": words.series(parts)},
        )
    if found.refused:
        return words.say("These runs are not put into one table: {reason}", {"reason": found.refused})
    return ""


def runs_done(words: Words, progress: Progress) -> str:
    """ "12 of 30", and how many are left."""
    if not progress.total:
        return "—"
    left = max(0, progress.total - progress.done)
    text = words.say("{done} of {total}", {"done": words.count(progress.done), "total": words.count(progress.total)})
    more = words.plural("{n} is left", "{n} are left", left)
    return f"{text}; {more}" if left else text


def ago(words: Words, seconds: float) -> str:
    """How long ago, in one unit."""
    if seconds < 60:
        return words.say("less than a minute ago")
    minutes = int(seconds // 60)
    if minutes < 60:
        return words.plural("{n} minute ago", "{n} minutes ago", minutes)
    if minutes < 48 * 60:
        return words.plural("{n} hour ago", "{n} hours ago", minutes // 60)
    return words.plural("{n} day ago", "{n} days ago", minutes // 1440)
