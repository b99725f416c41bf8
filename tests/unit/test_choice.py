"""One rule says which method to take, and every way out follows it; other questions are named as such."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.export.choose import choose_run
from paretune.records.store import StudyFolder
from paretune.report.answer import answer, answer_of, left_open
from paretune.report.budgets import budget_sheet
from paretune.report.choice import chosen
from paretune.report.facts import gather
from paretune.report.tables import Cost, MethodRow, rows_of
from paretune.report.wording import LANGUAGES, Words
from paretune.stats.compare import Verdict

FIVE = (0, 1, 2, 3, 4)
METHODS = ("tfidf", "last2", "lora", "full")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> list[MethodRow]:
    folder = write_study(tmp_path_factory.mktemp("study") / "s", methods=METHODS, broken=False, test_rows=60)
    return rows_of(gather(StudyFolder(folder)))


def made(template: list[MethodRow], verdicts: dict[str, Verdict], memory: dict[str, float]) -> list[MethodRow]:
    return [
        replace(row, verdict=verdicts.get(row.method), peak_memory_bytes=Cost(memory[row.method], "counter"))
        for row in template
    ]


def test_the_cheapest_of_what_is_shown_is_taken(template: list[MethodRow]) -> None:
    """Over all verdicts and orders of memory: what is worse or undecided is never taken while something is shown."""
    for verdicts in itertools.product(("better", "equivalent", "worse", "undecided"), repeat=3):
        for order in ((1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 1, 3)):
            rows = made(template, dict(zip(METHODS[:3], verdicts, strict=True)), dict(zip(METHODS, order, strict=True)))
            found = chosen(rows)
            shown = [row for row in rows if row.verdict in ("better", "equivalent")]
            if shown:
                allowed = [*shown, next(row for row in rows if row.control)]
                least = min(allowed, key=lambda row: row.peak_memory_bytes.value)  # type: ignore[union-attr]
                if least.control and any(row.verdict == "better" for row in shown):
                    assert found.row.verdict == "better"
                else:
                    assert found.row is least
            elif set(verdicts) == {"worse"}:
                assert found.row.control and found.reason == "control_best"
            else:
                assert found.reason == "undecided" and found.row.verdict != "worse"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    same = {"last2": 0.95, "lora": 0.95, "full": 0.95, "tfidf": 0.6}
    return write_study(
        tmp_path_factory.mktemp("study") / "s", seeds=FIVE, methods=METHODS, broken=False, quality=same, margin=0.08,
        test_rows=600,
    )  # fmt: skip


@pytest.mark.parametrize("lang", LANGUAGES)
def test_answer_page_and_export_name_the_same_method_and_say_the_rule(folder: Path, lang: str) -> None:
    """The rule stands beside the answer, which page and dashboard show, and in the card's reason."""
    rule = "Rule: " if lang == "en" else "Правило: "
    facts, words = gather(StudyFolder(folder)), Words(lang)
    taken = chosen([row for row in rows_of(facts) if row.scored_runs]).row.method
    choice = choose_run(StudyFolder(folder), None, None, lang)
    assert choice.method == taken == "last2"
    for text in (answer(folder, lang), answer_of(facts, rows_of(facts), words), choice.why[lang]):
        assert taken in text and rule in text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_best_within_a_budget_is_named_as_another_question(folder: Path, lang: str) -> None:
    """Whoever ranks within budgets says that the answer's question is another one."""
    sheet = budget_sheet(gather(StudyFolder(folder)), Words(lang))
    assert sheet is not None
    assert sheet.notes[0].startswith("This is another question" if lang == "en" else "Это другой вопрос")


def test_a_baseline_that_is_the_answer_is_named_in_the_export(tmp_path: Path) -> None:
    """It cannot be exported; the next by the same rule is, and the reason says which one the study would take."""
    same = {"lora": 0.95, "full": 0.95, "tfidf": 0.95}
    folder = write_study(
        tmp_path / "s", seeds=FIVE, methods=("tfidf", "lora", "full"), broken=False, quality=same, margin=0.08,
        test_rows=600,
    )  # fmt: skip
    assert answer(folder, "en").startswith("Take tfidf:")
    choice = choose_run(StudyFolder(folder), None, None, "en")
    assert choice.method == "lora" and "the study's answer is the baseline tfidf" in choice.why["en"]


def test_what_the_search_leaves_open_stands_beside_the_answer(folder: Path) -> None:
    """A learning rate at the edge of the search is named in the answer itself."""
    facts = gather(StudyFolder(folder))
    first = facts.study.selections[0]
    low = min(float(rate) for rate in first.trials)
    facts.study = facts.study.model_copy(
        update={"selections": [first.model_copy(update={"learning_rate": low}), *facts.study.selections[1:]]}
    )
    assert any(first.method in text and text.startswith("Left open") for text in left_open(facts, Words("en")))
