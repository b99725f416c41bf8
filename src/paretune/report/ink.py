"""From a Vega-Lite spec to what a page holds: one look for all figures, drawn at build time and again in the browser.

Not here: any figure. Text and axes are drawn in `currentColor`, so that a drawing follows the page into the dark theme
and onto paper; marks use mid tones that stand on both, and never carry meaning by colour alone.

    drawn(themed(spec, "A title for those who cannot see it"), Words("ru"), "f1")
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert

from paretune.core.config import JsonObject
from paretune.report.sheets import Sheet
from paretune.report.wording import Words

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"  # an identifier; nothing is fetched
VEGA_LITE = "6.4"
FRONT, UNDECIDED, DOMINATED = "#2f7fc1", "#d9822b", "#8c8c8c"
BETTER, WORSE = "#2e9e62", "#c8503c"
SERIES = ("#2f7fc1", "#d9822b", "#2e9e62", "#b0508f", "#8a6d3b", "#7a6fc0", "#3aa3a8", "#c8503c")
DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 3], [1, 3], [6, 2, 1, 2])
TEXT = "currentColor"
NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
GLOBALS = "window.vegaEmbed = vegaEmbed;"


@dataclass(frozen=True)
class Figure:
    """A figure of a page: a spec for a wide and for a narrow screen, its data as a table and as plain rows."""

    name: str
    title: str
    caption: str
    wide: JsonObject
    narrow: JsonObject
    sheet: Sheet
    rows: list[JsonObject]
    full_width: bool = False


def themed(spec: JsonObject, description: str) -> JsonObject:
    """A whole spec with the look of the house and a description for screen readers."""
    quiet = {
        "labelColor": TEXT,
        "titleColor": TEXT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    axis = {
        "gridColor": DOMINATED,
        "gridOpacity": 0.22,
        "domainColor": DOMINATED,
        "tickColor": DOMINATED,
        "labelPadding": 5,
        "titlePadding": 8,
    }
    config = {
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {**quiet, **axis, "labelLimit": 150},
        "header": quiet,
        "legend": {
            **quiet,
            "symbolSize": 90,
            "orient": "bottom",
            "direction": "vertical",
            "labelLimit": 320,
            "offset": 8,
        },
        "text": {"color": TEXT, "fontSize": 12},
        "rule": {"color": TEXT},
    }
    return {
        "$schema": SCHEMA,
        "description": description,
        "background": "transparent",
        "padding": 4,
        "autosize": {"type": "pad"},
        "config": config,
        **spec,
    }


def values(rows: Sequence[JsonObject]) -> JsonObject:
    """Inline data."""
    return {"values": list(rows)}


def drawn(spec: JsonObject, words: Words, name: str) -> str:
    """The figure as inline SVG, the same bytes each time; ids are made unique by `name`."""
    svg = vl_convert.vegalite_to_svg(writable(spec), vl_version=VEGA_LITE, format_locale=number_locale(words))
    found = list(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))
    for number, identifier in enumerate(found):
        svg = svg.replace(f'id="{identifier}"', f'id="{name}-{number}"').replace(
            f"url(#{identifier})", f"url(#{name}-{number})"
        )
    return svg


def writable(value: Any) -> Any:
    """A spec with characters that XML cannot hold (ESC, NUL, U+FFFF) as escapes: labels may hold them, and the drawing
    library ends the whole process over one.
    """
    match value:
        case str():
            return NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
        case list():
            return [writable(one) for one in value]
        case dict():
            return {writable(key): writable(one) for key, one in value.items()}
        case _:
            return value


@functools.cache
def browser_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script; it is used with the expression interpreter, so without eval."""
    bundle = vl_convert.javascript_bundle(GLOBALS, vl_version=VEGA_LITE)
    return re.sub(r"<(/script|!--)", r"\\x3c\1", bundle)  # nothing in it may end the script element


def number_locale(words: Words) -> JsonObject:
    """How Vega writes numbers: d3's table for the language, with the per cent sign set as the language sets it."""
    locale: dict[str, Any] = dict(vl_convert.get_format_locale("ru-RU" if words.lang == "ru" else "en-US"))
    return {**locale, "percent": words.percent(1).removeprefix("100")}
