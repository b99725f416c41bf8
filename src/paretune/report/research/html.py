"""The research report as one HTML file: formulas in MathML, drawings inside, no network, no script.

html = rendered_html(report.editions["ru"], Words("ru"))
"""

from __future__ import annotations

import re
from html import escape, unescape
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from paretune.report.ink import drawn
from paretune.report.research.bibliography import References, numbered
from paretune.report.research.markdown import as_markdown
from paretune.report.research.pandoc import converted, raw
from paretune.report.research.prose import drawing
from paretune.report.research.schema import Edition, Figure, Listing, Table
from paretune.report.wording import Words

_CITATION = re.compile(r'<span class="citation" data-cites="([^"]*)">.*?</span>', re.DOTALL)
_DRAWING = re.compile(r'<img src="figures/([a-z0-9-]+)\.svg"[^>]*alt="([^"]*)"[^>]*/?>')
_HEADING = re.compile(r'<h([12])[^>]*\sid="([^"]+)"[^>]*>(.*?)</h\1>', re.DOTALL)


def rendered_html(edition: Edition, words: Words) -> str:
    """The whole page, the same bytes each time.

    Raises:
        RecordError: a citation without an entry, a drawing that is not there, prose that cannot be converted.
    """
    references = numbered(edition.cited, edition.lang)
    ink = HtmlInk(words, references)
    body = converted(as_markdown(edition, ink), "html5", ["--mathml", "--number-sections", "--section-divs"])
    body = _CITATION.sub(lambda found: ink.citation(found[1].split()), body)
    body = _DRAWING.sub(lambda found: _inside(found[1], unescape(found[2]), edition.lang), body)
    folder = resources.files("paretune.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "research.html.j2").read_text("utf-8"))
    return template.render(
        edition=edition,
        words=words,
        say=words.say,
        style=Markup((folder / "page.css").read_text("utf-8") + (folder / "research.css").read_text("utf-8")),
        body=Markup(body),
        contents=[(level, place, Markup(title)) for level, place, title in _HEADING.findall(body)],
    )


def _inside(name: str, words: str, lang: str) -> str:
    """A drawing made by hand, in the page itself."""
    svg = re.sub(r"<\?xml[^>]*\?>\s*", "", drawing(name, lang))
    return f'<div class="drawing" role="img" aria-label="{escape(words)}">{svg}</div>'


class HtmlInk:
    """Generated blocks as HTML."""

    def __init__(self, words: Words, references: References) -> None:
        self._words, self._references = words, references

    def citation(self, keys: list[str]) -> str:
        """Numbers that lead to the list."""
        numbers = sorted(self._references.numbers[key] for key in keys if key in self._references.numbers)
        return "[" + ", ".join(f'<a href="#ref-{number}">{number}</a>' for number in numbers) + "]"

    def table(self, block: Table) -> str:
        return raw("html", f'<section class="sheet"><h3>{escape(block.title)}</h3>{_cells(block)}</section>')

    def figure(self, block: Figure) -> str:
        svg = drawn(block.spec, self._words, block.name)
        data = f"<details class='data'><summary>{escape(self._words.say('Data of this figure'))}</summary>"
        caption = f"<figcaption>{escape(block.caption)}</figcaption>" if block.caption else ""
        label = escape(f"{block.title}. {block.caption}")
        return raw(
            "html",
            f'<figure class="full"><h3>{escape(block.title)}</h3><div class="ink" role="img" aria-label="{label}">{svg}'
            f"</div>{caption}{data}{_cells(block.data)}</details></figure>",
        )

    def listing(self, block: Listing) -> str:
        code = f'<div class="scroll" tabindex="0"><pre><code>{escape(block.text.rstrip())}</code></pre></div>'
        return raw("html", f'<details class="more"><summary>{escape(block.name)}</summary>{code}</details>')

    def references(self, edition: Edition) -> str:
        entries = enumerate(self._references.entries, 1)
        items = "".join(f'<li id="ref-{number}">{entry}</li>' for number, entry in entries)
        return raw("html", f'<ol class="references">{items}</ol>')


def _cells(block: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in block.columns)
    rows: list[str] = []
    for row in block.rows:
        first, *others = (escape(text) + (f"<small>{escape(note)}</small>" if note else "") for text, note in row)
        cells = [f'<th scope="row">{first}</th>', *(f"<td>{one}</td>" for one in others)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in block.notes)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    label = escape(block.title)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{table}</div>{notes}'
