"""Separable toy texts, their CSV files and study files: what tests train on in milliseconds.

Not here: fabricated records (`fabricated_study.py`), nor the toy model (`paretune.models.tiny`).

    write_csv(Path("toy.csv"), toy_rows(60))
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

CLASSES = ("bank", "oil", "sport")
WORDS = {
    "bank": ("loan", "rate", "credit", "bond", "deposit", "branch", "lender", "mortgage", "treasury", "yield"),
    "oil": ("barrel", "crude", "refinery", "pipeline", "drill", "well", "opec", "rig", "gasoline", "field"),
    "sport": ("goal", "match", "coach", "league", "striker", "season", "cup", "referee", "stadium", "fans"),
}
COMMON = (
    *("the", "of", "and", "to", "in", "said", "that", "for", "it", "was", "is", "from", "with", "on", "year", "new"),
    *("company", "today", "market", "week", "people", "time", "last", "first", "after", "two", "would", "about"),
)
VOCABULARY = (*(word for words in WORDS.values() for word in words), *COMMON)

Row = tuple[str, str]


def toy_rows(count: int, seed: int = 0, classes: Sequence[str] = CLASSES) -> list[Row]:
    """(text, label): the classes in turn, three words of the class among four to nine common ones; all different."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for place in range(count):
        label = classes[place % len(classes)]
        words = draw.choices(WORDS[label], k=3) + draw.choices(COMMON, k=draw.randint(4, 9))
        draw.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


def csv_text(rows: Sequence[Row], header: Row = ("text", "label"), separator: str = ",") -> str:
    """Rows as CSV, header first."""
    sink = io.StringIO()
    csv.writer(sink, delimiter=separator, lineterminator="\n").writerows([header, *rows])
    return sink.getvalue()


def write_csv(path: Path, rows: Sequence[Row]) -> Path:
    """Write a UTF-8 CSV with the columns text and label."""
    path.write_text(csv_text(rows), encoding="utf-8")
    return path


def study_text(
    model: str,
    methods: Mapping[str, str],
    *,
    name: str = "toy",
    train: str = "path:toy.csv",
    data: str = "",
    seeds: Sequence[int] = (0, 1),
    search: Sequence[float] = (1.0,),
    control: str = "",
    training: str = "",
    budget: str = "",
) -> str:
    """A study file; `methods` maps a label to its table's lines; `data`, `training` and `budget` are more lines."""
    tables = "\n\n".join(f"[methods.{label}]\n{lines}" for label, lines in methods.items())
    return f"""\
[study]
name = "{name}"
control = "{control or list(methods)[-1]}"
seeds = {list(seeds)}
search = {list(search)}

[model]
source = "{model}"

[data]
train = "{train}"
{data}

[train]
epochs = 1
batch_size = 16
max_tokens = 32
precision = "fp32"
{training}

[budget]
{budget}

{tables}
"""
