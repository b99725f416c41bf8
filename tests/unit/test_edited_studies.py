"""Edits of a finished study's own record and of files beside its runs: each is named or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboard_reader import client_of
from fabricated_study import write_study

from paretune.core.errors import RecordError
from paretune.records.membership import members
from paretune.records.schema import Member, Membership
from paretune.records.store import RunFolder, StudyFolder
from paretune.report.answer import answer
from paretune.report.build import build
from paretune.report.facts import gather
from paretune.report.wording import Words
from paretune.study.publish import publish

Edit = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished study that lists its runs, as one that ran in this folder."""
    path = write_study(
        tmp_path / "studies" / "s", methods=("tfidf", "lora", "full"), test_rows=40, broken=False, extra_split=False
    )
    (path / "data").mkdir()
    study = StudyFolder(path)
    specs = {run.id: run.spec() for run in study.runs()}
    runs = [Member(run_id=one, method=spec.method, seed=spec.seed, role="result") for one, spec in specs.items()]
    chosen = {spec.method: one for one, spec in specs.items() if spec.seed == 0}
    record = study.study()
    selections = [one.model_copy(update={"run_id": chosen[one.method]}) for one in record.selections]
    update = {"membership": Membership(complete=True, runs=runs), "selections": selections}
    study.write_study(record.model_copy(update=update))
    return path


def runs_of(folder: Path, method: str) -> list[RunFolder]:
    return sorted((run for run in StudyFolder(folder).runs() if run.spec().method == method), key=lambda one: one.id)


def change(path: Path, edit: Callable[[Any], object]) -> None:
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))


def of_study(edit: Callable[[Any], object]) -> Edit:
    return lambda folder: change(folder / "study.json", edit)


def examples(text: str) -> Edit:
    return lambda folder: (folder / "examples.json").write_text(text)


def every(method: str, file: str, edit: Callable[[Any], object]) -> Edit:
    def do(folder: Path) -> None:
        for run in runs_of(folder, method):
            change(run.path / file, edit)

    return do


def _visit(folder: Path) -> None:
    with client_of(folder.parent) as client:
        for path in ("/", "/study/s", "/study/s/runs", "/study/s/budget", "/study/s/data"):
            assert client.get(path).status_code < 500, path


NAMED: dict[str, tuple[Edit, str]] = {
    "all scores of a method edited": (
        every("lora", "measurements.json", lambda tree: tree["scores"]["test"].update(accuracy=0.1)), "score",
    ),
    "endless seconds": (
        every("lora", "measurements.json", lambda tree: tree["train_seconds"].update(value=float("inf"))), "number",
    ),
    "scored runs called trained": (every("lora", "status", lambda tree: tree.update(stage="trained")), "status"),
    "a method taken out": (
        of_study(lambda tree: tree.update(methods=[one for one in tree["methods"] if one["label"] != "lora"])), "",
    ),
    "a choice of another rate": (of_study(lambda tree: tree["selections"][0].update(learning_rate=0.5)), "study"),
    "runs listed as another method's": (
        of_study(lambda tree: [one.update(method="full") for one in tree["membership"]["runs"]]), "spec",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_an_edit_is_named_and_every_page_is_built(folder: Path, tmp_path: Path, name: str) -> None:
    """Answer, page and dashboard go on without what does not hold, though all runs of a method are left out."""
    edit, kind = NAMED[name]
    assert gather(StudyFolder(folder)).hold
    edit(folder)
    facts = gather(StudyFolder(folder))
    if kind:
        assert kind in {fault.kind for fault in facts.faults} and not facts.hold
        with pytest.raises(RecordError, match="records that hold"):
            publish(folder, tmp_path / "results")
    else:
        assert set(facts.by_label) == {"tfidf", "full"}
    assert all(method.runs for method in facts.scored)
    assert answer(folder, "en") and build(folder, "ru").is_file()
    _visit(folder)


@pytest.mark.parametrize(
    "edit",
    [
        of_study(lambda tree: tree.update(margin=0.0)),
        of_study(lambda tree: tree.update(margin=-1.0)),
        of_study(lambda tree: tree.update(seeds=[])),
        examples('[{"id": "te'),
        examples("{}"),
    ],
)
def test_a_record_that_cannot_be_is_refused_in_one_line(folder: Path, tmp_path: Path, edit: Edit) -> None:
    """No traceback in report and publication; the dashboard shows what is wrong with the file in its place."""
    edit(folder)
    for act in (
        lambda: answer(folder, "en"),
        lambda: build(folder, "en"),
        lambda: publish(folder, tmp_path / "results"),
    ):
        with pytest.raises(RecordError, match=r"(study|examples)\.json"):
            act()
    _visit(folder)


def test_a_head_that_is_fitted_needs_no_choice(tmp_path: Path) -> None:
    """A study of baselines and a method without a search is finished and published, and a lost seed of it is missed."""
    path = write_study(
        tmp_path / "s", methods=("majority", "head"), control="head", test_rows=40, broken=False, extra_split=False
    )
    change(path / "study.json", lambda tree: tree.update(selections=[]))
    change(path / "study.json", lambda tree: [one.update(learning_rates=[]) for one in tree["methods"]])
    own = members(StudyFolder(path).study(), {run.id: run.spec() for run in StudyFolder(path).runs()})
    assert own.complete and len(own.listed) == 6
    target, _ = publish(path, tmp_path / "results")
    assert gather(StudyFolder(target)).hold and "head" in answer(target, "en")
    lost = runs_of(path, "head")[0]
    missing = own.absent({one for one in own.listed if one != lost.id})
    assert [(one.method, one.run_id) for one in missing] == [("head", lost.id)]


def test_a_cost_without_end_is_a_word() -> None:
    """Sizes and times that cannot be do not stop a page."""
    assert Words("en").size(float("inf")) == Words("en").duration(float("inf")) == "unbounded"
