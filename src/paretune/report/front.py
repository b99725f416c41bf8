"""Pareto plots: quality against one cost, with the probability of each method to stand on the front.

Not here: the other figures, and which costs may be compared (`costs.py`): a method without such a cost stays out.

    figures = front_figures(facts, Words("en"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paretune.core.config import JsonObject
from paretune.report import axes, ink
from paretune.report.costs import Costs, Resource
from paretune.report.facts import MethodFacts, StudyFacts, bounds
from paretune.report.labels import Spot, placed
from paretune.report.sheets import plain
from paretune.report.tables import metric_name
from paretune.report.wording import Words
from paretune.stats.metrics import metric_named

SURE = 0.95


@dataclass(frozen=True)
class FrontPoint:
    """One method in a Pareto plot; `standing` is "front", "dominated" or "undecided" by P(non-dominated)."""

    method: str
    cost: float
    quality: float
    low: float | None
    high: float | None
    p_front: float | None
    standing: str


@dataclass(frozen=True)
class CostAxis:
    """A cost that can be plotted: how to read it from a method's runs, seed by seed, and how to write it."""

    name: str
    title: str
    by_seed: Callable[[Costs, MethodFacts], dict[int, float] | None]
    form: Callable[[float], str]


def cost_axes(words: Words) -> list[CostAxis]:
    """Peak memory, training time, trainable parameters, and energy where it was measured."""

    def parameters(costs: Costs, method: MethodFacts) -> dict[int, float]:
        return {seed: float(run.measurements.trainable_parameters) for seed, run in method.runs.items()}

    def comparable(resource: Resource) -> Callable[[Costs, MethodFacts], dict[int, float] | None]:
        return lambda costs, method: costs.by_seed(method, resource)

    return [
        CostAxis("memory", words.say("peak memory"), comparable("memory"), words.size),
        CostAxis("seconds", words.say("training time"), comparable("seconds"), words.duration),
        CostAxis("parameters", words.say("trainable parameters"), parameters, words.compact),
        CostAxis("energy", words.say("energy"), comparable("energy"), words.energy),
    ]


def front_data(facts: StudyFacts, axis: CostAxis) -> list[FrontPoint]:
    """One point for each scored method of whose cost some run may be compared."""
    judged = Costs(facts)
    found = {method.label: axis.by_seed(judged, method) for method in facts.scored}
    costs = {label: by_seed for label, by_seed in found.items() if by_seed is not None}
    chances = facts.on_the_front(costs)
    points: list[FrontPoint] = []
    for label, by_seed in costs.items():
        quality, chance = facts.quality[label], chances.get(label)
        ends = bounds(quality)
        low, high = ends or (None, None)
        standing = "undecided"
        if chance is not None and chance >= SURE:
            standing = "front"
        elif chance is not None and chance <= 1 - SURE:
            standing = "dominated"
        points.append(
            FrontPoint(label, sum(by_seed.values()) / len(by_seed), quality.estimate, low, high, chance, standing)
        )
    return points


