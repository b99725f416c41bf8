"""The summary of a study: one typed row a method, and the same as a table for a terminal.

Not here: the other tables of the page (`sheets.py`). A figure that was not measured is None, never a guess.

    for row in summary(Path("results/demo")): print(row.method, row.quality, row.verdict)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, Protocol, assert_never

from rich.table import Table
from rich.text import Text

from paretune.records.schema import Family, Grade, Graded, Latency, Measurements
from paretune.records.store import StudyFolder
from paretune.report.costs import Costs, Doubt, Resource, doubt_text
from paretune.report.facts import LEVEL, MethodFacts, ScoredRun, StudyFacts, bounds, gather
from paretune.report.wording import Words
from paretune.stats.compare import Verdict
from paretune.stats.metrics import metric_named


@dataclass(frozen=True)
class Cost:
    """Mean of a resource over a method's scored runs, with the worst of their grades.

    It is over the runs whose cost may be compared with others; where none may, over all, and `ranked` is False.
    `left_out` has how many runs are not compared, by the reason.
    """

    value: float
    grade: Grade
    ranked: bool = True
    left_out: tuple[tuple[Doubt, int], ...] = ()


@dataclass(frozen=True)
class MethodRow:
    """One method: quality, difference to the control, and what it cost (means over its scored runs).

    Both intervals are over seeds and test examples, and None with one seed. `quality_interval` is one of 95 %;
    `difference_interval` is the one that the verdict was taken from, at `difference_level`, and None where too few
    seeds leave it open. `tost_holm` is the p of equivalence, corrected for the number of methods. `stopped` maps a
    state ("oom", "failed", "unfinished", …) to its number of runs. `learns` is False of the majority class alone.
    """

    method: str
    family: Family
    control: bool
    scored_runs: int
    stopped: dict[str, int]
    reasons: tuple[str, ...]
    quality: float | None
    quality_interval: tuple[float, float] | None
    quality_away_from_training: float | None
    difference: float | None
    difference_interval: tuple[float, float] | None
    p_holm: float | None
    verdict: Verdict | None
    more_seeds: int | None
    limited_by: Literal["seeds", "examples"] | None
    baselines_not_beaten: tuple[str, ...]
    scores: dict[str, dict[str, float]]
    churn: float | None
    peak_memory_bytes: Cost | None
    peak_memory_above_imports_bytes: Cost | None
    train_seconds: Cost | None
    train_cpu_seconds: Cost | None
    energy_joules: Cost | None
    trainable_parameters: int | None
    total_parameters: int | None
    adapter_bytes: int | None
    latency: tuple[Latency, ...]
    trials: int
    search_seconds: float | None
    difference_level: float | None = None
    tost_holm: float | None = None
    learns: bool = True


NOT_RANKED = "\N{DAGGER}"
GRADES: tuple[Grade, ...] = ("counter", "sampled", "estimated", "assumed")


def summary(folder: Path) -> list[MethodRow]:
    """The methods of a study in its order.

    Raises:
        RecordError: the folder is no study's, or a record of it is torn.
    """
    return rows_of(gather(StudyFolder(folder)))


def open_ends(rows: list[MethodRow]) -> list[str]:
    """Methods about which the study decides nothing yet, or some of whose runs gave no result, for whatever reason."""
    return [row.method for row in rows if row.verdict == "undecided" or row.stopped]


def nothing_scored(rows: list[MethodRow]) -> str:
    """Where no run of a study was scored, how its runs ended; else an empty text."""
    if any(row.scored_runs for row in rows):
        return ""
    ends = (
        f"{row.method}: " + ", ".join(f"{state} × {count}" for state, count in row.stopped.items()) + _reason(row)
        for row in rows
    )
    return "; ".join(ends)


def _reason(row: MethodRow) -> str:
    return f" ({row.reasons[0]})" if row.reasons else ""


def rows_of(facts: StudyFacts) -> list[MethodRow]:
    """The rows of gathered facts."""
    costs = Costs(facts)
    return [_row(facts, method, costs) for method in facts.methods]


def _row(facts: StudyFacts, method: MethodFacts, costs: Costs) -> MethodRow:
    label, measured = method.label, method.measurements()
    runs = [run for _, run in sorted(method.runs.items())]
    quality = facts.quality.get(label)
    comparison = facts.comparisons.get(label)
    return MethodRow(
        method=label,
        family=method.family,
        control=label == facts.study.control,
        scored_runs=len(method.runs),
        stopped=dict(sorted(method.stopped.items())),
        reasons=tuple(sorted(method.reasons)),
        quality=quality.estimate if quality else None,
        quality_interval=bounds(quality) if quality else None,
        quality_away_from_training=_mean(
            [run.splits["test"].away_from_training(facts.metric) for run in method.runs.values()]
        ),
        difference=facts.mean_difference(label),
        difference_interval=bounds(comparison.difference) if comparison and not comparison.too_few_seeds else None,
        p_holm=comparison.p_holm if comparison else None,
        verdict=comparison.verdict if comparison else None,
        more_seeds=comparison.more_seeds if comparison else None,
        limited_by=comparison.limited_by if comparison else None,
        baselines_not_beaten=tuple(facts.not_beaten.get(label, ())),
        scores=_mean_scores(method),
        churn=method.churn(),
        peak_memory_bytes=cost_of(costs, runs, "memory", lambda one: one.peak_memory_bytes),
        peak_memory_above_imports_bytes=cost_of(costs, runs, "memory", lambda one: one.peak_memory_above_imports_bytes),
        train_seconds=cost_of(costs, runs, "seconds", lambda one: one.train_seconds),
        train_cpu_seconds=cost_of(costs, runs, "cpu_seconds", lambda one: one.train_cpu_seconds),
        energy_joules=cost_of(costs, runs, "energy", lambda one: one.energy_joules),
        trainable_parameters=max((one.trainable_parameters for one in measured), default=None),
        total_parameters=max((one.total_parameters for one in measured), default=None),
        adapter_bytes=max((one.adapter_bytes for one in measured if one.adapter_bytes is not None), default=None),
        latency=next((tuple(one.latency) for one in measured if one.latency), ()),
        trials=len(method.selection.trials) if method.selection else 0,
        search_seconds=method.selection.trial_seconds if method.selection else None,
        difference_level=comparison.level if comparison else None,
        tost_holm=comparison.tost_holm if comparison else None,
        learns=method.learns,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean_scores(method: MethodFacts) -> dict[str, dict[str, float]]:
    """Mean over seeds of every metric, for each split."""
    collected: dict[str, dict[str, list[float]]] = {}
    for run in method.runs.values():
        for split, predictions in run.splits.items():
            for metric, value in predictions.scores().items():
                collected.setdefault(split, {}).setdefault(metric, []).append(value)
    return {
        split: {metric: fmean(values) for metric, values in metrics.items()} for split, metrics in collected.items()
    }


def cost_of(
    costs: Costs, every: Sequence[ScoredRun], resource: Resource, of: Callable[[Measurements], Graded | None]
) -> Cost | None:
    """Mean of a method's runs; None where none has such a figure."""
    runs = [run for run in every if of(run.measurements) is not None]
    if not runs:
        return None
    compared = [run for run in runs if not costs.doubts(run, resource)]
    found = [one for run in compared or runs if (one := of(run.measurements)) is not None]
    worst = max(GRADES.index(one.grade) for one in found)
    left_out = tuple(sorted(costs.left_out(every, resource).items()))
    return Cost(fmean(one.value for one in found), GRADES[worst], bool(compared), left_out)


