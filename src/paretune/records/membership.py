"""Which runs of a study's folder are its own, and as what: a result that counts, or a trial of its search.

The one place that decides it; report, tables, exporters, publication and dashboard ask here. The planner of jobs knows
the specs of a study and writes their ids into its record (`study/plan.py`); of a record from before that, the answer
is derived here from its choices and its resolved file. Not here: whether a run's records hold.

    own = members(study, {run.id: run.spec() for run in folder.runs()}); own.role("0123456789abcdef")
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from paretune.core.config import canonical_hash
from paretune.records.schema import Member, MethodRecord, RunSpec, StudyRecord

Role = Literal["result", "trial", "left_over"]
OWN_FIELDS = ("schema_version", "method", "kind", "family", "settings", "seed", "learning_rate")  # a run's own choice


@dataclass(frozen=True)
class Members:
    """The runs of a study by id; `complete` says that nothing of it is still to be run."""

    study: StudyRecord
    listed: Mapping[str, Member]
    complete: bool

    def role(self, run_id: str) -> Role:
        """As what a run counts; "left_over" is from before the study was changed, or another study's."""
        member = self.listed.get(run_id)
        return "left_over" if member is None else member.role

    def absent(self, present: Collection[str]) -> list[Member]:
        """Results that the study names and that are not among `present` runs; an id that is not known is empty.

        A method whose learning rate is not chosen (yet, or because no trial gave a model) names none.
        """
        named = {(one.method, one.seed): one for one in self.listed.values() if one.role == "result"}
        chosen = {selection.method for selection in self.study.selections}
        found: list[Member] = []
        for method in self.study.methods:
            if method.searched and method.label not in chosen:
                continue
            for seed in self.study.seeds:
                one = named.get((method.label, seed), Member(run_id="", method=method.label, seed=seed, role="result"))
                if one.run_id not in present:
                    found.append(one)
        return found


def members(study: StudyRecord, specs: Mapping[str, RunSpec]) -> Members:
    """The members of a study; `specs` are those of the runs in its folder, which only older records need."""
    if study.membership is not None:
        labels = {method.label for method in study.methods}  # a record that was edited may list runs of others
        listed = {one.run_id: one for one in study.membership.runs if one.method in labels}
        return Members(study, listed, study.membership.complete)
    searched = any(method.searched for method in study.methods)
    return Members(study, _derived(study, specs), bool(study.selections) or not searched)


def shared_fields(spec: RunSpec) -> dict[str, str]:
    """What all runs of one study have in common, by name; each value as its hash."""
    tree = spec.model_dump(mode="json")
    return {name: canonical_hash({"value": value}) for name, value in tree.items() if name not in OWN_FIELDS}


def common_setting(spec: RunSpec) -> str:
    """All of that as one hash."""
    return canonical_hash(shared_fields(spec))


def _derived(study: StudyRecord, specs: Mapping[str, RunSpec]) -> dict[str, Member]:
    """Members of a study whose record does not list them: of its methods and seeds, and of the setting of the runs that
    it chose; where none of those is there, of the setting that its file has."""
    methods = {method.label: method for method in study.methods}
    chosen = {selection.method: selection.learning_rate for selection in study.selections}
    selected = {selection.run_id for selection in study.selections}
    current = {common_setting(spec) for run_id, spec in specs.items() if run_id in selected}
    found: dict[str, Member] = {}
    for run_id, spec in specs.items():
        method = methods.get(spec.method)
        setting = common_setting(spec) in current if current else _as_the_file_says(study, spec)
        if method is not None and setting and _of_method(spec, method) and spec.seed in study.seeds:
            rate = chosen.get(spec.method, spec.learning_rate)
            role: Literal["result", "trial"] = "result" if spec.learning_rate == rate else "trial"
            found[run_id] = Member(run_id=run_id, method=spec.method, seed=spec.seed, role=role)
    return found


def _of_method(spec: RunSpec, method: MethodRecord) -> bool:
    return (spec.kind, spec.settings) == (method.kind, method.settings)


def _as_the_file_says(study: StudyRecord, spec: RunSpec) -> bool:
    tables = {"model": spec.model, "data": spec.data, "task": spec.task, "train": spec.train}
    return all(table == study.spec.get(name, table) for name, table in tables.items())
