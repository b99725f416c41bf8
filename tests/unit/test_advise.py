"""Advice from made-up records: what is ranked, what is not, and what is said of the distance."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest
from babel.messages.extract import extract
from fabricated_study import METHODS, write_study

from paretune.core.errors import ConfigError, RecordError
from paretune.records.schema import MethodRecord
from paretune.records.store import StudyFolder
from paretune.report.facts import gather
from paretune.report.wording import Words
from paretune.stats.intervals import Interval
from paretune.study import advise_lines as advise_lines_module
from paretune.study import advise_pooling
from paretune.study.advise import Advice, Advised, advise
from paretune.study.advise_case import Case, distance
from paretune.study.advise_lines import advise_lines
from paretune.study.advise_pooling import filled, naming, pooled

RUSSIAN = {
    "Nothing comparable was measured: no study lies near this case, so no method is recommended.": (
        "Ничего сравнимого не измерено: ни одно исследование не близко к этому случаю, поэтому ни один метод не "
        "рекомендуется."
    ),
    "No method is known to fit this budget.": "Ни об одном методе не известно, что он укладывается в этот бюджет.",
    "Ranked by the difference in {metric} to {control}, with its 95 % interval:": (
        "По порядку разницы с {control} (показатель — {metric}), с её 95-процентным интервалом:"
    ),
    "Without a rank, by the budget:": "Без места — из-за бюджета:",
    "Never gave a result in study {study}: {method} ({states})": (
        "Ни разу не дал результата в исследовании {study}: {method} ({states})"
    ),
    "peak memory {memory}": "пик памяти {memory}",
    "may not fit the time": "может не уложиться во время",
    "not told apart from the first": "от первого не отличим",
    "its interval is of {study} alone": "интервал — по одному исследованию {study}",
    "the control": "контроль",
    "{estimate} (one seed: no interval)": "{estimate} (один повтор: интервала нет)",
    "about {time} (one run: no interval)": "около {time} (один запуск: интервала нет)",
    "about {time}": "около {time}",
    "about {time} ({low} to {high})": "около {time} (от {low} до {high})",
    "needs more memory": "нужно больше памяти",
    "its memory here was not measured": "память для этого случая не измерена",
    "takes longer": "нужно больше времени",
    "its time here was not measured": "время для этого случая не измерено",
    "Measured on:": "Измерено на исследованиях:",
    "One study only: its interval holds for its seeds and its test set, not for other data.": (
        "Исследование одно: его интервалы верны для его повторов и тестовых примеров, а не для других данных."
    ),
    "Studies {studies} share a source of data: their intervals taken together are too narrow.": (
        "У исследований {studies} один источник данных: их общие интервалы слишком узки."
    ),
    "Base model {model} was not measured near this case: no costs.": (
        "Базовая модель {model} вблизи этого случая не измерялась: затраты неизвестны."
    ),
    "Time: one training on {machine}, from the records' own throughput; an estimate, so no rank rests on it.": (
        "Время — одно обучение на машине {machine}, по скорости из самих записей; это оценка, места от неё не зависят."
    ),
    "{processor} with {cores} cores": "{processor} (ядер: {cores})",
    "training rows": "строки обучения",
    "tokens of a text": "токены текста",
    "{study}: the case against it: {ratios}; log distance {distance}": (
        "{study}: случай по сравнению с ним — {ratios}; логарифмическое расстояние {distance}"
    ),
    "another base model ({model})": "другая базовая модель ({model})",
    "another script": "другая письменность",
    "another task": "другая задача",
    "over {times} times larger or smaller": "больше или меньше более чем в {times} раз",
    "its text lengths are not recorded": "длины текстов не записаны",
    "its control was not scored, or is another method": "контроль не оценён или это другой метод",
    "Left out ({why}): {study}": "Не учтено ({why}): {study}",
}
RUSSIAN_PLURALS = {
    "{n} study, {seeds}": ("{n} исследование, {seeds}", "{n} исследования, {seeds}", "{n} исследований, {seeds}"),
    "{n} run gave no result": (
        "{n} запуск не дал результата",
        "{n} запуска не дали результата",
        "{n} запусков не дали результата",
    ),
}
CASE = Case(rows=480, classes=4, tokens=41.25)


class Told(Words):
    """The catalogue with this file's new words, until they stand in it."""

    def say(self, message, values=None):
        if self.lang == "ru" and message in RUSSIAN:
            return RUSSIAN[message].format(**values) if values else RUSSIAN[message]
        return super().say(message, values)

    def plural(self, one, many, count, values=None):
        if self.lang == "ru" and one in RUSSIAN_PLURALS:
            last, two = count % 10, count % 100
            form = 0 if last == 1 and two != 11 else 1 if last in (2, 3, 4) and two not in (12, 13, 14) else 2
            return RUSSIAN_PLURALS[one][form].format(n=self.count(count), **(values or {}))
        return super().plural(one, many, count, values)


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
    assert ranks == list(range(1, len(METHODS) + 1))
    estimates = [one.difference.estimate for one in advice.ranked]
    assert estimates == sorted(estimates, reverse=True)
    facts = gather(StudyFolder(folder))
    lora = _of(advice, "lora")
    assert lora.difference == facts.comparisons["lora"].difference
    assert (lora.seeds, lora.studies) == (2, ("fabricated",))  # the control's third seed ran out of memory
    assert _of(advice, "full").stopped == 1
    assert (advice.metric, advice.control, advice.model) == ("accuracy", "full", "asset:minilm-l6")


