"""Where rows come from: a pinned corpus, a local CSV/TSV/JSON/Parquet file, or a data set of the hub.

Not here: parsing files (`files.py`), dropping or marking rows (`cleaning.py`), choosing them (`splits.py`). Rows leave
this file as they stand in the source, empty ones included, so that cleaning can count them.
Source of the `.tab` layout: https://orange3.readthedocs.io/projects/orange-data-mining-library/en/latest/reference/data.io.html

    read_rows("path:reviews.csv", DataSpec(train="path:reviews.csv"), Path("."), "train").labels[:3]
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from paretune.assets.catalogue import find
from paretune.assets.fetch import read_member
from paretune.core.config import Settings, nearest
from paretune.core.errors import DataError, said
from paretune.core.text import is_blank
from paretune.data.files import COLUMNS_SHOWN, Layout, Quoting, Record, is_unicode, read_table, separated_lines
from paretune.records.schema import is_absent

SplitName: TypeAlias = Literal["train", "test"]

SCHEMES = ("asset:", "path:", "hub:")
TEXT = "text"  # the one class of rows without labels
RESERVED_SPLITS = ("train", "validation", "test")
WHOLE_FLOAT = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")  # how a whole number looks once it was a float
HUB_REFERENCE = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^#]+))?(?:#(?P<split>.+))?")


class DataSpec(Settings):
    """The `[data]` table of a study.

    A reference is `asset:NAME` (a pinned corpus with its own train and test parts and known columns), `path:FILE`
    (relative to the study file) or `hub:OWNER/NAME[@REVISION][#SPLIT]`. Without `test`, an asset gives its own test
    part; for anything else `test_share` of the training rows is set aside. `train_rows` counts rows that are trained
    on: validation rows come on top of it. A class of one training row is refused, or kept (`rare_classes = "keep"`) and
    then trained on without being validated.

    `quoting` says what a double quote is in CSV and TSV: "double" (fields may stand in quotes) or "none" (a character
    like others). Unset it is "double", and a quoted field that seems to hold whole rows is refused. With
    `header = false` the first line is a row, and columns are named by their positions: `text = "1"`.
    """

    train: str
    test: str | None = None
    extra_tests: dict[str, str] = Field(default={})
    text: str = "text"
    label: str = "label"
    id: str | None = None
    encoding: str = "utf-8"
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    quoting: Quoting | None = Field(default=None, exclude_if=is_absent)
    header: bool = Field(default=True, exclude_if=bool)  # as above: absent from records where it is the default
    train_rows: int | None = Field(default=None, ge=2)
    test_rows: int | None = Field(default=None, ge=1)
    validation_share: float = Field(default=0.2, gt=0, lt=1)
    validation_rows: int | None = Field(default=None, ge=1)
    test_share: float = Field(default=0.2, gt=0, lt=1)
    split_seed: int = 0
    rare_classes: Literal["refuse", "keep"] = "refuse"

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str) -> str:
        try:
            "a".encode(value)  # some codecs, such as base64, are none of text
            return codecs.lookup(value).name
        except LookupError:
            raise ValueError(
                said(f"encoding {value!r}", "a name such as 'utf-8', 'utf-16', 'cp1251' or 'koi8-r'")
            ) from None

    @model_validator(mode="after")
    def _references_are_readable(self) -> DataSpec:
        references = [self.train, *([self.test] if self.test is not None else []), *self.extra_tests.values()]
        for reference in references:
            if not reference.startswith(SCHEMES):
                raise ValueError(
                    said(f"{reference!r}", "asset:NAME, path:FILE or hub:OWNER/NAME", nearest=f"path:{reference}")
                )
        for name in self.extra_tests:
            if name in RESERVED_SPLITS:
                raise ValueError(said(f"extra test {name!r}", "a name other than " + ", ".join(RESERVED_SPLITS)))
        return self

    def layout(self, flags: bool = False, settled: bool = False) -> Layout:
        """How the files are laid out; `flags`: hints name options of the command line; `settled`: they do not change
        the settings, by which another file was read."""
        return Layout(self.encoding, self.separator, self.quoting, self.header, flags, settled)


@dataclass(frozen=True)
class Rows:
    """Examples as three columns of one length: ids (unique), texts, labels. An empty string stands for "missing"."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: Iterable[int]) -> Rows:
        """The rows at `positions`, in that order."""
        chosen = list(positions)
        return Rows(
            tuple(self.ids[i] for i in chosen),
            tuple(self.texts[i] for i in chosen),
            tuple(self.labels[i] for i in chosen),
        )


