"""Exploratory analysis: each number against a count that can be done by hand.

PYTHONPATH=src python -m pytest tests/unit/test_explore.py
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from paretune.data.explore import explore, length_summary, script_shares
from paretune.data.prepare import Prepared, prepare
from paretune.data.sources import DataSpec, Rows
from paretune.models.tokenizer import BaseTokenizer
from paretune.records.exploration import Exploration

SPORT = ["match", "goal", "team", "player", "season", "coach", "stadium", "league", "referee", "ticket"]
MONEY = ["bank", "loan", "profit", "market", "share", "dividend", "credit", "deposit", "budget", "price"]


@pytest.fixture(scope="module")
def tokenizer() -> BaseTokenizer:
    """One token a word; every word but those of MONEY is unknown."""
    vocabulary = {"[UNK]": 0, **{word: i for i, word in enumerate(MONEY, start=1)}, "never": 11}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    return BaseTokenizer(model, pad_id=0, unknown_id=0)


def texts(words: list[str], rows: int) -> list[str]:
    draw = np.random.default_rng(len(words[0]))
    return [" ".join(draw.permutation(words)[:6]) + f" {words[0]}{i}" for i in range(rows)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two easy classes of 60 rows, one row of each labelled as the other."""
    pairs = [(text, "sport") for text in texts(SPORT, 60)] + [(text, "money") for text in texts(MONEY, 60)]
    pairs += [
        ("goal team player coach stadium referee wrongly", "money"),
        ("bank loan profit deposit credit odd", "sport"),
    ]
    folder = tmp_path_factory.mktemp("data")
    lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return prepare(DataSpec(train="path:a.jsonl"), folder)


@pytest.fixture(scope="module")
def found(prepared: Prepared, tokenizer: BaseTokenizer) -> Exploration:
    return explore(prepared, tokenizer, "words", 6, "path:a.jsonl")


def test_counts_agree_with_the_splits(found: Exploration, prepared: Prepared) -> None:
    """Rows and classes of the record are those of the data."""
    assert found.rows == {name: len(rows) for name, rows in prepared.splits.items()}
    for one in found.classes:
        assert one.rows == {name: rows.labels.count(one.label) for name, rows in prepared.splits.items()}
    assert found.cleaning == prepared.cleaning


def test_token_figures_are_those_of_the_tokenizer(found: Exploration, prepared: Prepared) -> None:
    """Truncation, vocabulary use and unknown share agree with counting words."""
    train = prepared.splits["train"].texts
    assert found.truncation_share["train"] == sum(len(text.split()) > 6 for text in train) / len(train)
    words = [word for rows in prepared.splits.values() for text in rows.texts for word in text.split()]
    assert found.unknown_token_share == pytest.approx(sum(word not in MONEY for word in words) / len(words))
    assert (found.vocabulary_tokens_used, found.vocabulary_size) == (11, 12)
    assert {"many_truncated", "many_unknown"} <= set(found.notes)


def test_lengths_have_quantiles_and_a_whole_histogram() -> None:
    """Bins have whole edges, cover the longest text, and hold every row once."""
    lengths = np.array([*range(1, 100), 5000])
    summary = length_summary("train", "tokens", lengths)
    assert summary.quantiles["0.5"] == 50.5 and summary.quantiles["1"] == 5000
    assert sum(summary.bin_rows) == 100
    assert len(summary.bin_edges) == len(summary.bin_rows) + 1
    assert all(edge == int(edge) for edge in summary.bin_edges)
    assert summary.bin_edges[0] == 0 and summary.bin_edges[-1] > 5000


@pytest.mark.parametrize("length", [0, 1, 7])
def test_equal_lengths_make_a_histogram_too(length: int) -> None:
    """A split whose texts are all of one length is no special case."""
    assert sum(length_summary("test", "characters", np.full(3, length)).bin_rows) == 3


def test_swapped_labels_are_suspected(found: Exploration) -> None:
    """The two rows with the wrong label, where they are in train, are exactly those that are suspected."""
    assert 1 <= found.suspect_rows == len(found.suspects) <= 2
    for suspect in found.suspects:
        assert "wrongly" in suspect.text or "odd" in suspect.text
        assert suspect.suggested != suspect.label and suspect.confidence > 0.5


def test_scripts_are_counted_by_the_letters_that_prevail() -> None:
    """A text belongs to the script of most of its letters; digits and emoji are none."""
    shares = script_shares(["Привет, world", "hello", "12 😀", "日本語 ok", "ёж"])
    assert shares == {"Cyrillic": 0.4, "Han": 0.2, "Latin": 0.2, "None": 0.2}


def test_samples_show_every_class_and_are_cut(found: Exploration) -> None:
    """Each class has its samples, none longer than 300 signs."""
    assert [sample.label for sample in found.samples] == ["money", "money", "sport", "sport"]
    assert all(len(sample.text) <= 300 for sample in found.samples)


def test_the_same_data_give_the_same_record(found: Exploration, prepared: Prepared, tokenizer: BaseTokenizer) -> None:
    """Nothing of the analysis is left to chance."""
    assert explore(prepared, tokenizer, "words", 6, "path:a.jsonl") == found


def test_classes_with_fewer_rows_than_folds_are_left_out(tokenizer: BaseTokenizer) -> None:
    """Tiny classes neither break the search for label errors nor go unmentioned."""
    few = Rows(("1", "2", "3"), ("bank loan", "goal team", "price"), ("a", "b", "c"))
    tiny = Prepared(("a", "b", "c"), {"train": few, "validation": few, "test": few}, {"test": (True,) * 3}, [])
    record = explore(tiny, tokenizer, "words", 6, "somewhere")
    assert record.suspects == [] and {"suspects_rare_left", "suspects_none"} <= set(record.notes)
    assert record.leaks == {"exact": 3, "near": 0}
