"""Files that were read as something else in silence: each is refused with its place, or read for what it is.

PYTHONPATH=src python -m pytest tests/unit/test_files.py
"""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paretune.core.errors import DataError, LayoutError
from paretune.data.files import Layout, decoded, likely_encoding, read_table
from paretune.data.sources import DataSpec, Rows, as_label, read_rows

FOODS = ("garlic soup and onion", "pepper on a salad", "dough in the oven", "an old sauce")
PAIRS = [(f"{text} number {i}", "food" if i % 2 else "money") for i in range(6) for text in FOODS]


def read(folder: Path, name: str, content: bytes | str | pa.Table, **settings: object) -> Rows:
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    spec = DataSpec.model_validate({"train": f"path:{name}", **settings})
    return read_rows(spec.train, spec, folder, "train")


def refusal(folder: Path, name: str, content: bytes | str | pa.Table, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, name, content, **settings)
    message = str(caught.value)
    assert "\n" not in message and name in message
    return message


def tsv(pairs: list[tuple[str, str]]) -> str:
    return "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in pairs)


def jsonl(*records: object) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


# --- labels that are none of one class ------------------------------------------------------------------------------

SEVERAL = (["food"], ["food", "sport"], [], {"food": 1}, [[1]], [0, 1, 0])


@pytest.mark.parametrize("label", SEVERAL, ids=str)
def test_a_label_of_several_values_is_refused_with_its_row(tmp_path: Path, label: object) -> None:
    """A list or an object never becomes a class by being printed, in JSON lines or Parquet."""
    message = refusal(tmp_path, "a.jsonl", jsonl({"text": "a", "label": "x"}, {"text": "b", "label": label}))
    assert "row 2: the label is a" in message and "one label a text" in message
    if isinstance(label, list):
        assert "does not have yet" in message
        table = pa.table({"text": ["a"], "label": [label]})
        assert "row 1: the label is a list" in refusal(tmp_path, "a.parquet", table)


def test_a_nested_label_in_parquet_is_refused(tmp_path: Path) -> None:
    """A struct or a map is an object."""
    table = pa.table({"text": ["a", "b"], "label": [None, {"name": "x", "score": 1.0}]})
    assert "row 2: the label is an object ({'name': 'x', 'score': 1.0})" in refusal(tmp_path, "a.parquet", table)


@pytest.mark.parametrize(
    ("array", "labels"),
    [
        (pa.array([1, 0]), ("1", "0")),
        (pa.array([1.0, None]), ("1", "")),
        (pa.array([float("nan"), -0.0]), ("", "0")),
        (pa.array([True, False]), ("true", "false")),
        (pa.array(["1.0", "1"]), ("1", "1")),
        (pa.array([decimal.Decimal("1.00"), decimal.Decimal("2.50")]), ("1", "2.50")),
        (pa.array([b"food", "плохо".encode()]), ("food", "плохо")),
        (pa.array(["a", "b"]).dictionary_encode(), ("a", "b")),
        (pa.array([datetime.date(2024, 1, 2), None]), ("2024-01-02", "")),
        (pa.array([datetime.datetime(2024, 1, 2, 3), None]), ("2024-01-02 03:00:00", "")),
        (pa.array(["\u200b", " \u00a0"]), ("", "")),
        (pa.nulls(2), ("", "")),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_every_plain_type_of_parquet_is_a_label(tmp_path: Path, array: pa.Array, labels: tuple[str, str]) -> None:
    """Numbers, booleans, dates, bytes, dictionaries and gaps have one spelling each; missing is empty."""
    assert read(tmp_path, "a.parquet", pa.table({"text": ["a", "b"], "label": array})).labels == labels


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("1.0", "1"),
        ("10.000", "10"),
        ("-3.0", "-3"),
        ("-0.0", "0"),
        ("1.5", "1.5"),
        ("01", "01"),
        ("01.0", "01.0"),
        ("1.0.0", "1.0.0"),
        ("v1.0", "v1.0"),
        ("1e0", "1e0"),
        ("\ufeff", ""),
    ],
)
def test_a_whole_number_that_was_a_float_is_the_number(value: str, label: str) -> None:
    """`1.0` in text is `1`, as it is in a typed file; what is no number stays as it is written."""
    assert as_label(value) == label


