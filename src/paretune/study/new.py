"""Writes a commented study file for the user's own data, and says what was found in it and what comes next.

Not here: asking; the command line does that (`cli_data.py`). The file is written whole or not at all. What the file's
layout is taken for without having been told (encoding, separator, no header) is said and stands in the study file.

    write_study_file(Path("study.toml"), Answers(Path("my.csv"), "text", "label", None, ""), force=False)
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from paretune.core.cache import home
from paretune.core.config import validated
from paretune.core.errors import ConfigError, DataError, LayoutError, UsageError, said
from paretune.data.files import Quoting, Record, read_table
from paretune.data.labels import label_remarks, untested_classes
from paretune.data.prepare import Prepared, prepare
from paretune.data.sources import DataSpec, missing_column, read_rows
from paretune.records.store import write_atomically
from paretune.report.exploration_findings import (
    dropped_texts,
    duplicate_texts,
    remark_texts,
    shift_texts,
    shifts,
    sizes_text,
    untested_texts,
)
from paretune.report.wording import Words

if TYPE_CHECKING:
    from paretune.study.planner import StudyPlan

Language: TypeAlias = Literal["english", "latin", "cyrillic", "other"]

DEFAULT_OUT = Path("study.toml")
ENGLISH_MODEL, OTHER_MODEL = "asset:minilm-l6", "asset:e5-small"
LONGEST_NAME = 60
TEXTS_SEEN = 500
ROWS_PLANNED = 5000  # with more rows a plan takes too long to be told beside
LABEL_NAMES = ("label", "class", "category", "intent", "sentiment", "emotion", "topic", "target", "метка", "класс")
TEXT_NAMES = ("text", "sentence", "review", "message", "comment", "utterance", "question", "body", "текст", "отзыв")
# Words that hardly any text of a language does without, and that the other language does not have.
ENGLISH_WORDS = frozenset(
    re.findall(r"\S+", "the of and to is was for with that this you are not have be i my what how can")
)
FOREIGN_WORDS = frozenset(
    re.findall(
        r"\S+",
        "der die das und ist nicht ein ich mit für le la les des est une et que dans pas el los por una del y il che "
        "di non per sono het een van niet dat w na jest nie się ve bir bu için och att det o os não em um",
    )
)
CYRILLIC_LETTERS = {
    pair[0]: pair[1:]
    for pair in re.findall(
        r"\S+",
        "аa бb вv гg дd еe ёe жzh зz иi йy кk лl мm нn оo пp рr сs тt уu фf хkh цts чch шsh щshch ъ ыy ь эe юyu яya "
        "іi їyi єye ґg ўu јj љlj њnj ћc ђdj џdz ѓgj ќkj ѕdz",
    )
}

TEMPLATE_EN = """\
# paretune study {command}
# Which way of adapting a small encoder to this data gives the most quality for its cost?
# Every line may be changed; `paretune methods` lists the methods.

[study]
name = {name}                    # runs work in runs/NAME
metric = "macro_f1"              # headline: accuracy, macro_f1 or mcc
margin = 0.02                    # the difference that does not matter to you; decide before you look
control = "full"                 # the method that others are compared with
seeds = [0, 1, 2]                # three seeds make a pilot; five or more make a study
search = [0.333, 1.0, 3.0]       # learning rates tried for every method, as factors of its default;
                                 # a choice at the edge tries the next factor of three, twice at most

[model]
source = {model}     # asset:minilm-l6 (English), asset:e5-small (multilingual), path:FOLDER, hub:OWNER/NAME
pooling = "mean"                 # mean of the tokens, cls, or last (a decoder's)
text_prefix = {prefix}

[data]
train = {train}
{test}
text = {text}
label = {label}
{encoding}
{separator}
{layout}# train_rows = 1000              # train on a stratified part
validation_share = 0.2           # learning rates are chosen on this part
{rare}
[train]
epochs = 10                      # at most: training stops when the validation score has not improved
patience = 2                     # for so many epochs, and keeps the best epoch's weights
batch_size = 16
max_tokens = 128                 # longer texts are cut; `paretune explore` says how many

