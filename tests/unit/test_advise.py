"""Advice from made-up records: what is ranked, what is not, and what is said of the distance."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from fabricated_study import METHODS, write_study

from paretune.core.config import canonical_hash
from paretune.core.errors import ConfigError, RecordError
from paretune.records.store import StudyFolder
from paretune.report.facts import gather
from paretune.report.wording import Words
from paretune.stats.intervals import Interval
from paretune.stats.metrics import METRICS, metric_named
from paretune.study.advise import Advice, Advised, advise, advise_on
from paretune.study.advise_case import Case, distance
from paretune.study.advise_lines import advise_lines
from paretune.study.advise_pooling import pooled
from paretune.study.advise_records import Evidence, as_file, evidence_of, filled, shipped

CASE = Case(rows=480, classes=4, tokens=41.25)
RANKED = [method[0] for method in METHODS if method[0] != "majority"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "made", test_rows=120)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_study(
        tmp_path_factory.mktemp("study") / "other",
        methods=("tfidf", "lora", "full"),
        test_rows=120,
        broken=False,
        quality={"lora": 0.9, "full": 0.97},
    )
    _change(path / "study.json", name="other", data_source="asset:reuters-r52")
    return path


def _change(path: Path, **fields: object) -> None:
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, **fields}))


def _of(advice: Advice, method: str) -> Advised:
    return next(one for one in advice.ranked if one.method == method)


def test_methods_are_ranked_by_their_difference_to_the_control(folder: Path) -> None:
    """Without a budget every scored method has a rank, by the difference whose interval the study itself gives."""
    advice = advise([folder], CASE)
    ranks = [one.rank for one in advice.ranked]
    assert ranks == list(range(1, len(RANKED) + 1))
    estimates = [one.difference.estimate for one in advice.ranked]
    assert estimates == sorted(estimates, reverse=True)
    facts = gather(StudyFolder(folder))
    lora = _of(advice, "lora")
    alone = facts.comparisons["lora"].alone
    assert alone is not None and lora.difference == alone.within((-1.0, 1.0))
    assert (lora.seeds, lora.studies) == (2, ("fabricated",))  # the control's third seed ran out of memory
    assert _of(advice, "full").stopped == 1
    assert (advice.metric, advice.control, advice.model) == ("accuracy", "full", "asset:minilm-l6")


def test_distance_is_in_logarithms_of_rows_classes_and_tokens(folder: Path) -> None:
    """Half the rows, as many classes, half the tokens: a logarithm of 2 and half of one at right angles."""
    found = distance(CASE, evidence_of(gather(StudyFolder(folder))))
    assert (found.rows, found.classes, found.tokens) == (0.5, 1.0, 0.5)
    assert found.total == pytest.approx(math.hypot(1, 0.5) * math.log(2))
    assert (found.other_model, found.other_script) == (None, None)
    told = distance(
        Case(480, 4, 41.25, model="asset:e5-small", language="ru"), evidence_of(gather(StudyFolder(folder)))
    )
    assert (told.other_model, told.other_script) == (True, True)


def test_seconds_follow_the_records_throughput(folder: Path) -> None:
    """A case of a quarter of the tokens of all steps takes a quarter of the measured seconds."""
    measured = gather(StudyFolder(folder)).by_label["lora"].measurements()
    geometric = math.exp(sum(math.log(one.train_seconds.value) for one in measured) / len(measured))
    tokens = 960 * 82.5 / 4
    seconds = _of(advise([folder], CASE), "lora").seconds
    assert seconds is not None
    assert seconds.estimate == pytest.approx(geometric * tokens / 80_000 / 1.0, rel=1e-9)
    assert seconds.low < seconds.estimate < seconds.high
    assert seconds.runs == 3
    cut = _of(advise([folder], Case(rows=480, classes=4, tokens=600.0)), "lora").seconds
    assert cut is not None
    assert cut.estimate == pytest.approx(seconds.estimate * 128 / 41.25)  # no text is read beyond max_tokens


def test_a_budget_takes_ranks_away_and_never_gives_them(folder: Path) -> None:
    """What needs more memory or time than there is has no rank; the others keep their order."""
    free = advise([folder], CASE)
    tight = advise([folder], Case(480, 4, 41.25, memory_bytes=1.1e9, seconds=30.0))
    fitting = [one.method for one in tight.ranked if one.rank is not None]
    assert fitting == [one.method for one in free.ranked if one.method in ("last2", "tfidf", "head")]
    assert _of(tight, "full").memory_fits == "no"
    assert _of(tight, "full").rank is None
    nothing = advise([folder], Case(480, 4, 41.25, memory_bytes=1e6))
    assert {one.rank for one in nothing.ranked} == {None}
    lines = _english(nothing)
    assert lines[1] == "No method is known to fit this budget."
    assert any(line.startswith("No rank, more memory is needed than there is: ") for line in lines)
    assert _row(lines, "lora")[0] == "–"


def test_a_time_limit_inside_the_interval_is_unsure(folder: Path) -> None:
    """Where the limit lies between the ends of the interval the method keeps its rank and is marked.

    So is what has two runs, whose interval has no ends: the control and BitFit here.
    """
    seconds = _of(advise([folder], CASE), "lora").seconds
    assert seconds is not None
    advice = advise([folder], Case(480, 4, 41.25, seconds=seconds.estimate))
    assert (_of(advice, "lora").fits, _of(advice, "lora").rank is None) == ("unsure", False)
    two_runs = [one.method for one in advice.ranked if one.seconds is not None and one.seconds.runs == 2]
    assert two_runs == ["full", "bitfit"]
    assert [one.method for one in advice.ranked if one.fits == "unsure"] == ["full", "lora", "bitfit"]
    assert "May not fit the time: full, lora and bitfit" in _english(advice)


def test_nothing_is_ranked_by_an_assumed_quantity(tmp_path: Path) -> None:
    """With a memory limit, a method whose memory was only assumed has no rank."""
    folder = write_study(tmp_path / "made", methods=("lora", "full"), test_rows=60, broken=False)
    for run in StudyFolder(folder).runs():
        if run.spec().method == "lora":
            tree = json.loads((run.path / "measurements.json").read_text())
            _change(run.path / "measurements.json", peak_memory_bytes={**tree["peak_memory_bytes"], "grade": "assumed"})
    advice = advise([folder], Case(480, 4, 41.25, memory_bytes=1e12))
    assert (_of(advice, "lora").memory_fits, _of(advice, "lora").rank) == ("unknown", None)
    assert _of(advice, "full").rank == 1


def test_another_base_model_tells_nothing_of_cost(folder: Path) -> None:
    """Costs of another base model are not carried over: no figures, and no rank under a budget."""
    free = advise([folder], Case(480, 4, 41.25, model="asset:e5-small"))
    assert all(one.peak_memory_bytes is None and one.seconds is None for one in free.ranked)
    assert [one.rank for one in free.ranked] == list(range(1, len(RANKED) + 1))
    limited = advise([folder], Case(480, 4, 41.25, model="asset:e5-small", memory_bytes=1e12))
    assert {(one.rank, one.memory_fits) for one in limited.ranked} == {(None, "unknown")}
    assert any("asset:e5-small was not measured" in line for line in _english(free))


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (Case(rows=9_601, classes=4, tokens=82.5), "far"),
        (Case(rows=960, classes=41, tokens=82.5), "far"),
        (Case(rows=960, classes=4, tokens=0.8), "far"),
        (Case(rows=960, classes=4, tokens=82.5, task="generation"), "task"),
    ],
)
def test_nothing_comparable_is_an_answer(folder: Path, case: Case, why: str) -> None:
    """Over ten times away on any axis, or another task: no method is named, and why each study was left out."""
    advice = advise([folder], case)
    assert advice.nothing_comparable and advice.near == ()
    assert [reason for _, reason in advice.far] == [why]
    text = "\n".join(_english(advice))
    assert "\nNothing comparable was measured" in text and "left out: " in text
    assert not any(re.search(rf"\b{method[0]}\b", text) for method in METHODS if method[0] != "full")


def test_ten_times_is_still_near(folder: Path) -> None:
    """The edge belongs to what is comparable."""
    assert not advise([folder], Case(rows=9_600, classes=40, tokens=0.825)).nothing_comparable


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    """With one seed of one study the difference is told without ends, and every method is tied with the first."""
    folder = write_study(tmp_path / "made", seeds=(0,), methods=("head", "lora", "full"), test_rows=60, broken=False)
    advice = advise([folder], CASE)
    assert not math.isfinite(_of(advice, "lora").difference.high)
    assert [one.tied for one in advice.ranked] == [False, True, True]
    lines = "\n".join(_english(advice))
    assert lines.count("(one seed)") == 2
    assert "(1 run)" in lines


def test_several_studies_widen_the_interval(folder: Path, other: Path) -> None:
    """A method of two studies gets the interval over studies; one of a single study says whose it is."""
    advice = advise([folder, other], CASE)
    assert [one.study for one in advice.near] == ["fabricated", "other"]
    lora = _of(advice, "lora")
    apart = [gather(StudyFolder(path)).comparisons["lora"].alone for path in (folder, other)]
    assert lora.difference == pooled([one for one in apart if one is not None], (-1.0, 1.0))
    assert (lora.studies, lora.seeds) == (("fabricated", "other"), 5)
    (alone,) = [line for line in _english(advice) if line.startswith("Intervals of fabricated alone")]
    assert "head" in alone and "lora" not in alone and "full" not in alone
    assert not any("One study only" in line for line in _english(advice))
    assert any("One study only" in line for line in _english(advise([folder], CASE)))


def _english(advice: Advice) -> list[str]:
    return advise_lines(advice, Words("en"), 400)


def _row(lines: list[str], name: str) -> list[str]:
    """Words of the one line of a table that is about `name`."""
    (found,) = [line.split() for line in lines if name in line.split()[:2]]
    return found


def test_pooled_interval_by_hand() -> None:
    """Of two studies the range of their own intervals, each at 98.75 %; of many that agree the t interval over them."""
    half = 2.306004 * 0.01  # a standard error of 0.01 with 8 degrees of freedom
    wider = 3.205955 * 0.01  # t(8) at 0.99375
    found = pooled([Interval(-0.01, -0.01 - half, -0.01 + half, 8.0), Interval(-0.03, -0.03 - half, -0.03 + half, 8.0)])
    assert found.estimate == pytest.approx(-0.02)
    assert (found.low, found.high) == pytest.approx((-0.03 - wider, -0.01 + wider), rel=1e-5)
    alike = pooled([Interval(0.0, -half, half, 8.0)] * 10)
    assert alike.high == pytest.approx(2.685011 * 0.01 / math.sqrt(10), rel=1e-5)  # t(9) at 0.9875
    one = Interval(0.1, 0.0, 0.2, 3.0)
    assert pooled([one]) == one


def test_what_every_study_shows_is_no_tie_however_few_or_unlike_they_are() -> None:
    """A majority class far below in each study stays below, and no end leaves what a difference can be."""
    two = [Interval(-0.2, -0.23, -0.17, 8.0), Interval(-0.75, -0.78, -0.72, 8.0)]
    for apart in (two, [*two, Interval(-0.9, -0.94, -0.86, 8.0)]):
        found = pooled(apart, (-1.0, 1.0))
        assert -1 <= found.low < -0.75 and -0.2 < found.high < -0.1
    wild = pooled([Interval(-0.4, -1.5, 0.7, 1.1), Interval(-0.5, -1.9, 0.9, 1.1)], (-2.0, 2.0))
    assert (wild.low, wild.high) == (-2.0, 2.0)
    unknown = [Interval(-0.4, -math.inf, math.inf, 0.0)] * 2
    assert not math.isfinite(pooled(unknown).high)


def test_defaults_are_those_of_the_methods() -> None:
    """Filling asks the method itself; what no method knows stays as it is."""
    assert filled("lora", {"rank": 4})["targets"] == "all_linear"
    assert filled("lora", {"rank": 4, "gone": 1}) == {"rank": 4, "gone": 1}
    assert filled("nothing", {"a": 1}) == {"a": 1}


def test_a_baselines_memory_holds_for_no_more_text(folder: Path) -> None:
    """What holds all texts at once has no known memory for more of them; what trains in batches has."""
    more = advise([folder], Case(rows=2000, classes=4, tokens=82.5, memory_bytes=1e12))
    assert (_of(more, "tfidf").memory_fits, _of(more, "tfidf").rank) == ("unknown", None)
    assert _of(more, "lora").memory_fits == "yes"


def test_the_nearest_study_comes_first_and_sets_the_control(folder: Path, other: Path, tmp_path: Path) -> None:
    """Studies with another control than the nearest one's are left out with that reason."""
    strange = write_study(tmp_path / "made", methods=("tfidf", "lora"), control="tfidf", test_rows=60, broken=False)
    _change(strange / "study.json", name="strange", split_rows={"train": 4800, "validation": 1, "test": 60})
    advice = advise([strange, folder, other], CASE)
    assert [one.study for one in advice.near] == ["fabricated", "other"]
    assert [(one.study, why) for one, why in advice.far] == [("strange", "control")]
    assert advise([strange], CASE).control == "tfidf"


