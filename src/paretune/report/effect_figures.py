"""Figures of settings: the effect of every level with its interval, and all methods as lines over parallel axes.

Not here: what is a factor, and the model (`factors.py`).

    figure = effect_figure(group, effects, "accuracy", Words("en"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from paretune.core.config import JsonObject
from paretune.report import ink
from paretune.report.costs import Costs
from paretune.report.factors import Effects, Group, level_text
from paretune.report.facts import StudyFacts, bounds
from paretune.report.front import cost_axes
from paretune.report.sheets import plain
from paretune.report.tables import metric_name
from paretune.report.wording import Words

WIDE, NARROW = 980, 340
ROW_HEIGHT = 26


@dataclass(frozen=True)
class EffectPoint:
    """How far the methods with a level lie from the mean over the levels of its setting."""

    setting: str
    level: str
    effect: float
    low: float | None
    high: float | None
    runs: int


def effect_data(facts: StudyFacts, group: Group, effects: Effects, words: Words) -> list[EffectPoint]:
    """Levels of all settings, in order."""
    points: list[EffectPoint] = []
    for name in group.factors:
        for one in effects.fit.of(name) if effects.fit else []:
            low, high = bounds(one.interval) or (None, None)
            having = [label for label, settings in group.settings.items() if settings[name] == one.level[0]]
            runs = sum(len(facts.example_values.get(label, {})) for label in having)
            points.append(EffectPoint(name, level_text(words, one.level[0]), one.interval.estimate, low, high, runs))
    return points


def effect_chart(points: Sequence[EffectPoint], metric: str, words: Words, width: int) -> JsonObject:
    """Effects around zero; shape and colour say on which side of it the whole interval lies."""
    extent = 170 if width > 400 else 120
    sides = (
        (words.say("better than the mean"), ink.BETTER, "triangle-up"),
        (words.say("not told from the mean"), ink.UNDECIDED, "diamond"),
        (words.say("worse than the mean"), ink.WORSE, "triangle-down"),
    )
    rows: list[JsonObject] = []
    for point in points:
        above, below = (point.low or 0) > 0, (point.high or 0) < 0
        side = sides[0] if above else sides[2] if below else sides[1]
        interval = "—" if point.low is None or point.high is None else words.spread(point.low, point.high, signed=True)
        rows.append(
            {
                "name": f"{point.setting}: {point.level}",
                "x": point.effect,
                "low": point.low,
                "high": point.high,
                "side": side[0],
                "effect": words.number(point.effect, signed=True),
                "interval": interval,
                "runs": words.count(point.runs),
            }
        )
    shown = [side for side in sides if any(row["side"] == side[0] for row in rows)]
    names, colours, shapes = ([side[part] for side in shown] for part in range(3))
    y = {
        "field": "name",
        "type": "nominal",
        "sort": [row["name"] for row in rows],
        "title": None,
        "axis": {
            "labelLimit": extent - 16, "minExtent": extent, "maxExtent": extent, "ticks": False, "domain": False
        },
    }  # fmt: skip
    title = words.say("effect on {metric}", {"metric": metric})
    ticks = {"tickCount": max(3, (width - extent) // 90), "labelOverlap": True, "labelFlush": False}
    x = {"field": "x", "type": "quantitative", "title": title, "scale": {"zero": True}, "axis": ticks}
    side = {"field": "side", "type": "nominal", "title": None}
    colour = {**side, "scale": {"domain": names, "range": colours}}
    tooltip = [
        {"field": "name", "title": words.say("setting")},
        {"field": "effect", "title": title},
        {"field": "interval", "title": words.say("95 % interval")},
        {"field": "runs", "title": words.say("scored runs")},
    ]
    layers: list[JsonObject] = [
        {"data": ink.values([{"x": 0}]), "mark": {"type": "rule", "opacity": 0.7}, "encoding": {"x": x}},
        {
            "transform": [{"filter": "datum.low !== null"}],
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 100, "opacity": 1},
            "encoding": {
                "y": y,
                "x": x,
                "color": colour,
                "shape": {**side, "scale": {"domain": names, "range": shapes}},
                "tooltip": tooltip,
            },
        },
    ]
    size = {"width": width - extent - 30, "height": ROW_HEIGHT * len(rows)}
    return ink.themed({**size, "data": ink.values(rows), "layer": layers}, title)


def effect_figure(facts: StudyFacts, group: Group, effects: Effects, words: Words) -> ink.Figure | None:
    """The effect of each level; None where there is no fit."""
    points = effect_data(facts, group, effects, words)
    if not points:
        return None
    metric = metric_name(words, facts.metric)
    title = words.say("Effect of each setting of {kind}", {"kind": group.kind})
    caption = words.say(
        "Distance of a level from the mean over the levels of its setting, other settings equal: a linear model of "
        "its settings over all scored runs. Line: 95 % interval over runs and test examples together."
    )
    table = [
        [
            point.setting,
            point.level,
            words.number(point.effect, signed=True),
            words.spread(point.low, point.high, signed=True)
            if point.low is not None and point.high is not None
            else "—",
            words.count(point.runs),
        ]
        for point in points
    ]
    columns = [
        words.say("setting"),
        words.say("value"),
        words.say("effect on {metric}", {"metric": metric}),
        words.say("95 % interval"),
        words.say("scored runs"),
    ]
    data: list[JsonObject] = [dict(vars(point)) for point in points]
    wide, narrow = (effect_chart(points, metric, words, width) for width in (WIDE, NARROW))
    name = f"effects-{_plain_name(group.kind)}"
    return ink.Figure(name, title, caption, wide, narrow, plain(title, columns, table, (1,)), data, full_width=True)


@dataclass(frozen=True)
class Axis:
    """One upright axis: where each method's value lies (0 bottom, 1 top), its text, and the texts along the axis."""

    title: str
    places: dict[str, float]
    texts: dict[str, str]
    ticks: list[tuple[float, str]]


