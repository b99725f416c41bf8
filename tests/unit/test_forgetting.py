"""Forgetting of an earlier task from records: golden values by hand, the table, and what must not be said."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest
from fabricated_study import write_study
from forgetful_study import a_study, rows_for
from scipy import stats

from paretune.core.errors import RecordError
from paretune.records.store import StudyFolder
from paretune.report.build import build
from paretune.report.facts import gather
from paretune.report.forgetting import forgetting_rows, forgetting_section, forgetting_sheet
from paretune.report.tables import rows_of
from paretune.report.wording import Words


def test_forgetting_is_before_minus_after_with_the_crossed_interval(tmp_path: Path) -> None:
    """By hand: lost = [0 0 1 1] and [0 1 0 1], mean ½; mean squares of seeds 0, of examples ⅓, of the rest ⅓; so the
    variance is max(0, 0, ⅓) / 8 = 1/24 and Satterthwaite's degrees of freedom (1/9) / (1/27 + 1/27) = 1.5."""
    found = {row.method: row for row in forgetting_rows(gather(a_study(tmp_path)))}
    full = found["full"]
    assert full.before.estimate == 1.0 and full.after is not None and full.after.estimate == 0.5
    assert full.forgetting is not None
    assert full.forgetting.estimate == pytest.approx(0.5) and full.forgetting.df == pytest.approx(1.5)
    half = stats.t.ppf(0.975, 1.5) * math.sqrt(1 / 24)
    assert full.forgetting.low == pytest.approx(0.5 - half)
    assert full.forgetting.high == 1.0 < 0.5 + half, "nobody forgets more than all"
    assert full.kept is None and not full.unchanged, "the control is not compared with itself"


def test_a_method_that_keeps_all_is_above_the_control_by_what_that_one_lost(tmp_path: Path) -> None:
    """Head only: exactly zero; kept − kept of the control is +½ with the same doubt, so it stays undecided here."""
    head = next(row for row in forgetting_rows(gather(a_study(tmp_path))) if row.method == "head")
    assert head.forgetting is not None and (head.forgetting.estimate, head.forgetting.low) == (0.0, 0.0)
    assert head.unchanged
    assert head.kept is not None and head.kept.difference is not None
    assert head.kept.difference.estimate == pytest.approx(0.5)
    assert head.kept.verdict == "undecided"


def test_a_baseline_has_a_level_before_and_nothing_to_forget(tmp_path: Path) -> None:
    """TF-IDF is right on one text of four, whatever comes later; a method that does not beat it there is named."""
    found = {row.method: row for row in forgetting_rows(gather(a_study(tmp_path)))}
    baseline = found["tfidf"]
    assert baseline.before.estimate == 0.25 and baseline.after is None and baseline.forgetting is None
    assert baseline.kept is None and baseline.baselines_not_beaten == ()
    assert found["full"].baselines_not_beaten == ("tfidf",), "+0.75 with an interval that reaches below 0"


def test_what_was_never_learnt_gets_no_verdict(tmp_path: Path) -> None:
    """A method, and a control, that say one and the same before and after are not equivalent in forgetting."""
    same = ((1, 0, 1, 0), (1, 0, 1, 0))
    answers = {"majority": [((1, 0, 1, 0), None)] * 2, "head": [same] * 2, "full": [same] * 2}
    facts = gather(a_study(tmp_path, answers))
    rows = {row.method: row for row in forgetting_rows(facts)}
    assert rows["head"].nothing_learnt and rows["full"].nothing_learnt and not rows["majority"].nothing_learnt
    assert rows["head"].kept is not None and rows["head"].kept.verdict == "equivalent", "by the numbers alone"
    sheet = forgetting_sheet(facts, rows_of(facts), Words("en"))
    assert sheet is not None
    verdicts = {row[0].text: (row[6].text, row[6].note) for row in sheet.rows}
    assert verdicts == {
        "majority": ("—", ""),
        "head": ("—", "no learning shown"),
        "full": ("control", "no learning shown"),
    }


