"""From a study's `[data]` table to the splits that every run of it uses, with a record of each step.

Not here: how rows are read, cleaned or drawn; this file only puts those in order. Test rows are never removed for being
duplicates: they are marked, so that scores can be given with and without them.

    prepare(DataSpec(train="asset:reuters-r8", train_rows=1000), Path(".")).splits["train"]
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from paretune.core.config import canonical_hash, nearest
from paretune.core.errors import DataError, said
from paretune.core.text import spelled
from paretune.data.cleaning import (
    NearIndex,
    drop_exact_duplicates,
    drop_unusable,
    mark_exact_duplicates,
    mark_leaks,
    normalised,
    step,
)
from paretune.data.labels import bare_forms
from paretune.data.sources import TEXT, DataSpec, Rows, has_own_test, read_rows
from paretune.data.splits import quotas, set_aside, subset
from paretune.records.exploration import ClassCount, CleaningStep

ROWS_FILE = "data.parquet"
ABOUT_FILE = "data.json"
NAMES_SHOWN, NAME_SHOWN = 5, 80
READING = 1  # raised when the same files and settings would be read to other rows: a study prepares its data anew


@dataclass(frozen=True)
class Prepared:
    """The rows of a study: `splits` has train, validation, test and then the extra tests by name.

    `near_duplicate` has, for each test split, one flag a row: the text, or nearly the text, is in train or validation.
    """

    labels: tuple[str, ...]
    splits: dict[str, Rows]
    near_duplicate: dict[str, tuple[bool, ...]]
    cleaning: list[CleaningStep]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over everything that a run can see of the data."""
        return canonical_hash(
            {
                "labels": list(self.labels),
                "splits": {name: [rows.ids, rows.texts, rows.labels] for name, rows in self.splits.items()},
                "near_duplicate": {name: list(flags) for name, flags in self.near_duplicate.items()},
            }
        )

    def class_counts(self) -> list[ClassCount]:
        """Rows of each class in each split."""
        counts = {name: Counter(rows.labels) for name, rows in self.splits.items()}
        return [ClassCount(label=label, rows={name: counts[name][label] for name in counts}) for label in self.labels]

    def label_rows(self) -> dict[str, int]:
        """Rows of each class over all splits."""
        return {one.label: sum(one.rows.values()) for one in self.class_counts()}

    def duplicates(self) -> dict[str, int]:
        """Rows of training that cleaning dropped (exact) or marked (near, conflicting), and exact ones of test."""
        found = {"exact": 0, "near": 0, "conflicting": 0, "exact_in_test": 0}
        for one in self.cleaning:
            if one.split == "train":
                found["exact"] += one.rows_in - one.rows_out if one.step == "exact_duplicate" else 0
                found["near"] += one.marked if one.step == "near_duplicate" else 0
                found["conflicting"] += one.marked if one.step == "conflicting_label" else 0
            elif one.split == "test" and one.step == "exact_duplicate":
                found["exact_in_test"] += one.marked
        return found

    def leaks(self) -> dict[str, int]:
        """Rows of the test split whose text, exactly or nearly, is in train or validation."""
        both = (*self.splits["train"].texts, *self.splits["validation"].texts)
        known = {normalised(text) for text in both}
        exact = sum(normalised(text) in known for text in self.splits["test"].texts)
        return {"exact": exact, "near": sum(self.near_duplicate["test"]) - exact}


def prepare(spec: DataSpec, base: Path, labelled: bool = True, flags: bool = False) -> Prepared:
    """Read, clean and split; paths in `spec` are relative to `base`. Not `labelled`: texts alone are read.
    `flags`: the settings came from the command line, so that hints name its options.

    Raises:
        DataError: the data cannot be used as described; one line that says what to do.
        UnknownNameError, AssetError: an asset does not exist or cannot be had.
    """
    pool, steps = drop_unusable(read_rows(spec.train, spec, base, "train", labelled=labelled, flags=flags), "train")
    setting = "`--label`" if flags else "`label`"
    labels = _checked_labels(pool, spec, setting) if labelled else _checked_texts(pool, spec)
    pool, found = drop_exact_duplicates(pool, "train")
    steps += found

    tests: dict[str, Rows] = {}
    test_reference = spec.test or (spec.train if has_own_test(spec.train) else None)
    if test_reference is None:
        pool, tests["test"], found = _carve_test(pool, spec)
        steps += found
    else:
        tests["test"], found = _read_test(test_reference, "test", spec, base, labels, labelled, flags)
        steps += found
    for name, reference in spec.extra_tests.items():
        tests[name], found = _read_test(reference, name, spec, base, labels, labelled, flags)
        steps += found

    train, validation, index, both, found = _train_and_validation(pool, spec)
    steps += found
    splits, marked = {"train": train, "validation": validation}, dict[str, tuple[bool, ...]]()
    for name, rows in tests.items():
        marked[name], found = mark_leaks(rows, name, both, index)
        splits[name], steps = rows, steps + found
    return Prepared(labels, splits, marked, steps)