def parallel_axes(facts: StudyFacts, group: Group, words: Words) -> list[Axis]:
    """The settings, then quality, memory and time of the methods that have all of them."""
    methods = [label for label in group.settings if label in facts.quality]
    axes = [_levels(name, levels, group, methods, words) for name, levels in group.factors.items()]
    quality = {label: facts.quality[label].estimate for label in methods}
    axes.append(_numbers(metric_name(words, facts.metric), quality, words.number))
    judged = Costs(facts)
    for cost in cost_axes(words)[:2]:
        found: dict[str, float] = {}
        for label in methods:
            if by_seed := cost.by_seed(judged, facts.by_label[label]):
                found[label] = fmean(by_seed.values())
        if len(found) == len(methods):
            axes.append(_numbers(cost.title, found, cost.form))
    return axes


def _levels(name: str, levels: Sequence[object], group: Group, methods: Sequence[str], words: Words) -> Axis:
    last = len(levels) - 1
    texts = {label: level_text(words, group.settings[label][name]) for label in methods}
    places = {label: list(levels).index(group.settings[label][name]) / last for label in methods}
    ticks = [(at / last, level_text(words, level)) for at, level in enumerate(group.factors[name])]
    return Axis(name, places, texts, ticks)


def _numbers(title: str, values: dict[str, float], form: Callable[[float], str]) -> Axis:
    low, high = min(values.values()), max(values.values())
    span = high - low
    places = {label: (value - low) / span if span else 0.5 for label, value in values.items()}
    ticks = [(0.0, form(low)), (1.0, form(high))] if span else [(0.5, form(low))]
    return Axis(title, places, {label: form(value) for label, value in values.items()}, ticks)


