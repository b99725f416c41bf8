"""Domains and ticks of the figures' axes, chosen here so that positions in pixels are known when a figure is made.

Not here: drawing. One far-off value does not squeeze all others: it is left outside and drawn at the edge.

    nice_ticks(0.0, 1.0, 4) == [0.0, 0.5, 1.0]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

FAR = 2.5  # a value further from the others than this many of their spans is left outside
BEYOND = 0.012  # an axis ends so far beyond the metric's own bounds, as a share of their distance, for the marks there
LOG_RATIO = 8.0  # costs that differ by more than this factor get a logarithmic axis


def core(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value, without low ones that lie far below all others."""
    ordered = sorted(values)
    while len(ordered) > 2 and ordered[1] - ordered[0] > FAR * max(ordered[-1] - ordered[1], 0.02 * abs(ordered[-1])):
        ordered = ordered[1:]
    return ordered[0], ordered[-1]


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """A domain a little wider than its values; never empty."""
    room = (high - low) * share or max(abs(high) * 0.05, 0.01)
    return low - room, high + room


def within(low: float, high: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """A domain cut to what there can be: a metric's bounds and a little room; bounds may be infinite."""
    lowest, highest = bounds
    room = BEYOND * (highest - lowest) if math.isfinite(highest - lowest) else 0.0
    return max(low, lowest - room), min(high, highest + room)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers inside a domain, about so many."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step = min((step * factor for factor in (1, 2, 5, 10)), key=lambda one: abs((high - low) / one - about))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2, 5 of each decade inside a domain, thinned to the decades, and those thinned until they are few enough."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [
            factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high
        ]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_labels(ticks: Sequence[float], form: Callable[[float], str]) -> str:
    """A Vega expression that writes each tick as `form` does; a nested choice, which needs no eval."""
    expression = "''"
    for tick in ticks:
        text = form(tick).replace("\\", "").replace("'", "’")
        expression = f"abs(datum.value - {tick!r}) <= {abs(tick) * 1e-6!r} ? '{text}' : {expression}"
    return expression


def position(value: float, low: float, high: float, log: bool) -> float:
    """Where a value lies between the ends of a domain, as a share of its length."""
    if log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)
