"""What advice rests on: each study's methods, costs and differences, from its records or from a small file of them.

Not here: how near a study lies (`advise_case.py`), pooling (`advise_pooling.py`), ranks (`advise.py`). The file is made
from published studies and ships with the package, so that `paretune advise` works in any folder. Methods are kinds:
of several settings of one kind the default ones stand for it, and what the others did is told beside.

    evidence_of(gather(StudyFolder(Path("results/r8")))).methods[0].kind; shipped()[0].study
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pydantic import Field, TypeAdapter

from paretune.core.config import JsonObject, JsonValue, Settings, canonical_json
from paretune.core.errors import UsageError
from paretune.records.schema import Family
from paretune.records.store import StudyFolder, write_atomically
from paretune.report.costs import Costs
from paretune.report.facts import MethodFacts, StudyFacts, bounds, gather
from paretune.stats.intervals import Interval
from paretune.stats.metrics import METRICS
from paretune.study.advise_pooling import difference_in

SHIPPED = "advise_records.json"


class RunCost(Settings):
    """What one scored run cost; None: not measured or not comparable. `tokens` are those of all its steps."""

    peak_memory_bytes: float | None
    train_seconds: float | None
    tokens: int
    examples: int


class MethodEvidence(Settings):
    """One kind of method in a study, with the settings that stand for it."""

    kind: str
    label: str
    family: Family
    settings: JsonObject
    seeds: int
    stopped: dict[str, int]
    costs: list[RunCost]


class Difference(Settings):
    """method − than on the seeds that both have; without ends where one seed is all there is."""

    method: str
    than: str
    seeds: int
    estimate: float
    low: float | None
    high: float | None
    df: float | None

    @property
    def interval(self) -> Interval:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return Interval(self.estimate, low, high, math.inf if self.df is None else self.df)


class Variants(Settings):
    """Several settings of one kind: how many were tried beside `default`, and which were shown to be better."""

    kind: str
    default: str
    tried: int
    better: list[str]
    worse: int
    metric: str


class Evidence(Settings):
    """A study as advice needs it. `differences` has each pair of kinds once for every metric; `holds` is False where
    its records are incomplete or do not agree."""

    study: str
    metric: str
    control: str
    model: str
    data: str
    tasks: list[str]
    rows: int
    classes: int
    tokens: float | None
    script: str | None
    cut_share: float | None
    max_tokens: int
    seeds: int
    processor: str
    cores: str
    methods: list[MethodEvidence]
    silent: dict[str, list[str]]
    variants: list[Variants]
    differences: dict[str, list[Difference]]
    holds: bool = Field(default=True, exclude_if=bool)

    def method(self, kind: str) -> MethodEvidence | None:
        return next((one for one in self.methods if one.kind == kind), None)

    def difference(self, kind: str, than: str, metric: str) -> Difference | None:
        """kind − than; None where they share no seed."""
        for one in self.differences.get(metric, []):
            if (one.method, one.than) == (kind, than):
                return one
            if (one.method, one.than) == (than, kind):
                low, high = (None if end is None else -end for end in (one.high, one.low))
                return Difference(
                    method=kind, than=than, seeds=one.seeds, estimate=-one.estimate, low=low, high=high, df=one.df
                )
        return None


def evidence_of(facts: StudyFacts) -> Evidence:
    """A study's evidence from its records."""
    study, explored = facts.study, facts.exploration
    lengths = explored.lengths if explored is not None else []
    shares = explored.scripts if explored is not None else {}
    stand = _standing(facts)
    kinds = {method.record.kind: method for method in stand}
    control, judged = facts.by_label.get(study.control), Costs(facts)
    return Evidence(
        study=study.name,
        metric=study.metric,
        control=control.record.kind if control is not None and control.runs else "",
        model=study.model_source,
        data=study.data_source,
        tasks=sorted({str(run.spec.task.get("kind")) for method in facts.scored for run in method.runs.values()}),
        rows=study.split_rows["train"],
        classes=len(study.labels),
        tokens=next((one.mean for one in lengths if (one.split, one.unit) == ("train", "tokens")), None),
        script=max(shares, key=lambda name: shares[name], default=None),
        cut_share=explored.truncation_share.get("train", 0.0) if explored is not None else None,
        max_tokens=study.max_tokens,
        seeds=len(study.seeds),
        processor=str(study.machine.get("processor", "?")),
        cores=str(study.machine.get("cores", "?")),
        methods=[_method(method, judged) for method in stand],
        silent={method.label: sorted(method.stopped) for method in facts.methods if not method.runs},
        variants=_variants(facts, kinds),
        differences={metric: _differences(facts, kinds, metric) for metric in METRICS},
        holds=facts.hold,
    )


