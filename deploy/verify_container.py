"""Compares a study that ran in a container with the same study run on the host: predictions, scores, conclusions, cost.

Not here: running either (`deploy/container.sh`). Exit 0: the same conclusions; 1: they differ, or a run has no twin; 2:
a folder that cannot be compared. Prints Markdown tables; with a third argument also writes what they come to as one
JSON line, which the claims of the report may rest on once it lies in results/bench/. Statistics:
`paretune.stats.compare`, paired on seeds and examples; time and memory are shown, not judged.

    python deploy/verify_container.py runs/demo build/container/runs/demo build/container/container.json
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np

from paretune.core.config import JsonObject
from paretune.core.errors import ParetuneError, UsageError
from paretune.records.store import StudyFolder, write_atomically
from paretune.report.facts import MethodFacts, ScoredRun, StudyFacts, gather
from paretune.stats.compare import Comparison, compare, holm
from paretune.stats.metrics import score

SPLIT = "test"
ALPHA = 0.05


@dataclass(frozen=True)
class Twin:
    """One method and seed that both sides scored; the pair is (host, container) everywhere."""

    method: str
    seed: int
    agreement: float
    scores: tuple[float, float]
    seconds: tuple[float, float]
    peak_bytes: tuple[float, float]


@dataclass(frozen=True)
class MethodTwin:
    """A method on both sides; `difference` is container − host, None without two shared seeds."""

    method: str
    twins: list[Twin]
    difference: Comparison
    p_holm: float
    verdicts: tuple[str, str]

    @property
    def differs(self) -> bool:
        """The scores differ by more than chance, and not shown to be within the study's margin."""
        return self.difference.verdict != "equivalent" and self.p_holm <= ALPHA


@dataclass(frozen=True)
class Agreement:
    """The whole comparison; `reasons` is empty where the conclusions are the same."""

    metric: str
    margin: float
    methods: list[MethodTwin]
    reasons: list[str]


def agreement_of(host_folder: Path, container_folder: Path) -> Agreement:
    """Compare two folders of one study.

    Raises:
        UsageError: they hold different studies or data, or one of them holds none.
    """
    host, container = (gather(StudyFolder(folder)) for folder in (host_folder, container_folder))
    if host.study.spec_hash != container.study.spec_hash:
        raise UsageError(f"{host_folder} and {container_folder} are of different study files; expected the same file")
    reasons = [*_missing(host, container), *_choices(host, container)]
    pairs = [(one, container.by_label[one.label]) for one in host.methods if one.label in container.by_label]
    differences = {
        one.label: _difference(one, other, host.metric, host.study.margin) for one, other in pairs if one.runs
    }
    p_of = {label: found.p for label, found in differences.items() if found.p is not None}
    holm_of = dict(zip(p_of, holm(list(p_of.values())), strict=True))
    methods: list[MethodTwin] = []
    for one, other in pairs:
        twins = [_twin(one.label, one.runs[seed], other.runs[seed], host.metric) for seed in _shared(one, other)]
        if not twins:
            continue
        verdicts = (_verdict(host, one.label), _verdict(container, one.label))
        found = MethodTwin(one.label, twins, differences[one.label], holm_of.get(one.label, 1.0), verdicts)
        methods.append(found)
        if verdicts[0] != verdicts[1]:
            reasons.append(f"{one.label}: {verdicts[0]} on the host, {verdicts[1]} in the container")
        if found.differs:
            reasons.append(f"{one.label}: its scores differ by more than chance")
    if not methods:
        reasons.append("no run was scored on both sides")
    return Agreement(host.metric, host.study.margin, methods, reasons)


def _shared(one: MethodFacts, other: MethodFacts) -> list[int]:
    return sorted(seed for seed in one.runs.keys() & other.runs.keys() if SPLIT in one.runs[seed].splits)


def _missing(host: StudyFacts, container: StudyFacts) -> list[str]:
    """Runs that only one side scored."""
    scored = [{(one.label, seed) for one in side.methods for seed in one.runs} for side in (host, container)]
    only_host, only_container = scored[0] - scored[1], scored[1] - scored[0]
    said = [f"{method}, seed {seed}: scored on the host only" for method, seed in sorted(only_host)]
    return said + [f"{method}, seed {seed}: scored in the container only" for method, seed in sorted(only_container)]


def _choices(host: StudyFacts, container: StudyFacts) -> list[str]:
    """Learning rates that validation data chose differently."""
    chosen = [
        {one.label: one.selection.learning_rate for one in side.methods if one.selection} for side in (host, container)
    ]
    return [
        f"{label}: learning rate {rate:g} on the host, {chosen[1][label]:g} in the container"
        for label, rate in chosen[0].items()
        if label in chosen[1] and chosen[1][label] != rate
    ]