def read_rows(
    reference: str,
    spec: DataSpec,
    base: Path,
    split: SplitName,
    *,
    prefix: str | None = None,
    labelled: bool = True,
    flags: bool = False,
) -> Rows:
    """Read one part of one source.

    Without an id column an example is called `PREFIX-N`, N being its row in the source from 1 (`prefix` is the split's
    name by default). Where rows are not `labelled`, no column of labels is read and all are of the one class `TEXT`.
    `flags`: the settings came from the command line, so that hints name its options.

    Raises:
        DataError: the source cannot be read as it is described; one line that says what to do.
        UnknownNameError, AssetError: the asset does not exist or cannot be had.
    """
    scheme, _, rest = reference.partition(":")
    named = prefix or split
    label = spec.label if labelled else None
    if scheme == "asset":
        rows = _asset_rows(rest, split, named)
        return rows if labelled else replace(rows, labels=(TEXT,) * len(rows))
    layout = spec.layout(flags, settled=split == "test")
    if scheme == "hub":
        return _rows(*_hub_records(rest, split), spec, label, f"data set {rest}", named, layout)
    path = base / rest
    wanted = [one for one in (spec.text, label, spec.id) if one is not None]
    return _rows(*read_table(path, layout, wanted), spec, label, str(path), named, layout)


def has_own_test(reference: str) -> bool:
    """Whether a training reference brings a test part along (assets do)."""
    scheme, _, name = reference.partition(":")
    return scheme == "asset" and "test" in find(name).members


# --- from records to rows -------------------------------------------------------------------------------------------


def _rows(
    records: list[Record],
    columns: list[str],
    spec: DataSpec,
    label: str | None,
    where: str,
    prefix: str,
    layout: Layout,
) -> Rows:
    if not records:
        raise DataError(
            said(
                f"{where} has no rows", "at least two rows" + (" of at least two classes" if label is not None else "")
            )
        )
    for setting, column in (("text", spec.text), ("label", label), ("id", spec.id)):
        if column is not None and column not in columns:
            raise DataError(missing_column(where, setting, column, columns, layout))
    numbered = [(f"{where}, row {number}", record) for number, record in enumerate(records, start=1)]
    if spec.id is None:
        ids = tuple(f"{prefix}-{number}" for number in range(1, len(records) + 1))
    else:
        ids = tuple(_as_string(record.get(spec.id), f"{place}: the id").strip() for place, record in numbered)
        commonest, times = Counter(ids).most_common(1)[0]
        if times > 1:
            raise DataError(
                said(f"{where}: id {commonest!r} stands there {times} times", f"one row for each {spec.id!r}")
            )
    texts = tuple(_as_string(record.get(spec.text), f"{place}: the text") for place, record in numbered)
    if label is None:
        return Rows(ids, texts, (TEXT,) * len(texts))
    return Rows(ids, texts, tuple(as_label(record.get(label), f"{place}: the label") for place, record in numbered))


def missing_column(where: str, setting: str, column: str, known: list[str], layout: Layout) -> str:
    """The line that says which columns there are, and how the right one is given."""
    plain = [one if one and one == one.strip() and '"' not in one else repr(one) for one in known[:COLUMNS_SHOWN]]
    shown = plain + (["…"] if len(known) > COLUMNS_SHOWN else [])
    do = f"give the right one with `--{setting}`" if layout.flags else f"set `{setting}` to the right one"
    return said(
        f"{where} has no column {column!r}",
        "one of " + ", ".join(shown),
        nearest=nearest(column, known),
        do="name its columns as those of the training file" if layout.settled else do,
    )