def test_a_method_that_never_finished_is_told(tmp_path: Path) -> None:
    """A method whose every run ended without a result has no figures, but is not passed over."""
    folder = write_study(tmp_path / "made", methods=("head", "lora", "full"), test_rows=60, broken=False)
    for run in StudyFolder(folder).runs():
        if run.spec().method == "lora":
            run.set_status("oom", "trained", "peak above the cap")
            for name in ("predictions.parquet", "measurements.json"):
                (run.path / name).unlink()
    advice = advise([folder], CASE)
    assert advice.never_scored == (("fabricated", "lora", ("oom",)),)
    assert any(line.startswith("Never gave a result in study fabricated: lora (") for line in _english(advice))


@pytest.mark.parametrize(
    "case",
    [
        Case(rows=0, classes=4, tokens=80),
        Case(rows=100, classes=1, tokens=80),
        Case(rows=100, classes=4, tokens=0),
        Case(rows=100, classes=4, tokens=math.nan),
        Case(rows=100, classes=4, tokens=80, memory_bytes=-1.0),
        Case(rows=100, classes=4, tokens=80, seconds=0.0),
        Case(rows=100, classes=4, tokens=80, metric="acuracy"),
    ],
)
def test_a_case_that_is_none_is_refused(folder: Path, case: Case) -> None:
    """One line says what was given and what is allowed."""
    with pytest.raises(ConfigError, match="expected"):
        advise([folder], case)


