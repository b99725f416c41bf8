"""The search for the learning rate as a figure: what each rate reached on validation data, and which was taken.

Not here: the table of the same (`cost_sheets.py`), other settings that were searched. A rate whose run gave no result
has no point; it stands in the table.

    figure = search_figure(facts, Words("en"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.config import JsonObject
from paretune.report import axes, ink
from paretune.report.facts import StudyFacts
from paretune.report.sheets import plain
from paretune.report.tables import metric_name
from paretune.report.wording import Words

WIDE, NARROW = 980, 340
HEIGHT = 280


@dataclass(frozen=True)
class Trial:
    """A learning rate of a method with its score on validation data; `chosen`: the runs have this one."""

    method: str
    rate: float
    score: float
    chosen: bool


def trial_data(facts: StudyFacts) -> list[Trial]:
    """Every rate that was tried, by method and rate; a key that is no rate (another setting's) is left out."""
    found: list[Trial] = []
    for method in facts.methods:
        selection = method.selection
        for key, score in selection.trials.items() if selection else ():
            rate = _rate(key)
            if rate is not None:
                found.append(
                    Trial(method.label, rate, score, selection is not None and rate == selection.learning_rate)
                )
    return sorted(found, key=lambda one: (one.method, one.rate))


def _rate(key: str) -> float | None:
    try:
        rate = float(key)
    except ValueError:
        return None
    return rate if rate > 0 else None


def search_chart(trials: Sequence[Trial], metric: str, words: Words, width: int) -> JsonObject:
    """Score against rate on a logarithmic axis, a line for each method; the chosen rate has a full point."""
    names = list(dict.fromkeys(one.method for one in trials))
    low, high = axes.padded(min(one.score for one in trials), max(one.score for one in trials))
    rows: list[JsonObject] = [
        {
            "method": one.method,
            "rate": one.rate,
            "score": one.score,
            "chosen": words.say("chosen") if one.chosen else words.say("tried"),
            "rate_text": words.rate(one.rate),
            "score_text": words.number(one.score),
        }
        for one in trials
    ]
    colours = [ink.SERIES[index % len(ink.SERIES)] for index in range(len(names))]
    dashes = [ink.DASHES[index % len(ink.DASHES)] for index in range(len(names))]
    columns = 3 if width < 500 else 8
    legend = {"orient": "bottom", "columns": columns, "title": None, "symbolType": "stroke"}
    method = {"field": "method", "type": "nominal"}
    rates = sorted({one.rate for one in trials})
    ticks = [rate for place, rate in enumerate(rates) if place == 0 or rate > 2 * rates[place - 1]]
    x = {
        "field": "rate",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [rates[0] * 0.8, rates[-1] * 1.25], "nice": False},
        "title": words.say("learning rate"),
        "axis": {"values": ticks, "labelExpr": axes.tick_labels(ticks, words.rate), "labelOverlap": "greedy"},
    }
    y = {
        "field": "score",
        "type": "quantitative",
        "scale": {"domain": [low, high], "nice": False, "zero": False},
        "title": metric,
        "axis": {"tickCount": 6},
    }
    colour = {**method, "scale": {"domain": names, "range": colours}, "legend": legend}
    tooltip = [
        {"field": "method", "title": words.say("method")},
        {"field": "rate_text", "title": words.say("learning rate")},
        {"field": "score_text", "title": metric},
        {"field": "chosen", "title": words.say("choice")},
    ]
    layers: list[JsonObject] = [
        {
            "mark": {"type": "line", "strokeWidth": 1.6},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "strokeDash": {**method, "scale": {"domain": names, "range": dashes}, "legend": legend},
            },
        },
        {
            "mark": {"type": "point", "filled": False, "opacity": 1, "size": 50},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
        },
        {
            "transform": [{"filter": f"datum.chosen === {words.say('chosen')!r}"}],
            "mark": {"type": "point", "filled": True, "opacity": 1, "size": 110},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
        },
    ]
    size = {"width": width - 75, "height": HEIGHT}
    return ink.themed({**size, "data": ink.values(rows), "layer": layers}, _title(words))


def _title(words: Words) -> str:
    return words.say("Learning rates that were tried")


def search_figure(facts: StudyFacts, words: Words) -> ink.Figure | None:
    """The figure; None where no method tried several rates."""
    trials = trial_data(facts)
    if len({one.rate for one in trials}) < 2:
        return None
    metric = words.say("{metric} on validation data", {"metric": metric_name(words, facts.metric)})
    table = [
        [one.method, words.rate(one.rate), words.number(one.score), words.say("chosen") if one.chosen else "—"]
        for one in trials
    ]
    columns = [words.say("method"), words.say("learning rate"), metric, words.say("choice")]
    caption = words.say(
        "Rings: learning rates that were tried; full points: those that were taken. A full point at an end of its line "
        "is at the edge of the search."
    )
    data: list[JsonObject] = [dict(vars(one)) for one in trials]
    wide, narrow = (search_chart(trials, metric, words, width) for width in (WIDE, NARROW))
    title = _title(words)
    return ink.Figure("search", title, caption, wide, narrow, plain(title, columns, table, (3,)), data, full_width=True)