def check_classes(spec: DataSpec, base: Path) -> None:
    """Refuse training rows that `prepare` would refuse for their texts and labels, before anything else is done.

    Raises:
        as `prepare`, of the training file alone.
    """
    pool, _ = drop_unusable(read_rows(spec.train, spec, base, "train"), "train")
    _checked_labels(pool, spec, "`label`")


def _checked_labels(rows: Rows, spec: DataSpec, setting: str) -> tuple[str, ...]:
    """The classes, sorted; refuses training rows that cannot be learnt from. `setting` names the column of labels."""
    where = spec.train.removeprefix("path:")
    counts = Counter(rows.labels)
    labels = tuple(sorted(counts))
    if not rows.ids:
        raise DataError(said(f"{where}: every row is without text or label", "rows that have both"))
    if len(labels) == 1:
        raise DataError(said(f"{where}: one class only ({labels[0]!r})", "at least two classes", do=f"check {setting}"))
    if spec.train_rows is not None and spec.train_rows < len(labels):
        raise DataError(
            said(f"train_rows = {spec.train_rows} for {len(labels)} classes", f"at least {len(labels)}, one a class")
        )
    rare = [label for label in labels if counts[label] < 2]
    if 2 * len(rare) > len(labels):
        raise DataError(
            said(
                f"{where}: {len(rows)} examples for {len(labels)} classes",
                "at least two examples of each class",
                do=f"is {spec.label!r} the right {setting} column?" if not where.startswith("asset:") else None,
            )
        )
    if rare and spec.rare_classes == "refuse":
        raise DataError(
            said(
                f"{where}: too few examples of class {_listed(rare)} to be split (1 row)",
                "at least 2 training rows of each class",
                do='add examples, remove its rows, or set `rare_classes = "keep"` to train on it without validating it',
            )
        )
    return labels


def _checked_texts(rows: Rows, spec: DataSpec) -> tuple[str, ...]:
    """The one class of rows without labels; refuses training rows that cannot be split."""
    if len(rows) < 3:
        raise DataError(
            said(f"{spec.train}: {len(rows)} rows with text", "at least three, to train, validate and test")
        )
    return (TEXT,)


def _read_test(
    reference: str, name: str, spec: DataSpec, base: Path, labels: Sequence[str], labelled: bool, flags: bool
) -> tuple[Rows, list[CleaningStep]]:
    rows = read_rows(reference, spec, base, "test", prefix=name, labelled=labelled, flags=flags)
    rows, steps = drop_unusable(rows, name)
    if not rows.ids:
        raise DataError(said(f"{reference}: every row is without text or label", "rows that have both"))
    unknown = Counter(label for label in rows.labels if label not in set(labels))
    if unknown:
        first = min(unknown)
        alike = (label for label in labels if bare_forms(label) & bare_forms(first))
        raise DataError(
            said(
                f"{reference}: {unknown.total()} rows of the {name} split have a label that training lacks: "
                + _listed(sorted(unknown)),
                "one of " + _listed(labels),
                nearest=next(alike, None) or nearest(first, labels),
                do="remove those rows or add training examples",
            )
        )
    steps.append(mark_exact_duplicates(rows, name))
    return _limited_test(rows, name, spec, steps)


def _limited_test(rows: Rows, name: str, spec: DataSpec, steps: list[CleaningStep]) -> tuple[Rows, list[CleaningStep]]:
    if spec.test_rows is None or spec.test_rows >= len(rows):
        return rows, steps
    chosen = rows.take(subset(rows, quotas(Counter(rows.labels), spec.test_rows), spec.split_seed, "test_rows"))
    return chosen, [*steps, step("subset", name, len(rows), len(chosen), [], dropped=True)]


def _carve_test(pool: Rows, spec: DataSpec) -> tuple[Rows, Rows, list[CleaningStep]]:
    """Set a test split aside from the training rows; groups of duplicates stay together."""
    wanted = spec.test_rows if spec.test_rows is not None else round(spec.test_share * len(pool))
    chosen = _aside(pool, NearIndex(pool.texts).clusters(), wanted, spec.split_seed, "test")
    if not chosen:
        raise DataError(said(f"{len(pool)} rows give no test split", "more rows that are not near duplicates"))
    test, rest = pool.take(chosen), pool.take(_others(len(pool), chosen))
    return (
        rest,
        test,
        [
            step("test_split", "test", len(pool), len(test), [], dropped=True),
            step("test_split", "train", len(pool), len(rest), [], dropped=True),
        ],
    )


