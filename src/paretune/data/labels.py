"""What is odd about the classes: labels that nobody can tell apart, printed lists, classes that nobody tests.

Not here: refusing a label (`sources.py`), words for a reader (`report/exploration_findings.py`). Nothing is changed or
merged: two spellings stay two classes until the user joins them. Look-alike letters are those of Unicode's confusables
(https://www.unicode.org/reports/tr39/) among Latin, Cyrillic and Greek.

    [one.labels for one in label_remarks({"food": 10, "Food": 2})] == [["Food", "food"]]
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from paretune.core.text import without_invisible
from paretune.data.cleaning import NearIndex
from paretune.records.exploration import LabelRemark, UntestedClass

if TYPE_CHECKING:
    from paretune.data.prepare import Prepared

HELD_OUT = ("validation", "test")
PRINTED_LIST = re.compile(r"\s*(\[.*\]|\(.*,.*\)|\{.*\})\s*", re.DOTALL)
MISSING = frozenset(["nan", "none", "null", "nil", "nat", "n/a", "na", "<na>", "#n/a", "undefined"])  # of programs
JOINED_BY = re.compile(r"\s*[,;|]\s*")
# Letters that look like a Latin one, in the case in which they do; the last are Greek.
LOOK_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТУХԐҮаеѕіјорсухԁԛԝҮүһΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρυ",
    "ABESIJKMHOPCTYXEYaesijopcyxdqwYyhABEZHIKMNOPTYXovpu",
)


def label_remarks(rows: Mapping[str, int]) -> list[LabelRemark]:
    """What is odd about labels, given with their numbers of rows."""
    remarks = [_remark("look_alike", group, rows) for group in _look_alikes(list(rows))]
    printed = [label for label in rows if PRINTED_LIST.fullmatch(label)]
    parts = {label: JOINED_BY.split(label) for label in rows if label not in printed}
    joined = [label for label, some in parts.items() if len(some) > 1 and all(part in rows for part in some)]
    missing = [label for label in rows if label.casefold() in MISSING]
    return [
        *remarks,
        *([_remark("missing_word", missing, rows)] if missing else []),
        *([_remark("list_text", printed, rows)] if printed else []),
        *([_remark("joined", joined, rows)] if joined else []),
    ]


def _remark(kind: str, labels: list[str], rows: Mapping[str, int]) -> LabelRemark:
    return LabelRemark.model_validate(
        {"kind": kind, "labels": sorted(labels), "rows": sum(rows[label] for label in labels)}
    )


def _look_alikes(labels: list[str]) -> list[list[str]]:
    """Groups of labels that share a bare form; a label that shares one with each of two others joins them."""
    group_of: dict[str, int] = {}
    first_with: dict[str, str] = {}
    for number, label in enumerate(sorted(labels)):
        group_of[label] = number
        for bare in bare_forms(label):
            other = first_with.setdefault(bare, label)
            if group_of[other] != group_of[label]:
                old, new = group_of[label], group_of[other]
                group_of.update({name: new for name, group in group_of.items() if group == old})
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for label, number in group_of.items():
        groups[number].append(label)
    return [group for group in groups.values() if len(group) > 1]


def bare_forms(label: str) -> set[str]:
    """The forms of a label without what a reader hardly sees: case, composition, invisible signs, script, joiners."""
    seen = re.sub(r"[\s_-]+", " ", without_invisible(unicodedata.normalize("NFKC", label))).strip() or label
    return {seen.casefold(), seen.translate(LOOK_ALIKE).casefold(), seen.casefold().translate(LOOK_ALIKE)}


def untested_classes(prepared: Prepared) -> list[UntestedClass]:
    """Classes without a row in validation or in the test split, in the order of the classes."""
    counts = {name: Counter(prepared.splits[name].labels) for name in ("train", *HELD_OUT)}
    done = {(one.step, one.split) for one in prepared.cleaning}
    found: list[UntestedClass] = []
    for label in prepared.labels:
        in_all = sum(count[label] for count in counts.values())
        for split in HELD_OUT:
            if counts[split][label]:
                continue
            if split == "test" and ("test_split", "test") not in done:
                reason = "few_rows" if ("subset", "test") in done else "not_in_file"
            else:
                reason = "near_duplicates" if _is_torn_by_no_split(prepared, label) else "few_rows"
            found.append(UntestedClass(label=label, split=split, rows=in_all, reason=reason))
    return found


def _is_torn_by_no_split(prepared: Prepared, label: str) -> bool:
    """Whether near duplicates keep rows of a class together, so that it has fewer groups than rows."""
    texts = [
        text
        for name in ("train", *HELD_OUT)
        for text, one in zip(prepared.splits[name].texts, prepared.splits[name].labels, strict=True)
        if one == label
    ]
    return len(NearIndex(texts).clusters()) < min(len(texts), 3)
