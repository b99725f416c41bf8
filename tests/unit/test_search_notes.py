"""What the search of settings leaves open is said beside the answer and in the table of the search."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.records.store import StudyFolder
from paretune.report.answer import answer
from paretune.report.cost_sheets import search_sheet
from paretune.report.facts import gather
from paretune.report.wording import Words


def studied(folder: Path, **selection: object) -> StudyFolder:
    """A fabricated study whose choices have more fields."""
    study = StudyFolder(folder)
    record = study.study()
    chosen = [one.model_copy(update=dict(selection)) for one in record.selections]
    study.write_study(record.model_copy(update={"selections": chosen}))
    return study


@pytest.mark.parametrize(("lang", "edge", "tie"), [("en", "edge", "noise"), ("ru", "на краю", "шум")])
def test_an_edge_and_a_tie_are_said_beside_the_answer(tmp_path: Path, lang: str, edge: str, tie: str) -> None:
    """Both in the answer, which the terminal prints too, and in the table's notes."""
    folder = write_study(tmp_path)
    assert edge not in answer(folder, lang) and tie not in answer(folder, lang)
    studied(folder, rule="extended", edge="high", tied=[1e-5], extended=2)
    said = answer(folder, lang)
    assert edge in said and tie in said
    notes = " ".join(search_sheet(gather(StudyFolder(folder)), Words(lang)).notes)
    assert edge in notes and tie in notes


def test_records_of_the_older_rule_say_so(tmp_path: Path) -> None:
    """A record without a rule was made by the first one; a new one names the new one."""
    folder = write_study(tmp_path)
    words = Words("en")
    assert any("older rule" in note for note in search_sheet(gather(StudyFolder(folder)), words).notes)
    studied(folder, rule="extended", tied=[], extended=0)
    notes = search_sheet(gather(StudyFolder(folder)), words).notes
    assert any("one standard error" in note for note in notes) and not any("older rule" in note for note in notes)
