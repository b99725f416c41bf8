"""A few measured steps → the constants of the memory and time formulas of one machine, model and number format.

Formulas: memory as in `accounting.py`; a step takes a fixed time, so much for each FLOP of the forward and of the
backward pass, so much for each number that the optimizer moves, and once more for each width that is new. Constants
are found by least squares that allow no negative one (Lawson & Hanson 1974, chapter 23,
https://doi.org/10.1137/1.9781611971217), of relative errors where seconds are meant. Not here: the steps themselves,
which a process of their own measures, and where the result is kept.

    fit([sample_of_lora, sample_of_full, sample_of_head]).seconds_per_forward_flop
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.optimize import lsq_linear, nnls

from paretune.core.config import Settings
from paretune.measure.accounting import (
    FP32,
    BlockBytes,
    Census,
    Format,
    MemoryConstants,
    Pass,
    back_bytes,
    computed,
    held_parameters,
    weight_bytes,
    whole_table_bytes,
)

PRODUCTS = ("forward", "passed", "low_rank", "learning")
SCATTERED = 1.2  # what lasts lies between what is given back: so much more is resident (seen over 40 steps)
EVALUATION_ROWS = 32  # texts of one pass of evaluation
# Where the probe saw too little to tell, constants stay near what they were on a first machine.
USUAL_KEPT, USUAL_WORKING, USUAL_WEIGHT = 1.4, 2.5, 0.05
USUAL_WIDTH_RATIO = {"forward": 1.0, "passed": 2.5, "low_rank": 5.0, "learning": 2.5}  # to a forward pass
DELAYED = 1.5  # times what the other steps say
SLOWEST_UPDATE_SECONDS = 2e-8  # of one parameter: some 28 bytes at 1.4 GB/s


class StepSample(Settings):
    """One measured optimizer step; positions and pairs as in `accounting.Pass`. `new_width`: so many positions had not
    been computed before."""

    seconds: float
    positions: int
    pairs: int
    new_width: bool


class Sample(Settings):
    """What a few steps in a fresh process cost, and the counts that explain it; `back_bytes` of `weight_bytes` are only
    there while training, `whole_table_bytes` only after it.

    Memory in bytes: after imports, after a tokenizer was there, at the peaks of training and of evaluation.
    `growth_bytes` is what the process allocated for good in the later steps, `growth_widths` how many new widths they
    had.
    `capped_over_bytes` is by how much more a memory cap counts than is resident, before the steps and after.
    `saved_position_bytes` and `saved_pair_bytes` are what backward was seen to keep of one block.
    """

    kind: str
    precision: Format
    passed_blocks: int
    computed: str
    forward_flops_per_position: float
    forward_flops_per_pair: float
    backward_flops_per_position: float
    backward_flops_per_pair: float
    held_parameters: int
    weight_bytes: float
    back_bytes: float
    whole_table_bytes: float
    in_cpp: bool
    imports_bytes: int
    tokenizer_bytes: int
    peak_bytes: int
    evaluation_peak_bytes: int
    growth_bytes: int
    growth_widths: int
    capped_over_before_bytes: int
    capped_over_bytes: int
    widths: int
    saved_position_bytes: float
    saved_pair_bytes: float
    steps: list[StepSample]
    evaluation_seconds: float
    evaluation_batches: int
    evaluation_positions: int
    evaluation_pairs: int
    start_seconds: float
    tokenizer_seconds: float
    encode_seconds_per_token: float
    load_seconds: float
    save_seconds: float
    save_bytes: int


class Calibration(Settings):
    """The constants; `samples` are what they were found from. Seconds and bytes. `complete`: the probe had time for
    every sort of step that this model has."""

    started_bytes: float
    imports_bytes: float
    saved_position_bytes: float
    saved_pair_bytes: float
    kept: float
    working: float
    evaluation: float
    fixed_bytes: float
    width_bytes: dict[str, float]
    capped_over_bytes: float
    capped_over_width_bytes: dict[str, float]
    seconds_per_step: float
    seconds_per_forward_flop: float
    seconds_per_backward_flop: float
    seconds_per_held_parameter: float
    seconds_per_new_width: float
    seconds_per_evaluation_flop: float
    start_seconds: float
    tokenizer_seconds: float
    encode_seconds_per_token: float
    load_seconds: float
    save_seconds: float
    measured_at: str = ""
    probe_seconds: float = 0.0
    complete: bool = True
    samples: list[Sample] = Field(default_factory=list[Sample])

    def memory(self) -> MemoryConstants:
        return MemoryConstants(
            started_bytes=self.started_bytes,
            block=BlockBytes(self.saved_position_bytes, self.saved_pair_bytes),
            kept=self.kept,
            working=self.working,
            evaluation=self.evaluation,
            fixed_bytes=self.fixed_bytes,
            width_bytes=self.width_bytes,
        )

    def training_seconds(
        self, found: Census, computed: Amount, steps: int, held: int, prefix: bool = True, recomputed: bool = False
    ) -> float:
        """So many optimizer steps; `held`: numbers that the optimizer moves. `prefix`: the frozen lower blocks are
        computed in each step, not read from where they are kept. `recomputed`: the others twice."""
        forward, backward = flops(found, computed.positions, computed.pairs)
        below = prefix_flops(found, computed.positions, computed.pairs)
        forward += (forward - below if recomputed else 0.0) - (0.0 if prefix else below)
        return (
            self.seconds_per_step * computed.passes
            + self.seconds_per_forward_flop * forward
            + self.seconds_per_backward_flop * backward
            + self.seconds_per_held_parameter * held * steps
            + self.seconds_per_new_width * computed.widths
        )

    def prefix_seconds(self, found: Census, computed: Amount) -> float:
        """The frozen lower blocks, once."""
        rate = self.seconds_per_evaluation_flop
        flop = prefix_flops(found, computed.positions, computed.pairs)
        return self.seconds_per_step / 2 * computed.passes + rate * flop

    def evaluation_seconds(self, found: Census, computed: Amount) -> float:
        """Passes without gradients."""
        forward, _ = flops(found, computed.positions, computed.pairs)
        return self.seconds_per_step / 2 * computed.passes + self.seconds_per_evaluation_flop * forward

    @property
    def unmeasured(self) -> list[str]:
        """Sorts of step of which the probe had no time to measure one: what is said of them is less sure."""
        return [sort for sort in PRODUCTS if sort not in {one.computed for one in self.samples}]

    def capped_over(self, sort: str, widths: int) -> float:
        """By how much more a memory cap counts than is resident."""
        return self.capped_over_bytes + self.capped_over_width_bytes.get(sort, 0.0) * widths


@dataclass(frozen=True)
class Amount:
    """What is computed in all: passes, their positions and pairs, and how many numbers of positions differ."""

    passes: int
    positions: int
    pairs: int
    widths: int


def flops(found: Census, positions: int, pairs: int) -> tuple[float, float]:
    """FLOP of the forward and of the backward pass, low-rank updates included."""
    count = found.arithmetic
    forward = count.forward_flops(positions, pairs)
    both = count.useful_flops(positions, pairs) + count.low_rank_flops(positions)
    return forward, max(0.0, both - forward)


def prefix_flops(found: Census, positions: int, pairs: int) -> float:
    """FLOP of the forward pass of the blocks below the lowest one that learns."""
    count = found.arithmetic
    blocks = count.blocks - count.passed_blocks
    return 2.0 * (count.weights - count.passed) * positions + 4.0 * count.width * blocks * pairs


def sample_counts(found: Census, active_words: int, precision: Format, in_cpp: bool) -> dict[str, float | int | str]:
    """The fields of a sample that come from counting."""
    count = found.arithmetic
    position, pair = flops(found, 1, 0), flops(found, 0, 1)
    return {
        "precision": precision,
        "passed_blocks": count.passed_blocks,
        "computed": computed(found),
        "forward_flops_per_position": position[0],
        "forward_flops_per_pair": pair[0],
        "backward_flops_per_position": position[1],
        "backward_flops_per_pair": pair[1],
        "held_parameters": held_parameters(found, active_words),
        "weight_bytes": weight_bytes(found, active_words, precision, in_cpp),
        "back_bytes": back_bytes(found, precision, in_cpp),
        "whole_table_bytes": whole_table_bytes(found, active_words),
        "in_cpp": in_cpp,
    }


def fit(samples: Sequence[Sample]) -> Calibration:
    """Constants from samples of at least two kinds of step, the largest passes among them."""
    assert samples
    widest = max(samples, key=lambda one: (one.passed_blocks > 0, one.saved_position_bytes))
    block = BlockBytes(widest.saved_position_bytes, widest.saved_pair_bytes)
    width_bytes = _by_product(samples, lambda one: (round(SCATTERED * one.growth_bytes), one.growth_widths))
    started = float(np.median([one.tokenizer_bytes for one in samples]))
    kept, working, fixed = _memory(samples, block, width_bytes, started)
    over_width = _by_product(samples, lambda one: (one.capped_over_bytes - one.capped_over_before_bytes, one.widths))
    seconds = _seconds(samples)
    evaluations = [_evaluation_bytes(one, block, width_bytes, started + fixed) for one in samples]
    evaluation_rates = [
        one.evaluation_seconds
        / (one.evaluation_batches * _forward(one, one.evaluation_positions, one.evaluation_pairs))
        for one in samples
    ]
    return Calibration(
        started_bytes=started,
        imports_bytes=float(np.median([one.imports_bytes for one in samples])),
        saved_position_bytes=block.position,
        saved_pair_bytes=block.pair,
        kept=kept,
        working=working,
        evaluation=min(evaluations),  # where training used least, the process had least left over
        fixed_bytes=fixed,
        width_bytes=width_bytes,
        capped_over_bytes=_median(samples, "capped_over_before_bytes"),
        capped_over_width_bytes=over_width,
        seconds_per_step=seconds[0],
        seconds_per_forward_flop=seconds[1],
        seconds_per_backward_flop=seconds[2],
        seconds_per_held_parameter=seconds[3],
        seconds_per_new_width=seconds[4],
        seconds_per_evaluation_flop=float(np.median(evaluation_rates)),
        start_seconds=_median(samples, "start_seconds"),
        tokenizer_seconds=_median(samples, "tokenizer_seconds"),
        encode_seconds_per_token=_median(samples, "encode_seconds_per_token"),
        load_seconds=_median(samples, "load_seconds"),
        save_seconds=_median(samples, "save_seconds"),
        samples=list(samples),
    )


def _median(samples: Sequence[Sample], field: str) -> float:
    return float(np.median([one.model_dump()[field] for one in samples]))


def _forward(one: Sample, positions: int, pairs: int) -> float:
    return one.forward_flops_per_position * positions + one.forward_flops_per_pair * pairs


def _backward(one: Sample, positions: int, pairs: int) -> float:
    return one.backward_flops_per_position * positions + one.backward_flops_per_pair * pairs


def _by_product(samples: Sequence[Sample], grown: Callable[[Sample], tuple[int, int]]) -> dict[str, float]:
    """By what is computed: growth for each new width; what was not measured, in the usual ratio to what was."""
    found: dict[str, float] = {}
    for name in PRODUCTS:
        rates = [size / widths for one in samples if one.computed == name for size, widths in [grown(one)] if widths]
        if rates:
            found[name] = max(0.0, float(np.median(rates)))
    ratios = [value / USUAL_WIDTH_RATIO[name] for name, value in found.items()]
    unit = float(np.median(ratios)) if ratios else 0.0
    return {name: found.get(name, unit * USUAL_WIDTH_RATIO[name]) for name in PRODUCTS}


def _largest(one: Sample) -> Pass:
    """The step that holds most; a probe's steps are one pass each."""
    step = max(one.steps, key=lambda step: (step.positions, step.pairs))
    return Pass(0, step.positions, step.pairs)


