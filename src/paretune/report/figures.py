"""Figures of a study's results: data first (`…_data`, typed rows), ink second (`…_chart`, one Vega-Lite spec).

Not here: Pareto plots (`front.py`), learning curves (`curves.py`), figures of the data (`exploration_figures.py`).

    chart = quality_chart(quality_data(facts), "accuracy", Words("en"), 480)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.config import JsonObject
from paretune.report import axes, ink
from paretune.report.facts import StudyFacts, bounds
from paretune.report.sheets import plain
from paretune.report.tables import MethodRow, difference_text, levelled, metric_name, quality_text, verdict_name
from paretune.report.wording import Words
from paretune.stats.compare import Verdict
from paretune.stats.metrics import metric_named

ROW_HEIGHT = 38
WIDE, NARROW = 480, 340


@dataclass(frozen=True)
class QualityPoint:
    """Quality of one method: mean, interval (None with one seed) and the value of each seed."""

    method: str
    quality: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]


def quality_data(facts: StudyFacts) -> list[QualityPoint]:
    """Scored methods, best first."""
    points: list[QualityPoint] = []
    for method in facts.scored:
        interval = facts.quality[method.label]
        low, high = bounds(interval) or (None, None)
        points.append(QualityPoint(method.label, interval.estimate, low, high, tuple(method.seed_scores(facts.metric))))
    return sorted(points, key=lambda point: -point.quality)


def _names_axis(order: list[str], width: int) -> JsonObject:
    """The axis of method names, of a fixed width so that figures of one column line up."""
    extent = 130 if width > 400 else 96
    axis = {"labelLimit": extent - 8, "minExtent": extent, "maxExtent": extent, "ticks": False, "domain": False}
    return {"field": "method", "type": "nominal", "sort": order, "title": None, "axis": axis}


def quality_chart(points: Sequence[QualityPoint], metric: str, words: Words, width: int) -> JsonObject:
    """Means with intervals, one row a method; each seed is a small ring; far lower means lie at the left edge."""
    name = metric_name(words, metric)
    inner = width - (160 if width > 400 else 116)
    core_low, core_high = axes.core([point.quality for point in points])
    inside = [point for point in points if point.quality >= core_low]
    low, high = axes.padded(
        min([core_low, *(point.low for point in inside if point.low is not None)]),
        max([core_high, *(point.high for point in inside if point.high is not None)]),
    )
    low, high = axes.within(low, high, metric_named(metric).bounds)
    edge = low + 0.025 * (high - low)
    rows: list[JsonObject] = []
    seeds: list[JsonObject] = []
    for point in points:
        outside = point.quality < low
        spread = (
            words.spread(point.low, point.high)
            if point.low is not None and point.high is not None
            else words.say("no interval")
        )
        rows.append(
            {
                "method": point.method,
                "x": edge if outside else point.quality,
                "low": None if outside or point.low is None else max(point.low, low),
                "high": None if outside or point.high is None else min(point.high, high),
                "text": ("← " if outside else "") + words.number(point.quality),
                "outside": outside,
                name: words.number(point.quality),
                words.say("95 % interval"): spread,
            }
        )
        seeds += [{"method": point.method, "x": value} for value in point.seeds if value >= low]
    y = _names_axis([point.method for point in points], width)
    scale = {"domain": [low, high], "nice": False, "zero": False}
    x = {"field": "x", "type": "quantitative", "scale": scale, "title": name, "axis": {"tickCount": inner // 70}}
    tooltip = [{"field": one, "type": "nominal"} for one in ("method", name, words.say("95 % interval"))]
    tooltip[0]["title"] = words.say("method")
    layers: list[JsonObject] = [
        {
            "transform": [{"filter": "datum.low !== null"}],
            "mark": {"type": "rule", "strokeWidth": 2, "color": ink.FRONT},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "data": ink.values(seeds),
            "mark": {
                "type": "point",
                "filled": False,
                "size": 26,
                "color": ink.TEXT,
                "opacity": 0.65,
                "strokeWidth": 1,
            },
            "encoding": {"y": y, "x": x},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 95, "color": ink.FRONT, "opacity": 1},
            "encoding": {
                "y": y,
                "x": x,
                "tooltip": tooltip,
                "shape": {"condition": {"test": "datum.outside", "value": "triangle-left"}, "value": "circle"},
            },
        },
        {
            "transform": [{"filter": "!datum.outside"}],
            "mark": {"type": "text", "dy": -14, "fontSize": 11},
            "encoding": {"y": y, "x": x, "text": {"field": "text"}},
        },
        {
            "transform": [{"filter": "datum.outside"}],
            "mark": {"type": "text", "dx": 10, "align": "left", "fontSize": 11},
            "encoding": {"y": y, "x": x, "text": {"field": "text"}},
        },
    ]
    height = ROW_HEIGHT * len(points)
    description = words.say("{metric} of each method with 95 % intervals", {"metric": name})
    return ink.themed({"width": inner, "height": height, "data": ink.values(rows), "layer": layers}, description)


def quality_figure(facts: StudyFacts, words: Words) -> ink.Figure | None:
    """Quality with intervals; None where nothing was scored."""
    points = quality_data(facts)
    if not points:
        return None
    metric = metric_name(words, facts.metric)
    title = words.say("Quality of each method")
    table = [
        [
            point.method,
            words.number(point.quality),
            words.spread(point.low, point.high) if point.low is not None and point.high is not None else "—",
            "; ".join(words.number(value) for value in point.seeds),
        ]
        for point in points
    ]
    columns = [words.say("method"), metric, words.say("95 % interval"), words.say("each seed")]
    caption = words.say(
        "Point: mean over seeds; line: 95 % interval over seeds and test texts; rings: single seeds. An arrow marks a "
        "value left of the frame."
    )
    data: list[JsonObject] = [dict(vars(point)) for point in points]
    wide, narrow = (quality_chart(points, facts.metric, words, width) for width in (WIDE, NARROW))
    return ink.Figure("quality", title, caption, wide, narrow, plain(title, columns, table), data)


@dataclass(frozen=True)
class DifferencePoint:
    """Difference of one method to the control, the verdict on it, and the interval it was taken from, at `level`."""

    method: str
    difference: float
    low: float
    high: float
    verdict: Verdict
    level: float | None


def difference_data(rows: Sequence[MethodRow]) -> list[DifferencePoint]:
    """Methods whose difference has an interval, best first."""
    points = [
        DifferencePoint(row.method, row.difference, *row.difference_interval, row.verdict, row.difference_level)
        for row in rows
        if row.difference is not None and row.difference_interval is not None and row.verdict is not None
    ]
    return sorted(points, key=lambda point: -point.difference)


def difference_chart(points: Sequence[DifferencePoint], margin: float, words: Words, width: int) -> JsonObject:
    """Differences with intervals around the band of the margin; colour and shape give the verdict."""
    inner = width - (160 if width > 400 else 116)
    core_low, core_high = axes.core([point.difference for point in points])
    inside = [point for point in points if point.difference >= core_low]
    low, high = axes.padded(
        min([core_low, -margin, *(point.low for point in inside)]),
        max([core_high, margin, *(point.high for point in inside)]),
    )
    edge = low + 0.025 * (high - low)
    verdicts = {
        "better": (words.say("better"), ink.BETTER, "triangle-up"),
        "equivalent": (words.say("equivalent"), ink.FRONT, "square"),
        "undecided": (words.say("undecided"), ink.UNDECIDED, "diamond"),
        "worse": (words.say("worse"), ink.WORSE, "triangle-down"),
    }
    present = [verdicts[key] for key in verdicts if any(point.verdict == key for point in points)]
    title, interval = words.say("difference to the control"), words.say("interval of the verdict")
    rows: list[JsonObject] = [
        {
            "method": point.method,
            "x": edge if point.difference < low else point.difference,
            "low": None if point.difference < low else max(point.low, low),
            "high": None if point.difference < low else min(point.high, high),
            "outside": point.difference < low,
            "text": ("← " if point.difference < low else "") + words.number(point.difference, signed=True),
            words.say("verdict"): verdicts[point.verdict][0],
            title: words.number(point.difference, signed=True),
            interval: levelled(words, (point.low, point.high), point.level),
        }
        for point in points
    ]
    y = _names_axis([point.method for point in points], width)
    scale = {"domain": [low, high], "nice": False, "zero": False}
    x = {"field": "x", "type": "quantitative", "scale": scale, "title": title, "axis": {"tickCount": inner // 70}}
    verdict = {"field": words.say("verdict"), "type": "nominal", "title": None}
    names, colours, shapes = ([one[part] for one in present] for part in range(3))
    tooltip = [
        {"field": "method", "title": words.say("method")},
        *({"field": name} for name in (title, interval, words.say("verdict"))),
    ]
    colour = {**verdict, "scale": {"domain": names, "range": colours}}
    layers: list[JsonObject] = [
        {
            "data": ink.values([{"low": -margin, "high": margin}]),
            "mark": {"type": "rect", "color": ink.FRONT, "opacity": 0.13},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {"data": ink.values([{"x": 0}]), "mark": {"type": "rule", "opacity": 0.7}, "encoding": {"x": x}},
        {
            "transform": [{"filter": "datum.low !== null"}],
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
            "encoding": {
                "y": y,
                "x": x,
                "color": colour,
                "shape": {**verdict, "scale": {"domain": names, "range": shapes}},
                "tooltip": tooltip,
            },
        },
        {
            "transform": [{"filter": "!datum.outside"}],
            "mark": {"type": "text", "dy": -14, "fontSize": 11},
            "encoding": {"y": y, "x": x, "text": {"field": "text"}},
        },
        {
            "transform": [{"filter": "datum.outside"}],
            "mark": {"type": "text", "dx": 10, "align": "left", "fontSize": 11},
            "encoding": {"y": y, "x": x, "text": {"field": "text"}},
        },
    ]
    height = ROW_HEIGHT * len(points)
    return ink.themed(
        {"width": inner, "height": height, "data": ink.values(rows), "layer": layers},
        words.say("Difference of each method to the control"),
    )


def difference_figure(facts: StudyFacts, rows: Sequence[MethodRow], words: Words) -> ink.Figure | None:
    """Differences to the control; None where no difference has an interval."""
    points = difference_data(rows)
    if not points:
        return None
    title = words.say("Difference to {control}", {"control": facts.study.control})
    caption = words.say(
        "Line: the interval that the verdict was taken from, over seeds and test texts together (as in the table of "
        "verdicts). Band: the study's margin of ±{margin}, inside which a difference does not matter.",
        {"margin": words.number(facts.study.margin)},
    )
    kept = [row for row in rows if row.difference_interval is not None]
    table = [
        [row.method, difference_text(words, row), verdict_name(words, row), quality_text(words, row)] for row in kept
    ]
    columns = [
        words.say("method"),
        words.say("difference to the control"),
        words.say("verdict"),
        metric_name(words, facts.metric),
    ]
    data: list[JsonObject] = [dict(vars(point)) for point in points]
    wide, narrow = (difference_chart(points, facts.study.margin, words, width) for width in (WIDE, NARROW))
    return ink.Figure("difference", title, caption, wide, narrow, plain(title, columns, table, (2,)), data)
