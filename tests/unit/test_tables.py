"""The summary of a study, the terminal's table and the answer, from made-up records."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import predict_instead, write_study
from rich.console import Console

from paretune.core.errors import RecordError
from paretune.records.store import StudyFolder
from paretune.report.answer import answer
from paretune.report.budgets import budget_sheet
from paretune.report.facts import gather
from paretune.report.sheets import findings, quality_sheet
from paretune.report.tables import rows_of, summary, terminal_table
from paretune.report.terminal import print_table
from paretune.report.wording import LANGUAGES, Words

FIVE = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "s")


def test_summary_has_every_method_in_order_and_its_own_numbers(folder: Path) -> None:
    """Quality and costs are means over the records of the scored runs, computed here once more by hand."""
    rows = summary(folder)
    assert [row.method for row in rows] == ["majority", "tfidf", "head", "last2", "bitfit", "lora", "full"]
    lora = next(row for row in rows if row.method == "lora")
    runs = [run for run in StudyFolder(folder).runs() if run.spec().method == "lora" and run.scored]
    quality = []
    for run in runs:
        table = run.predictions().to_pandas()
        test = table[table["split"] == "test"]
        quality.append(float((test["label"] == test["prediction"]).mean()))
    assert lora.scored_runs == 3
    assert lora.quality == pytest.approx(np.mean(quality))
    assert lora.train_seconds is not None
    assert lora.train_seconds.value == pytest.approx(np.mean([run.measurements().train_seconds.value for run in runs]))
    assert lora.quality_interval is not None
    assert lora.quality_interval[0] < lora.quality < lora.quality_interval[1]
    assert set(lora.scores) == {"test", "out_of_domain"}
    assert lora.search_seconds == pytest.approx(3 * 47.0)


def test_runs_that_stopped_are_results(folder: Path) -> None:
    """An out-of-memory run is counted and its reason kept; the method's other runs still stand."""
    full = next(row for row in summary(folder) if row.method == "full")
    assert (full.scored_runs, full.stopped) == (2, {"oom": 1})
    assert full.reasons == ("peak of 2.1 GB above the cap of 2.0 GB",)


def test_energy_keeps_its_grade(folder: Path) -> None:
    """An estimate stays marked as one."""
    assert {row.energy_joules.grade for row in summary(folder) if row.energy_joules} == {"estimated"}


def test_quality_away_from_training_leaves_near_duplicates_out(folder: Path) -> None:
    """The second score is over test examples without a near-duplicate in training alone."""
    row = next(row for row in summary(folder) if row.method == "head")
    run = next(run for run in StudyFolder(folder).runs() if run.spec().method == "head")
    table = run.predictions().to_pandas()
    assert table[table["split"] == "test"]["near_duplicate"].sum() > 0
    assert row.quality_away_from_training is not None
    assert row.quality_away_from_training != row.quality


def test_a_method_that_does_not_beat_a_baseline_is_named(tmp_path: Path) -> None:
    """A head that is clearly worse than TF-IDF is said not to beat it; a method that is far better is not."""
    study = write_study(tmp_path / "s", seeds=FIVE, broken=False, quality={"tfidf": 0.8, "head": 0.6, "lora": 0.99})
    facts = gather(StudyFolder(study))
    assert facts.not_beaten["head"] == ["tfidf"]
    assert facts.not_beaten["lora"] == []
    lines = findings(facts, rows_of(facts), Words("en"))
    assert any("baseline tfidf: head" in line for line in lines)
    assert not any("lora" in line for line in lines)


