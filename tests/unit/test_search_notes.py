"""What the search of settings leaves open is said beside the answer and in the table of the search."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.records.schema import SettingChoice
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


@pytest.mark.parametrize(
    ("lang", "chosen", "note"),
    [
        ("en", "classes weigh alike, features of length 1", "every class"),
        ("ru", "классы весят поровну, признаки", "все классы"),
    ],
)
def test_class_weights_are_shown(tmp_path: Path, lang: str, chosen: str, note: str) -> None:
    """Those that TF-IDF or a probe chose in the table of the search, those of training below it."""
    study = StudyFolder(write_study(tmp_path))
    words = Words(lang)
    assert note not in " ".join(search_sheet(gather(study), words).notes)
    setting = {"features": "of length 1", "class_weights": "balanced", "strength": 10.0}
    for run in study.runs():
        if run.spec().method == "tfidf":
            choice = SettingChoice(setting=setting, trials={"one": 0.9}, tied=[], extended=0, edge=False)
            run.write_measurements(run.measurements().model_copy(update={"choice": choice}))
    (line,) = [line for line in search_sheet(gather(study), words).rows if line[0].text == "tfidf"]
    assert line[1].text.startswith("C = 10, ") and chosen in line[1].text
    record = study.study()
    train = {**record.spec.get("train", {}), "class_weights": "balanced"}
    study.write_study(record.model_copy(update={"spec": {**record.spec, "train": train}}))
    sheet = search_sheet(gather(study), words)
    assert any(note in one and "class_weights" in one for one in sheet.notes)


def test_records_of_the_older_rule_say_so(tmp_path: Path) -> None:
    """A record without a rule was made by the first one; a new one names the new one."""
    folder = write_study(tmp_path)
    words = Words("en")
    assert any("older rule" in note for note in search_sheet(gather(StudyFolder(folder)), words).notes)
    studied(folder, rule="extended", tied=[], extended=0)
    notes = search_sheet(gather(StudyFolder(folder)), words).notes
    assert any("one standard error" in note for note in notes) and not any("older rule" in note for note in notes)
