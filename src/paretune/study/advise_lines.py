"""Advice as lines for a terminal: a table of methods, what sets some of them apart, and what all of it rests on.

Not here: which method is first (`advise.py`). Every figure stands with its uncertainty and with how far the case lies.

    print("\\n".join(advise_lines(advise([Path("results/r8")], Case(rows=800, classes=6, tokens=90)), Words("en"))))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.table import Table

from paretune.report.facts import bounds
from paretune.report.tables import metric_name, state_name
from paretune.report.terminal import fitted, wrapped
from paretune.report.wording import Words
from paretune.study.advise import NEAR, Advice, Advised, Fit
from paretune.study.advise_case import REACH, Case, Distance

COLUMNS = 100
NO_BREAK = "\N{NO-BREAK SPACE}"


def advise_lines(advice: Advice, words: Words, columns: int = COLUMNS) -> list[str]:
    """The whole answer for so many columns: tables, and one thought after another."""
    parts: list[str | Table] = [case_line(advice.case, words), _head(advice, words)]
    if not advice.nothing_comparable:
        parts += [*_low(advice, words), _methods(advice, words), *_notes(advice, words)]
    parts += _variants(advice, words)
    parts += _distances(advice, words)
    if not advice.nothing_comparable:
        parts += _limits(advice, words)
    return [line for part in parts for line in _lines(part, columns)]


def _lines(part: str | Table, columns: int) -> list[str]:
    """A table as it is drawn; a sentence, its further lines set in."""
    return wrapped(part, columns) if isinstance(part, str) else fitted(part, columns)


def _head(advice: Advice, words: Words) -> str:
    if advice.nothing_comparable:
        return words.say("Nothing comparable was measured: no study lies near this case, so no method is recommended.")
    if all(one.rank is None for one in advice.ranked):
        return words.say("No method is known to fit this budget.")
    values = {"metric": metric_name(words, advice.metric or ""), "control": advice.control or ""}
    return words.say("Methods by their difference in {metric} to {control}:", values)


def case_line(case: Case, words: Words) -> str:
    """What was asked, in one line."""
    sizes = {
        "rows": words.count(case.rows),
        "classes": words.count(case.classes),
        "tokens": words.number(case.tokens, 0 if case.tokens >= 10 else 1),
    }
    parts = [words.say("Case: training rows {rows}, classes {classes}, tokens of a text {tokens}", sizes)]
    if case.memory_bytes is not None:
        parts.append(words.say("memory at most {memory}", {"memory": words.size(case.memory_bytes)}))
    if case.seconds is not None:
        parts.append(words.say("one training at most {time}", {"time": words.duration(case.seconds)}))
    if case.model is not None:
        parts.append(words.say("base model {model}", {"model": case.model}))
    return "; ".join(parts)


def _methods(advice: Advice, words: Words) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column(words.say("method"), no_wrap=True)
    table.add_column(words.say("difference [95 %]"), justify="right", no_wrap=True)
    table.add_column(words.say("peak memory"), justify="right")
    table.add_column(words.say("one training [95 %]"), justify="right", no_wrap=True)
    table.add_column(words.say("studies"), justify="right")
    table.add_column(words.say("seeds in all"), justify="right")
    for one in advice.ranked:
        table.add_row(
            "–" if one.rank is None else str(one.rank),
            one.method,
            _difference(one, advice, words),
            "—" if one.peak_memory_bytes is None else words.size(one.peak_memory_bytes),
            _seconds(one, words),
            words.count(len(one.studies)),
            words.count(one.seeds),
        )
    return table


def _names(chosen: Sequence[Advised], words: Words) -> str:
    return words.series([one.method for one in chosen])


def _difference(one: Advised, advice: Advice, words: Words) -> str:
    if one.method == advice.control:
        return words.say("the control")
    estimate, ends = words.number(one.difference.estimate, signed=True), bounds(one.difference)
    if ends is None and one.seeds == 1:
        return words.say("{estimate} (one seed)", {"estimate": estimate})
    if ends is None:  # of several studies, one has a single seed
        return words.say("{estimate} (no interval)", {"estimate": estimate})
    return f"{estimate} {words.spread(*ends, signed=True)}"


def _seconds(one: Advised, words: Words) -> str:
    """A time with its interval; its one space is where a line may be broken."""
    if one.seconds is None:
        return "—"
    time = words.duration(one.seconds.estimate)
    if not math.isfinite(one.seconds.high):
        return words.plural("{time} ({n} run)", "{time} ({n} runs)", one.seconds.runs, {"time": time})
    low, high = words.duration(one.seconds.low), words.duration(one.seconds.high)
    numbers = [text.split(NO_BREAK) for text in (time, low, high)]
    if {(len(parts), parts[-1]) for parts in numbers} == {(2, numbers[0][-1])}:  # one unit for all of them
        low, high = low.split(NO_BREAK)[0], high.split(NO_BREAK)[0]
    return f"{time} [{low}{NO_BREAK}…{NO_BREAK}{high}]"


def _notes(advice: Advice, words: Words) -> Iterator[str]:
    """What sets some of the methods apart, one line a reason."""
    for (cost, fit), text in _reasons(words).items():
        found = [(one, one.memory_fits if cost == "memory" else one.time_fits) for one in advice.ranked]
        chosen = [one for one, fits in found if one.rank is None and fits == fit]
        if chosen:
            yield f"{text} {_names(chosen, words)}"
    if tied := [one for one in advice.ranked if one.tied]:
        values = {"methods": _names(tied, words)}
        yield words.say("The records do not tell these apart from the first: {methods}", values)
    yield from _majority(advice, words)
    if unsure := [one for one in advice.ranked if one.rank is not None and one.fits == "unsure"]:
        yield words.say("May not fit the time: {methods}", {"methods": _names(unsure, words)})
    yield from _of_one_study(advice, words)
    if stopped := [f"{one.method} × {words.count(one.stopped)}" for one in advice.ranked if one.stopped]:
        yield words.say("Runs that gave no result: {methods}", {"methods": words.series(stopped)})
    for study, method, states in advice.never_scored:
        said = ", ".join(state_name(words, one) for one in states) or "–"
        values = {"study": study, "method": method, "states": said}
        yield words.say("Never gave a result in study {study}: {method} ({states})", values)


def _majority(advice: Advice, words: Words) -> Iterator[str]:
    """Which methods the records do not show to be better than the majority class."""
    values = {"metric": metric_name(words, advice.metric or ""), "studies": words.series(list(advice.majority))}
    if advice.nothing_learnt:
        yield words.say(
            "In {metric} nothing that learns was shown to be better than the most frequent class (studies: {studies}).",
            values,
        )
    elif advice.not_above_majority:
        short = [one for one in advice.ranked if one.kind in advice.not_above_majority]
        yield words.say(
            "Not shown to be better in {metric} than the most frequent class (studies: {studies}): {methods}",
            {**values, "methods": _names(short, words)},
        )


def _low(advice: Advice, words: Words) -> list[str]:
    """Why the evidence is low, and what to do about it."""
    nearest = advice.near[0]
    names = {
        "one_study": words.say("one set of data"),
        "pilot": words.say("fewer than five seeds"),
        "far": words.say("{study}, the nearest, is over {times} times apart", {
            "study": nearest.study, "times": words.count(round(NEAR))
        }),
        "script": words.say("texts in another script"),
        "model": words.say("another base model"),
    }  # fmt: skip
    if not advice.low:
        return []
    reasons = {"reasons": "; ".join(names[reason] for reason in advice.low)}
    return [words.say("Low evidence ({reasons}): run a study of your own before you rely on this order.", reasons)]


def _variants(advice: Advice, words: Words) -> list[str]:
    """What settings within a method did, which are no methods of their own."""
    found: list[str] = []
    for study, one in advice.variants:
        values = {
            "kind": one.kind,
            "study": study,
            "tried": words.count(one.tried),
            "default": one.default,
            "metric": metric_name(words, one.metric),
            "better": words.series(one.better) or "—",
        }
        found.append(
            words.say(
                "Settings within {kind}, study {study}: {tried} tried beside {default}; shown to be better in "
                "{metric}: {better}",
                values,
            )
        )
    return found


def _reasons(words: Words) -> dict[tuple[str, Fit], str]:
    """Why a budget leaves a method without a rank."""
    return {
        ("memory", "no"): words.say("No rank, more memory is needed than there is:"),
        ("memory", "unknown"): words.say("No rank, memory was not measured for so much text:"),
        ("time", "no"): words.say("No rank, one training takes longer:"),
        ("time", "unknown"): words.say("No rank, time was not measured:"),
    }


def _of_one_study(advice: Advice, words: Words) -> Iterator[str]:
    """Intervals that hold for one study's seeds and test set."""
    if len(advice.near) == 1:
        yield words.say("One study only: its intervals hold for its seeds and its test set, not for other data.")
        return
    for apart in advice.near:
        alone = [one for one in advice.ranked if one.studies == (apart.study,) and one.method != advice.control]
        if alone:
            values = {"methods": _names(alone, words), "study": apart.study}
            yield words.say("Intervals of {study} alone, not for other data: {methods}", values)


