"""Which rows train, validate and test: by hash, by class, and without leaks.

Not here: reading or cleaning. Rows are drawn in the order of a hash of (seed, purpose, text), so the choice depends on
neither the order of rows in a file nor a generator's state, and adding rows moves few of the others. Shares are kept
class by class (largest remainder, Hamilton's method). Groups of duplicates move as one, so no near duplicate ever lies
on both sides of a split.

    quotas({"a": 90, "b": 10}, 20) == {"a": 18, "b": 2}
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from paretune.data.cleaning import text_key
from paretune.data.sources import Rows


def draw_order(rows: Rows, seed: int, purpose: str) -> list[int]:
    """Positions of the rows in the order of their hash."""

    def key(i: int) -> tuple[str, str]:
        drawn = hashlib.sha256(f"{seed}|{purpose}|{text_key(rows.texts[i])}".encode()).hexdigest()
        return drawn, rows.labels[i]  # one text may stand there with several labels

    return sorted(range(len(rows)), key=key)


def quotas(counts: Mapping[str, int], rows: int, caps: Mapping[str, int] | None = None) -> dict[str, int]:
    """How many of `rows` each class gives: in proportion to `counts`, each at least 1 where `rows` allows it.

    No class gives more than its cap (its count by default); `rows` beyond the sum of the caps are not given.
    """
    limit = {name: min(counts[name], caps[name]) if caps is not None else counts[name] for name in counts}
    rows = min(rows, sum(limit.values()))
    total = sum(counts.values())
    open_classes = sum(limit[name] > 0 for name in counts)
    least = {name: min(limit[name], 1 if rows >= open_classes else 0) for name in counts}
    ideal = {name: rows * counts[name] / total for name in counts}
    given = {name: min(limit[name], max(least[name], int(ideal[name]))) for name in counts}
    while (missing := rows - sum(given.values())) != 0:
        sign = 1 if missing > 0 else -1
        movable = [name for name in counts if (given[name] < limit[name] if sign > 0 else given[name] > least[name])]
        furthest = max(sorted(movable), key=lambda name: sign * (ideal[name] - given[name]))
        given[furthest] += sign
    return given


def subset(rows: Rows, wanted: Mapping[str, int], seed: int, purpose: str) -> list[int]:
    """Positions, in row order, of the first `wanted` rows of each class in hash order."""
    left = dict(wanted)
    chosen: list[int] = []
    for i in draw_order(rows, seed, purpose):
        if left.get(rows.labels[i], 0) > 0:
            left[rows.labels[i]] -= 1
            chosen.append(i)
    return sorted(chosen)


def set_aside(
    rows: Rows, clusters: Sequence[Sequence[int]], wanted: Mapping[str, int], seed: int, purpose: str
) -> list[int]:
    """Positions, in row order, of whole clusters that together give at most `wanted` rows of each class.

    Clusters are taken in hash order where all of one still fits; one that is too large for what is left stays.
    """
    cluster_of = {i: number for number, cluster in enumerate(clusters) for i in cluster}
    left: defaultdict[str, int] = defaultdict(int, wanted)
    seen: set[int] = set()
    chosen: list[int] = []
    for i in draw_order(rows, seed, purpose):
        number = cluster_of[i]
        if number in seen:
            continue
        seen.add(number)
        needed = Counter(rows.labels[j] for j in clusters[number])
        if all(left[label] >= count for label, count in needed.items()):
            for label, count in needed.items():
                left[label] -= count
            chosen.extend(clusters[number])
    return sorted(chosen)
