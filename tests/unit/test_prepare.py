"""The whole way from a `[data]` table to splits: counts, leaks, bad input, saving.

PYTHONPATH=src python -m pytest tests/unit/test_prepare.py
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from paretune.core.errors import DataError
from paretune.data.cleaning import NearIndex, normalised
from paretune.data.prepare import ABOUT_FILE, ROWS_FILE, Prepared, load, prepare, save
from paretune.data.sources import DataSpec

SUBJECTS = (
    *("apple", "river", "engine", "doctor", "window", "garden", "letter"),
    *("bridge", "candle", "forest", "mirror", "pocket", "thunder", "violin"),
)
SHARED_DATA = Path(os.environ.get("PARETUNE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def sentence(i: int) -> str:
    a, b = SUBJECTS[i % 14], SUBJECTS[(i // 14) % 14]
    return f"the {a} stands beside an old {b} and number {i * 7919 % 1000} is painted on the {a}{b}"


def table(pairs: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs)


TRAIN = [(sentence(i), "pos" if i % 3 else "neg") for i in range(120)]
TEST = [(sentence(i), "pos" if i % 3 else "neg") for i in range(120, 150)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text(table(TRAIN))
    (tmp_path / "test.jsonl").write_text(table(TEST))
    return tmp_path


def made(folder: Path, **settings: object) -> Prepared:
    return prepare(DataSpec.model_validate({"train": "path:train.jsonl", **settings}), folder)


def counted(prepared: Prepared, step: str, split: str) -> tuple[int, int, int]:
    one = next(one for one in prepared.cleaning if (one.step, one.split) == (step, split))
    return one.rows_in, one.rows_out, one.marked


def refusal(folder: Path, train: list[tuple[str, str]], test: list[tuple[str, str]] = TEST, **settings: object) -> str:
    (folder / "train.jsonl").write_text(table(train))
    (folder / "test.jsonl").write_text(table(test))
    with pytest.raises(DataError) as caught:
        made(folder, test="path:test.jsonl", **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_splits_have_the_sizes_that_were_asked_for(folder: Path) -> None:
    """`train_rows` counts trained rows, validation comes on top, and each class keeps its share."""
    prepared = made(folder, test="path:test.jsonl", train_rows=60, validation_rows=15, test_rows=12)
    assert {name: len(rows) for name, rows in prepared.splits.items()} == {"train": 60, "validation": 15, "test": 12}
    assert prepared.labels == ("neg", "pos")
    assert Counter(prepared.splits["train"].labels) == {"pos": 40, "neg": 20}
    assert Counter(prepared.splits["test"].labels) == {"pos": 8, "neg": 4}
    assert counted(prepared, "subset", "test") == (30, 12, 0)


def test_without_a_test_file_a_test_split_is_set_aside(folder: Path) -> None:
    """The three splits are disjoint and together are the cleaned rows."""
    prepared = made(folder)
    texts = [text for rows in prepared.splits.values() for text in rows.texts]
    assert {name: len(rows) for name, rows in prepared.splits.items()} == {"train": 77, "validation": 19, "test": 24}
    assert sorted(texts) == sorted(text for text, _ in TRAIN)
    assert counted(prepared, "test_split", "train") == (120, 96, 0)


def test_near_duplicates_never_lie_on_both_sides(folder: Path) -> None:
    """With every row there in two spellings, no text of validation or test is nearly one of the other splits."""
    (folder / "train.jsonl").write_text(table(TRAIN + [(text + "!", label) for text, label in TRAIN]))
    prepared = made(folder)
    index = NearIndex(prepared.splits["train"].texts)
    held_out = prepared.splits["validation"].texts + prepared.splits["test"].texts
    assert len(held_out) > 40
    assert not any(index.matches(text) for text in held_out)
    assert not any(prepared.near_duplicate["test"])


def test_leaks_of_a_given_test_file_are_marked_and_stay(folder: Path) -> None:
    """Test rows that training has too keep their place, flagged, with exact and near ones counted apart."""
    leaked = [(TRAIN[0][0].upper(), TRAIN[0][1]), (TRAIN[1][0] + "!", TRAIN[1][1])]
    (folder / "test.jsonl").write_text(table(leaked + TEST))
    prepared = made(folder, test="path:test.jsonl")
    assert prepared.near_duplicate["test"] == (True, True, *(False,) * 30)
    assert counted(prepared, "exact_in_train", "test") == (32, 32, 1)
    assert counted(prepared, "near_in_train", "test") == (32, 32, 1)


def test_extra_tests_are_read_cleaned_and_named(folder: Path) -> None:
    """An extra test stands after the others, under its own name, with ids of its own."""
    (folder / "far.jsonl").write_text(table([("", "pos"), ("an unusual text from elsewhere", "pos")]))
    prepared = made(folder, test="path:test.jsonl", extra_tests={"far": "path:far.jsonl"})
    assert list(prepared.splits) == ["train", "validation", "test", "far"]
    assert prepared.splits["far"].ids == ("far-2",)
    assert counted(prepared, "empty_text", "far") == (2, 1, 0)


def test_splits_do_not_depend_on_the_order_of_rows(folder: Path) -> None:
    """A shuffled file gives the same texts in the same splits."""
    before = made(folder)
    (folder / "train.jsonl").write_text(table(TRAIN[::-1]))
    after = made(folder)
    for name in before.splits:
        assert set(before.splits[name].texts) == set(after.splits[name].texts)


def test_the_digest_follows_the_data(folder: Path) -> None:
    """The digest is the same for the same data, and another for another seed or one changed label."""
    digest = made(folder).digest
    assert made(folder).digest == digest
    assert made(folder, split_seed=1).digest != digest
    (folder / "train.jsonl").write_text(table([(TRAIN[0][0], "pos"), *TRAIN[1:]]))
    assert made(folder).digest != digest


def test_saved_data_load_as_they_were(folder: Path) -> None:
    """Splits, flags and cleaning survive the disk."""
    prepared = made(folder, test="path:test.jsonl", extra_tests={"far": "path:test.jsonl"})
    save(prepared, folder / "saved")
    assert load(folder / "saved") == prepared


def test_changed_or_missing_saved_data_are_refused(folder: Path) -> None:
    """Rows that are not those that were written, half of a file, and an empty folder are each one clear line."""
    save(made(folder), folder / "a")
    save(made(folder, split_seed=1), folder / "b")
    (folder / "b" / ROWS_FILE).replace(folder / "a" / ROWS_FILE)
    with pytest.raises(DataError, match="was changed after it was written"):
        load(folder / "a")
    (folder / "a" / ABOUT_FILE).write_text('{"digest":')
    for name in ("a", "nothing"):
        with pytest.raises(DataError, match="holds no prepared data"):
            load(folder / name)


def test_one_class_is_refused(folder: Path) -> None:
    """A file with a single label cannot be learnt from."""
    assert "one class only ('pos'); expected at least two" in refusal(folder, [(text, "pos") for text, _ in TRAIN])


def test_only_empty_texts_are_refused(folder: Path) -> None:
    """A file without any text is named as such."""
    assert "every row is without text or label" in refusal(folder, [("", "pos"), (" ", "neg")])


def test_fewer_examples_than_classes_are_refused(folder: Path) -> None:
    """A label column with (nearly) as many values as rows is asked about; so is `train_rows` under the classes."""
    message = refusal(folder, [(text, text) for text, _ in TRAIN])
    assert "120 examples for 120 classes" in message and "is 'label' the right `label` column?" in message
    many = [(text, str(i % 10)) for i, (text, _) in enumerate(TRAIN)]
    assert "train_rows = 9 for 10 classes; expected at least 10" in refusal(folder, many, train_rows=9)


def test_a_class_too_rare_to_be_split_is_refused_or_kept(folder: Path) -> None:
    """One row of a class is refused by name, with what to do; `rare_classes = "keep"` trains on it."""
    message = refusal(folder, [*TRAIN, ("a lonely example", "odd")])
    assert "too few examples of class 'odd' to be split (1 row)" in message and '`rare_classes = "keep"`' in message
    prepared = made(folder, test="path:test.jsonl", rare_classes="keep", train_rows=20)
    assert "odd" in prepared.splits["train"].labels
    assert "odd" not in prepared.splits["validation"].labels


def test_a_label_that_training_lacks_is_refused(folder: Path) -> None:
    """A label of the test file that cannot be predicted is named, with the nearest known one."""
    message = refusal(folder, TRAIN, [*TEST, ("a text", "poss"), ("another", "poss")])
    assert "2 rows of the test split have a label that training lacks: 'poss'" in message
    assert "did you mean 'pos'" in message


def test_too_many_validation_rows_are_refused(folder: Path) -> None:
    """Validation cannot take all training rows."""
    assert "validation_rows = 120; expected fewer than the 120" in refusal(folder, TRAIN, validation_rows=120)


def test_rows_that_are_all_near_duplicates_cannot_be_split(folder: Path) -> None:
    """When everything is one group of near duplicates there is no leak-free split, and that is said."""
    same = [(sentence(0) + "!" * i, "pos" if i % 2 else "neg") for i in range(1, 5)]
    assert "no validation split; expected more rows that are not near duplicates" in refusal(folder, same)


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "lines", "usable", "classes"),
    [("reuters-r8", (5485, 2189), (5485, 2189), 8), ("reuters-r52", (6533, 2568), (6532, 2568), 52)],
)
def test_reuters_has_its_known_counts(
    tmp_path: Path, name: str, lines: tuple[int, int], usable: tuple[int, int], classes: int
) -> None:
    """R8 and R52 have their published numbers of usable rows; R52's malformed row is counted; test rows all stay."""
    spec = DataSpec(train=f"asset:{name}", rare_classes="keep")  # R52 has a class of one training row
    prepared = prepare(spec, tmp_path)
    for split, rows_in, rows_out in zip(("train", "test"), lines, usable, strict=True):
        assert counted(prepared, "empty_text", split) == (rows_in, rows_out, 0)
        assert counted(prepared, "missing_label", split) == (rows_out, rows_out, 0)
    rows_in, rows_out, _ = counted(prepared, "exact_duplicate", "train")
    assert rows_in == usable[0] > rows_out == len(prepared.splits["train"]) + len(prepared.splits["validation"])
    assert len(prepared.splits["test"]) == usable[1]
    assert len(prepared.labels) == classes


@pytest.mark.parametrize(("rows", "trained"), [(None, 3632), (1000, 1000)])
def test_the_rarest_of_28_emotions_is_in_every_split(rows: int | None, trained: int) -> None:
    """Six rows of a class are enough to train on and validate it, in the whole set and in a subset."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder is not here (PARETUNE_SHARED_DATA)")
    spec = DataSpec(
        train="path:ru_emotions/train.csv", test="path:ru_emotions/test.csv", label="emotion", train_rows=rows
    )
    prepared = prepare(spec, SHARED_DATA)
    assert len(prepared.labels) == 28
    assert len(prepared.splits["train"]) == trained
    for split in ("train", "validation"):
        assert set(prepared.splits[split].labels) == set(prepared.labels)
    known = {normalised(text) for text in prepared.splits["train"].texts}
    assert not known & {normalised(text) for text in prepared.splits["validation"].texts}