def test_whole_and_float_labels_of_two_files_are_one_class(tmp_path: Path) -> None:
    """A column that pandas made floats because of a gap has the classes of the file without one."""
    train = read(tmp_path, "a.csv", "text,label\na,1\nb,0\n")
    test = read(tmp_path, "b.csv", "text,label\na,1.0\nb,0.0\nc,\n")
    assert (set(train.labels), test.labels) == ({"0", "1"}, ("1", "0", ""))


def test_ids_keep_their_spelling(tmp_path: Path) -> None:
    """Only labels are numbers: rows called `1` and `1.0` are two."""
    assert read(tmp_path, "a.csv", "n,text,label\n1,a,x\n1.0,b,y\n", id="n").ids == ("1", "1.0")


# --- bytes and strings that are no text -----------------------------------------------------------------------------


def test_bytes_are_read_as_utf8_or_refused_with_the_row(tmp_path: Path) -> None:
    """A binary column is text if it is UTF-8, in texts, labels and ids; else the row is named."""
    good = pa.table({"text": ["суп".encode(), b"b"], "label": [b"x", b"y"], "n": [b"1", b"2"]})
    assert read(tmp_path, "a.parquet", good, id="n") == Rows(("1", "2"), ("суп", "b"), ("x", "y"))
    broken = {"text": ["суп".encode("cp1251"), b"b"], "label": [b"\xff", b"y"], "n": [b"\xfe", b"2"]}
    for column, said in (("text", "the text"), ("label", "the label"), ("n", "the id")):
        fields = {name: broken[name] if name == column else [b"a", b"b"] for name in broken}
        message = refusal(tmp_path, "a.parquet", pa.table(fields), id="n")
        assert f"row 1: {said} is bytes that are not valid UTF-8" in message


def test_a_string_column_that_holds_other_bytes_is_refused(tmp_path: Path) -> None:
    """Parquet's strings may hold anything; the row that is not UTF-8 is named."""
    binary = pa.array([b"fine", "суп".encode("cp1251")], pa.binary())
    strings = pa.Array.from_buffers(pa.string(), 2, binary.buffers())
    assert "row 2: the 'text' is not valid UTF-8" in refusal(
        tmp_path, "a.parquet", pa.table({"text": strings, "label": ["x", "y"]})
    )


@pytest.mark.parametrize("column", ["text", "label", "n"])
def test_half_a_surrogate_pair_is_refused_with_the_row(tmp_path: Path, column: str) -> None:
    """What JSON can escape and nothing can write is refused, wherever it stands."""
    record = {"text": "a", "label": "x", "n": "1", column: "happy \ud83d"}
    message = refusal(tmp_path, "a.jsonl", jsonl(record), id="n")
    assert "row 1: the " in message and "half a surrogate pair" in message
    message.encode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": ' + "[" * 100_000 + "]" * 100_000 + ', "label": "x"}', "line 2: lists or objects nested too deeply"),
        ('{"text": "a", "label": ' + "7" * 5000 + "}", "line 2: a number of 5,000 digits"),
        ('{"text": "a", "label": -' + "7" * 5000 + "}", "line 2: a number of 5,001 digits"),
        ('{"\\ud83d": "a", "label": "x"}', "line 2: a key has half a surrogate pair"),
        ('{"text": "a", "label": "x", "label": "y"}', "line 2: key 'label' stands there twice"),
        ('{"text": "a", "label": "x"', "line 2: Expecting ',' delimiter"),
        ('{"text": {"ru": "a"}, "label": "x"}', "row 2: the text is a dict"),
    ],
    ids=["deep", "long number", "long negative", "key", "key twice", "open", "text of parts"],
)
def test_broken_json_is_one_line(tmp_path: Path, line: str, said: str) -> None:
    """File, line and what is wrong, whatever the parser stumbles over."""
    assert said in refusal(tmp_path, "a.jsonl", jsonl({"text": "fine", "label": "x"}) + line + "\n")


def test_a_repeated_key_of_no_concern_is_left_alone(tmp_path: Path) -> None:
    """Only keys that are read must be unique, and only those of the record itself."""
    line = '{"text": "a", "label": "x", "more": 1, "more": {"text": 1, "text": 2}}\n'
    assert read(tmp_path, "a.jsonl", line).texts == ("a",)


# --- columns --------------------------------------------------------------------------------------------------------


