"""What is wrong with rows: empty texts, missing labels, exact and near duplicates; dropped or marked, always counted.

Not here: which rows train and which test (`splits.py`). Step names of the records, with what happens to their rows:

    empty_text, missing_label   dropped, in every split; a text of invisible characters alone is empty
    exact_duplicate             training: all but one dropped; test: marked
    conflicting_label           marked: the same text stands in training with different labels
    near_duplicate              training: marked (a pair never lies on both sides of a split)
    exact_in_train, near_in_train   test: marked (the text, or nearly the text, is trained or validated on)
    test_split, validation_split, subset   chosen by `splits.py`

Two texts are exact duplicates when they are equal after NFKC, case folding and joining of white space; near duplicates
when the sets of their character 5-grams have a Jaccard similarity of at least 0.8. Candidates come from MinHash with
locality-sensitive hashing (Broder 1997; datasketch, 12 bands of 5: finds 99 % of pairs at 0.8, more above) and each is
then checked exactly, so a pair may be missed but is never invented.

    NearIndex(["a long enough text", "another one"]).matches("a long enough text.") == [0]
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from paretune.core.text import is_blank
from paretune.data.sources import Rows
from paretune.records.exploration import CleaningStep

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE_CHARACTERS = 5
NEAR_JACCARD = 0.8
BANDS, BAND_ROWS = 12, 5
IDS_SHOWN = 5


def normalised(text: str) -> str:
    """The form in which texts are compared: NFKC, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(text: str) -> str:
    """SHA-256 (hex) of the normalised text: what splits are drawn by."""
    return hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass")).hexdigest()


def step(name: str, split: str, rows_in: int, rows_out: int, ids: Sequence[str], *, dropped: bool) -> CleaningStep:
    """The record of one step; `ids` are the rows that it dropped or marked, of which a few are shown."""
    marked = 0 if dropped else len(ids)
    return CleaningStep(
        step=name, split=split, rows_in=rows_in, rows_out=rows_out, marked=marked, example_ids=list(ids[:IDS_SHOWN])
    )


def drop_unusable(rows: Rows, split: str) -> tuple[Rows, list[CleaningStep]]:
    """Drop rows without text, then rows without label."""
    rows, empty = _dropped(rows, split, "empty_text", lambda text, _: is_blank(text))
    rows, unlabelled = _dropped(rows, split, "missing_label", lambda _, label: not label)
    return rows, [empty, unlabelled]


def _dropped(rows: Rows, split: str, name: str, wrong: Callable[[str, str], bool]) -> tuple[Rows, CleaningStep]:
    out = [i for i in range(len(rows)) if wrong(rows.texts[i], rows.labels[i])]
    gone = set(out)
    kept = rows.take(i for i in range(len(rows)) if i not in gone)
    return kept, step(name, split, len(rows), len(kept), [rows.ids[i] for i in out], dropped=True)


