"""Texts, batches and counts → what a run will need: bytes by part, seconds by phase, FLOP. Nothing is run here.

Not here: where the constants come from (`calibrate.py`), which setting to choose (`planner.py`).

    predicted = predict_run(counts, shape_of(encoded, spec, way_of(counts, "bf16")), "bf16", constants)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from paretune.data.encoding import Encoded
from paretune.kernels.rows import round_count, round_width
from paretune.measure.accounting import (
    Census,
    Format,
    Pass,
    Work,
    computed,
    held_parameters,
    memory_parts,
    whole_table_bytes,
)
from paretune.measure.calibration import Amount, Calibration
from paretune.measure.latency import BATCHES, WARM_CALLS
from paretune.records.schema import Predicted
from paretune.train.batches import length_batches
from paretune.train.evaluate import EVALUATION_BATCH, PROBE_ROWS
from paretune.train.loop import TrainSpec, planned_batches
from paretune.train.native_blocks import Shape, refused

WITNESSED = 2  # a run looks at the first validation texts before and after training
VALIDATION = "validation"
NOTHING = Pass(0, 0, 0)
FIT_ITERATIONS = 60.0  # of one regression: assumed
FIT_FLOPS = 5e9  # of a core in a second on it: assumed


@dataclass(frozen=True)
class RunShape:
    """All passes of a run: the training's, step by step cut into micro-batches, and each split's evaluation.

    `active_words` different words occur in the texts that training reads, of `tokens` real tokens in all epochs, whose
    squared lengths sum to `squares`; `split_tokens` are each split's. `prefix`: the passes in which what frozen blocks
    give for the training texts is computed once. `recomputed`: of each block only its input is kept for the way back.
    `timed`: a text of middling length, alone and in the batches in which answers are timed. `readings`: how often the
    validation texts are scored, at most once an epoch and once at the end. `fits`: so many regressions in place of
    steps."""

    steps: int
    training: tuple[Pass, ...]
    prefix: tuple[Pass, ...]
    evaluations: dict[str, tuple[Pass, ...]]
    active_words: int
    tokens: int
    squares: int
    split_tokens: dict[str, int]
    recomputed: bool
    timed: tuple[Pass, ...]
    readings: int = 1
    fits: int = 0

    @property
    def work(self) -> Work:
        """The pass that holds most, and how many differ."""
        return replace(
            _work(self.training, self.active_words),
            recomputed=self.recomputed,
            accumulates=len(self.training) > self.steps,
        )


Way = Literal["tokens", "rounded", "padded"]


def way_of(found: Census, precision: Format) -> Way:
    """How a model goes here: over its tokens alone (kernels in C++), over a round number of them (our own pass by
    torch), or over padded texts (plain modules)."""
    if not found.own_pass:
        return "padded"
    head = found.arithmetic.width // found.heads
    shape = Shape(found.hidden, found.feed_forward, found.heads, found.key_heads, head)
    return "tokens" if precision == "bf16" and not refused(shape) else "rounded"


def pass_of(lengths: Sequence[int], way: Way) -> Pass:
    """Texts of so many tokens at once."""
    longest, texts = max(lengths), len(lengths)
    if way == "tokens":
        return Pass(texts, sum(lengths), sum(length**2 for length in lengths), in_cpp=True)
    if way == "rounded":
        return Pass(texts, round_count(sum(lengths)), texts * round_width(longest) ** 2)
    return Pass(texts, texts * longest, texts * longest**2)


def step_passes(encoded: Encoded, batch: Sequence[int], spec: TrainSpec, way: Way) -> list[Pass]:
    """The passes of one optimizer step over these rows of the texts."""
    size = spec.micro_batch_size or len(batch)
    lengths = [len(encoded.ids[row]) for row in batch]
    return [pass_of(lengths[start : start + size], way) for start in range(0, len(batch), size)]


def shape_of(encoded: Mapping[str, Encoded], spec: TrainSpec, way: Way, seed: int = 0, fits: int = 0) -> RunShape:
    """The passes that training on `train`, and evaluating the other splits, will make at most: training that is stopped
    early makes fewer. `fits`: the method goes through no steps, but so many regressions."""
    train = encoded["train"]
    lengths_n = train.lengths_n
    batches = [] if fits else planned_batches(train, spec, seed)
    epochs = 1 if fits else spec.epochs
    stopped = spec.patience > 0 and not fits
    others = {name: split for name, split in encoded.items() if name != "train"}
    asked = next((split for name, split in others.items() if name != VALIDATION), others[VALIDATION])
    middling = int(np.sort(asked.lengths_n)[len(asked) // 2])
    read = chain(train.ids, others[VALIDATION].ids) if stopped else train.ids
    return RunShape(
        steps=len(batches),
        training=tuple(one for batch in batches for one in step_passes(train, batch, spec, way)),
        prefix=_evaluation(train, way),
        evaluations={name: _evaluation(split, way) for name, split in others.items()},
        active_words=len(set(chain.from_iterable(read))),
        tokens=int(lengths_n.sum()) * epochs,
        squares=int((lengths_n.astype(np.int64) ** 2).sum()) * epochs,
        split_tokens={name: int(split.lengths_n.sum()) for name, split in encoded.items()},
        recomputed=spec.activation_checkpointing,
        timed=tuple(pass_of([middling] * rows, way) for rows, calls in BATCHES for _ in range(calls + WARM_CALLS)),
        readings=1 + (epochs if stopped else 0),
        fits=fits,
    )


def _evaluation(encoded: Encoded, way: Way) -> tuple[Pass, ...]:
    lengths_n = encoded.lengths_n
    batches = length_batches(lengths_n, EVALUATION_BATCH)
    return tuple(pass_of(lengths_n[index].tolist(), way) for index in batches)


def _amount(passes: Sequence[Pass]) -> Amount:
    return Amount(
        passes=len(passes),
        positions=sum(one.positions for one in passes),
        pairs=sum(one.pairs for one in passes),
        widths=_widths(passes),
    )


def _widths(passes: Sequence[Pass]) -> int:
    return len({one.positions for one in passes if not one.in_cpp})


def _work(passes: Sequence[Pass], active_words: int) -> Work:
    largest = max(passes, key=lambda one: (one.positions, one.pairs), default=NOTHING)
    return Work(largest, active_words, _widths(passes))


def keeps_prefix(found: Census, spec: TrainSpec, fitted: bool = False) -> bool:
    """Whether what the frozen lower blocks give is computed once; `fitted`: a head is fitted to it, and reads it
    once."""
    return fitted or (spec.keep_frozen and found.own_pass and found.arithmetic.passed_blocks < found.arithmetic.blocks)


def predict_run(
    found: Census, shape: RunShape, precision: Format, constants: Calibration | None, kept: bool = False
) -> Predicted:
    """What the first stage of a run (train, evaluate on validation data, save) will need.

    `kept`: what the frozen lower blocks give is computed once and read afterwards (`keeps_prefix`).
    """
    train_flops = found.arithmetic.useful_flops(shape.tokens, shape.squares)
    if constants is None:
        return Predicted(
            calibrated=False,
            trainable_parameters=found.trainable,
            adapter_bytes=found.saved_bytes,
            train_flops=train_flops,
        )
    work, validation = shape.work, shape.evaluations[VALIDATION]
    prefix = shape.prefix if kept else ()
    looked_at = [_work(one, shape.active_words) for one in (validation, prefix) if one]
    if kept and not found.encoder_learns:  # features alone are read
        work = Work(replace(NOTHING, in_cpp=work.largest.in_cpp), shape.active_words, 0)
    parts = memory_parts(found, work, looked_at, precision, constants.memory())
    held = held_parameters(found, shape.active_words)
    rows = sum(one.texts for one in shape.prefix)
    fitting = shape.fits * FIT_ITERATIONS * 4.0 * rows * found.hidden * found.classes / FIT_FLOPS
    few = _amount([_part(one, PROBE_ROWS) for one in validation[-1:]])
    read = shape.split_tokens["train"] + shape.split_tokens[VALIDATION]
    seconds = {
        "start": constants.start_seconds,
        "tokenize": constants.tokenizer_seconds + constants.encode_seconds_per_token * read,
        "load": constants.load_seconds,
        "prefix": constants.prefix_seconds(found, _amount(prefix)) if kept else 0.0,
        "step": fitting
        if shape.fits
        else constants.training_seconds(
            found, _amount(shape.training), shape.steps, held, prefix=not kept, recomputed=shape.recomputed
        ),
        "eval": shape.readings * constants.evaluation_seconds(found, _amount(validation)),
        "save": constants.save_seconds + constants.evaluation_seconds(found, few),
    }
    return Predicted(
        calibrated=True,
        trainable_parameters=found.trainable,
        adapter_bytes=found.saved_bytes,
        train_flops=train_flops,
        peak_memory_bytes=parts.total,
        peak_memory_above_imports_bytes=max(0.0, parts.total - constants.imports_bytes),
        capped_bytes=parts.total + constants.capped_over(computed(found), work.widths),
        parts=asdict(parts),
        seconds=seconds,
        steps=shape.steps,
        evaluations=shape.readings,
    )


def _part(one: Pass, texts: int) -> Pass:
    """So many texts of a pass."""
    share = min(1.0, texts / one.texts)
    return Pass(min(texts, one.texts), round(one.positions * share), round(one.pairs * share))


@dataclass(frozen=True)
class Scoring:
    """What the second stage of a run needs: the test data are read, and answers timed in one run of each method."""

    seconds: float
    latency_seconds: float
    peak_memory_bytes: float
    capped_bytes: float


def predict_scoring(found: Census, shape: RunShape, precision: Format, constants: Calibration) -> Scoring:
    """The second stage, in a process of its own."""
    tests = {name: passes for name, passes in shape.evaluations.items() if name != VALIDATION}
    passes = [one for split in tests.values() for one in split]
    tokens = sum(count for name, count in shape.split_tokens.items() if name != "train")
    shapes = _widths(passes) + sum(not one.in_cpp for one in shape.timed)
    widest = [replace(_work([*passes, *shape.timed], shape.active_words), widths=shapes)]
    frozen = replace(found, trainable=0, words_learn=False)
    parts = memory_parts(frozen, Work(NOTHING, shape.active_words, 0), widest, precision, constants.memory())
    untrained = parts.total + whole_table_bytes(found, shape.active_words)
    return Scoring(
        seconds=constants.start_seconds
        + constants.tokenizer_seconds
        + constants.encode_seconds_per_token * tokens
        + constants.load_seconds
        + constants.evaluation_seconds(found, _amount(passes)),
        latency_seconds=constants.evaluation_seconds(found, _amount(shape.timed)),
        peak_memory_bytes=untrained,
        capped_bytes=untrained + constants.capped_over("forward", shapes),
    )
