"""Figures of the data itself, from an `Exploration` record; used by the report and by the EDA page.

Not here: computing any of it (`data/explore.py`), tables (`exploration_sheets.py`).

    figures = exploration_figures(exploration, Words("ru"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.config import JsonObject
from paretune.records.exploration import ClassCount, Exploration, LengthSummary
from paretune.report import ink
from paretune.report.sheets import plain, split_name
from paretune.report.wording import Words

MOST_CLASSES = 24
SHADES = (ink.FRONT, ink.UNDECIDED, ink.DOMINATED, ink.BETTER)


@dataclass(frozen=True)
class ClassBar:
    """Share of a class among the rows of a split."""

    label: str
    split: str
    rows: int
    share: float


@dataclass(frozen=True)
class LengthBin:
    """Texts of a split whose length lies between two edges."""

    split: str
    low: float
    high: float
    rows: int


def class_data(classes: Sequence[ClassCount]) -> list[ClassBar]:
    """Bars of the most frequent classes, in the order of their rows over all splits."""
    splits = list(dict.fromkeys(split for one in classes for split in one.rows))
    totals = {split: sum(one.rows.get(split, 0) for one in classes) for split in splits}
    ordered = sorted(classes, key=lambda one: (-sum(one.rows.values()), one.label))[:MOST_CLASSES]
    return [
        ClassBar(
            one.label, split, one.rows.get(split, 0), one.rows.get(split, 0) / totals[split] if totals[split] else 0.0
        )
        for one in ordered
        for split in splits
    ]


def class_chart(bars: Sequence[ClassBar], words: Words, width: int) -> JsonObject:
    """Bars of each class, one for each split."""
    labels = list(dict.fromkeys(bar.label for bar in bars))
    splits = [split_name(words, split) for split in dict.fromkeys(bar.split for bar in bars)]
    extent = 130 if width > 400 else 90
    rows: list[JsonObject] = [
        {
            "label": bar.label,
            "split": split_name(words, bar.split),
            "share": bar.share,
            "rows": words.count(bar.rows),
            "percent": words.percent(bar.share, 1),
        }
        for bar in bars
    ]
    split = {"field": "split", "type": "nominal", "sort": splits, "title": None}
    bar_layer: JsonObject = {
        "mark": {"type": "bar", "opacity": 0.85},
        "encoding": {
            "y": {
                "field": "label",
                "type": "nominal",
                "sort": labels,
                "title": None,
                "axis": {
                    "labelLimit": extent - 6,
                    "minExtent": extent,
                    "maxExtent": extent,
                    "ticks": False,
                    "domain": False,
                },
            },
            "yOffset": {"field": "split", "sort": splits},
            "x": {
                "field": "share",
                "type": "quantitative",
                "title": words.say("share of the split"),
                "axis": {"format": "%", "tickCount": 5},
            },
            "color": {**split, "scale": {"domain": splits, "range": list(SHADES[: len(splits)])}},
            "tooltip": [
                {"field": "label", "title": words.say("class")},
                {"field": "split", "title": words.say("split")},
                {"field": "rows", "title": words.say("rows")},
                {"field": "percent", "title": words.say("share of the split")},
            ],
        },
    }
    step = max(22, 7 * len(splits) + 8)
    return ink.themed(
        {"width": width - extent - 30, "height": step * len(labels), "data": ink.values(rows), **bar_layer},
        words.say("Classes"),
    )


def length_data(lengths: Sequence[LengthSummary], unit: str) -> list[LengthBin]:
    """Histogram bins of all splits for a unit ("tokens" or "characters")."""
    return [
        LengthBin(summary.split, summary.bin_edges[at], summary.bin_edges[at + 1], rows)
        for summary in lengths
        if summary.unit == unit
        for at, rows in enumerate(summary.bin_rows)
    ]


def length_chart(bins: Sequence[LengthBin], max_tokens: int | None, words: Words, title: str, width: int) -> JsonObject:
    """A histogram; for tokens a line stands where texts are cut."""
    rows: list[JsonObject] = [dict(vars(one)) for one in bins]
    inner = width - 80
    x: JsonObject = {
        "field": "low",
        "type": "quantitative",
        "title": title,
        "axis": {"tickCount": inner // 80},
        "scale": {"nice": False},
    }
    layers: list[JsonObject] = [
        {
            "data": ink.values(rows),
            "mark": {"type": "bar", "color": ink.FRONT, "opacity": 0.8, "binSpacing": 1},
            "encoding": {
                "x": {**x, "bin": "binned"},
                "x2": {"field": "high"},
                "y": {"field": "rows", "type": "quantitative", "title": words.say("texts")},
                "tooltip": [
                    {"field": "low", "title": words.say("from")},
                    {"field": "high", "title": words.say("to")},
                    {"field": "rows", "title": words.say("texts")},
                ],
            },
        }
    ]
    if max_tokens is not None and any(one.low <= max_tokens <= one.high for one in bins):
        text = words.say("cut here: {n}", {"n": words.count(max_tokens)})
        at = {**x, "field": "at"}
        cut = ink.values([{"at": max_tokens, "text": text}])
        right = max_tokens > 0.6 * max(one.high for one in bins)
        align, dx = ("right", -6) if right else ("left", 6)
        layers.append(
            {"data": cut, "mark": {"type": "rule", "strokeDash": [5, 3], "strokeWidth": 1.5}, "encoding": {"x": at}}
        )
        layers.append(
            {
                "data": cut,
                "mark": {"type": "text", "align": align, "dx": dx},
                "encoding": {"x": at, "y": {"value": 8}, "text": {"field": "text"}},
            }
        )
    return ink.themed({"width": inner, "height": 220, "layer": layers}, title)


def unit_name(words: Words, unit: str) -> str:
    """A unit of length for readers."""
    return {"tokens": words.say("length in tokens"), "characters": words.say("length in characters")}.get(unit, unit)


def exploration_figures(exploration: Exploration, words: Words) -> list[ink.Figure]:
    """Classes, and lengths in each unit for the training texts (the first split where there is none)."""
    figures: list[ink.Figure] = []
    bars = class_data(exploration.classes)
    if bars:
        title = words.say("Classes")
        splits = list(dict.fromkeys(bar.split for bar in bars))
        counts = [
            [one.label, *(words.count(one.rows.get(split, 0)) for split in splits)] for one in exploration.classes
        ]
        wide, narrow = (class_chart(bars, words, width) for width in (480, 340))
        hidden = len(exploration.classes) - MOST_CLASSES
        caption = words.say("Share of each class in each split.")
        if hidden > 0:
            caption += " " + words.plural(
                "{n} rarer class is in the table alone.", "{n} rarer classes are in the table alone.", hidden
            )
        data: list[JsonObject] = [dict(vars(bar)) for bar in bars]
        figures.append(
            ink.Figure(
                "classes",
                title,
                caption,
                wide,
                narrow,
                plain(title, [words.say("class"), *(split_name(words, split) for split in splits)], counts),
                data,
            )
        )
    splits = list(dict.fromkeys(summary.split for summary in exploration.lengths))
    shown = "train" if "train" in splits else next(iter(splits), "")
    for unit in dict.fromkeys(summary.unit for summary in exploration.lengths):
        bins = length_data([summary for summary in exploration.lengths if summary.split == shown], unit)
        if not bins:
            continue
        title = unit_name(words, unit)
        limit = exploration.max_tokens if unit == "tokens" else None
        caption = words.say(
            "Texts of the split “{split}”; the last column takes all longer ones.", {"split": split_name(words, shown)}
        )
        share = exploration.truncation_share.get(shown)
        if limit is not None and share is not None:
            caption += " " + words.say(
                "{share} of them are longer than the study reads.", {"share": words.percent(share, 1)}
            )
        rows = [[words.compact(one.low), words.compact(one.high), words.count(one.rows)] for one in bins]
        sheet = plain(title, [words.say("from"), words.say("to"), words.say("texts")], rows)
        wide, narrow = (length_chart(bins, limit, words, title, width) for width in (480, 340))
        data = [dict(vars(one)) for one in bins]
        name = "length-" + (
            "tokens" if unit == "tokens" else "characters" if unit == "characters" else f"unit{len(figures)}"
        )
        figures.append(ink.Figure(name, title[:1].upper() + title[1:], caption, wide, narrow, sheet, data))
    return figures
