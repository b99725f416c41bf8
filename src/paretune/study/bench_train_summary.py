"""From the processes' figures to the bench's line: medians of pairs, and ratios.

Not here: measuring (`bench_train.py`). A pair is one process of each side, one after the other; a ratio is the median
of the pairs' own, so that a slow spell of the machine stands in both parts. Memory is compared above the process's size
after its imports, and printed whole beside it.

    summary(pairs, counted, stock_full)["ratio"]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paretune.core.config import JsonObject
from paretune.core.units import size_text
from paretune.measure.flops import Arithmetic
from paretune.measure.speed import Sample


@dataclass(frozen=True)
class Pair:
    """One turn: ours with the ceilings measured right before and after it, FLOP a second, then the peer's settings."""

    ours: Sample
    ceilings: tuple[float, float]
    peer: dict[str, Sample]

    @property
    def ceiling(self) -> float:
        """The higher of both: what else the machine did in one of them must not make ours look better."""
        return max(self.ceilings)

    def roofline_fraction(self, counted: Arithmetic) -> float:
        """Useful FLOP a second of ours over the ceiling."""
        return counted.useful_flops(self.ours.tokens, self.ours.squares) / self.ours.seconds / self.ceiling


def median_of(pairs: Sequence[Pair], figure: Callable[[Pair], float]) -> float:
    """The median over the pairs."""
    return statistics.median(figure(pair) for pair in pairs)


def best_setting(pairs: Sequence[Pair]) -> str | None:
    """The peer's setting that makes most tokens a second; None where there was no peer."""
    settings = list(pairs[0].peer)
    if not settings:
        return None
    return max(settings, key=lambda one: median_of(pairs, lambda pair: pair.peer[one].tokens_per_second))


def summary(pairs: Sequence[Pair], counted: Arithmetic, stock_full: Sample | None) -> JsonObject:
    """Figures of the bench's line; those of a peer that was not there are None.

    `stock_full` is full fine-tuning with the peer's defaults, which low-rank updates are compared with in memory.
    """
    best = best_setting(pairs)
    ours = _side(pairs, lambda pair: pair.ours)
    defaults = _side(pairs, lambda pair: pair.peer["defaults"]) if best else dict.fromkeys(ours)
    best_side = _side(pairs, lambda pair: pair.peer[best]) if best else dict.fromkeys(ours)
    above = ours["peak_above_imports_bytes"]
    return {
        "ratio": _speed_ratio(pairs, "defaults") if best else None,
        "ratio_best_peer": _speed_ratio(pairs, best) if best else None,
        "roofline_fraction": median_of(pairs, lambda pair: pair.roofline_fraction(counted)),
        "ours_tokens_per_second": ours["tokens_per_second"],
        "peer_tokens_per_second": defaults["tokens_per_second"],
        "ours_peak_memory_bytes": ours["peak_memory_bytes"],
        "peer_peak_memory_bytes": defaults["peak_memory_bytes"],
        "memory_ratio": _memory_ratio(pairs, "defaults") if best else None,
        "memory_ratio_best_peer": _memory_ratio(pairs, best) if best else None,
        "memory_ratio_stock_full": above / stock_full.peak_above_imports_bytes if stock_full else None,
        "best_peer": best,
        "best_peer_tokens_per_second": best_side["tokens_per_second"],
        "best_peer_peak_memory_bytes": best_side["peak_memory_bytes"],
        "stock_full_peak_memory_bytes": stock_full.peak_bytes if stock_full else None,
        "ours_peak_above_imports_bytes": above,
        "peer_peak_above_imports_bytes": defaults["peak_above_imports_bytes"],
        "ours_padding_ratio": ours["padding_ratio"],
        "peer_padding_ratio": defaults["padding_ratio"],
        "ours_largest_batch_tokens": ours["largest_batch_tokens"],
        "peer_largest_batch_tokens": defaults["largest_batch_tokens"],
        "ceiling_flops_per_second": median_of(pairs, lambda pair: pair.ceiling),
        "useful_flops_per_token": median_of(
            pairs, lambda pair: counted.useful_flops(pair.ours.tokens, pair.ours.squares) / pair.ours.tokens
        ),
        "precision": pairs[0].ours.precision,
        "own_pass": pairs[0].ours.own_pass,
        "pairs": len(pairs),
    }


def _side(pairs: Sequence[Pair], sample: Callable[[Pair], Sample]) -> dict[str, float]:
    figures: dict[str, Callable[[Sample], float]] = {
        "tokens_per_second": lambda one: one.tokens_per_second,
        "peak_memory_bytes": lambda one: one.peak_bytes,
        "peak_above_imports_bytes": lambda one: one.peak_above_imports_bytes,
        "padding_ratio": lambda one: one.padded_tokens / one.tokens,
        "largest_batch_tokens": lambda one: one.largest_batch_tokens,
    }
    return {name: median_of(pairs, lambda pair, of=of: of(sample(pair))) for name, of in figures.items()}


def _speed_ratio(pairs: Sequence[Pair], setting: str) -> float:
    return median_of(pairs, lambda pair: pair.ours.tokens_per_second / pair.peer[setting].tokens_per_second)


def _memory_ratio(pairs: Sequence[Pair], setting: str) -> float:
    return median_of(
        pairs, lambda pair: pair.ours.peak_above_imports_bytes / pair.peer[setting].peak_above_imports_bytes
    )


def report_lines(found: JsonObject) -> list[str]:
    """The figures for a terminal."""

    def number(name: str, form: str = ".3g") -> str:
        value = found[name]
        return "not measured" if value is None else format(value, form)

    def gigabytes(name: str) -> str:
        return "not measured" if found[name] is None else size_text(found[name])

    best = f" ({found['best_peer']})" if found["best_peer"] else ""
    return [
        f"{found['model']}, {found['method']}, {found['data']}: batches of {found['batch_size']}, at most "
        f"{found['max_tokens']} tokens, {found['pairs']} pairs of {found['seconds']:g} s",
        f"{'tokens a second':28} {number('ours_tokens_per_second', '.0f')} ours, "
        f"{number('peer_tokens_per_second', '.0f')} peer, {number('best_peer_tokens_per_second', '.0f')} peer at best",
        f"{'times the peer':28} {number('ratio')}; its best{best} {number('ratio_best_peer')}",
        f"{'roofline fraction':28} {number('roofline_fraction')} of {found['ceiling_flops_per_second'] / 1e9:.0f} "
        f"GFLOP/s ({found['precision']}, {'own kernels' if found['own_pass'] else 'plain modules'})",
        f"{'peak memory':28} {gigabytes('ours_peak_memory_bytes')} ours, {gigabytes('peer_peak_memory_bytes')} peer, "
        f"{gigabytes('stock_full_peak_memory_bytes')} peer's full fine-tuning",
        f"{'memory above imports':28} {number('memory_ratio')} of the peer's, "
        f"{number('memory_ratio_stock_full')} of its full fine-tuning",
        f"{'positions ÷ tokens':28} {number('ours_padding_ratio')} ours, {number('peer_padding_ratio')} peer",
    ]
