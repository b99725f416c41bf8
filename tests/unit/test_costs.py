"""Costs are compared only between quiet runs of one processor, engine and thread count; the others are marked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricated_study import write_study
from rich.console import Console

from paretune.core.config import JsonObject
from paretune.records.store import StudyFolder
from paretune.report.answer import answer
from paretune.report.budgets import budget_sheet
from paretune.report.choice import chosen
from paretune.report.cost_sheets import resources_sheet
from paretune.report.costs import Costs, costs_of, measured_run, waited
from paretune.report.draws import draws_of
from paretune.report.facts import StudyFacts, gather
from paretune.report.front import cost_axes, front_data
from paretune.report.tables import NOT_RANKED, cost_of, markdown_table, rows_of, terminal_table
from paretune.report.token_table import TokenRow, token_table
from paretune.report.wording import Words

METHODS = ("tfidf", "head", "lora", "full")
ENGINE = {"name": "native", "reason": "", "processor": "made up", "threads": 2}


@pytest.mark.parametrize(
    ("wall", "cpu", "threads", "expected"),
    [
        (10.0, 19.2, 2, False),  # ratio of the published studies' runs
        (10.0, 15.9, 2, False),  # the most serial quiet one of them
        (10.0, 13.8, 2, True),  # the least disturbed of those beside other work
        (61.0, 11.3, 2, True),  # the demo's LoRA on a busy machine
        (10.0, 10.0, 1, False),
        (10.0, 8.0, 1, True),
        (10.0, 40.0, 16, False),
        (10.0, 20.0, 16, True),
        (0.4, 0.1, 2, False),  # too short to be judged
        (10.0, 0.0, 2, False),  # processor time is not known
        (10.0, 3.0, 0, False),  # nor are threads
    ],
)
def test_a_run_that_waited_is_told_by_its_processor_time(wall: float, cpu: float, threads: int, expected: bool) -> None:
    """Wall time far above what the run's own work needs on its threads; a share of 30 % on one thread is allowed."""
    assert waited(wall, cpu, threads) is expected


def test_a_baseline_may_run_on_one_thread() -> None:
    """All its work on one of two threads is no sign of waiting; more wall than processor time is."""
    assert not waited(10.0, 9.9, 2, all_serial=True)
    assert waited(10.0, 8.0, 2, all_serial=True)


def edited(folder: Path, method: str, change: Callable[[JsonObject], None], seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """The same study with other measurements of a method's scored runs."""
    for run in StudyFolder(folder).runs():
        spec, path = run.spec(), run.path / "measurements.json"
        if spec.method == method and spec.seed in seeds and path.exists():
            tree = json.loads(path.read_text())
            change(tree)
            path.write_text(json.dumps(tree))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path / "s", methods=METHODS, broken=False, test_rows=200)


def busy(tree: JsonObject) -> None:
    tree["train_seconds"]["value"] *= 4


def engine(**other: object) -> Callable[[JsonObject], None]:
    def change(tree: JsonObject) -> None:
        tree["engine"] = {**ENGINE, **other}

    return change


def resumed(tree: JsonObject) -> None:
    tree["train_seconds"]["grade"] = "estimated"


def _gathered(folder: Path) -> StudyFacts:
    return gather(StudyFolder(folder))


def test_quiet_runs_of_one_machine_are_all_compared(folder: Path) -> None:
    """Nothing is marked, in records from before engines were written down neither."""
    facts = _gathered(folder)
    costs = Costs(facts)
    assert all(not costs.doubts(run, "seconds") for method in facts.scored for run in method.runs.values())
    assert NOT_RANKED not in markdown_table(folder, "en")


CASES = {
    "waited": (busy, "measured beside other work"),
    "engine": (engine(name="transformers", reason="DoRA"), "measured with another engine"),
    "processor": (engine(processor="another"), "measured on another processor"),
    "threads": (engine(threads=8), "measured with another number of threads"),
    "estimated": (resumed, "estimated"),
}


@pytest.mark.parametrize("why", CASES)
def test_a_time_that_cannot_be_compared_is_marked_and_ranked_nowhere(folder: Path, why: str) -> None:
    """In table, page and terminal it has its mark and reason; it stands on no front and in no budget."""
    change, said = CASES[why]
    if why in ("engine", "processor", "threads"):
        for method in METHODS:
            edited(folder, method, engine(name="none") if method == "tfidf" else engine())
    edited(folder, "lora", change)
    facts, words = _gathered(folder), Words("en")
    rows = {row.method: row for row in rows_of(facts)}
    time = rows["lora"].train_seconds
    assert time is not None and not time.ranked and rows["full"].train_seconds.ranked  # type: ignore[union-attr]
    assert "lora" not in {point.method for point in front_data(facts, cost_axes(words)[1])}
    draws, budgets = draws_of(facts), budget_sheet(facts, words)
    assert draws is not None and draws.left_out == ["lora"] and budgets is not None
    assert any("may be compared: lora" in note for note in budgets.notes)
    cells = {row[0].text: row[3] for row in resources_sheet(list(rows.values()), words).rows}
    assert cells["lora"].text.endswith(NOT_RANKED) and said in cells["lora"].note and not cells["full"].note
    console = Console(width=160, file=io.StringIO(), force_terminal=False)
    console.print(terminal_table(folder, "en"))
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert f"{NOT_RANKED} not ranked: lora" in printed and said in printed
    assert NOT_RANKED in markdown_table(folder, "ru")


