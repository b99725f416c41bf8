"""A page as data — sections with paragraphs, figures, tables, cards — and its one rendering as a self-contained file.

Not here: what stands on a page (`build.py`, `explore_page.py`). The file needs no network: style, figures, their data
and Vega are inside, under a content security policy that forbids everything else, eval included.

    html = rendered(Page(title="demo", subtitle="", question="?", answer="!", pilot="", sections=()), Words("en"))
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from paretune.core.config import JsonObject
from paretune.report.ink import Figure, browser_bundle, drawn, number_locale
from paretune.report.sheets import Sheet
from paretune.report.wording import Words


@dataclass(frozen=True)
class Card:
    """An example text with what each method said of it: (method, prediction, right)."""

    label: str
    text: str
    predictions: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True)
class Section:
    """A part of a page; its blocks stand in this order, `folded` tables and `code` closed at the end."""

    name: str
    title: str
    lead: str = ""
    paragraphs: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    first: tuple[Sheet, ...] = ()
    figures: tuple[Figure, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    cards: tuple[Card, ...] = ()
    notes: tuple[str, ...] = ()
    folded: tuple[Sheet, ...] = ()
    code: tuple[str, str] | None = None


@dataclass(frozen=True)
class Page:
    """A whole page; `answer` and `pilot` are empty where there is no study behind it."""

    title: str
    subtitle: str
    question: str
    answer: str
    pilot: str
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...] = field(default=())


def rendered(page: Page, words: Words) -> str:
    """The page as HTML, the same bytes each time."""
    folder = resources.files("paretune.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html.j2").read_text("utf-8"))
    figures = [figure for section in page.sections for figure in section.figures]
    html = template.render(
        page=page,
        words=words,
        say=words.say,
        style=Markup((folder / "page.css").read_text("utf-8")),
        script=Markup((folder / "page.js").read_text("utf-8")),
        bundle=Markup(browser_bundle()) if figures else "",
        drawings={figure.name: _drawing(figure, words) for figure in figures},
        downloads={figure.name: _download(figure.rows) for figure in figures},
        specs=_embedded({figure.name: [figure.wide, figure.narrow] for figure in figures}),
        locale=_embedded(number_locale(words)),
    )
    return html + "\n"


def _drawing(figure: Figure, words: Words) -> tuple[Markup, Markup]:
    wide = drawn(figure.wide, words, f"{figure.name}-w")
    narrow = drawn(figure.narrow, words, f"{figure.name}-n")
    return Markup(wide), Markup(narrow)  # SVG that Vega wrote; it escapes every text of the data


def _embedded(tree: JsonObject) -> Markup:
    """JSON that is safe inside a script element."""
    return Markup(json.dumps(tree, ensure_ascii=False, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c"))


def _download(rows: Sequence[JsonObject]) -> str:
    payload = json.dumps(list(rows), ensure_ascii=False, indent=1).encode()
    return "data:application/json;base64," + base64.b64encode(payload).decode()