def test_a_run_that_learnt_nothing_is_named(tmp_path: Path) -> None:
    """One class for every test example is said of a trained method, in numbers of runs, and not of a baseline."""
    folder = StudyFolder(write_study(tmp_path / "s", broken=False, methods=("majority", "lora", "full")))
    for run in folder.runs():
        if run.spec().method == "lora" and run.spec().seed > 0:
            predict_instead(run, ["earn"] * run.predictions().num_rows)
    facts = gather(folder)
    assert {label: one.one_class_runs() for label, one in facts.by_label.items()} == {
        "majority": 0,
        "lora": 2,
        "full": 0,
    }
    assert any(line.startswith("lora: 2 runs with one") for line in findings(facts, rows_of(facts), Words("en")))
    assert any(line.startswith("lora: 2 запуска с одним") for line in findings(facts, rows_of(facts), Words("ru")))


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_terminal_table_fits_100_columns(folder: Path, lang: str) -> None:
    """No line is longer than 100 characters, and every method and the failed state are there."""
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    print_table(terminal_table(folder, lang), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= 100
    assert all(name in text for name in ("majority", "tfidf", "full", "lora"))
    assert ("пилот" if lang == "ru" else "pilot") in text


def test_answer_names_the_cheapest_equivalent_method(tmp_path: Path) -> None:
    """Of two methods shown equivalent to the control, the one with less memory is named, with its interval."""
    same = {"last2": 0.95, "lora": 0.95, "full": 0.95, "tfidf": 0.6}
    methods = ("majority", "tfidf", "last2", "lora", "full")
    study = write_study(
        tmp_path / "s", seeds=FIVE, methods=methods, broken=False, quality=same, margin=0.05, test_rows=1500
    )
    said = answer(study, "en")
    assert said.startswith("Take last2: in accuracy it is equivalent to full within ±0.050 (")
    assert "peak memory of 991\u00a0MiB" in said
    assert "pilot" not in said
    assert answer(study, "ru").startswith("Возьмите last2: он равноценен full")


def test_answer_prefers_a_better_method_over_a_cheaper_control(tmp_path: Path) -> None:
    """A method that is shown to be better is named although it needs more memory."""
    study = write_study(
        tmp_path / "s", seeds=FIVE, methods=("head", "full"), control="head", broken=False,
        quality={"head": 0.7, "full": 0.95}, test_rows=600,
    )  # fmt: skip
    assert answer(study, "en").startswith("Take full: in accuracy it is better than head (+0.1")


def test_answer_keeps_the_control_where_all_others_are_worse(tmp_path: Path) -> None:
    """Only shown differences count as worse."""
    study = write_study(
        tmp_path / "s", seeds=FIVE, methods=("majority", "head", "full"), broken=False,
        quality={"head": 0.5, "full": 0.95}, test_rows=600,
    )  # fmt: skip
    assert answer(study, "en") == "Keep full: every other method that was tried is worse in accuracy."


def test_answer_says_undecided_and_what_would_decide(tmp_path: Path) -> None:
    """Two methods of one quality on a small test set are neither different nor equivalent."""
    study = write_study(tmp_path / "s", methods=("lora", "full"), broken=False, test_rows=100, margin=0.002)
    said = answer(study, "en")
    assert said.startswith("Undecided: lora is shown neither to differ from full")
    assert "would decide it" in said or "needed" in said
    assert said.endswith("(pilot: 3 seeds).")


def test_answer_without_a_scored_run(tmp_path: Path) -> None:
    """No number appears from nowhere."""
    study = write_study(tmp_path / "s", scored=False)
    assert answer(study, "en") == "There is no answer yet: no run has been scored (pilot: 3 seeds)."
    assert all(row.quality is None and row.train_seconds is None for row in summary(study))


def test_answer_without_the_control(tmp_path: Path) -> None:
    """Where only the control failed, nothing is compared."""
    study = write_study(tmp_path / "s", methods=("lora", "full"), seeds=(2,))
    assert "the control full has no scored run (0; out of memory × 1)" in answer(study, "en")


def test_one_seed_gives_no_interval(tmp_path: Path) -> None:
    """One seed decides nothing, and the table says why."""
    study = write_study(tmp_path / "s", methods=("tfidf", "lora", "full"), seeds=(0,))
    rows = summary(study)
    assert all(row.quality_interval is None and row.difference_interval is None for row in rows)
    facts = gather(StudyFolder(study))
    assert any("One seed" in note for note in quality_sheet(facts, rows, Words("en")).notes)
    assert "at least two seeds" in answer(study, "en")


def test_one_method_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    """A study of the control alone gives its quality and claims nothing."""
    study = write_study(tmp_path / "s", methods=("full",), broken=False)
    assert answer(study, "en").startswith("Only full has scored runs (accuracy 0.9")


def test_runs_on_other_test_examples_are_refused(tmp_path: Path) -> None:
    """Paired statistics over different examples would be wrong, so the folder is an error of one line."""
    study = write_study(tmp_path / "s", methods=("lora", "full"), broken=False)
    run = next(run for run in StudyFolder(study).runs() if run.spec().method == "lora")
    run.write_predictions(run.predictions().slice(1))
    with pytest.raises(RecordError, match="other test examples"):
        summary(study)


def test_a_folder_without_a_study_is_an_error_of_one_line(tmp_path: Path) -> None:
    """The message says which file is missing."""
    with pytest.raises(RecordError, match=r"study\.json"):
        summary(tmp_path)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_majority_class_is_never_the_answer(tmp_path: Path, lang: str) -> None:
    """Where nothing that learns is shown to be better than it, that is said, and neither answer nor budgets name it."""
    lost = {"tfidf": 0.0, "lora": 0.0, "full": 0.0}
    study = write_study(
        tmp_path / "s", seeds=FIVE, methods=("majority", *lost), broken=False, quality=lost, test_rows=200, margin=0.4
    )
    facts, words = gather(StudyFolder(study)), Words(lang)
    rows = rows_of(facts)
    assert facts.nothing_learnt
    assert next(row for row in rows if not row.learns).verdict == "equivalent"  # and still it is no method to take
    take, told = ("Take", "nothing that learns") if lang == "en" else ("Возьмите", "хоть один обучаемый метод")
    said = answer(study, lang)
    assert said.startswith(f"{take} tfidf") and told in said
    sheet = budget_sheet(facts, words)
    assert sheet is not None
    assert not any("majority" in cell.text + cell.note for row in sheet.rows for cell in row)


def test_what_beats_the_majority_class_says_nothing_of_it(tmp_path: Path) -> None:
    """One method that learnt is enough; a baseline that is not shown to be above it is named among the findings."""
    study = write_study(
        tmp_path / "s", seeds=FIVE, methods=("majority", "tfidf", "full"), broken=False, quality={"tfidf": 0.0},
        test_rows=200,
    )  # fmt: skip
    facts = gather(StudyFolder(study))
    assert not facts.nothing_learnt and facts.not_beaten == {"tfidf": ["majority"], "full": []}
    assert "most frequent class" not in answer(study, "en")
    alone = write_study(tmp_path / "alone", seeds=FIVE, methods=("majority", "full"), broken=False, test_rows=60)
    assert answer(alone, "en").startswith("Beside the most frequent class only full has scored runs (accuracy 0.9")