def _known(one: Sample, width_bytes: dict[str, float], started: float) -> float:
    """Bytes of a sample's training peak that need no constant: process, weights, moments, remembered widths."""
    return started + one.weight_bytes + one.held_parameters * FP32 * 2 + width_bytes[one.computed] * one.widths


def _memory(
    samples: Sequence[Sample], block: BlockBytes, width_bytes: dict[str, float], started: float
) -> tuple[float, float, float]:
    """(kept, working, fixed): what the peaks above the known parts are made of."""
    rows = [(block.of(_largest(one)) * one.passed_blocks, block.of(_largest(one)), 1.0) for one in samples]
    over = [max(0.0, one.peak_bytes - _known(one, width_bytes, started)) for one in samples]
    scale = max(max(row[0] for row in rows), max(row[1] for row in rows), 1.0)
    held = [
        0 if one.in_cpp else min(one.held_parameters * FP32, row[0]) for one, row in zip(samples, rows, strict=True)
    ]
    matrix = np.array([[row[0] / scale, row[1] / scale, 1.0] for row in rows])
    # A gradient that is larger than the activations it replaces stands for itself.
    target = np.array(
        [
            value - max(0.0, one.held_parameters * FP32 - shared)
            for value, one, shared in zip(over, samples, held, strict=True)
        ]
    )
    usual = np.array([[USUAL_WEIGHT, 0.0, 0.0], [0.0, USUAL_WEIGHT, 0.0]])
    wanted = np.array([USUAL_KEPT, USUAL_WORKING]) * scale * USUAL_WEIGHT
    found, _ = nnls(np.vstack([matrix, usual]), np.concatenate([np.maximum(target, 0.0), wanted]))
    return float(found[0] / scale), float(found[1] / scale), float(found[2])


