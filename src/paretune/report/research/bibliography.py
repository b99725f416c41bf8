"""The list of references: Typst's own numeric styles, for the PDF and, by its HTML export, for the web page too.

Not here: which works are cited (`prose.py`). Russian editions use GOST R 7.0.5-2008, English ones IEEE.

    numbered(["hu2021lora"], "ru").items["hu2021lora"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import typst

from paretune.core.errors import RecordError, said
from paretune.report.research.prose import prose_folder
from paretune.report.research.workshop import workshop

STYLES = {"ru": "gost-r-705-2008-numeric", "en": "ieee"}
BIBLIOGRAPHY = "references.bib"
_ITEM = re.compile(r"<li[^>]*>(.*?)</li>", re.DOTALL)
_PREFIX = re.compile(r'^\s*<span class="prefix">.*?</span>\s*', re.DOTALL)


@dataclass(frozen=True)
class References:
    """Numbers of works by key, and each work's entry as HTML, in the order of the numbers."""

    numbers: dict[str, int]
    entries: list[str]


def bibliography_text() -> str:
    """The whole BibTeX file."""
    return (prose_folder() / BIBLIOGRAPHY).read_text("utf-8")


def known_keys() -> set[str]:
    """Keys of the BibTeX file."""
    return set(re.findall(r"^@\w+\{([^,\s]+),", bibliography_text(), flags=re.MULTILINE))


def check_cited(cited: Sequence[str]) -> None:
    """Nothing, if every citation has an entry.

    Raises:
        RecordError: one has none.
    """
    known = known_keys()
    if missing := [key for key in cited if key not in known]:
        raise RecordError(said(f"cited and not in {BIBLIOGRAPHY}: {', '.join(missing[:5])}", "an entry for each"))


def numbered(cited: Sequence[str], lang: str) -> References:
    """Numbers in the order of citation, and entries as the style writes them.

    Raises:
        RecordError: a citation without an entry, or an entry that Typst cannot read.
    """
    check_cited(cited)
    if not cited:
        return References({}, [])
    lines = [
        f'#set text(lang: "{lang}")',
        *(f"#cite(<{key}>)" for key in cited),
        f'#bibliography("{BIBLIOGRAPHY}", style: "{STYLES[lang]}", title: none)',
    ]
    with workshop({"main.typ": "\n\n".join(lines), BIBLIOGRAPHY: bibliography_text()}) as folder:
        try:
            html = typst.compile(str(folder / "main.typ"), format="html").decode()
        except typst.TypstError as error:
            raise RecordError(said(f"{BIBLIOGRAPHY} cannot be read: {error}", "valid BibTeX")) from error
    entries = [_PREFIX.sub("", item).strip() for item in _ITEM.findall(html)]
    if len(entries) != len(cited):
        raise RecordError(said(f"{len(entries)} references for {len(cited)} citations", "one for each"))
    return References({key: number for number, key in enumerate(cited, 1)}, entries)