def test_studies_that_are_not_independent_are_told(folder: Path, other: Path, tmp_path: Path) -> None:
    """The same study twice is refused; two studies on one source of data are said to give too narrow intervals."""
    with pytest.raises(ConfigError, match="fabricated twice"):
        advise([folder, other, folder], CASE)
    alike = write_study(tmp_path / "made", methods=("lora", "full"), test_rows=60, broken=False)
    _change(alike / "study.json", name="alike")
    lines = _english(advise([folder, alike, other], CASE))
    assert [line for line in lines if line.startswith("Studies alike and fabricated share a source of data")]
    assert not any("share a source" in line for line in _english(advise([folder, other], CASE)))


def test_no_studies_and_no_study(tmp_path: Path) -> None:
    """Neither an empty list nor a folder without records is an answer."""
    with pytest.raises(ConfigError, match="no studies"):
        advise([], CASE)
    with pytest.raises(RecordError, match=r"study\.json"):
        advise([tmp_path], CASE)


def test_both_languages_say_the_same_figures(folder: Path, other: Path) -> None:
    """Russian lines hold the numbers of the English ones, and no English sentence."""
    for case in (CASE, Case(480, 4, 41.25, memory_bytes=1.1e9, seconds=20.0, language="ru"), Case(10**6, 4, 80)):
        advice = advise([folder, other], case)
        english, russian = _english(advice), advise_lines(advice, Words("ru"), 400)
        assert len(english) == len(russian)
        for ours, theirs in zip(english, russian, strict=True):
            assert _digits(ours) == _digits(theirs)
            assert ours != theirs
        assert not re.search(r"\b(the|was|not|about|seeds?|studies|rows)\b", "\n".join(russian))