def _evaluation_bytes(one: Sample, block: BlockBytes, width_bytes: dict[str, float], process: float) -> float:
    """How many blocks' worth evaluation took at its peak."""
    weights = one.weight_bytes - one.back_bytes + one.whole_table_bytes
    known = process + weights + (width_bytes["forward"] if one.widths else 0.0)
    evaluated = Pass(EVALUATION_ROWS, one.evaluation_positions, one.evaluation_pairs)
    return max(0.0, one.evaluation_peak_bytes - known) / block.of(evaluated)


def _seconds(samples: Sequence[Sample]) -> list[float]:
    """Seconds a step, a forward FLOP, a backward FLOP, a held parameter, a new width; steps that something else on the
    machine delayed are left out of a second fit."""
    rows: list[list[float]] = []
    for one in samples:
        for step in one.steps:
            forward = _forward(one, step.positions, step.pairs)
            backward = _backward(one, step.positions, step.pairs)
            explained = [1.0, forward, backward, float(one.held_parameters), float(step.new_width)]
            rows.append([value / step.seconds for value in explained])
    matrix = np.array(rows)
    found = _bounded(matrix)
    kept = matrix @ found > 1 / DELAYED
    return [float(value) for value in (_bounded(matrix[kept]) if kept.sum() >= matrix.shape[1] else found)]


def _bounded(matrix: np.ndarray) -> np.ndarray:
    """Least squares of rows that should each give 1; none below zero, and no optimizer slower than any memory.

    Of what no row has nothing is known; where no gradient passed, a backward FLOP is taken to cost what a forward one
    does.
    """
    scale = np.abs(matrix).max(axis=0)
    there = scale > 0
    most = np.array([np.inf, np.inf, np.inf, SLOWEST_UPDATE_SECONDS, np.inf])
    bounds = (np.zeros(there.sum()), most[there] * scale[there])
    found = np.zeros(matrix.shape[1])
    found[there] = lsq_linear(matrix[:, there] / scale[there], np.ones(len(matrix)), bounds=bounds).x / scale[there]
    if not there[2]:
        found[2] = found[1]
    return found