def _verdict(side: StudyFacts, label: str) -> str:
    found = side.comparisons.get(label)
    return found.verdict if found else "control" if label == side.study.control else "not compared"


def _difference(one: MethodFacts, other: MethodFacts, metric: str, margin: float) -> Comparison:
    sides = {"host": one.examples(metric, SPLIT), "container": other.examples(metric, SPLIT)}
    return compare(sides, "host", margin)[0]


def _twin(label: str, one: ScoredRun, other: ScoredRun, metric: str) -> Twin:
    host, container = one.splits[SPLIT], other.splits[SPLIT]
    if host.ids != container.ids or host.labels != container.labels:
        raise UsageError(f"{label}, seed {one.spec.seed}: the test rows differ; expected the same prepared data")
    return Twin(
        method=label,
        seed=one.spec.seed,
        agreement=float(np.mean(np.asarray(host.predictions) == np.asarray(container.predictions))),
        scores=(
            score(metric, host.labels, host.predictions),
            score(metric, container.labels, container.predictions),
        ),
        seconds=(one.measurements.train_seconds.value, other.measurements.train_seconds.value),
        peak_bytes=(one.measurements.peak_memory_bytes.value, other.measurements.peak_memory_bytes.value),
    )


def _pair(pair: tuple[float, float], scale: float, digits: int) -> str:
    host, container = pair
    ratio = f" (×{container / host:.2f})" if host > 0 else ""
    return f"{host * scale:.{digits}f} / {container * scale:.{digits}f}{ratio}"


def _mean(twins: list[Twin], kind: str) -> tuple[float, float]:
    pairs = [one.seconds if kind == "seconds" else one.peak_bytes for one in twins]
    return fmean(pair[0] for pair in pairs), fmean(pair[1] for pair in pairs)


def tables(found: Agreement) -> str:
    """Two Markdown tables: the methods, then run by run; in a cell host stands before container."""
    lines = [
        f"Difference: {found.metric}, container − host, with its 95 % interval; margin {found.margin:g}.",
        "",
        "| method | runs | same predictions | difference | verdict | training, s | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found.methods:
        interval = one.difference.difference
        shown = f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]" if interval else "one seed"
        verdict = one.verdicts[0] if one.verdicts[0] == one.verdicts[1] else " / ".join(one.verdicts)
        same = fmean(twin.agreement for twin in one.twins)
        cells = [one.method, str(len(one.twins)), f"{same:.2%}", shown, verdict]
        cells += [_pair(_mean(one.twins, "seconds"), 1, 2), _pair(_mean(one.twins, "bytes"), 1e-6, 0)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"| method | seed | same predictions | {found.metric} | training, s | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for twin in (twin for one in found.methods for twin in one.twins):
        cells = [twin.method, str(twin.seed), f"{twin.agreement:.2%}", f"{twin.scores[0]:.4f} / {twin.scores[1]:.4f}"]
        cells += [_pair(twin.seconds, 1, 2), _pair(twin.peak_bytes, 1e-6, 0)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bench_line(found: Agreement, machine: JsonObject, base: str) -> JsonObject:
    """The comparison in figures: shares and counts of what differs, when, on what, and in which kind of container."""
    twins = [twin for one in found.methods for twin in one.twins]
    differences = [one.difference.difference for one in found.methods]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "base": base,
        "compared_runs": len(twins),
        "differing_predictions": 1 - fmean(twin.agreement for twin in twins) if twins else None,
        "largest_difference": max((abs(one.estimate) for one in differences if one is not None), default=None),
        "differing_conclusions": len(found.reasons),
        "reasons": found.reasons,
    }


def main(arguments: list[str]) -> int:
    """Print the tables and the closing line, write the JSON line; returns the exit code."""
    if len(arguments) not in (2, 3):
        print("usage: verify_container.py RUNS_HOST RUNS_CONTAINER [JSON_FILE]", file=sys.stderr)
        return 2
    try:
        found = agreement_of(Path(arguments[0]), Path(arguments[1]))
    except ParetuneError as error:
        print(f"verify_container: {error}", file=sys.stderr)
        return 2
    print(tables(found))
    twins = [twin for one in found.methods for twin in one.twins]
    same = fmean([twin.agreement for twin in twins] or [0.0])
    print(f"\n{len(twins)} runs compared, {same:.2%} of predictions the same.")
    if len(arguments) == 3:
        machine = StudyFolder(Path(arguments[0])).study().machine
        line = bench_line(found, machine, os.environ.get("CONTAINER_BASE", ""))
        write_atomically(Path(arguments[2]), json.dumps(line, ensure_ascii=False) + "\n")
    print("Conclusions: the same." if not found.reasons else "Conclusions differ: " + "; ".join(found.reasons) + ".")
    return 1 if found.reasons else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
