"""The research report as a PDF, set by Typst (https://typst.app/docs) with its own fonts: the same bytes each time.

pdf = rendered_pdf(report.editions["ru"], Words("ru"))
"""

from __future__ import annotations

import json
import re
from importlib import resources

import typst

from paretune.core.errors import RecordError, said
from paretune.report.ink import drawn
from paretune.report.research.bibliography import BIBLIOGRAPHY, STYLES, bibliography_text, check_cited
from paretune.report.research.markdown import as_markdown
from paretune.report.research.pandoc import converted, raw
from paretune.report.research.prose import FIGURE, drawing
from paretune.report.research.schema import Edition, Figure, Listing, Table
from paretune.report.research.workshop import workshop
from paretune.report.wording import Words

FONT = "Libertinus Serif"  # Typst's own; it has Cyrillic
WIDE = 480  # pixels: a wider figure takes the whole line, so that its words stay readable
_NO_TIME = 0  # seconds since 1970: the file says nothing of when it was made


def rendered_pdf(edition: Edition, words: Words) -> bytes:
    """The whole document.

    Raises:
        RecordError: a citation without an entry, a drawing that is not there, or text that cannot be set.
    """
    files = typst_files(edition, words)
    with workshop(files) as folder:
        try:
            return typst.compile(str(folder / "main.typ"), format="pdf", ignore_system_fonts=True, timestamp=_NO_TIME)
        except typst.TypstError as error:
            raise RecordError(said(f"the report cannot be set: {error}", "text that Typst can set")) from error


def typst_files(edition: Edition, words: Words) -> dict[str, str]:
    """All files that the document is set from, by name."""
    check_cited(edition.cited)
    ink = TypstInk(words)
    markdown = as_markdown(edition, ink)
    for name in dict.fromkeys(FIGURE.findall(markdown)):
        ink.drawings[f"figures/{name}.svg"] = _set_in(drawing(name, edition.lang))
    body = converted(markdown, "typst")
    template = (resources.files("paretune.report") / "templates" / "research.typ").read_text("utf-8")
    values = {
        "title": edition.title,
        "lang": edition.lang,
        "font": FONT,
        "contents": words.say("Contents"),
    }
    head = "\n".join(f"#let {name} = {quoted(value)}" for name, value in values.items())
    return {"main.typ": f"{head}\n{template}\n{body}", BIBLIOGRAPHY: bibliography_text(), **ink.drawings}


def quoted(text: str) -> str:
    """A string of Typst's language."""
    return json.dumps(text, ensure_ascii=False)


def _set_in(svg: str) -> str:
    """A drawing with the document's font and ink: Typst has no font called sans-serif, and no dark page."""
    return re.sub(r'font-family="[^"]*"', f'font-family="{FONT}"', svg).replace("currentColor", "#000000")


class TypstInk:
    """Generated blocks as Typst; `drawings` are the files that they need."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.drawings: dict[str, str] = {}

    def table(self, block: Table) -> str:
        head = ", ".join(f"[#strong({quoted(column)})]" for column in block.columns)
        cells = ",\n  ".join(", ".join(_cell(*cell) for cell in row) for row in block.rows)
        notes = "".join(f"#note({quoted(note)})\n" for note in block.notes)
        table = f"data-table({len(block.columns)}, {quoted(block.title)}, ({head},), (\n  {cells},\n))"
        return raw("typst", f"#{table}\n{notes}")

    def figure(self, block: Figure) -> str:
        file = f"drawn/{block.name}.svg"
        self.drawings[file] = _set_in(drawn(block.spec, self._words, block.name))
        caption = f"{block.title}. {block.caption}".strip()
        width = "100%" if block.spec.get("width", 0) > WIDE else "72%"
        return raw("typst", f"#drawn-figure({quoted(file)}, {quoted(caption)}, {quoted(block.title)}, {width})")

    def listing(self, block: Listing) -> str:
        return raw("typst", f"#listing({quoted(block.name)}, {quoted(block.language)}, {quoted(block.text.rstrip())})")

    def references(self, edition: Edition) -> str:
        style = STYLES[edition.lang]
        return raw("typst", f'#bibliography("{BIBLIOGRAPHY}", style: "{style}", title: none)' if edition.cited else "")


def _cell(text: str, note: str) -> str:
    return f"[#{quoted(text)}]" if not note else f"[#{quoted(text)} #small({quoted(note)})]"