def _digits(line: str) -> list[str]:
    return re.findall(r"\d+", re.sub(r"(?<=\d)[\s,.\u00a0\u202f](?=\d)", "", line))


def test_a_row_has_difference_memory_time_and_evidence(folder: Path) -> None:
    """What stands in the table is what the advice holds, each figure with its interval."""
    advice = advise([folder], CASE)
    lora, words = _of(advice, "lora"), Words("en")
    assert lora.seconds is not None and lora.peak_memory_bytes is not None
    line = " ".join(_row(_english(advice), "lora"))
    assert line.startswith(f"{lora.rank} lora {words.number(lora.difference.estimate, signed=True)} [")
    assert words.spread(lora.difference.low, lora.difference.high, signed=True) in line
    assert " ".join(words.size(lora.peak_memory_bytes).split()) in line
    ends = [words.duration(one).split() for one in (lora.seconds.estimate, lora.seconds.low, lora.seconds.high)]
    assert {one[1] for one in ends} == {"sec"}
    assert f"{ends[0][0]} sec [{ends[1][0]} … {ends[2][0]}]" in line
    assert line.endswith(" 1 2")  # studies, seeds
    tied = [one.method for one in advice.ranked if one.tied]
    told = next(line for line in _english(advice) if line.startswith("The records do not tell these apart"))
    assert tied and all(name in told for name in tied)


