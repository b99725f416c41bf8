"""Reading rows from files, corpora and the hub, and the one line that bad input gives.

PYTHONPATH=src python -m pytest tests/unit/test_sources.py
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.config import validated
from paretune.core.errors import ConfigError, DataError, UnknownNameError
from paretune.data.files import decoded, likely_encoding, separated_lines
from paretune.data.sources import DataSpec, Rows, as_label, read_rows

RUSSIAN = "text,label\nЭто очень хорошая книга,да\nА эта книга совсем не понравилась,нет\n"


def read(folder: Path, name: str, content: bytes | str, **settings: str) -> Rows:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    spec = DataSpec.model_validate({"train": f"path:{name}", **settings})
    return read_rows(spec.train, spec, folder, "train")


def refusal(folder: Path, name: str, content: bytes | str, **settings: str) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, name, content, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    """CSV, TSV, JSON lines and Parquet of one table are read as the same rows."""
    table = pd.DataFrame({"text": ["one, two", 'say "three"', "four"], "label": [1, 0, 1], "more": ["x", "y", "z"]})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    table.to_parquet(tmp_path / "a.parquet")
    expected = Rows(("train-1", "train-2", "train-3"), ("one, two", 'say "three"', "four"), ("1", "0", "1"))
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        spec = DataSpec(train=f"path:{name}")
        assert read_rows(spec.train, spec, tmp_path, "train") == expected


def test_columns_and_ids_are_named_by_the_settings(tmp_path: Path) -> None:
    """`text`, `label` and `id` choose columns; other columns are left alone."""
    rows = read(tmp_path, "a.csv", "n,body,kind\n7,hello,x\n9,bye,y\n", text="body", label="kind", id="n")
    assert rows == Rows(("7", "9"), ("hello", "bye"), ("x", "y"))


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    """Ids are what predictions are matched by, so each stands there once."""
    assert "id '7' stands there 2 times" in refusal(tmp_path, "a.csv", "n,text,label\n7,a,x\n7,b,y\n", id="n")


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        ("0", "0"),
        (0.5, "0.5"),
        (" yes ", "yes"),
        (True, "true"),
        (None, ""),
        ("", ""),
    ],
)
def test_labels_are_strings(value: object, label: str) -> None:
    """A label is one string however a format stores it, and missing is the empty string."""
    assert as_label(value) == label


def test_a_missing_label_in_parquet_is_empty_and_floats_are_whole(tmp_path: Path) -> None:
    """A whole-numbered column with a gap, which Parquet keeps as floats, has the labels of the whole numbers."""
    pd.DataFrame({"text": ["a", "b", None], "label": [1.0, float("nan"), 0.0]}).to_parquet(tmp_path / "a.parquet")
    spec = DataSpec(train="path:a.parquet")
    rows = read_rows(spec.train, spec, tmp_path, "train")
    assert (rows.texts, rows.labels) == (("a", "b", ""), ("1", "", "0"))


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    """A mistyped file name is answered with the nearest one of its folder."""
    (tmp_path / "reviews.csv").write_text("text,label\n")
    spec = DataSpec(train="path:review.csv")
    with pytest.raises(DataError, match=r"no file .*review\.csv; .* did you mean 'reviews\.csv'"):
        read_rows(spec.train, spec, tmp_path, "train")


def test_a_missing_column_lists_the_columns_and_suggests_one(tmp_path: Path) -> None:
    """A mistyped column is answered with the columns there are, the nearest one and the setting to change."""
    message = refusal(tmp_path, "a.csv", "text,labels\na,x\n")
    assert "no column 'label'; expected one of text, labels" in message
    assert "did you mean 'labels'" in message
    assert "set `label`" in message


def test_a_semicolon_is_named_and_the_setting_works(tmp_path: Path) -> None:
    """A file separated by `;` is refused with the setting that makes it readable."""
    content = "text;label\nfirst, with a comma;x\nsecond;y\n"
    assert "looks separated by ';' (semicolon)" in (message := refusal(tmp_path, "a.csv", content))
    assert 'set `separator = ";"`' in message
    assert read(tmp_path, "a.csv", content, separator=";").texts == ("first, with a comma", "second")


def test_ragged_rows_give_their_line(tmp_path: Path) -> None:
    """A row with too many fields is refused by its line in the file, lines inside quotes counted."""
    message = refusal(tmp_path, "a.csv", 'text,label\n"two\nlines",x\none, two,y\n')
    assert "line 4: 3 fields; expected 2" in message


def test_an_open_quote_gives_the_line_where_it_opens(tmp_path: Path) -> None:
    """A quote that never closes is refused where it begins, instead of swallowing the rest of the file."""
    assert "line 3" in refusal(tmp_path, "a.csv", 'text,label\na,x\n"b,y\nc,x\n')


def test_long_texts_are_no_error(tmp_path: Path) -> None:
    """A text over the csv module's default limit of 128 KiB is read."""
    assert len(read(tmp_path, "a.csv", f"text,label\n{'a' * 200_000},x\n").texts[0]) == 200_000


