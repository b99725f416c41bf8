"""The table of a study of next tokens: nats per token with its interval, each method against the control, costs.

Less is better throughout: a difference is method − control in nats per token, and `better` means below. Compared as any
other metric, on each text's share in the mean (`stats/token_scores.py`). Not here: a page, figures, budgets and the
answer in one sentence, which know classification alone (`build.py`).

    for row in token_rows(StudyFolder(Path("runs/texts"))): print(row.method, row.nll, row.verdict)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from rich.table import Table

from paretune.core.errors import RecordError, said
from paretune.records.membership import members
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.costs import Costs, costs_of, measured_run
from paretune.report.facts import LEVEL, ScoredRun, bounds, faults_of
from paretune.report.tables import Cost, cost_of, cost_text, decided_name, ranking_notes, state_name
from paretune.report.wording import Words
from paretune.stats.compare import SeedScores, Verdict, compare
from paretune.stats.intervals import crossed_interval
from paretune.stats.metrics import merit, metric_named
from paretune.stats.token_scores import nll_per_example


@dataclass(frozen=True)
class TokenRow:
    """One method on the test split: means over its seeds; None where none was scored, or nothing is known.

    `difference` is method − control in nats per token; ends are None where the data give no interval.
    """

    method: str
    control: bool
    seeds: int
    nll: float | None = None
    nll_interval: tuple[float, float] | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    verdict: Verdict | None = None
    peak_memory_bytes: Cost | None = None
    train_seconds: Cost | None = None
    stopped: tuple[tuple[str, int], ...] = ()


def token_rows(folder: StudyFolder) -> list[TokenRow]:
    """One row a method, in the study's order.

    Raises:
        RecordError: the folder is no study's, a record is torn, or runs have other test texts.
    """
    study = folder.study()
    chosen = {one.method for one in study.selections} | {one.label for one in study.methods if not one.searched}
    runs = {run.id: (run, run.spec()) for run in folder.runs()}
    own = members(study, {run_id: spec for run_id, (_, spec) in runs.items()})
    scored: dict[str, dict[int, RunFolder]] = {one.label: {} for one in study.methods}
    stopped: dict[str, Counter[str]] = {one.label: Counter() for one in study.methods}
    odd = {fault.run_id for fault in faults_of(folder)}
    for run, spec in runs.values():
        if run.id in odd and own.role(run.id) == "result":
            stopped[spec.method]["broken"] += 1
            continue
        role, status = own.role(run.id), run.status()
        if role == "left_over":
            continue
        if status is not None and status.state != "ok":
            stopped[spec.method][status.state] += 1
        elif run.scored and role == "result" and spec.method in chosen:
            scored[spec.method][spec.seed] = run
    for one in own.absent(set(runs)):
        stopped[one.method]["missing" if own.complete else "unfinished"] += 1
    shares = _shares(scored)
    measured = {
        label: [
            measured_run(run.id, runs[run.id][1], run.measurements(), run.provenance())
            for _, run in sorted(of_seeds.items())
        ]
        for label, of_seeds in scored.items()
    }
    costs = costs_of(study, (run for of_method in measured.values() for run in of_method))
    found = {}
    if len(shares.get(study.control, {})) > 0 and len(shares) > 1:
        # compared with the sign that makes more better, so that the verdicts are those of any metric
        negative = {label: {seed: merit("nll", 1.0) * one for seed, one in of.items()} for label, of in shares.items()}
        found = {one.method: one for one in compare(negative, study.control, study.margin, LEVEL)}
    rows: list[TokenRow] = []
    for method in study.methods:
        label, ends = method.label, tuple(sorted(stopped[method.label].items()))
        row = TokenRow(label, label == study.control, len(scored[label]), stopped=ends)
        comparison = found.get(label)
        if comparison is not None and comparison.difference is not None:
            both = bounds(comparison.difference) if not comparison.too_few_seeds else None
            row = replace(
                row,
                difference=-comparison.difference.estimate,
                difference_interval=(-both[1], -both[0]) if both else None,
            )
        if comparison is not None:
            row = replace(row, verdict=comparison.verdict)
        own = measured[label]
        rows.append(_scored_row(row, own, costs, shares.get(label, {})) if own else row)
    return rows


def _shares(scored: dict[str, dict[int, RunFolder]]) -> dict[str, SeedScores]:
    """Each text's share in the nats per token, for methods that were scored; all of the same texts."""
    found: dict[str, dict[int, np.ndarray]] = {}
    reference: list[str] | None = None
    for label, of_seeds in scored.items():
        for seed, run in sorted(of_seeds.items()):
            table = run.token_losses().to_pydict()
            at = [place for place, split in enumerate(table["split"]) if split == "test"]
            ids = [str(table["id"][place]) for place in at]
            reference = ids if reference is None else reference
            if ids != reference:
                raise RecordError(said(f"run {run.id} has other test texts", "the same texts in every run"))
            nll, tokens = ([table[name][place] for place in at] for name in ("nll", "tokens"))
            found.setdefault(label, {})[seed] = nll_per_example(nll, tokens)
    return dict(found)


