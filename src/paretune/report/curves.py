"""Learning curves: the training loss of each method against the step, and its validation score after each epoch.

Not here: scores on test data. A curve of the loss is the mean over a method's seeds, smoothed over a fortieth of the
steps; one of validation scores is the mean over the seeds that came so far.

    figure = curve_figure(facts, Words("en"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.config import JsonObject
from paretune.report import axes, ink
from paretune.report.facts import MethodFacts, StudyFacts
from paretune.report.labels import spread_out
from paretune.report.sheets import plain
from paretune.report.tables import metric_name
from paretune.report.wording import Words

CURVE_POINTS = 120
WIDE, NARROW = 980, 340


@dataclass(frozen=True)
class CurvePoint:
    """Training loss of a method at a step, mean over seeds and lightly smoothed."""

    method: str
    step: int
    loss: float


def curve_data(facts: StudyFacts) -> list[CurvePoint]:
    """Curves of all methods that were trained step by step; steps that only some seeds reached are left out."""
    points: list[CurvePoint] = []
    for method in facts.scored:
        points += _curve(method)
    return points


def _curve(method: MethodFacts) -> list[CurvePoint]:
    curves = [dict(run.losses) for run in method.runs.values() if run.losses]
    if not curves:
        return []
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    mean = np.asarray([np.mean([curve[step] for curve in curves]) for step in steps])
    half = len(steps) // 40
    smooth = [float(mean[max(0, at - half) : at + half + 1].mean()) for at in range(len(steps))]
    stride = max(1, len(steps) // CURVE_POINTS)
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1}) if steps else []
    return [CurvePoint(method.label, steps[at], round(smooth[at], 5)) for at in kept]


@dataclass(frozen=True)
class EpochPoint:
    """The headline metric of a method on validation data after an epoch, mean over `seeds` seeds."""

    method: str
    epoch: int
    score: float
    seeds: int


def epoch_data(facts: StudyFacts) -> list[EpochPoint]:
    """Validation scores after each epoch, for methods whose runs recorded any."""
    found: list[EpochPoint] = []
    for method in facts.scored:
        by_epoch: dict[int, list[float]] = {}
        for run in method.runs.values():
            for one in run.validation:
                if facts.metric in one.scores:
                    by_epoch.setdefault(one.epoch, []).append(one.scores[facts.metric])
        found += [
            EpochPoint(method.label, epoch, float(np.mean(values)), len(values))
            for epoch, values in sorted(by_epoch.items())
        ]
    return found


def epoch_chart(points: Sequence[EpochPoint], metric: str, words: Words, width: int) -> JsonObject:
    """Validation score against the epoch, a line with points for each method."""
    names = list(dict.fromkeys(point.method for point in points))
    low, high = axes.padded(min(point.score for point in points), max(point.score for point in points))
    last = max(point.epoch for point in points)
    legend = {"orient": "bottom", "columns": 3 if width < 500 else 8, "title": None, "symbolType": "stroke"}
    method = {"field": "method", "type": "nominal"}
    colours = [ink.SERIES[index % len(ink.SERIES)] for index in range(len(names))]
    dashes = [ink.DASHES[index % len(ink.DASHES)] for index in range(len(names))]
    x = {
        "field": "epoch",
        "type": "quantitative",
        "title": words.say("epoch"),
        "scale": {"domain": [min(1, points[0].epoch), max(last, 2)], "nice": False},
        "axis": {"values": list(range(0, last + 1, max(1, last // 10))), "format": "d"},
    }
    y = {
        "field": "score",
        "type": "quantitative",
        "title": metric,
        "scale": {"domain": [low, high], "nice": False, "zero": False},
    }
    colour = {**method, "scale": {"domain": names, "range": colours}, "legend": legend}
    tooltip = [
        {"field": "method", "title": words.say("method")},
        {"field": "epoch", "title": words.say("epoch")},
        {"field": "score", "title": metric, "format": ".3f"},
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
            "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip},
        },
    ]
    rows: list[JsonObject] = [dict(vars(point)) for point in points]
    return ink.themed(
        {"width": width - 75, "height": 260, "data": ink.values(rows), "layer": layers}, _epoch_title(words)
    )


def _epoch_title(words: Words) -> str:
    return words.say("Validation score after each epoch")


def epoch_figure(facts: StudyFacts, words: Words) -> ink.Figure | None:
    """Validation curves; None where no run recorded scores after its epochs."""
    points = epoch_data(facts)
    if not points:
        return None
    metric = words.say("{metric} on validation data", {"metric": metric_name(words, facts.metric)})
    table = [[one.method, words.count(one.epoch), words.number(one.score), words.count(one.seeds)] for one in points]
    columns = [words.say("method"), words.say("epoch"), metric, words.say("seeds")]
    caption = words.say("Mean over the seeds of a method; each run is scored on validation data after each epoch.")
    data: list[JsonObject] = [dict(vars(point)) for point in points]
    wide, narrow = (epoch_chart(points, metric, words, width) for width in (WIDE, NARROW))
    title = _epoch_title(words)
    return ink.Figure("epochs", title, caption, wide, narrow, plain(title, columns, table), data, full_width=True)


def curve_chart(points: Sequence[CurvePoint], words: Words, width: int) -> JsonObject:
    """Loss against steps; each line has its own dash and its name at its end."""
    names = list(dict.fromkeys(point.method for point in points))
    longest = min(18, max(len(name) for name in names))
    inner_width, inner_height = width - 75 - round(longest * 6.8), 300
    high = max(point.loss for point in points) * 1.04
    last = {point.method: point for point in points}
    end = max(point.step for point in points)
    ends = [(1 - last[name].loss / high) * inner_height for name in names]
    heights = spread_out(ends, 15, 6, inner_height - 6)
    colours = [ink.SERIES[index % len(ink.SERIES)] for index in range(len(names))]
    dashes = [ink.DASHES[index % len(ink.DASHES)] for index in range(len(names))]
    rows: list[JsonObject] = [dict(vars(point)) for point in points]
    method = {"field": "method", "type": "nominal", "legend": None}
    lines: JsonObject = {
        "data": ink.values(rows),
        "mark": {"type": "line", "strokeWidth": 1.8, "interpolate": "linear"},
        "encoding": {
            "x": {
                "field": "step",
                "type": "quantitative",
                "title": words.say("step"),
                "scale": {"domain": [1, end], "nice": False},
            },
            "y": {
                "field": "loss",
                "type": "quantitative",
                "title": words.say("training loss"),
                "scale": {"domain": [0, high], "nice": False},
            },
            "color": {**method, "scale": {"domain": names, "range": colours}},
            "strokeDash": {**method, "scale": {"domain": names, "range": dashes}},
            "tooltip": [
                {"field": "method", "title": words.say("method")},
                {"field": "step", "title": words.say("step")},
                {"field": "loss", "title": words.say("training loss"), "format": ".3f"},
            ],
        },
    }
    texts: list[JsonObject] = []
    for name, at, moved, colour in zip(names, ends, heights, colours, strict=True):
        finish = axes.position(last[name].step, 1, end, False) * inner_width if end > 1 else inner_width
        place = {"x": {"value": inner_width + 20}, "y": {"value": moved}}
        texts.append(
            {
                "data": ink.values([{}]),
                "mark": {"type": "rule", "color": colour, "opacity": 0.6},
                "encoding": {
                    "x": {"value": finish + 2},
                    "x2": {"value": inner_width + 17},
                    "y": {"value": at},
                    "y2": {"value": moved},
                },
            }
        )
        texts.append(
            {
                "data": ink.values([{"text": name}]),
                "mark": {"type": "text", "align": "left", "limit": longest * 7 + 8},
                "encoding": {**place, "text": {"field": "text"}},
            }
        )
    return ink.themed(
        {"width": inner_width, "height": inner_height, "layer": [lines, *texts]},
        words.say("Training loss of each method against the step"),
    )


def curve_figure(facts: StudyFacts, words: Words) -> ink.Figure | None:
    """Learning curves; None where no method was trained step by step."""
    points = curve_data(facts)
    if not points:
        return None
    title = words.say("Learning curves")
    by_method: dict[str, list[CurvePoint]] = {}
    for point in points:
        by_method.setdefault(point.method, []).append(point)
    table = [
        [
            name,
            words.count(found[-1].step),
            words.number(found[0].loss),
            words.number(found[len(found) // 2].loss),
            words.number(found[-1].loss),
        ]
        for name, found in by_method.items()
    ]
    columns = [
        words.say("method"),
        words.say("steps"),
        words.say("loss at the start"),
        words.say("loss half-way"),
        words.say("loss at the end"),
    ]
    caption = words.say("Mean loss over the seeds of a method, lightly smoothed.")
    data: list[JsonObject] = [dict(vars(point)) for point in points]
    wide, narrow = (curve_chart(points, words, width) for width in (WIDE, NARROW))
    return ink.Figure("curves", title, caption, wide, narrow, plain(title, columns, table), data, full_width=True)
