"""Tables and remarks about the data itself, from an `Exploration` record.

Not here: computing any of it (`data/explore.py`), figures (`exploration_figures.py`).

    overview_sheet(exploration, Words("ru")).rows
"""

from __future__ import annotations

from paretune.records.exploration import Exploration
from paretune.report.exploration_figures import unit_name
from paretune.report.sheets import Sheet, plain, split_name
from paretune.report.wording import Words

MOST_WORDS = 30


def length_sheet(exploration: Exploration, words: Words) -> Sheet:
    """Mean and quantiles of lengths for each split."""
    names = list(dict.fromkeys(name for one in exploration.lengths for name in one.quantiles))
    rows = [
        [
            split_name(words, one.split),
            unit_name(words, one.unit),
            words.number(one.mean, 1),
            *(words.compact(one.quantiles[name]) if name in one.quantiles else "—" for name in names),
        ]
        for one in exploration.lengths
    ]
    columns = [words.say("split"), words.say("unit"), words.say("mean"), *(_quantile(name, words) for name in names)]
    return plain(words.say("Lengths"), columns, rows, left=(1,))


def _quantile(name: str, words: Words) -> str:
    """A quantile's name: "0.5" and "p50" both become 50 %."""
    bare = name.removeprefix("p")
    try:
        value = float(bare)
    except ValueError:
        return name
    return words.percent(value if value <= 1 else value / 100)


def overview_sheet(exploration: Exploration, words: Words) -> Sheet:
    """Everything that is one number."""
    duplicates = {
        "exact": words.say("exact"),
        "near": words.say("near"),
        "conflicting": words.say("with different labels"),
        "exact_in_test": words.say("exact, in test data"),
    }
    rows = [
        [words.say("texts, {split}", {"split": split_name(words, split)}), words.count(number)]
        for split, number in exploration.rows.items()
    ]
    rows += [
        [words.say("tokenizer"), exploration.tokenizer],
        [words.say("tokens of a text, at most"), words.count(exploration.max_tokens)],
    ]
    for split, share in exploration.truncation_share.items():
        rows.append(
            [words.say("longer than that, {split}", {"split": split_name(words, split)}), words.percent(share, 1)]
        )
    used = {"used": words.count(exploration.vocabulary_tokens_used), "size": words.count(exploration.vocabulary_size)}
    rows += [
        [words.say("tokens of the vocabulary in use"), words.say("{used} of {size}", used)],
        [words.say("unknown tokens"), words.percent(exploration.unknown_token_share, 2)],
        [words.say("words"), words.count(exploration.words)],
        [words.say("distinct words"), words.count(exploration.distinct_words)],
    ]
    rows += [
        [words.say("duplicates ({kind})", {"kind": duplicates.get(kind, kind)}), words.count(number)]
        for kind, number in exploration.duplicates.items()
    ]
    rows += [
        [
            words.say("test texts that are also in training ({kind})", {"kind": duplicates.get(kind, kind)}),
            words.count(number),
        ]
        for kind, number in exploration.leaks.items()
    ]
    scripts = {"Cyrillic": words.say("Cyrillic"), "Latin": words.say("Latin")}
    rows += [
        [words.say("script or language: {name}", {"name": scripts.get(name, name)}), words.percent(share, 1)]
        for name, share in exploration.scripts.items()
    ]
    rows.append([words.say("training texts with a suspicious label"), words.count(exploration.suspect_rows)])
    return plain(words.say("The data in numbers"), [words.say("figure"), words.say("value")], rows)


def exploration_notes(exploration: Exploration, words: Words) -> list[str]:
    """What the analysis itself wants to be known; a key that has no words here stays as it is."""
    known = {
        "suspects_sampled": words.say("Label errors were looked for in a part of the training texts only."),
        "suspects_rare_left": words.say("Classes with very few texts were left out of the search for label errors."),
        "suspects_none": words.say("Too few classes were left to look for label errors."),
        "suspects_many": words.say(
            "Over a fifth of the labels look wrong: the simple model is too weak here to doubt a label by."
        ),
        "many_truncated": words.say("Over a tenth of the texts of some part are longer than the study reads."),
        "many_unknown": words.say("Over 1 % of the tokens are unknown to the tokenizer: it fits these texts badly."),
    }
    return [known.get(note, note) for note in exploration.notes]


def suspects_sheet(exploration: Exploration, words: Words) -> Sheet:
    """Training rows whose label looks wrong."""
    rows = [[one.id, one.label, one.suggested, words.percent(one.confidence), one.text] for one in exploration.suspects]
    columns = [words.say("row"), words.say("label"), words.say("suggested"), words.say("confidence"), words.say("text")]
    sheet = plain(words.say("Labels that look wrong"), columns, rows, left=(1, 2, 4))
    note = words.say("Found by a model that did not see the row in training; a hint to look, not a verdict.")
    return Sheet(sheet.title, sheet.columns, sheet.rows, (note,), sheet.left)


def frequent_words_sheet(exploration: Exploration, words: Words) -> Sheet:
    """The most frequent words."""
    rows = [[word, words.count(number)] for word, number in exploration.frequent_words[:MOST_WORDS]]
    return plain(words.say("Frequent words"), [words.say("word"), words.say("times")], rows)


def samples_sheet(exploration: Exploration, words: Words) -> Sheet:
    """Example texts of the classes."""
    rows = [[one.label, one.text, one.id] for one in exploration.samples]
    return plain(
        words.say("Examples of the classes"), [words.say("class"), words.say("text"), words.say("row")], rows, left=(1,)
    )
