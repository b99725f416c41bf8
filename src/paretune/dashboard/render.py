"""From what a page shows to HTML: templates with automatic escaping, and all data for scripts as inert JSON blocks.

Not here: what a page shows (`study_pages.py`, `shelf_pages.py`). Nothing is inline that runs: style, scripts and Vega
are files of their own.

    Renderer(Files()).part("results.html.j2", Words("en"), {"sections": sections})
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from paretune.core.config import JsonObject
from paretune.dashboard.files import BUNDLE, Files
from paretune.dashboard.reader import THEMES, Reader, here_in
from paretune.report.ink import Figure, number_locale
from paretune.report.wording import LANGUAGES, Words

LANGUAGE_NAMES = {"en": "English", "ru": "Русский"}


@dataclass(frozen=True)
class Link:
    """An entry of a navigation."""

    href: str
    text: str
    current: bool = False


@dataclass(frozen=True)
class Frame:
    """What stands around a page: its title, the way to it, its neighbours, and which scripts it needs."""

    title: str
    crumbs: Sequence[Link] = ()
    tabs: Sequence[Link] = ()
    scripts: Sequence[str] = ()
    figures: bool = False
    live: str = ""
    version: str = ""
    export: str = ""
    forward: str = ""
    status: int = 200
    words: Mapping[str, str] = field(default_factory=dict[str, str])


class Renderer:
    """The templates of the package."""

    def __init__(self, files: Files) -> None:
        folder = resources.files("paretune.dashboard") / "templates"
        sources = {one.name: one.read_text("utf-8") for one in folder.iterdir() if one.name.endswith(".j2")}
        self._files = files
        self._templates = Environment(
            loader=DictLoader(sources),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def part(self, template: str, words: Words, values: Mapping[str, object]) -> str:
        """A part of a page."""
        return self._templates.get_template(template).render({"words": words, "say": words.say, **values})

    def page(self, request: Request, reader: Reader, frame: Frame, body: str) -> HTMLResponse:
        """A whole page around a part that is HTML already."""
        words = reader.words
        languages = [Link(here_in(request, lang), LANGUAGE_NAMES[lang], lang == words.lang) for lang in LANGUAGES]
        scripts = [self._files.url(name) for name in ("page.js", *frame.scripts)]
        values = {
            "frame": frame,
            "theme": reader.theme,
            "themes": _themes(words, reader.theme),
            "languages": languages,
            "style": self._files.url("page.css"),
            "icon": self._files.url("icon.svg"),
            "modules": scripts,
            "bundle": self._files.url(BUNDLE) if frame.figures else "",
            "locale": embedded(number_locale(words)) if frame.figures else "",
            "said": embedded(dict(frame.words)),
            "body": Markup(body),  # made by `part`, which escapes
        }
        answer = HTMLResponse(self.part("layout.html.j2", words, values), status_code=frame.status)
        reader.remember(answer)
        return answer


def _themes(words: Words, chosen: str) -> list[tuple[str, str, bool]]:
    names = {"light": words.say("light"), "dark": words.say("dark")}
    return [("", words.say("as the system"), not chosen), *((one, names[one], one == chosen) for one in THEMES)]


def embedded(tree: JsonObject) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return Markup(text.replace("<", "\\u003c"))


def figure_specs(figures: Sequence[Figure]) -> Markup:
    """The specs of figures, wide and narrow, for the script that draws them."""
    return embedded({figure.name: [figure.wide, figure.narrow] for figure in figures})
