"""Confusion matrices: which classes are taken for which, summed over seeds.

Not here: scores. Beyond a dozen classes the rarest ones are put together.

    figures = confusion_figures(facts, Words("en"))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.config import JsonObject
from paretune.report import ink
from paretune.report.facts import MethodFacts, StudyFacts
from paretune.report.sheets import plain
from paretune.report.wording import Words

MOST_CLASSES = 12


@dataclass(frozen=True)
class ConfusionCell:
    """Number of test predictions of a pair of classes over all seeds, and its share of the true class."""

    label: str
    prediction: str
    count: int
    share: float


def confusion_data(method: MethodFacts, other: str) -> list[ConfusionCell]:
    """All cells of a method, frequent classes first; rare ones become `other`."""
    pairs: Counter[tuple[str, str]] = Counter()
    for run in method.runs.values():
        test = run.splits["test"]
        pairs.update(zip(test.labels, test.predictions, strict=True))
    frequency: Counter[str] = Counter()
    for (label, prediction), number in pairs.items():
        frequency[label] += number
        frequency[prediction] += 0
    order = sorted(frequency, key=lambda label: (-frequency[label], label))
    if len(order) > MOST_CLASSES:
        order = [*order[: MOST_CLASSES - 1], other]
    merged: Counter[tuple[str, str]] = Counter()
    for (label, prediction), number in pairs.items():
        merged[label if label in order else other, prediction if prediction in order else other] += number
    cells: list[ConfusionCell] = []
    for label in order:
        total = sum(merged[label, prediction] for prediction in order)
        for prediction in order:
            number = merged[label, prediction]
            cells.append(ConfusionCell(label, prediction, number, number / total if total else 0.0))
    return cells


def confusion_chart(cells: Sequence[ConfusionCell], words: Words, width: int) -> JsonObject:
    """A heat map with counts; ink grows with the share of the true class."""
    order = list(dict.fromkeys(cell.label for cell in cells))
    extent = min(120 if width > 400 else 84, 16 + max(len(name) for name in order) * 7)
    size = min(44.0, (width - extent - 40) / len(order))
    rows: list[JsonObject] = [
        {
            "label": cell.label,
            "prediction": cell.prediction,
            "share": cell.share,
            "text": words.count(cell.count) if cell.count else "",
            "count": words.count(cell.count),
            "percent": words.percent(cell.share, 1),
        }
        for cell in cells
    ]
    axis = {"labelLimit": extent - 6, "ticks": False, "domain": False, "grid": False}
    x = {
        "field": "prediction",
        "type": "nominal",
        "sort": order,
        "title": words.say("predicted"),
        "axis": {**axis, "labelAngle": -45},
    }
    y = {"field": "label", "type": "nominal", "sort": order, "title": words.say("true class"), "axis": axis}
    tooltip = [
        {"field": "label", "title": words.say("true class")},
        {"field": "prediction", "title": words.say("predicted")},
        {"field": "count", "title": words.say("predictions")},
        {"field": "percent", "title": words.say("share of the true class")},
    ]
    heat: JsonObject = {
        "mark": {
            "type": "rect",
            "color": ink.FRONT,
            "stroke": ink.DOMINATED,
            "strokeOpacity": 0.35,
            "strokeWidth": 0.5,
        },
        "encoding": {
            "x": x,
            "y": y,
            "fillOpacity": {
                "field": "share",
                "type": "quantitative",
                "scale": {"domain": [0, 1], "range": [0.0, 0.6]},
                "legend": None,
            },
            "tooltip": tooltip,
        },
    }
    numbers: JsonObject = {
        "mark": {"type": "text", "fontSize": 11 if size >= 30 else 9},
        "encoding": {"x": x, "y": y, "text": {"field": "text"}},
    }
    side = round(size * len(order))
    return ink.themed(
        {"width": side, "height": side, "data": ink.values(rows), "layer": [heat, numbers]},
        words.say("Confusion matrix"),
    )


def confusion_figures(facts: StudyFacts, words: Words) -> list[ink.Figure]:
    """Matrices of the control and of the method with the highest mean; one where they are the same."""
    if not facts.scored:
        return []
    best = max(facts.scored, key=lambda method: facts.quality[method.label].estimate)
    shown = {method.label: method for method in facts.scored if method.label in (facts.study.control, best.label)}
    figures: list[ink.Figure] = []
    for method in shown.values():
        role = words.say("control") if method.label == facts.study.control else words.say("highest mean")
        title = words.say("Confusion matrix: {method} ({role})", {"method": method.label, "role": role})
        cells = confusion_data(method, words.say("other classes"))
        order = list(dict.fromkeys(cell.label for cell in cells))
        counts = {(cell.label, cell.prediction): words.count(cell.count) for cell in cells}
        table = [[label, *(counts[label, prediction] for prediction in order)] for label in order]
        number = len(method.runs)
        caption = words.plural(
            "Predictions of {n} seed, counted together.", "Predictions of {n} seeds, counted together.", number
        )
        wide, narrow = (confusion_chart(cells, words, width) for width in (480, 340))
        data: list[JsonObject] = [dict(vars(cell)) for cell in cells]
        sheet = plain(title, [words.say("true class"), *order], table)
        figures.append(ink.Figure(f"confusion-{len(figures)}", title, caption, wide, narrow, sheet, data))
    return figures
