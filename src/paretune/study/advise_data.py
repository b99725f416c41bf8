"""What advice needs to know of a user's own file: rows that would be trained on, classes, tokens of a text, script.

Not here: the advice (`advise.py`). The file is read, cleaned and split as `paretune study` would do it, so that the
figures are of the kind that the records hold. Nothing is trained.

    measure_texts(Answers(Path("my.csv"), "text", "label")).rows
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretune.data.explore import script_shares, token_ids
from paretune.data.prepare import prepare
from paretune.models.tokenizer import read_tokenizer
from paretune.study.new import Answers, model_for, spec_of


@dataclass(frozen=True)
class Texts:
    """`rows` are those of the training split, `tokens` their mean by the tokenizer of `model`."""

    rows: int
    classes: int
    tokens: float
    script: str
    model: str


def measure_texts(answers: Answers) -> Texts:
    """Sizes of a data file; without a model, that which `paretune new` would take.

    Raises:
        ConfigError, DataError: the file cannot be used as answered. AssetError: the base model is not to be had.
    """
    spec = spec_of(answers, f"path:{answers.data.resolve()}")
    prepared = prepare(spec, Path("."), flags=True)
    texts = prepared.splits["train"].texts
    model = answers.model or model_for(texts)
    tokenizer = read_tokenizer(model)
    shares = script_shares(texts)
    return Texts(
        rows=len(texts),
        classes=len(prepared.labels),
        tokens=float(np.mean([len(ids) for ids in token_ids(texts, tokenizer)])),
        script=max(shares, key=lambda name: shares[name]),
        model=model,
    )