def standing_names(words: Words) -> dict[str, str]:
    """The three standings, in the order of the legend."""
    return {
        "front": words.say("on the front"),
        "undecided": words.say("undecided"),
        "dominated": words.say("dominated"),
    }


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is drawn, in data units, and its size in pixels; `log` says how costs are laid out."""

    width: int
    height: int
    log: bool
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def inside(self, point: FrontPoint) -> tuple[float, float]:
        """Where a point is drawn: far-off ones lie at the edge."""
        return max(point.cost, self.x_low) if self.log else point.cost, max(point.quality, self.y_low)

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """Distance from the left and from the top."""
        across = axes.position(x, self.x_low, self.x_high, self.log) * self.width
        return across, (1 - axes.position(y, self.y_low, self.y_high, False)) * self.height


def _frame(points: Sequence[FrontPoint], metric: str, width: int) -> Frame:
    """Costs on a log axis where they differ by much; qualities around the core of the points, with their whiskers."""
    costs = [point.cost for point in points]
    positive = [cost for cost in costs if cost > 0]
    log = bool(positive) and max(positive) / min(positive) > axes.LOG_RATIO
    if log:
        x_low, x_high = min(positive) / 1.6, max(positive) * 1.6
        if min(costs) <= 0:
            x_low /= 3
    else:
        x_low, x_high = axes.padded(min(costs), max(costs), 0.12)
        x_low = max(x_low, 0.0) if min(costs) >= 0 else x_low
    core_low, core_high = axes.core([point.quality for point in points])
    inside, reach = [point for point in points if point.quality >= core_low], core_high - core_low
    lows = [max(point.low, core_low - reach) for point in inside if point.low is not None]
    highs = [min(point.high, core_high + reach) for point in inside if point.high is not None]
    y_low, y_high = axes.padded(min([core_low, *lows]), max([core_high, *highs]))
    return Frame(width - 92, 300, log, x_low, x_high, *axes.within(y_low, y_high, metric_named(metric).bounds))


def _rows_and_spots(
    points: Sequence[FrontPoint], axis: CostAxis, name: str, words: Words, frame: Frame
) -> tuple[list[JsonObject], list[Spot]]:
    """For each point, what the plot and its tooltip show, and where its label belongs."""
    names, rows, spots = standing_names(words), list[JsonObject](), list[Spot]()
    for point in points:
        x, y = frame.inside(point)
        chance = words.percent(point.p_front) if point.p_front is not None else words.say("not measured")
        arrow = "↓ " if point.quality < frame.y_low else ""
        text = f"{point.method} {arrow}" + (words.number(point.quality, 2) if arrow else f"({chance})")
        rows.append(
            {
                "x": x,
                "y": y,
                "low": None if arrow or point.low is None else max(point.low, frame.y_low),
                "high": None if arrow or point.high is None else min(point.high, frame.y_high),
                words.say("method"): point.method,
                words.say("standing"): names[point.standing],
                axis.title: axis.form(point.cost),
                name: words.number(point.quality),
                words.say("95 % interval"): words.spread(point.low, point.high)
                if point.low is not None and point.high is not None
                else "—",
                words.say("P(on the front)"): chance,
            }
        )
        spots.append(Spot(*frame.pixels(x, y), text))
    return rows, spots


def front_chart(points: Sequence[FrontPoint], axis: CostAxis, metric: str, words: Words, width: int) -> JsonObject:
    """The plot as one Vega-Lite spec of `width` pixels over all; far-off points lie at an edge with an arrow."""
    frame, name = _frame(points, metric, width), metric_name(words, metric)
    x_low, x_high, log = frame.x_low, frame.x_high, frame.log
    names = standing_names(words)
    rows, spots = _rows_and_spots(points, axis, name, words, frame)
    ticks = axes.log_ticks(x_low, x_high, width // 85) if log else axes.nice_ticks(x_low, x_high, width // 110)
    x_scale: JsonObject = {"type": "log" if log else "linear", "domain": [x_low, x_high], "nice": False}
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": x_scale,
        "title": axis.title,
        "axis": {"values": ticks, "labelExpr": axes.tick_labels(ticks, axis.form), "labelOverlap": True},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "scale": {"domain": [frame.y_low, frame.y_high], "nice": False, "zero": False},
        "title": name,
        "axis": {"tickCount": 5, "minExtent": 40, "maxExtent": 40},
    }
    shown = [text for key, text in names.items() if any(point.standing == key for point in points)]
    colour = {"front": ink.FRONT, "undecided": ink.UNDECIDED, "dominated": ink.DOMINATED}
    shape = {"front": "circle", "undecided": "diamond", "dominated": "cross"}
    keys = [key for key, text in names.items() if text in shown]
    standing = {"field": words.say("standing"), "type": "nominal", "title": None}
    hidden = ("x", "y", "low", "high")
    tooltip = [{"field": one, "type": "nominal"} for one in rows[0] if one not in hidden] if rows else []
    mark_encoding: JsonObject = {
        "x": x,
        "y": y,
        "color": {**standing, "scale": {"domain": shown, "range": [colour[key] for key in keys]}},
        "shape": {**standing, "scale": {"domain": shown, "range": [shape[key] for key in keys]}},
        "tooltip": tooltip,
    }
    texts: list[JsonObject] = [
        {
            "data": ink.values([{"x": row["x"], "y": row["y"], "text": spot.text}]),
            "mark": {"type": "text", "dx": place.dx, "dy": place.dy, "align": place.align, "baseline": "middle"},
            "encoding": {"x": x, "y": y, "text": {"field": "text"}},
        }
        for row, spot, place in zip(rows, spots, placed(spots, frame.width, frame.height), strict=True)
    ]
    whiskers: JsonObject = {
        "transform": [{"filter": "datum.low !== null"}],
        "mark": {"type": "rule", "strokeWidth": 1, "opacity": 0.55},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    marks: JsonObject = {
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
        "encoding": mark_encoding,
    }
    return ink.themed(
        {"width": frame.width, "height": frame.height, "data": ink.values(rows), "layer": [whiskers, marks, *texts]},
        words.say("Pareto plot: {metric} against {cost}", {"metric": name, "cost": axis.title}),
    )


def front_note(words: Words) -> str:
    """How to read the plots."""
    return words.say(
        "In brackets: the probability that no other method is at least as good in both and better in one, by "
        "resampling seeds and examples. From 95 % on the front, up to 5 % dominated, between them undecided. "
        "Upright lines: 95 % intervals over seeds and test texts. An arrow marks a point below the frame."
    )


def front_figures(facts: StudyFacts, words: Words) -> list[ink.Figure]:
    """All plots for which at least two methods have a cost."""
    metric, figures = metric_name(words, facts.metric), list[ink.Figure]()
    for axis in cost_axes(words):
        points = front_data(facts, axis)
        if len(points) < 2:
            continue
        title = words.say("{metric} against {cost}", {"metric": metric[:1].upper() + metric[1:], "cost": axis.title})
        names = standing_names(words)
        rows = [
            [
                point.method,
                axis.form(point.cost),
                words.number(point.quality),
                words.percent(point.p_front, 1) if point.p_front is not None else "—",
                names[point.standing],
            ]
            for point in points
        ]
        columns = [words.say("method"), axis.title, metric, words.say("P(on the front)"), words.say("standing")]
        data: list[JsonObject] = [dict(vars(point)) for point in points]
        wide, narrow = (front_chart(points, axis, facts.metric, words, width) for width in (480, 340))
        figures.append(
            ink.Figure(f"front-{axis.name}", title, "", wide, narrow, plain(title, columns, rows, (4,)), data)
        )
    return figures