def _train_and_validation(pool: Rows, spec: DataSpec) -> tuple[Rows, Rows, NearIndex, Rows, list[CleaningStep]]:
    """Train, validation, the near-duplicate index over both, both together, and what was done."""
    wanted_validation, wanted_train = _sizes(len(pool), spec)
    counts = Counter(pool.labels)
    for_validation = quotas(counts, wanted_validation, {label: count - 1 for label, count in counts.items()})
    rest = {label: count - for_validation[label] for label, count in counts.items()}
    for_training = quotas(rest, wanted_train)
    wanted = {label: for_validation[label] + for_training[label] for label in counts}
    both = pool.take(subset(pool, wanted, spec.split_seed, "train_rows"))
    index = NearIndex(both.texts)
    clusters = index.clusters()
    chosen = set_aside(both, clusters, for_validation, spec.split_seed, "validation")
    if not chosen:
        raise DataError(
            said(f"{len(pool)} training rows give no validation split", "more rows that are not near duplicates")
        )
    train, validation = both.take(_others(len(both), chosen)), both.take(chosen)
    near = sorted(i for cluster in clusters if len(cluster) > 1 for i in cluster)
    return (
        train,
        validation,
        index,
        both,
        [
            *([step("subset", "train", len(pool), len(both), [], dropped=True)] if len(both) < len(pool) else []),
            step("near_duplicate", "train", len(both), len(both), [both.ids[i] for i in near], dropped=False),
            step("validation_split", "validation", len(both), len(validation), [], dropped=True),
            step("validation_split", "train", len(both), len(train), [], dropped=True),
        ],
    )


def _sizes(rows: int, spec: DataSpec) -> tuple[int, int]:
    """Rows of validation and of train that a pool of `rows` is asked for."""
    if spec.validation_rows is not None:
        if spec.validation_rows >= rows:
            raise DataError(said(f"validation_rows = {spec.validation_rows}", f"fewer than the {rows} training rows"))
        validation = spec.validation_rows
    elif spec.train_rows is not None:
        share = spec.validation_share
        validation = min(round(spec.train_rows * share / (1 - share)), round(share * rows))
    else:
        validation = round(spec.validation_share * rows)
    validation = max(1, validation)
    train = rows - validation if spec.train_rows is None else min(spec.train_rows, rows - validation)
    return validation, train


def _aside(pool: Rows, clusters: Sequence[Sequence[int]], wanted: int, seed: int, purpose: str) -> list[int]:
    counts = Counter(pool.labels)
    caps = {label: count - 1 for label, count in counts.items()}
    return set_aside(pool, clusters, quotas(counts, wanted, caps), seed, purpose)


def _others(rows: int, chosen: Sequence[int]) -> list[int]:
    taken = set(chosen)
    return [i for i in range(rows) if i not in taken]


def _listed(names: Sequence[str]) -> str:
    cut = [name if len(name) <= NAME_SHOWN else name[: NAME_SHOWN - 1] + "…" for name in names[:NAMES_SHOWN]]
    shown = ", ".join(f"'{spelled(name)}'" for name in cut)
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def save(prepared: Prepared, folder: Path) -> None:
    """Write the splits as Parquet and the rest as JSON; the JSON, written last, completes them."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = prepared.splits.items()
    flags = [one for name, rows in parts for one in prepared.near_duplicate.get(name, (None,) * len(rows))]
    table = pa.table(
        {
            "split": [name for name, rows in parts for _ in rows.ids],
            "id": [one for _, rows in parts for one in rows.ids],
            "text": [one for _, rows in parts for one in rows.texts],
            "label": [one for _, rows in parts for one in rows.labels],
            "near_duplicate": pa.array(flags, pa.bool_()),
        }
    )
    temporary = folder / f"{ROWS_FILE}.part"
    pq.write_table(table, temporary)
    temporary.replace(folder / ROWS_FILE)
    about = {
        "digest": prepared.digest,
        "labels": list(prepared.labels),
        "splits": list(prepared.splits),
        "cleaning": [one.model_dump(mode="json") for one in prepared.cleaning],
    }
    temporary = folder / f"{ABOUT_FILE}.part"
    temporary.write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / ABOUT_FILE)


def load(folder: Path) -> Prepared:
    """Read what `save` wrote.

    Raises:
        DataError: the files are missing, damaged, or not the ones that were written.
    """
    try:
        about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        table = pq.read_table(folder / ROWS_FILE).to_pydict()
        splits: dict[str, Rows] = {}
        flags: dict[str, tuple[bool, ...]] = {}
        for name in about["splits"]:
            at = [i for i, one in enumerate(table["split"]) if one == name]
            splits[name] = Rows(*(tuple(table[column][i] for i in at) for column in ("id", "text", "label")))
            if name not in ("train", "validation"):
                flags[name] = tuple(bool(table["near_duplicate"][i]) for i in at)
        steps = [CleaningStep.model_validate(one) for one in about["cleaning"]]
        prepared = Prepared(tuple(about["labels"]), splits, flags, steps)
        intact = prepared.digest == about["digest"]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(said(f"{folder} holds no prepared data ({error})", "what a study wrote there")) from None
    if not intact:
        raise DataError(said(f"{folder / ROWS_FILE} was changed after it was written", "the rows of this study"))
    return prepared
