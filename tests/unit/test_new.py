"""`paretune new`: a study file for one's own data that the study verb accepts as it is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import test_planner as planner_tests
from toy_study import toy_rows

from paretune.core.errors import ConfigError, DataError
from paretune.core.limits import processor_has_bf16
from paretune.data.prepare import prepare
from paretune.report.wording import LANGUAGES, Words
from paretune.study.calibrations import ProbeShape, keep
from paretune.study.design import read_study_file
from paretune.study.new import (
    Answers,
    Look,
    columns_of,
    guessed_columns,
    language_of,
    look_at,
    model_for,
    plan_text,
    quick_plan,
    sensed_texts,
    slug,
    survey,
    survey_texts,
    write_study_file,
)
from paretune.study.planner import encoded_sample, formats


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))


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
    assert {"majority", "tfidf", "probe", "head", "last2", "bitfit", "lora-r8", "full"} == set(study.methods)


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


# --- what a file is taken for ---------------------------------------------------------------------------------------

RUSSIAN = "отзыв;метка\nхорошая погода сегодня утром;да\nплохая погода вчера вечером;нет\n"


def test_an_untold_layout_is_seen_and_said(tmp_path: Path) -> None:
    """Excel's Russian CSV needs no option: encoding and separator are taken from the file, and told."""
    path = tmp_path / "a.csv"
    path.write_bytes(RUSSIAN.encode("cp1251"))
    look = look_at(Answers(path, "", ""))
    assert look.sensed == (("encoding", "cp1251"), ("separator", ";"))
    assert (look.answers.encoding, look.answers.separator, look.columns) == ("cp1251", ";", ["отзыв", "метка"])
    for lang in LANGUAGES:
        encoding, separator = sensed_texts(look.sensed, Words(lang))
        assert "cp1251" in encoding and "`--encoding`" in encoding and "`--separator`" in separator
    settings = read_study_file(write_study_file(tmp_path / "s.toml", look_answers(look), force=False)).file
    assert (settings.data.encoding, settings.data.separator) == ("cp1251", ";")


def look_answers(look: Look) -> Answers:
    return replace(look.answers, text=look.columns[0], label=look.columns[1])


@pytest.mark.parametrize(("told", "flag"), [("encoding", "--encoding cp1251"), ("separator", "--separator ';'")])
def test_a_told_layout_that_is_wrong_is_refused_with_its_option(tmp_path: Path, told: str, flag: str) -> None:
    """What the user said is not overruled, and the hint is an option, not a line of a study file."""
    path = tmp_path / "a.csv"
    path.write_bytes(RUSSIAN.encode("cp1251" if told == "encoding" else "utf-8"))
    with pytest.raises(DataError) as caught:
        look_at(Answers(path, "", "", separator="," if told == "separator" else None), frozenset({told}))
    assert f"give `{flag}`" in str(caught.value) and "[data]" not in str(caught.value)


def test_a_file_without_a_header_is_read_by_position(tmp_path: Path) -> None:
    """Where columns are asked for, they are offered as numbers; where they were given, `--no-header` is named."""
    path = tmp_path / "a.csv"
    path.write_text("please pay the bill,money\nsee you at noon,date\nthe bill is late,money\nat one,date\n")
    look = look_at(Answers(path, "", ""))
    assert (look.columns, len(look.records), guessed_columns(look)) == (["1", "2"], 4, ("1", "2"))
    with pytest.raises(
        DataError, match=r"give `--no-header` and name columns by their positions: `--text 1 --label 2`"
    ):
        look_at(Answers(path, "text", "label"), frozenset({"text", "label"}))
    data = read_study_file(write_study_file(tmp_path / "s.toml", look_answers(look), force=False)).file.data
    assert (data.header, data.text, data.label) == (False, "1", "2")
    assert len(prepare(data, tmp_path).labels) == 2


