"""Local files as records: CSV, TSV, JSON (lines, or one array of objects), Parquet, and plain texts, one a line.

Not here: which columns mean what (`sources.py`). Text is decoded strictly and nothing is guessed at silently: a wrong
encoding, separator or quote is an error of one line that says where it is and which setting mends it, and so is a file
that is of another kind than its name says. What a spreadsheet writes as its own first line (`sep=;`) is understood.

    read_table(Path("reviews.csv"), Layout(), ["text", "label"])
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from paretune.core.config import nearest
from paretune.core.errors import DataError, LayoutError, said

T = TypeVar("T")
Record: TypeAlias = dict[str, object]
Table: TypeAlias = tuple[list[Record], list[str]]
Quoting: TypeAlias = Literal["double", "none"]

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
LONGEST_FIELD = 2**31 - 1
COLUMNS_SHOWN = 30
MOST_DIGITS = 4300  # of a whole number; Python refuses longer ones
HEADER_WITHIN = 10  # lines above the header that are looked through
BINARY_SHARE = 0.05  # of control characters, which texts hardly hold; of random bytes it is 0.11
CONTROL = bytes(sorted({*range(32), 127} - set(b"\t\n\v\f\r\x1a\x1b")))
JSON_ARRAY = re.compile(r"\s*\[\s*\{")
WHITE_SPACE = re.compile(r"\s*")
LINE_END = re.compile(r"\r\n|\r|\n")
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n)', re.IGNORECASE)
WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)

# First bytes of files that are often found under the name of another kind: what they are, and the way out.
SIGNS: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", "rename it to end in .parquet"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"\x1f\x8b", "packed by gzip", "unpack it first (gunzip)"),
    (b"\xfd7zXZ\x00", "packed by xz", "unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "unpack it first (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook", "save the sheet as CSV (UTF-8)"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"%PDF-", "a PDF document", "give a table of texts"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS", "fetch the file itself (git lfs pull)"),
)


@dataclass(frozen=True)
class Layout:
    """How files are laid out; `flags`: where settings are options of the command line, so that hints name those.

    `quoting` is "double" (fields may stand in double quotes, doubled inside), "none" (a quote is a character like
    others), or None: as "double", but a quoted field of a tab-separated file may hold no line end. Without a `header`
    columns are named by their positions from 1. `separator` and `header` do not concern JSON and Parquet. `settled`:
    the training file is read by these settings, so that hints about another file say to change that file.
    """

    encoding: str = "utf-8"
    separator: str | None = None
    quoting: Quoting | None = None
    header: bool = True
    flags: bool = False
    settled: bool = False

    def hint(self, setting: str, value: str) -> str:
        """How to set a setting, in the words of where settings are given."""
        if self.settled:
            return f"save it as the training file is: one `{setting}` holds for all files"
        if setting == "header":
            return "give `--no-header`" if self.flags else "set `header = false` in [data]"
        shown = "\\t" if value == "\t" else value
        if not self.flags:
            return f'set `{setting} = "{shown}"` in [data]'
        return f"give `--{setting} {shown}`" if re.fullmatch(r"[\w-]+", value) else f"give `--{setting} '{shown}'`"

    def fit(self, message: str, allowed: str, setting: str, value: str) -> LayoutError:
        """The error of a file that another value of one setting would fit."""
        return LayoutError(said(message, allowed, do=self.hint(setting, value)), setting, value)


def read_table(path: Path, layout: Layout, wanted: Sequence[str]) -> Table:
    """Records and column names of a file; the columns `wanted` are there if the file has them, others may be.

    Raises:
        DataError: no such file, an unknown kind of file, or content that is not what the settings say.
        LayoutError: a setting that fits the file is known.
    """
    if not path.is_file():
        raise DataError(_no_file(path))
    kind = path.suffix.lower()
    _refuse_other_kinds(path, kind)
    if kind not in EXTENSIONS:
        given = f"{path}: unknown kind of file {kind!r}" if kind else f"{path}: a name without an ending"
        raise DataError(said(given, "one of " + ", ".join(EXTENSIONS), do="rename the file after what is in it"))
    if path.stat().st_size == 0:
        raise DataError(said(f"{path} is empty", "a data file with rows"))
    if not layout.header and kind not in (".csv", ".tsv"):
        raise DataError(said(f"{path}: `header = false`", "a header setting for CSV and TSV files alone"))
    if kind == ".parquet":
        return _parquet(path, wanted)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    text = decoded(content, layout.encoding, str(path), layout)
    if kind in (".jsonl", ".ndjson", ".json"):
        return _json(text, wanted, path)
    if kind == ".txt":
        return _texts(text, wanted, path)
    return _separated(text, "\t" if kind == ".tsv" else ",", layout, wanted, path)


def _no_file(path: Path) -> str:
    """Why a path is no file that can be read, and the nearest name that might be meant."""
    if path.is_dir():
        return said(f"{path} is a folder", "a data file", do="name a file in it")
    if path.is_symlink() and not path.exists():
        return said(f"{path} is a link to {path.readlink()}, which is not there", "a data file")
    if path.exists():
        return said(f"{path} is no regular file", "a data file", do="save what it gives to a file first")
    names = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    return said(f"no file {path}", "a data file", nearest=nearest(path.name, names))


def _refuse_other_kinds(path: Path, kind: str) -> None:
    """Name a file by its first bytes where they are of another kind than its name says."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    found = next(((what, do) for sign, what, do in SIGNS if start.startswith(sign)), None)
    if start.startswith(b"PK\x03\x04"):
        found = _zipped(path)
    elif start.startswith(b"BZh") and start[4:10] == b"1AY&SY":
        found = ("packed by bzip2", "unpack it first (bunzip2)")
    elif WEB_PAGE.match(start):
        found = ("a web page", "download the file itself")
    if found is None or (kind == ".parquet" and start.startswith(b"PAR1")):
        return
    what, do = found
    raise DataError(said(f"{path} is {what}", "one of " + ", ".join(EXTENSIONS), do=do))