[budget]
# memory = "4 GiB"               # a run that needs more ends with the status oom; the study goes on
time = "30 min"                  # for each run
"""

TEMPLATE_RU = """\
# paretune study {command}
# Какой способ дообучения небольшого энкодера на этих данных даёт наилучшее качество за свою цену?
# Менять можно любую строку; методы перечисляет `paretune methods`.

[study]
name = {name}                    # запуски лежат в runs/NAME
metric = "macro_f1"              # главная метрика: accuracy, macro_f1 или mcc
margin = 0.02                    # разница, которая для вас не важна; решите до того, как смотреть
control = "full"                 # метод, с которым сравниваются другие
seeds = [0, 1, 2]                # три повтора — пилот; пять и больше — исследование
search = [0.333, 1.0, 3.0]       # скорости обучения для каждого метода, в долях от его обычной; выбор
                                 # на краю пробует следующий множитель 3, не больше двух раз

[model]
source = {model}     # asset:minilm-l6 (английская), asset:e5-small (многоязычная), path:ПАПКА, hub:OWNER/NAME
pooling = "mean"                 # mean — среднее по токенам, cls, или last (для декодера)
text_prefix = {prefix}

[data]
train = {train}
{test}
text = {text}
label = {label}
{encoding}
{separator}
{layout}# train_rows = 1000              # обучать на части с теми же долями классов
validation_share = 0.2           # на этой части выбирается скорость обучения
{rare}
[train]
epochs = 10                      # не больше: обучение кончается, когда оценка на проверочных данных
patience = 2                     # столько эпох не растёт; остаются веса лучшей эпохи
batch_size = 16
max_tokens = 128                 # более длинные тексты обрезаются; сколько их, скажет `paretune explore`

[budget]
# memory = "4 GiB"               # запуск, которому нужно больше, кончается состоянием oom; исследование идёт дальше
time = "30 min"                  # на каждый запуск

"""

METHODS = """\
[methods.majority]
kind = "majority"

[methods.tfidf]
kind = "tfidf"

[methods.probe]
kind = "probe"

[methods.head]
kind = "head"

[methods.last2]
kind = "last_layers"
layers = 2

[methods.bitfit]
kind = "bitfit"

[methods.lora-r8]
kind = "lora"
rank = 8

[methods.full]
kind = "full"
"""


COMMENTS = {
    "en": {
        "test": "test_share = 0.2                 # no test file was given: this share is set aside",
        "encoding": '# encoding = "cp1251"            # if the file is not UTF-8',
        "separator": '# separator = ";"                # if columns are not separated by commas',
        "quoting": "# whether a double quote in the file is a character like others (none) or parts columns (double)",
        "header": "# the first line of the file is a row; columns are named by their positions",
        "rare": "# classes of one row are trained on, and neither validated nor tested: {labels}",
    },
    "ru": {
        "test": "test_share = 0.2                 # тестового файла нет: эта доля строк откладывается",
        "encoding": '# encoding = "cp1251"            # если файл не в UTF-8',
        "separator": '# separator = ";"                # если столбцы разделены не запятыми',
        "quoting": "# двойная кавычка в файле: знак как другие (none) или граница столбца (double)",
        "header": "# первая строка файла — данные; столбцы названы по номерам",
        "rare": "# классы из одной строки обучаются, но не проверяются и не тестируются: {labels}",
    },
}


@dataclass(frozen=True)
class Answers:
    """What a study of one's own data must know; an empty `model` is chosen by the language of the texts."""

    data: Path
    text: str
    label: str
    test: Path | None = None
    model: str = ""
    encoding: str = "utf-8"
    separator: str | None = None
    quoting: Quoting | None = None
    header: bool = True


