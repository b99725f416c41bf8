"""An edition as one Markdown document: prose as it is, generated blocks by whoever renders them.

Not here: HTML and Typst of a table or figure (`html.py`, `pdf.py`). The plain form, for `--format md`, is here.

    as_markdown(edition, words, PlainInk(words))
"""

from __future__ import annotations

from typing import Protocol

from paretune.report.research.schema import Edition, Figure, Listing, Table, Text
from paretune.report.wording import Words


class Ink(Protocol):
    """How a renderer writes what is not prose."""

    def table(self, block: Table) -> str: ...

    def figure(self, block: Figure) -> str: ...

    def listing(self, block: Listing) -> str: ...

    def references(self, edition: Edition) -> str: ...


REFERENCES = "11-references"  # the chapter at whose end the list stands


def as_markdown(edition: Edition, ink: Ink) -> str:
    """Chapters one after another."""
    found: list[str] = []
    for chapter in edition.chapters:
        found.append(f"# {chapter.title} {{#{chapter.slug}}}")
        for block in chapter.blocks:
            if isinstance(block, Text):
                found.append(block.markdown)
            elif isinstance(block, Table):
                found.append(ink.table(block))
            elif isinstance(block, Figure):
                found.append(ink.figure(block))
            else:
                found.append(ink.listing(block))
        if chapter.slug == REFERENCES:
            found.append(ink.references(edition))
    return "\n\n".join(found) + "\n"


class PlainInk:
    """Markdown that needs no other program: figures become their data."""

    def __init__(self, words: Words, entries: list[str]) -> None:
        self._words, self._entries = words, entries

    def table(self, block: Table) -> str:
        def line(cells: list[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rows = [[f"{text} ({note})" if note else text for text, note in row] for row in block.rows]
        lines = [line(block.columns), line(["---"] * len(block.columns)), *(line(row) for row in rows)]
        return "\n\n".join([f"**{block.title}**", "\n".join(lines), *block.notes])

    def figure(self, block: Figure) -> str:
        return self.table(block.data.model_copy(update={"title": block.title, "notes": [block.caption]}))

    def listing(self, block: Listing) -> str:
        return f"**{block.name}**\n\n````{block.language}\n{block.text.rstrip()}\n````"

    def references(self, edition: Edition) -> str:
        return "\n".join(f"{number}. {entry}" for number, entry in enumerate(self._entries, 1))
