"""Which run of a study to ship: the method that the study's own statistics support within a budget, and why.

The rule is the report's own (`report/choice.py`), over the adaptations that fit the budget: a baseline is no model to
export, and where the rule names one the sentence says so. Not here: new statistics, or the export itself.

    choose_run(StudyFolder(Path("runs/demo")), memory_bytes=2**30, seconds=None, lang="en").why["en"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from paretune.core.errors import ConfigError, said
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.choice import Reason, cheapest, chosen, rule_text
from paretune.report.facts import LEVEL, MethodFacts, StudyFacts, gather
from paretune.report.faults import faults_note
from paretune.report.tables import MethodRow, levelled, metric_name, rows_of
from paretune.report.wording import LANGUAGES, Words
from paretune.stats.metrics import metric_named

Why = Reason | Literal["no_control", "alone"]

# Sentences of this file alone; the report's catalogues hold what pages say.
_TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "better": "{method}: in {metric} better than {control} ({difference} {interval}){memory}",
        "equivalent": (
            "{method}: in {metric} equivalent to {control} within ±{margin} ({difference} {interval}){memory}"
        ),
        "control_cheapest": "{method}, the control: no method shown to be as good in {metric} needs less memory",
        "control_best": "{method}, the control: every other method that was tried is worse in {metric}",
        "alone": "{method}: the only adaptation with scored runs, so nothing is shown by comparison",
        "undecided": (
            "{method}: the study is undecided (in {metric} nothing is shown to be better than {control} or equivalent "
            "to it within ±{margin}), so this is the cheapest adaptation that is not shown to be worse{cost}"
        ),
        "no_control": (
            "{method}: the study is undecided (the control {control} has no scored run), so this is the cheapest "
            "adaptation that was scored{cost}"
        ),
        "memory": ", with a peak memory of {own} against {other} in training",
        "cost": ": {own} of peak memory in training",
        "budget": "; within the budget of {limits}",
        "not_beaten": "; it is not shown to beat the baseline: {baselines}",
        "seed": "; of its seeds, {seed} has the best validation score",
        "uncorrected": "; with a correction for the number of methods compared this equivalence is not shown",
        "baseline": "; the study's answer is the baseline {baseline}, which is no model to export",
        "by_hand": "{method}, seed {seed}: chosen by hand, run {run}",
    },
    "ru": {
        "better": "{method}: лучше, чем {control} ({metric}: {difference} {interval}){memory}",
        "equivalent": (
            "{method}: равноценен {control} в пределах ±{margin} ({metric}: {difference} {interval}){memory}"
        ),
        "control_cheapest": (
            "{method}, контроль: ни одному из методов, для которых показано, что они не хуже (метрика — {metric}), не "
            "нужно меньше памяти"
        ),
        "control_best": "{method}, контроль: все остальные испытанные методы хуже (метрика — {metric})",
        "alone": "{method}: единственный дообученный метод с оценёнными прогонами, сравнить его не с чем",
        "undecided": (
            "{method}: исследование не решает (метрика — {metric}: ни для одного метода не показано, что он лучше, чем "
            "{control}, или равноценен ему в пределах ±{margin}), поэтому взят самый дешёвый из методов, для которых "
            "не показано, что они хуже{cost}"
        ),
        "no_control": (
            "{method}: исследование не решает (у контроля {control} нет оценённых прогонов), поэтому взят самый "
            "дешёвый из оценённых методов{cost}"
        ),
        "memory": "; пик памяти при обучении {own} против {other}",
        "cost": ": пик памяти при обучении {own}",
        "budget": "; в пределах {limits}",
        "not_beaten": "; не показано, что он лучше базового метода: {baselines}",
        "seed": "; из его повторов лучшая оценка на проверочных данных у номера {seed}",
        "uncorrected": "; с поправкой на число сравниваемых методов эта равноценность не показана",
        "baseline": "; ответ исследования — базовый метод {baseline}, но экспортировать в нём нечего",
        "by_hand": "{method}, повтор {seed}: выбрано вручную, прогон {run}",
    },
}


@dataclass(frozen=True)
class Choice:
    """A run to ship, its method's label, and one sentence for each language; `decided` is what the statistics say."""

    run: RunFolder
    method: str
    why: dict[str, str]
    decided: bool


def choose_run(folder: StudyFolder, memory_bytes: int | None, seconds: float | None, lang: str) -> Choice:
    """Choose by the study's own statistics; numbers in an error are written as `lang` does.

    Raises:
        ConfigError: no adaptation was scored, or none that may be taken fits the budget (the cheapest is named).
        RecordError: no study's folder.
    """
    facts = gather(folder)
    rows = [row for row in rows_of(facts) if row.family == "adaptation" and row.scored_runs]
    if not rows:
        raise ConfigError(
            said(
                f"study {facts.study.name!r} has no scored adaptation", "one at least: a baseline is no model to export"
            )
        )
    allowed = [row for row in rows if row.verdict != "worse"]
    fitting = [row for row in allowed if _fits(row, memory_bytes, seconds)]
    if not fitting:
        raise ConfigError(_too_dear(allowed, memory_bytes, seconds, Words(lang)))
    best, reason = _best(facts, rows, fitting)
    seed = best_seed(facts, facts.by_label[best.method])
    why = {
        one: _sentence(facts, rows, fitting, best, reason, seed, memory_bytes, seconds, Words(one)) for one in LANGUAGES
    }
    why = {one: f"{text} {faults_note(Words(one), facts)}".strip() for one, text in why.items()}
    run = RunFolder(folder.path / "runs" / facts.by_label[best.method].runs[seed].id)
    return Choice(run, best.method, why, decided=reason not in ("undecided", "no_control", "alone"))