@dataclass(frozen=True)
class Look:
    """A data file as it was read: columns, rows, and the layout (`sensed`: what of it was not told but seen)."""

    answers: Answers
    columns: list[str]
    records: list[Record]
    sensed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Survey:
    """What is known of the data before anything is trained; `rare` are classes of one row."""

    prepared: Prepared
    rare: tuple[str, ...]
    language: Language
    model: str


# --- reading --------------------------------------------------------------------------------------------------------


def look_at(answers: Answers, told: frozenset[str] = frozenset()) -> Look:
    """Read a data file; a layout that was not `told` and does not fit is taken as what fits.

    Raises:
        ConfigError: an unknown encoding, or a separator of several signs.
        DataError: the file is missing or cannot be read.
    """
    sensed: list[tuple[str, str]] = []
    while True:
        spec = _spec(answers, f"path:{answers.data}")
        layout = spec.layout(flags=True)
        try:
            records, columns = read_table(answers.data, layout, (answers.text or "text", answers.label or "label"))
            if answers.data.suffix.lower() == ".parquet":
                records, columns = read_table(answers.data, layout, columns)
            return Look(answers, columns, records, tuple(sensed))
        except LayoutError as error:
            known = error.setting in told or any(error.setting == one for one, _ in sensed)
            if known or (error.setting == "header" and {"text", "label"} & told):
                raise
            sensed.append((error.setting, error.value))
            match error.setting:
                case "encoding":
                    answers = replace(answers, encoding=error.value)
                case "separator":
                    answers = replace(answers, separator=error.value)
                case "header":
                    answers = replace(answers, header=False)
                case _:
                    raise


def columns_of(data: Path, encoding: str = "utf-8", separator: str | None = None) -> list[str]:
    """Names of the columns of a data file.

    Raises:
        as `look_at`.
    """
    told = frozenset({"encoding", "separator", "text", "label"})
    return look_at(Answers(data, "", "", None, "", encoding, separator), told).columns


