"""What the runs of a study cost, each with the mark that the report's tables give what is compared with no other.

Not here: what stands against comparing (`report/costs.py`). Read from measurements alone, so that a list of hundreds of
runs needs no predictions.

    RunCosts(entry, index.kept).text(run, "memory", Words("en"))
"""

from __future__ import annotations

from paretune.dashboard.gathered import KeptRun
from paretune.dashboard.index import RunEntry, StudyEntry
from paretune.dashboard.kept import Kept
from paretune.records.membership import members
from paretune.records.schema import Measurements
from paretune.report.costs import Costs, Doubt, Resource, costs_of, graded, measured_run
from paretune.report.facts import ScoredRun
from paretune.report.tables import NOT_RANKED, not_ranked_notes
from paretune.report.wording import Words

RESOURCES: tuple[Resource, ...] = ("memory", "seconds")


class RunCosts:
    """The costs of all runs that have been measured; of a study without a readable record none is compared."""

    def __init__(self, entry: StudyEntry, kept: Kept) -> None:
        self._runs = {run.id: found for run in entry.runs if (found := _measured(run, kept)) is not None}
        self._costs: Costs | None = None
        if entry.study is None:
            return
        own = members(entry.study, {run.id: run.spec for run in entry.runs if run.spec is not None})
        labels = {method.label for method in entry.study.methods}
        every = [run for run in self._runs.values() if run.spec.method in labels]
        results = [run for run in every if own.role(run.id) == "result"]
        self._costs = costs_of(entry.study, results or every)

    def doubts(self, run: RunEntry, resource: Resource) -> tuple[Doubt, ...]:
        """Why a run's cost is not compared."""
        found = self._runs.get(run.id)
        return () if found is None or self._costs is None else self._costs.doubts(found, resource)

    def ranked(self, run: RunEntry, resource: Resource) -> float | None:
        """What runs are sorted by; None where a run has no such cost, or none that is compared."""
        found = self._runs.get(run.id)
        cost = graded(found, resource) if found is not None else None
        return cost.value if cost is not None and not self.doubts(run, resource) else None

    def text(self, run: RunEntry, resource: Resource, words: Words) -> str:
        """A run's peak memory or training time with its mark; a dash where it was not measured."""
        found = self._runs.get(run.id)
        cost = graded(found, resource) if found is not None else None
        if cost is None:
            return "—"
        said = words.size(cost.value) if resource == "memory" else words.duration(cost.value)
        return said + NOT_RANKED if self.doubts(run, resource) else said

    def notes(self, runs: tuple[RunEntry, ...], words: Words) -> list[str]:
        """What the mark means; nothing where no run has it."""
        found = [(run, doubts) for run in runs for one in RESOURCES if (doubts := self.doubts(run, one))]
        names = dict.fromkeys(run.spec.method for run, _ in found if run.spec is not None)
        return not_ranked_notes(list(names), [doubt for _, doubts in found for doubt in doubts], words)


def _measured(run: RunEntry, kept: Kept) -> ScoredRun | None:
    measured = kept.record(run.folder / "measurements.json", Measurements)
    if run.spec is None or not isinstance(measured, Measurements):
        return None
    return measured_run(run.id, run.spec, measured, KeptRun(run.folder, kept).provenance())
