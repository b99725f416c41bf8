"""The summary of a study: one typed row a method, and the same as a table for a terminal.

Not here: the other tables of the page (`sheets.py`). A figure that was not measured is None, never a guess.

    for row in summary(Path("results/demo")): print(row.method, row.quality, row.verdict)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from rich.table import Table
from rich.text import Text

from paretune.records.schema import Family, Grade, Latency, Measurements
from paretune.records.store import StudyFolder
from paretune.report.facts import MethodFacts, StudyFacts, bounds, gather
from paretune.report.wording import Words
from paretune.stats.metrics import metric_named


@dataclass(frozen=True)
class Cost:
    """Mean of a resource over a method's scored runs, with the worst of their grades."""

    value: float
    grade: Grade


@dataclass(frozen=True)
class MethodRow:
    """One method: quality, difference to the control, and what it cost (means over its scored runs).

    `quality_interval` is Student-t over seeds, `difference_interval` crossed over seeds and examples; both are
    None with one seed. `stopped` maps a state ("oom", "failed", "unfinished", …) to its number of runs.
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
    verdict: str | None
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
    return [_row(facts, method) for method in facts.methods]


def _row(facts: StudyFacts, method: MethodFacts) -> MethodRow:
    label, measured = method.label, method.measurements()
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
        difference_interval=bounds(comparison.difference) if comparison else None,
        p_holm=comparison.p_holm if comparison else None,
        verdict=comparison.verdict if comparison else None,
        more_seeds=comparison.more_seeds if comparison else None,
        limited_by=comparison.limited_by if comparison else None,
        baselines_not_beaten=tuple(facts.not_beaten.get(label, ())),
        scores=_mean_scores(method),
        churn=method.churn(),
        peak_memory_bytes=_cost(measured, lambda one: (one.peak_memory_bytes.value, one.peak_memory_bytes.grade)),
        peak_memory_above_imports_bytes=_cost(
            measured, lambda one: (one.peak_memory_above_imports_bytes.value, one.peak_memory_above_imports_bytes.grade)
        ),
        train_seconds=_cost(measured, lambda one: (one.train_seconds.value, one.train_seconds.grade)),
        train_cpu_seconds=_cost(measured, lambda one: (one.train_cpu_seconds.value, one.train_cpu_seconds.grade)),
        energy_joules=_cost(
            [one for one in measured if one.energy_joules],
            lambda one: (one.energy_joules.value, one.energy_joules.grade) if one.energy_joules else (0.0, "assumed"),
        ),
        trainable_parameters=max((one.trainable_parameters for one in measured), default=None),
        total_parameters=max((one.total_parameters for one in measured), default=None),
        adapter_bytes=max((one.adapter_bytes for one in measured if one.adapter_bytes is not None), default=None),
        latency=next((tuple(one.latency) for one in measured if one.latency), ()),
        trials=len(method.selection.trials) if method.selection else 0,
        search_seconds=method.selection.trial_seconds if method.selection else None,
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


def _cost(measured: list[Measurements], of: Callable[[Measurements], tuple[float, Grade]]) -> Cost | None:
    found = [of(one) for one in measured]
    if not found:
        return None
    worst = max(GRADES.index(grade) for _, grade in found)
    return Cost(fmean(value for value, _ in found), GRADES[worst])


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
    names = {"better": words.say("better"), "worse": words.say("worse"), "equivalent": words.say("equivalent")}
    return names.get(row.verdict, words.say("undecided"))


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
    """Mean and t interval; the mean alone where there is one seed."""
    if row.quality is None:
        return words.say("not measured")
    return words.interval(row.quality, row.quality_interval)


def difference_text(words: Words, row: MethodRow) -> str:
    """Difference to the control with its crossed interval."""
    if row.difference is None:
        return "—"
    return words.interval(row.difference, row.difference_interval, signed=True)


def terminal_table(folder: Path, lang: str) -> Table:
    """The summary for a terminal; `terminal.py` fits it to a width.

    Raises:
        ConfigError: an unknown language. RecordError: no study's folder.
    """
    words, facts = Words(lang), gather(StudyFolder(folder))
    metric = metric_name(words, facts.metric)
    pilot = f" · {words.say('pilot')}" if facts.study.pilot else ""
    table = Table(
        title=f"{facts.study.name}: {metric}{pilot}",
        title_justify="left",
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
    for row in rows_of(facts):
        table.add_row(
            row.method,
            quality_text(words, row),
            difference_text(words, row),
            Text(verdict_name(words, row), style=styles.get(row.verdict or "", "")),
            words.size(row.peak_memory_bytes.value) if row.peak_memory_bytes else "—",
            words.duration(row.train_seconds.value) if row.train_seconds else "—",
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
        memory = words.size(row.peak_memory_bytes.value) if row.peak_memory_bytes else "—"
        seconds = words.duration(row.train_seconds.value) if row.train_seconds else "—"
        parameters = words.compact(row.trainable_parameters) if row.trainable_parameters is not None else "—"
        cells = [row.method, quality_text(words, row), difference_text(words, row), verdict_name(words, row)]
        lines.append([*cells, memory, seconds, parameters])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