def test_a_utf8_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    """The mark that spreadsheets write does not become part of the first column's name."""
    assert read(tmp_path, "a.csv", codecs.BOM_UTF8 + RUSSIAN.encode()).labels == ("да", "нет")


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866"])
def test_russian_code_pages_are_recognised_and_the_setting_works(tmp_path: Path, encoding: str) -> None:
    """Each Russian code page is named, with the setting, and is read once it is set."""
    content = RUSSIAN.encode(encoding)
    message = refusal(tmp_path, "a.csv", content)
    assert f"line 2: byte 0x{content[11]:02X} is not valid utf-8; the file looks like {encoding}" in message
    assert f'set `encoding = "{encoding}"`' in message
    assert read(tmp_path, "a.csv", content, encoding=encoding).labels == ("да", "нет")


def test_western_text_and_damaged_utf8_are_told_apart() -> None:
    """French in Latin-1 is recognised; UTF-8 with one broken byte is not taken for another encoding."""
    assert likely_encoding("déjà vu, garçon".encode("latin-1")) == "cp1252"
    with pytest.raises(DataError, match=r"line 2: byte 0xFF is not valid utf-8; expected .* repair that line"):
        decoded("Русский текст\n".encode() + b"\xff\n", "utf-8", "a.csv")


def test_utf16_is_named_and_the_setting_works(tmp_path: Path) -> None:
    """UTF-16, by its byte-order mark, is refused with the setting that makes it readable."""
    content = RUSSIAN.encode("utf-16")
    assert 'is UTF-16 by its byte-order mark; expected utf-8 — set `encoding = "utf-16"`' in refusal(
        tmp_path, "a.csv", content
    )
    assert read(tmp_path, "a.csv", content, encoding="utf-16").labels == ("да", "нет")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n\n", "is empty"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.jsonl", "\n", "has no rows"),
        ("a.xlsx", "PK", "unknown kind of file '.xlsx'; expected one of .csv, .tsv, .jsonl"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', "line 2: Expecting ':' delimiter"),
        ("a.jsonl", "[1, 2]\n", "line 1: '[1, 2]'; expected one JSON object a line"),
        ("a.jsonl", '{"text": ["a"], "label": 1}\n', "row 1: the text is a list"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', "row 1: the text has half a surrogate pair"),
        ("a.parquet", "no parquet", "expected a Parquet file"),
    ],
)
def test_unreadable_files_give_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    """Empty, unknown and malformed files are refused with what is wrong and where."""
    assert said in refusal(tmp_path, name, content)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"train": "data.csv"}, "'data.csv'; expected asset:NAME, path:FILE or hub:OWNER/NAME"),
        ({"train": "path:a.csv", "encoding": "cp-none"}, "encoding 'cp-none'"),
        ({"train": "path:a.csv", "encoding": "base64"}, "encoding 'base64'"),
        ({"train": "path:a.csv", "extra_tests": {"train": "path:b.csv"}}, "extra test 'train'"),
        ({"train": "path:a.csv", "train_row": 10}, "did you mean 'train_rows'"),
    ],
)
def test_wrong_settings_give_one_line(tree: dict[str, object], said: str) -> None:
    """Settings that cannot be meant are refused when they are read."""
    with pytest.raises(ConfigError) as caught:
        validated(tree, DataSpec, "study.toml")
    assert said in str(caught.value)


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), min_size=2, max_size=2)))
def test_separated_text_survives_a_round_trip(rows: list[list[str]]) -> None:
    """Whatever fields pandas writes, with quotes, separators and line ends in them, are read back."""
    text = pd.DataFrame(rows, columns=["a", "b"]).to_csv(index=False, lineterminator="\n", quoting=1)
    assert [fields for _, fields in separated_lines(text, ",", "here")][1:] == rows


