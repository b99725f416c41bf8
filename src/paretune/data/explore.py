"""Exploratory analysis of prepared data as plain numbers: classes, lengths, vocabulary, leaks, doubtful labels.

Not here: drawing them (`report/`). Label errors are suspected by confident learning (Northcutt, Jiang & Chuang 2021,
https://arxiv.org/abs/1911.00068; cleanlab) on out-of-fold probabilities of TF-IDF + logistic regression: a hint about
where to look, not a verdict. `notes` of the record are keys:

    suspects_sampled     only the first SUSPECT_ROWS training rows in hash order were searched
    suspects_rare_left   classes with fewer rows than folds were not searched
    suspects_none        fewer than two classes were left to search
    suspects_many        over a fifth of the searched rows: that model is too weak here to doubt a label by
    many_truncated       over a tenth of some split is longer than `max_tokens`
    many_unknown         over 1 % of the tokens are the tokenizer's unknown token

    explore(prepared, tokenizer, "asset:minilm-l6", 128, "asset:reuters-r8").truncation_share["train"]
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from paretune.data.encoding import TextTokenizer
from paretune.data.labels import label_remarks, untested_classes
from paretune.data.prepare import Prepared
from paretune.data.sources import Rows
from paretune.data.splits import draw_order
from paretune.records.exploration import Exploration, LengthSummary, Sample, Suspect

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 30
WORD = re.compile(r"[^\W\d_]{2,}")
WORDS_SHOWN = 30
SAMPLES_A_CLASS = 2
TEXT_SHOWN = 300
SUSPECTS_SHOWN = 20
SUSPECT_ROWS = 5000
FOLDS = 3
TOKENIZED_AT_ONCE = 1000


def explore(
    prepared: Prepared, tokenizer: TextTokenizer, tokenizer_name: str, max_tokens: int, source: str
) -> Exploration:
    """Everything that the report shows about the data; the same data give the same numbers."""
    train = prepared.splits["train"]
    token_counts, used, unknown_share = _tokens(prepared, tokenizer)
    truncated = {name: float(np.mean(counts > max_tokens)) for name, counts in token_counts.items()}
    words = Counter(word for text in train.texts for word in WORD.findall(text.casefold()))
    suspects, suspect_rows, notes = _suspects(train)
    if max(truncated.values()) > 0.1:
        notes.append("many_truncated")
    if unknown_share > 0.01:
        notes.append("many_unknown")
    return Exploration(
        source=source,
        tokenizer=tokenizer_name,
        max_tokens=max_tokens,
        rows={name: len(rows) for name, rows in prepared.splits.items()},
        classes=prepared.class_counts(),
        lengths=[
            summary
            for name, rows in prepared.splits.items()
            for summary in (
                length_summary(name, "characters", np.array([len(text) for text in rows.texts])),
                length_summary(name, "tokens", token_counts[name]),
            )
        ],
        truncation_share=truncated,
        vocabulary_tokens_used=used,
        vocabulary_size=len(tokenizer),
        unknown_token_share=unknown_share,
        words=words.total(),
        distinct_words=len(words),
        frequent_words=sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:WORDS_SHOWN],
        duplicates=prepared.duplicates(),
        leaks=prepared.leaks(),
        scripts=script_shares([text for rows in prepared.splits.values() for text in rows.texts]),
        suspects=suspects,
        suspect_rows=suspect_rows,
        samples=_samples(train, prepared.labels),
        cleaning=prepared.cleaning,
        notes=notes,
        label_remarks=label_remarks(prepared.label_rows()),
        untested=untested_classes(prepared),
    )


def _tokens(prepared: Prepared, tokenizer: TextTokenizer) -> tuple[dict[str, np.ndarray], int, float]:
    """Tokens of each text (special ones included), vocabulary entries in use, share of unknown tokens (all splits)."""
    counts: dict[str, np.ndarray] = {}
    seen: Counter[int] = Counter()
    for name, rows in prepared.splits.items():
        lengths: list[int] = []
        for ids in token_ids(rows.texts, tokenizer):
            lengths.append(len(ids))
            seen.update(ids)
        counts[name] = np.array(lengths)
    unknown = tokenizer.unknown_id
    return counts, len(seen), seen[unknown] / seen.total() if unknown is not None else 0.0


def token_ids(texts: Sequence[str], tokenizer: TextTokenizer) -> Iterator[tuple[int, ...]]:
    """Tokens of each text, special ones included, uncut."""
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        yield from (one.input_ids for one in tokenizer.encode(texts[start : start + TOKENIZED_AT_ONCE]))


def length_summary(split: str, unit: str, lengths: np.ndarray) -> LengthSummary:
    """Mean, quantiles and a histogram with whole-numbered edges; the last bin takes all above the 99 % quantile."""
    top = float(np.quantile(lengths, 0.99))
    width = max(1, int(np.ceil((top + 1) / BINS)))
    edges = [float(width * i) for i in range(BINS)] + [float(max(width * BINS, int(lengths.max()) + 1))]
    rows, _ = np.histogram(lengths, bins=edges)
    return LengthSummary(
        split=split,
        unit=unit,
        mean=float(lengths.mean()),
        quantiles={f"{share:g}": float(np.quantile(lengths, share)) for share in QUANTILES},
        bin_edges=edges,
        bin_rows=[int(count) for count in rows],
    )


def script_shares(texts: Sequence[str]) -> dict[str, float]:
    """Share of texts by the script that most of their letters are of; "None" for texts without letters."""
    found = Counter(_script(text) for text in texts)
    return {name: count / len(texts) for name, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))}


def _script(text: str) -> str:
    letters: Counter[str] = Counter()
    for sign, times in Counter(text).items():
        if sign.isalpha():
            letters[_script_of(sign)] += times
    return min(letters, key=lambda name: (-letters[name], name)) if letters else "None"


@lru_cache(maxsize=65_536)
def _script_of(letter: str) -> str:
    """The first word of a letter's Unicode name is its script, but for Han, whose signs are named CJK."""
    first = unicodedata.name(letter, "OTHER").split()[0].title()
    return "Han" if first == "Cjk" else first


