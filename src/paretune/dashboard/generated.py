"""Study folders with generated records, to measure the dashboard with; nothing in them was ever trained.

Not here: the measuring (`bench.py`). Methods are a grid of LoRA's settings, so that every page has something to show.

    write_generated(Path("/tmp/many"), Size(methods=24, seeds=5))
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa

from paretune.core.config import JsonObject, canonical_hash
from paretune.records.schema import Graded, Measurements, MethodRecord, PhaseCost, RunSpec, Selection, StudyRecord
from paretune.records.store import RunFolder, StudyFolder, write_atomically
from paretune.stats.metrics import all_scores

LABELS = ("earn", "acq", "crude", "trade")
RATE = 5e-4
RANKS, DROPOUTS = (1, 2, 4, 8, 16, 32, 64), (0.0, 0.1)
TARGETS, LAYERS = ("query_value", "attention", "mlp"), (2, 6, None)


@dataclass(frozen=True)
class Size:
    """How much is generated."""

    methods: int = 24
    seeds: int = 5
    test_rows: int = 500
    steps: int = 120


def settings_grid(methods: int) -> list[JsonObject]:
    """So many different settings; the order mixes the levels of each, so that a part of the grid tells them apart."""
    grid = [
        {"rank": rank, "alpha": 2 * rank, "dropout": dropout, "targets": targets, "layers": layers}
        for rank, targets, layers, dropout in product(RANKS, TARGETS, LAYERS, DROPOUTS)
    ]
    order = np.random.default_rng(3).permutation(len(grid))
    return [grid[at] for at in order[:methods]]


def generated_spec(label: str, settings: JsonObject, seed: int, rate: float = RATE) -> RunSpec:
    """The spec of one run."""
    return RunSpec(
        study="generated",
        method=label,
        kind="lora",
        family="adaptation",
        settings=settings,
        seed=seed,
        learning_rate=rate,
        model={"source": "asset:none"},
        model_digest="m",
        data={"train": "asset:none"},
        data_digest="d",
        task={"kind": "classification"},
        train={"epochs": 3},
    )


def labels_of(settings: JsonObject) -> str:
    """A method's name: its levels."""
    layers = settings["layers"] or "all"
    return f"r{settings['rank']}-{settings['targets']}-{layers}" + ("-dropout" if settings["dropout"] else "")


def write_generated(folder: Path, size: Size) -> Path:
    """Write a study in which every run was scored."""
    study = StudyFolder(folder)
    rng = np.random.default_rng(11)
    truth, hardness = rng.choice(LABELS, size.test_rows), rng.random(size.test_rows)
    grid = settings_grid(size.methods)
    selections: list[Selection] = []
    for settings in grid:
        label = labels_of(settings)
        for seed in range(size.seeds):
            spec = generated_spec(label, settings, seed)
            run = study.run(spec)
            run.write_spec(spec)
            write_scored(run, settings, seed, truth, hardness, size.steps)
        first = generated_spec(label, settings, 0).run_id
        selections.append(
            Selection(method=label, learning_rate=RATE, run_id=first, trials={"0.0005": 0.9}, trial_seconds=30.0)
        )
    study.write_study(_study(grid, size, selections))
    return folder


def write_scored(
    run: RunFolder, settings: JsonObject, seed: int, truth: np.ndarray, hardness: np.ndarray, steps: int
) -> None:
    """All that a scored run leaves behind."""
    rng = np.random.default_rng([seed, *labels_of(settings).encode()])
    rank = float(np.log2(settings["rank"]))
    right = 0.86 + 0.015 * rank - (0.02 if settings["layers"] == 2 else 0.0) + 0.01 * rng.standard_normal()
    hit = np.where(rng.random(len(truth)) < 0.8, hardness, rng.random(len(truth))) < right
    predicted = np.where(hit, truth, rng.choice(LABELS, len(truth)))
    score = 0.6 + 0.4 * rng.random(len(truth))
    probability = np.where(predicted == truth, score, (1 - score) / 3)
    columns = {
        "id": [f"test-{at}" for at in range(len(truth))],
        "split": ["test"] * len(truth),
        "label": truth.tolist(),
        "prediction": predicted.tolist(),
        "score": score.astype("float32"),
        "label_probability": probability.astype("float32"),
        "near_duplicate": [at % 17 == 0 for at in range(len(truth))],
    }
    write_atomically(run.path / "events.jsonl", "".join(event_lines(steps, 0.001 * rank, rng)))
    run.write_predictions(pa.table(columns))
    scores = {"test": all_scores(truth.tolist(), predicted.tolist(), score, probability)}
    run.write_measurements(_measurements(settings, rng).model_copy(update={"scores": scores}))
    run.write_provenance({"commit": "0000000", "versions": {"python": "3.11"}})
    run.set_status("ok", "scored")


def event_lines(steps: int, pull: float, rng: np.random.Generator) -> list[str]:
    """Lines of events.jsonl, one for each step after the plan."""
    lines = [{"event": "TrainingPlanned", "at_seconds": 0.0, "steps": steps, "epochs": 3.0, "train_examples": 900}]
    for step in range(1, steps + 1):
        loss = 1.4 * float(np.exp(-(0.02 + pull) * step)) + 0.2 + 0.05 * rng.random()
        lines.append({"event": "StepEnded", "at_seconds": round(0.1 * step, 3), "step": step, "loss": loss})
    return [json.dumps(line) + "\n" for line in lines]


def _measurements(settings: JsonObject, rng: np.random.Generator) -> Measurements:
    seconds = (20 + 6 * float(np.log2(settings["rank"]))) * (1 + 0.05 * rng.random())
    peak = (700 + 12 * settings["rank"] + (0 if settings["layers"] == 2 else 250)) * 1e6 * (1 + 0.02 * rng.random())
    return Measurements(
        phases=[PhaseCost(phase="step", seconds=seconds, cpu_seconds=2 * seconds, peak_memory_bytes=int(peak))],
        memory_after_imports_bytes=300_000_000,
        train_seconds=Graded(value=seconds, grade="counter"),
        train_cpu_seconds=Graded(value=2 * seconds, grade="counter"),
        peak_memory_bytes=Graded(value=peak, grade="counter"),
        peak_memory_above_imports_bytes=Graded(value=peak - 3e8, grade="counter"),
        energy_joules=None,
        energy_source="none",
        trainable_parameters=10_000 * settings["rank"],
        total_parameters=22_700_000,
        adapter_bytes=40_000 * settings["rank"],
        train_examples=900,
        train_tokens=80_000,
        padding_ratio=1.1,
        steps=120,
        precision="fp32",
        scores={},
    )


def _study(grid: list[JsonObject], size: Size, selections: list[Selection]) -> StudyRecord:
    methods = [
        MethodRecord(
            label=labels_of(one), kind="lora", family="adaptation", settings=one, learning_rates=[RATE / 3, RATE]
        )
        for one in grid
    ]
    return StudyRecord(
        name="generated",
        question={
            "en": "How fast is the dashboard with so many runs?",
            "ru": "Как быстра панель на них?",
        },
        metric="accuracy",
        margin=0.01,
        control=methods[0].label,
        seeds=list(range(size.seeds)),
        methods=methods,
        labels=list(LABELS),
        model_source="asset:none",
        model_notes=[],
        data_source="asset:none",
        max_tokens=128,
        split_rows={"train": 900, "validation": 200, "test": size.test_rows},
        file_text="# generated\n",
        spec={},
        spec_hash=canonical_hash({}),
        command="paretune bench dashboard",
        machine={},
        selections=selections,
    )
