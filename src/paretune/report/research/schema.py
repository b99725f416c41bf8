"""The research report as data: chapters of text, tables, figures and files, in each language; one typed `report.json`.

Not here: how it is gathered (`report.py`) and rendered (`html.py`, `pdf.py`). Numbers in `text` and cells are words by
then: a renderer computes nothing.

    ResearchReport.model_validate_json(Path("report.json").read_bytes()).editions["ru"].chapters[0].title
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from paretune.core.config import JsonObject, Settings
from paretune.report.claims import Judged


class Text(Settings):
    """Pandoc's Markdown: prose, formulas in LaTeX, citations, pipe tables, figures that lie beside the prose."""

    kind: Literal["text"] = "text"
    markdown: str


class Table(Settings):
    """A generated table; a cell is a text with a second line in small print (empty where there is none)."""

    kind: Literal["table"] = "table"
    title: str
    columns: list[str]
    rows: list[list[tuple[str, str]]]
    notes: list[str]


class Figure(Settings):
    """A generated figure: its Vega-Lite spec, and the data that it shows as a table."""

    kind: Literal["figure"] = "figure"
    name: str
    title: str
    caption: str
    spec: JsonObject
    data: Table


class Listing(Settings):
    """A file of the repository, whole."""

    kind: Literal["listing"] = "listing"
    name: str
    language: str
    text: str


Block = Annotated[Text | Table | Figure | Listing, Field(discriminator="kind")]


class Chapter(Settings):
    """A chapter; its number is its place in the edition."""

    slug: str
    title: str
    blocks: list[Block]


class Edition(Settings):
    """The report in one language; `cited` are keys of the bibliography in the order of their first citation."""

    lang: Literal["en", "ru"]
    title: str
    chapters: list[Chapter]
    cited: list[str]


class ResearchReport(Settings):
    """All editions, the claims with their evidence, and the studies that they are made from (name → run ids)."""

    schema_version: Literal[1] = 1
    editions: dict[str, Edition]
    claims: list[Judged]
    studies: dict[str, list[str]]
