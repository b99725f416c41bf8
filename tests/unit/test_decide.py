"""What would decide a study's undecided comparisons, from made-up records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from fabricated_study import write_study

from paretune.records.store import StudyFolder
from paretune.report.decide import decide_sheet, next_sheet, next_text, open_of
from paretune.report.facts import StudyFacts, gather
from paretune.report.wording import Words

METHODS = ("head", "lora", "full")


def _facts(folder: Path, **changed: object) -> StudyFacts:
    given: dict[str, object] = {"methods": METHODS, "broken": False, "test_rows": 100, "margin": 0.002}
    return gather(StudyFolder(write_study(folder, **{**given, **changed})))


def _with_more_seeds(facts: StudyFacts, **more_seeds: int | None) -> StudyFacts:
    """The same study, in which these methods are undecided and need so many further seeds."""
    found = dict(facts.comparisons)
    for method, seeds in more_seeds.items():
        limit = "seeds" if seeds is not None else "examples"
        found[method] = replace(found[method], verdict="undecided", more_seeds=seeds, limited_by=limit)
    facts = replace(facts)
    facts.__dict__["comparisons"] = found  # in place of the cached property
    return facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> StudyFacts:
    return _facts(tmp_path_factory.mktemp("decide") / "s", quality={"lora": 0.95, "full": 0.95, "head": 0.5})


def test_time_and_energy_are_of_both_sides_of_the_records(facts: StudyFacts) -> None:
    """Whole runs without the latency probe, at the power of the training, once more by hand."""
    found = open_of(_with_more_seeds(facts, lora=7))
    assert found.next is not None and (found.next.method, found.next.seeds) == ("lora", 7)
    seconds, joules = 0.0, 0.0
    for label in ("lora", "full"):
        runs = facts.by_label[label].measurements()
        time = fmean(sum(one.seconds for one in run.phases) for run in runs)
        power = fmean(run.energy_joules.value / run.train_seconds.value for run in runs if run.energy_joules)
        seconds, joules = seconds + 7 * time, joules + 7 * time * power
    assert found.next.seconds == pytest.approx(seconds)
    assert found.next.watt_hours == pytest.approx(joules / 3600)


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_the_sentence_names_the_cheapest(facts: StudyFacts, lang: str) -> None:
    """Four seeds of a head cost less than two of LoRA; the grade of the energy stands beside it."""
    words, changed = Words(lang), _with_more_seeds(facts, head=2, lora=2)
    text, experiment = next_text(changed, words), open_of(changed).experiments
    assert [one.method for one in experiment] == ["head", "lora"]
    expected = {
        "en": "The next cheapest decisive experiment: 2 further seeds of head and of the control full; about ",
        "ru": "Самый дешёвый решающий опыт: ещё 2 повтора head и контроля full; около ",
    }
    assert text.startswith(expected[lang])
    assert words.duration(experiment[0].seconds) in text
    energy = f"{words.watt_hours(experiment[0].watt_hours or 0.0)} ({'estimated' if lang == 'en' else 'оценка'})."
    assert text.endswith(energy)


def test_what_seeds_do_not_decide_says_so(facts: StudyFacts) -> None:
    """More test examples; and a study in which nothing is left open has no table."""
    changed = _with_more_seeds(facts, lora=None, head=3)
    sheet = decide_sheet(changed, Words("en"))
    assert sheet is not None
    by_method = {row[0].text: row for row in sheet.rows}
    assert by_method["lora"][1].text == "more test examples are needed, seeds alone will not decide it"
    assert [cell.text for cell in by_method["lora"][2:]] == ["—", "—"]
    assert by_method["head"][1].text == "3"
    alone = next_text(_with_more_seeds(facts, lora=None), Words("en"))
    assert alone.startswith("There is no cheapest decisive experiment: more test examples are needed")


def test_decided_studies_and_single_seeds(tmp_path: Path) -> None:
    """Nothing is invented where all is decided, or where one seed cannot tell."""
    decided = _facts(tmp_path / "a", methods=("head", "full"), quality={"head": 0.5, "full": 0.95}, test_rows=600)
    assert decide_sheet(decided, Words("en")) is None
    assert next_text(decided, Words("en")) == "Every comparison with the control full is decided."
    single = _facts(tmp_path / "b", seeds=(0,))
    assert next_text(single, Words("en")) == "There is no cheapest decisive experiment: fewer than two shared seeds."
    nothing = _facts(tmp_path / "c", scored=False)
    assert next_text(nothing, Words("en")).startswith("Nothing is compared yet")


def test_each_study_has_a_row(facts: StudyFacts) -> None:
    """The undecided are named, or counted where they are many; both languages show the same numbers."""
    several = [_with_more_seeds(facts, head=3, lora=None), _with_more_seeds(facts, head=None, lora=None)]
    for lang in ("en", "ru"):
        words = Words(lang)
        first, second = next_sheet(several, words).rows
        assert first[1].text == "head, lora" and "3" in first[2].text
        assert first[3].text == words.duration(open_of(several[0]).experiments[0].seconds)
        assert second[3].text == "—" and second[2].text not in ("", "—")
