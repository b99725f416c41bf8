"""Claims about forgetting and about the recall of rare classes are judged by the study's own tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricated_study import write_study
from forgetful_study import ANSWERS, a_study
from pydantic import ValidationError

from paretune.records.store import StudyFolder
from paretune.report.aspect_claims import AspectCondition, weigh_aspect
from paretune.report.claims import Ledger, judged
from paretune.report.facts import StudyFacts, gather
from paretune.report.forgetting import forgetting_rows
from paretune.report.rare_classes import rare_classes, rare_classes_sheet, rare_rows
from paretune.report.tables import rows_of
from paretune.report.wording import Words

MANY = 400
ALL, HALF, MOST = (1,) * MANY, (1, 0) * (MANY // 2), (1, 1, 1, 0) * (MANY // 4)


def forgetful(tmp_path: Path) -> StudyFacts:
    """The control loses a quarter, `lora` half of what it knew, `head` nothing; `last2` never learnt anything."""
    answers = {
        "majority": [(HALF, None)] * 2,
        "head": [(MOST, MOST)] * 2,
        "lora": [(ALL, HALF)] * 2,
        "last2": [(HALF, HALF)] * 2,
        "full": [(ALL, MOST)] * 2,
    }
    return gather(a_study(tmp_path, answers))


@pytest.mark.parametrize(
    ("method", "rule", "verdict"),
    [
        ("full", "forgets", "supported"),
        ("head", "forgets", "refuted"),
        ("head", "better", "supported"),
        ("lora", "better", "refuted"),
        ("lora", "equivalent", "refuted"),
        ("last2", "forgets", "not_measured"),
        ("majority", "forgets", "not_measured"),
        ("full", "better", "not_measured"),
    ],
)
def test_forgetting_has_each_verdict(tmp_path: Path, method: str, rule: str, verdict: str) -> None:
    """Of the method alone and against the control; what never learnt anything, and the control itself, have none."""
    condition = AspectCondition.model_validate({"study": "s", "method": method, "aspect": "forgetting", "rule": rule})
    found = weigh_aspect(condition, forgetful(tmp_path))
    assert found.verdict == verdict


def test_few_texts_leave_it_undecided(tmp_path: Path) -> None:
    """Four texts and two seeds: half is lost, with an interval that reaches below zero."""
    facts = gather(a_study(tmp_path, {name: ANSWERS[name] for name in ("head", "full")}))
    for method, rule in (("full", "forgets"), ("head", "better"), ("head", "equivalent")):
        condition = AspectCondition.model_validate(
            {"study": "s", "method": method, "aspect": "forgetting", "rule": rule}
        )
        assert weigh_aspect(condition, facts).verdict == "undecided"


def test_a_sentence_has_what_the_table_has(tmp_path: Path) -> None:
    """Figures and runs: what was lost stands without a sign, a difference with one."""
    facts = forgetful(tmp_path)
    ledger = Ledger.model_validate({
        "claims": {
            "one": {
                "en": "Lost: {lost}; kept: {kept}.", "ru": "{lost} {kept}", "verdict": "supported",
                "aspect": {
                    "lost": {"study": "s", "method": "full", "aspect": "forgetting", "rule": "forgets"},
                    "kept": {"study": "s", "method": "head", "aspect": "forgetting", "rule": "better"},
                },
            }
        }
    })  # fmt: skip
    found = judged(ledger, {"s": facts})["one"]
    rows = {row.method: row for row in forgetting_rows(facts)}
    lost, kept = rows["full"].forgetting, rows["head"].kept
    assert lost is not None and kept is not None and kept.difference is not None
    assert found.verdict == "supported"
    assert found.evidence["lost"].low == pytest.approx(lost.low)
    assert found.evidence["kept"].high == pytest.approx(kept.difference.high)
    assert len(found.evidence["lost"].run_ids) == 2 and len(found.evidence["kept"].run_ids) == 4
    assert "Lost: 0.250 [" in found.sentence(Words("en")) and "kept: +0.250 [" in found.sentence(Words("en"))
    assert judged(ledger, {})["one"].verdict == "not_measured"


def test_the_recall_of_rare_classes_is_that_of_the_table(tmp_path: Path) -> None:
    """The same difference to the control, with the interval that the verdict follows: of p, or of equivalence."""
    quality = {"lora": 0.3, "full": 0.9}
    facts = gather(StudyFolder(write_study(tmp_path / "s", broken=False, quality=quality, test_rows=1500)))
    rare = rare_classes(facts)
    assert rare is not None
    compared = {row.method: row for row in rare_rows(facts, rare)}["lora"].against_control
    assert compared is not None and compared.zero is not None and compared.margin is not None
    for rule, tested in (("better", compared.zero), ("equivalent", compared.margin)):
        condition = AspectCondition.model_validate(
            {"study": "s", "method": "lora", "aspect": "rare_recall", "rule": rule}
        )
        found = weigh_aspect(condition, facts)
        assert (found.interval, found.level, found.verdict) == (tested.interval, tested.level, "refuted")
    words = Words("en")
    sheet = rare_classes_sheet(facts, rows_of(facts), words)
    assert sheet is not None
    cells = {cell.note for row in sheet.rows for cell in row}
    assert words.spread(compared.zero.interval.low, compared.zero.interval.high) in " ".join(cells)


def test_a_rule_that_means_nothing_is_refused() -> None:
    """Recall is not forgotten."""
    with pytest.raises(ValidationError, match="rare_recall that forgets; expected better or equivalent"):
        AspectCondition(study="s", method="full", aspect="rare_recall", rule="forgets")