def test_quotes_are_kept_as_told(tmp_path: Path) -> None:
    """`--quoting none` stands in the study file; without it the stray quote is refused with that option."""
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"wow" good\tx\nbad\ty\n')
    with pytest.raises(DataError, match="give `--quoting none`"):
        look_at(Answers(path, "", ""))
    out = write_study_file(tmp_path / "s.toml", Answers(path, "text", "label", quoting="none"), force=False)
    assert read_study_file(out).file.data.quoting == "none"


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        (["id", "body", "kind"], "body", "kind"),
        (["Label", "Text"], "Text", "Label"),
        (["intent", "utterance"], "utterance", "intent"),
        (["a", "b", "c"], "b", "c"),
        (["id", "text", "c"], "text", "c"),
    ],
)
def test_columns_are_guessed_by_name_or_by_content(tmp_path: Path, columns: list[str], text: str, label: str) -> None:
    """The longest column is the text, that of fewest values the label, where names do not say it."""
    places = {text: "a text of some length, number {}", label: "class {}"}
    lines = [",".join(columns)]
    for i in range(12):
        cells = [places.get(name, "{}") for name in columns]
        lines.append(",".join(f'"{cell.format(i % 3 if cell.startswith("class") else i)}"' for cell in cells))
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert guessed_columns(look_at(Answers(tmp_path / "a.csv", "", ""))) == (text, label)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("отзывы", "otzyvy"),
        ("Заявки 2024", "Zayavki-2024"),
        ("щука и ёж", "shchuka-i-ezh"),
        ("e\u0301te\u0301", "ete"),
        ("Über größe", "Uber-gro-e-"),
        ("mail.v2", "mail.v2"),
        ("...", "study"),
        ("--x", "x"),
    ],
)
def test_names_are_in_latin_letters(stem: str, name: str) -> None:
    """Cyrillic is written in Latin letters, accents are dropped, and what a folder cannot be called is replaced."""
    assert slug(stem).startswith(name)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", slug(stem))


def test_different_files_have_different_names() -> None:
    """No two file names become one where a letter had to be dropped, in scripts without a table or over-long."""
    stems = ["数据", "文件", "数据a", "文件a", "δ", "γ", "отзывы", "заявки", "x" * 80, "x" * 81, "مرحبا"]
    names = [slug(stem) for stem in stems]
    assert len(set(names)) == len(stems) and max(map(len, names)) < 80


def test_a_name_that_is_taken_is_counted_on(english: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another study file, a run folder or published records of that name are kept apart; one's own file keeps it."""
    monkeypatch.chdir(tmp_path)
    answers = Answers(english, "body", "kind")
    names = [
        read_study_file(write_study_file(Path(f"{one}.toml"), answers, False)).header.name for one in ("a", "Ж", "ж")
    ]
    assert names == ["a", "Zh", "zh"]
    assert read_study_file(write_study_file(Path("study.toml"), answers, False)).header.name == "mail"
    Path("runs/b").mkdir(parents=True)
    Path("results/b-2").mkdir(parents=True)
    assert read_study_file(write_study_file(Path("b.toml"), answers, False)).header.name == "b-3"
    Path("runs/mail").mkdir()
    assert read_study_file(write_study_file(Path("study.toml"), answers, True)).header.name == "mail"
    other = tmp_path / "post.csv"
    other.write_text(english.read_text())
    replaced = write_study_file(Path("study.toml"), Answers(other, "body", "kind"), True)
    assert read_study_file(replaced).header.name == "post"
    (tmp_path / "sub").mkdir()
    assert read_study_file(write_study_file(Path("sub/a.toml"), answers, False)).header.name == "a"


# --- languages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is my card? I have not got it yet.", "english"),
        ("play jazz", "english"),
        ("Où est ma carte ? Je ne l'ai pas reçue.", "latin"),
        ("Wo ist meine Karte? Sie ist noch nicht da.", "latin"),
        ("¿Dónde está mi tarjeta? No la tengo", "latin"),
        ("Gdzie jest moja karta? Nie mam jej", "latin"),
        ("The café and the naïve waiter are on the list", "english"),
        ("Где моя карта?", "cyrillic"),
        ("Де моя картка? Wi-Fi", "cyrillic"),
        ("我的卡在哪里？", "other"),
        ("أين بطاقتي؟", "other"),
        ("123 !!!", "english"),
    ],
)
def test_only_english_texts_get_the_english_model(text: str, language: str) -> None:
    """Any other language gets the multilingual model."""
    assert language_of([text]) == language
    assert model_for([text]) == ("asset:minilm-l6" if language == "english" else "asset:e5-small")


