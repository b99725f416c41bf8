"""The page of an exploratory data analysis, with the look of the report.

Not here: computing it (`data/explore.py`).

    build_exploration(read_record(Path("explore.json"), Exploration), "en", Path("explore.en.html"))
"""

from __future__ import annotations

from pathlib import Path

from paretune.records.exploration import Exploration
from paretune.records.store import write_atomically
from paretune.report.exploration_figures import exploration_figures
from paretune.report.exploration_findings import findings
from paretune.report.exploration_sheets import (
    exploration_notes,
    frequent_words_sheet,
    length_sheet,
    overview_sheet,
    samples_sheet,
    suspects_sheet,
)
from paretune.report.page import Page, Section, rendered
from paretune.report.sheets import cleaning_sheet
from paretune.report.wording import Words


def build_exploration(exploration: Exploration, lang: str, out: Path) -> Path:
    """Write the page of an exploration to `out`.

    Raises:
        ConfigError: an unknown language. StorageError: `out` cannot be written.
    """
    words = Words(lang)
    write_atomically(out, rendered(exploration_page(exploration, words), words))
    return out


def exploration_page(exploration: Exploration, words: Words) -> Page:
    """The page as data."""
    overview = (
        (words.say("data"), exploration.source),
        (words.say("texts"), words.count(sum(exploration.rows.values()))),
        (words.say("classes"), words.count(len(exploration.classes))),
        (words.say("tokenizer"), exploration.tokenizer),
    )
    sections = (
        Section(
            name="overview",
            title=words.say("Overview"),
            figures=tuple(exploration_figures(exploration, words)),
            sheets=(overview_sheet(exploration, words), length_sheet(exploration, words)),
            notes=(*findings(exploration, words), *exploration_notes(exploration, words)),
        ),
        Section("cleaning", words.say("From raw to clean"), sheets=(cleaning_sheet(exploration.cleaning, words),)),
        Section(
            name="labels",
            title=words.say("Labels and texts"),
            sheets=(
                *((suspects_sheet(exploration, words),) if exploration.suspects else ()),
                frequent_words_sheet(exploration, words),
                samples_sheet(exploration, words),
            ),
        ),
    )
    return Page(
        title=words.say("Exploratory data analysis"),
        subtitle=exploration.source,
        question="",
        answer="",
        pilot="",
        facts=overview,
        sections=sections,
    )
