"""What an exploration found, as sentences for the terminal and the top of its page, the most important ones first.

Not here: computing any of it (`data/`), tables (`exploration_sheets.py`). Each function takes the part of the record
that it speaks of, so that `paretune new`, which has no tokenizer yet, says the same in the same words.

    findings(exploration, Words("en"))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paretune.core.text import spelled
from paretune.records.exploration import (
    ClassCount,
    CleaningStep,
    Exploration,
    LabelRemark,
    LengthSummary,
    UntestedClass,
)
from paretune.report.sheets import split_name
from paretune.report.wording import Words

NAMES_SHOWN = 5
TEXT_SHOWN = 80
SHIFT_ERRORS = 4.0  # standard errors between two shares before they are called different
SHIFT_RATIO, SHIFT_POINTS = 1.5, 0.05  # and how far apart they must be to matter
SUSPECTS_TOLD = 3


@dataclass(frozen=True)
class Shift:
    """A class whose share of a test split differs from its share of training."""

    label: str
    split: str
    trained: float
    tested: float


def findings(exploration: Exploration, words: Words) -> list[str]:
    """Everything worth a sentence."""
    return [
        *class_findings(exploration, words),
        *duplicate_texts(exploration.duplicates, exploration.leaks, exploration.rows, words),
        *dropped_texts(exploration.cleaning, words),
        *_cut_texts(exploration, words),
        *_suspect_texts(exploration, words),
    ]


def class_findings(exploration: Exploration, words: Words) -> list[str]:
    """What is odd about the classes: untested ones, labels that look alike, shares that differ between splits."""
    return [
        *untested_texts(untested_of(exploration), len(exploration.classes), words),
        *remark_texts(exploration.label_remarks or [], words),
        *shift_texts(shifts(exploration.classes, exploration.rows), words),
    ]


def sizes_text(rows: Mapping[str, int], classes: Sequence[ClassCount], words: Words) -> str:
    """Rows of each split, classes, and how unequal they are."""
    values = {"splits": ", ".join(f"{split_name(words, name)} {words.count(number)}" for name, number in rows.items())}
    total = sum(rows.values())
    text = words.plural("{n} text ({splits})", "{n} texts ({splits})", total, values)
    if len(classes) < 2:
        return text + "."
    text += "; " + words.plural("{n} class", "{n} classes", len(classes))
    trained = {one.label: one.rows.get("train", 0) for one in classes}
    most = max(trained, key=lambda label: trained[label])
    fewest = min((label for label in trained if label != most), key=lambda label: trained[label])
    values = {
        "most": _named(most, words),
        "share": words.percent(trained[most] / max(1, sum(trained.values()))),
        "fewest": _named(fewest, words),
        "rows": words.plural("{n} row", "{n} rows", trained[fewest]),
    }
    return text + words.say("; the largest, {most}, has {share} of training, the smallest, {fewest}, {rows}.", values)


def untested_of(exploration: Exploration) -> list[UntestedClass]:
    """The classes without a row in validation or test; from the counts where the record is from before it said so."""
    if exploration.untested is not None:
        return exploration.untested
    return [
        UntestedClass(label=one.label, split=split, rows=sum(one.rows.values()), reason="unknown")
        for one in exploration.classes
        for split in ("validation", "test")
        if split in exploration.rows and one.rows.get(split, 0) == 0
    ]


def untested_texts(untested: Sequence[UntestedClass], classes: int, words: Words) -> list[str]:
    """One sentence for each split that lacks classes: how many, which, and why."""
    texts: list[str] = []
    for split in ("test", "validation"):
        lacking = sorted((one for one in untested if one.split == split), key=lambda one: (-one.rows, one.label))
        if not lacking:
            continue
        values = {"all": words.count(classes), "classes": _classes_with_reasons(lacking, words)}
        if split == "test":
            text = words.plural(
                "{n} of {all} classes has no test row, so no figure says how well it is predicted: {classes}.",
                "{n} of {all} classes have no test row, so no figure says how well they are predicted: {classes}.",
                len(lacking),
                values,
            )
        else:
            text = words.plural(
                "{n} of {all} classes has no validation row, so settings are chosen without it: {classes}.",
                "{n} of {all} classes have no validation row, so settings are chosen without them: {classes}.",
                len(lacking),
                values,
            )
        texts.append(text)
    return texts


def untested_in_answer(exploration: Exploration | None, words: Words) -> str:
    """What must stand beside a study's answer: the classes of which its figures say nothing; "" where there is none."""
    if exploration is None:
        return ""
    lacking = [one for one in untested_of(exploration) if one.split == "test"]
    return "".join(untested_texts(lacking, len(exploration.classes), words))


