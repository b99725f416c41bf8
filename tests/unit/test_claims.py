"""Claims are judged by their rules over records, and a report does not build on one that no longer holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.core.config import load_toml
from paretune.core.errors import ConfigError, RecordError, UnknownNameError
from paretune.records.store import StudyFolder
from paretune.report.claims import Ledger, check_claims, flipped, judged
from paretune.report.facts import StudyFacts, gather
from paretune.report.wording import Words

FIVE = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> StudyFacts:
    folder = write_study(
        tmp_path_factory.mktemp("claims") / "s",
        seeds=FIVE,
        broken=False,
        quality={"lora": 0.95, "full": 0.95, "head": 0.7},
        test_rows=1500,
    )
    return gather(StudyFolder(folder))


def _ledger(tmp_path: Path, verdict: str = "supported", **conditions: str) -> Ledger:
    lines = [
        "[claims.one]",
        'en = "The figures: {a}."',
        'ru = "Числа: {a}."',
        f'verdict = "{verdict}"',
        *(f"when.{name} = {{{condition}}}" for name, condition in conditions.items()),
    ]
    file = tmp_path / "claims.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return load_toml(file, Ledger)


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ('method = "lora", than = "head", rule = "better"', "supported"),
        ('method = "head", than = "lora", rule = "better"', "refuted"),
        ('method = "lora", than = "full", rule = "better"', "undecided"),
        ('method = "lora", than = "full", rule = "equivalent", margin = 0.05', "supported"),
        ('method = "head", than = "full", rule = "equivalent", margin = 0.05', "refuted"),
        ('method = "lora", than = "full", rule = "equivalent", margin = 0.001', "undecided"),
        ('method = "lora", than = "full", rule = "not_worse", margin = 0.05', "supported"),
        ('method = "head", than = "full", rule = "not_worse", margin = 0.05', "refuted"),
        ('method = "lora", than = "full", rule = "not_worse", margin = 0.0001', "undecided"),
        ('method = "head", than = "full", rule = "at_most", cost = "peak_memory", ratio = 0.5', "supported"),
        ('method = "head", than = "full", rule = "at_least", cost = "peak_memory", ratio = 0.5', "refuted"),
        ('method = "lora", than = "full", rule = "at_most", cost = "peak_memory", ratio = 0.2', "refuted"),
        ('method = "lora", than = "full", rule = "at_most", cost = "trainable_parameters", ratio = 0.02', "supported"),
    ],
)
def test_a_rule_gives_its_verdict(facts: StudyFacts, tmp_path: Path, condition: str, verdict: str) -> None:
    """Better, not worse, equivalent, at most and at least: each supported, refuted and undecided."""
    found = judged(_ledger(tmp_path, a=f'study = "s", {condition}'), {"s": facts})["one"]
    assert found.verdict == verdict
    evidence = found.evidence["a"]
    assert evidence.low is not None and evidence.high is not None and evidence.estimate is not None
    assert evidence.low <= evidence.estimate <= evidence.high
    assert len(evidence.run_ids) == len(set(evidence.run_ids)) == 10


@pytest.mark.parametrize(("p_holm", "verdict"), [(0.04, "supported"), (0.07, "undecided")])
@pytest.mark.parametrize(("method", "than"), [("full", "head"), ("head", "full")])
def test_a_difference_to_the_control_is_corrected(
    facts: StudyFacts, tmp_path: Path, p_holm: float, verdict: str, method: str, than: str
) -> None:
    """A claim says no more than the study's own table: with Holm's correction, whichever side the control is on."""
    corrected = dict(facts.comparisons)
    corrected["head"] = replace(corrected["head"], p_holm=p_holm)
    facts = replace(facts)
    facts.__dict__["comparisons"] = corrected  # in place of the cached property
    condition = f'study = "s", method = "{method}", than = "{than}", rule = "better"'
    found = judged(_ledger(tmp_path, a=condition), {"s": facts})["one"]
    assert found.verdict == (verdict if method == "full" else "refuted")


def test_runs_that_learnt_nothing_are_counted(facts: StudyFacts, tmp_path: Path) -> None:
    """A count without an interval; the figure is a whole number."""
    condition = 'study = "s", method = "lora", rule = "one_class", runs = 1'
    never = 'study = "s", method = "lora", rule = "never_one_class"'
    found = judged(_ledger(tmp_path, a=condition), {"s": facts})["one"]
    assert (found.verdict, found.evidence["a"].estimate) == ("refuted", 0.0)
    assert judged(_ledger(tmp_path, a=never), {"s": facts})["one"].verdict == "supported"
    run = facts.by_label["lora"].runs[2]
    test = run.splits["test"]
    kept = list(test.predictions)
    test.predictions[:] = ["earn"] * len(kept)
    try:
        found = judged(_ledger(tmp_path, a=condition), {"s": facts})["one"]
        collapsed = judged(_ledger(tmp_path, a=never), {"s": facts})["one"]
    finally:
        test.predictions[:] = kept
    assert (collapsed.verdict, collapsed.sentence(Words("ru"))) == ("refuted", "Числа: 1.")
    assert (found.verdict, found.sentence(Words("ru"))) == ("supported", "Числа: 1.")


def test_all_conditions_must_hold(facts: StudyFacts, tmp_path: Path) -> None:
    """One that is undecided leaves the claim undecided, one that is refuted refutes it."""
    good = 'study = "s", method = "lora", than = "head", rule = "better"'
    unsure = 'study = "s", method = "lora", than = "full", rule = "better"'
    wrong = 'study = "s", method = "head", than = "lora", rule = "better"'
    assert judged(_ledger(tmp_path, a=good, b=good), {"s": facts})["one"].verdict == "supported"
    assert judged(_ledger(tmp_path, a=good, b=unsure), {"s": facts})["one"].verdict == "undecided"
    assert judged(_ledger(tmp_path, a=wrong, b=unsure), {"s": facts})["one"].verdict == "refuted"


def test_a_sentence_carries_its_figures(facts: StudyFacts, tmp_path: Path) -> None:
    """In both languages the same numbers, each in its own spelling."""
    found = judged(_ledger(tmp_path, a='study = "s", method = "lora", than = "head", rule = "better"'), {"s": facts})
    one = found["one"].evidence["a"]
    assert one.estimate is not None
    english, russian = (found["one"].sentence(Words(lang)) for lang in ("en", "ru"))
    assert english.startswith(f"The figures: +{one.estimate:.3f} [+")
    assert russian.startswith(f"Числа: +{one.estimate:.3f} [+".replace(".", ","))


def test_what_was_not_run_is_not_measured(facts: StudyFacts, tmp_path: Path) -> None:
    """A study that is not there, never a number from nowhere."""
    ledger = _ledger(tmp_path, "not_measured", a='study = "other", method = "x", than = "y", rule = "better"')
    found = judged(ledger, {"s": facts})["one"]
    assert found.verdict == "not_measured"
    assert found.sentence(Words("en")) == "The figures: not measured."
    check_claims({"one": found})


def test_claims_of_studies_that_were_not_given_are_counted_not_listed(facts: StudyFacts, tmp_path: Path) -> None:
    """A report over some of the ledger's studies: one short line that says what to give; a refuted claim stays."""
    elsewhere = _ledger(tmp_path, a='study = "other", method = "x", than = "y", rule = "better"').claims["one"]
    unread = judged(Ledger(claims={f"claim-{place}": elsewhere for place in range(25)}), {"s": facts})
    with pytest.raises(RecordError, match=r"^claim-0, claim-1, claim-2 and 22 more: not_measured .*--claims") as error:
        check_claims(unread)
    assert len(str(error.value)) < 250
    refuted = _ledger(tmp_path, a='study = "s", method = "head", than = "lora", rule = "better"')
    with pytest.raises(RecordError, match=r"^one: supported in the ledger, refuted by the records; claim-0, .* more"):
        check_claims(judged(refuted, {"s": facts}) | unread)


