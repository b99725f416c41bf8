"""Quality by the amount of training data over several studies, from made-up records."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.core.errors import RecordError
from paretune.records.store import StudyFolder
from paretune.report.amounts import amount_data, amount_figure, amount_sheet
from paretune.report.facts import StudyFacts, gather
from paretune.report.ink import drawn
from paretune.report.wording import Words

METHODS = ("tfidf", "lora", "full")
AMOUNTS = {50: {"tfidf": 0.85, "lora": 0.6, "full": 0.6}, 800: {"tfidf": 0.85, "lora": 0.96, "full": 0.96}}


def _of_amount(facts: StudyFacts, texts: int, **changed: str) -> StudyFacts:
    rows = {**facts.study.split_rows, "train": texts}
    return replace(facts, study=facts.study.model_copy(update={"split_rows": rows, **changed}))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[StudyFacts]:
    """The larger one comes first, as folders sorted by name may."""
    place = tmp_path_factory.mktemp("amounts")
    made = []
    for texts, quality in reversed(AMOUNTS.items()):
        folder = write_study(place / str(texts), methods=METHODS, broken=False, quality=quality, test_rows=300)
        made.append(_of_amount(gather(StudyFolder(folder)), texts))
    return made


def test_points_are_in_the_order_of_the_amounts(studies: list[StudyFacts]) -> None:
    """Each with the mean and the interval of its own study."""
    points = amount_data(studies)
    assert [(point.texts, point.method) for point in points] == [(t, m) for t in (50, 800) for m in METHODS]
    last = points[-1]
    wanted = studies[0].quality["full"]
    assert (last.quality, last.low, last.high) == (wanted.estimate, wanted.low, wanted.high)


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_the_table_says_which_way_wins_where(studies: list[StudyFacts], lang: str) -> None:
    """TF-IDF with few texts, nobody alone of two equals with many; numbers are the same in both languages."""
    words = Words(lang)
    sheet = amount_sheet(studies, words)
    assert sheet is not None
    assert [row[0].text for row in sheet.rows[:-1]] == list(METHODS)
    assert sheet.rows[0][1].text == words.number(studies[1].quality["tfidf"].estimate)
    few, many = sheet.rows[-1][1:]
    assert few.text == "tfidf" and few.note.startswith("tfidf 100")
    assert many.text == words.say("undecided") and "lora" in many.note and "full" in many.note
    shares = [int(share) for share in re.findall(r"(\d+)\s?%", many.note)]
    assert sum(shares) == pytest.approx(100, abs=2)


def test_a_method_that_one_study_lacks_is_not_measured(studies: list[StudyFacts]) -> None:
    """No number from nowhere."""
    without = replace(studies[0], methods=studies[0].methods[:2])
    sheet = amount_sheet([without, studies[1]], Words("en"))
    assert sheet is not None
    assert [cell.text for cell in sheet.rows[2]][0::2] == ["full", "not measured"]


def test_the_figure_shows_every_point_on_a_logarithmic_axis(studies: list[StudyFacts]) -> None:
    """Ticks are the amounts; one amount is no figure, and no study no table."""
    figure = amount_figure(studies, Words("en"))
    assert figure is not None
    layers = figure.wide["layer"]
    assert len(figure.wide["data"]["values"]) == len(figure.rows) == 6
    x = layers[0]["encoding"]["x"]
    assert x["scale"]["type"] == "log" and x["axis"]["values"] == [50, 800]
    low, high = layers[0]["encoding"]["y"]["scale"]["domain"]
    assert all(low <= row["y"] <= high for row in figure.wide["data"]["values"])
    svg = drawn(figure.wide, Words("en"), "amount")
    assert ">50<" in svg and ">800<" in svg
    assert amount_figure(studies[:1], Words("en")) is None
    assert amount_sheet([], Words("en")) is None and amount_figure([], Words("en")) is None


def test_what_does_not_belong_together_is_refused(studies: list[StudyFacts]) -> None:
    """Two studies of one amount, or of different metrics."""
    with pytest.raises(RecordError, match="as many training texts"):
        amount_sheet([studies[0], _of_amount(studies[1], 800)], Words("en"))
    with pytest.raises(RecordError, match="accuracy and macro_f1"):
        amount_sheet([studies[0], _of_amount(studies[1], 50, metric="macro_f1")], Words("en"))


def test_a_study_without_a_scored_run_is_left_out(studies: list[StudyFacts], tmp_path: Path) -> None:
    """It may still be running."""
    empty = _of_amount(gather(StudyFolder(write_study(tmp_path / "s", methods=METHODS, scored=False))), 3200)
    assert amount_data([*studies, empty]) == amount_data(studies)