def drop_exact_duplicates(rows: Rows, split: str) -> tuple[Rows, list[CleaningStep]]:
    """Keep one row of each (text, label); mark texts that stand there with several labels.

    Which of several spellings stays does not depend on the order of rows.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)
    for i, (text, label) in enumerate(zip(rows.texts, rows.labels, strict=True)):
        key = normalised(text)
        groups[key, label].append(i)
        labels[key].add(label)
    keep = {min(group, key=lambda i: (rows.texts[i], i)) for group in groups.values()}
    kept = rows.take(i for i in range(len(rows)) if i in keep)
    gone = [rows.ids[i] for i in range(len(rows)) if i not in keep]
    torn = [kept.ids[i] for i, text in enumerate(kept.texts) if len(labels[normalised(text)]) > 1]
    return kept, [
        step("exact_duplicate", split, len(rows), len(kept), gone, dropped=True),
        step("conflicting_label", split, len(kept), len(kept), torn, dropped=False),
    ]


def mark_exact_duplicates(rows: Rows, split: str) -> CleaningStep:
    """Mark rows of a test split whose text stands in that split more than once."""
    keys = [normalised(text) for text in rows.texts]
    times = Counter(keys)
    twice = [rows.ids[i] for i, key in enumerate(keys) if times[key] > 1]
    return step("exact_duplicate", split, len(rows), len(rows), twice, dropped=False)


def mark_leaks(rows: Rows, split: str, trained: Rows, index: NearIndex) -> tuple[tuple[bool, ...], list[CleaningStep]]:
    """Mark rows whose text stands, exactly or nearly, among the `trained` rows (which `index` was made of)."""
    known = {normalised(text) for text in trained.texts}
    exact = [normalised(text) in known for text in rows.texts]
    near = [not same and bool(index.matches(text)) for same, text in zip(exact, rows.texts, strict=True)]
    steps: list[CleaningStep] = []
    for name, hits in (("exact_in_train", exact), ("near_in_train", near)):
        marked = [rows.ids[i] for i, hit in enumerate(hits) if hit]
        steps.append(step(name, split, len(rows), len(rows), marked, dropped=False))
    return tuple(a or b for a, b in zip(exact, near, strict=True)), steps


class NearIndex:
    """Finds the texts of a collection that are nearly a given one."""

    def __init__(self, texts: Sequence[str]) -> None:
        from datasketch import MinHashLSH  # with SciPy, a second to import

        self._shingles = [shingles(text) for text in texts]
        self._lsh = MinHashLSH(num_perm=BANDS * BAND_ROWS, params=(BANDS, BAND_ROWS))
        self._signatures = [_signature(one) for one in self._shingles]
        for position, signature in enumerate(self._signatures):
            self._lsh.insert(position, signature, check_duplication=False)

    def matches(self, text: str) -> list[int]:
        """Positions of the texts whose similarity to `text` is at least `NEAR_JACCARD`, in order."""
        own = shingles(text)
        return self._checked(own, _signature(own))

    def clusters(self) -> list[list[int]]:
        """Positions grouped so that near duplicates, and theirs in turn, are together."""
        parent = list(range(len(self._shingles)))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for i, own in enumerate(self._shingles):
            for j in self._checked(own, self._signatures[i], below=i):
                parent[max(root(i), root(j))] = min(root(i), root(j))
        groups: dict[int, list[int]] = defaultdict(list)
        for i in range(len(parent)):
            groups[root(i)].append(i)
        return list(groups.values())

    def _checked(self, own: np.ndarray, signature: MinHash, below: int | None = None) -> list[int]:
        found = sorted(j for j in self._lsh.query(signature) if isinstance(j, int))
        return [j for j in found if (below is None or j < below) and similarity(own, self._shingles[j]) >= NEAR_JACCARD]


def shingles(text: str) -> np.ndarray:
    """Sorted, distinct 64-bit hashes of the character 5-grams of a normalised text; of the text itself if shorter."""
    points = np.frombuffer(normalised(text).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(points) < SHINGLE_CHARACTERS:
        points = np.pad(points, (0, SHINGLE_CHARACTERS - len(points)))
    grams = np.lib.stride_tricks.sliding_window_view(points, SHINGLE_CHARACTERS)
    # A code point has 21 bits and five of them do not fit into 64, so they are mixed by an odd multiplier (Knuth).
    mixed = np.zeros(len(grams), dtype=np.uint64)
    for column in range(SHINGLE_CHARACTERS):
        mixed = (mixed + grams[:, column] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard similarity of two sets given as sorted distinct arrays."""
    if min(len(a), len(b)) < NEAR_JACCARD * max(len(a), len(b)):
        return 0.0  # sizes alone keep it under the threshold
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _signature(shingle_hashes: np.ndarray) -> MinHash:
    from datasketch import MinHash

    low = (shingle_hashes & np.uint64(0xFFFFFFFF)).tolist()
    signature = MinHash(num_perm=BANDS * BAND_ROWS, seed=1, hashfunc=int)
    signature.update_batch(low)
    return signature
