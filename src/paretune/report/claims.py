"""The claims ledger: each sentence that states a result is a rule over records, with the verdict it was written under.

Not here: where a claim stands in a report. A claim has one or more conditions: `when` over a study's records, `aspect`
over another side of it (`aspect_claims.py`), `effect` over its settings (`effect_claims.py`), `bench` over a published
line of a bench (`bench_claims.py`). It is supported where all are, refuted where one is, undecided otherwise, and not
measured where records are missing. The report's build fails when a verdict is no longer the one in the ledger.

    ledger = load_toml(Path("results/claims.toml"), Ledger); judged(ledger, {"r8": facts})["lora-for-full"].verdict
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, assert_never

import numpy as np
from pydantic import Field, model_validator

from paretune.core.config import Settings, nearest
from paretune.core.errors import RecordError, UnknownNameError, said
from paretune.records.schema import Graded, Measurements
from paretune.report.aspect_claims import AspectCondition, weigh_aspect
from paretune.report.bench_claims import BenchCondition, weigh_bench
from paretune.report.bench_lines import BenchLine
from paretune.report.bench_sheets import figure_text
from paretune.report.costs import Costs, Resource
from paretune.report.effect_claims import EffectCondition, weigh_effect
from paretune.report.facts import LEVEL, MEASURED, MethodFacts, ScoredRun, StudyFacts, bounds
from paretune.report.tables import levelled
from paretune.report.wording import Words
from paretune.stats.compare import Comparison, Tested, compare
from paretune.stats.intervals import Interval, t_interval
from paretune.stats.metrics import metric_named

Verdict = Literal["supported", "refuted", "undecided", "not_measured"]
NAMED = 3  # of claims whose records are not there
Rule = Literal["better", "not_worse", "equivalent", "at_most", "at_least", "one_class", "never_one_class"]
Cost = Literal["peak_memory", "memory_above_imports", "train_seconds", "trainable_parameters", "adapter_bytes"]
QUALITY_RULES = ("better", "not_worse", "equivalent")
COLLAPSE_RULES = ("one_class", "never_one_class")
_WANTED: Mapping[Rule, tuple[str, ...]] = {
    "better": ("than",),
    "not_worse": ("than", "margin"),
    "equivalent": ("than", "margin"),
    "at_most": ("than", "cost", "ratio"),
    "at_least": ("than", "cost", "ratio"),
    "one_class": ("runs",),
    "never_one_class": (),
}


class Condition(Settings):
    """One rule about a method of a study, against another one of it.

    A difference to the study's control, on its test split, is "better" only where it is significant with Holm's
    correction, as in the study's own table; other pairs are not corrected, and a sentence on one should say so.
    In quality: "better", "not_worse" (by `margin` or more) or "equivalent" (within ±margin), on `split`. In a `cost`:
    the ratio of the two methods' costs is "at_most" or "at_least" `ratio`. Of one method: at least so many `runs` gave
    "one_class" to every test example, or none did ("never_one_class").
    """

    study: str
    method: str
    than: str | None = None
    rule: Rule
    margin: float | None = Field(default=None, gt=0)
    split: str = "test"
    cost: Cost | None = None
    ratio: float | None = Field(default=None, gt=0)
    runs: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> Condition:
        wanted = _WANTED[self.rule]
        values = {"than": self.than, "margin": self.margin, "cost": self.cost, "ratio": self.ratio, "runs": self.runs}
        given = tuple(name for name, value in values.items() if value is not None)
        if given != wanted:
            raise ValueError(said(f"{self.rule} with {', '.join(given) or 'nothing'}", ", ".join(wanted) or "nothing"))
        return self


class Claim(Settings):
    """A sentence in both languages, the conditions under which it holds, and the verdict it was written under.

    `{name}` in a sentence is replaced by the figure of the condition of that name, with its interval.
    """

    en: str
    ru: str
    verdict: Verdict
    when: dict[str, Condition] = Field(default_factory=dict[str, Condition])
    aspect: dict[str, AspectCondition] = Field(default_factory=dict[str, AspectCondition])
    effect: dict[str, EffectCondition] = Field(default_factory=dict[str, EffectCondition])
    bench: dict[str, BenchCondition] = Field(default_factory=dict[str, BenchCondition])

    @model_validator(mode="after")
    def _conditional(self) -> Claim:
        names = [*self.when, *self.aspect, *self.effect, *self.bench]
        if twice := {one for one in names if names.count(one) > 1}:
            raise ValueError(said(f"two conditions named {min(twice)}", "each name once"))
        if not names:
            raise ValueError(said("no condition", "`when`, `aspect`, `effect` or `bench`"))
        return self


class Ledger(Settings):
    """All claims, by name."""

    claims: dict[str, Claim]


class Evidence(Settings):
    """What one condition came to: a difference or a ratio with its interval at `level`, and the runs behind it.

    The interval is the one that the verdict was taken from.

    Of a bench line: its figure, its file in the place of the runs, its date and processor.
    `unmeasured` are the runs whose cost was estimated or assumed, so that the condition cannot be checked.
    """

    rule: Rule | Literal["within_margin", "forgets"]
    estimate: float | None
    low: float | None
    high: float | None
    limit: float | None
    verdict: Verdict
    run_ids: list[str]
    bench: bool = False
    date: str = ""
    processor: str = ""
    level: float = LEVEL
    unmeasured: list[str] = Field(default_factory=list[str])


class Judged(Settings):
    """A claim with its evidence; `verdict` is what records say now, `expected` what the ledger says.

    `unusable` names its studies whose records are incomplete or do not hold: nothing may rest on those.
    """

    name: str
    en: str
    ru: str
    expected: Verdict
    verdict: Verdict
    evidence: dict[str, Evidence]
    unusable: list[str] = Field(default_factory=list[str])

    def sentence(self, words: Words) -> str:
        """The sentence with its figures."""
        figures = {name: _figure(one, words) for name, one in self.evidence.items()}
        return (self.ru if words.lang == "ru" else self.en).format(**figures)

    def unchecked(self, words: Words) -> list[str]:
        """Why it cannot be checked although its studies are there, a line a reason."""
        lines = [words.say("records of {study} are incomplete or do not hold", {"study": one}) for one in self.unusable]
        for name, one in self.evidence.items():
            if one.unmeasured:
                values = {"condition": name, "runs": ", ".join(one.unmeasured)}
                lines.append(words.say("{condition}: the cost was estimated, not measured, in runs {runs}", values))
        return lines


def judged(
    ledger: Ledger, studies: Mapping[str, StudyFacts], bench: Mapping[str, BenchLine] | None = None
) -> dict[str, Judged]:
    """Evaluate every claim; a study that is not among `studies`, or a line not in `bench`, is not measured.

    Raises:
        UnknownNameError: a method or a setting that its study does not have, or a figure that its bench line does not.
    """
    lines = bench or {}
    found: dict[str, Judged] = {}
    whole = {name: facts for name, facts in studies.items() if facts.hold}
    for name, claim in ledger.claims.items():
        named = [one.study for one in (*claim.when.values(), *claim.aspect.values(), *claim.effect.values())]
        for one in claim.when.values():
            if one.study in studies and one.study not in whole:  # a name that there is not is wrong all the same
                _method(studies[one.study], one.study, one.method)
        unusable = [one for one in dict.fromkeys(named) if one in studies and one not in whole]
        evidence = {label: _weighed(one, whole.get(one.study)) for label, one in claim.when.items()}
        evidence |= {label: _of_aspect(one, whole.get(one.study)) for label, one in claim.aspect.items()}
        evidence |= {label: _of_setting(one, whole.get(one.study)) for label, one in claim.effect.items()}
        evidence |= {label: _compared(one, lines.get(one.line)) for label, one in claim.bench.items()}
        verdict = _together([one.verdict for one in evidence.values()])
        found[name] = Judged(
            name=name,
            en=claim.en,
            ru=claim.ru,
            expected=claim.verdict,
            verdict=verdict,
            evidence=evidence,
            unusable=unusable,
        )
    return found


def flipped(claims: Mapping[str, Judged]) -> list[Judged]:
    """Claims whose verdict is not the one in the ledger."""
    return [one for one in claims.values() if one.verdict != one.expected]


def check_claims(claims: Mapping[str, Judged]) -> None:
    """Nothing, if every verdict is as the ledger says.

    Raises:
        RecordError: one is not.
    """
    unread = [one.name for one in flipped(claims) if one.verdict == "not_measured" and not one.unchecked(Words("en"))]
    changed = [
        f"{one.name}: {one.expected} in the ledger, {one.verdict} by the records"
        + (f" ({'; '.join(one.unchecked(Words('en')))})" if one.unchecked(Words("en")) else "")
        for one in flipped(claims)
        if one.name not in unread
    ]
    if unread:
        more = f" and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
        changed.append(f"{', '.join(unread[:NAMED])}{more}: not_measured by the records that were given")
    if changed:
        do = "give the folders of all their studies, or another ledger (--claims)" if unread else None
        raise RecordError(said("; ".join(changed), "claims that hold", do=do or "rewrite the sentence or its verdict"))


def _together(verdicts: list[Verdict]) -> Verdict:
    for one in ("not_measured", "refuted", "undecided"):
        if one in verdicts:
            return one
    return "supported"


def _weighed(condition: Condition, facts: StudyFacts | None) -> Evidence:
    limit = condition.margin if condition.rule in QUALITY_RULES else condition.ratio
    nothing = Evidence(
        rule=condition.rule, estimate=None, low=None, high=None, limit=limit, verdict="not_measured", run_ids=[]
    )
    if facts is None:
        return nothing
    method = _method(facts, condition.study, condition.method)
    if condition.rule in COLLAPSE_RULES:
        return _one_class(condition, method, nothing)
    assert condition.than is not None, "checked by the model"
    than = _method(facts, condition.study, condition.than)
    seeds = sorted(method.runs.keys() & than.runs.keys())
    if not seeds:
        return nothing
    run_ids = [side.runs[seed].id for side in (method, than) for seed in seeds]
    level = LEVEL
    if condition.rule in QUALITY_RULES:
        tested, verdict = _quality(condition, facts, method, than)
        interval, level = (tested.interval, tested.level) if tested is not None else (None, LEVEL)
    else:
        if unmeasured := _unmeasured(condition, [side.runs[seed] for side in (method, than) for seed in seeds]):
            return nothing.model_copy(update={"unmeasured": unmeasured})
        interval, verdict = _ratio(condition, method, than, seeds, Costs(facts))
    if interval is None:
        return nothing
    ends = (interval.low, interval.high) if math.isfinite(interval.high) else (None, None)
    return nothing.model_copy(
        update={
            "estimate": interval.estimate,
            "low": ends[0],
            "high": ends[1],
            "verdict": verdict,
            "run_ids": run_ids,
            "level": level,
        }
    )


def _of_aspect(condition: AspectCondition, facts: StudyFacts | None) -> Evidence:
    """Forgetting or the recall of rare classes, with the runs of the method and the control."""
    nothing = Evidence(
        rule=condition.rule, estimate=None, low=None, high=None, limit=None, verdict="not_measured", run_ids=[]
    )
    if facts is None:
        return nothing
    method = _method(facts, condition.study, condition.method)
    found = weigh_aspect(condition, facts)
    if found.interval is None:
        return nothing
    sides = [method] if condition.rule == "forgets" else [method, facts.by_label[facts.study.control]]
    low, high = bounds(found.interval) or (None, None)
    update: dict[str, object] = {
        "estimate": found.interval.estimate,
        "low": low,
        "high": high,
        "limit": found.margin,
        "verdict": found.verdict,
        "level": found.level,
        "run_ids": [run.id for side in sides for _, run in sorted(side.runs.items())],
    }
    return nothing.model_copy(update=update)


def _of_setting(condition: EffectCondition, facts: StudyFacts | None) -> Evidence:
    """The level of a setting that lies farthest from the mean of all."""
    nothing = Evidence(
        rule=condition.rule, estimate=None, low=None, high=None, limit=condition.margin, verdict="not_measured",
        run_ids=[],
    )  # fmt: skip
    found = weigh_effect(condition, facts) if facts is not None else None
    if found is None or found.farthest is None:
        return nothing
    low, high = bounds(found.farthest.interval) or (None, None)
    update: dict[str, object] = {
        "estimate": found.farthest.interval.estimate,
        "low": low,
        "high": high,
        "verdict": found.verdict,
        "run_ids": found.run_ids,
    }
    return nothing.model_copy(update=update)


def _compared(condition: BenchCondition, line: BenchLine | None) -> Evidence:
    """A figure of a bench line against its limit."""
    nothing = Evidence(
        rule=condition.rule,
        estimate=None,
        low=None,
        high=None,
        limit=condition.limit,
        verdict="not_measured",
        run_ids=[],
        bench=True,
    )
    value, holds = weigh_bench(condition, line) if line is not None else (None, False)
    if line is None or value is None:
        return nothing
    found: dict[str, object] = {
        "estimate": value,
        "verdict": "supported" if holds else "refuted",
        "run_ids": [line.file],
        "date": line.date,
        "processor": line.processor,
    }
    return nothing.model_copy(update=found)


def _one_class(condition: Condition, method: MethodFacts, nothing: Evidence) -> Evidence:
    """How many runs gave one class to all: a count, so without an interval."""
    if not method.runs:
        return nothing
    count = method.one_class_runs()
    holds = count == 0 if condition.runs is None else count >= condition.runs
    found: dict[str, object] = {
        "estimate": float(count),
        "limit": float(condition.runs or 0),
        "verdict": "supported" if holds else "refuted",
        "run_ids": [run.id for _, run in sorted(method.runs.items())],
    }
    return nothing.model_copy(update=found)


def _method(facts: StudyFacts, study: str, label: str) -> MethodFacts:
    if label not in facts.by_label:
        near = nearest(label, facts.by_label)
        raise UnknownNameError(said(f"claim about {label!r} of study {study!r}", "one of its methods", nearest=near))
    return facts.by_label[label]


def _quality(
    condition: Condition, facts: StudyFacts, method: MethodFacts, than: MethodFacts
) -> tuple[Tested | None, Verdict]:
    """The interval of method − than that the rule is decided by, and what it says of it."""
    values = {one.label: one.examples(facts.metric, condition.split) for one in (method, than)}
    margin, metric = condition.margin or facts.study.margin, metric_named(facts.metric)
    level = _level(condition, facts)
    found = compare(values, than.label, margin, level, metric.bounds, metric.undefined)[0]
    if found.zero is None or found.margin is None:
        return None, "not_measured"
    tested = found.margin if condition.rule == "equivalent" else found.zero
    low, high = tested.interval.low, tested.interval.high
    match condition.rule:
        case "better":
            shown = low > 0 and _significant(condition, facts)
            verdict = "supported" if shown else "refuted" if high <= 0 else "undecided"
        case "not_worse":
            verdict = "supported" if low > -margin else "refuted" if high <= -margin else "undecided"
        case "equivalent":
            outside = low >= margin or high <= -margin
            verdict = "supported" if found.verdict == "equivalent" else "refuted" if outside else "undecided"
        case "at_most" | "at_least" | "one_class" | "never_one_class":
            raise ValueError(f"{condition.rule} is no rule about quality")
        case _:
            assert_never(condition.rule)
    return tested, verdict


def _in_the_table(condition: Condition, facts: StudyFacts) -> Comparison | None:
    """The comparison to the control in the study's own table that a claim is about; None for other pairs."""
    pair, control = {condition.method, str(condition.than)}, facts.study.control
    if condition.split != "test" or control not in pair or len(pair) == 1:
        return None
    return facts.comparisons.get(next(iter(pair - {control})))