def test_only_the_weakest_baseline_says_that_nothing_was_learnt(tmp_path: Path) -> None:
    """What beats the majority class but not TF-IDF has something to forget, and the stronger one is named."""
    answers = {
        "majority": [((0,) * 40, None)] * 2,
        "tfidf": [((1,) * 30 + (0,) * 10, None)] * 2,
        "full": [((1,) * 28 + (0,) * 12, (1,) * 20 + (0,) * 20)] * 2,
    }
    facts = gather(a_study(tmp_path, answers))
    full = next(row for row in forgetting_rows(facts) if row.method == "full")
    assert not full.nothing_learnt and full.baselines_not_beaten == ("tfidf",)
    section = forgetting_section(facts, rows_of(facts), Words("en"))
    assert section is not None and len(section.findings) == 1 and "baseline tfidf" in section.findings[0]


def test_the_metric_is_the_earlier_tasks_own(tmp_path: Path) -> None:
    """By hand, macro-F1 of full after: seed 0 has one of two right in both classes, ½; seed 1 says a to all four, which
    is F1 2·2/(2 + 4) = ⅔ for a and 0 for b, ⅓; together 5/12."""
    folder = a_study(tmp_path, metric="macro_f1")
    full = next(row for row in forgetting_rows(gather(folder)) if row.method == "full")
    assert full.after is not None and full.after.estimate == pytest.approx(5 / 12)
    assert full.forgetting is not None and full.forgetting.estimate == pytest.approx(7 / 12)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    """A single run's forgetting is a number without ends, and without a comparison."""
    folder = a_study(tmp_path, seeds=(0,))
    rows = {row.method: row for row in forgetting_rows(gather(folder))}
    forgetting = rows["full"].forgetting
    assert forgetting is not None and forgetting.estimate == 0.5 and math.isinf(forgetting.high)
    assert rows["head"].kept is not None and rows["head"].kept.difference is None
    sheet = forgetting_sheet(gather(folder), rows_of(gather(folder)), Words("en"))
    assert sheet is not None and "inf" not in str(sheet) and "nan" not in str(sheet)


@pytest.mark.parametrize(("lang", "words"), [("en", "no prediction changed"), ("ru", "ни один ответ не изменился")])
def test_the_report_has_the_table(tmp_path: Path, lang: str, words: str) -> None:
    """Before, after and forgetting stand in the page in its language; the quality on the own task is beside them."""
    folder = a_study(tmp_path)
    facts = gather(folder)
    sheet = forgetting_sheet(facts, rows_of(facts), Words(lang))
    assert sheet is not None
    lines = {row[0].text: [cell.text for cell in row] for row in sheet.rows}
    comma = "," if lang == "ru" else "."
    assert lines["full"][1:4] == [f"1{comma}000", f"0{comma}500", f"+0{comma}500"]
    assert lines["tfidf"][1:5] == [f"0{comma}250", "—", "—", "—"]
    html = build(folder.path, lang).read_text("utf-8")
    assert words in html and "letters" in html
    assert ("Forgetting cannot be judged: before" if lang == "en" else "О забывании судить нельзя: до задачи") in html


def test_a_study_without_an_earlier_task_has_no_such_section(tmp_path: Path) -> None:
    """Nothing is said of forgetting where there is nothing to forget."""
    facts = gather(StudyFolder(write_study(tmp_path / "s", methods=("tfidf", "full"), broken=False)))
    assert forgetting_rows(facts) == [] and forgetting_section(facts, rows_of(facts), Words("en")) is None


def test_runs_with_other_examples_of_the_earlier_task_are_refused(tmp_path: Path) -> None:
    """Pairing needs the same texts: a run that has others is named."""
    folder = a_study(tmp_path)
    run = next(run for run in folder.runs() if run.spec().method == "full")
    rows = rows_for("before", (1, 1, 1, 1), "wxy?") + rows_for("after", (1, 1, 1, 1), "wxy?")
    run.write_earlier(pa.Table.from_pylist(rows))
    with pytest.raises(RecordError, match=f"{run.id}.*other test examples of the earlier task") as caught:
        forgetting_rows(gather(folder))
    assert "\n" not in str(caught.value)
