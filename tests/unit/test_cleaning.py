"""Dropping and marking rows, and finding near duplicates.

PYTHONPATH=src python -m pytest tests/unit/test_cleaning.py
"""

from __future__ import annotations

import random
import string

import pytest

from paretune.data.cleaning import (
    NEAR_JACCARD,
    NearIndex,
    drop_exact_duplicates,
    drop_unusable,
    mark_exact_duplicates,
    mark_leaks,
    normalised,
    shingles,
    similarity,
)
from paretune.data.sources import Rows


def rows(*pairs: tuple[str, str]) -> Rows:
    return Rows(
        tuple(f"r{i}" for i in range(1, len(pairs) + 1)), tuple(text for text, _ in pairs), tuple(la for _, la in pairs)
    )


def random_text(draw: random.Random, length: int) -> str:
    return "".join(draw.choice(string.ascii_lowercase + " ") for _ in range(length))


def jaccard(a: str, b: str) -> float:
    """The plain definition, on sets of strings."""
    left, right = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (normalised(a), normalised(b)))
    return len(left & right) / len(left | right)


@pytest.mark.parametrize(
    ("a", "b"), [("Straße  1", "STRASSE 1"), ("ﬁne", "fine"), (" a\tb\n", "A B"), ("Ёлка", "ёлка")]
)
def test_spellings_of_one_text_are_equal(a: str, b: str) -> None:
    """Case, compatibility forms and white space do not make another text."""
    assert normalised(a) == normalised(b)


def test_empty_texts_and_missing_labels_are_dropped_and_counted() -> None:
    """Each reason has a step with rows in, rows out and the ids that went."""
    kept, steps = drop_unusable(rows(("a", "x"), (" \n", "x"), ("b", ""), ("", "")), "train")
    assert kept.ids == ("r1",)
    assert [(one.step, one.rows_in, one.rows_out, one.example_ids) for one in steps] == [
        ("empty_text", 4, 2, ["r2", "r4"]),
        ("missing_label", 2, 1, ["r3"]),
    ]


def test_a_text_of_invisible_characters_alone_is_no_text() -> None:
    """Zero-width, control and filler characters count as empty; one visible sign among them makes a text."""
    blank = [("\u200b\ufeff", "x"), ("\x00\x07", "x"), ("\u00a0\u3164\u2800", "x"), ("\u200b.", "x")]
    kept, steps = drop_unusable(rows(*blank), "train")
    assert kept.ids == ("r4",)
    assert (steps[0].step, steps[0].rows_in, steps[0].rows_out) == ("empty_text", 4, 1)


def test_one_row_of_each_text_and_label_stays() -> None:
    """Repeats of a text with one label are dropped; a text with two labels stays twice and is marked."""
    kept, steps = drop_exact_duplicates(rows(("Same", "x"), ("same ", "x"), ("same", "y"), ("other", "y")), "train")
    assert kept.ids == ("r1", "r3", "r4")
    assert [(one.step, one.rows_out, one.marked, one.example_ids) for one in steps] == [
        ("exact_duplicate", 3, 0, ["r2"]),
        ("conflicting_label", 3, 2, ["r1", "r3"]),
    ]


def test_which_spelling_stays_does_not_depend_on_the_order() -> None:
    """The same text is kept from either order of the rows."""
    pairs = [("same text", "x"), ("Same text", "x"), ("SAME TEXT", "x")]
    assert drop_exact_duplicates(rows(*pairs), "train")[0].texts == ("SAME TEXT",)
    assert drop_exact_duplicates(rows(*reversed(pairs)), "train")[0].texts == ("SAME TEXT",)


def test_duplicates_of_a_test_split_are_only_marked() -> None:
    """Test rows are never dropped for being repeated."""
    one = mark_exact_duplicates(rows(("a", "x"), ("A", "x"), ("b", "x")), "test")
    assert (one.rows_in, one.rows_out, one.marked) == (3, 3, 2)


def test_similarity_is_the_jaccard_index_of_five_grams() -> None:
    """Hashed, vectorised shingles give the figure of the plain definition wherever it can reach the threshold."""
    draw = random.Random(0)
    for _ in range(50):
        a = random_text(draw, 200)
        b = a[:100] + random_text(draw, draw.randrange(1, 20)) + a[100:]
        assert similarity(shingles(a), shingles(b)) == pytest.approx(jaccard(a, b))


def test_near_duplicates_are_found_and_others_are_not() -> None:
    """Of 300 texts with 300 changed copies, at least 99 % of copies over the threshold are found and none under it."""
    draw = random.Random(1)
    texts = [random_text(draw, 300) for _ in range(300)]
    copies = [text[: -draw.randrange(1, 90)] + random_text(draw, draw.randrange(0, 20)) for text in texts]
    index = NearIndex(texts)
    over = [jaccard(text, copy) >= NEAR_JACCARD for text, copy in zip(texts, copies, strict=True)]
    found = [index.matches(copy) == [i] for i, copy in enumerate(copies)]
    assert 50 < sum(over) < 250
    assert not any(hit and not real for hit, real in zip(found, over, strict=True))
    assert sum(found) >= 0.99 * sum(over)


def test_short_and_odd_texts_are_compared_too() -> None:
    """Texts under five characters match only themselves; emoji and Cyrillic are signs like others."""
    index = NearIndex(["ok", "no", "", "😀😀", "да"])
    assert [index.matches(text) for text in ("OK", "o", "😀😀", "Да")] == [[0], [], [3], [4]]


def test_clusters_join_chains_of_near_duplicates() -> None:
    """Rows that are near through a third one are together, and every row is in exactly one cluster."""
    draw = random.Random(2)
    text = random_text(draw, 200)
    chain = [text, text[15:], text[30:]]
    assert jaccard(chain[0], chain[1]) >= NEAR_JACCARD and jaccard(chain[1], chain[2]) >= NEAR_JACCARD
    assert jaccard(chain[0], chain[2]) < jaccard(chain[0], chain[1])
    clusters = NearIndex([chain[0], random_text(draw, 200), chain[2], chain[1]]).clusters()
    assert sorted(map(sorted, clusters)) == [[0, 2, 3], [1]]


def test_leaks_are_marked_exact_or_near() -> None:
    """A test row is marked by what it has in common with the trained rows, once, and stays."""
    text = "the company said that its board has approved a quarterly dividend of ten cents a share"
    trained = rows((text, "x"), ("something else entirely, with nothing in common", "y"))
    test = rows((text.upper(), "x"), (text + ".", "x"), ("a text of its own, unlike all that was seen before", "y"))
    flags, steps = mark_leaks(test, "test", trained, NearIndex(trained.texts))
    assert flags == (True, True, False)
    assert [(one.step, one.rows_out, one.example_ids) for one in steps] == [
        ("exact_in_train", 3, ["r1"]),
        ("near_in_train", 3, ["r2"]),
    ]
