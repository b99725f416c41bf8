"""Drawing rows by hash: shares of classes, independence of row order, no leaks.

PYTHONPATH=src python -m pytest tests/unit/test_splits.py
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from paretune.data.sources import Rows
from paretune.data.splits import draw_order, quotas, set_aside, subset

COUNTS = st.dictionaries(st.text("abcdef", min_size=1), st.integers(1, 200), min_size=1)


def rows(*pairs: tuple[str, str]) -> Rows:
    return Rows(tuple(str(i) for i in range(len(pairs))), tuple(t for t, _ in pairs), tuple(la for _, la in pairs))


MANY = rows(*((f"text number {i}", "rare" if i % 10 == 0 else "common") for i in range(200)))


def test_quotas_keep_the_shares() -> None:
    """Shares that come out whole are kept exactly, and the largest remainders get what is left over."""
    assert quotas({"a": 90, "b": 10}, 20) == {"a": 18, "b": 2}
    assert quotas({"a": 47, "b": 16, "c": 37}, 10) == {"a": 5, "b": 1, "c": 4}


def test_rare_classes_get_one_row() -> None:
    """A class whose share rounds to nothing still gets a row, as long as there are rows enough for all classes."""
    assert quotas({"a": 1000, "b": 1, "c": 2}, 10) == {"a": 8, "b": 1, "c": 1}
    assert sum(quotas({"a": 1000, "b": 1, "c": 2}, 2).values()) == 2


@given(COUNTS, st.integers(0, 500))
def test_quotas_add_up_and_never_exceed_a_class(counts: dict[str, int], wanted: int) -> None:
    """The quotas sum to what was wanted or is there, no class gives more than it has, and each gives where possible."""
    given_rows = quotas(counts, wanted)
    assert sum(given_rows.values()) == min(wanted, sum(counts.values()))
    assert all(0 <= given_rows[name] <= counts[name] for name in counts)
    assert wanted < len(counts) or min(given_rows.values()) >= 1


@given(COUNTS, st.integers(0, 500))
def test_caps_leave_a_row_of_each_class_behind(counts: dict[str, int], wanted: int) -> None:
    """With caps one under the counts, a class of one row gives none."""
    caps = {name: count - 1 for name, count in counts.items()}
    given_rows = quotas(counts, wanted, caps)
    assert sum(given_rows.values()) == min(wanted, sum(caps.values()))
    assert all(given_rows[name] < counts[name] for name in counts)


def test_a_subset_is_stratified_and_the_same_for_every_row_order() -> None:
    """Reversing the file changes nothing about which texts are chosen; another seed does."""
    wanted = quotas(Counter(MANY.labels), 50)
    chosen = MANY.take(subset(MANY, wanted, 0, "train_rows"))
    backwards = MANY.take(reversed(range(len(MANY))))
    again = backwards.take(subset(backwards, wanted, 0, "train_rows"))
    assert Counter(chosen.labels) == {"common": 45, "rare": 5}
    assert set(chosen.texts) == set(again.texts)
    assert set(chosen.texts) != set(MANY.take(subset(MANY, wanted, 1, "train_rows")).texts)


def test_a_larger_subset_contains_the_smaller() -> None:
    """Asking for more rows adds rows and takes none away, so studies of several sizes share their data."""
    small, large = (subset(MANY, quotas(Counter(MANY.labels), size), 0, "train_rows") for size in (30, 60))
    assert set(small) < set(large)


def test_the_purpose_changes_the_order() -> None:
    """The rows first chosen for training are not for that reason the first chosen for validation."""
    assert draw_order(MANY, 0, "train_rows") != draw_order(MANY, 0, "validation")


def test_clusters_are_set_aside_whole() -> None:
    """No cluster is torn, no quota is exceeded, and single rows fill what larger clusters leave."""
    clusters = [[i, i + 1, i + 2] for i in range(0, 90, 3)] + [[i] for i in range(90, 200)]
    wanted = quotas(Counter(MANY.labels), 40)
    chosen = set(set_aside(MANY, clusters, wanted, 0, "validation"))
    assert all(len(chosen & set(cluster)) in (0, len(cluster)) for cluster in clusters)
    assert Counter(MANY.labels[i] for i in chosen) == wanted
    assert any(len(cluster) > 1 and cluster[0] in chosen for cluster in clusters)


def test_a_cluster_that_is_too_large_stays() -> None:
    """A cluster over the quota is left where it is, and others are taken."""
    clusters = [list(range(150)), *([i] for i in range(150, 200))]
    chosen = set_aside(MANY, clusters, {"common": 20, "rare": 2}, 0, "validation")
    assert len(chosen) == 22 and min(chosen) >= 150