def guessed_columns(look: Look) -> tuple[str | None, str | None]:
    """The columns that are likely the text and the label: by their usual names, else by what stands in them."""
    named = {name.strip().casefold(): name for name in look.columns}
    label = next((named[name] for name in LABEL_NAMES if name in named), None)
    text = next((named[name] for name in TEXT_NAMES if name in named and named[name] != label), None)
    seen = look.records[:TEXTS_SEEN]
    values = {name: [str(record.get(name) or "") for record in seen] for name in look.columns}
    if text is None and seen:
        others = [name for name in values if name != label]
        text = max(others, key=lambda name: sum(map(len, values[name])), default=None)
    if label is None and seen:
        kinds = {name: len(set(some)) for name, some in values.items() if name != text}
        fitting = [name for name, number in kinds.items() if 2 <= number <= max(2, len(seen) // 2)]
        label = min(fitting, key=lambda name: kinds[name], default=None)
    return text, label


def check_column(look: Look, setting: str, column: str) -> str:
    """The column itself.

    Raises:
        DataError: the file has no such column.
    """
    if column not in look.columns:
        layout = _spec(look.answers, f"path:{look.answers.data}").layout(flags=True)
        raise DataError(missing_column(str(look.answers.data), setting, column, look.columns, layout))
    return column


def spec_of(answers: Answers, reference: str) -> DataSpec:
    """The `[data]` table for a file that `reference` names.

    Raises:
        as `look_at`, and DataError: there is no such column.
    """
    told = frozenset({"encoding", "separator", "header", "text", "label"})
    look = look_at(answers, told)
    for setting, column in (("text", answers.text), ("label", answers.label)):
        check_column(look, setting, column)
    return _spec(answers, reference)


def _spec(answers: Answers, reference: str, **more: object) -> DataSpec:
    tree = {
        "train": reference,
        "text": answers.text or "text",
        "label": answers.label or "label",
        "encoding": answers.encoding,
        "separator": "\t" if answers.separator == "\\t" else answers.separator,  # what a shell can type
        "quoting": answers.quoting,
        "header": answers.header,
        **more,
    }
    return validated(tree, DataSpec, str(answers.data))


def survey(answers: Answers) -> Survey:
    """Clean and split the data as `paretune study` would.

    Raises:
        DataError: the data cannot be used; hints name the options of the command line.
    """
    tests = {"test": f"path:{answers.test.resolve()}"} if answers.test else {}
    spec = _spec(answers, f"path:{answers.data.resolve()}", rare_classes="keep", **tests)
    prepared = prepare(spec, Path("."), flags=True)
    pool = ("train", "validation") if answers.test else ("train", "validation", "test")
    rows = Counter(label for name in pool for label in prepared.splits[name].labels)
    texts = prepared.splits["train"].texts
    return Survey(
        prepared=prepared,
        rare=tuple(label for label in prepared.labels if rows[label] < 2),
        language=language_of(texts),
        model=answers.model or model_for(texts),
    )


def language_of(texts: Sequence[str]) -> Language:
    """English, another language in Latin script, one in Cyrillic, or one in another script; by the first texts."""
    sample = " ".join(texts[:TEXTS_SEEN])
    scripts = Counter(_script(sign) for sign in sample if sign.isalpha())
    if not scripts or scripts["latin"] < max(scripts["cyrillic"], scripts["other"]):
        return "cyrillic" if scripts["cyrillic"] >= scripts["other"] and scripts else "other" if scripts else "english"
    words = Counter(re.findall(r"[^\W\d_]+", sample.casefold()))
    english, foreign = (sum(words[one] for one in some) for some in (ENGLISH_WORDS, FOREIGN_WORDS))
    accents = sum(not sign.isascii() for sign in sample if sign.isalpha()) / scripts.total()
    return "latin" if foreign > english or (accents > 0.02 and foreign * 4 > english) else "english"


def _script(letter: str) -> Literal["latin", "cyrillic", "other"]:
    name = unicodedata.name(letter, "")
    return "latin" if name.startswith("LATIN") else "cyrillic" if name.startswith("CYRILLIC") else "other"


def model_for(texts: Sequence[str]) -> str:
    """The English model for English texts, the multilingual one for all others."""
    return ENGLISH_MODEL if language_of(texts) == "english" else OTHER_MODEL


# --- names ----------------------------------------------------------------------------------------------------------


def slug(stem: str) -> str:
    """A file's name as a study's: Cyrillic in Latin letters, no accents; a hash stands for what has no Latin letter."""
    low = unicodedata.normalize("NFC", stem)
    latin = "".join(
        (letters.capitalize() if sign.isupper() else letters)
        if (letters := CYRILLIC_LETTERS.get(sign.lower())) is not None
        else sign
        for sign in low
    )
    plain = unicodedata.normalize("NFKD", latin)
    lost = any(sign.isalpha() and not sign.isascii() for sign in plain)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "".join(sign for sign in plain if not unicodedata.combining(sign)))
    name = name[:LONGEST_NAME].strip("-._")
    if lost or len(plain) > LONGEST_NAME:
        name = f"{name or 'study'}-{hashlib.sha256(low.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"
    return name or "study"


def study_name(out: Path, data: Path) -> str:
    """A name that no other study here has: of the study file, or of the data where that has its default name.

    A study file that is overwritten for the same data keeps its name, and with it the runs it has.
    """
    here = out.resolve().parent
    own = _header(out)
    reference = f"path:{_from(here, data)}"
    if own.get("train") == reference and own.get("name"):
        return own["name"]
    taken = {_header(path).get("name") for path in here.glob("*.toml") if path.resolve() != out.resolve()}
    taken |= {own.get("name")}
    wanted = slug(data.stem if out.name == DEFAULT_OUT.name else out.stem)
    rooms = (Path("runs"), here / "runs", Path("results"), here / "results")
    names = (wanted if number == 1 else f"{wanted}-{number}" for number in count(1))
    return next(name for name in names if name not in taken and not any((room / name).exists() for room in rooms))


def name_of(file: Path) -> str:
    """The name of the study in a study file that was written here."""
    return _header(file)["name"]


def _header(path: Path) -> dict[str, str]:
    """Name and training data of a study file; empty for any other file."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return {"name": str(tree["study"]["name"]), "train": str(tree["data"]["train"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# --- writing --------------------------------------------------------------------------------------------------------


def check_out(out: Path, force: bool) -> Path:
    """The path itself.

    Raises:
        ConfigError: there is a file already.
    """
    if out.exists() and not force:
        raise ConfigError(said(f"{out} is there already", "a new file name", do="--force overwrites it"))
    return out


def write_study_file(out: Path, answers: Answers, force: bool, lang: str = "en", found: Survey | None = None) -> Path:
    """Check that the data can be read as answered, then write the file; `found` is what a survey knows of them.

    Raises:
        DataError: the data file or its columns cannot be used.
        ConfigError: the study file is there already.
    """
    check_out(out, force)
    base = out.resolve().parent
    reference = f"path:{_from(base, answers.data)}"
    if found is None:
        texts = read_rows(reference, spec_of(answers, reference), base, "train", flags=True).texts
        model = answers.model or model_for(texts)
    else:
        model = found.model
    if model.startswith("path:"):  # of others the files may have to be fetched first: the study looks at them
        from paretune.models.check import check_model  # with transformers, which takes seconds to import
        from paretune.train.loop import TrainSpec

        check_model(model, TrainSpec().max_tokens)
    comments, separator = COMMENTS[lang], _spec(answers, reference).separator
    layout = ""
    if answers.quoting is not None:
        layout += f"quoting = {_toml(answers.quoting)}    {comments['quoting']}\n"
    if not answers.header:
        layout += f"header = false    {comments['header']}\n"
    rare = ""
    if found is not None and found.rare:
        shown = ", ".join(" ".join(label.split()) for label in found.rare[:5]) + (", …" if len(found.rare) > 5 else "")
        rare = f'rare_classes = "keep"            {comments["rare"].format(labels=shown)}\n'
    template = TEMPLATE_RU if lang == "ru" else TEMPLATE_EN
    body = template.format(
        command=out,
        name=_toml(study_name(out, answers.data)),
        model=_toml(model),
        prefix=_toml("query: " if model == OTHER_MODEL else ""),
        train=_toml(reference),
        test=f"test = {_toml(f'path:{_from(base, answers.test)}')}" if answers.test else comments["test"],
        encoding=comments["encoding"] if answers.encoding == "utf-8" else f"encoding = {_toml(answers.encoding)}",
        separator=comments["separator"] if separator is None else f"separator = {_toml(separator)}",
        layout=layout,
        rare=rare,
        text=_toml(answers.text),
        label=_toml(answers.label),
    )
    write_atomically(out, body + _methods_for(model))
    return out


def _methods_for(model: str) -> str:
    """The tables of methods, without those that a model in a folder has no place for (BitFit without biases)."""
    if not model.startswith("path:"):
        return METHODS
    from paretune.methods.method import Adaptation  # with torch and transformers, which take seconds to import
    from paretune.models.loading import load_outline
    from paretune.study.design import make_method
    from paretune.study.misfits import misfit

    outline, fitting = load_outline(model), list[str]()
    for lines in METHODS.strip().split("\n\n"):
        ((table,),) = (tables.values() for tables in tomllib.loads(lines).values())
        method = make_method(table.pop("kind"), table)
        if not (isinstance(method, Adaptation) and misfit(method, outline)):
            fitting.append(lines)
    return "\n\n".join(fitting) + "\n"


def _toml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _from(base: Path, data: Path) -> str:
    """A data path as seen from the study file's folder where it lies below it, else absolute."""
    whole = data.resolve()
    return str(whole.relative_to(base)) if whole.is_relative_to(base) else str(whole)


# --- what is said ---------------------------------------------------------------------------------------------------


def sensed_texts(sensed: Sequence[tuple[str, str]], words: Words) -> list[str]:
    """What the file was taken for without having been told."""
    texts: list[str] = []
    for setting, value in sensed:
        shown = {"value": "\\t" if value == "\t" else value}
        match setting:
            case "encoding":
                texts.append(
                    words.say("The file looks like {value} and is read as that (or give `--encoding`).", shown)
                )
            case "separator":
                texts.append(
                    words.say("Columns look separated by “{value}” and are read so (or give `--separator`).", shown)
                )
            case _:
                texts.append(
                    words.say("The first line looks like a row: there is no header, and columns are called 1, 2, 3 …")
                )
    return texts


def survey_texts(found: Survey, words: Words) -> list[str]:
    """Rows, classes, what is odd about them, the language and the model."""
    data = found.prepared
    rows = {name: len(one) for name, one in data.splits.items()}
    texts = [
        sizes_text(rows, data.class_counts(), words),
        *untested_texts(untested_classes(data), len(data.labels), words),
        *remark_texts(label_remarks(data.label_rows()), words),
        *shift_texts(shifts(data.class_counts(), rows), words),
        *duplicate_texts(data.duplicates(), data.leaks(), rows, words),
        *dropped_texts(data.cleaning, words),
    ]
    if found.rare:
        texts.append(
            words.plural(
                "{n} class has one row: the study file says `rare_classes` to train on it all the same.",
                "{n} classes have one row each: the study file says `rare_classes` to train on them all the same.",
                len(found.rare),
            )
        )
    return [*texts, _model_text(found, words)]


def _model_text(found: Survey, words: Words) -> str:
    match found.language:
        case "english":
            language = words.say("The texts look English")
        case "latin":
            language = words.say("The texts are in Latin letters but do not look English")
        case "cyrillic":
            language = words.say("The texts are in Cyrillic letters")
        case "other":
            language = words.say("The texts are in neither Latin nor Cyrillic letters")
    match found.model:
        case "asset:minilm-l6":
            model = words.say("{model}, which is English and small", {"model": found.model})
        case "asset:e5-small":
            model = words.say("{model}, which is multilingual", {"model": found.model})
        case _:
            model = found.model
    return words.say("{language}; model: {model}.", {"language": language, "model": model})


def quick_plan(file: Path, found: Survey) -> StudyPlan | None:
    """Time and memory of the study where that takes no measuring: the model is here and was calibrated for it."""
    if len(found.prepared.splits["train"]) > ROWS_PLANNED or not any((home() / "calibrations").glob("*/*.json")):
        return None
    scheme, _, name = found.model.partition(":")
    here = home() / "models" / name / "made.stamp" if scheme == "asset" else Path(name)
    if scheme == "hub" or not here.exists():
        return None
    from paretune.core.limits import processor_has_bf16
    from paretune.study.calibrations import ProbeShape, known
    from paretune.study.design import read_study_file
    from paretune.study.plan_command import limits_of
    from paretune.study.planner import encoded_sample, formats, plan_study

    study = read_study_file(file)
    train = study.file.train
    try:
        longest = max(int(one.lengths_n.max()) for one in encoded_sample(study)[0].values())
        precisions = formats(train, processor_has_bf16())
        if any(known(ProbeShape(found.model, one, train.batch_size, longest)) is None for one in precisions):
            return None
        return plan_study(study, limits_of(study, None, None), lambda _: None)
    except UsageError:
        return None  # `paretune plan` says why


def plan_text(plan: StudyPlan | None, words: Words) -> str | None:
    """Time of the whole study and the most memory of a run, if they are known."""
    if plan is None:
        return None
    peaks = [one.best.memory_bytes for one in plan.methods if one.best is not None]
    if not peaks:
        return None
    values = {"time": words.duration(plan.total_seconds), "memory": words.size(max(peaks))}
    return words.say("Expected: about {time} for the whole study, at most {memory} of memory.", values)