def test_both_languages_write_the_same_study(english: Path, tmp_path: Path) -> None:
    """The Russian file differs in its comments alone."""
    trees = []
    for lang in LANGUAGES:
        out = write_study_file(tmp_path / lang / "s.toml", Answers(english, "body", "kind"), False, lang)
        trees.append(tomllib.loads(out.read_text(encoding="utf-8")))
        assert bool(re.search("[а-яё]", out.read_text(encoding="utf-8"))) is (lang == "ru")
    assert trees[0] == trees[1]


def test_a_class_of_one_row_is_kept_and_said(tmp_path: Path) -> None:
    """The study that is written runs: the class is trained on, and `new` says that nobody tests it."""
    path = tmp_path / "a.csv"
    lines = [
        f"text {i} of the {'bank' if i % 2 else 'club'} with {i * 7919},{'money' if i % 2 else 'sport'}"
        for i in range(40)
    ]
    path.write_text("text,label\n" + "\n".join([*lines, "a lonely one,odd"]))
    answers = Answers(path, "text", "label")
    found = survey(answers)
    assert found.rare == ("odd",)
    settings = read_study_file(write_study_file(tmp_path / "s.toml", answers, False, "en", found)).file
    assert settings.data.rare_classes == "keep"
    prepare(settings.data, tmp_path)
    told = survey_texts(found, Words("en"))
    assert told[0].startswith("41 texts (training ") and "3 classes" in told[0]
    assert any("“odd” (1 row; too few to be parted)" in one for one in told)
    assert any("`rare_classes`" in one for one in told) and "asset:minilm-l6" in told[-1]
    assert quick_plan(tmp_path / "s.toml", found) is None


def test_time_and_memory_are_said_where_the_model_was_calibrated(tmp_path: Path, tiny_model: Path) -> None:
    """With the constants of every number format at the study's longest batch there is a plan, in either language;
    with those of one format too few, or of another shape, there is none."""
    rows = [f"{text},{label}" for text, label in toy_rows(60)]
    (tmp_path / "my.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    answers = Answers(tmp_path / "my.csv", "text", "label", None, f"path:{tiny_model}")
    found = survey(answers)
    written = write_study_file(tmp_path / "s.toml", answers, force=False, found=found)
    study = read_study_file(written)
    longest = max(int(one.lengths_n.max()) for one in encoded_sample(study)[0].values())
    wanted = formats(study.file.train, processor_has_bf16())
    keep(ProbeShape(found.model, wanted[0], 16, longest + 1), planner_tests.constants(wanted[0]))
    assert plan_text(quick_plan(written, found), Words("en")) is None
    for precision in wanted:
        keep(ProbeShape(found.model, precision, 16, longest), planner_tests.constants(precision))
    plan = quick_plan(written, found)
    assert plan is not None and len(plan.methods) == len(study.methods) and plan.total_seconds > 0
    for lang, line in (
        ("en", r"Expected: about [\d.]+\s\w+ for the whole study, at most [\d.]+\s[MG]iB of memory\."),
        ("ru", r"Ожидается: [^{}]*\d\s[^{}]*\d\s[МГ]иБ[^{}]*\."),
    ):
        text = plan_text(plan, Words(lang))
        assert text is not None and re.fullmatch(line, text), text