def test_a_wanted_column_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    """Both positions are named, in CSV and Parquet; a repeated column that nobody reads is no matter."""
    header = "text,label,reviewer,label\n"
    assert "column 'label' stands there 2 times, as column 2 and 4" in refusal(tmp_path, "a.csv", header + "a,x,q,y\n")
    assert read(tmp_path, "a.csv", header + "a,x,q,y\n", label="reviewer").labels == ("q",)
    assert read(tmp_path, "a.csv", "text,label,,\na,x,,\n").labels == ("x",)
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array(["x"])], names=["text", "text", "label"])
    assert "column 'text' stands there 2 times, as column 1 and 2" in refusal(tmp_path, "a.parquet", twice)


def test_a_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    """Files that were joined with their headers do not get a class `label`."""
    assert "line 3: the header again" in refusal(tmp_path, "a.csv", "text,label\na,x\ntext,label\nb,y\n")


@pytest.mark.parametrize(
    "first",
    ["please pay the bill now,money", "a bill,money", "a bill,1", "short,3.5"],
    ids=["words", "value", "1", "3.5"],
)
def test_a_file_without_a_header_is_seen_and_read_by_position(tmp_path: Path, first: str) -> None:
    """A first line that is a row is named as such with the setting, and the setting makes it a row."""
    content = first + "\nsee you at noon,date\nanother bill,money\na third bill,money\n"
    message = refusal(tmp_path, "a.csv", content)
    assert "its first line looks like a row" in message and "set `header = false`" in message
    rows = read(tmp_path, "a.csv", content, header=False, text="1", label="2")
    assert (len(rows), rows.texts[0]) == (4, first.split(",")[0])
    assert "no column '3'; expected one of 1, 2" in refusal(tmp_path, "a.csv", content, header=False, text="3")


def test_a_header_that_is_one_is_not_doubted(tmp_path: Path) -> None:
    """A missing column of an ordinary file is a missing column."""
    assert "expected one of body, kind" in refusal(tmp_path, "a.csv", "body,kind\nplease pay,money\nsee you,date\n")
    assert "header = false" in refusal(tmp_path, "a.jsonl", jsonl({"text": "a", "label": "x"}), header=False)


# --- quotes ---------------------------------------------------------------------------------------------------------


def stray(*at: int, end: int | None = None) -> list[tuple[str, str]]:
    pairs = [(('"' if i in at else "") + text, label) for i, (text, label) in enumerate(PAIRS)]
    return [(text + '"' if i == end else text, label) for i, (text, label) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (stray(4, end=9), "lines 6 to 11: one quoted field holds 5 line ends"),
        (stray(4), "line 6: a quote opens and never closes, to line 25, the last"),
        ([('"wow" ' + PAIRS[0][0], "food"), *PAIRS], "line 2: '\\t' expected after"),
        ([('"two\nlines"', "food"), *PAIRS], "lines 2 to 3: one quoted field holds 1 line ends"),
    ],
    ids=["two strays", "one stray", "a quoted word", "two lines"],
)
def test_a_quote_in_tab_separated_text_swallows_no_row(tmp_path: Path, pairs: list[tuple[str, str]], said: str) -> None:
    """The lines are named with the setting, and `quoting = "none"` reads every line as a row."""
    message = refusal(tmp_path, "a.tsv", tsv(pairs))
    assert said in message and 'set `quoting = "none"`' in message
    plain = [(text.replace("\n", " "), label) for text, label in pairs]
    assert read(tmp_path, "a.tsv", tsv(plain), quoting="none") == Rows(
        tuple(f"train-{i + 1}" for i in range(len(plain))), *zip(*plain, strict=True)
    )


def test_several_lines_in_a_tab_separated_text_can_be_meant(tmp_path: Path) -> None:
    """`quoting = "double"` reads what a spreadsheet quotes."""
    content = 'text\tlabel\n"two\nlines, ""quoted"""\tx\nplain\ty\n'
    assert read(tmp_path, "a.tsv", content, quoting="double").texts == ('two\nlines, "quoted"', "plain")


def test_a_quote_in_comma_separated_text_swallows_no_row(tmp_path: Path) -> None:
    """Texts of several lines stay allowed, but not those whose lines are rows with known labels."""
    lines = [f"{text},{label}" for text, label in PAIRS]
    lines[4], lines[9] = '"' + lines[4], lines[9].replace(",", '",')
    content = "text,label\n" + "\n".join(lines) + "\n"
    assert "lines 6 to 11: one quoted field holds 5 line ends" in refusal(tmp_path, "a.csv", content)
    assert len(read(tmp_path, "a.csv", content, quoting="none")) == len(PAIRS)
    letter = '"Dear all,\nwe met, we ate\nfood, wine\n\nYours, Anna"'
    rows = read(tmp_path, "a.csv", f"text,label\n{letter},food\nplain,money\n")
    assert rows.texts[0] == letter.strip('"')