def _classes_with_reasons(lacking: Sequence[UntestedClass], words: Words) -> str:
    shown = [
        f"{_named(one.label, words)} ({words.plural('{n} row', '{n} rows', one.rows)}; {_reason(one, words)})"
        for one in lacking[:NAMES_SHOWN]
    ]
    return ", ".join(shown) + _more(len(lacking) - NAMES_SHOWN, words)


def _reason(one: UntestedClass, words: Words) -> str:
    match one.reason:
        case "near_duplicates":
            return words.say("so much alike that all must train together")
        case "few_rows":
            return words.say("too few to be parted")
        case "not_in_file":
            return words.say("none in the test file")
        case "unknown":
            return words.say("all in training")


def remark_texts(remarks: Sequence[LabelRemark], words: Words) -> list[str]:
    """Labels that nobody can tell apart, printed lists, labels joined of others, words for a missing label."""
    texts: list[str] = []
    alike = [one for one in remarks if one.kind == "look_alike"]
    for one in alike[:NAMES_SHOWN]:
        values = {"labels": words.series([_named(label, words) for label in one.labels])}
        texts.append(
            words.plural(
                "Labels that are hard to tell apart count as different classes: {labels} ({n} row).",
                "Labels that are hard to tell apart count as different classes: {labels} ({n} rows).",
                one.rows,
                values,
            )
        )
    if len(alike) > NAMES_SHOWN:
        more = len(alike) - NAMES_SHOWN
        texts.append(
            words.plural(
                "{n} more group of labels is hard to tell apart.",
                "{n} more groups of labels are hard to tell apart.",
                more,
            )
        )
    for one in remarks:
        if one.kind == "look_alike":
            continue
        shown = [_named(label, words) for label in one.labels[:NAMES_SHOWN]]
        values = {"labels": ", ".join(shown) + _more(len(one.labels) - NAMES_SHOWN, words)}
        if one.kind == "missing_word":
            texts.append(
                words.plural(
                    "{n} row has a label that often stands for a missing one, which counts as a class: {labels}.",
                    "{n} rows have labels that often stand for a missing one, each of which counts as a class: "
                    "{labels}.",
                    one.rows,
                    values,
                )
            )
        elif one.kind == "list_text":
            texts.append(
                words.plural(
                    "{n} row has a label that is a printed list, which counts as one class: {labels}.",
                    "{n} rows have labels that are printed lists, each of which counts as one class: {labels}.",
                    one.rows,
                    values,
                )
            )
        else:
            texts.append(
                words.plural(
                    "{n} row has a label that joins other labels, which counts as its own class: {labels}.",
                    "{n} rows have labels that join other labels, each of which counts as its own class: {labels}.",
                    one.rows,
                    values,
                )
            )
    return texts


def shifts(classes: Sequence[ClassCount], rows: Mapping[str, int]) -> list[Shift]:
    """Classes whose share of a test split is another than of training, beyond chance and by enough to matter.

    A class without a row on either side is not among them: that is said elsewhere.
    """
    train = sum(one.rows.get("train", 0) for one in classes)
    found: list[Shift] = []
    for split in rows:
        test = sum(one.rows.get(split, 0) for one in classes)
        if split in ("train", "validation") or not train or not test:
            continue
        for one in classes:
            a, b = one.rows.get("train", 0) / train, one.rows.get(split, 0) / test
            pooled = (one.rows.get("train", 0) + one.rows.get(split, 0)) / (train + test)
            error = math.sqrt(pooled * (1 - pooled) * (1 / train + 1 / test))
            matters = abs(b - a) >= SHIFT_POINTS or max(a, b) >= SHIFT_RATIO * min(a, b)
            if a and b and error and abs(b - a) >= SHIFT_ERRORS * error and matters:
                found.append(Shift(one.label, split, a, b))
    return sorted(found, key=lambda one: -abs(one.tested - one.trained))


def shift_texts(found: Sequence[Shift], words: Words) -> list[str]:
    """One sentence for each test split whose classes have other shares than in training."""
    texts: list[str] = []
    for split in dict.fromkeys(one.split for one in found):
        some = [one for one in found if one.split == split]
        shown = [
            f"{_named(one.label, words)} {words.percent(one.trained, 1)} → {words.percent(one.tested, 1)}"
            for one in some[:NAMES_SHOWN]
        ]
        values = {
            "split": split_name(words, split),
            "classes": ", ".join(shown) + _more(len(some) - NAMES_SHOWN, words),
        }
        texts.append(words.say("Class shares differ between training and the split “{split}”: {classes}.", values))
    return texts


