"""The outside authority: plain `peft` + `transformers.Trainer` on the data, seeds and settings of a finished study.

Nothing of paretune's training is used: the Trainer's own loop, schedule, random order and autocast, plain AdamW,
peft's own LoRA. Equal are the splits, base model, mean pooling, batch size, epochs, learning rates of encoder and head,
warm-up, weight decay, clipping, dropout 0 and bf16; with `--stock` the Trainer and the model keep their own defaults
for the last two: fp32 and the model's dropout. `run` trains what is missing; `compare` prints, for each method, the
difference "paretune minus peer" with the crossed 95 % interval, and whether the two are equivalent within the study's
margin (two one-sided tests at 5 %), as one JSON line.

    paretune study studies/r8.toml
    python benchmarks/peer_trainer.py run runs/r8          # 10 trainings, in runs/r8-peer
    python benchmarks/peer_trainer.py compare runs/r8 [--publish results/r8]
    paretune study studies/engine-r8.toml
    python benchmarks/peer_trainer.py run --stock runs/engine-r8  # hours; in runs/engine-r8-stock
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peer_model import Lora, build
from torch import nn
from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed

from paretune.models.sources import model_folder
from paretune.records.store import StudyFolder
from paretune.report.facts import ScoredRun, gather
from paretune.stats.intervals import crossed_interval

METHODS = ("lora", "full")  # kinds that `peer_model.py` can build


def parameter_groups(model: nn.Module, learning_rate: float, train_spec: dict) -> list[dict]:
    """Matrices decay, vectors do not; the new head has the study's own rate for it."""
    groups = []
    for of_head, rate in ((False, learning_rate), (True, train_spec["head_learning_rate"])):
        named = [one for name, one in model.named_parameters() if name.startswith("head.") is of_head]
        parameters = [one for one in named if one.requires_grad]
        matrices = [one for one in parameters if one.ndim > 1]
        vectors = [one for one in parameters if one.ndim <= 1]
        groups += [
            {"params": matrices, "lr": rate, "weight_decay": train_spec["weight_decay"]},
            {"params": vectors, "lr": rate, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def train_one(data: pd.DataFrame, labels: list[str], spec: dict, out: Path, stock: bool) -> None:
    """Train one method with one seed and write its test predictions."""
    began = time.time()
    set_seed(spec["seed"])
    train_spec, source = spec["train"], spec["model"]["source"]
    tokenizer = AutoTokenizer.from_pretrained(model_folder(source))
    tokenizer.model_max_length = train_spec["max_tokens"]

    def rows(split: str) -> list[dict]:
        part = data[data["split"] == split]
        encoded = tokenizer(part["text"].tolist(), truncation=True, max_length=train_spec["max_tokens"])
        targets = [labels.index(label) for label in part["label"]]
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": target}
            for ids, mask, target in zip(encoded["input_ids"], encoded["attention_mask"], targets, strict=True)
        ]

    train_rows, test_rows = rows("train"), rows("test")
    settings = spec["settings"]
    lora = Lora(settings["rank"], settings["alpha"] or 2 * settings["rank"]) if spec["kind"] == "lora" else None
    model = build(source, lora, len(labels), dropout=stock)
    steps = -(-len(train_rows) // train_spec["batch_size"]) * train_spec["epochs"]
    arguments = TrainingArguments(
        output_dir=str(out.with_suffix(".work")),
        num_train_epochs=train_spec["epochs"],
        per_device_train_batch_size=train_spec["batch_size"],
        per_device_eval_batch_size=32,
        learning_rate=spec["learning_rate"],
        weight_decay=train_spec["weight_decay"],
        max_grad_norm=train_spec["clip_norm"],
        warmup_steps=max(1, round(steps * train_spec["warmup_share"])),
        lr_scheduler_type="linear",
        bf16=not stock,
        use_cpu=True,
        seed=spec["seed"],
        save_strategy="no",
        report_to="none",
        logging_steps=50,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, spec["learning_rate"], train_spec))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        processing_class=tokenizer,
        optimizers=(optimizer, None),  # the Trainer makes its own schedule
    )
    trainer.train()
    trained = time.time() - began
    order = np.argsort([-len(row["input_ids"]) for row in test_rows])
    found = trainer.predict([test_rows[place] for place in order])
    truth = [row["labels"] for row in test_rows]
    if found.label_ids is None or not (np.asarray(found.label_ids) == np.array(truth)[order]).all():
        sys.exit("the Trainer gave its predictions in another order than the rows")
    predictions = np.empty(len(test_rows), dtype=int)
    predictions[order] = np.asarray(found.predictions).argmax(axis=1)
    correct = [int(one == wanted) for one, wanted in zip(predictions, truth, strict=True)]
    ids = data[data["split"] == "test"]["id"].tolist()
    record = {
        "method": spec["method"], "seed": spec["seed"], "learning_rate": spec["learning_rate"], "seconds": trained,
        "accuracy": float(np.mean(correct)), "ids": ids, "predictions": [labels[one] for one in predictions],
    }  # fmt: skip
    out.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    shutil.rmtree(out.with_suffix(".work"), ignore_errors=True)
    print(f"{spec['method']} seed {spec['seed']}: {record['accuracy']:.4f} in {trained:.0f} s", flush=True)