def parallel_chart(axes: Sequence[Axis], quality_at: int, words: Words, title: str, width: int) -> JsonObject:
    """A line a method; the best quarter by quality is drawn strong, and the pointer brings one to the front."""
    names = [axis.title for axis in axes]
    quality = axes[quality_at]
    ranked = sorted(quality.places, key=lambda label: -quality.places[label])
    best = set(ranked[: max(1, len(ranked) // 4)])
    strong, weak = words.say("best quarter by quality"), words.say("others")
    rows: list[JsonObject] = [
        {
            "method": label,
            "axis": axis.title,
            "y": round(axis.places[label], 4),
            "group": strong if label in best else weak,
            "strong": label in best,
            **{other.title: other.texts[label] for other in axes},
        }
        for axis in axes
        for label in reversed(ranked)  # the best are drawn last, on top
    ]
    ticks: list[JsonObject] = [
        {"axis": axis.title, "y": place, "text": text} for axis in axes for place, text in axis.ticks
    ]
    x = {
        "field": "axis",
        "type": "ordinal",
        "sort": names,
        "title": None,
        "scale": {"type": "point", "padding": 0.45},
        "axis": {"labelAngle": 0 if width > 400 else -40, "orient": "bottom", "labelLimit": 130, "domain": False},
    }
    y = {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [-0.06, 1.06], "nice": False}}
    group = {"field": "group", "type": "nominal", "title": None}
    domain = [strong, weak]
    tooltip = [
        {"field": "method", "title": words.say("method")},
        *({"field": _escaped(name), "title": name} for name in names),
    ]
    hover = {"name": "hover", "select": {"type": "point", "fields": ["method"], "on": "pointerover", "nearest": False}}
    lines: JsonObject = {
        "params": [hover],
        "mark": {"type": "line", "interpolate": "linear"},
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "method"},
            "color": {**group, "scale": {"domain": domain, "range": [ink.FRONT, ink.DOMINATED]}},
            "strokeWidth": {"condition": {"test": "datum.strong", "value": 2.4}, "value": 1.1},
            "opacity": {"condition": {"param": "hover", "value": 0.95}, "value": 0.18},
            "tooltip": tooltip,
        },
    }
    rules: JsonObject = {
        "data": ink.values([{"axis": name, "y": 0, "top": 1} for name in names]),
        "mark": {"type": "rule", "opacity": 0.55},
        "encoding": {"x": x, "y": y, "y2": {"field": "top"}},
    }
    room = (width - 40) // len(axes) - 4
    labels: list[JsonObject] = [
        {
            "data": ink.values(ticks),
            "transform": [{"filter": test}],
            "mark": {"type": "text", "fontSize": 11 if width > 400 else 9, "limit": room, **place},
            "encoding": {"x": x, "y": y, "text": {"field": "text"}},
        }
        for test, place in (
            ("datum.y === 1", {"align": "center", "dy": -9}),  # the ends stand outside, where no line runs over them
            ("datum.y === 0", {"align": "center", "dy": 10}),
            ("datum.y > 0 && datum.y < 1", {"align": "left", "dx": 5}),
        )
    ]
    size = {"width": width - 40, "height": 340}
    return ink.themed({**size, "data": ink.values(rows), "layer": [rules, lines, *labels]}, title)


def parallel_figure(facts: StudyFacts, group: Group, words: Words) -> ink.Figure | None:
    """Settings, quality, memory and time of each method; None where fewer than two were scored."""
    if sum(label in facts.quality for label in group.settings) < 2:
        return None
    axes = parallel_axes(facts, group, words)
    title = words.say("Settings of {kind} with what they gave and cost", {"kind": group.kind})
    caption = words.say(
        "A line is a method; it crosses each axis at its value, more upwards. Strong: the best quarter by mean quality."
    )
    methods = [label for label in group.settings if label in facts.quality]
    table = [[label, *(axis.texts[label] for axis in axes)] for label in methods]
    columns = [words.say("method"), *(axis.title for axis in axes)]
    data: list[JsonObject] = [dict(zip(columns, row, strict=True)) for row in table]
    wide, narrow = (parallel_chart(axes, len(group.factors), words, title, width) for width in (WIDE, NARROW))
    name = f"parallel-{_plain_name(group.kind)}"
    return ink.Figure(name, title, caption, wide, narrow, plain(title, columns, table), data, full_width=True)


def _plain_name(kind: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in kind)


def _escaped(field: str) -> str:
    """A name as Vega-Lite reads fields: dots and brackets would be paths."""
    return "".join("\\" + letter if letter in ".[]" else letter for letter in field)
