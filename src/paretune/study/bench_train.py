"""`paretune bench train`: our training and another library's in turn, each in a fresh process, on the same rows.

Not here: starting a process (`bench_train_processes.py`), what it does (`bench_train_ours.py`, and the peer's script of
`benchmarks/`, which is run where the checkout has it), and the figures' arithmetic (`bench_train_summary.py`). Equal
are base model, rows, tokens, batch size, rank and targets of the low-rank updates, AdamW and its rate.

    bench_train(BenchPlan(model="asset:minilm-l6", method="lora", seconds=60), say=print)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import paretune
from paretune.core.config import JsonObject, nearest, validated
from paretune.core.errors import RunError, UnknownNameError, said
from paretune.data.encoding import encode
from paretune.data.prepare import prepare
from paretune.data.sources import DataSpec
from paretune.measure.flops import Arithmetic, arithmetic
from paretune.measure.speed import Job
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.sources import ModelSpec, model_type, settled
from paretune.models.tokenizer import read_tokenizer
from paretune.repro.seeding import torch_generator
from paretune.study.bench_train_ours import SEED, adaptation, train_spec
from paretune.study.bench_train_processes import Runner
from paretune.study.bench_train_summary import Pair, summary
from paretune.study.engines import prepare_engines
from paretune.train.loop import planned_batches

PEERS = {"peft-trainer": Path("benchmarks/peer_speed.py")}
RANK = 8
WARM_STEPS = 3
MOST_ROWS = 1024  # of more, batches of like length come in turns of 50 with the Trainer: longer than a window


@dataclass(frozen=True)
class BenchPlan:
    """What to measure: `pairs` turns, in which each process trains for `seconds` after its warm-up."""

    model: str = "asset:minilm-l6"
    data: str = "asset:reuters-r8"
    text: str = "text"
    label: str = "label"
    method: Literal["lora", "full"] = "lora"
    peer: str = "peft-trainer"
    seconds: float = 60.0
    batch_size: int = 16
    max_tokens: int = 256
    pairs: int = 3


def bench_train(plan: BenchPlan, say: Callable[[str], None]) -> JsonObject:
    """Measure; the dictionary is the bench's last line. Figures of a peer whose script is not there are None.

    Raises:
        UnknownNameError: no such peer.
        UsageError: model or data cannot be had.
        RunError: a process failed, or the sides had other tokens.
    """
    script = peer_script(plan.peer)
    if script is None:
        say(f"no {PEERS[plan.peer]} here, which stands in a checkout of paretune: nothing is compared")
    prepare_engines(say)
    say(f"reading {plan.data}, counting {plan.model}")
    kind, job = prepared_job(plan)
    counted, rows = shapes_of(job)
    with tempfile.TemporaryDirectory() as scratch:
        run = Runner(kind, Path(scratch), script)
        pairs: list[Pair] = []
        for turn in range(1, plan.pairs + 1):
            say(f"pair {turn} of {plan.pairs}: ours, then the peer with its defaults and at its best")
            before = run.ceiling(counted, rows)
            ours = run.ours(job)
            after = run.ceiling(counted, rows)
            peer = {one: run.peer(job, one) for one in ("defaults", "best")} if script else {}
            pairs.append(Pair(ours, (before, after), peer))
        stock_full = None
        if script and plan.method == "lora":
            say("the peer's full fine-tuning, for its memory")
            rate = adaptation(job.model_copy(update={"method": "full"})).default_learning_rate
            stock_full = run.peer(job.model_copy(update={"method": "full", "learning_rate": rate}), "defaults")
    samples = [one for pair in pairs for one in (pair.ours, *pair.peer.values())]
    if len({one.row_tokens for one in samples}) > 1:
        raise RunError(said(f"both sides tokenized to {[one.row_tokens for one in samples]}", "the same tokens"))
    return {
        "model": shown(plan.model),
        "method": plan.method,
        **summary(pairs, counted, stock_full),
        "data": shown(plan.data),
        "peer": plan.peer if script else None,
        "seconds": plan.seconds,
        "batch_size": plan.batch_size,
        "max_tokens": plan.max_tokens,
        "longest_tokens": max(one.largest_batch_tokens for one in samples) // plan.batch_size,
        "rows": len(job.texts),
        "details": {
            "pairs": [
                {
                    "ours": pair.ours.model_dump(),
                    "ceilings_flops_per_second": list(pair.ceilings),
                    **{f"peer_{name}": one.model_dump() for name, one in pair.peer.items()},
                }
                for pair in pairs
            ],
            "stock_full": stock_full.model_dump() if stock_full else None,
            "matrix_weights": counted.weights,
            "low_rank_weights": counted.low_rank,
        },
    }


def peer_script(name: str) -> Path | None:
    """The peer's script, in the working folder or beside the package's sources; None where neither has it.

    Raises:
        UnknownNameError: no such peer.
    """
    if name not in PEERS:
        raise UnknownNameError(said(f"peer {name!r}", "one of " + ", ".join(PEERS), nearest=nearest(name, PEERS)))
    places = (Path.cwd(), Path(paretune.__file__).parents[2])
    return next((place / PEERS[name] for place in places if (place / PEERS[name]).is_file()), None)


def prepared_job(plan: BenchPlan) -> tuple[str, Job]:
    """The base model's type, and what both sides are asked.

    Raises:
        UsageError: model or data cannot be had.
    """
    model = settled(validated({"source": plan.model}, ModelSpec, "--model"))
    table = {"train": plan.data, "text": plan.text, "label": plan.label}
    data = prepare(validated(table, DataSpec, "--data"), Path.cwd())
    rows = data.splits["train"]
    if len(rows) > MOST_ROWS:
        rows = rows.take(np.linspace(0, len(rows) - 1, MOST_ROWS).astype(int).tolist())
    job = Job(
        source=plan.model,
        pooling=model.pooling,
        method=plan.method,
        rank=RANK,
        texts=list(rows.texts),
        targets=[data.labels.index(label) for label in rows.labels],
        classes=len(data.labels),
        batch_size=plan.batch_size,
        max_tokens=plan.max_tokens,
        learning_rate=1.0,
        seconds=plan.seconds,
        warm_steps=WARM_STEPS,
    )
    return model_type(plan.model), job.model_copy(update={"learning_rate": adaptation(job).default_learning_rate})


def shown(reference: str) -> str:
    """A reference for a record that others read: of a local file or folder its name alone."""
    kind, _, rest = reference.partition(":")
    return f"path:{Path(rest).name}" if kind == "path" else reference


def shapes_of(job: Job) -> tuple[Arithmetic, int]:
    """The model's arithmetic with the method attached, and how many real tokens a batch of ours has."""
    model = EncoderClassifier(load_encoder(job.source), job.classes, job.pooling)
    adaptation(job).attach(model, torch_generator(SEED, "init"))
    encoded = encode(read_tokenizer(job.source), job.texts, job.max_tokens)
    lengths_n = encoded.lengths_n
    batches = planned_batches(encoded, train_spec(job), SEED)
    return arithmetic(model.encoder), int(np.median([lengths_n[batch].sum() for batch in batches]))