def chosen_by_hand(run: RunFolder) -> Choice:
    """A run that the user named."""
    spec = run.spec()
    values = {"method": spec.method, "seed": str(spec.seed), "run": run.id}
    why = {lang: _TEXTS[lang]["by_hand"].format(**values) + "." for lang in LANGUAGES}
    return Choice(run, spec.method, why, decided=False)


def _fits(row: MethodRow, memory_bytes: int | None, seconds: float | None) -> bool:
    """Whether what was measured lies within the budget; a cost that was not measured fits no budget."""
    for cost, limit in ((row.peak_memory_bytes, memory_bytes), (row.train_seconds, seconds)):
        if limit is not None and (cost is None or not cost.ranked or cost.value > limit):
            return False
    return True


def _memory(row: MethodRow) -> float:
    return row.peak_memory_bytes.value if row.peak_memory_bytes else float("inf")


def _too_dear(allowed: list[MethodRow], memory_bytes: int | None, seconds: float | None, words: Words) -> str:
    cheapest = min(allowed, key=_memory)
    cost = [words.size(cheapest.peak_memory_bytes.value)] if cheapest.peak_memory_bytes else []
    cost += [words.duration(cheapest.train_seconds.value)] if cheapest.train_seconds else []
    given = f"no method that is not shown to be worse fits {_limits(memory_bytes, seconds, words)}"
    do = "raise the budget, or name a RUN folder"
    return said(given, f"at least {' and '.join(cost) or 'a measured cost'} for {cheapest.method}, the cheapest", do=do)


def _limits(memory_bytes: int | None, seconds: float | None, words: Words) -> str:
    parts = [words.size(memory_bytes)] if memory_bytes is not None else []
    return ", ".join([*parts, *([words.duration(seconds)] if seconds is not None else [])])


def _best(facts: StudyFacts, rows: list[MethodRow], fitting: list[MethodRow]) -> tuple[MethodRow, Why]:
    """The row to take among those that fit, and the key of the reason."""
    control = next((row for row in rows_of(facts) if row.control), None)
    if control is None or not control.scored_runs:
        return cheapest(fitting)[0], "no_control" if len(rows) > 1 else "alone"
    if len(rows) == 1 and rows[0].control:
        return rows[0], "alone"
    found = chosen(fitting, rows)
    return found.row, found.reason


def best_seed(facts: StudyFacts, method: MethodFacts) -> int:
    """Of a method with scored runs, the seed with the best validation score; the lowest of equal ones."""

    metric = metric_named(facts.metric)

    def validation(seed: int) -> float:
        found = method.runs[seed].measurements.scores.get("validation", {}).get(facts.metric)
        return metric.merit(found) if found is not None else float("-inf")

    return min(method.runs, key=lambda seed: (-validation(seed), seed))


def _sentence(
    facts: StudyFacts,
    rows: list[MethodRow],
    fitting: list[MethodRow],
    best: MethodRow,
    reason: Why,
    seed: int,
    memory_bytes: int | None,
    seconds: float | None,
    words: Words,
) -> str:
    texts, spread = _TEXTS[words.lang], best.difference_interval
    control = next((row for row in rows if row.control), None)
    own = words.size(best.peak_memory_bytes.value) if best.peak_memory_bytes else ""
    other = words.size(control.peak_memory_bytes.value) if control and control.peak_memory_bytes else ""
    text = texts[reason].format(
        method=best.method,
        metric=metric_name(words, facts.metric),
        control=facts.study.control,
        margin=words.number(facts.study.margin),
        difference=words.number(best.difference or 0.0, signed=True),
        interval=levelled(words, spread, best.difference_level) if spread else "—",
        memory=texts["memory"].format(own=own, other=other) if own and other else "",
        cost=texts["cost"].format(own=own) if own else "",
    )
    if memory_bytes is not None or seconds is not None:
        text += texts["budget"].format(limits=_limits(memory_bytes, seconds, words))
    if reason == "equivalent" and best.tost_holm is not None and best.tost_holm > 1 - LEVEL:
        text += texts["uncorrected"]
    answered = chosen([row for row in rows_of(facts) if row.scored_runs])
    if answered.row.family == "baseline" and answered.reason in ("better", "equivalent"):
        text += texts["baseline"].format(baseline=answered.row.method)
    if best.baselines_not_beaten:
        text += texts["not_beaten"].format(baselines=words.series(list(best.baselines_not_beaten)))
    if best.scored_runs > 1:
        text += texts["seed"].format(seed=seed)
    if reason in ("better", "equivalent", "control_cheapest"):
        return f"{text}. {rule_text(chosen(fitting, rows), words)}."
    return text + "."