def test_no_interval_is_not_said_to_be_one_seed(folder: Path, tmp_path: Path) -> None:
    """Beside a study with an interval one seed of another leaves none; what has one seed in all is called that."""
    small = write_study(tmp_path / "made", seeds=(0,), methods=("tfidf", "full"), test_rows=60, broken=False)
    _change(small / "study.json", name="small")
    advice = advise([folder, small], CASE)
    assert (_of(advice, "tfidf").seeds, _of(advice, "bitfit").seeds) == (3, 1)
    lines = _english(advice)
    assert " ".join(_row(lines, "tfidf")[3:5]) == "(no interval)"
    assert " ".join(_row(lines, "bitfit")[3:5]) == "(one seed)"


def test_lines_keep_to_the_terminal(folder: Path) -> None:
    """No line is wider than the terminal, and nothing is cut off."""
    advice = advise([folder], Case(480, 4, 41.25, memory_bytes=1.1e9, seconds=20.0, model="asset:minilm-l6"))
    for lang in ("en", "ru"):
        lines = advise_lines(advice, Words(lang), 80)
        assert max(map(len, lines)) <= 80
        assert all(line.count("[") == line.count("]") for line in lines)


def test_an_unknown_language_of_the_texts_is_refused(folder: Path) -> None:
    """A code that no script is known for would silently compare nothing; a counted script stands for itself."""
    with pytest.raises(ConfigError, match="language 'xx' of the texts"):
        advise([folder], Case(480, 4, 41.25, language="xx"))
    facts = evidence_of(gather(StudyFolder(folder)))
    assert distance(Case(480, 4, 41.25, script="Cyrillic"), facts).other_script is True
    assert distance(Case(480, 4, 41.25, script="Latin"), facts).other_script is False