def cost_text(cost: Cost | None, form: Callable[[float], str]) -> str:
    """A cost for a narrow table, with a mark where it is compared with no other; a dash where there is none."""
    if cost is None:
        return "—"
    return form(cost.value) if cost.ranked else form(cost.value) + NOT_RANKED


def doubts_text(cost: Cost, words: Words) -> str:
    """Why runs are left out of a mean, or the mean of all comparisons; empty where they are not."""
    if not cost.ranked:
        return words.say("not ranked: {why}", {"why": "; ".join(doubt_text(one, words) for one, _ in cost.left_out)})
    parts = [f"{words.count(number)} × {doubt_text(one, words)}" for one, number in cost.left_out]
    return words.say("left out: {why}", {"why": "; ".join(parts)}) if parts else ""


class WithCosts(Protocol):
    """A row of a table that has a method's costs."""

    @property
    def method(self) -> str: ...
    @property
    def peak_memory_bytes(self) -> Cost | None: ...
    @property
    def train_seconds(self) -> Cost | None: ...


def ranking_notes(rows: Sequence[WithCosts], words: Words) -> list[str]:
    """What the mark for costs that are not ranked means here; nothing where there is no such cost."""
    found = [(row.method, cost) for row in rows for cost in (row.peak_memory_bytes, row.train_seconds) if cost]
    names = [name for name, cost in found if not cost.ranked]
    return not_ranked_notes(names, [doubt for _, cost in found for doubt, _ in cost.left_out], words)