# --- files of another kind than their name says ---------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"], "label": ["x"]}), buffer)
    return buffer.getvalue()


OTHER_KINDS = {
    "gzip": (gzip.compress(b"text,label\n"), "packed by gzip", "unpack"),
    "bzip2": (bz2.compress(b"text,label\n" * 9), "packed by bzip2", "unpack"),
    "xz": (lzma.compress(b"text,label\n"), "packed by xz", "unpack"),
    "xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook", "as CSV"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Excel workbook", "as CSV"),
    "ods": (zipped("mimetype", "content.xml"), "an OpenDocument file", "as CSV"),
    "zip": (zipped("data.csv"), "a zip archive", "unpack"),
    "torn zip": (zipped("data.csv")[:40], "a zip archive", "unpack"),
    "parquet": (parquet(), "a Parquet file", ".parquet"),
    "web page": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page", "download"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS", "fetch"),
    "PDF": (b"%PDF-1.7\n", "a PDF document", "table"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("name", ["data.csv", "data.jsonl", "data.xlsx"])
def test_a_file_is_named_by_its_first_bytes(tmp_path: Path, kind: str, name: str) -> None:
    """What a download or a spreadsheet left under a wrong name is named for what it is, with the way out."""
    content, what, do = OTHER_KINDS[kind]
    message = refusal(tmp_path, name, content)
    assert f"{name} is {what}" in message and do in message


def test_another_kind_named_parquet_is_named_too(tmp_path: Path) -> None:
    """The check goes both ways."""
    assert "is packed by gzip" in refusal(tmp_path, "a.parquet", OTHER_KINDS["gzip"][0])


@pytest.mark.parametrize("separator", [";", ",", "|", "\t"])
@pytest.mark.parametrize("first", ["sep={}\n", "SEP={}\r\n", '"sep={}"\n', "\ufeffsep={}\r\n"])
def test_excels_separator_line_is_understood(tmp_path: Path, first: str, separator: str) -> None:
    """The line sets the separator, is no header, and is counted in the lines of an error."""
    content = first.format(separator) + separator.join(("text", "label")) + "\n" + separator.join(("a", "x")) + "\n"
    assert read(tmp_path, "a.csv", content) == Rows(("train-1",), ("a",), ("x",))
    assert "line 4: 1 field;" in refusal(tmp_path, "a.csv", content + "lonely\n")


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark_is_seen(tmp_path: Path, order: str) -> None:
    """Zero bytes at every other place are named UTF-16, in English and in Russian, and the setting reads it."""
    for text in ("text,label\nhello there,x\nbye,y\n", "text,label\nпривет всем,x\nпока,y\n"):
        content = text.encode(order)
        assert f'set `encoding = "{order}"`' in refusal(tmp_path, "a.csv", content)
        assert read(tmp_path, "a.csv", content, encoding=order).labels == ("x", "y")


def test_utf32_is_named() -> None:
    """Its byte-order mark begins like that of UTF-16."""
    with pytest.raises(LayoutError, match="is UTF-32") as caught:
        decoded("text,label\na,x\n".encode("utf-32"), "utf-8", "a.csv")
    assert (caught.value.setting, caught.value.value) == ("encoding", "utf-32")


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "latin-1"])
def test_utf8_read_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    """A wrong 8-bit encoding, which decodes anything, does not turn Russian into mojibake."""
    content = "text,label\nпривет всем,x\nпока,y\n"
    assert "is valid UTF-8; expected" in (message := refusal(tmp_path, "a.csv", content, encoding=encoding))
    assert 'set `encoding = "utf-8"`' in message


