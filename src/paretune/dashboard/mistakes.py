"""Test examples by how many seeds of which method get them wrong: the hard ones, the shaky ones, the suspicious labels.

Not here: scores. Texts come from the prepared data beside the runs, or from examples.json where a study is published.

    for row in hard_examples(facts, Choice(method="lora"))[:20]: print(row.id, row.wrong)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretune.report.facts import StudyFacts
from paretune.report.sheets import Sheet, plain
from paretune.report.wording import Words

AGREED = 0.8  # so large a share of all runs on one other class, in every method, makes a test label look wrong
PAGE_ROWS = 50
LONGEST_TEXT = 600


@dataclass(frozen=True)
class Choice:
    """What is shown: of a class, by the mistakes of a method; empty is all."""

    label: str = ""
    method: str = ""
    with_text: bool = False


@dataclass(frozen=True)
class HardExample:
    """A test example: `wrong` maps a method to (seeds that get it wrong, seeds); `said` is the most frequent answer."""

    id: str
    label: str
    text: str
    wrong: dict[str, tuple[int, int]]
    said: str
    said_share: float
    near_duplicate: bool

    @property
    def share(self) -> float:
        """Share of all runs that get it wrong."""
        return sum(wrong for wrong, _ in self.wrong.values()) / sum(runs for _, runs in self.wrong.values())

    @property
    def shaky(self) -> list[str]:
        """Methods whose seeds disagree on whether it is right."""
        return [method for method, (wrong, runs) in self.wrong.items() if 0 < wrong < runs]

    @property
    def suspicious(self) -> bool:
        """Whether nearly all runs agree on one other class: a hint that the label may be wrong, not a verdict."""
        return self.said != self.label and self.said_share >= AGREED and len(self.wrong) > 1


def hard_examples(facts: StudyFacts, choice: Choice, known: Mapping[str, str] | None = None) -> list[HardExample]:
    """Test examples that a chosen method (any, if none is chosen) gets wrong at least once, worst first; `known` has
    texts by id, in place of the published ones."""
    methods = {
        method.label: [run.splits["test"] for _, run in sorted(method.runs.items()) if "test" in run.splits]
        for method in facts.scored
    }
    methods = {label: runs for label, runs in methods.items() if runs}
    if not methods:
        return []
    first = next(iter(methods.values()))[0]
    labels_e = np.asarray(first.labels)
    predicted = {label: np.asarray([run.predictions for run in runs]) for label, runs in methods.items()}
    wrong = {label: (said_se != labels_e).sum(axis=0) for label, said_se in predicted.items()}
    everything_re = np.concatenate(list(predicted.values()))
    texts = known
    if texts is None:
        texts = {example.id: example.text for example in facts.examples if example.split == "test"}
    counted = [choice.method] if choice.method in wrong else list(wrong)
    total_e = np.sum([wrong[label] for label in counted], axis=0)
    all_e = np.sum(list(wrong.values()), axis=0)
    order = sorted(np.flatnonzero(total_e), key=lambda at: (-int(total_e[at]), -int(all_e[at]), int(at)))
    found: list[HardExample] = []
    for at in order:
        identifier, label = first.ids[at], first.labels[at]
        if (choice.label and label != choice.label) or (choice.with_text and identifier not in texts):
            continue
        said, times = Counter(everything_re[:, at].tolist()).most_common(1)[0]
        counts = {name: (int(wrong[name][at]), len(runs)) for name, runs in methods.items()}
        near = bool(first.near_duplicate[at])
        share = times / len(everything_re)
        found.append(HardExample(identifier, label, _cut(texts.get(identifier, "")), counts, str(said), share, near))
    return found


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT].rstrip() + " …"


def hard_sheet(rows: Sequence[HardExample], methods: Sequence[str], words: Words) -> Sheet:
    """The table of examples, with the share of seeds of each method that get one wrong."""
    table = [
        [
            row.id,
            row.label,
            f"{row.said} ({words.percent(row.said_share)})",
            *(f"{row.wrong[method][0]}/{row.wrong[method][1]}" if method in row.wrong else "—" for method in methods),
            ("? " if row.suspicious else "") + row.text,
        ]
        for row in rows
    ]
    columns = [
        words.say("example"),
        words.say("label"),
        words.say("most frequent answer"),
        *methods,
        words.say("text"),
    ]
    sheet = plain(words.say("Examples that are got wrong"), columns, table, (1, 2, len(columns) - 1))
    note = words.say(
        "Seeds that get the example wrong / seeds, for each method. A question mark: at least four fifths of all runs "
        "agree on one other class, which is a hint to look at the label."
    )
    return Sheet(sheet.title, sheet.columns, sheet.rows, (note,), sheet.left)


def churn_sheet(facts: StudyFacts, words: Words) -> Sheet:
    """For each method, the share of test examples on which two seeds disagree and those that all seeds get wrong."""
    rows: list[list[str]] = []
    for method in facts.scored:
        tests = [run.splits["test"] for run in method.runs.values() if "test" in run.splits]
        if not tests:
            continue
        wrong_se = np.asarray([run.predictions for run in tests]) != np.asarray(tests[0].labels)
        churn = method.churn()
        rows.append(
            [
                method.label,
                words.count(len(tests)),
                words.percent(churn, 1) if churn is not None else words.say("one seed"),
                words.count(int(wrong_se.all(axis=0).sum())),
                words.count(int((wrong_se.any(axis=0) & ~wrong_se.all(axis=0)).sum())),
            ]
        )
    columns = [
        words.say("method"),
        words.say("seeds that were scored"),
        words.say("churn"),
        words.say("wrong in every seed"),
        words.say("wrong in some seeds"),
    ]
    sheet = plain(words.say("Churn across seeds"), columns, rows)
    note = words.say("Churn: share of test examples on which two seeds of the same method disagree.")
    return Sheet(sheet.title, sheet.columns, sheet.rows, (note,), sheet.left)
