"""Labels a file of texts by a bundle, without a server: the file comes back with four columns more.

prediction, probability (of that label), abstain (leave it to a person: not sure enough, unlike the training texts, or
no answer) and out_of_domain (empty where the bundle cannot tell). Other columns stay as they are; a text with nothing
in it is left to a person. Rows are answered in batches and written as they come; what was begun and not ended leaves
nothing. Not here: parsing files (`data/files.py`), answering (`engine.py`).

    predict(Path("bundles/demo"), Path("reviews.csv"), Path("labelled.csv"), Layout(flags=True)).abstained
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from paretune.core.config import validated
from paretune.core.errors import DataError, StorageError, said
from paretune.core.text import is_blank
from paretune.data.files import EXTENSIONS, SEPARATORS, Layout, Record, is_unicode, read_table
from paretune.data.sources import as_text, missing_column
from paretune.models.sources import ModelSpec
from paretune.serve.bundle import Bundle, read_bundle
from paretune.serve.engine import Engine, Row
from paretune.serve.resident import Answer

BATCH = 64
ADDED = ("prediction", "probability", "abstain", "out_of_domain")
DIGITS = 6  # of a probability


@dataclass
class Labelled:
    """What became of a file's rows. `abstained` are left to a person, `out_of_domain` and `empty` ones among them;
    `failed` have no answer at all."""

    out: Path
    digest: str
    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter[str])
    abstained: int = 0
    out_of_domain: int = 0
    empty: int = 0
    truncated: int = 0
    failed: int = 0


Cells = tuple[str, float | None, bool, bool | None]  # as ADDED


def predict(
    bundle: Path,
    file: Path,
    out: Path | None,
    layout: Layout,
    text: str | None = None,
    *,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    force: bool = False,
    say: Callable[[int, int], None] = lambda done, rows: None,
) -> Labelled:
    """Label every row of `file`, in its order; without `out` NAME.labelled.EXT beside the working folder's files.

    `text` names the column of texts; without it "text", or the only column. `say` hears how many rows are done.

    Raises:
        BundleError: it may not serve. DataError: the file cannot be read, or has no such column.
        StorageError: `out` is there already, or cannot be written.
    """
    target = out or Path(f"{file.stem}.labelled{'.csv' if file.suffix.lower() == '.txt' else file.suffix}")
    given = read_bundle(bundle)
    records, columns = _read(file, layout, text)
    column = _text_column(file, columns, text, layout)
    texts = [as_text(one.get(column), f"{file}, row {row}: the text") for row, one in enumerate(records, start=1)]
    _check_free(target, file, force)
    spec = validated(given.manifest.model, ModelSpec, "the bundle's model")
    engine = Engine(spec, precision, slots=2, fetch=lambda digest: given, merge_after=0)
    engine.check(given)
    found = Labelled(target, given.digest)
    names = [_free(name, columns) for name in ADDED]
    with _written(target) as part, _writer(target, part, file, columns, names, layout) as write:
        for at in range(0, len(texts), BATCH):
            answers = _answers(engine, given, texts[at : at + BATCH], found)
            for record, cells in zip(records[at : at + BATCH], answers, strict=True):
                write(record, cells)
            say(min(at + BATCH, len(texts)), len(texts))
    return found


def _read(file: Path, layout: Layout, text: str | None) -> tuple[list[Record], list[str]]:
    """Records with all their columns: they are written again."""
    wanted = [text or "text"]
    if file.suffix.lower() == ".parquet" or (text is None and _is_one_column(read_table(file, layout, [])[1])):
        wanted = read_table(file, layout, [])[1]
    records, columns = read_table(file, layout, wanted)
    repeated = [name for name, times in Counter(columns).items() if times > 1]
    if repeated:
        raise DataError(said(f"{file}: column {repeated[0]!r} stands there twice", "each column once"))
    if not records:
        raise DataError(said(f"{file} has no rows", "at least one row"))
    return records, columns


def _is_one_column(columns: Sequence[str]) -> bool:
    """One column that is not several in disguise, read with another separator than theirs."""
    return len(columns) == 1 and not any(one in columns[0] for one in SEPARATORS)


def _text_column(file: Path, columns: Sequence[str], wanted: str | None, layout: Layout) -> str:
    if wanted is None and _is_one_column(columns):
        return columns[0]
    name = wanted or "text"
    if name not in columns:
        raise DataError(missing_column(str(file), "text", name, list(columns), layout))
    return name


def _check_free(target: Path, file: Path, force: bool) -> None:
    allowed = [one for one in EXTENSIONS if one != ".txt"]
    if target.suffix.lower() not in allowed:
        raise DataError(said(f"--out {target}", "a name that ends in one of " + ", ".join(allowed)))
    if target.exists() and target.samefile(file):
        raise StorageError(said(f"--out {target} is the file that is read", "another file"))
    if target.is_dir() or (target.exists() and not force):
        do = "choose another name" if target.is_dir() else "--force replaces it"
        raise StorageError(said(f"{target} is there already", "a new file", do=do))


def _free(name: str, columns: Sequence[str]) -> str:
    """The name, or with a number behind it where the file has such a column."""
    number = 1
    while (f"{name}_{number}" if number > 1 else name) in columns:
        number += 1
    return f"{name}_{number}" if number > 1 else name


def _answers(engine: Engine, bundle: Bundle, texts: Sequence[str], found: Labelled) -> Iterator[Cells]:
    """Cells of one batch; what is counted goes into `found`."""
    asked = [text for text in texts if not is_blank(text)]
    tokens = engine.encode(bundle.digest, asked)
    found.truncated += sum(one.truncated for one in tokens)
    outcomes = iter(engine.run([Row(bundle.digest, one.input_ids) for one in tokens]))
    for text in texts:
        outcome = None if is_blank(text) else next(outcomes)
        found.rows += 1
        if not isinstance(outcome, Answer):
            found.empty += outcome is None
            found.failed += outcome is not None
            found.abstained += 1
            yield "", None, True, None
            continue
        label = outcome.label(bundle.manifest.labels)
        found.abstained += outcome.abstain
        found.out_of_domain += outcome.out_of_domain is True
        if not outcome.abstain:
            found.labels[label] += 1
        yield label, round(max(outcome.probabilities), DIGITS), outcome.abstain, outcome.out_of_domain


# --- writing --------------------------------------------------------------------------------------------------------

Write = Callable[[Record, Cells], None]


@contextmanager
def _written(target: Path) -> Generator[Path]:
    """A file beside the target that takes its place at the end, and goes where there was none."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _writer(
    target: Path, part: Path, file: Path, columns: Sequence[str], names: Sequence[str], layout: Layout
) -> Generator[Write]:
    """How rows are written, by the kind of the target."""
    kind = target.suffix.lower()
    if kind == ".parquet":
        with _parquet_writer(part, file, columns, names) as write:
            yield write
        return
    with part.open("w", encoding="utf-8", newline="") as sink:
        if kind in (".jsonl", ".ndjson", ".json"):
            before = "[" if kind == ".json" else ""  # a whole list, as most programs read .json

            def line(record: Record, cells: Cells) -> None:
                nonlocal before
                text = json.dumps({**record, **dict(zip(names, cells, strict=True))}, ensure_ascii=False, default=str)
                sink.write(before + (text if is_unicode(text) else json.dumps(json.loads(text))))
                before = ",\n" if kind == ".json" else "\n"

            yield line
            sink.write("]\n" if kind == ".json" else "\n")
            return
        same = kind == file.suffix.lower()
        separator = (layout.separator if same else None) or ("\t" if kind == ".tsv" else ",")
        table = csv.writer(sink, delimiter=separator, lineterminator="\n")
        if layout.header:
            table.writerow([*columns, *names])

        def row(record: Record, cells: Cells) -> None:
            table.writerow([*(_cell(record.get(name)) for name in columns), *map(_cell, cells)])

        yield row


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)


@contextmanager
def _parquet_writer(part: Path, file: Path, columns: Sequence[str], names: Sequence[str]) -> Generator[Write]:
    """Columns of a Parquet file keep their types; those of other files are what Arrow makes of them."""
    records: list[Record] = []
    added: list[Cells] = []

    def keep(record: Record, cells: Cells) -> None:
        records.append(record)
        added.append(cells)

    yield keep
    try:
        if file.suffix.lower() == ".parquet":
            table = pq.read_table(file)
        else:
            table = pa.table({name: pa.array([one.get(name) for one in records]) for name in columns})
        types = (pa.string(), pa.float64(), pa.bool_(), pa.bool_())
        for name, kind, values in zip(names, types, zip(*added, strict=True), strict=True):
            table = table.append_column(name, pa.array(values, kind))
        pq.write_table(table, part)
    except pa.ArrowException as error:
        raise DataError(
            said(f"the columns of {file} fit no Parquet file ({str(error)[:100]})", "--out NAME.jsonl")
        ) from None
