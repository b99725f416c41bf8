"""What happens in the process of a trial: a run's first stage on drawn texts, metered, and what backward keeps.

Load, train, evaluate and save in the order and with the functions of a run, so that its peaks are a run's; only then
are bytes counted that backward keeps of a block. Not here: the process (`trial.py`).

    perform(Trial(model="asset:minilm-l6", kind="lora")).peak_bytes
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from paretune.core.config import JsonObject, Settings
from paretune.core.errors import RunError
from paretune.core.events import Event, Phase, PhaseEnded, PhaseStarted, StepEnded
from paretune.core.limits import usable_cores
from paretune.core.memory import return_free_memory
from paretune.data.encoding import Encoded, encode
from paretune.measure.accounting import Census, Format, Pass, block_bytes, census
from paretune.measure.calibration import EVALUATION_ROWS, Sample, StepSample, sample_counts
from paretune.measure.meter import Meter, resident_bytes
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.precision import autocast, chosen_precision
from paretune.models.sources import ModelSpec, settled
from paretune.models.surgery import plain_encoder, usable_positions
from paretune.models.tokenizer import BaseTokenizer, read_tokenizer
from paretune.repro.seeding import make_repeatable, numpy_generator, torch_generator
from paretune.study.design import make_method
from paretune.study.guard import used_bytes
from paretune.study.predict import Way, pass_of, step_passes, way_of
from paretune.tasks.task import TASKS, Task
from paretune.train.evaluate import Witness, predict
from paretune.train.fast_encoder import fast_path
from paretune.train.loop import TrainSpec, planned_batches, train

CLASSES = 8
EVALUATION_BATCHES = 2
COMMON_WORDS = 2000  # ids are drawn among the first so many after the special ones
SHORTEST_SHARE = 0.4  # of the longest text's tokens
LOW_RATE = 1e-5


class Trial(Settings):
    """One combination; `settings` are the method's own. `batch_size` texts of at most `max_tokens` tokens a step,
    computed `micro_batch_size` at once; `cap_bytes` is the guard's memory cap."""

    model: str
    kind: str
    settings: JsonObject = Field(default_factory=dict[str, Any])
    classes: int = Field(default=CLASSES, ge=2)
    batch_size: int = Field(default=16, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=128, ge=4)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    steps: int = Field(default=5, ge=1)
    activation_checkpointing: bool = False
    cap_bytes: int | None = None

    @property
    def settled_pooling(self) -> str:
        """The pooling that the model takes where a study does not say."""
        return settled(ModelSpec(source=self.model)).pooling

    @property
    def training(self) -> TrainSpec:
        return TrainSpec(
            epochs=1,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            max_tokens=self.max_tokens,
            precision=self.precision,
            activation_checkpointing=self.activation_checkpointing,
        )