# --- the hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, str]]:
    """A data set in a folder that stands for `owner/tiny` of the hub; returns the calls that were made."""
    import datasets

    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,x\nb,y\n")
    (folder / "test.csv").write_text("text,label\nc,x\n")
    calls: list[tuple[str, str | None, str]] = []
    real = datasets.load_dataset

    def load(name: str, revision: str | None, split: str) -> datasets.Dataset:
        calls.append((name, revision, split))
        return real(str(tmp_path / name.removeprefix("owner/")), split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_a_hub_data_set_is_read_by_name_revision_and_split(
    local_hub: list[tuple[str, str | None, str]], tmp_path: Path
) -> None:
    """`hub:OWNER/NAME@REVISION#SPLIT` reaches `datasets` as those three; without a split, the one that is asked for."""
    spec = DataSpec(train="hub:owner/tiny@v1")
    assert read_rows(spec.train, spec, tmp_path, "train").texts == ("a", "b")
    assert read_rows("hub:owner/tiny#test", spec, tmp_path, "train").texts == ("c",)
    assert read_rows("hub:owner/tiny", spec, tmp_path, "test") == Rows(("test-1",), ("c",), ("x",))
    assert local_hub == [("owner/tiny", "v1", "train"), ("owner/tiny", None, "test"), ("owner/tiny", None, "test")]


def test_class_numbers_of_the_hub_become_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ClassLabel column is read by the names of its classes, and its -1 as missing."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, revision, split: made)
    spec = DataSpec(train="hub:owner/tiny")
    assert read_rows(spec.train, spec, tmp_path, "train").labels == ("yes", "no", "")


def test_a_split_that_is_not_there_is_one_line(local_hub: list[tuple[str, str | None, str]], tmp_path: Path) -> None:
    """An unknown split of the hub is answered with the library's own reason, in one line."""
    spec = DataSpec(train="hub:owner/tiny#dev")
    with pytest.raises(DataError, match="Unknown split"):
        read_rows(spec.train, spec, tmp_path, "train")


def test_the_hub_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline and not in the cache: one line that says to use a local file."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    spec = DataSpec(train="hub:nobody/nothing")
    with pytest.raises(DataError, match=r"hub:nobody/nothing cannot be loaded .* use path:FILE") as caught:
        read_rows(spec.train, spec, tmp_path, "train")
    assert "\n" not in str(caught.value)


# --- corpora --------------------------------------------------------------------------------------------------------


def test_an_unknown_asset_suggests_the_nearest(tmp_path: Path) -> None:
    """A mistyped corpus is answered with the nearest one."""
    spec = DataSpec(train="asset:reuters-r9")
    with pytest.raises(UnknownNameError, match="did you mean 'reuters-r8'"):
        read_rows(spec.train, spec, tmp_path, "train")


@pytest.mark.parametrize("name", ["minilm-l6", "support-dialogs"])
def test_an_asset_without_classes_is_refused(tmp_path: Path, name: str) -> None:
    """A model, or a corpus that has no labels, is not taken for classification data."""
    spec = DataSpec(train=f"asset:{name}")
    with pytest.raises(DataError, match="has no train part"):
        read_rows(spec.train, spec, tmp_path, "train")


@pytest.mark.assets
def test_drug_reviews_have_their_rows_and_no_stray_quotes(tmp_path: Path) -> None:
    """The zipped reviews give pandas' row counts, three ratings and texts without the doubled quotes around them."""
    spec = DataSpec(train="asset:drug-reviews")
    train, test = (read_rows(spec.train, spec, tmp_path, part) for part in ("train", "test"))
    assert (len(train), len(test)) == (600, 379)
    assert set(train.labels) == {"positive", "neutral", "negative"}
    assert not any(text.startswith('"') or text.endswith('"') for text in train.texts)


def test_json_lines_may_lack_a_key(tmp_path: Path) -> None:
    """A record without the text is a row with an empty text, which cleaning counts."""
    lines = [json.dumps({"text": "a", "label": "x"}), json.dumps({"label": "y"})]
    assert read(tmp_path, "a.jsonl", "\n".join(lines)).texts == ("a", "")