def not_ranked_notes(names: Sequence[str], doubts: Sequence[Doubt], words: Words) -> list[str]:
    """The same of the names of what is marked, and of all reasons; nothing where there is no reason."""
    why = dict.fromkeys(doubts)
    if not why:
        return []
    values = {
        "mark": NOT_RANKED,
        "methods": words.series(list(dict.fromkeys(names))) if names else words.say("none"),
        "why": "; ".join(doubt_text(one, words) for one in why),
    }
    return [
        words.say(
            "Costs are compared only between quiet runs of one processor, engine and number of threads ({mark} not "
            "ranked: {methods}; {why}).",
            values,
        )
    ]


def metric_name(words: Words, metric: str) -> str:
    """A metric's name for readers.

    Raises:
        ValueError: there is no such metric.
    """
    names = {
        "accuracy": words.say("accuracy"),
        "macro_f1": words.say("macro-F1"),
        "mcc": words.say("Matthews correlation"),
        "log_loss": words.say("log-loss"),
        "calibration_error": words.say("calibration error"),
        "nll": words.say("nats per token"),
        "perplexity": words.say("perplexity"),
        "bits_per_byte": words.say("bits per byte"),
    }
    return names[metric_named(metric).name]


def state_name(words: Words, state: str) -> str:
    """How a run ended, in words."""
    names = {
        "ok": words.say("finished"),
        "failed": words.say("failed"),
        "oom": words.say("out of memory"),
        "over_budget": words.say("over budget"),
        "timeout": words.say("timed out"),
        "cancelled": words.say("cancelled"),
        "unfinished": words.say("not finished"),
        "missing": words.say("missing"),
        "broken": words.say("broken record"),
    }
    return names.get(state, state)


def verdict_name(words: Words, row: MethodRow) -> str:
    """The verdict on a row, with what would decide an undecided one."""
    if row.control:
        return words.say("control")
    if row.verdict is None:
        return words.say("not compared")
    return decided_name(words, row.verdict)


def decided_name(words: Words, verdict: Verdict) -> str:
    """A comparison's verdict in words."""
    match verdict:
        case "better":
            return words.say("better")
        case "worse":
            return words.say("worse")
        case "equivalent":
            return words.say("equivalent")
        case "undecided":
            return words.say("undecided")
        case _:
            assert_never(verdict)


def level_text(words: Words, level: float) -> str:
    """The level of an interval: "95 %", "98.3 %", "99.81 %"."""
    digits = next(one for one in range(7) if one == 6 or abs(round(level, one + 2) - level) < 0.06 * (1 - level))
    number = words.number(100 * level, digits) if digits else words.count(round(100 * level))
    return f"{number}\N{NO-BREAK SPACE}%"


def more_seeds_text(words: Words, more_seeds: int | None, limited_by: str | None) -> str:
    """What would decide an undecided difference; empty where one seed cannot tell."""
    if more_seeds is not None:
        return words.plural("about {n} more seed would decide it", "about {n} more seeds would decide it", more_seeds)
    if limited_by == "examples":
        return words.say("more test examples are needed, seeds alone will not decide it")
    return words.say("over 200 more seeds would be needed") if limited_by == "seeds" else ""