def _significant(condition: Condition, facts: StudyFacts) -> bool:
    """Whether Holm's correction leaves a difference to the control significant; True for other pairs."""
    found = _in_the_table(condition, facts)
    return found is None or (found.p_holm is not None and found.p_holm <= 1 - LEVEL)


def _level(condition: Condition, facts: StudyFacts) -> float:
    """Of "better" than the control, the level at which Holm's correction tests that method in the study's own table."""
    found = _in_the_table(condition, facts) if condition.rule == "better" else None
    return found.zero.level if found is not None and found.zero is not None else LEVEL


def _ratio(
    condition: Condition, method: MethodFacts, than: MethodFacts, seeds: list[int], costs: Costs
) -> tuple[Interval | None, Verdict]:
    """The geometric mean over shared seeds of the ratio of costs, with Student's t over its logarithm.

    Seeds of which one run's cost may not be compared are left out.
    """
    assert condition.cost is not None and condition.ratio is not None, "checked by the model"
    runs = [(method.runs[seed], than.runs[seed]) for seed in seeds]
    pairs = [
        [_cost(condition.cost, one.measurements) for one in pair]
        for pair in runs
        if _alike(condition.cost, pair, costs)
    ]
    if not pairs or any(not value for pair in pairs for value in pair):
        return None, "not_measured"
    logs = np.log([[float(value or 0) for value in pair] for pair in pairs])
    differences = logs[:, 0] - logs[:, 1]
    if len(pairs) == 1:
        return Interval(math.exp(differences[0]), -math.inf, math.inf, 0.0), "undecided"
    inner = t_interval(differences, LEVEL)
    interval = Interval(math.exp(inner.estimate), math.exp(inner.low), math.exp(inner.high), inner.df)
    below, above = interval.high <= condition.ratio, interval.low >= condition.ratio
    holds, fails = (below, above) if condition.rule == "at_most" else (above, below)
    return interval, "supported" if holds else "refuted" if fails else "undecided"


