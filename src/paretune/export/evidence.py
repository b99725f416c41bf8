"""What the records of a study say of one run: scores with intervals, cost, licences, and when to abstain.

Not here: choosing the run (`choose.py`), checking its weights (`certify.py`). Axes: n rows, c classes.

    scores_of(gather(StudyFolder(Path("runs/demo"))), RunFolder(Path("runs/demo/runs/…")))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paretune.assets.catalogue import ASSETS
from paretune.core.config import validated
from paretune.data.sources import DataSpec
from paretune.models.sources import ModelSpec, model_folder, parse_source
from paretune.records.bundle import Abstention, RiskPoint, Score
from paretune.records.schema import RunSpec
from paretune.records.store import RunFolder
from paretune.report.facts import StudyFacts
from paretune.stats.metrics import METRICS, score
from paretune.stats.selective import (
    at_threshold,
    confidences,
    expected_risk,
    fit_temperature,
    fit_threshold,
    risk_coverage,
)


def scores_of(facts: StudyFacts, run: RunFolder) -> list[Score]:
    """Every metric on every test split, the study's own metric on "test" first.

    The mean is over the method's seeds where this run is one of them; for any other run (a setting that was not
    chosen, say) it is this run's own score, without interval.
    """
    table = run.predictions().to_pydict()
    spec = run.spec()
    method = facts.by_label.get(spec.method)
    counted = method is not None and any(one.id == run.id for one in method.runs.values())
    found: list[Score] = []
    for split in dict.fromkeys(table["split"]):
        at = [place for place, one in enumerate(table["split"]) if one == split]
        labels, said_n = [table["label"][i] for i in at], [table["prediction"][i] for i in at]
        for metric in sorted(METRICS, key=lambda one: one != facts.metric):
            own = score(metric, labels, said_n)
            values = method.seed_scores(metric, split) if method is not None and counted else [own]
            interval = method.quality(metric, split) if method is not None and counted else None
            found.append(
                Score(
                    metric=metric,
                    split=split,
                    mean=float(np.mean(values)),
                    low=_finite(interval.low) if interval else None,
                    high=_finite(interval.high) if interval else None,
                    seeds=len(values),
                    this_model=own,
                )
            )
    return sorted(found, key=lambda one: one.split != "test")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def cost_of(facts: StudyFacts, run: RunFolder, bundle_bytes: int) -> dict[str, float]:
    """What this run cost in training, and what serving it takes: bytes on disk, and seconds of one text.

    Latency is measured for one seed of a method; it stands here whichever seed is exported.
    """
    spec, measured = run.spec(), run.measurements()
    method = facts.by_label.get(spec.method)
    siblings = [measured, *(method.measurements() if method is not None else [])]
    latency = next((one.latency for one in siblings if one.latency), [])
    folder = model_folder(validated(spec.model, ModelSpec, "model").source)
    weights = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    cost = {
        "train_seconds": measured.train_seconds.value,
        "peak_memory_bytes": measured.peak_memory_bytes.value,
        "adapter_bytes": float(bundle_bytes),
        "base_bytes": float(sum(file.stat().st_size for file in weights)),
    }
    for one in latency:
        if one.batch == 1:
            cost |= {"latency_p50_seconds": one.p50_seconds, "latency_p95_seconds": one.p95_seconds}
    return cost


def licences_of(spec: RunSpec) -> list[str]:
    """One line each for the base model and the data; what is not known is said to be unknown."""
    data = validated(spec.data, DataSpec, "data")
    model = validated(spec.model, ModelSpec, "model").source
    references = [data.train, *([data.test] if data.test else []), *data.extra_tests.values()]
    lines = [f"model {_named(model)}: {_licence(model)}"]
    return [*lines, *dict.fromkeys(f"data {_named(one)}: {_licence(one)}" for one in references)]


def _named(reference: str) -> str:
    """A reference without the folders of somebody's machine."""
    kind, _, rest = reference.partition(":")
    return f"path:{Path(rest).name}" if kind == "path" else reference


def _licence(reference: str) -> str:
    kind, _, name = reference.partition(":")
    if kind == "asset" and name in ASSETS:
        return ASSETS[name].licence
    return "unknown (a hub repository: see its card)" if kind == "hub" else "unknown (local files)"


def base_name(spec: RunSpec) -> str:
    """The base model for readers: a hub's name where it has one."""
    source = validated(spec.model, ModelSpec, "model").source
    kind, name, _ = parse_source(source)
    return name if kind == "hub" else _named(source)


def abstention_of(
    validation_nc: np.ndarray,
    validation_labels: Sequence[int],
    test_nc: np.ndarray,
    test_labels: Sequence[int],
    target_risk: float | None,
) -> Abstention:
    """Temperature and threshold from validation logits, and what they do on test logits.

    `target_risk` is the share of wrong answers among those given; by default half of the validation's expected risk.
    """
    truth_n, test_truth_n = np.asarray(validation_labels), np.asarray(test_labels)
    correct_n = validation_nc.argmax(axis=1) == truth_n
    temperature = fit_temperature(validation_nc, truth_n)
    sure_n = confidences(validation_nc, temperature)
    target = expected_risk(sure_n, correct_n) / 2 if target_risk is None else target_risk
    threshold = fit_threshold(sure_n, correct_n, target)
    test_correct_n = test_nc.argmax(axis=1) == test_truth_n
    test_sure_n = confidences(test_nc, temperature)
    reached = at_threshold(test_sure_n, test_correct_n, threshold.value)
    return Abstention(
        temperature=temperature,
        threshold=threshold.value,
        target_risk=target,
        reachable=threshold.reachable,
        validation_rows=len(truth_n),
        test_coverage=reached.coverage,
        test_risk=reached.risk,
        curve=[
            RiskPoint(threshold=one.threshold, coverage=one.coverage, risk=one.risk)
            for one in risk_coverage(test_sure_n, test_correct_n)
        ],
    )
