"""Classes that look alike, labels that are several, classes that nobody tests; and what is said of them.

PYTHONPATH=src python -m pytest tests/unit/test_labels.py
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import exploration, write_study

from paretune.core.errors import DataError
from paretune.core.text import spelled
from paretune.data.labels import LOOK_ALIKE, label_remarks, untested_classes
from paretune.data.prepare import Prepared, prepare
from paretune.data.sources import DataSpec
from paretune.records.exploration import ClassCount, Exploration, LabelRemark, UntestedClass
from paretune.records.store import StudyFolder, write_atomically
from paretune.report.answer import answer
from paretune.report.build import build
from paretune.report.exploration_findings import findings, remark_texts, shifts, untested_of, untested_texts
from paretune.report.wording import LANGUAGES, Words

WORDS = ("garlic", "river", "engine", "doctor", "window", "garden", "letter", "bridge", "candle", "forest", "mirror")


def odd(labels: dict[str, int], kind: str) -> list[list[str]]:
    return [one.labels for one in label_remarks(labels) if one.kind == kind]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("food", "Food"),
        ("café", "cafe\u0301"),
        ("food", "fo\u200bod"),
        ("food", "\ufefffood"),
        ("credit card", "credit\u00a0card"),
        ("credit card", "credit_card"),
        ("credit card", "Credit-Card"),
        ("cop", "сор"),  # the second is Cyrillic
        ("Вода", "Boда"),
        ("Вода", "вода"),
        ("x²", "x2"),
        ("ﬁre", "fire"),
        ("straße", "STRASSE"),
    ],
)
def test_labels_that_nobody_can_tell_apart_are_a_group(one: str, other: str) -> None:
    """Case, composition, invisible signs, joiners and letters of another script make no other word."""
    assert odd({one: 3, "money": 2, other: 1}, "look_alike") == [sorted([one, other])]
    assert label_remarks({one: 3, "money": 2, other: 1})[0].rows == 4


def test_groups_join_over_a_third_label_and_ordinary_labels_are_none() -> None:
    """A chain is one group; different words, numbers and signs are none."""
    assert odd({"FOOD": 1, "food": 1, "fo\u200bod": 1, "foo": 1}, "look_alike") == [["FOOD", "food", "fo\u200bod"]]
    assert label_remarks(dict.fromkeys(["1", "2", "12", "+", "-", "", "да", "нет", "a b", "ab"], 1)) == []
    assert len(LOOK_ALIKE) > 40


@pytest.mark.parametrize("label", ["[0, 1, 0]", "['food', 'sport']", "(1, 2)", "{'food'}", " [1]\n", "[]"])
def test_a_printed_list_is_pointed_out(label: str) -> None:
    """One-hot and other lists that CSV holds as text."""
    assert odd({label: 2, "x": 1}, "list_text") == [[label]]


def test_joined_labels_are_pointed_out_where_their_parts_are_labels() -> None:
    """A comma in a name is a name; a comma between two classes is two classes."""
    assert odd({"3": 1, "27": 1, "3,27": 4, "3; 27": 1, "news, world": 2, "(other)": 1}, "joined") == [
        ["3,27", "3; 27"]
    ]


def test_words_for_a_missing_label_are_pointed_out_and_stay_classes() -> None:
    """`nan` and `N/A` may be what a program wrote for nothing; `no` and `-` are labels."""
    labels = {"NA": 3, "None": 2, "nan": 1, "no": 4, "-": 5, "": 6, "x": 7}
    assert odd(labels, "missing_word") == [["NA", "None", "nan"]]
    shown = {lang: remark_texts(label_remarks(labels), Words(lang))[-1] for lang in LANGUAGES}
    assert "6 rows have labels that often stand for a missing one" in shown["en"] and "“NA”, “None”" in shown["en"]
    assert "В 6 строках метки, которыми часто обозначают отсутствие метки" in shown["ru"]


def test_a_label_as_long_as_a_text_is_cut_where_it_is_named() -> None:
    """A sentence about labels stays a sentence, whatever a label is."""
    labels = {"long " * 1000: 1, "Long " * 1000: 1}
    assert all(len(text) < 400 and "…" in text for text in remark_texts(label_remarks(labels), Words("en")))


def test_what_cannot_be_seen_is_spelled() -> None:
    """Escapes stand for what is hidden, and only for that."""
    assert [spelled(one) for one in ("café", "cafe\u0301", "a\u200bb", "сop", " x", "добрый день", "")] == [
        "café",
        "cafe\\u0301",
        "a\\u200bb",
        "\\u0441op",
        "\\u0020x",
        "добрый день",
        "",
    ]


def test_a_test_label_in_another_spelling_names_its_neighbour(tmp_path: Path) -> None:
    """The label that only looks the same is named as what was meant, spelled so that the difference shows."""
    lines = [f"{WORDS[i % 11]} {WORDS[i // 3]} number {i},{'café' if i % 2 else 'money'}" for i in range(30)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(lines), encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,label\nsomething else,cafe\u0301\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        prepare(DataSpec(train="path:a.csv", test="path:b.csv"), tmp_path)
    assert "training lacks: 'cafe\\u0301'" in str(caught.value) and "did you mean 'café'" in str(caught.value)


# --- classes that nobody tests --------------------------------------------------------------------------------------


def sentence(i: int) -> str:
    draw = np.random.default_rng(i)
    return " ".join(draw.choice(WORDS, 6)) + f" {draw.integers(1_000_000)}"


def made(folder: Path, classes: dict[str, list[str]], **settings: object) -> Prepared:
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((text, label) for label, texts in classes.items() for text in texts)]
        )
    return prepare(DataSpec.model_validate({"train": "path:a.csv", "rare_classes": "keep", **settings}), folder)


def lacking(prepared: Prepared) -> dict[tuple[str, str], str]:
    return {(one.label, one.split): one.reason for one in untested_classes(prepared)}


COMMON = {"a": [sentence(i) for i in range(60)], "b": [sentence(i) for i in range(60, 120)]}
LATE = "we are sorry to have to say that the order with the number {} is late, and hope that you will bear with us"
PARCEL = "dear customer, your parcel with the number {} was shipped today and will be with you by the end of the week"


def test_a_class_of_one_template_is_named_untested(tmp_path: Path) -> None:
    """Rows that are near duplicates of one another train together, and that is the reason given."""
    prepared = made(tmp_path, {**COMMON, "shipped": [PARCEL.format(i) for i in range(30)]})
    assert lacking(prepared) == {("shipped", split): "near_duplicates" for split in ("test", "validation")}
    assert {one.rows for one in untested_classes(prepared)} == {30}


def test_a_class_of_few_rows_is_named_untested(tmp_path: Path) -> None:
    """One row can only train, two can train and be tested; both are said."""
    prepared = made(tmp_path, {**COMMON, "one": [sentence(900)], "two": [sentence(901), sentence(902)]})
    assert lacking(prepared) == {
        ("one", "test"): "few_rows",
        ("one", "validation"): "few_rows",
        ("two", "validation"): "few_rows",
    }


def test_a_class_that_the_test_file_lacks_is_named_untested(tmp_path: Path) -> None:
    """With a test file of its own, the file is the reason."""
    (tmp_path / "t.csv").write_text(f"text,label\n{sentence(700)},a\n", encoding="utf-8")
    assert lacking(made(tmp_path, COMMON, test="path:t.csv")) == {("b", "test"): "not_in_file"}


def test_ordinary_data_lack_nothing(tmp_path: Path) -> None:
    """Where each class is in each split, nothing is said."""
    assert untested_classes(made(tmp_path, COMMON)) == []


def test_a_class_of_two_templates_is_tested_on_one(tmp_path: Path) -> None:
    """Groups too large for the share asked for are parted nevertheless, one of them staying to train on."""
    groups = [PARCEL.format(i) for i in range(12)] + [LATE.format(i) for i in range(9)]
    prepared = made(tmp_path, {**COMMON, "post": groups})
    counts = {name: Counter(rows.labels)["post"] for name, rows in prepared.splits.items()}
    assert counts == {"train": 12, "validation": 0, "test": 9}
    assert not any(prepared.near_duplicate["test"])
    assert lacking(prepared) == {("post", "validation"): "near_duplicates"}


# --- what is said ---------------------------------------------------------------------------------------------------

UNTESTED = [
    UntestedClass(label="earn", split="test", rows=30, reason="near_duplicates"),
    UntestedClass(label="acq", split="test", rows=1, reason="few_rows"),
    UntestedClass(label="crude", split="validation", rows=9, reason="not_in_file"),
]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_untested_classes_are_in_the_answer_and_on_both_pages(tmp_path: Path, lang: str) -> None:
    """The terminal's answer and the report name the classes, their rows and why; the exploration says it too."""
    folder = write_study(tmp_path / "made", seeds=(0, 1), test_rows=40)
    explored = exploration().model_copy(update={"untested": UNTESTED})
    write_atomically(folder / "explore.json", explored.model_dump_json())
    told = answer(StudyFolder(folder).path, lang)
    sentence = untested_texts(UNTESTED[:2], 4, Words(lang))[0]
    quoted = "«earn»" if lang == "ru" else "“earn”"
    assert sentence in told and f"{quoted} (30 " in told and "crude" not in sentence
    page = build(folder, lang).read_text("utf-8")
    assert sentence in page
    assert {sentence, *untested_texts(UNTESTED[2:], 4, Words(lang))} <= set(findings(explored, Words(lang)))