def _as_string(value: object, what: str) -> str:
    """A value of a cell as a string, a missing one as the empty string; `what` names the cell in a refusal.

    Raises:
        DataError: a list, an object, bytes that are not UTF-8, or half a surrogate pair.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case bytes() | bytearray() | memoryview():
            try:
                return bytes(value).decode("utf-8")
            except UnicodeDecodeError:
                raise DataError(said(f"{what} is bytes that are not valid UTF-8", "text, or bytes of UTF-8")) from None
        case str():
            if is_unicode(value):
                return value
            raise DataError(said(f"{what} has half a surrogate pair", "valid Unicode"))
        case list() | tuple() | set() | frozenset() | dict():
            raise DataError(said(f"{what} is a {type(value).__name__}", "a string"))
        case _:
            pass
    if value != value:  # NaN and NaT, ways of numbers and dates of being missing
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    return str(value)


def as_text(value: object, what: str = "the text") -> str:
    """A text as the string that is tokenized; a missing value is the empty string. `what` names the cell.

    Raises:
        DataError: a list, an object, bytes that are not UTF-8, or half a surrogate pair.
    """
    return _as_string(value, what)


def as_label(value: object, what: str = "the label") -> str:
    """A label as the string it is known by: `1`, `1.0`, `"1"` and `"1.0"` are one class.

    A missing value, and a string of invisible characters alone, is the empty string. `what` names the cell.

    Raises:
        DataError: a value that is no label of one class.
    """
    if isinstance(value, (list, tuple, set, frozenset)):
        given = f"{what} is a {type(value).__name__} ({_shown(value)})"
        do = "several labels a text are a task that paretune does not have yet"
        raise DataError(said(given, "one label a text", do=do))
    if isinstance(value, dict):
        do = "take the field that holds the class out into a column of its own"
        raise DataError(said(f"{what} is an object ({_shown(value)})", "one label a text", do=do))
    label = _as_string(value, what).strip()
    if is_blank(label):
        return ""
    whole = WHOLE_FLOAT.fullmatch(label)
    return label if whole is None else "0" if whole[1] == "-0" else whole[1]


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:59] + "…"


# --- pinned corpora -------------------------------------------------------------------------------------------------


def _asset_rows(name: str, split: SplitName, prefix: str) -> Rows:
    asset = find(name)
    if asset.kind != "corpus" or split not in asset.members:
        raise DataError(said(f"asset:{name} has no {split} part", "a corpus with labels, such as asset:reuters-r8"))
    content = read_member(asset, split)
    reviews = asset.members[split].endswith(".tsv")
    pairs = _review_pairs(content, f"asset:{name}") if reviews else _tab_pairs(content)
    return Rows(
        tuple(f"{prefix}-{number}" for number in range(1, len(pairs) + 1)),
        tuple(text for _, text in pairs),
        tuple(label for label, _ in pairs),
    )


def _tab_pairs(content: bytes) -> list[tuple[str, str]]:
    """Label and text of Orange's tab-separated layout: three header lines (names, types, roles), no quoting.

    A line that is blank, such as the last, is no row; a line with a tab but nothing around it is one, and is empty.
    """
    lines = content.decode("utf-8").split("\n")[3:]
    parts = (line.partition("\t") for line in lines if line != "")
    return [(label.strip(), text.strip()) for label, _, text in parts]


def _review_pairs(content: bytes, where: str) -> list[tuple[str, str]]:
    """Rating and review of the drug reviews: quoted, tab-separated, with a second pair of quotes around each review."""
    lines = [fields for _, fields in separated_lines(content.decode("utf-8"), "\t", where)]
    rating, review = lines[0].index("rating"), lines[0].index("review")
    return [(fields[rating], fields[review].strip('"')) for fields in lines[1:]]


# --- the hub --------------------------------------------------------------------------------------------------------


def _hub_records(rest: str, split: SplitName) -> tuple[list[Record], list[str]]:
    found = HUB_REFERENCE.fullmatch(rest)
    if not found:
        raise DataError(said(f"'hub:{rest}'", "hub:OWNER/NAME[@REVISION][#SPLIT]"))
    import datasets

    try:
        loaded = datasets.load_dataset(found["name"], revision=found["revision"], split=found["split"] or split)
    except Exception as error:  # the hub's libraries have no common root of errors
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            said(
                f"hub:{rest} cannot be loaded ({type(error).__name__}: {reason})",
                "a data set of the hub, and a network or a filled cache",
                do="use path:FILE for a local copy",
            )
        ) from None
    named = {key: kind for key, kind in loaded.features.items() if isinstance(kind, datasets.ClassLabel)}
    records = [
        {key: _class_name(named[key], value) if key in named else value for key, value in record.items()}
        for record in loaded.to_list()
    ]
    return records, list(loaded.features)


def _class_name(kind: object, value: object) -> object:
    """The name behind a class number; -1 is the hub's way of saying that a label is hidden."""
    import datasets

    if isinstance(kind, datasets.ClassLabel) and isinstance(value, int) and value >= 0:
        return kind.int2str(value)
    return None