def _scored_row(row: TokenRow, runs: list[ScoredRun], costs: Costs, shares: SeedScores) -> TokenRow:
    scores = [run.measurements.scores["test"] for run in runs]
    values = [one["nll"] for one in scores]
    return replace(
        row,
        nll=float(np.mean(values)),
        nll_interval=_over_seeds_and_texts(shares),
        perplexity=float(np.mean([one["perplexity"] for one in scores])),
        bits_per_byte=float(np.mean([one["bits_per_byte"] for one in scores])),
        peak_memory_bytes=cost_of(costs, runs, "memory", lambda one: one.peak_memory_bytes),
        train_seconds=cost_of(costs, runs, "seconds", lambda one: one.train_seconds),
    )


def _over_seeds_and_texts(shares: SeedScores) -> tuple[float, float] | None:
    """The 95 % interval of the nats per token; None with one seed or text."""
    values_se = np.stack([shares[seed] for seed in sorted(shares)]) if shares else np.zeros((0, 0))
    if min(values_se.shape) < 2:
        return None
    return bounds(crossed_interval(values_se, LEVEL).within(metric_named("nll").bounds))


def open_token_ends(rows: list[TokenRow]) -> list[str]:
    """Methods about which the study decides nothing yet, or some of whose runs gave no result, for whatever reason."""
    return [row.method for row in rows if row.verdict == "undecided" or row.stopped]


def token_note(words: Words) -> str:
    """What stands below the table."""
    return words.say("No page is drawn of this task yet: the table and the records are all there is.")


def token_table(folder: StudyFolder, rows: list[TokenRow], words: Words) -> Table:
    """The rows for a terminal."""
    study = folder.study()
    pilot = f" · {words.say('pilot')}" if study.pilot else ""
    metric = words.say("nats per token, less is better")
    title = f"{study.name}: {metric}{pilot}"
    table = Table(
        title=title,
        title_justify="left",
        caption="\n".join(ranking_notes(rows, words)) or None,
        caption_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column(words.say("method"), no_wrap=True)
    table.add_column(words.say("quality [95 %]"), justify="right", no_wrap=True)
    table.add_column(words.say("to control"), justify="right", no_wrap=True)
    table.add_column(words.say("verdict"))
    table.add_column(words.say("perplexity"), justify="right")
    table.add_column(words.say("bits per byte"), justify="right")
    table.add_column(words.say("memory"), justify="right")
    table.add_column(words.say("training"), justify="right")
    table.add_column(words.say("runs"))
    for row in rows:
        table.add_row(
            row.method,
            "—" if row.nll is None else words.interval(row.nll, row.nll_interval),
            "—" if row.difference is None else words.interval(row.difference, row.difference_interval, signed=True),
            words.say("control") if row.control else _verdict(row.verdict, words),
            "—" if row.perplexity is None else words.number(row.perplexity, 2),
            "—" if row.bits_per_byte is None else words.number(row.bits_per_byte),
            cost_text(row.peak_memory_bytes, words.size),
            cost_text(row.train_seconds, words.duration),
            ", ".join(
                [words.count(row.seeds), *(f"{state_name(words, one)} × {words.count(n)}" for one, n in row.stopped)]
            ),
        )
    return table


def _verdict(verdict: Verdict | None, words: Words) -> str:
    return decided_name(words, verdict) if verdict is not None else words.say("not compared")