def _relabel(path: Path, kind: str, settings: dict[str, dict[str, object]]) -> None:
    """Make methods of a study settings of one kind."""
    tree = json.loads((path / "study.json").read_text())
    for method in tree["methods"]:
        if method["label"] in settings:
            method |= {"kind": kind, "settings": settings[method["label"]]}
    _change(path / "study.json", methods=tree["methods"])
    for run in StudyFolder(path).runs():
        spec = json.loads((run.path / "spec.json").read_text())
        if spec["method"] in settings:
            _change(run.path / "spec.json", kind=kind, settings=settings[spec["method"]])
            (run.path).rename(run.path.with_name(canonical_hash(json.loads((run.path / "spec.json").read_text()))[:16]))


def test_settings_of_a_method_are_no_methods(tmp_path: Path) -> None:
    """Three settings of LoRA are one line, that of the default, whatever their labels; what they did is told below."""
    folder = write_study(tmp_path / "made", methods=("head", "last2", "bitfit", "lora", "full"), test_rows=60)
    ranks = {"last2": {"rank": 64, "dropout": 0.1}, "bitfit": {"rank": 2}, "lora": {"rank": 8}}
    _relabel(folder, "lora", ranks)
    advice = advise([folder], CASE)
    assert sorted(one.kind for one in advice.ranked) == ["full", "head", "lora"]
    assert _of(advice, "lora").settings == {"rank": 8}
    (told,) = [one for _, one in advice.variants]
    assert (told.kind, told.default, told.tried) == ("lora", "lora", 2)
    lines = _english(advice)
    assert any(line.startswith("Settings within lora, study fabricated: 2 tried beside lora;") for line in lines)
    assert not any("last2" in line for line in lines if not line.startswith("Settings"))


def test_a_study_of_settings_alone_ranks_no_methods(folder: Path, tmp_path: Path) -> None:
    """The nearest study with settings of one kind alone is left out with its reason, and the next one ranks."""
    ablation = write_study(tmp_path / "made", methods=("last2", "bitfit", "lora"), control="lora", test_rows=60)
    _relabel(ablation, "lora", {"last2": {"rank": 64}, "bitfit": {"rank": 2}, "lora": {"rank": 8}})
    _change(ablation / "study.json", name="ablation", split_rows={"train": 480, "validation": 1, "test": 60})
    advice = advise([ablation, folder], CASE)
    assert [(one.study, why) for one, why in advice.far] == [("ablation", "settings")]
    assert {one.kind for one in advice.ranked} == {*RANKED}
    assert [study for study, _ in advice.variants] == ["ablation"]
    alone = advise([ablation], CASE)
    assert alone.nothing_comparable and "Settings within lora" in "\n".join(_english(alone))


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("quality", [(0.97, 0.62), (0.0, 0.0)])
def test_the_majority_class_is_never_offered(
    tmp_path: Path, seeds: tuple[int, ...], quality: tuple[float, float]
) -> None:
    """Whether far below or above all that learns, it has no rank and is no tie; what is not above it is named."""
    folders = []
    for name, right in zip("ab", quality, strict=True):
        folder = write_study(
            tmp_path / name, seeds=seeds, methods=("majority", "lora", "full"), test_rows=60, broken=False,
            quality={"lora": right, "full": right}, extra_split=False,
        )  # fmt: skip
        _change(folder / "study.json", name=name, data_source=f"path:{name}.csv")
        folders.append(folder)
    advice = advise(folders, CASE)
    assert {one.kind for one in advice.ranked} == {"lora", "full"}
    assert advice.majority == ("a", "b")
    shown = quality[0] > 0 and len(seeds) > 1
    assert advice.not_above_majority == (() if shown else tuple(one.kind for one in advice.ranked))
    told = [line for line in _english(advice) if "most frequent class" in line]
    assert (len(told), advice.nothing_learnt) == ((0, False) if shown else (1, True))
    assert not any("majority" in line for line in _english(advice))


