"""What would decide a study's undecided comparisons: further seeds, with their time and energy, the cheapest first.

Not here: how many seeds (`stats/compare.py`). Time is of whole runs, as they were measured; energy is the mean power of
the training runs over that time, and bears the grade that it has there.

    next_text(facts, Words("en"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from paretune.records.schema import Grade
from paretune.report.cost_sheets import grade_name
from paretune.report.facts import MethodFacts, StudyFacts
from paretune.report.sheets import Cell, Sheet
from paretune.report.tables import GRADES, more_seeds_text
from paretune.report.wording import Words
from paretune.stats.budget import Experiment, decisive_experiments
from paretune.stats.compare import Comparison

PROBED_ONCE = "latency"  # a phase of each method's first seed alone
MOST_NAMES = 4


@dataclass(frozen=True)
class Open:
    """What a study leaves open: undecided comparisons, and the experiments that would decide some of them."""

    undecided: list[Comparison]
    experiments: list[Experiment]
    energy_grades: Mapping[str, Grade]

    @property
    def next(self) -> Experiment | None:
        return self.experiments[0] if self.experiments else None


def open_of(facts: StudyFacts) -> Open:
    """The undecided comparisons of a study in its order, and their experiments, the cheapest first."""
    undecided = [one for one in facts.comparisons.values() if one.verdict == "undecided"]
    seconds = {method.label: _run_seconds(method) for method in facts.scored}
    power = {method.label: _watts(method) for method in facts.scored}
    watts = {label: one[0] for label, one in power.items() if one is not None}
    grades: dict[str, Grade] = {label: one[1] for label, one in power.items() if one is not None}
    found = decisive_experiments(undecided, facts.study.control, seconds, watts)
    return Open(undecided, found, grades)


def _run_seconds(method: MethodFacts) -> float:
    """Mean time of a scored run, from loading to prediction."""
    runs = [sum(one.seconds for one in run.phases if one.phase != PROBED_ONCE) for run in method.measurements()]
    return fmean(runs)


def _watts(method: MethodFacts) -> tuple[float, Grade] | None:
    """Mean power while training, with the worst of the runs' grades; None where a run has no energy."""
    found = [(one.energy_joules, one.train_seconds.value) for one in method.measurements()]
    known = [(joules, seconds) for joules, seconds in found if joules is not None and seconds > 0]
    if not known or len(known) < len(found):
        return None
    power = fmean(joules.value / seconds for joules, seconds in known)
    worst = max(GRADES.index(joules.grade) for joules, _ in known)
    return power, GRADES[worst]


def decide_sheet(facts: StudyFacts, words: Words) -> Sheet | None:
    """One row for each undecided comparison; None where there is none."""
    found = open_of(facts)
    if not found.undecided:
        return None
    by_method = {one.method: one for one in found.experiments}
    lines: list[tuple[Cell, ...]] = []
    for one in found.undecided:
        experiment = by_method.get(one.method)
        if experiment is None:
            lines.append((Cell(one.method, kind="name"), Cell(why_no_seeds(one, words)), Cell("—"), Cell("—")))
        else:
            lines.append(
                (
                    Cell(one.method, kind="name"),
                    Cell(words.count(experiment.seeds)),
                    Cell(words.duration(experiment.seconds)),
                    _energy(experiment, found, facts.study.control, words),
                )
            )
    columns = (words.say("method"), words.say("further seeds"), words.say("time"), words.say("energy"))
    notes = (next_text(facts, words), how_counted(words))
    return Sheet(words.say("What would decide it"), columns, tuple(lines), notes, frozenset({1}))


def how_counted(words: Words) -> str:
    """What the seeds, the time and the energy are."""
    return words.say(
        "A further seed is run for the method and for the control, at the learning rates already chosen. Seeds: so "
        "many that the comparison is decided with a probability of 80 %, if the difference and the variances found "
        "are the true ones; from few seeds that is an order of magnitude. Time: whole runs on the study's machine. "
        "Energy: that time at the mean power of the training."
    )


def why_no_seeds(one: Comparison, words: Words) -> str:
    """Why no number of seeds is given for an undecided comparison."""
    if one.difference is None:
        return words.say("fewer than two shared seeds")
    return more_seeds_text(words, None, one.limited_by)


def next_text(facts: StudyFacts, words: Words) -> str:
    """The next cheapest decisive experiment as one sentence, or why there is none."""
    found = open_of(facts)
    if not facts.comparisons:
        return words.say("Nothing is compared yet, so no experiment would decide anything.")
    if not found.undecided:
        return words.say("Every comparison with the control {control} is decided.", {"control": facts.study.control})
    if found.next is None:
        reasons = list(dict.fromkeys(why_no_seeds(one, words) for one in found.undecided))
        return words.say("There is no cheapest decisive experiment: {reasons}.", {"reasons": "; ".join(reasons)})
    energy = _energy(found.next, found, facts.study.control, words)
    values = {
        "experiment": experiment_text(found.next, facts.study.control, words),
        "cost": ", ".join([words.duration(found.next.seconds), *_noted(energy)]),
    }
    return words.say("The next cheapest decisive experiment: {experiment}; about {cost}.", values)


def experiment_text(one: Experiment, control: str, words: Words) -> str:
    """ "7 further seeds of lora and of the control full"."""
    values = {"method": one.method, "control": control}
    return words.plural(
        "{n} further seed of {method} and of the control {control}",
        "{n} further seeds of {method} and of the control {control}",
        one.seeds,
        values,
    )


def next_sheet(studies: Sequence[StudyFacts], words: Words) -> Sheet:
    """The next cheapest decisive experiment of each study."""
    lines: list[tuple[Cell, ...]] = []
    for facts in studies:
        found = open_of(facts)
        name = Cell(facts.study.name, kind="name")
        undecided = Cell(_undecided(found, facts, words))
        if found.next is None:
            lines.append((name, undecided, Cell(_none(found, words)), Cell("—"), Cell("—")))
        else:
            lines.append(
                (
                    name,
                    undecided,
                    Cell(experiment_text(found.next, facts.study.control, words)),
                    Cell(words.duration(found.next.seconds)),
                    _energy(found.next, found, facts.study.control, words),
                )
            )
    columns = (
        words.say("study"),
        words.say("undecided"),
        words.say("experiment"),
        words.say("time"),
        words.say("energy"),
    )
    title = words.say("The next cheapest decisive experiment")
    return Sheet(title, columns, tuple(lines), (how_counted(words),), frozenset({1, 2}))


def _undecided(found: Open, facts: StudyFacts, words: Words) -> str:
    if not facts.comparisons:
        return words.say("nothing is compared")
    names = [one.method for one in found.undecided]
    if len(names) <= MOST_NAMES:
        return ", ".join(names) or "—"
    return words.plural("{n} method of {total}", "{n} methods of {total}", len(names), {
        "total": words.count(len(facts.comparisons)),
    })  # fmt: skip


def _none(found: Open, words: Words) -> str:
    return "; ".join(dict.fromkeys(why_no_seeds(one, words) for one in found.undecided)) or "—"


def _energy(one: Experiment, found: Open, control: str, words: Words) -> Cell:
    if one.watt_hours is None:
        return Cell(words.say("not measured"))
    grade = GRADES[max(GRADES.index(found.energy_grades[name]) for name in (one.method, control))]
    return Cell(words.watt_hours(one.watt_hours), grade_name(words, grade) if grade != "counter" else "")


def _noted(cell: Cell) -> list[str]:
    return [f"{cell.text} ({cell.note})" if cell.note else cell.text]