def scored(folder: StudyFolder) -> list[ScoredRun]:
    """The study's scored runs of the methods that a plain script can train; none left from before a change of it."""
    runs = [run for method in gather(folder).methods for run in method.runs.values() if run.spec.kind in METHODS]
    return sorted(runs, key=lambda one: (one.spec.seed, one.spec.method))


def run(study: Path, stock: bool, share: int, of: int) -> None:
    """Train what is missing in STUDY-peer or STUDY-stock; with `of` 2 every second one: two calls share the work."""
    folder = StudyFolder(study)
    data = pd.read_parquet(study / "data" / "data.parquet")
    labels = folder.study().labels
    target = study.with_name(f"{study.name}-{_name(stock)}")
    target.mkdir(parents=True, exist_ok=True)
    for one in scored(folder)[share::of]:
        spec = one.spec.model_dump()
        out = target / f"{spec['method']}-{spec['seed']}.json"
        if not out.exists():
            train_one(data, labels, spec, out, stock)


def _name(stock: bool) -> str:
    return "stock" if stock else "peer"


def compare(study: Path, stock: bool, publish: Path | None) -> None:
    """Print the differences; with `publish`, copy the peer's predictions beside the study's records."""
    folder = StudyFolder(study)
    peer = study.with_name(f"{study.name}-{_name(stock)}")
    if not peer.exists():
        peer = study / _name(stock)
    margin = folder.study().margin
    differences: dict[str, list[np.ndarray]] = {}
    means: dict[str, list[tuple[float, float]]] = {}
    for one in scored(folder):
        spec, test = one.spec, one.splits["test"]
        path = peer / f"{spec.method}-{spec.seed}.json"
        if not path.exists():
            continue
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs["ids"] != test.ids or theirs["learning_rate"] != spec.learning_rate:
            sys.exit(f"{path} is of other data or of another learning rate; delete it and run again")
        truth = np.array(test.labels)
        ours_right = (np.array(test.predictions) == truth).astype(float)
        theirs_right = (np.array(theirs["predictions"]) == truth).astype(float)
        differences.setdefault(spec.method, []).append(ours_right - theirs_right)
        means.setdefault(spec.method, []).append((ours_right.mean(), theirs_right.mean()))
    if not differences:
        sys.exit(f"no peer predictions for {study}; run `python benchmarks/peer_trainer.py run {study}` first")
    line: dict[str, dict] = {}
    for method, rows in differences.items():
        found = crossed_interval(np.stack(rows))
        within = crossed_interval(np.stack(rows), level=0.9)  # both one-sided tests at 5 %
        ours, theirs = np.mean(means[method], axis=0)
        line[method] = {
            "seeds": len(rows), "paretune_accuracy": ours, "peer_accuracy": theirs, "difference": found.estimate,
            "low": found.low, "high": found.high, "contains_zero": bool(found.low <= 0 <= found.high),
            "half_width": (found.high - found.low) / 2, "margin": margin,
            "equivalent": bool(-margin < within.low and within.high < margin),
        }  # fmt: skip
    if publish is not None:
        shutil.copytree(peer, publish / _name(stock), dirs_exist_ok=True)
    print(json.dumps(line))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("run", "compare"))
    parser.add_argument("study", type=Path)
    parser.add_argument("--publish", type=Path)
    parser.add_argument("--stock", action="store_true", help="the Trainer's and the model's own defaults")
    parser.add_argument("--share", type=int, default=0, help="which share of the work, from 0")
    parser.add_argument("--of", type=int, default=1, help="how many calls share the work")
    given = parser.parse_args()
    if given.verb == "run":
        run(given.study, given.stock, given.share, given.of)
    else:
        compare(given.study, given.stock, given.publish)
