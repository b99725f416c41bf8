"""Advice as lines for a terminal: the ranked methods, what does not fit, and what all of it rests on.

Not here: which method is first (`advise.py`). Every figure stands with its uncertainty and with how far the case lies.

    print("\\n".join(advise_lines(advise([Path("results/r8")], Case(rows=800, classes=6, tokens=90)), Words("en"))))
"""

from __future__ import annotations

import math

from paretune.report.facts import bounds
from paretune.report.tables import metric_name, state_name
from paretune.report.wording import Words
from paretune.study.advise import Advice, Advised
from paretune.study.advise_case import REACH, Distance


def advise_lines(advice: Advice, words: Words) -> list[str]:
    """The whole answer, one thought a line; methods are indented."""
    if advice.nothing_comparable:
        head = words.say("Nothing comparable was measured: no study lies near this case, so no method is recommended.")
        return [head, *(_left_out(apart, why, words) for apart, why in advice.far)]
    ranked = [one for one in advice.ranked if one.rank is not None]
    others = [one for one in advice.ranked if one.rank is None]
    lines = [_head(advice, words)] if ranked else [words.say("No method is known to fit this budget.")]
    lines += [f"  {one.rank}. {_method(one, advice, words)}" for one in ranked]
    if others:
        lines.append(words.say("Without a rank, by the budget:"))
        lines += [f"  – {_method(one, advice, words)}; {_why_not(one, words)}" for one in others]
    lines += [
        words.say("Never gave a result in study {study}: {method} ({states})", {
            "study": study, "method": method, "states": ", ".join(state_name(words, one) for one in states) or "–",
        })
        for study, method, states in advice.never_scored
    ]  # fmt: skip
    return [*lines, *_grounds(advice, words)]


def _head(advice: Advice, words: Words) -> str:
    values = {"metric": metric_name(words, advice.metric or ""), "control": advice.control or ""}
    return words.say("Ranked by the difference in {metric} to {control}, with its 95 % interval:", values)


def _method(one: Advised, advice: Advice, words: Words) -> str:
    """A method's difference, costs and evidence."""
    labels = [other.method for other in advice.ranked]
    where = f" ({words.series(list(one.studies))})" if labels.count(one.method) > 1 else ""
    parts = [f"{one.method}{where}: {_difference(one, advice, words)}"]
    if one.peak_memory_bytes is not None:
        parts.append(words.say("peak memory {memory}", {"memory": words.size(one.peak_memory_bytes)}))
    if one.seconds is not None:
        parts.append(_seconds(one, words))
    seeds = words.plural("{n} seed", "{n} seeds", one.seeds)
    parts.append(words.plural("{n} study, {seeds}", "{n} studies, {seeds}", len(one.studies), {"seeds": seeds}))
    if len(one.studies) == 1 and len(advice.near) > 1 and one.method != advice.control:
        parts.append(words.say("its interval is of {study} alone", {"study": one.studies[0]}))
    if one.stopped:
        parts.append(words.plural("{n} run gave no result", "{n} runs gave no result", one.stopped))
    if one.fits == "unsure":
        parts.append(words.say("may not fit the time"))
    if one.tied:
        parts.append(words.say("not told apart from the first"))
    return "; ".join(parts)


def _difference(one: Advised, advice: Advice, words: Words) -> str:
    if one.method == advice.control:
        return words.say("the control")
    estimate, ends = words.number(one.difference.estimate, signed=True), bounds(one.difference)
    if ends is None:
        return words.say("{estimate} (one seed: no interval)", {"estimate": estimate})
    return f"{estimate} ({words.spread(*ends, signed=True)})"


def _seconds(one: Advised, words: Words) -> str:
    assert one.seconds is not None
    values = {"time": words.duration(one.seconds.estimate)}
    if not math.isfinite(one.seconds.high):
        return words.say("about {time} (one run: no interval)", values)
    low, high = words.duration(one.seconds.low), words.duration(one.seconds.high)
    if low == high:
        return words.say("about {time}", values)
    return words.say("about {time} ({low} to {high})", values | {"low": low, "high": high})


def _why_not(one: Advised, words: Words) -> str:
    reasons = {
        ("memory", "no"): words.say("needs more memory"),
        ("memory", "unknown"): words.say("its memory here was not measured"),
        ("time", "no"): words.say("takes longer"),
        ("time", "unknown"): words.say("its time here was not measured"),
    }
    found = {"memory": one.memory_fits, "time": one.time_fits}
    return words.series([reasons[cost, fit] for cost, fit in found.items() if (cost, fit) in reasons])


def _grounds(advice: Advice, words: Words) -> list[str]:
    """What the ranking rests on, and how far the case lies from it."""
    lines = [words.say("Measured on:")]
    lines += [f"  {_apart(apart, words)}" for apart in advice.near]
    if len(advice.near) == 1:
        lines.append(
            words.say("One study only: its interval holds for its seeds and its test set, not for other data.")
        )
    sources = [apart.data for apart in advice.near]
    shared = [apart.study for apart in advice.near if sources.count(apart.data) > 1]
    if shared:
        lines.append(
            words.say(
                "Studies {studies} share a source of data: their intervals taken together are too narrow.",
                {"studies": words.series(shared)},
            )
        )
    if not any(apart.model == advice.model for apart in advice.near):
        model = advice.model or ""
        lines.append(words.say("Base model {model} was not measured near this case: no costs.", {"model": model}))
    elif any(one.seconds is not None for one in advice.ranked):
        machine = "; ".join(
            words.say("{processor} with {cores} cores", {"processor": processor, "cores": cores})
            for processor, cores in advice.machines
        )
        lines.append(
            words.say(
                "Time: one training on {machine}, from the records' own throughput; an estimate, so no rank rests on "
                "it.",
                {"machine": machine},
            )
        )
    return [*lines, *(_left_out(apart, why, words) for apart, why in advice.far)]


def _apart(apart: Distance, words: Words) -> str:
    """A study with the case's ratios to it."""
    ratios = [
        (words.say("training rows"), apart.rows),
        (words.say("classes"), apart.classes),
        (words.say("tokens of a text"), apart.tokens),
    ]
    shown = [f"{name} × {_ratio(ratio, words)}" for name, ratio in ratios if ratio is not None]
    values = {"study": apart.study, "ratios": ", ".join(shown), "distance": words.number(apart.total, 2)}
    parts = [words.say("{study}: the case against it: {ratios}; log distance {distance}", values)]
    if apart.other_model:
        parts.append(words.say("another base model ({model})", {"model": apart.model}))
    if apart.other_script:
        parts.append(words.say("another script"))
    return "; ".join(parts)


def _ratio(ratio: float, words: Words) -> str:
    """Two decimals, none for a large one."""
    return words.number(ratio, 2) if ratio < 10 else words.count(round(ratio))


def _left_out(apart: Distance, why: str, words: Words) -> str:
    texts = {
        "task": words.say("another task"),
        "far": words.say("over {times} times larger or smaller", {"times": words.count(round(REACH))}),
        "lengths": words.say("its text lengths are not recorded"),
        "control": words.say("its control was not scored, or is another method"),
    }
    return words.say("Left out ({why}): {study}", {"study": _apart(apart, words), "why": texts[why]})