def duplicate_texts(
    duplicates: Mapping[str, int], leaks: Mapping[str, int], rows: Mapping[str, int], words: Words
) -> list[str]:
    """Repeated texts within training, and between training and test."""
    texts: list[str] = []
    if number := duplicates.get("exact", 0):
        texts.append(
            words.plural("{n} repeated training text was dropped.", "{n} repeated training texts were dropped.", number)
        )
    if number := duplicates.get("near", 0):
        texts.append(
            words.plural(
                "{n} training text is nearly a copy of another; such texts stay on one side of a split.",
                "{n} training texts are nearly copies of others; such texts stay on one side of a split.",
                number,
            )
        )
    if number := duplicates.get("conflicting", 0):
        texts.append(
            words.plural(
                "{n} training row has a text that stands there with another label too.",
                "{n} training rows have a text that stands there with another label too.",
                number,
            )
        )
    exact, near = leaks.get("exact", 0), leaks.get("near", 0)
    if exact + near:
        share = words.percent((exact + near) / max(1, rows.get("test", 0)), 1)
        values = {"exact": words.count(exact), "near": words.count(near), "share": share}
        texts.append(
            words.plural(
                "{n} test text ({share}) is also in training ({exact} exactly, {near} nearly); scores are given with "
                "and without.",
                "{n} test texts ({share}) are also in training ({exact} exactly, {near} nearly); scores are given with "
                "and without.",
                exact + near,
                values,
            )
        )
    return texts


def dropped_texts(cleaning: Sequence[CleaningStep], words: Words) -> list[str]:
    """Rows without text or label, over all splits."""
    gone = {
        name: sum(one.rows_in - one.rows_out for one in cleaning if one.step == name)
        for name in ("empty_text", "missing_label")
    }
    texts: list[str] = []
    if number := gone["empty_text"]:
        texts.append(words.plural("{n} row without text was dropped.", "{n} rows without text were dropped.", number))
    if number := gone["missing_label"]:
        texts.append(words.plural("{n} row without label was dropped.", "{n} rows without label were dropped.", number))
    return texts


def _cut_texts(exploration: Exploration, words: Words) -> list[str]:
    """How many texts are cut, and how long all of nearly all would be; tokens that the tokenizer does not know."""
    texts: list[str] = []
    shares = {name: share for name, share in exploration.truncation_share.items() if share > 0}
    if shares:
        shown = [f"{split_name(words, name)} {words.percent(share, 1)}" for name, share in shares.items()]
        values = {
            "limit": words.count(exploration.max_tokens),
            "shares": ", ".join(shown),
            "length": words.count(_long(exploration.lengths)),
        }
        texts.append(
            words.say(
                "Texts over {limit} tokens are cut: {shares}. A hundredth of the training texts have over {length}.",
                values,
            )
        )
    if exploration.unknown_token_share > 0.01:
        share = {"share": words.percent(exploration.unknown_token_share, 1)}
        texts.append(words.say("{share} of the tokens are unknown to the tokenizer: it fits these texts badly.", share))
    return texts


def _long(lengths: Sequence[LengthSummary]) -> int:
    found = [one.quantiles.get("0.99", 0.0) for one in lengths if (one.split, one.unit) == ("train", "tokens")]
    return round(found[0]) if found else 0


def _suspect_texts(exploration: Exploration, words: Words) -> list[str]:
    """How many labels look wrong, and the likeliest; only that, where the model is too weak to doubt a label by."""
    if "suspects_many" in exploration.notes:
        return [
            words.say("Over a fifth of the labels look wrong: the simple model is too weak here to doubt a label by.")
        ]
    if not exploration.suspects:
        return []
    shown = [
        words.say(
            "{row}: {label}, rather {suggested}: “{text}”",
            {
                "row": one.id,
                "label": _named(one.label, words),
                "suggested": _named(one.suggested, words),
                "text": one.text if len(one.text) <= TEXT_SHOWN else one.text[: TEXT_SHOWN - 1] + "…",
            },
        )
        for one in exploration.suspects[:SUSPECTS_TOLD]
    ]
    values = {"rows": "; ".join(" ".join(one.split()) for one in shown)}
    return [
        words.plural(
            "{n} training label looks wrong (a hint to look, not a verdict), likeliest {rows}.",
            "{n} training labels look wrong (a hint to look, not a verdict), likeliest {rows}.",
            exploration.suspect_rows,
            values,
        )
    ]


def _named(label: str, words: Words) -> str:
    shown = spelled(label if len(label) <= TEXT_SHOWN else label[: TEXT_SHOWN - 1] + "…")
    return f"«{shown}»" if words.lang == "ru" else f"“{shown}”"


def _more(number: int, words: Words) -> str:
    return " " + words.plural("and {n} more", "and {n} more", number) if number > 0 else ""