class _Heap(ctypes.Structure):
    """mallinfo2 of glibc (mallinfo(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def allocated_bytes() -> int:
    """What this process has allocated and not given back; 0 where the C library does not say."""
    try:
        asked = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    asked.restype = _Heap
    found = asked()
    return int(found.uordblks) + int(found.hblkhd)


def drawn_texts(trial: Trial, vocabulary: int, longest: int) -> Encoded:
    """Texts of evenly spread lengths, the longest among them; the ids are frequent words in the way of Zipf's law."""
    random = numpy_generator(0, "bootstrap")
    count = trial.steps * trial.batch_size
    shortest = max(4, round(SHORTEST_SHARE * longest))
    lengths_n = np.linspace(shortest, longest, count).round().astype(int)
    first = min(1000, vocabulary // 4)
    span = max(2, min(COMMON_WORDS, vocabulary - first))
    rows = [tuple((first + (random.zipf(1.3, size=length) - 1) % span).tolist()) for length in lengths_n]
    return Encoded(tuple(rows), 0)


class _Watch:
    """Listens to the loop: seconds, positions and lasting allocations of each step."""

    def __init__(self, meter: Meter, passes: list[list[Pass]]) -> None:
        self._meter, self._passes = meter, passes
        self._at = 0.0
        self._seen: set[int] = set()
        self.steps: list[StepSample] = []
        self.allocated: list[int] = []
        self.new: list[int] = []

    def __call__(self, event: Event) -> None:
        self._meter(event)
        if isinstance(event, PhaseStarted):
            self._at = time.perf_counter()
        elif isinstance(event, StepEnded):
            now, place = time.perf_counter(), len(self.steps)
            positions = {one.positions for one in self._passes[place] if not one.in_cpp}
            self.new.append(len(positions - self._seen))
            self._seen |= positions
            self.steps.append(
                StepSample(
                    seconds=now - self._at,
                    positions=sum(one.positions for one in self._passes[place]),
                    pairs=sum(one.pairs for one in self._passes[place]),
                    new_width=self.new[-1] > 0,
                )
            )
            self.allocated.append(allocated_bytes())
            self._at = time.perf_counter()

    @property
    def growth(self) -> tuple[int, int]:
        """Bytes that steps after the first left allocated, and how many new widths they had."""
        if len(self.allocated) < 2:
            return 0, 0
        return max(0, self.allocated[-1] - self.allocated[0]), sum(self.new[1:])


def perform(trial: Trial) -> Sample:
    """Do a trial in this process.

    Raises:
        MemoryError, RuntimeError: memory does not suffice.
        RunError: the method trains no model.
    """
    began = time.perf_counter()
    make_repeatable(0, usable_cores())
    meter = Meter()
    method = make_method(trial.kind, trial.settings)
    if not isinstance(method, Adaptation):
        raise RunError(f"{trial.kind} trains no model: there is nothing to measure")
    precision = chosen_precision(trial.precision)
    started = time.perf_counter()
    tokenizer = read_tokenizer(trial.model)
    tokenizer_seconds = time.perf_counter() - started
    encode_seconds = _encode_seconds(tokenizer, drawn_texts(trial, len(tokenizer), trial.max_tokens))
    del tokenizer
    return_free_memory()
    tokenizer_bytes = resident_bytes()
    with _phase(meter, "load"):
        model = EncoderClassifier(load_encoder(trial.model), trial.classes, trial.settled_pooling)
        method.attach(model, torch_generator(0, "init"))
    counted = census(model)
    way = way_of(counted, precision)
    longest = longest_of(trial, plain_encoder(model.encoder))
    encoded = drawn_texts(trial, counted.words, longest)
    watch, before, over = _trained(trial, model, method, encoded, precision, meter, way)
    evaluated = pass_of([longest] * EVALUATION_ROWS, way)
    with _phase(meter, "eval"):
        rows = Encoded(encoded.ids[-1:] * (EVALUATION_ROWS * EVALUATION_BATCHES), encoded.pad_id)
        predict(model, _task(trial.classes), rows, precision)
    with _phase(meter, "save"), tempfile.TemporaryDirectory() as folder:
        saved = method.save(model, Path(folder))
    growth, growth_widths = watch.growth
    position, pair = kept_of_a_block(model, counted, longest, precision)
    active = len({one for row in encoded.ids for one in row})
    return Sample.model_validate(
        {
            **sample_counts(counted, active, precision, in_cpp=way == "tokens"),
            "kind": trial.kind,
            "imports_bytes": meter.memory_after_imports_bytes,
            "tokenizer_bytes": tokenizer_bytes,
            "peak_bytes": meter.cost("step").peak_memory_bytes,
            "evaluation_peak_bytes": meter.cost("eval").peak_memory_bytes,
            "growth_bytes": growth,
            "growth_widths": growth_widths,
            "capped_over_before_bytes": max(0, before),
            "capped_over_bytes": max(0, over),
            "widths": sum(watch.new),
            "saved_position_bytes": position,
            "saved_pair_bytes": pair,
            "steps": watch.steps,
            "evaluation_seconds": meter.cost("eval").seconds,
            "evaluation_batches": EVALUATION_BATCHES,
            "evaluation_positions": evaluated.positions,
            "evaluation_pairs": evaluated.pairs,
            "start_seconds": started - began,
            "tokenizer_seconds": tokenizer_seconds,
            "encode_seconds_per_token": encode_seconds,
            "load_seconds": meter.cost("load").seconds,
            "save_seconds": meter.cost("save").seconds,
            "save_bytes": saved,
        }
    )


@contextmanager
def _phase(meter: Meter, name: Phase) -> Generator[None]:
    meter(PhaseStarted(name))
    yield
    meter(PhaseEnded(name))


def _task(classes: int) -> Task:
    return TASKS.load("classification")(tuple(str(place) for place in range(classes)))


def _trained(
    trial: Trial,
    model: EncoderClassifier,
    method: Adaptation,
    encoded: Encoded,
    precision: Format,
    meter: Meter,
    way: Way,
) -> tuple[_Watch, int, int]:
    """Train; what was seen of the steps, and by how much more a cap counts than is resident, before and after."""
    Witness(model, encoded, precision)
    batches = planned_batches(encoded, trial.training, seed=0)
    watch = _Watch(meter, [step_passes(encoded, batch, trial.training, way) for batch in batches])
    targets_n = torch.arange(len(encoded)) % trial.classes
    before = used_bytes() - resident_bytes()
    train(model, method, _task(trial.classes), encoded, targets_n, trial.training, LOW_RATE, 0, watch)
    return watch, before, used_bytes() - resident_bytes()


def _encode_seconds(tokenizer: BaseTokenizer, encoded: Encoded) -> float:
    """Seconds for each token of texts that look like the drawn ones."""
    texts = [tokenizer.decode(row) for row in encoded.ids[-EVALUATION_ROWS:]]
    began = time.perf_counter()
    tokens = int(encode(tokenizer, texts, 512).lengths_n.sum())
    return (time.perf_counter() - began) / max(1, tokens)


def longest_of(trial: Trial, encoder: PreTrainedModel) -> int:
    """Tokens of a trial's longest text: no more than the model has positions for."""
    return min(trial.max_tokens, usable_positions(encoder) or trial.max_tokens)


def kept_of_a_block(model: EncoderClassifier, counted: Census, longest: int, precision: Format) -> tuple[float, float]:
    """Bytes that backward keeps of one block: a position, and a pair of positions; seen at three shapes.

    Where no gradient goes into the encoder, what the formula says. Each storage counts once, parameters not at all.
    """
    if not counted.encoder_learns:
        expected = block_bytes(counted, precision)
        return expected.position, expected.pair
    half = max(4, longest // 2)
    shapes = [(2, max(longest, half + 4)), (2, half), (1, half)]
    rows, seen = [], []
    model.train()
    with fast_path(model, precision):
        for texts, width in shapes:
            ids_bt = torch.ones((texts, width), dtype=torch.long)
            seen.append(_kept(model, lambda ids=ids_bt: _pass(model, ids, precision)))
            one = pass_of([width] * texts, way_of(counted, precision))
            rows.append([one.positions, one.pairs, 1.0])
    position, pair, _ = np.linalg.solve(np.array(rows, dtype=float), np.array(seen, dtype=float))
    blocks = counted.arithmetic.passed_blocks
    return max(0.0, float(position) / blocks), max(0.0, float(pair) / blocks)


def _pass(model: EncoderClassifier, ids_bt: torch.Tensor, precision: Format) -> torch.Tensor:
    with autocast(precision):
        return model.pooled(ids_bt, torch.ones_like(ids_bt))


def _kept(model: EncoderClassifier, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of the distinct storages that a forward pass saves for backward."""
    own = {one.untyped_storage().data_ptr() for one in model.parameters()}
    found: dict[int, int] = {}
    held: list[torch.Tensor] = []  # so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            held.append(tensor.detach())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(found.values())