def _distances(advice: Advice, words: Words) -> list[str | Table]:
    """How far the case lies from each study, those that were left out too."""
    why = {
        "task": words.say("another task"),
        "far": words.say("over {times} times apart", {"times": words.count(round(REACH))}),
        "settings": words.say("settings of one method alone"),
        "lengths": words.say("its text lengths are not recorded"),
        "records": words.say("its records are incomplete or do not hold"),
        "majority": words.say("nothing but the most frequent class was scored"),
        "control": words.say("its control was not scored, or is another method"),
    }
    table = Table(box=None, pad_edge=False)
    table.add_column(words.say("study"), overflow="fold")
    for name in (words.say("training rows"), words.say("classes"), words.say("tokens of a text")):
        table.add_column(name, justify="right")
    table.add_column(words.say("distance"), justify="right")
    table.add_column(words.say("note"))
    for apart in advice.near:
        table.add_row(*_ratios(apart, words), "; ".join(_others(apart, words)))
    for apart, reason in advice.far:
        left_out = words.say("left out: {why}", {"why": why[reason]})
        table.add_row(*_ratios(apart, words), "; ".join([left_out, *_others(apart, words)]))
    head = words.say(
        "How many times each study the case is, and the distance (0: the same; 2.3: ten times on one side; tokens "
        "weigh half):"
    )
    return [head, table]