def test_distance_is_in_logarithms_of_rows_classes_and_tokens(folder: Path) -> None:
    """Half the rows, as many classes, half the tokens: two logarithms of 2, put together at right angles."""
    found = distance(CASE, gather(StudyFolder(folder)))
    assert (found.rows, found.classes, found.tokens) == (0.5, 1.0, 0.5)
    assert found.total == pytest.approx(math.sqrt(2) * math.log(2))
    assert (found.other_model, found.other_script) == (None, None)
    told = distance(Case(480, 4, 41.25, model="asset:e5-small", language="ru"), gather(StudyFolder(folder)))
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
    assert fitting == [one.method for one in free.ranked if one.method in ("last2", "tfidf", "head", "majority")]
    assert _of(tight, "full").memory_fits == "no"
    assert _of(tight, "full").rank is None
    nothing = advise([folder], Case(480, 4, 41.25, memory_bytes=1e6))
    assert {one.rank for one in nothing.ranked} == {None}
    assert advise_lines(nothing, Words("en"))[0] == "No method is known to fit this budget."


def test_a_time_limit_inside_the_interval_is_unsure(folder: Path) -> None:
    """Where the limit lies between the ends of the interval the method keeps its rank and is marked."""
    seconds = _of(advise([folder], CASE), "lora").seconds
    assert seconds is not None
    advice = advise([folder], Case(480, 4, 41.25, seconds=seconds.estimate))
    assert (_of(advice, "lora").fits, _of(advice, "lora").rank is None) == ("unsure", False)
    assert any("may not fit the time" in line for line in advise_lines(advice, Words("en")))


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
    assert [one.rank for one in free.ranked] == list(range(1, len(METHODS) + 1))
    limited = advise([folder], Case(480, 4, 41.25, model="asset:e5-small", memory_bytes=1e12))
    assert {(one.rank, one.memory_fits) for one in limited.ranked} == {(None, "unknown")}
    assert any("asset:e5-small was not measured" in line for line in advise_lines(free, Words("en")))


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (Case(rows=9_601, classes=4, tokens=82.5), "far"),
        (Case(rows=960, classes=41, tokens=82.5), "far"),
        (Case(rows=960, classes=4, tokens=8.0), "far"),
        (Case(rows=960, classes=4, tokens=82.5, task="generation"), "task"),
    ],
)
def test_nothing_comparable_is_an_answer(folder: Path, case: Case, why: str) -> None:
    """Over ten times away on any axis, or another task: no method is named, and why each study was left out."""
    advice = advise([folder], case)
    assert advice.nothing_comparable and advice.near == ()
    assert [reason for _, reason in advice.far] == [why]
    text = "\n".join(advise_lines(advice, Words("en")))
    assert text.startswith("Nothing comparable was measured")
    assert not any(re.search(rf"\b{method[0]}\b", text) for method in METHODS if method[0] != "full")