def runs_text(words: Words, row: MethodRow) -> str:
    """Number of scored runs and the states in which others ended."""
    parts = [words.count(row.scored_runs)]
    parts += [f"{state_name(words, state)} × {words.count(number)}" for state, number in row.stopped.items()]
    return "; ".join(parts)


def quality_text(words: Words, row: MethodRow) -> str:
    """Mean and interval; the mean alone where there is one seed, or every seed and example says the same."""
    if row.quality is None:
        return words.say("not measured")
    ends = row.quality_interval
    return words.interval(row.quality, ends if ends is not None and ends[0] < ends[1] else None)


def difference_text(words: Words, row: MethodRow) -> str:
    """Difference to the control with the interval of its verdict."""
    if row.difference is None:
        return "—"
    return words.interval(row.difference, row.difference_interval, signed=True)


def levelled(
    words: Words, interval: tuple[float, float], level: float | None, digits: int = 3, signed: bool = True
) -> str:
    """The ends of a difference's interval; with its level, where that is not 95 %."""
    ends = words.spread(*interval, digits, signed)
    return ends if level is None or abs(level - LEVEL) < 1e-9 else f"{ends}, {level_text(words, level)}"


def interval_note(words: Words) -> str:
    """Which intervals stand in a table of verdicts."""
    return words.say(
        "Quality: 95 % over seeds and test texts. Difference: the interval that the verdict was taken from — 90 % for "
        "equivalent (two one-sided tests at 5 %), else 95 % with Holm's correction for the number of methods."
    )


def terminal_table(folder: Path, lang: str) -> Table:
    """The summary for a terminal; `terminal.py` fits it to a width.

    Raises:
        ConfigError: an unknown language. RecordError: no study's folder.
    """
    words, facts = Words(lang), gather(StudyFolder(folder))
    metric, rows = metric_name(words, facts.metric), rows_of(facts)
    pilot = f" · {words.say('pilot')}" if facts.study.pilot else ""
    table = Table(
        title=f"{facts.study.name}: {metric}{pilot}",
        title_justify="left",
        caption="\n".join([interval_note(words), *ranking_notes(rows, words)]),
        caption_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column(words.say("method"), no_wrap=True)
    table.add_column(words.say("quality [95 %]"), justify="right", no_wrap=True)
    table.add_column(words.say("to control"), justify="right", no_wrap=True)
    table.add_column(words.say("verdict"))
    table.add_column(words.say("memory"), justify="right", no_wrap=True)
    table.add_column(words.say("training"), justify="right")
    table.add_column(words.say("runs"))
    styles = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow"}
    for row in rows:
        table.add_row(
            row.method,
            quality_text(words, row),
            difference_text(words, row),
            Text(verdict_name(words, row), style=styles.get(row.verdict or "", "")),
            cost_text(row.peak_memory_bytes, words.size),
            cost_text(row.train_seconds, words.duration),
            runs_text(words, row),
        )
    return table


def markdown_table(folder: Path, lang: str) -> str:
    """The summary as a Markdown table, for README and notes; every figure is read from records.

    Raises:
        ConfigError: an unknown language. RecordError: no study's folder.
    """
    words, facts = Words(lang), gather(StudyFolder(folder))
    head = [
        words.say("method"),
        f"{metric_name(words, facts.metric)} [95 %]",
        words.say("to control"),
        words.say("verdict"),
        words.say("memory"),
        words.say("training"),
        words.say("trainable parameters"),
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows_of(facts):
        memory, seconds = cost_text(row.peak_memory_bytes, words.size), cost_text(row.train_seconds, words.duration)
        parameters = words.compact(row.trainable_parameters) if row.trainable_parameters is not None else "—"
        cells = [row.method, quality_text(words, row), difference_text(words, row), verdict_name(words, row)]
        lines.append([*cells, memory, seconds, parameters])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