def _ratios(apart: Distance, words: Words) -> list[str]:
    ratios = [_ratio(ratio, words) for ratio in (apart.rows, apart.classes, apart.tokens)]
    return [apart.study, *ratios, words.number(apart.total, 2)]


def _ratio(ratio: float | None, words: Words) -> str:
    """Two decimals, none for a large one."""
    if ratio is None:
        return "—"
    return f"× {words.number(ratio, 2) if ratio < 10 else words.count(round(ratio))}"


def _others(apart: Distance, words: Words) -> list[str]:
    """What else differs."""
    parts = [words.say("another base model ({model})", {"model": apart.model})] if apart.other_model else []
    return [*parts, words.say("another script")] if apart.other_script else parts


def _limits(advice: Advice, words: Words) -> Iterator[str]:
    """What the figures do not say."""
    sources = [apart.data for apart in advice.near]
    shared = [apart.study for apart in advice.near if sources.count(apart.data) > 1]
    if shared:
        yield words.say(
            "Studies {studies} share a source of data: their intervals taken together are too narrow.",
            {"studies": words.series(shared)},
        )
    if not any(apart.model == advice.model for apart in advice.near):
        model = {"model": advice.model or ""}
        yield words.say("Base model {model} was not measured near this case: no costs.", model)
    elif any(one.seconds is not None for one in advice.ranked):
        machine = "; ".join(
            words.say("{processor} with {cores} cores", {"processor": processor, "cores": cores})
            for processor, cores in advice.machines
        )
        yield words.say(
            "Costs are of {model}; time is one training on {machine}, from the records' own throughput: an estimate, "
            "so no rank rests on it.",
            {"model": advice.model or "", "machine": machine},
        )