# --- hints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "in_file", "as_flag"),
    [
        ("encoding", "cp1251", 'set `encoding = "cp1251"` in [data]', "give `--encoding cp1251`"),
        ("separator", ";", 'set `separator = ";"` in [data]', "give `--separator ';'`"),
        ("quoting", "none", 'set `quoting = "none"` in [data]', "give `--quoting none`"),
        ("header", "false", "set `header = false` in [data]", "give `--no-header`"),
    ],
)
def test_hints_are_in_the_words_of_where_settings_are_given(
    setting: str, value: str, in_file: str, as_flag: str
) -> None:
    """A study file has settings, the command line has options."""
    assert (Layout().hint(setting, value), Layout(flags=True).hint(setting, value)) == (in_file, as_flag)


def test_settings_left_alone_are_not_written_into_records() -> None:
    """Records from before there were these settings keep their hashes."""
    assert not {"quoting", "header"} & DataSpec(train="path:a.csv").model_dump(mode="json").keys()
    set_ones = DataSpec(train="path:a.csv", quoting="none", header=False).model_dump(mode="json")
    assert (set_ones["quoting"], set_ones["header"]) == ("none", False)


# --- what a stranger's folder holds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_objects_is_read_as_its_records(tmp_path: Path, name: str, indent: int | None) -> None:
    """A list of objects, on one line or on many, gives the rows that lines give; a `.json` of lines is read too."""
    records = [{"text": "a [1, 2] {", "label": "x"}, {"label": 1.0, "text": "b"}]
    rows = read(tmp_path, name, json.dumps(records, indent=indent) + "\n")
    assert (rows.texts, rows.labels) == (("a [1, 2] {", "b"), ("x", "1"))
    assert read(tmp_path, name, jsonl(*records)).texts == rows.texts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a", "label": 1}', "record 1: the list ends after it"),
        ('[{"text": "a", "label": 1}, {"text"}]', "record 2: Expecting ':' delimiter"),
        ('[{"text": "a", "label": 1}, 5]', "record 2: '5'; expected one JSON object"),
        ('[{"text": "a", "label": 1, "label": 2}]', "record 1: key 'label' stands there twice"),
        ('[{"text": "a", "label": 1}]\n[{"text": "b", "label": 2}]', "more after the list of 1 records"),
        ('{"text": {"0": "a"}, "label": {"0": "x"}}', "one object that holds whole columns"),
        ('{"text": ["a"], "label": ["x"]}', "one object that holds whole columns"),
    ],
)
def test_a_broken_array_names_its_record(tmp_path: Path, content: str, said: str) -> None:
    """Whatever is wrong with a list is one line with the file and the record."""
    assert said in refusal(tmp_path, "a.json", content)


def test_a_text_file_is_one_text_a_line(tmp_path: Path) -> None:
    """A `.txt` holds texts alone; one with tabs, or where labels are wanted, is refused with the way out."""
    path = tmp_path / "a.txt"
    path.write_text("one, two\r\n\n  \n«три»\u2028четыре\n", encoding="utf-8", newline="")
    assert read_table(path, Layout(), ["text"])[0] == [{"text": "one, two"}, {"text": "«три»\u2028четыре"}]
    assert "holds texts alone, one a line, and no column 'label'" in refusal(tmp_path, "a.txt", "one\ntwo\n")
    assert "rename it to end in .tsv" in refusal(tmp_path, "a.txt", tsv([("a", "x"), ("b", "y")]))


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    """A folder, a broken link and a device are not "no file", and are never their own nearest name."""
    (tmp_path / "dir.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("gone.csv")
    for name, said in (("dir.csv", "is a folder"), ("link.csv", "is a link to gone.csv, which is not there")):
        with pytest.raises(DataError) as caught:
            read_table(tmp_path / name, Layout(), ["text"])
        assert said in str(caught.value) and "did you mean" not in str(caught.value)
    with pytest.raises(DataError, match="/dev/null is no regular file"):
        read_table(Path("/dev/null"), Layout(), ["text"])


@pytest.mark.parametrize(
    "content",
    [
        "text, label\na,x\nb,y\n",
        " text ,\tlabel\na,x\nb,y\n",
        "\n,,\n\ntext,label\na,x\nb,y\n",
        "   \ntext,label\na,x\n   \nb,y\n  \n",
    ],
)
def test_spaces_around_names_and_empty_lines_change_nothing(tmp_path: Path, content: str) -> None:
    """What spreadsheets and hands put around a table is no part of it."""
    rows = read(tmp_path, "a.csv", content)
    assert (rows.texts, rows.labels) == (("a", "b"), ("x", "y"))


def test_a_blank_row_of_one_column_stays_a_row(tmp_path: Path) -> None:
    """In a file of one column a line of spaces is an empty text, which cleaning counts."""
    path = tmp_path / "a.csv"
    path.write_text("text\na\n \nb\n", encoding="utf-8")
    assert [one["text"] for one in read_table(path, Layout(), ["text"])[0]] == ["a", " ", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# made by a tool of ours\ntext,label\na,x\n", "the names of the columns stand in line 2"),
        ("Report;;\n\ntext;label;n\na;x;1\n", "the names of the columns stand in line 3"),
        ('{"text": "a", "label": "x"}\n', "looks like JSON"),
        ('[{"text": "a", "label": "x"}]\n', "looks like JSON"),
        ("text,label,note\na,x\n", "line 2: 2 fields; expected 3 as in the header — every row needs all"),
        ("text,label\nab\n", "line 2: 1 field; expected 2"),
        ('text, "label"\na,x\n', "expected one of text, '\"label\"'"),
        (" \n\n  \n", "is empty"),
    ],
)
def test_a_table_that_is_none_says_where_it_goes_wrong(tmp_path: Path, content: str, said: str) -> None:
    """Lines above the header, JSON under the name of a table, missing separators: each is named."""
    separator = ";" if ";" in content else ","
    assert said in refusal(tmp_path, "a.csv", content, separator=separator)