def test_what_is_above_the_majority_class_stands_apart_from_what_is_not(tmp_path: Path) -> None:
    """Of two methods the one that learnt nothing is named; a study of the majority class alone tells nothing."""
    methods = ("majority", "lora", "full")
    folder = write_study(
        tmp_path / "made", methods=methods, test_rows=60, broken=False, quality={"lora": 0.1}, extra_split=False
    )
    (told,) = [line for line in _english(advise([folder], CASE)) if "most frequent class" in line]
    assert told == "Not shown to be better in accuracy than the most frequent class (studies: fabricated): lora"
    alone = write_study(
        tmp_path / "alone", methods=("majority",), control="majority", test_rows=60, broken=False, extra_split=False
    )
    nothing = advise([alone], CASE)
    assert nothing.nothing_comparable and [why for _, why in nothing.far] == ["majority"]
    assert any("nothing but the most frequent class was scored" in line for line in _english(nothing))


@pytest.mark.parametrize(("rows", "classes"), [(320, 8), (1300, 2), (3900, 28), (800, 31), (100, 2)])
@pytest.mark.parametrize("metric", [*METRICS, None])
def test_what_ships_never_offers_the_majority_class(rows: int, classes: int, metric: str | None) -> None:
    """Whatever the case and the metric: no rank, no tie; no interval leaves what a difference can be."""
    for tokens in (12.0, 120.0):
        advice = advise_on(shipped(), Case(rows, classes, tokens, metric=metric))
        assert all(one.kind != "majority" for one in advice.ranked)
        lowest, highest = metric_named(advice.metric or "accuracy").difference_bounds
        ends = [end for one in advice.ranked for end in (one.difference.low, one.difference.high) if math.isfinite(end)]
        assert all(lowest <= end <= highest for end in ends)
        assert not any("majority" in line for line in _english(advice))


def test_low_evidence_says_why(folder: Path, other: Path) -> None:
    """One set of data, a pilot, far away, other script or model: each is named, and nothing where none holds."""
    assert advise([folder], CASE).low == ("one_study", "pilot")
    far = advise([folder, other], Case(9_000, 4, 41.25, model="asset:e5-small", language="ru"))
    assert far.low == ("pilot", "far", "script", "model")
    (line,) = [line for line in _english(far) if line.startswith("Low evidence")]
    assert "over 3 times apart" in line and "another script" in line
    sure = [one.model_copy(update={"seeds": 5}) for one in map(_evidence, (folder, other))]
    assert advise_on(sure, CASE).low == ()
    assert not any(line.startswith("Low evidence") for line in _english(advise_on(sure, CASE)))


def _evidence(folder: Path) -> Evidence:
    return evidence_of(gather(StudyFolder(folder)))


def test_what_ships_is_what_was_published() -> None:
    """The file in the package has every published study, and two come out of their records as they stand in it.

    `python -m paretune.study.advise_records results` makes it anew.
    """
    found = {one.study: one for one in shipped()}
    assert set(found) == {path.parent.name for path in Path("results").glob("*/study.json")}
    for name in ("data-size-50", "shift"):
        assert as_file([_evidence(Path("results") / name)]) == as_file([found[name]])


def test_short_english_texts_get_methods() -> None:
    """A set of short English texts is told of LoRA, the head, full fine-tuning and TF-IDF, from what ships."""
    advice = advise_on(shipped(), Case(800, 31, 12.0, language="en", script="Latin", model="asset:minilm-l6"))
    kinds = [one.kind for one in advice.ranked]
    assert {"lora", "head", "full", "tfidf"} <= set(kinds) and len(kinds) == len(set(kinds))
    assert advice.near[0].other_script is False
    assert all(one.difference.low >= -1 and one.difference.high <= 1 for one in advice.ranked)