def _zipped(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook", "save the sheet as CSV (UTF-8)"
    if "content.xml" in names:
        return "an OpenDocument file", "save the sheet as CSV (UTF-8)"
    return "a zip archive", "unpack it first (unzip)"


# --- text -----------------------------------------------------------------------------------------------------------


def decoded(content: bytes, encoding: str, where: str, layout: Layout | None = None) -> str:
    """Decode strictly; a UTF-8 byte-order mark is dropped.

    Raises:
        LayoutError: names the encoding that the bytes look like.
        DataError: names the first wrong line.
    """
    layout = layout or Layout(encoding)
    wide = encoding.startswith(("utf-16", "utf-32"))
    if not wide and content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise layout.fit(f"{where} is UTF-32 by its byte-order mark", encoding, "encoding", "utf-32")
    if not wide and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise layout.fit(f"{where} is UTF-16 by its byte-order mark", encoding, "encoding", "utf-16")
    if not wide and (order := _wide_without_mark(content)):
        raise layout.fit(f"{where} looks like UTF-16 without a byte-order mark", encoding, "encoding", order)
    sample = content[:65_536]
    if not wide and len(sample) - len(sample.translate(None, CONTROL)) > BINARY_SHARE * len(sample):
        raise DataError(said(f"{where} looks like no text: it is full of control characters", "a data file of texts"))
    if not encoding.startswith("utf") and _is_utf8(content):
        raise layout.fit(f"{where} is valid UTF-8", encoding, "encoding", "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        given = f"{where}, line {line}: byte 0x{content[error.start]:02X} is not valid {encoding}"
        likely = likely_encoding(content)
        if likely is None or likely == encoding:
            raise DataError(said(given, f"a file in {encoding}", do="repair that line or set `encoding`")) from None
        raise layout.fit(f"{given}; the file looks like {likely}", encoding, "encoding", likely) from None
    _refuse_twice_encoded(text, where)
    return text.removeprefix("\ufeff")


def _refuse_twice_encoded(text: str, where: str) -> None:
    """Refuse UTF-8 that a program took for an 8-bit encoding and wrote as UTF-8 once more: no reader sees a word.

    Lines are judged whole; natural text hardly ever turns into valid UTF-8 when it is encoded by another encoding.
    """
    lines = [line for line in text[:262_144].splitlines() if not line.isascii()]
    for encoding in ("cp1251", "cp1252"):
        twice = [line for line in lines if _decoded_once_less(line, encoding) is not None]
        if len(twice) >= 3 and len(twice) > 0.5 * len(lines):
            given = f"{where}: UTF-8 that was read as {encoding} and written as UTF-8 again ({_short(twice[0])})"
            raise DataError(said(given, "text that was encoded once", do="export it again as UTF-8"))


def _decoded_once_less(line: str, encoding: str) -> str | None:
    """What a line was before it was read in `encoding`, if that can be; bytes that an encoding lacks stay."""
    try:
        known = [sign.encode("latin-1" if "\x80" <= sign <= "\x9f" else encoding) for sign in line]
        return b"".join(known).decode("utf-8")
    except UnicodeError:
        return None


def _wide_without_mark(content: bytes) -> str | None:
    """UTF-16 by its zero bytes: of separators, line ends and ASCII letters they all stand at odd, or all at even."""
    sample = content[:65_536]
    odd, even = sample[1::2].count(0), sample[0::2].count(0)
    if odd + even < max(2, 0.01 * len(sample)) or 0.1 * max(odd, even) < min(odd, even):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_utf8(content: bytes) -> bool:
    """Whether bytes are UTF-8 beyond chance: text in another encoding hardly ever forms even three sequences."""
    if content.isascii():
        return False
    try:
        return sum(sign > "\x7f" for sign in content.decode("utf-8")) >= 3
    except UnicodeDecodeError:
        return False


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
    best = max(("cp1251", "koi8-r", "cp866", "mac-cyrillic"), key=lower_case_share)
    if in_runs > 0.5 * high and lower_case_share(best) > 0.6:
        return best
    western = [sign for sign in content.decode("cp1252", errors="replace") if sign > "\x7f"]
    alone = in_runs <= 0.5 * high  # not so in Chinese or Japanese
    return "cp1252" if alone and sum(sign.isalpha() for sign in western) > 0.5 * len(western) else None


# --- separated columns ----------------------------------------------------------------------------------------------


def _separated(text: str, usual: str, layout: Layout, wanted: Sequence[str], path: Path) -> Table:
    said_first = SEPARATOR_LINE.match(text)  # Excel's own line, which says the separator
    separator = layout.separator or (said_first[1] if said_first else usual)
    body = text[said_first.end() :] if said_first else text
    lines = list(separated_lines(body, separator, str(path), layout, 2 if said_first else 1))
    if layout.header:  # a spreadsheet may begin with empty rows
        lines = list(dropwhile(lambda one: not any(cell.strip() for cell in one[1]), lines))
    if not lines:
        raise DataError(said(f"{path} is empty", "a header line and rows" if layout.header else "rows"))
    first = lines[0][1]
    header, rows = (_names(first), lines[1:]) if layout.header else ([str(i + 1) for i in range(len(first))], lines)
    if not set(wanted) <= set(header):
        _refuse_json(body, layout, path)
        _refuse_other_separator(body, first, separator, layout, path)
        below = next((line for line, fields in rows[:HEADER_WITHIN] if set(wanted) <= set(_names(fields))), None)
        if layout.header and below is not None:
            given = f"{path}: the names of the columns stand in line {below}"
            raise DataError(said(given, "them in the first line", do="remove the lines above it"))
        if layout.header and looks_like_data(first, [fields for _, fields in rows]):
            given = f"{path} has no column {next(one for one in wanted if one not in header)!r}: its first line looks "
            given += f"like a row ({', '.join(_short(one) for one in first[:5])})"
            do = layout.hint("header", "false")
            do += "" if layout.settled else f" and name columns by their positions: {_positions(layout)}"
            raise LayoutError(said(given, "a line with the names of the columns", do=do), "header", "false")
    _refuse_repeated(header, wanted, str(path))
    if len(header) > 1:  # a line of spaces is no row; of one column it is an empty one
        rows = [one for one in rows if len(one[1]) > 1 or one[1][0].strip()]
    records: list[Record] = []
    for line, fields in rows:
        if len(fields) != len(header):
            do = f'put texts that hold the separator in "quotes", or {layout.hint("separator", _other(separator))}'
            if len(fields) < len(header):
                do = "every row needs all its separators; a text of several lines stands in quotes"
            if separator == "\t" and layout.quoting is None:
                do = f"every row needs all its tabs; {layout.hint('quoting', 'none')} if quotes are plain characters"
            allowed = f"{len(header)} as in the {'header' if layout.header else 'first line'}"
            raise DataError(said(f"{path}, line {line}: {len(fields)} field{'s' * (len(fields) != 1)}", allowed, do=do))
        if layout.header and fields == first:
            raise DataError(said(f"{path}, line {line}: the header again", "one header", do="remove that line"))
        records.append(dict(zip(header, fields, strict=True)))
    if layout.quoting is None:
        _refuse_swallowed(rows, records, separator, layout, wanted, path)
    return records, header


def separated_lines(
    text: str, separator: str, where: str, layout: Layout | None = None, first_line: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank."""
    layout = layout or Layout()
    csv.field_size_limit(LONGEST_FIELD)  # the default refuses texts over 128 KiB
    quoting = csv.QUOTE_NONE if layout.quoting == "none" else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, quoting=quoting)
    start = first_line
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + first_line
    except csv.Error as error:
        reason = str(error).replace("\t", "\\t")
        if reason == "unexpected end of data":
            last = reader.line_num + first_line - 1
            reason = "a quote opens and never closes" + (f", to line {last}, the last" if last > start else "")
        do = f"{layout.hint('quoting', 'none')} if quotes are plain characters there"
        raise DataError(said(f"{where}, line {start}: {reason}", "fields with closed, doubled quotes", do=do)) from None


def _names(cells: Sequence[str]) -> list[str]:
    """Names of columns, without the spaces that some write after each comma."""
    return [cell.strip() for cell in cells]


def _refuse_json(text: str, layout: Layout, path: Path) -> None:
    """Name JSON under the name of a table."""
    first = text.lstrip()[:1000]
    if layout.header and re.match(r"\[?\s*\{\s*\"", first):
        raise DataError(said(f"{path} looks like JSON", "columns", do="rename it to end in .json"))


def looks_like_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether what should be a header is a row: a number, a whole sentence, or a value that its own column repeats."""
    for column, cell in enumerate(first):
        if re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", cell) or len(cell.split()) >= 5 or len(cell) > 60:
            return True
        if cell.strip() and any(len(row) > column and row[column] == cell and row != first for row in rows):
            return True
    return False


def _refuse_swallowed(
    rows: Sequence[tuple[int, list[str]]],
    records: Sequence[Record],
    separator: str,
    layout: Layout,
    wanted: Sequence[str],
    path: Path,
) -> None:
    """Refuse a quoted field that holds whole rows: two stray quotes make one text of all that lies between them.

    In a tab-separated file, where most programs write no quotes, a line end in a field is enough. Elsewhere texts may
    have several lines; there the lines inside must split into as many fields as the header, with known values in a
    wanted column.
    """
    known = {name: Counter(record[name] for record in records) for name in wanted if records and name in records[0]}
    for (line, fields), record in zip(rows, records, strict=True):
        held = next((one for one in fields if "\n" in one.strip("\r\n") or "\r" in one.strip("\r\n")), None)
        if held is None:
            continue
        inside = held.splitlines()
        names = list(record)

        def is_row(one: str, names: Sequence[str] = names, record: Record = record) -> bool:
            parts = one.split(separator)
            return len(parts) == len(names) and any(
                name in known and known[name][part] > (record[name] == part)
                for name, part in zip(names, parts, strict=True)
            )

        whole = inside[1:-1]
        if separator != "\t" and not (whole and all(is_row(one) for one in whole)):
            continue
        last = line + len(inside) - 1
        given = f"{path}, lines {line} to {last}: one quoted field holds {len(inside) - 1} line ends"
        raise DataError(
            said(
                given,
                "one row a line",
                do=f"{layout.hint('quoting', 'none')} if quotes are plain characters there, "
                f"{layout.hint('quoting', 'double')} if that text has several lines",
            )
        )


def _refuse_other_separator(text: str, header: list[str], separator: str, layout: Layout, path: Path) -> None:
    first = text.lstrip("\n").splitlines()[0]
    other = max(SEPARATORS, key=first.count)
    if len(header) > 1 or other == separator or other not in first:
        return
    shown = "\\t" if other == "\t" else other
    given = f"{path} looks separated by {shown!r} ({SEPARATORS[other]})"
    raise layout.fit(given, f"{separator!r} between columns", "separator", other)


def _refuse_repeated(columns: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """A column that is wanted and stands there twice; others are nobody's concern."""
    for name in wanted:
        positions = [str(i) for i, one in enumerate(columns, start=1) if one == name]
        if len(positions) > 1:
            given = f"{where}: column {name!r} stands there {len(positions)} times, as column {' and '.join(positions)}"
            raise DataError(said(given, "each name once", do="rename all but one of them"))


def _other(separator: str) -> str:
    return ";" if separator != ";" else ","


def _positions(layout: Layout) -> str:
    return "`--text 1 --label 2`" if layout.flags else '`text = "1"`, `label = "2"`'


def _short(value: str) -> str:
    return repr(value if len(value) <= 30 else value[:29] + "…")


# --- JSON -----------------------------------------------------------------------------------------------------------


def _json(text: str, wanted: Sequence[str], path: Path) -> Table:
    """Records of a file of JSON lines, or of one array of objects."""
    records: list[Record] = []
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> Record:
        """An object; `repeated` ends as that of the outermost, which is made last."""
        repeated[:] = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
        return dict(pairs)

    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_int=_whole_number)
    found = _json_array(text, decoder, path) if JSON_ARRAY.match(text) else _json_lines(text, decoder, path)
    for where, record in found:
        if not isinstance(record, dict):
            raise DataError(said(f"{where}: {_start(record)}", "one JSON object a line"))
        for key in repeated:
            if key in wanted:
                raise DataError(said(f"{where}: key {key!r} stands there twice", "each key once"))
        for key in record:
            if not is_unicode(key):
                raise DataError(said(f"{where}: a key has half a surrogate pair", "valid Unicode"))
        records.append(record)
    columns = sorted({key for record in records for key in record})
    if len(records) == 1 and all(isinstance(records[0].get(name), (list, dict)) for name in wanted):
        do = "write one object for each row (pandas: `to_json(…, orient='records', lines=True)`)"
        raise DataError(said(f"{path}: one object that holds whole columns", "one JSON object a row", do=do))
    return records, columns


def _json_lines(text: str, decoder: json.JSONDecoder, path: Path) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            whole = number == 1 and line.lstrip().startswith(("[", "{")) and not line.rstrip().endswith(("]", "}"))
            do = "write each record on a line of its own" if whole else None
            yield where, _value(partial(decoder.decode, line), where, do)


def _json_array(text: str, decoder: json.JSONDecoder, path: Path) -> Iterator[tuple[str, object]]:
    place, number = text.index("[") + 1, 0
    while text[place : place + 1] != "]":
        number += 1
        where = f"{path}, record {number}"
        value, place = _value(partial(decoder.raw_decode, text, _next_sign(text, place)), where)
        yield where, value
        place = _next_sign(text, place)
        if text[place : place + 1] not in (",", "]"):
            raise DataError(said(f"{where}: the list ends after it without a bracket", "',' or ']'"))
        place += text[place] == ","
    if text[place + 1 :].strip():
        raise DataError(said(f"{path}: more after the list of {number:,} records", "one list, or one object a line"))


def _next_sign(text: str, place: int) -> int:
    return WHITE_SPACE.match(text, place).end()  # pyright: ignore[reportOptionalMemberAccess] it matches nothing too


def _value(decode: Callable[[], T], where: str, do: str | None = None) -> T:
    """What a decoder makes of some JSON.

    Raises:
        DataError: one line for whatever it cannot decode.
    """
    try:
        return decode()
    except json.JSONDecodeError as error:
        raise DataError(said(f"{where}: {error.msg}", "one JSON object a line", do=do)) from None
    except ValueError as error:
        raise DataError(said(f"{where}: {error}", f"numbers of at most {MOST_DIGITS:,} digits")) from None
    except RecursionError:
        raise DataError(said(f"{where}: lists or objects nested too deeply", "a flat JSON object")) from None


def _start(value: object) -> str:
    return repr(json.dumps(value)[:40])


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def is_unicode(text: str) -> bool:
    """Whether a string can be written at all: half a surrogate pair, which JSON can escape, cannot."""
    return text.isascii() or text.encode("utf-8", "ignore").decode("utf-8") == text


# --- texts alone ----------------------------------------------------------------------------------------------------


def _texts(text: str, wanted: Sequence[str], path: Path) -> Table:
    """Each line that is not blank as a record with a `text`."""
    lines = [line for line in LINE_END.split(text) if line.strip()]
    if lines and sum("\t" in line for line in lines) > 0.5 * len(lines):
        do = "rename it to end in .tsv"
        raise DataError(said(f"{path} holds columns between tabs", "in a .txt file one text a line", do=do))
    if others := [one for one in wanted if one != "text"]:
        given = f"{path} holds texts alone, one a line, and no column {others[0]!r}"
        raise DataError(said(given, "a table (.csv, .tsv, .jsonl, .parquet)"))
    return [{"text": line} for line in lines], ["text"]


# --- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(path: Path, wanted: Sequence[str]) -> Table:
    try:
        columns: list[str] = pq.read_schema(path).names
        _refuse_repeated(columns, wanted, str(path))
        table = pq.read_table(path, columns=[one for one in wanted if one in columns])
    except (pa.ArrowException, OSError) as error:
        raise DataError(said(f"{path}: {str(error)[:120]}", "a Parquet file")) from None
    try:
        return table.to_pylist(), columns
    except UnicodeDecodeError:
        raise DataError(_broken_string(table, path)) from None
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise DataError(said(f"{path}: {' '.join(str(error).split())[:120]}", "values that Python can hold")) from None


def _broken_string(table: pa.Table, path: Path) -> str:
    """Which row of a column of strings is not valid UTF-8."""
    for name in table.column_names:
        for row, value in enumerate(table[name], start=1):
            try:
                value.as_py()
            except UnicodeDecodeError:
                return said(f"{path}, row {row}: the {name!r} is not valid UTF-8", "strings in UTF-8")
    return said(f"{path}: a string is not valid UTF-8", "strings in UTF-8")
