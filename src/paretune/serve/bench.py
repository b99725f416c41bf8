"""Measures the engine alone, without HTTP: what mixing adapters, swapping them and loading them again and again costs.

Every figure is a ratio of two things that were measured in turn (A B A B …) in one process; its parts are medians. Not
here: the served path (`bench_http.py`), other libraries (`benchmarks/peer_mixed.py`).

    shop = Shop(write_synthetic(Path("/tmp/bench"), spec, adapters=16)); mixed_ratio(shop, spec, texts)
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from paretune.core.errors import RunError, said
from paretune.models.sources import ModelSpec
from paretune.serve.bundle import Bundle, read_bundle
from paretune.serve.engine import Engine, Row

TEXTS_PER_REQUEST = 8
BATCH_TOKENS = 4096  # what the scheduler gives the engine at most
WARM_CYCLES = 50
Wanted = Literal["auto", "bf16", "fp32"]


class Shop:
    """Bundles in folders, by digest, as a registry keeps them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._paths = {read_bundle(folder).digest: folder for folder in folders}
        self.digests = list(self._paths)

    def fetch(self, digest: str) -> Bundle:
        """Read and check a bundle, as a swap does."""
        return read_bundle(self._paths[digest])


@dataclass(frozen=True)
class Rates:
    """Tokens a second of each way, in the order in which the rounds were measured."""

    tokens_per_second: Mapping[str, list[float]]

    def median(self, way: str) -> float:
        """The way's median over the rounds."""
        return statistics.median(self.tokens_per_second[way])

    def ratio(self, way: str, to: str) -> float:
        """Median of the rounds' own ratios, so that a slow spell of the machine stands in both parts."""
        pairs = zip(self.tokens_per_second[way], self.tokens_per_second[to], strict=True)
        return statistics.median(one / other for one, other in pairs)


def in_turn(ways: Mapping[str, Callable[[], int]], rounds: int) -> Rates:
    """Run each way once unmeasured, then all in turn; a way returns how many tokens it handled."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for run in ways.values():
        run()
    for _ in range(rounds):
        for way, run in ways.items():
            began = time.perf_counter()
            tokens = run()
            found[way].append(tokens / (time.perf_counter() - began))
    return Rates(found)


def batches(rows: Sequence[Row], most_tokens: int = BATCH_TOKENS) -> list[list[Row]]:
    """Rows in their order, in batches of at most so many tokens."""
    found: list[list[Row]] = [[]]
    tokens = 0
    for row in rows:
        if found[-1] and tokens + len(row.input_ids) > most_tokens:
            found.append([])
            tokens = 0
        found[-1].append(row)
        tokens += len(row.input_ids)
    return found


def answer_all(engine: Engine, rows: Sequence[Row]) -> int:
    """Answer rows in batches; how many tokens they had.

    Raises:
        RunError: a row was not answered.
    """
    for batch in batches(rows):
        for outcome in engine.run(batch):
            if isinstance(outcome, Exception):
                raise RunError(said(f"a row failed: {outcome}", "an answer")) from outcome
    return sum(len(row.input_ids) for row in rows)


def rows_over(engine: Engine, digests: Sequence[str], texts: Sequence[str]) -> list[Row]:
    """Texts in turn, adapters in turn from text to text."""
    ids = engine.tokens(digests[0], texts)
    return [Row(digests[place % len(digests)], one) for place, one in enumerate(ids)]


def mixed_rates(
    shop: Shop, spec: ModelSpec, texts: Sequence[str], precision: Wanted = "auto", rounds: int = 7
) -> Rates:
    """The same texts through one adapter ("one", and "one_merged": its weights merged) and through all ("mixed")."""
    plain = Engine(spec, precision, len(shop.digests), fetch=shop.fetch, merge_after=0)
    merging = Engine(spec, precision, 1, fetch=shop.fetch, merge_after=1)
    one, mixed = rows_over(plain, shop.digests[:1], texts), rows_over(plain, shop.digests, texts)
    return in_turn(
        {
            "one": lambda: answer_all(plain, one),
            "mixed": lambda: answer_all(plain, mixed),
            "one_merged": lambda: answer_all(merging, one),
        },
        rounds,
    )


def cliff_rates(
    shop: Shop, spec: ModelSpec, texts: Sequence[str], slots: int = 16, precision: Wanted = "auto", rounds: int = 5
) -> tuple[Rates, dict[str, int]]:
    """As many adapters as slots ("fits"), then all of the shop ("all"), drawn at random; and the swaps of each way."""
    engines = {way: Engine(spec, precision, slots, fetch=shop.fetch, merge_after=0) for way in ("fits", "all")}
    draw = random.Random(0)
    ids = engines["fits"].tokens(shop.digests[0], texts)
    rows = {
        way: [Row(draw.choice(digests), one) for one in ids]
        for way, digests in (("fits", shop.digests[:slots]), ("all", shop.digests))
    }
    rates = in_turn({way: lambda way=way: answer_all(engines[way], rows[way]) for way in engines}, rounds)
    return rates, {way: engine.swaps for way, engine in engines.items()}


def memory_growth(
    shop: Shop, spec: ModelSpec, texts: Sequence[str], cycles: int = 500, precision: Wanted = "auto"
) -> float:
    """Share by which resident memory grew over load (goldens replayed), one request, unload; after a warm-up."""
    engine = Engine(spec, precision, 4, fetch=shop.fetch)
    process = psutil.Process()

    def cycle(number: int) -> None:
        digest = shop.digests[number % len(shop.digests)]
        engine.check(shop.fetch(digest))
        answer_all(engine, rows_over(engine, [digest], texts[:TEXTS_PER_REQUEST]))
        engine.evict(digest)

    for number in range(WARM_CYCLES):
        cycle(number)
    gc.collect()
    before = process.memory_info().rss
    for number in range(cycles):
        cycle(number)
    gc.collect()
    return process.memory_info().rss / before - 1.0
