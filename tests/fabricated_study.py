"""Writes a small study folder with made-up numbers, for tests of the report and of what reads records.

Not here: anything measured. No figure of this file may stand in a document.

    python tests/fabricated_study.py /tmp/fabricated
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from paretune.core.config import canonical_hash
from paretune.core.events import StepEnded, TrainingPlanned
from paretune.records.exploration import (
    ClassCount,
    CleaningStep,
    Exploration,
    LengthSummary,
    Sample,
    Suspect,
)
from paretune.records.schema import (
    ExampleText,
    Graded,
    Latency,
    Measurements,
    MethodRecord,
    PhaseCost,
    RunSpec,
    Selection,
    StudyRecord,
)
from paretune.records.store import RunFolder, StudyFolder, write_atomically
from paretune.stats.metrics import all_scores

LABELS = ("earn", "acq", "crude", "trade")
SHARES = (0.5, 0.3, 0.12, 0.08)
# label, family, probability of a right answer, learning rate, trainable parameters, peak MB, seconds
METHODS = (
    ("majority", "baseline", 0.0, None, 0, 310, 0.01),
    ("tfidf", "baseline", 0.915, None, 48_000, 420, 2.4),
    ("head", "adaptation", 0.86, 3e-3, 1_540, 700, 9.0),
    ("last2", "adaptation", 0.948, 3e-4, 3_550_000, 1_020, 21.0),
    ("bitfit", "adaptation", 0.925, 3e-3, 26_000, 1_150, 39.0),
    ("lora", "adaptation", 0.957, 1e-3, 340_000, 1_280, 47.0),
    ("full", "adaptation", 0.958, 1e-4, 22_700_000, 1_700, 55.0),
)
TOTAL_PARAMETERS = 22_700_000


def write_study(
    folder: Path,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    methods: tuple[str, ...] = tuple(method[0] for method in METHODS),
    control: str = "full",
    test_rows: int = 240,
    broken: bool = True,
    explored: bool = True,
    scored: bool = True,
    quality: dict[str, float] | None = None,
    margin: float = 0.01,
    metric: str = "accuracy",
    extra_split: bool = True,
) -> Path:
    """Write a study; `broken` makes one run out of memory and one fail, `quality` overrides chances of being right."""
    study_folder = StudyFolder(folder)
    chosen = [method for method in METHODS if method[0] in methods]
    rng = np.random.default_rng(7)
    splits = {"test": test_rows, **({"out_of_domain": test_rows // 2} if extra_split else {})}
    truth = {split: rng.choice(LABELS, size=rows, p=SHARES) for split, rows in splits.items()}
    hardness = {split: rng.random(rows) for split, rows in splits.items()}
    selections: list[Selection] = []
    for label, family, right, rate, parameters, peak, seconds in chosen:
        right = (quality or {}).get(label, right)
        if rate is not None:
            trials = {repr(rate * factor): round(right - 0.02 * abs(np.log(factor)), 4) for factor in (1 / 3, 1, 3)}
            selections.append(
                Selection(method=label, learning_rate=rate, run_id="0" * 16, trials=trials, trial_seconds=3 * seconds)
            )
        for seed in seeds:
            run = study_folder.run(_spec(label, family, rate, seed))
            run.write_spec(_spec(label, family, rate, seed))
            if not scored or (broken and (label, seed) in (("full", 2), ("bitfit", 1))):
                oom = label == "full"
                reason = (
                    "peak of 2.1 GB above the cap of 2.0 GB" if oom else "the loss is not a finite number at step 12"
                )
                run.set_status("oom" if oom else "failed", "trained", reason)
                continue
            noise = np.random.default_rng([seed, len(label), ord(label[0])])
            _write_losses(run, rate, seed, right, noise)
            rows = _predictions(label, right, truth, hardness, noise)
            run.write_predictions(rows)
            measured = _measurements(family, parameters, peak, seconds, noise, probe=seed == seeds[0])
            run.write_measurements(measured.model_copy(update={"scores": scores_of(rows)}))
            run.write_provenance(
                {"commit": "0123abc", "versions": {"python": "3.11.9", "torch": "2.13.0"}, "run": run.id}
            )
            run.set_status("ok", "scored")
    study_folder.write_study(_study(chosen, seeds, control, selections, splits, margin, metric))
    study_folder.write_examples(
        [
            ExampleText(
                id=f"test-{at}",
                split="test",
                label=str(truth["test"][at]),
                text=f"Made-up text number {at} about {truth['test'][at]}. " * 3,
            )
            for at in range(6)
        ]
    )
    if explored:
        write_atomically(folder / "explore.json", exploration().model_dump_json(indent=1))
    return folder


def _spec(label: str, family: str, rate: float | None, seed: int) -> RunSpec:
    return RunSpec(
        study="fabricated", method=label, kind=label, family=family, settings={}, seed=seed, learning_rate=rate,
        model={"source": "asset:none"}, model_digest="m", data={"train": "asset:none"}, data_digest="d",
        task={"kind": "classification"}, train={"epochs": 3},
    )  # fmt: skip


def _write_losses(run, rate, seed, right, noise) -> None:
    if rate is None:
        return
    run.append_event(TrainingPlanned(steps=90, epochs=3.0, train_examples=960), 0.0)
    for step in range(1, 91):
        loss = 1.9 * np.exp(-step / (14 + 60 * (1 - right))) + 1.6 * (1 - right) + 0.05 * noise.random()
        run.append_event(StepEnded(step, float(loss), rate, 0.7, 32, 900, 1000), step * 0.1)
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "StepEnded", "st')  # a torn last line is tolerated


def _predictions(label, right, truth, hardness, noise) -> pa.Table:
    rows: list[dict[str, object]] = []
    for split, labels in truth.items():
        drop = 0.1 if split == "out_of_domain" else 0.0
        for at, (true, hard) in enumerate(zip(labels, hardness[split], strict=True)):
            hit = (hard if noise.random() < 0.8 else noise.random()) < right - drop
            prediction = "earn" if label == "majority" else str(true) if hit else str(noise.choice(LABELS))
            score = float(np.clip(0.55 + 0.4 * noise.random(), 0, 1))
            probability = score if prediction == true else (1 - score) / 3
            rows.append(
                {
                    "id": f"{split}-{at}", "split": split, "label": str(true), "prediction": prediction,
                    "score": score, "label_probability": probability, "near_duplicate": at % 17 == 0,
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows)


def scores_of(rows: pa.Table) -> dict[str, dict[str, float]]:
    """What a run measures: every score of its predictions on each split."""
    found: dict[str, dict[str, float]] = {}
    for split in dict.fromkeys(rows["split"].to_pylist()):
        part = [row for row in rows.to_pylist() if row["split"] == split]
        columns = [[row[name] for row in part] for name in ("label", "prediction", "score", "label_probability")]
        found[split] = all_scores(*columns)
    return found


def predict_instead(run: RunFolder, predictions: list[str]) -> None:
    """Let a run say something else, with probabilities and measured scores that go with it."""
    rows = run.predictions().to_pylist()
    for row, prediction in zip(rows, predictions, strict=True):
        right = prediction == row["label"]
        row |= {"prediction": prediction, "label_probability": row["score"] if right else (1 - row["score"]) / 3}
    table = pa.Table.from_pylist(rows)
    run.write_predictions(table)
    run.write_measurements(run.measurements().model_copy(update={"scores": scores_of(table)}))


def _measurements(family, parameters, peak, seconds, noise, *, probe) -> Measurements:
    factor = 1 + 0.04 * noise.random()
    neural = family == "adaptation"
    phases = [
        PhaseCost(phase="load", seconds=1.2, cpu_seconds=1.4, peak_memory_bytes=(peak - 100) * 10**6),
        PhaseCost(phase="step", seconds=seconds * factor, cpu_seconds=1.9 * seconds, peak_memory_bytes=peak * 10**6),
        PhaseCost(
            phase="predict", seconds=0.2 * seconds, cpu_seconds=0.4 * seconds, peak_memory_bytes=(peak - 50) * 10**6
        ),
    ]
    return Measurements(
        phases=phases,
        memory_after_imports_bytes=300 * 10**6,
        train_seconds=Graded(value=seconds * factor, grade="counter"),
        train_cpu_seconds=Graded(value=1.9 * seconds * factor, grade="counter"),
        peak_memory_bytes=Graded(value=peak * 1e6 * factor, grade="counter"),
        peak_memory_above_imports_bytes=Graded(value=(peak * factor - 300) * 1e6, grade="counter"),
        energy_joules=Graded(value=15.0 * seconds, grade="estimated"),
        energy_source="time × 15 W",
        trainable_parameters=parameters,
        total_parameters=TOTAL_PARAMETERS if neural else parameters,
        adapter_bytes=4 * parameters if neural else None,
        train_examples=960,
        train_tokens=80_000,
        padding_ratio=1.1 if neural else None,
        steps=90 if neural else 0,
        precision="bf16" if neural else "fp64",
        latency=[
            Latency(
                batch=1, calls=50, p50_seconds=0.008 if neural else 0.0006, p95_seconds=0.011 if neural else 0.0009
            ),
            Latency(batch=32, calls=20, p50_seconds=0.16 if neural else 0.004, p95_seconds=0.19 if neural else 0.005),
        ]
        if probe
        else [],
        scores={},
    )


def _study(chosen, seeds, control, selections, splits, margin, metric) -> StudyRecord:
    file_text = '# paretune study fabricated.toml\nname = "fabricated"\n'
    return StudyRecord(
        name="fabricated",
        question={
            "en": "Which way of adapting a small encoder to news topics gives the most quality for its memory?",
            "ru": "Какой способ дообучить небольшой энкодер на темах новостей даёт лучшее качество за свою память?",
        },
        metric=metric,
        margin=margin,
        control=control,
        seeds=list(seeds),
        methods=[
            MethodRecord(
                label=label,
                kind=label,
                family=family,
                settings={},
                learning_rates=[rate / 3, rate, rate * 3] if rate else [],
            )
            for label, family, _, rate, *_ in chosen
        ],
        labels=list(LABELS),
        model_source="asset:minilm-l6",
        model_notes=["quantised_4bit"],
        data_source="asset:reuters-r8",
        max_tokens=128,
        split_rows={"train": 960, "validation": 240, **splits},
        file_text=file_text,
        spec={"train": {"epochs": 3}},
        spec_hash=canonical_hash({"train": {"epochs": 3}}),
        command="paretune study fabricated.toml",
        machine={"processor": "made up", "cores": 2, "memory": {"total": "8 GB"}},
        selections=selections,
    )


def exploration() -> Exploration:
    """A made-up exploration with every field filled."""
    edges = [float(edge) for edge in range(0, 281, 20)]
    rows = [30, 120, 210, 190, 150, 90, 60, 40, 30, 20, 10, 6, 3, 1]
    quantiles = {"0.05": 18.0, "0.5": 70.0, "0.95": 170.0}
    return Exploration(
        source="asset:reuters-r8",
        tokenizer="asset:minilm-l6",
        max_tokens=128,
        rows={"train": 960, "validation": 240, "test": 240},
        classes=[
            ClassCount(
                label=label, rows={"train": int(960 * share), "validation": int(240 * share), "test": int(240 * share)}
            )
            for label, share in zip(LABELS, SHARES, strict=True)
        ],
        lengths=[
            LengthSummary(
                split=split,
                unit=unit,
                mean=82.5,
                quantiles=quantiles,
                bin_edges=[edge * scale for edge in edges],
                bin_rows=rows,
            )
            for split in ("train", "test")
            for unit, scale in (("tokens", 1.0), ("characters", 5.0))
        ],
        truncation_share={"train": 0.147, "validation": 0.15, "test": 0.14},
        vocabulary_tokens_used=9_120,
        vocabulary_size=30_522,
        unknown_token_share=0.0004,
        words=71_000,
        distinct_words=8_300,
        frequent_words=[("the", 5_210), ("of", 2_800), ("shares", 640)],
        duplicates={"exact": 12, "near": 31},
        leaks={"exact": 2, "near": 9},
        scripts={"Latin": 0.998, "other": 0.002},
        suspects=[
            Suspect(
                id="train-8", label="trade", suggested="crude", confidence=0.93, text="Oil prices rose <again> & again."
            )
        ],
        suspect_rows=7,
        samples=[Sample(id=f"train-{label}", label=label, text=f"A made-up text about {label}.") for label in LABELS],
        cleaning=[
            CleaningStep(
                step="empty_text", split="train", rows_in=1000, rows_out=997, marked=3, example_ids=["train-4"]
            ),
            CleaningStep(
                step="exact_duplicates", split="train", rows_in=997, rows_out=985, marked=12, example_ids=["train-9"]
            ),
        ],
        notes=[],
    )


if __name__ == "__main__":
    print(json.dumps({"folder": str(write_study(Path(sys.argv[1])))}))