@pytest.mark.parametrize("encoding", ["cp1251", "cp1252"])
def test_text_that_was_encoded_twice_is_refused(tmp_path: Path, encoding: str) -> None:
    """UTF-8 read as an 8-bit encoding and written again is named; text encoded once, and one stray line, pass."""
    words = ["и снова да", "нет и нет", "это все"] if encoding == "cp1251" else ["déjà vu", "garçon", "là-bas"]
    rows = "".join(f"{word},{'xy'[i % 2]}\n" for i, word in enumerate(words))
    twice = rows.encode().decode(encoding)
    message = refusal(tmp_path, "a.csv", "text,label\n" + twice)
    assert f"UTF-8 that was read as {encoding} and written as UTF-8 again" in message
    assert read(tmp_path, "a.csv", "text,label\n" + rows).texts == tuple(words)
    quoted = rows + twice.splitlines()[0] + "\n"
    assert len(read(tmp_path, "a.csv", "text,label\n" + quoted)) == 4


def test_bytes_that_are_no_text_are_no_table(tmp_path: Path) -> None:
    """A picture or random bytes under the name of a table are called that, whatever 8-bit encoding might hold them."""
    noise = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    assert "looks like no text" in refusal(tmp_path, "a.csv", noise)
    assert "looks like no text" in refusal(tmp_path, "a.csv", b"\x89PNG\r\n\x1a\n" + noise, encoding="cp1251")


@pytest.mark.parametrize("encoding", ["gb18030", "shift_jis", "euc-jp", "big5"])
def test_other_scripts_are_not_taken_for_western_letters(encoding: str) -> None:
    """Chinese and Japanese in their own encodings look like no Latin text: nothing is guessed."""
    texts = {"gb18030": "今天天气很好", "big5": "今天天氣很好"}
    assert likely_encoding(texts.get(encoding, "今日は天気がいい").encode(encoding)) is None


def test_old_macintosh_cyrillic_is_told_from_windows() -> None:
    """Both share most letters, but not the last one of the alphabet: «я» would become «Я»."""
    assert likely_encoding("моя семья и я".encode("mac-cyrillic")) == "mac-cyrillic"
    assert likely_encoding("Моя Семья и Я".encode("cp1251")) == "cp1251"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\nда,x\n".encode("cp1251"), "save it as the training file is: one `encoding` holds for all files"),
        (b"text;label\na;x\n", "save it as the training file is: one `separator` holds for all files"),
        (b"what a long first text,x\na,x\n", "save it as the training file is: one `header` holds for all files"),
        (b"text,class\na,x\n", "name its columns as those of the training file"),
    ],
)
def test_a_test_file_of_another_layout_is_to_be_changed_itself(tmp_path: Path, content: bytes, said: str) -> None:
    """The settings were right for training: a hint to change them would lead in a circle."""
    (tmp_path / "a.csv").write_bytes(content)
    spec = DataSpec(train="path:train.csv")
    with pytest.raises(DataError) as caught:
        read_rows("path:a.csv", spec, tmp_path, "test", flags=True)
    assert said in str(caught.value) and "give `--" not in str(caught.value)
