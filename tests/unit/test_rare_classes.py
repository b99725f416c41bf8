"""Recall of rare classes: values by hand, which classes are rare, and when the table stands."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import write_study
from scipy import stats
from sklearn.metrics import recall_score

from paretune.records.exploration import ClassCount
from paretune.records.store import StudyFolder
from paretune.report.build import build
from paretune.report.facts import StudyFacts, gather
from paretune.report.rare_classes import rare_classes, rare_classes_section, rare_classes_sheet, rare_rows
from paretune.report.tables import rows_of
from paretune.report.wording import Words
from paretune.stats.intervals import crossed_interval, wilson
from paretune.stats.recall import even_rows, recall_interval, recall_values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of which "trade" has 8 % of the training rows, which is less than half of a quarter."""
    quality = {"lora": 0.7, "full": 0.8}
    return write_study(tmp_path_factory.mktemp("study") / "s", broken=False, quality=quality)


def with_classes(facts: StudyFacts, train: dict[str, int]) -> StudyFacts:
    assert facts.exploration is not None
    classes = [ClassCount(label=label, rows={"train": rows}) for label, rows in train.items()]
    facts.exploration = facts.exploration.model_copy(update={"classes": classes})
    return facts


def test_values_by_hand() -> None:
    """Classes a (1 of 2 right) and b (2 of 3): R = 7/12, N = 5, k = 2, weights 5/4 and 5/6; others are left out."""
    labels, predictions = ["a", "a", "b", "b", "b", "c"], ["a", "x", "b", "b", "x", "c"]
    found = recall_values(labels, predictions, {"a", "b"})
    r = 7 / 12
    assert found.tolist() == pytest.approx([r + 5 / 8, r - 5 / 8, r + 5 / 18, r + 5 / 18, r - 10 / 18])
    assert found.mean() == pytest.approx(r)


def test_the_interval_by_hand() -> None:
    """Hits [0 0 1 1] and [0 1 0 1]: ½, crossed variance 1/24 with 1.5 degrees of freedom (as in `test_forgetting.py`),
    so ¼ ÷ 1/24 = 6 rows, times (1.96 / t)²; where nothing is right, Wilson's 0 of 4."""
    found = recall_interval(np.array([[0.0, 0, 1, 1], [0, 1, 0, 1]]), rows=4)
    z = 1.959964
    n = 6 * (z / stats.t.ppf(0.975, 1.5)) ** 2
    half = z * math.sqrt(0.25 / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    nothing = recall_interval(np.zeros((2, 4)), rows=4)
    assert (nothing.low, nothing.high) == pytest.approx((0.0, wilson(0, 4).high))


def test_rows_of_unequal_classes_count_as_fewer() -> None:
    """Classes of 2 and 6: 2² / (1/2 + 1/6) = 6 rows of one class, not 8."""
    assert even_rows(["a"] * 2 + ["b"] * 6 + ["c"], {"a", "b"}) == pytest.approx(6.0)
    with pytest.raises(ValueError, match="no example of z"):
        even_rows(["a"], {"z"})


def test_the_mean_is_that_of_an_outside_authority() -> None:
    """scikit-learn's macro recall over some of the labels."""
    rng = np.random.default_rng(0)
    labels, predictions = rng.choice(list("abcde"), 200).tolist(), rng.choice(list("abcde"), 200).tolist()
    wanted = recall_score(labels, predictions, labels=["b", "e"], average="macro")
    assert recall_values(labels, predictions, {"b", "e"}).mean() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"), [(["a"], [], "one a label"), (["a"], ["a"], "no example of z")]
)
def test_what_has_no_recall_is_refused(labels: list[str], predictions: list[str], message: str) -> None:
    """Unequal lengths, and classes without an example."""
    with pytest.raises(ValueError, match=message):
        recall_values(labels, predictions, {"z"})


def test_the_rarest_quarter_of_the_training_rows(folder: Path) -> None:
    """One class of four; with eight classes two, the fewest rows first, ties by name."""
    facts = gather(StudyFolder(folder))
    found = rare_classes(facts)
    assert found is not None and found.labels == ("trade",) and found.left_out == ()
    test = facts.scored[0].runs[0].splits["test"].labels
    assert found.test_rows == test.count("trade") and found.train_rows == int(960 * 0.08)
    eight = {"earn": 500, "acq": 300, "trade": 9, "crude": 9, "e": 400, "f": 400, "g": 400, "h": 400}
    found = rare_classes(with_classes(facts, eight))
    assert found is not None and found.labels == ("crude", "trade")


