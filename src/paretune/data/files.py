"""Local files as records: CSV, TSV, JSON lines and Parquet.

Not here: which columns mean what (`sources.py`). Text is decoded strictly and nothing is guessed at silently: a wrong
encoding, separator or quote is an error of one line that says where it is and which setting mends it.

    read_table(Path("reviews.csv"), "utf-8", None, ["text", "label"])
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from paretune.core.config import nearest
from paretune.core.errors import DataError, said

Record: TypeAlias = dict[str, object]
Table: TypeAlias = tuple[list[Record], list[str]]

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
LONGEST_FIELD = 2**31 - 1


def read_table(path: Path, encoding: str, separator: str | None, wanted: Sequence[str]) -> Table:
    """Records and column names of a file; the columns `wanted` are there if the file has them, others may be.

    Raises:
        DataError: no such file, an unknown kind of file, or content that is not what the settings say.
    """
    if not path.is_file():
        near = nearest(path.name, [one.name for one in path.parent.iterdir()]) if path.parent.is_dir() else None
        raise DataError(said(f"no file {path}", "a data file", nearest=near))
    kind = path.suffix.lower()
    if kind not in EXTENSIONS:
        raise DataError(said(f"{path}: unknown kind of file {kind!r}", "one of " + ", ".join(EXTENSIONS)))
    if path.stat().st_size == 0:
        raise DataError(said(f"{path} is empty", "a data file with rows"))
    if kind == ".parquet":
        return _parquet(path, wanted)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    text = decoded(content, encoding, str(path))
    if kind in (".jsonl", ".ndjson"):
        return _jsonl(text, path)
    return _separated(text, separator or ("\t" if kind == ".tsv" else ","), wanted, path)


def decoded(content: bytes, encoding: str, where: str) -> str:
    """Decode strictly; a UTF-8 byte-order mark is dropped.

    Raises:
        DataError: names the first wrong line, and the encoding that the bytes look like.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not encoding.startswith("utf-16"):
        given = f"{where} is UTF-16 by its byte-order mark"
        raise DataError(said(given, encoding, do='set `encoding = "utf-16"` in [data]'))
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        given = f"{where}, line {line}: byte 0x{content[error.start]:02X} is not valid {encoding}"
        likely = likely_encoding(content)
        if likely is None:
            raise DataError(said(given, f"a file in {encoding}", do="repair that line or set `encoding`")) from None
        raise DataError(
            said(f"{given}; the file looks like {likely}", encoding, do=f'set `encoding = "{likely}"` in [data]')
        ) from None
    return text.removeprefix("\ufeff")


def likely_encoding(content: bytes) -> str | None:
    """The 8-bit encoding that bytes which are not UTF-8 look like, or None if they are nearly UTF-8 or unclear.

    Russian text is mostly lower case; read in another Cyrillic code page it turns into capitals or line-drawing signs,
    so the share of Russian lower-case letters among the signs above 0x7F tells the code pages apart. Western accents
    are told from Cyrillic by standing alone among ASCII letters.
    """
    high = sum(byte > 0x7F for byte in content)
    broken = content.decode("utf-8", errors="replace").count("\ufffd")
    if broken * 5 < high:  # most bytes above 0x7F form valid UTF-8: a damaged line, not another encoding
        return None

    def lower_case_share(encoding: str) -> float:
        signs = [sign for sign in content.decode(encoding, errors="replace") if sign > "\x7f"]
        return sum("а" <= sign <= "я" or sign == "ё" for sign in signs) / len(signs)

    in_runs = sum(len(run) for run in re.findall(rb"[\x80-\xff]{2,}", content))
    best = max(("cp1251", "koi8-r", "cp866"), key=lower_case_share)
    if in_runs > 0.5 * high and lower_case_share(best) > 0.6:
        return best
    western = [sign for sign in content.decode("cp1252", errors="replace") if sign > "\x7f"]
    return "cp1252" if sum(sign.isalpha() for sign in western) > 0.5 * len(western) else None


def _separated(text: str, separator: str, wanted: Sequence[str], path: Path) -> Table:
    lines = separated_lines(text, separator, str(path))
    _, header = next(lines, (0, list[str]()))
    if not any(header):
        raise DataError(said(f"{path} is empty", "a header line and rows"))
    if not set(wanted) <= set(header):
        _refuse_other_separator(text, header, separator, path)
    records: list[Record] = []
    for line, fields in lines:
        if len(fields) != len(header):
            raise DataError(
                said(
                    f"{path}, line {line}: {len(fields)} fields",
                    f"{len(header)} as in the header",
                    do='put texts that hold the separator in "quotes", or set `separator` in [data]',
                )
            )
        records.append(dict(zip(header, fields, strict=True)))
    return records, header


def separated_lines(text: str, separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank."""
    csv.field_size_limit(LONGEST_FIELD)  # the default refuses texts over 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(said(f"{where}, line {start}: {error}", "fields with closed, doubled quotes")) from None


def _refuse_other_separator(text: str, header: list[str], separator: str, path: Path) -> None:
    first = text.lstrip("\n").splitlines()[0]
    other = max(SEPARATORS, key=first.count)
    if len(header) > 1 or other == separator or other not in first:
        return
    shown = "\\t" if other == "\t" else other
    raise DataError(
        said(
            f"{path} looks separated by {shown!r} ({SEPARATORS[other]})",
            f"{separator!r} between columns",
            do=f'set `separator = "{shown}"` in [data]',
        )
    )


def _jsonl(text: str, path: Path) -> Table:
    records: list[Record] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(said(f"{path}, line {number}: {error.msg}", "one JSON object a line")) from None
        if not isinstance(record, dict):
            raise DataError(said(f"{path}, line {number}: {line[:40]!r}", "one JSON object a line"))
        records.append({str(key): value for key, value in record.items()})
    return records, sorted({key for record in records for key in record})


def _parquet(path: Path, wanted: Sequence[str]) -> Table:
    try:
        columns: list[str] = pq.read_schema(path).names
        return pq.read_table(path, columns=[one for one in wanted if one in columns]).to_pylist(), columns
    except (pa.ArrowException, OSError) as error:
        raise DataError(said(f"{path}: {str(error)[:120]}", "a Parquet file")) from None
