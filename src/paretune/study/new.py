"""Writes a commented study file for the user's own data, so that "my data, which method?" takes two commands.

Not here: asking; the command line does that. The file is written whole or not at all.

    write_study_file(Path("study.toml"), Answers(Path("my.csv"), "text", "label", None, ""), force=False)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from paretune.core.config import nearest, validated
from paretune.core.errors import ConfigError, DataError, said
from paretune.data.files import read_table
from paretune.data.sources import DataSpec, read_rows
from paretune.records.store import write_atomically

CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
LATIN = re.compile("[a-z]", re.IGNORECASE)

TEMPLATE = """\
# paretune study {command}
# Which way of adapting a small encoder to this data gives the most quality for its cost?
# Every line may be changed; `paretune methods` lists the methods.

[study]
name = {name}                    # runs work in runs/NAME
metric = "macro_f1"              # headline: accuracy, macro_f1 or mcc
margin = 0.02                    # the difference that does not matter to you; decide before you look
control = "full"                 # the method that others are compared with
seeds = [0, 1, 2]                # three seeds make a pilot; five or more make a study
search = [0.333, 1.0, 3.0]       # learning rates tried for every method, as factors of its default

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
# train_rows = 1000              # train on a stratified part
validation_share = 0.2           # learning rates are chosen on this part

[train]
epochs = 3
batch_size = 16
max_tokens = 128                 # longer texts are cut; `paretune explore` says how many

[budget]
# memory = "4 GiB"               # a run that needs more ends with the status oom; the study goes on
time = "30 min"                  # for each run

[methods.majority]
kind = "majority"

[methods.tfidf]
kind = "tfidf"

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


@dataclass(frozen=True)
class Answers:
    """What a study of one's own data must know; an empty `model` is chosen by the script of the texts."""

    data: Path
    text: str
    label: str
    test: Path | None = None
    model: str = ""
    encoding: str = "utf-8"
    separator: str | None = None


def columns_of(data: Path, encoding: str = "utf-8", separator: str | None = None) -> list[str]:
    """Names of the columns of a data file.

    Raises:
        ConfigError: an unknown encoding, or a separator of several signs.
        DataError: the file is missing or cannot be read.
    """
    spec = validated({"train": f"path:{data}", "encoding": encoding, "separator": separator}, DataSpec, str(data))
    return read_table(data, spec.layout(flags=True), ("text", "label"))[1]


def _toml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def model_for(texts: tuple[str, ...]) -> str:
    """The multilingual model where more letters are Cyrillic than Latin, else the English one."""
    sample = " ".join(texts[:500])
    return "asset:e5-small" if len(CYRILLIC.findall(sample)) > len(LATIN.findall(sample)) else "asset:minilm-l6"


def write_study_file(out: Path, answers: Answers, force: bool) -> Path:
    """Check that the data can be read as answered, then write the file.

    Raises:
        DataError: the data file or its columns cannot be used.
        ConfigError: the study file is there already.
    """
    if out.exists() and not force:
        raise ConfigError(said(f"{out} is there already", "a new file name", do="--force overwrites it"))
    base = out.resolve().parent
    reference = f"path:{_from(base, answers.data)}"
    spec = spec_of(answers, reference)
    texts = read_rows(reference, spec, base, "train").texts
    model = answers.model or model_for(texts)
    if model.startswith("path:"):  # of others the files may have to be fetched first: the study looks at them
        from paretune.models.check import check_model  # with transformers, which takes seconds to import
        from paretune.train.loop import TrainSpec

        check_model(model, TrainSpec().max_tokens)
    if answers.test:
        test = f"test = {_toml(f'path:{_from(base, answers.test)}')}"
    else:
        test = "test_share = 0.2                 # no test file was given: this share is set aside"
    if answers.encoding == "utf-8":
        encoding = '# encoding = "cp1251"            # if the file is not UTF-8'
    else:
        encoding = f"encoding = {_toml(answers.encoding)}"
    if answers.separator is None:
        separator = '# separator = ";"                # if columns are not separated by commas'
    else:
        separator = f"separator = {_toml(answers.separator)}"
    body = TEMPLATE.format(
        command=out,
        name=_toml(re.sub(r"[^A-Za-z0-9._-]+", "-", out.stem).strip("-.") or "study"),
        model=_toml(model),
        prefix=_toml("query: " if model == "asset:e5-small" else ""),
        train=_toml(reference),
        test=test,
        encoding=encoding,
        separator=separator,
        text=_toml(answers.text),
        label=_toml(answers.label),
    )
    write_atomically(out, body)
    return out


def spec_of(answers: Answers, reference: str) -> DataSpec:
    """The `[data]` table for a file that `reference` names.

    Raises:
        as `columns_of`, and DataError: there is no such column.
    """
    columns = columns_of(answers.data, answers.encoding, answers.separator)
    for column in (answers.text, answers.label):
        if column not in columns:
            allowed = "one of " + ", ".join(columns)
            raise DataError(said(f"no column {column!r} in {answers.data}", allowed, nearest=nearest(column, columns)))
    return DataSpec(
        train=reference,
        text=answers.text,
        label=answers.label,
        encoding=answers.encoding,
        separator=answers.separator,
    )


def _from(base: Path, data: Path) -> str:
    """A data path as seen from the study file's folder where it lies below it, else absolute."""
    whole = data.resolve()
    return str(whole.relative_to(base)) if whole.is_relative_to(base) else str(whole)