def _standing(facts: StudyFacts) -> list[MethodFacts]:
    """One scored method for each kind: the control, else the one whose settings are nearest the kind's defaults."""
    found: dict[str, list[MethodFacts]] = {}
    for method in facts.scored:
        found.setdefault(method.record.kind, []).append(method)
    return [_default(kind, methods, facts.study.control) for kind, methods in found.items()]


def _default(kind: str, methods: Sequence[MethodFacts], control: str) -> MethodFacts:
    if len(methods) == 1:
        return methods[0]
    defaults = filled(kind, {})

    def apart(method: MethodFacts) -> tuple[bool, int]:
        settings = filled(kind, method.record.settings)
        return method.label != control, sum(defaults.get(name) != value for name, value in settings.items())

    return min(methods, key=apart)


def filled(kind: str, settings: JsonObject) -> JsonObject:
    """Settings with the defaults of today; as they are, where there is no such method or setting any more."""
    from paretune.study.design import make_method  # imports torch: only where a study has several settings of a kind

    try:
        return make_method(kind, settings).settings.model_dump(mode="json")
    except UsageError:
        return settings


def _method(method: MethodFacts, judged: Costs) -> MethodEvidence:
    costs = [
        RunCost(
            peak_memory_bytes=one.measurements.peak_memory_bytes.value if not judged.doubts(one, "memory") else None,
            train_seconds=one.measurements.train_seconds.value if not judged.doubts(one, "seconds") else None,
            tokens=one.measurements.train_tokens,
            examples=one.measurements.train_examples,
        )
        for _, one in sorted(method.runs.items())
    ]
    record = method.record
    return MethodEvidence(
        kind=record.kind,
        label=record.label,
        family=record.family,
        settings=record.settings,
        seeds=len(method.runs),
        stopped=dict(method.stopped),
        costs=costs,
    )


def _variants(facts: StudyFacts, kinds: dict[str, MethodFacts]) -> list[Variants]:
    found: list[Variants] = []
    for kind, default in kinds.items():
        others = [method.label for method in facts.scored if method.record.kind == kind and method is not default]
        if not others:
            continue
        # only settings of this kind are compared with each other: Holm's correction is over them
        verdicts = facts.against(default.label)
        better = [label for label in others if label in verdicts and verdicts[label].verdict == "better"]
        worse = sum(label in verdicts and verdicts[label].verdict == "worse" for label in others)
        found.append(
            Variants(
                kind=kind, default=default.label, tried=len(others), better=better, worse=worse, metric=facts.metric
            )
        )
    return found


def _differences(facts: StudyFacts, kinds: dict[str, MethodFacts], metric: str) -> list[Difference]:
    """Every pair of kinds, each on the seeds that both have."""
    values = {method.label: method.examples(metric) for method in kinds.values()}
    found: list[Difference] = []
    names = list(kinds)
    for place, kind in enumerate(names):
        for than in names[place + 1 :]:
            labels = kinds[kind].label, kinds[than].label
            shared = sorted(values[labels[0]].keys() & values[labels[1]].keys())
            if shared:
                one = difference_in(facts, values, *labels, shared)
                low, high = bounds(one) or (None, None)
                df = one.df if math.isfinite(one.df) else None
                found.append(
                    Difference(
                        method=kind, than=than, seeds=len(shared), estimate=one.estimate, low=low, high=high, df=df
                    )
                )
    return found


def write_shipped(results: Path) -> Path:
    """Make the file that ships; `python -m paretune.study.advise_records results` does it."""
    folders = sorted(path.parent for path in results.glob("*/study.json"))
    target = Path(__file__).with_name(SHIPPED)
    write_atomically(target, as_file([evidence_of(gather(StudyFolder(folder))) for folder in folders]))
    return target


_MANY = TypeAdapter(list[Evidence])


def shipped() -> list[Evidence]:
    """The evidence of the studies that were published with this version."""
    return _MANY.validate_json((resources.files("paretune.study") / SHIPPED).read_bytes())


def as_file(evidence: Sequence[Evidence]) -> str:
    """Evidence as the text of a file: figures with six digits, one study a line."""
    studies = [
        canonical_json(_short(one.model_dump(mode="json"))) for one in sorted(evidence, key=lambda one: one.study)
    ]
    return "[\n" + ",\n".join(studies) + "\n]\n"


def _short(tree: JsonValue) -> JsonValue:
    """The same with six significant digits of every fraction."""
    if isinstance(tree, float):
        return float(f"{tree:.6g}")
    if isinstance(tree, dict):
        return {name: _short(value) for name, value in tree.items()}
    return [_short(value) for value in tree] if isinstance(tree, list) else tree


if __name__ == "__main__":
    print(f"wrote {write_shipped(Path(sys.argv[1]))}")