def _alike(cost: Cost, pair: tuple[ScoredRun, ScoredRun], costs: Costs) -> bool:
    """Whether the costs of two runs may be compared, as far as that is no matter of their grade (`_unmeasured`)."""
    match cost:
        case "peak_memory" | "memory_above_imports":
            resource: Resource = "memory"
        case "train_seconds":
            resource = "seconds"
        case "trainable_parameters" | "adapter_bytes":
            return True
        case _:
            assert_never(cost)
    return all(not {*costs.doubts(run, resource)} - {"estimated"} for run in pair)


def _unmeasured(condition: Condition, runs: Sequence[ScoredRun]) -> list[str]:
    """The runs whose cost was only estimated or assumed: no claim may rest on that (SCIENCE 8)."""
    assert condition.cost is not None, "checked by the model"
    costs = [(run.id, _graded(condition.cost, run.measurements)) for run in runs]
    return [run_id for run_id, cost in costs if isinstance(cost, Graded) and cost.grade not in MEASURED]


def _graded(cost: Cost, measured: Measurements) -> Graded | int | None:
    match cost:
        case "peak_memory":
            return measured.peak_memory_bytes
        case "memory_above_imports":
            return measured.peak_memory_above_imports_bytes
        case "train_seconds":
            return measured.train_seconds
        case "trainable_parameters":
            return measured.trainable_parameters
        case "adapter_bytes":
            return measured.adapter_bytes
        case _:
            assert_never(cost)


def _cost(cost: Cost, measured: Measurements) -> float | None:
    """A run's cost; None where it was not measured."""
    found = _graded(cost, measured)
    return found.value if isinstance(found, Graded) else None if found is None else float(found)


def _figure(one: Evidence, words: Words) -> str:
    """A difference or a ratio with its interval, or that it was not measured."""
    if one.estimate is None:
        return words.say("not measured")
    if one.bench:
        return _bench_figure(one.estimate, one.date, words)
    if one.rule in COLLAPSE_RULES:
        return words.count(round(one.estimate))
    quality = one.rule in (*QUALITY_RULES, "within_margin")
    digits = 3 if quality or one.rule == "forgets" else 2 if one.estimate >= 0.1 else 4
    text = words.number(one.estimate, digits, signed=quality)
    if one.low is None or one.high is None:
        return text
    return f"{text} {levelled(words, (one.low, one.high), one.level, digits, signed=quality)}"


def _bench_figure(value: float, date: str, words: Words) -> str:
    """One measurement: without an interval, with its date."""
    text = figure_text(value, words)
    if not date:
        return words.say("{estimate} (one measurement)", {"estimate": text})
    return words.say("{estimate} (one measurement, {date})", {"estimate": text, "date": date})