def test_ten_times_is_still_near(folder: Path) -> None:
    """The edge belongs to what is comparable."""
    assert not advise([folder], Case(rows=9_600, classes=40, tokens=8.25)).nothing_comparable


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    """With one seed of one study the difference is told without ends, and every method is tied with the first."""
    folder = write_study(tmp_path / "made", seeds=(0,), methods=("head", "lora", "full"), test_rows=60, broken=False)
    advice = advise([folder], CASE)
    assert not math.isfinite(_of(advice, "lora").difference.high)
    assert [one.tied for one in advice.ranked] == [False, True, True]
    lines = "\n".join(advise_lines(advice, Words("en")))
    assert lines.count("(one seed: no interval)") == 2
    assert "(one run: no interval)" in lines


def test_several_studies_widen_the_interval(folder: Path, other: Path) -> None:
    """A method of two studies gets the interval over studies; one of a single study says whose it is."""
    advice = advise([folder, other], CASE)
    assert [one.study for one in advice.near] == ["fabricated", "other"]
    lora = _of(advice, "lora")
    apart = [gather(StudyFolder(path)).comparisons["lora"].difference for path in (folder, other)]
    assert lora.difference == pooled([one for one in apart if one is not None])
    assert (lora.studies, lora.seeds) == (("fabricated", "other"), 5)
    assert any("head" in line and "its interval is of fabricated alone" in line for line in _english(advice))
    assert not any("One study only" in line for line in _english(advice))
    assert any("One study only" in line for line in _english(advise([folder], CASE)))


def _english(advice: Advice) -> list[str]:
    return advise_lines(advice, Words("en"))


def test_pooled_interval_by_hand() -> None:
    """Two studies 0.02 apart: standard error 0.01, t(1) = 12.706; equal ones fall back on their own intervals."""
    found = pooled([Interval(-0.01, -0.0101, -0.0099, 8.0), Interval(-0.03, -0.0301, -0.0299, 8.0)])
    assert found.estimate == pytest.approx(-0.02)
    assert found.high - found.estimate == pytest.approx(0.127062, abs=1e-5)
    half = 2.306004 * 0.01
    alike = pooled([Interval(0.0, -half, half, 8.0)] * 2)  # each has a standard error of 0.01
    assert alike.high == pytest.approx(12.706205 * 0.01 / math.sqrt(2), rel=1e-5)
    one = Interval(0.1, 0.0, 0.2, 3.0)
    assert pooled([one]) is one


def _record(label: str, **settings: object) -> MethodRecord:
    return MethodRecord(label=label, kind="lora", family="adaptation", settings=settings, learning_rates=[1e-3])


def test_records_of_an_older_version_are_of_the_same_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that an older record lacks are filled with defaults; without such records nothing is looked up."""
    looked: list[dict[str, object]] = []

    def fill(kind: str, settings: dict[str, object]) -> dict[str, object]:
        looked.append(settings)
        return {"rank": 8, "layers": None, **settings}

    monkeypatch.setattr(advise_pooling, "filled", fill)
    old, new, half = _record("a", rank=8), _record("b", rank=8, layers=None), _record("c", rank=8, layers=2)
    key = naming([old, new, half])
    assert key(old) == key(new) != key(half)
    assert len(looked) == 3
    key = naming([new, half])
    assert key(new) != key(half)
    assert len(looked) == 3


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
        english, russian = advise_lines(advice, Words("en")), advise_lines(advice, Told("ru"))
        assert len(english) == len(russian)
        for ours, theirs in zip(english, russian, strict=True):
            assert _digits(ours) == _digits(theirs)
            assert ours != theirs
        assert not re.search(r"\b(the|was|not|about|seeds?|studies|rows)\b", "\n".join(russian))


def _digits(line: str) -> list[str]:
    return re.findall(r"\d+", re.sub(r"(?<=\d)[\s,.\u00a0\u202f](?=\d)", "", line))


def test_new_words_are_those_that_are_said() -> None:
    """The list for the catalogue has every sentence of this room, and no other."""
    source = Path(advise_lines_module.__file__).read_bytes()
    found = extract("python", io.BytesIO(source), keywords={"say": None, "plural": (1, 2)})
    said = {message[0] if isinstance(message, tuple) else message for _, message, *_ in found}
    assert said == {*RUSSIAN, *RUSSIAN_PLURALS, "{n} seed", "classes"}