def _suspects(train: Rows) -> tuple[list[Suspect], int, list[str]]:
    """The likeliest label errors, how many there are in all, and notes."""
    notes: list[str] = []
    searched = draw_order(train, 0, "suspects")
    if len(searched) > SUSPECT_ROWS:
        searched = searched[:SUSPECT_ROWS]
        notes.append("suspects_sampled")
    counts = Counter(train.labels[i] for i in searched)
    classes = sorted(label for label, count in counts.items() if count >= FOLDS)
    if len(classes) < len(set(train.labels)):
        notes.append("suspects_rare_left")
    if len(classes) < 2:
        return [], 0, [*notes, "suspects_none"]
    number = {label: i for i, label in enumerate(classes)}
    rows = train.take(i for i in searched if train.labels[i] in number)
    given = np.array([number[label] for label in rows.labels])
    probability = _out_of_fold(rows.texts, given)
    ranked = find_label_issues(given, probability, return_indices_ranked_by="self_confidence", n_jobs=1)
    if len(ranked) > 0.2 * len(rows):
        notes.append("suspects_many")
    suspects = [
        Suspect(
            id=rows.ids[i],
            label=rows.labels[i],
            suggested=classes[int(probability[i].argmax())],
            confidence=float(probability[i].max()),
            text=rows.texts[i][:TEXT_SHOWN],
        )
        for i in ranked[:SUSPECTS_SHOWN].tolist()
    ]
    return suspects, len(ranked), notes


def _out_of_fold(texts: Sequence[str], given: np.ndarray) -> np.ndarray:
    """Class probabilities (rows × classes) of each row from a model that was trained on the other folds."""
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, max_features=20_000, token_pattern=r"(?u)\b\w+\b"),
        # saga is some fifty times faster here than the default solver, for the same accuracy
        LogisticRegression(C=10.0, solver="saga", tol=1e-2, max_iter=1000, random_state=0),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(model, list(texts), given, cv=folds, method="predict_proba"))


def _samples(train: Rows, labels: Sequence[str]) -> list[Sample]:
    """The first rows of each class in hash order, class by class."""
    found: dict[str, list[Sample]] = {label: [] for label in labels}
    for i in draw_order(train, 0, "samples"):
        of_class = found[train.labels[i]]
        if len(of_class) < SAMPLES_A_CLASS:
            of_class.append(Sample(id=train.ids[i], label=train.labels[i], text=train.texts[i][:TEXT_SHOWN]))
    return [sample for label in labels for sample in found[label]]