@pytest.mark.parametrize(
    ("train", "stands"),
    [
        ({"earn": 300, "acq": 300, "crude": 300, "trade": 128}, True),  # 12.45 % of all: under half of a quarter
        ({"earn": 300, "acq": 300, "crude": 300, "trade": 129}, False),
        ({"earn": 900, "acq": 90, "crude": 9}, False),  # three classes have no quarter
    ],
)
def test_the_table_stands_where_classes_are_unequal(folder: Path, train: dict[str, int], stands: bool) -> None:
    """Four classes at least, and the rare quarter holds at most half of an equal share."""
    facts = with_classes(gather(StudyFolder(folder)), train)
    assert (rare_classes(facts) is not None) == stands
    assert (rare_classes_section(facts, rows_of(facts), Words("en")) is not None) == stands


def test_a_rare_class_without_test_rows_is_left_out_by_name(folder: Path) -> None:
    """It has no recall; where it was the only rare one there is no table."""
    eight = {"earn": 500, "acq": 300, "trade": 9, "z": 2, "e": 400, "f": 400, "g": 400, "h": 400}
    facts = with_classes(gather(StudyFolder(folder)), eight)
    found = rare_classes(facts)
    assert found is not None and found.labels == ("trade",) and found.left_out == ("z",)
    sheet = rare_classes_sheet(facts, rows_of(facts), Words("en"))
    assert sheet is not None and sheet.notes[-1] == "Left out, with fewer than two test texts each: z."
    alone = with_classes(facts, {"earn": 500, "acq": 300, "crude": 300, "z": 2})
    assert rare_classes(alone) is None


def test_numbers_of_the_table_are_those_of_the_records(folder: Path) -> None:
    """Recall, its interval and the difference to the control, computed here from the predictions themselves."""
    facts = gather(StudyFolder(folder))
    rare = rare_classes(facts)
    assert rare is not None
    found = {row.method: row for row in rare_rows(facts, rare)}
    hits = {
        method.label: np.array(
            [
                [prediction == label for label, prediction in zip(test.labels, test.predictions, strict=True)]
                for test in (run.splits["test"] for _, run in sorted(method.runs.items()))
            ],
            dtype=float,
        )[:, [label == "trade" for label in method.runs[0].splits["test"].labels]]
        for method in facts.scored
    }
    for method, hits_se in hits.items():
        assert found[method].rare == pytest.approx(hits_se.mean())
    lora, full = hits["lora"], hits["full"]
    wanted = recall_interval(lora, lora.shape[1])  # of one class the values are the hits themselves
    assert found["lora"].interval == pytest.approx((wanted.low, wanted.high))
    compared = found["lora"].against_control
    assert compared is not None and compared.difference is not None
    assert compared.difference.estimate == pytest.approx((lora - full).mean())
    assert compared.alone is not None and compared.alone.low == pytest.approx(crossed_interval(lora - full).low)
    z2 = 1.959964**2
    assert found["majority"].rare == 0.0, "no spread is no certainty:"
    assert found["majority"].interval == pytest.approx((0.0, z2 / (lora.shape[1] + z2)))
    others = facts.scored[-1].runs[0].splits["test"]
    assert found["full"].others is not None
    by_hand = [
        recall_score(run.splits["test"].labels, run.splits["test"].predictions, labels=["acq", "crude", "earn"],
                     average="macro")
        for run in facts.by_label["full"].runs.values()
    ]  # fmt: skip
    assert set(others.labels) == {"acq", "crude", "earn", "trade"}
    assert found["full"].others == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize(("lang", "title"), [("en", "Recall of rare classes"), ("ru", "Полнота редких классов")])
def test_the_report_has_the_table(folder: Path, tmp_path: Path, lang: str, title: str) -> None:
    """In both languages, with the classes by name and the number of test texts."""
    html = build(folder, lang, tmp_path / "r.html").read_text("utf-8")
    assert title in html
    found = rare_classes(gather(StudyFolder(folder)))
    assert found is not None and Words(lang).plural("{n} test text", "{n} test texts", found.test_rows) in html
