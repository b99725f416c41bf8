"""Two runs side by side: every entry of their specs, and what they reached and cost, with the entries that differ.

Not here: whether a difference matters; that takes seeds and intervals (the study's page).

    result_lines(run_a, run_b, kept, RunCosts(study, kept), Words("en"))[0].differs
"""

from __future__ import annotations

from dataclasses import dataclass

from paretune.dashboard.index import RunEntry
from paretune.dashboard.kept import Kept
from paretune.dashboard.run_costs import RunCosts
from paretune.dashboard.words import run_state
from paretune.records.schema import Measurements
from paretune.report.build import flat
from paretune.report.tables import metric_name
from paretune.report.wording import Words
from paretune.stats.metrics import ALL_METRICS

NOT_THERE = "—"


@dataclass(frozen=True)
class Line:
    """One entry of two runs; a run that lacks it has a dash."""

    name: str
    first: str
    second: str

    @property
    def differs(self) -> bool:
        """Whether the two have other values."""
        return self.first != self.second


def spec_lines(first: RunEntry, second: RunEntry) -> list[Line]:
    """Entries of the specs, in the order of the first."""
    left, right = (flat(run.spec.model_dump(mode="json")) if run.spec else {} for run in (first, second))
    names = dict.fromkeys([*left, *right])
    return [Line(name, left.get(name, NOT_THERE), right.get(name, NOT_THERE)) for name in names]


def result_lines(first: RunEntry, second: RunEntry, kept: Kept, costs: RunCosts, words: Words) -> list[Line]:
    """State, scores and costs."""
    lines = [
        Line(words.say("state"), run_state(words, first.state), run_state(words, second.state)),
        Line(words.say("reason"), _reason(first), _reason(second)),
    ]
    left, right = (_results(run, kept, costs, words) for run in (first, second))
    return lines + [
        Line(name, left.get(name, NOT_THERE), right.get(name, NOT_THERE)) for name in dict.fromkeys([*left, *right])
    ]


def _reason(run: RunEntry) -> str:
    return (run.status.reason if run.status else "") or NOT_THERE


def _results(run: RunEntry, kept: Kept, costs: RunCosts, words: Words) -> dict[str, str]:
    measured = kept.record(run.folder / "measurements.json", Measurements)
    if not isinstance(measured, Measurements):
        return {}
    found = {
        f"{split}: {metric_name(words, metric) if metric in ALL_METRICS else metric}": words.number(value)
        for split, scores in measured.scores.items()
        for metric, value in scores.items()
    }
    return found | {
        words.say("peak memory"): costs.text(run, "memory", words),
        words.say("training time"): costs.text(run, "seconds", words),
        words.say("trainable parameters"): words.count(measured.trainable_parameters),
        words.say("steps"): words.count(measured.steps),
    }
