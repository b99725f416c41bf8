"""What a process that trains for a while is asked, how its work is counted, and what it gives back.

Not here: training itself; ours (`study/bench_train_ours.py`) and the other library's (`benchmarks/peer_speed.py`) both
read the job, ask the window after each step whether it was the last, and print a sample as their last line.

    window = Window(seconds=60, warm_steps=3)
    while not window.step(Work(tokens=900, padded=1024, squares=60_000, examples=16)): ...
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paretune.core.config import Settings
from paretune.measure.meter import Meter


class Job(Settings):
    """The same training for every side: all of one data set's rows, one batch size, one rate for AdamW.

    `targets` are class indices. `settings` is for the other library: its defaults, or the best it offers.
    """

    source: str
    pooling: str
    method: Literal["lora", "full"]
    rank: int
    texts: list[str]
    targets: list[int]
    classes: int
    batch_size: int
    max_tokens: int
    learning_rate: float
    seconds: float
    warm_steps: int
    settings: Literal["defaults", "best"] = "defaults"


@dataclass(frozen=True)
class Work:
    """What one step computed: real tokens, positions with padding, and the sum of the texts' squared lengths."""

    tokens: int
    padded: int
    squares: int
    examples: int


class Sample(Settings):
    """One process's figures. Work and seconds are those of the window, which begins after the warm-up.

    `largest_batch_tokens`: positions of the largest batch of all steps, padding included, on which the peak depends.
    `row_tokens`: real tokens of the whole data set, by which the sides are known to have had the same. `own_pass`: of
    ours, whether the model went through our own kernels or through the plain modules.
    """

    tokens: int
    padded_tokens: int
    squares: int
    examples: int
    steps: int
    seconds: float
    largest_batch_tokens: int
    row_tokens: int
    imports_bytes: int
    peak_bytes: int
    precision: str
    trainable_parameters: int
    own_pass: bool | None = None

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, padding not counted."""
        return self.tokens / self.seconds

    @property
    def peak_above_imports_bytes(self) -> int:
        """What loading and training needed on top of the libraries."""
        return self.peak_bytes - self.imports_bytes


class Window:
    """Counts work between the end of the warm-up and the first step that ends after `seconds`."""

    def __init__(self, seconds: float, warm_steps: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._wanted, self._warm, self._clock = seconds, warm_steps, clock
        self._began = self._ended = 0.0
        self._work: list[Work] = []
        self.largest_batch_tokens = self._steps = 0

    def step(self, work: Work) -> bool:
        """Count a step that has just ended; true where the window is full."""
        now = self._clock()
        self._steps += 1
        self.largest_batch_tokens = max(self.largest_batch_tokens, work.padded)
        if self._steps <= self._warm:
            self._began = now
            return False
        self._work.append(work)
        self._ended = now
        return now - self._began >= self._wanted

    def sample(self, meter: Meter, row_tokens: int, precision: str, trainable_parameters: int) -> Sample:
        """The figures; the process's peak is that of the meter's highest phase."""
        return Sample(
            tokens=sum(one.tokens for one in self._work),
            padded_tokens=sum(one.padded for one in self._work),
            squares=sum(one.squares for one in self._work),
            examples=sum(one.examples for one in self._work),
            steps=len(self._work),
            seconds=self._ended - self._began,
            largest_batch_tokens=self.largest_batch_tokens,
            row_tokens=row_tokens,
            imports_bytes=meter.memory_after_imports_bytes,
            peak_bytes=max(cost.peak_memory_bytes for cost in meter.costs()),
            precision=precision,
            trainable_parameters=trainable_parameters,
        )


def serve_job(run: Callable[[Job, Meter], Sample]) -> None:
    """The body of such a process, after its own imports; its arguments are the base model's type and the job's file."""
    kind, file = sys.argv[1:]
    module = kind.replace("-", "_")
    importlib.import_module(f"transformers.models.{module}.modeling_{module}")  # else loading would import it
    meter = Meter()
    job = Job.model_validate_json(Path(file).read_text(encoding="utf-8"))
    print(run(job, meter).model_dump_json())
