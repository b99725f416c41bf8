"""Quality by the amount of training data, over studies that differ in it: a figure, a table, and which way wins where.

Not here: the comparison inside one study (`sheets.py`). Amounts are the training texts that the studies recorded.

    amount_sheet([facts_50, facts_800], Words("en"))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.core.config import JsonObject
from paretune.core.errors import RecordError, said
from paretune.report import axes, ink
from paretune.report.budgets import LEAST_SHARE, shares_text
from paretune.report.facts import PARETO_DRAWS, StudyFacts, bounds
from paretune.report.front import SURE
from paretune.report.sheets import Cell, Sheet
from paretune.report.tables import metric_name
from paretune.report.wording import Words
from paretune.stats.budget import p_best
from paretune.stats.metrics import metric_named

WIDE, NARROW = 700, 340
APART = 0.035  # how far intervals of one amount stand from each other, as a share of the axis
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")


@dataclass(frozen=True)
class AmountPoint:
    """Quality of a method with so many training texts: mean and interval (None with one seed)."""

    texts: int
    method: str
    quality: float
    low: float | None
    high: float | None


def by_amount(studies: Sequence[StudyFacts]) -> list[StudyFacts]:
    """Studies with a scored run, the smallest amount first.

    Raises:
        RecordError: two of one amount, or of different metrics: they do not belong into one figure.
    """
    found = sorted((one for one in studies if one.scored), key=_texts)
    metrics = sorted({one.metric for one in found})
    if len(metrics) > 1:
        raise RecordError(said(f"studies of {' and '.join(metrics)} in one figure", "one metric"))
    if len({_texts(one) for one in found}) < len(found):
        names = ", ".join(f"{one.study.name} ({_texts(one)})" for one in found)
        raise RecordError(said(f"two studies with as many training texts: {names}", "a different number in each"))
    return found


def _texts(facts: StudyFacts) -> int:
    return facts.study.split_rows["train"]


def amount_data(studies: Sequence[StudyFacts]) -> list[AmountPoint]:
    """One point for each study and scored method."""
    points: list[AmountPoint] = []
    for facts in by_amount(studies):
        for method in facts.scored:
            quality = facts.quality[method.label]
            low, high = bounds(quality) or (None, None)
            points.append(AmountPoint(_texts(facts), method.label, quality.estimate, low, high))
    return points


def _methods(points: Sequence[AmountPoint]) -> list[str]:
    return list(dict.fromkeys(point.method for point in points))


def best_shares(facts: StudyFacts) -> list[tuple[str, float]]:
    """Share of resampled seeds and test examples in which each method has the best quality, the likeliest first."""
    free = {label: dict.fromkeys(values, 0.0) for label, values in facts.example_values.items()}
    found = p_best(facts.example_values, free, (math.inf,), PARETO_DRAWS, rng=np.random.default_rng(0))
    return sorted(((name, share) for name, share in found.items() if share >= LEAST_SHARE), key=lambda one: -one[1])


def amount_sheet(studies: Sequence[StudyFacts], words: Words) -> Sheet | None:
    """Methods by amounts, and below them which way wins with each amount; None where nothing was scored."""
    points, ordered = amount_data(studies), by_amount(studies)
    if not points:
        return None
    found = {(point.method, point.texts): point for point in points}
    lines: list[tuple[Cell, ...]] = []
    for method in _methods(points):
        cells = [_quality(found.get((method, _texts(facts))), words) for facts in ordered]
        lines.append((Cell(method, kind="name"), *cells))
    winners: list[Cell] = []
    for facts in ordered:
        ranked = best_shares(facts)
        sure = ranked[0][1] >= SURE and len(facts.scored) > 1
        winners.append(Cell(ranked[0][0] if sure else words.say("undecided"), shares_text(ranked, words)))
    lines.append((Cell(words.say("which way wins"), kind="name"), *winners))
    columns = [words.plural("{n} training text", "{n} training texts", _texts(facts)) for facts in ordered]
    note = words.say(
        "Mean of {metric} over seeds, in small print the 95 % interval over seeds and test texts. A way wins where it "
        "has the best quality in at least 95 % of {draws} resampled sets of seeds and test examples; their shares "
        "stand below.",
        {"metric": metric_name(words, ordered[0].metric), "draws": words.count(PARETO_DRAWS)},
    )
    return Sheet(_title(words), (words.say("method"), *columns), tuple(lines), (note,))


def _title(words: Words) -> str:
    return words.say("Quality by the number of training texts")


def _quality(point: AmountPoint | None, words: Words) -> Cell:
    if point is None:
        return Cell(words.say("not measured"))
    interval = words.spread(point.low, point.high) if point.low is not None and point.high is not None else ""
    return Cell(words.number(point.quality), interval)


def amount_chart(points: Sequence[AmountPoint], metric: str, words: Words, width: int) -> JsonObject:
    """A line a method over a logarithmic axis of amounts; intervals of one amount stand side by side."""
    names, amounts = _methods(points), sorted({point.texts for point in points})
    reach = max(amounts) / min(amounts) if len(amounts) > 1 else 4.0
    x_low, x_high = min(amounts) / reach**0.08, max(amounts) * reach**0.08
    least, most = min(point.quality for point in points), max(point.quality for point in points)
    lows = [max(point.low, least - (most - least)) for point in points if point.low is not None]
    highs = [point.high for point in points if point.high is not None]
    y_low, y_high = axes.padded(min([least, *lows]), max([most, *highs]))
    y_low, y_high = axes.within(y_low, y_high, metric_named(metric).bounds)
    name = metric_name(words, metric)
    rows: list[JsonObject] = []
    for point in points:
        place = names.index(point.method) - (len(names) - 1) / 2
        whole = point.low is not None and point.high is not None
        rows.append(
            {
                "method": point.method,
                "x": point.texts * reach ** (APART * place / max(1, len(names) - 1) * 2),
                "y": point.quality,
                "low": max(point.low, y_low) if point.low is not None else None,
                "high": min(point.high, y_high) if point.high is not None else None,
                "texts": words.count(point.texts),
                "quality": words.number(point.quality),
                "interval": words.spread(point.low or 0.0, point.high or 0.0) if whole else words.say("no interval"),
            }
        )
    colours = [ink.SERIES[index % len(ink.SERIES)] for index in range(len(names))]
    dashes = [ink.DASHES[index % len(ink.DASHES)] for index in range(len(names))]
    shapes = [SHAPES[index % len(SHAPES)] for index in range(len(names))]
    title = words.say("training texts")
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [x_low, x_high], "nice": False},
        "title": title,
        "axis": {"values": amounts, "labelExpr": axes.tick_labels([float(one) for one in amounts], _whole(words))},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "scale": {"domain": [y_low, y_high], "nice": False, "zero": False},
        "title": name,
        "axis": {"tickCount": 6},
    }
    method = {"field": "method", "type": "nominal", "title": None}
    colour = {**method, "scale": {"domain": names, "range": colours}}
    tooltip = [
        {"field": "method", "title": words.say("method")},
        {"field": "texts", "title": title},
        {"field": "quality", "title": name},
        {"field": "interval", "title": words.say("95 % interval")},
    ]
    layers: list[JsonObject] = [
        {
            "mark": {"type": "line", "strokeWidth": 1.6},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "strokeDash": {**method, "scale": {"domain": names, "range": dashes}},
            },
        },
        {
            "transform": [{"filter": "datum.low !== null && datum.high !== null"}],
            "mark": {"type": "rule", "strokeWidth": 1.6},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour,
                "shape": {**method, "scale": {"domain": names, "range": shapes}},
                "tooltip": tooltip,
            },
        },
    ]
    size = {"width": width - 75, "height": 320}
    return ink.themed({**size, "data": ink.values(rows), "layer": layers}, _title(words))


def _whole(words: Words) -> Callable[[float], str]:
    return lambda value: words.count(round(value))


def amount_figure(studies: Sequence[StudyFacts], words: Words) -> ink.Figure | None:
    """The figure; None where fewer than two amounts were scored."""
    points, sheet = amount_data(studies), amount_sheet(studies, words)
    if sheet is None or len({point.texts for point in points}) < 2:
        return None
    metric = by_amount(studies)[0].metric
    caption = words.say(
        "Point: mean over seeds; upright line: 95 % interval over seeds and test texts. The points of one amount are "
        "set side by side, so that their intervals can be told apart; the axis is logarithmic."
    )
    data: list[JsonObject] = [dict(vars(point)) for point in points]
    wide, narrow = (amount_chart(points, metric, words, width) for width in (WIDE, NARROW))
    return ink.Figure("amount", _title(words), caption, wide, narrow, sheet, data, full_width=True)
