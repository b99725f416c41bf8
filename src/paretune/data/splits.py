"""Which rows train, validate and test: by hash, by class, and without leaks.

Not here: reading or cleaning. Rows are drawn in the order of a hash of (seed, purpose, text), so the choice depends on
neither the order of rows in a file nor a generator's state, and adding rows moves few of the others. Shares are kept
class by class (largest remainder, Hamilton's method). Groups of duplicates move as one, so no near duplicate ever lies
on both sides of a split.

    quotas({"a": 90, "b": 10}, 20) == {"a": 18, "b": 2}
"""

from __future__ import annotations

import hashlib
from collections import Counter
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

    Clusters are taken in hash order where all of one still fits; one that is too large for what is left stays. A wanted
    class that none of whose clusters fit gives its smallest one nevertheless, where that is at most half of its rows:
    a class that is tested on a few rows too many is better than one that nobody tests.
    """
    cluster_of = {i: number for number, cluster in enumerate(clusters) for i in cluster}
    order = list(dict.fromkeys(cluster_of[i] for i in draw_order(rows, seed, purpose)))
    labels_of = [Counter(rows.labels[i] for i in cluster) for cluster in clusters]
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    for number in order:
        if all(taken[label] + count <= wanted.get(label, 0) for label, count in labels_of[number].items()):
            taken += labels_of[number]
            chosen.append(number)
    total = Counter(rows.labels)
    for label in sorted(wanted):
        if wanted[label] == 0 or taken[label]:
            continue
        fitting = [
            number
            for number in order
            if labels_of[number][label]
            and all(2 * (taken[one] + count) <= total[one] for one, count in labels_of[number].items())
        ]
        if fitting:
            smallest = min(fitting, key=lambda number: len(clusters[number]))
            taken += labels_of[smallest]
            chosen.append(smallest)
    return sorted(i for number in chosen for i in clusters[number])