def test_records_from_before_count_untested_classes() -> None:
    """An older exploration has no reasons but has the counts."""
    counts = [ClassCount(label="a", rows={"train": 5, "test": 0}), ClassCount(label="b", rows={"train": 5, "test": 1})]
    old = exploration().model_copy(update={"classes": counts, "rows": {"train": 10, "test": 1}, "untested": None})
    assert [(one.label, one.split, one.rows, one.reason) for one in untested_of(old)] == [("a", "test", 5, "unknown")]
    assert "untested" not in old.model_dump(mode="json")
    assert Exploration.model_validate_json(old.model_dump_json()) == old


def test_shares_that_differ_between_train_and_test_are_found() -> None:
    """Out-of-scope rows at 3 % of training and 10 % of test are named; what chance explains is not."""
    counts = [
        ClassCount(label="oos", rows={"train": 300, "validation": 60, "test": 300}),
        ClassCount(label="pay", rows={"train": 9000, "validation": 1800, "test": 2500}),
        ClassCount(label="call", rows={"train": 700, "validation": 140, "test": 200}),
    ]
    rows = {"train": 10_000, "validation": 2000, "test": 3000}
    found = shifts(counts, rows)
    assert [(one.label, one.split, one.trained, one.tested) for one in found] == [
        ("oos", "test", 0.03, 0.1),
        ("pay", "test", 0.9, pytest.approx(0.8333, abs=1e-4)),
    ]
    few = [ClassCount(label=one.label, rows={"train": one.rows["train"], "test": 3}) for one in counts]
    assert shifts(few, {"train": 10_000, "test": 9})[0].label == "pay"
    told = findings(exploration().model_copy(update={"classes": counts, "rows": rows}), Words("en"))
    assert any("“oos” 3.0% → 10.0%" in one for one in told)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_odd_labels_are_told(lang: str) -> None:
    """Every kind has its sentence, with what cannot be seen spelled out and no more than five names."""
    remarks = [
        LabelRemark(kind="look_alike", labels=["cafe\u0301", "café"], rows=4),
        LabelRemark(kind="list_text", labels=[f"[{i}]" for i in range(8)], rows=8),
        LabelRemark(kind="joined", labels=["a,b"], rows=1),
    ]
    told = remark_texts(remarks, Words(lang))
    assert len(told) == 3 and "cafe\\u0301" in told[0] and "[4]" in told[1] and "[5]" not in told[1] and "3" in told[1]


def test_labels_are_not_doubted_by_a_weak_model() -> None:
    """Where over a fifth of the labels look wrong, no row is held up as wrong."""
    explored = exploration()
    assert any("look wrong" in one and "likeliest" in one for one in findings(explored, Words("en")))
    weak = explored.model_copy(update={"notes": ["suspects_many"]})
    told = [one for one in findings(weak, Words("en")) if "look wrong" in one]
    assert len(told) == 1 and "too weak" in told[0]
