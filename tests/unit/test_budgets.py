"""Methods at equal memory and at equal time, from made-up records."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import write_study

from paretune.dashboard.generated import Size, write_generated
from paretune.records.store import StudyFolder
from paretune.report.budgets import budget_data, budget_sheet
from paretune.report.draws import Draws, draws_of
from paretune.report.facts import StudyFacts, gather
from paretune.report.wording import Words
from paretune.stats.budget import p_best

METHODS = ("tfidf", "head", "lora", "full")


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> StudyFacts:
    folder = tmp_path_factory.mktemp("budgets") / "s"
    quality = {"tfidf": 0.7, "head": 0.8, "lora": 0.95, "full": 0.95}
    return gather(StudyFolder(write_study(folder, methods=METHODS, broken=False, quality=quality)))


def _draws(facts: StudyFacts) -> Draws:
    found = draws_of(facts)
    assert found is not None
    return found


def test_budgets_are_what_parts_of_the_methods_need(facts: StudyFacts) -> None:
    """Of four methods two, two and four: the third and the half are one budget, and it stands once."""
    found = budget_data(_draws(facts))
    assert [(one.resource, one.name) for one in found] == [
        ("memory", "half"), ("memory", "all"), ("time", "half"), ("time", "all"),
    ]  # fmt: skip
    assert [one.fitting for one in found] == [["tfidf", "head"], list(METHODS)] * 2
    for one in found:
        index = 1 if one.resource == "memory" else 2
        assert one.limit in _draws(facts).points_dmk[:, :, index]


def test_shares_are_those_of_the_statistics(facts: StudyFacts) -> None:
    """`p_best` says the same of each budget."""
    cost = {
        method.label: {
            seed: (run.measurements.peak_memory_bytes.value, run.measurements.train_seconds.value)
            for seed, run in method.runs.items()
        }
        for method in facts.scored
    }
    for one in budget_data(_draws(facts)):
        limits = (one.limit, np.inf) if one.resource == "memory" else (np.inf, one.limit)
        wanted = p_best(facts.example_values, cost, limits, rng=np.random.default_rng(0))
        assert one.shares == pytest.approx(wanted, abs=1e-12)


def test_the_clear_best_is_named_and_equals_are_undecided(facts: StudyFacts) -> None:
    """A head that beats TF-IDF by 10 points wins the small budget; equal LoRA and full share the large one."""
    small, large, *_ = budget_data(_draws(facts))
    assert small.best == "head"
    assert large.best is None and {name for name, _ in large.ranked} == {"lora", "full"}


def test_a_budget_for_one_method_says_so(facts: StudyFacts) -> None:
    """Three methods: the cheapest third is one, and it is not called the best."""
    three = replace(facts, methods=facts.methods[:3])
    sheet = budget_sheet(three, Words("en"))
    assert sheet is not None
    first = sheet.rows[0]
    assert (first[1].text, first[2].text, first[3].text) == ("tfidf", "tfidf", "—")
    assert first[2].note == "nothing else fits: there is no choice"


def test_a_method_without_a_measured_cost_is_left_out(facts: StudyFacts) -> None:
    """SCIENCE: nothing is ranked by an estimate; it is named under the table."""
    head = facts.by_label["head"]
    runs = {}
    for seed, run in head.runs.items():
        cost = run.measurements.train_seconds.model_copy(update={"grade": "estimated"})
        runs[seed] = replace(run, measurements=run.measurements.model_copy(update={"train_seconds": cost}))
    changed = replace(facts, methods=[replace(one, runs=runs) if one is head else one for one in facts.methods])
    sheet = budget_sheet(changed, Words("en"))
    assert sheet is not None
    assert all("head" not in cell.text for row in sheet.rows for cell in row)
    assert sheet.notes[-1] == "Left out, without a scored run or a cost that may be compared: head."


def test_both_languages_show_the_same_numbers(facts: StudyFacts) -> None:
    """Each in its spelling."""

    def numbers(lang: str) -> list[str]:
        sheet = budget_sheet(facts, Words(lang))
        assert sheet is not None
        text = " ".join(f"{cell.text} {cell.note}" for row in sheet.rows for cell in row)
        return re.findall(r"\d+(?:\.\d+)?", text.replace(",", "."))

    assert numbers("ru") == numbers("en") != []


def test_many_methods_are_counted(tmp_path: Path) -> None:
    """A table of two dozen settings stays readable: the likeliest by name, the others together, shares sum to all."""
    facts = gather(StudyFolder(write_generated(tmp_path / "s", Size(methods=24, seeds=2, test_rows=60, steps=3))))
    sheet = budget_sheet(facts, Words("en"))
    assert sheet is not None
    last = sheet.rows[2]
    assert last[1].text == "24 methods"
    assert re.search(r"; \d+ others \d+%$", last[3].text)
    assert sum(int(share) for share in re.findall(r"(\d+)%", last[3].text)) == pytest.approx(100, abs=4)


def test_nothing_scored_has_no_table(tmp_path: Path) -> None:
    """Not an empty one."""
    facts = gather(StudyFolder(write_study(tmp_path / "s", methods=METHODS, scored=False)))
    assert budget_sheet(facts, Words("en")) is None
