"""The figure of inference latency: median and 95th percentile of one call, for each batch size.

Not here: the probe (`measure/`).

    figure = latency_figure(summary(Path("results/demo")), Words("en"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.config import JsonObject
from paretune.report import axes, ink
from paretune.report.sheets import plain
from paretune.report.tables import MethodRow
from paretune.report.wording import Words


@dataclass(frozen=True)
class LatencyPoint:
    """Seconds of one call of a method on a batch."""

    method: str
    batch: int
    p50_seconds: float
    p95_seconds: float


def latency_data(rows: Sequence[MethodRow]) -> list[LatencyPoint]:
    """All probes, in the order of the methods."""
    return [
        LatencyPoint(row.method, one.batch, one.p50_seconds, one.p95_seconds) for row in rows for one in row.latency
    ]


def latency_chart(points: Sequence[LatencyPoint], words: Words, width: int) -> JsonObject:
    """Medians with a line to the 95th percentile; each batch size has its own shape."""
    extent = 130 if width > 400 else 96
    inner = width - extent - 30
    order = list(dict.fromkeys(point.method for point in points))
    batches = sorted({point.batch for point in points})
    names = {batch: words.plural("{n} text", "{n} texts", batch) for batch in batches}
    seconds = [max(value, 1e-6) for point in points for value in (point.p50_seconds, point.p95_seconds)]
    low, high = min(seconds) / 1.5, max(seconds) * 1.5
    rows: list[JsonObject] = [
        {
            "method": point.method,
            "batch": names[point.batch],
            "p50": max(point.p50_seconds, 1e-6),
            "p95": max(point.p95_seconds, 1e-6),
            "median": words.duration(point.p50_seconds),
            "worst": words.duration(point.p95_seconds),
        }
        for point in points
    ]
    ticks = axes.log_ticks(low, high, inner // 60)
    y = {
        "field": "method",
        "type": "nominal",
        "sort": order,
        "title": None,
        "axis": {"labelLimit": extent - 8, "minExtent": extent, "maxExtent": extent, "ticks": False, "domain": False},
    }
    x = {
        "field": "p50",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "title": words.say("time of one call"),
        "axis": {"values": ticks, "labelExpr": axes.tick_labels(ticks, words.duration), "labelOverlap": True},
    }
    batch = {"field": "batch", "type": "nominal", "title": None}
    shown = [names[one] for one in batches]
    colours = [ink.SERIES[index % len(ink.SERIES)] for index in range(len(shown))]
    shapes = [("circle", "square", "diamond", "triangle-up")[index % 4] for index in range(len(shown))]
    colour = {**batch, "scale": {"domain": shown, "range": colours}}
    tooltip = [
        {"field": "method", "title": words.say("method")},
        {"field": "batch", "title": words.say("batch")},
        {"field": "median", "title": words.say("median")},
        {"field": "worst", "title": words.say("95th percentile")},
    ]
    layers: list[JsonObject] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"y": y, "x": x, "x2": {"field": "p95"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {
                "y": y,
                "x": x,
                "color": colour,
                "shape": {**batch, "scale": {"domain": shown, "range": shapes}},
                "tooltip": tooltip,
            },
        },
    ]
    return ink.themed(
        {"width": inner, "height": 30 * len(order), "data": ink.values(rows), "layer": layers}, words.say("Latency")
    )


def latency_figure(rows: Sequence[MethodRow], words: Words) -> ink.Figure | None:
    """The figure; None where no method was probed."""
    points = latency_data(rows)
    if not points:
        return None
    title = words.say("Latency")
    table = [
        [point.method, words.count(point.batch), words.duration(point.p50_seconds), words.duration(point.p95_seconds)]
        for point in points
    ]
    columns = [words.say("method"), words.say("batch"), words.say("median"), words.say("95th percentile")]
    caption = words.say("Point: median of one call, tokenizing included; the line goes to the 95th percentile.")
    data: list[JsonObject] = [dict(vars(point)) for point in points]
    wide, narrow = (latency_chart(points, words, width) for width in (480, 340))
    return ink.Figure("latency", title, caption, wide, narrow, plain(title, columns, table), data)