def test_one_busy_run_of_several_is_left_out_of_the_mean(folder: Path) -> None:
    """The others say what the method costs; the mark tells how many were left out."""
    before = rows_of(_gathered(folder))
    edited(folder, "lora", busy, seeds=(1,))
    facts = _gathered(folder)
    row = next(row for row in rows_of(facts) if row.method == "lora")
    old = next(row for row in before if row.method == "lora")
    assert row.train_seconds is not None and old.train_seconds is not None
    assert row.train_seconds.ranked and row.train_seconds.value == pytest.approx(old.train_seconds.value, rel=0.04)
    assert row.train_seconds.left_out == (("waited", 1),)
    by_seed = Costs(facts).by_seed(facts.by_label["lora"], "seconds")
    assert by_seed is not None and by_seed[1] == pytest.approx((by_seed[0] + by_seed[2]) / 2)
    assert "lora" in {point.method for point in front_data(facts, cost_axes(Words("en"))[1])}


def test_a_run_far_slower_than_its_siblings_waited_whatever_the_threads(folder: Path) -> None:
    """On 16 threads a run may need a third of its processor time; its sibling that needs a twelfth says otherwise."""
    for method in METHODS:
        edited(folder, method, engine(threads=16, name="none" if method == "tfidf" else "native"))

    def many_threads(tree: JsonObject) -> None:
        tree["train_cpu_seconds"]["value"] = 12 * tree["train_seconds"]["value"]

    for method in METHODS:
        edited(folder, method, many_threads)

    def slower(tree: JsonObject) -> None:
        tree["train_seconds"]["value"] *= 3

    edited(folder, "lora", slower, seeds=(2,))
    facts = _gathered(folder)
    assert Costs(facts).left_out(facts.by_label["lora"].runs.values(), "seconds") == {"waited": 1}


def test_memory_is_compared_between_machines_but_not_between_engines(folder: Path) -> None:
    """A busy machine or another processor needs no other memory; another engine does, and then the answer says so."""
    for method in METHODS:
        edited(folder, method, engine(name="none") if method == "tfidf" else engine())
    edited(folder, "lora", engine(processor="another"))
    facts = _gathered(folder)
    lora = facts.by_label["lora"].runs[0]
    assert Costs(facts).doubts(lora, "memory") == () and Costs(facts).doubts(lora, "seconds") == ("processor",)
    edited(folder, "lora", engine(name="transformers"))
    facts = _gathered(folder)
    assert Costs(facts).doubts(facts.by_label["lora"].runs[0], "memory") == ("engine",)
    assert "lora" not in {point.method for point in front_data(facts, cost_axes(Words("en"))[0])}


def test_answer_does_not_choose_by_a_memory_of_another_engine(tmp_path: Path) -> None:
    """Where a candidate's memory was measured with another engine the least one decides nothing, as the rule says."""
    same = {"last2": 0.95, "lora": 0.95, "full": 0.95, "tfidf": 0.6}
    folder = write_study(
        tmp_path / "s", seeds=(0, 1, 2, 3, 4), methods=("tfidf", "last2", "lora", "full"), broken=False, quality=same,
        margin=0.05, test_rows=1500,
    )  # fmt: skip
    assert chosen([row for row in rows_of(_gathered(folder)) if row.scored_runs]).by_memory
    assert "the one of least peak memory" in answer(folder, "en")
    for method in ("last2", "lora", "full"):
        edited(folder, method, engine(name="transformers" if method == "last2" else "native"), seeds=(0, 1, 2, 3, 4))
    assert not chosen([row for row in rows_of(_gathered(folder)) if row.scored_runs]).by_memory
    assert "not all measured alike" in answer(folder, "en") and "измерены не одинаково" in answer(folder, "ru")


def test_costs_without_predictions_have_the_same_doubts_and_marks(folder: Path) -> None:
    """A list of runs and the table of next tokens judge by measurements alone, and as the report does."""
    edited(edited(folder, "lora", busy), "head", resumed)
    facts = _gathered(folder)
    runs = [run for method in facts.scored for run in method.runs.values()]
    alone = [measured_run(run.id, run.spec, run.measurements, run.provenance) for run in runs]
    full, bare = Costs(facts), costs_of(facts.study, alone)
    for resource in ("memory", "seconds", "cpu_seconds", "energy"):
        assert [full.doubts(run, resource) for run in runs] == [bare.doubts(run, resource) for run in alone]
    rows = [
        TokenRow(label, label == "full", 3, train_seconds=cost_of(bare, own, "seconds", lambda one: one.train_seconds))
        for label in METHODS
        for own in [[run for run in alone if run.spec.method == label]]
    ]
    with io.StringIO() as out:
        Console(file=out, width=200).print(token_table(StudyFolder(folder), rows, Words("en")))
        lines = out.getvalue().splitlines()
    marked = [line.split()[0] for line in lines if f"sec{NOT_RANKED}" in line or f"min{NOT_RANKED}" in line]
    assert marked == ["head", "lora"]
    assert "not ranked: head and lora" in " ".join(" ".join(lines).split())
