"""The chapters that people wrote, in Markdown, with slots where something generated stands.

Not here: what fills a slot (`parts.py`). A slot is a paragraph of its own, `{{kind:name}}`; a claim's may also stand
inside a paragraph. Chapters lie in `report/prose/LANG/NN-slug.md`, in their order, alike in both languages.

    [chapter.slug for chapter in read_prose("ru")]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from paretune.core.errors import RecordError, said

SLOT = re.compile(r"\{\{(table|figure|claim|answer|advice|file):([^{}\s]+)\}\}")
CITATION = re.compile(r"@([a-z][a-z0-9_-]*\d{4}[a-z0-9_-]*)")
FIGURE = re.compile(r"\(figures/([a-z0-9-]+)\.svg\)")


@dataclass(frozen=True)
class Slot:
    """Where something generated stands, such as the table "r8/quality"."""

    kind: str
    name: str


@dataclass(frozen=True)
class Prose:
    """A chapter as it was written: its title, then texts and slots in turn."""

    slug: str
    title: str
    parts: list[str | Slot]


def prose_folder() -> Traversable:
    """Where chapters, drawings and the bibliography lie."""
    return resources.files("paretune.report") / "prose"


def drawing(name: str, lang: str) -> str:
    """A drawing made by hand, as SVG with the language's words.

    Raises:
        RecordError: there is none of that name.
    """
    file = prose_folder() / "figures" / f"{name}.{lang}.svg"
    if not file.is_file():
        raise RecordError(said(f"no drawing {name}.{lang}.svg", "one that lies in report/prose/figures"))
    return file.read_text("utf-8")


def read_prose(lang: str) -> list[Prose]:
    """All chapters of a language in their order.

    Raises:
        RecordError: a chapter that does not begin with its title.
    """
    files = sorted((prose_folder() / lang).iterdir(), key=lambda file: file.name)
    return [parsed(file.name.removesuffix(".md"), file.read_text("utf-8")) for file in files if file.name[:1].isdigit()]


def parsed(slug: str, text: str) -> Prose:
    """Title and parts of a chapter. A claim or an answer inside a paragraph stays in the text.

    Raises:
        RecordError: it does not begin with "# " and its title.
    """
    first, _, body = text.partition("\n")
    if not first.startswith("# "):
        raise RecordError(said(f"{slug} begins with {first[:40]!r}", 'its title after "# "'))
    parts: list[str | Slot] = []
    kept: list[str] = []
    for paragraph in re.split(r"\n{2,}", body.strip()):
        slot = SLOT.fullmatch(paragraph.strip())
        if slot is None:
            kept.append(paragraph)
            continue
        if kept:
            parts.append("\n\n".join(kept))
            kept = []
        parts.append(Slot(slot[1], slot[2]))
    if kept:
        parts.append("\n\n".join(kept))
    return Prose(slug, first.removeprefix("# ").strip(), parts)


def citations(markdown: str) -> list[str]:
    """Keys that a text cites, each once, in order."""
    inside = re.findall(r"\[[^\]]*@[^\]]*\]", markdown)
    return list(dict.fromkeys(key for group in inside for key in CITATION.findall(group)))
