"""`paretune new`: a study file for one's own data that the study verb accepts as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.core.errors import ConfigError, DataError
from paretune.study.design import read_study_file
from paretune.study.new import Answers, columns_of, model_for, write_study_file


@pytest.fixture
def english(tmp_path: Path) -> Path:
    path = tmp_path / "mail.csv"
    path.write_text("body,kind\nplease pay the bill,money\nsee you at noon,date\n", encoding="utf-8")
    return path


def test_the_written_file_is_a_valid_study(english: Path, tmp_path: Path) -> None:
    """What `new` writes loads without change, with the columns and the file that were given."""
    out = write_study_file(tmp_path / "mail study.toml", Answers(english, "body", "kind"), force=False)
    study = read_study_file(out)
    assert (study.file.data.train, study.file.data.text, study.file.data.label) == ("path:mail.csv", "body", "kind")
    assert study.header.name == "mail-study"
    assert {"majority", "tfidf", "head", "last2", "bitfit", "lora-r8", "full"} == set(study.methods)


def test_separator_encoding_and_test_file_are_kept(tmp_path: Path) -> None:
    """A semicolon file in Windows-1251 with a test file of its own needs no hand work."""
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_bytes("текст;класс\nпривет всем;да\nпока всем;нет\n".encode("cp1251"))
    answers = Answers(tmp_path / "train.csv", "текст", "класс", tmp_path / "test.csv", "", "cp1251", ";")
    settings = read_study_file(write_study_file(tmp_path / "s.toml", answers, force=False)).file
    assert (settings.data.encoding, settings.data.separator, settings.data.test) == ("cp1251", ";", "path:test.csv")
    assert (settings.model.source, settings.model.text_prefix) == ("asset:e5-small", "query: ")


def test_an_unknown_column_is_refused_with_the_nearest(english: Path, tmp_path: Path) -> None:
    """A misspelt column is one line that names the right one, and nothing is written."""
    with pytest.raises(DataError, match="did you mean 'body'"):
        write_study_file(tmp_path / "s.toml", Answers(english, "bodi", "kind"), force=False)
    assert not (tmp_path / "s.toml").exists()


def test_a_study_file_is_not_overwritten(english: Path, tmp_path: Path) -> None:
    """An existing file stays as it is without --force."""
    out = tmp_path / "s.toml"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="--force"):
        write_study_file(out, Answers(english, "body", "kind"), force=False)
    assert out.read_text(encoding="utf-8") == "mine"


def test_columns_are_those_of_the_header(english: Path) -> None:
    """The columns to choose from come from the file."""
    assert columns_of(english) == ["body", "kind"]


def test_the_model_follows_the_script() -> None:
    """Cyrillic texts get the multilingual model, Latin ones the English model."""
    assert model_for(("Где моя карта?",)) == "asset:e5-small"
    assert model_for(("Where is my card?",)) == "asset:minilm-l6"
