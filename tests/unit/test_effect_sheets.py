"""Effects of settings as tables, and the advice that follows, from generated records with planted effects."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import write_study

from paretune.core.errors import UnknownNameError
from paretune.dashboard.generated import Size, write_generated
from paretune.records.store import StudyFolder
from paretune.report.budgets import budget_data
from paretune.report.claims import Ledger, judged
from paretune.report.draws import draws_of
from paretune.report.effect_claims import EffectCondition, weigh_effect
from paretune.report.effect_sheets import advice_of, effect_sheets, pairs_of, standing_of
from paretune.report.factors import effects_of, groups_of
from paretune.report.facts import StudyFacts, gather
from paretune.report.wording import Words
from paretune.stats.designs import coded
from paretune.stats.effects import LevelEffect, fit_effects
from paretune.stats.intervals import Interval

PAIRS = [("targets", "layers")]
STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> StudyFacts:
    """Sixty settings: quality rises with the rank, is lower with two layers, and knows nothing of the rest."""
    folder = tmp_path_factory.mktemp("effects") / "s"
    return gather(StudyFolder(write_generated(folder, Size(methods=60, seeds=2, test_rows=800, steps=3))))


def test_tables_hold_the_effects_of_the_model(facts: StudyFacts) -> None:
    """Main effects and the named interaction, of one model; a row for each level and each pair of levels."""
    (group,) = groups_of(facts)
    words = Words("en")
    main, paired = effect_sheets(facts, group, effects_of(facts, group, PAIRS), words)
    runs = [(label, value) for label in group.settings for value in facts.example_values[label].values()]
    settings = [group.settings[label] for label, _ in runs]
    wanted = fit_effects(settings, group.factors, np.stack([value for _, value in runs]), PAIRS)
    assert len(main.rows) == sum(len(levels) for levels in group.factors.values())
    assert len(paired.rows) == len(group.factors["targets"]) * len(group.factors["layers"])
    for row, one in zip((*main.rows, *paired.rows), wanted.effects, strict=True):
        assert row[2].text == words.number(one.interval.estimate, signed=True)
        assert row[3].text == words.spread(one.interval.low, one.interval.high, signed=True)
    assert main.rows[0][5].text == "worse than the mean" and main.rows[0][1].text == "1"
    assert sum(int(row[4].text) for row in main.rows if row[0].text == "dropout") == len(runs)


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [
        (0.001, 0.004, "within"),
        (0.001, 0.02, "better"),
        (-0.02, -0.001, "worse"),
        (-0.02, 0.001, "undecided"),
        (-np.inf, np.inf, "undecided"),
    ],
)
def test_a_level_is_judged_as_a_method_is(low: float, high: float, standing: str) -> None:
    """First the margin, then the sign, and undecided is an outcome."""
    one = LevelEffect(("rank",), (1,), Interval((low + high) / 2 if np.isfinite(low) else 0.0, low, high, 3.0))
    assert standing_of(one, margin=0.01) == standing


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_advice_is_three_sentences_from_the_records(facts: StudyFacts, lang: str) -> None:
    """The likeliest best of each budget with its quality, by memory and by time; then which settings matter."""
    words = Words(lang)
    text = advice_of(facts, words, PAIRS)
    assert len(re.findall(r"\.(?= |$)", text)) == 3
    draws = draws_of(facts)
    assert draws is not None
    last = ""
    for one in budget_data(draws):
        best, share = one.ranked[0]
        assert f"{best} (" in text and words.number(facts.quality[best].estimate) in text
        assert best == last or words.percent(share) in text  # a larger budget that changes nothing is left out
        last = best
    last = text.rpartition(". ")[2]
    expected = {
        "en": "Settings: these matter: rank, layers; these do not, within the margin: dropout, targets, "
        "targets × layers.",
        "ru": "Настройки: важны — rank, layers; неважны в пределах допуска — dropout, targets, targets × layers.",
    }
    assert last == expected[lang]


def test_advice_says_what_it_cannot_tell(tmp_path: Path) -> None:
    """Effects that the runs do not tell apart, a single method in a budget, nothing measured."""
    few = gather(StudyFolder(write_generated(tmp_path / "few", Size(methods=3, seeds=1, test_rows=40, steps=3))))
    text = advice_of(few, Words("en"), [])
    assert text.endswith("What each setting does stayed undecided: the runs do not tell their effects apart.")
    assert re.search(r"By memory: with [\d.,]+.[GM]iB only \S+ fits \(accuracy", text)
    nothing = gather(StudyFolder(write_study(tmp_path / "none", methods=("lora", "full"), scored=False)))
    assert advice_of(nothing, Words("en")) == "Nothing was measured that advice could rest on."


def test_no_fit_has_no_table(facts: StudyFacts) -> None:
    """More columns than runs: nothing is invented."""
    (group,) = groups_of(facts)
    fewer = replace(facts, methods=facts.methods[:4])
    (some,) = groups_of(fewer)
    assert effect_sheets(fewer, some, effects_of(fewer, some), Words("en")) == []
    with pytest.raises(UnknownNameError, match="'targets'"):
        effects_of(facts, group, [("target", "layers")])


def test_interactions_are_named_in_a_slot() -> None:
    """Pairs after a colon, several after a comma."""
    assert pairs_of("targets:layers,rank:dropout") == [("targets", "layers"), ("rank", "dropout")]
    assert pairs_of("") == []


@pytest.mark.parametrize("name", ["lora-settings-r8", "lora-settings-emotions"])
def test_the_shipped_design_tells_its_effects_apart(facts: StudyFacts, name: str) -> None:
    """The settings of the study file, as records hold them, give the 21 columns that the chapter tells of."""
    study = tomllib.loads((STUDIES / f"{name}.toml").read_text("utf-8"))
    usual = {
        "rank": 8, "alpha": None, "dropout": 0.0, "targets": "all_linear", "layers": None, "rank_stabilised": False
    }  # fmt: skip
    methods = []
    for label, table in study["methods"].items():
        settings = {**usual, **{key: value for key, value in table.items() if key != "kind"}}
        record = facts.methods[0].record.model_copy(update={"label": label, "settings": settings})
        methods.append(replace(facts.methods[0], record=record))
    (group,) = groups_of(replace(facts, methods=methods))
    assert group.factors["alpha rule"] == ["16", "2r", "r", "rs 16"]
    matrix, _ = coded(list(group.settings.values()), group.factors, PAIRS)
    assert matrix.shape == (28, 21) and np.linalg.matrix_rank(matrix) == 21


@pytest.mark.parametrize(
    ("setting", "margin", "verdict"),
    [
        ("dropout", 0.05, "supported"),
        ("rank", 0.001, "refuted"),
        ("dropout", 0.0001, "undecided"),
        ("rank", 0.5, "supported"),
    ],
)
def test_a_claim_may_be_about_a_setting(facts: StudyFacts, setting: str, margin: float, verdict: str) -> None:
    """All levels inside the margin, one outside, or neither; it shows the level that lies farthest from the mean."""
    found = weigh_effect(
        EffectCondition(study="s", setting=setting, beside=("targets", "layers"), margin=margin), facts
    )
    assert found.verdict == verdict
    (group,) = groups_of(facts)
    fit = effects_of(facts, group, PAIRS).fit
    assert fit is not None and found.farthest is not None
    assert abs(found.farthest.interval.estimate) == max(abs(one.interval.estimate) for one in fit.of(setting))
    assert len(found.run_ids) == 120


def test_a_sentence_shows_the_farthest_level_and_a_missing_study_is_not_measured(facts: StudyFacts) -> None:
    """With its sign and interval; an unknown setting is refused with the nearest."""
    one = {"study": "s", "setting": "rank", "margin": 0.5}
    claim = {"en": "It lies at {a}.", "ru": "Он отстоит на {a}.", "verdict": "supported", "effect": {"a": one}}
    ledger = Ledger.model_validate({"claims": {"c": claim}})
    assert re.fullmatch(
        r"It lies at [−+]0\.\d{3} \[[−+]\d\.\d{3} … [−+]\d\.\d{3}\]\.",
        judged(ledger, {"s": facts})["c"].sentence(Words("en")),
    )
    assert judged(ledger, {})["c"].verdict == "not_measured"
    with pytest.raises(UnknownNameError, match="rank"):
        weigh_effect(EffectCondition(study="s", setting="rang", margin=0.1), facts)