def test_a_claim_that_no_longer_holds_stops_the_build(facts: StudyFacts, tmp_path: Path) -> None:
    """Both verdicts are named."""
    ledger = _ledger(tmp_path, "supported", a='study = "s", method = "head", than = "lora", rule = "better"')
    found = judged(ledger, {"s": facts})
    assert [one.name for one in flipped(found)] == ["one"]
    with pytest.raises(RecordError, match="one: supported in the ledger, refuted by the records"):
        check_claims(found)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ('method = "lora", than = "full", rule = "not_worse"', "margin"),
        ('method = "lora", than = "full", rule = "better", margin = 0.1', "better with than, margin"),
        ('method = "lora", than = "full", rule = "at_most", ratio = 0.1', "cost, ratio"),
        ('method = "lora", than = "full", rule = "faster"', "rule"),
        ('method = "lora", than = "full", rule = "one_class"', "one_class with than"),
        ('method = "lora", rule = "better"', "expected than"),
    ],
)
def test_a_rule_needs_its_limits(tmp_path: Path, condition: str, said: str) -> None:
    """One line says which."""
    with pytest.raises(ConfigError, match=said):
        _ledger(tmp_path, a=f'study = "s", {condition}')


def test_an_unknown_method_has_its_nearest(facts: StudyFacts, tmp_path: Path) -> None:
    """A slip of the pen is not "not measured"."""
    ledger = _ledger(tmp_path, a='study = "s", method = "lorra", than = "full", rule = "better"')
    with pytest.raises(UnknownNameError, match="'lora'"):
        judged(ledger, {"s": facts})


def test_an_estimated_cost_carries_no_claim_and_stops_no_other(facts: StudyFacts, tmp_path: Path) -> None:
    """SCIENCE 8: nothing is ranked by what was not measured; that claim says why, and the others are judged."""
    lora = facts.by_label["lora"]
    seed = min(lora.runs)
    run = lora.runs[seed]
    graded = run.measurements.train_seconds.model_copy(update={"grade": "estimated"})
    measured = run.measurements.model_copy(update={"train_seconds": graded})
    object.__setattr__(run, "measurements", measured)
    condition = 'study = "s", method = "lora", than = "full", rule = "at_most", cost = "train_seconds", ratio = 2.0'
    estimated = _ledger(tmp_path, a=condition).claims["one"]
    other = condition.replace("train_seconds", "peak_memory")
    measured_claim = _ledger(tmp_path, a=other).claims["one"]
    found = judged(Ledger(claims={"one": estimated, "two": measured_claim}), {"s": facts})
    assert (found["one"].verdict, found["two"].verdict) == ("not_measured", "supported")
    (why,) = found["one"].unchecked(Words("en"))
    assert "estimated, not measured" in why and run.id in why and found["two"].unchecked(Words("en")) == []
    assert "оценка" in found["one"].unchecked(Words("ru"))[0]
    with pytest.raises(RecordError, match=f"one: supported in the ledger, not_measured by the records .*{run.id}"):
        check_claims(found)
