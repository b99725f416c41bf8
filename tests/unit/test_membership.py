"""Which runs of a folder belong to the study: one answer for every reader, written by the planner of jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.core.config import JsonObject
from paretune.core.errors import ConfigError, RecordError
from paretune.dashboard.gathered import Gatherer
from paretune.dashboard.index import Index, progress
from paretune.records.exporters.flat import flat_study
from paretune.records.membership import members
from paretune.records.schema import Member, Membership, RunSpec
from paretune.records.store import StudyFolder
from paretune.report.facts import gather
from paretune.report.tables import summary
from paretune.study.design import Study, read_study_file
from paretune.study.origin import ORIGIN_FILE, claim
from paretune.study.plan import Digests, look
from paretune.study.publish import publish

METHODS = ("majority", "lora", "full")
CHANGES: dict[str, JsonObject] = {
    "pooling": {"model": {"source": "asset:none", "pooling": "cls"}},
    "text prefix": {"model": {"source": "asset:none", "text_prefix": "query: "}},
    "model": {"model_digest": "other"},
    "data": {"data_digest": "other"},
    "data settings": {"data": {"train": "asset:none", "split_seed": 1}},
    "earlier task": {"earlier": {"data": {"train": "asset:x"}, "data_digest": "e"}, "schema_version": 2},
    "training": {"train": {"epochs": 4}},
    "recipe": {"recipe": 2},
    "memory cap": {"memory_cap_bytes": 2**30},
    "name": {"study": "another"},
}
STUDY = """
[study]
name = "s"
control = "full"
seeds = [0, 1]
search = [1.0, 3.0]
[model]
source = "asset:minilm-l6"
[data]
train = "path:texts.csv"
[methods.majority]
[methods.full]
learning_rate = 1e-4
"""


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(write_study(tmp_path / "runs" / "fabricated", methods=METHODS, test_rows=40, broken=False))


def with_runs_of_another_setting(folder: StudyFolder, change: JsonObject) -> set[str]:
    """A second set of runs, younger and of the changed setting; returns the ids of the first set."""
    own = {run.id for run in folder.runs()}
    for run in folder.runs():
        spec = RunSpec.model_validate_json(json.dumps({**run.spec().model_dump(mode="json"), **change}))
        other = folder.run(spec)
        shutil.copytree(run.path, other.path)
        (other.path / "spec.json").write_text(spec.model_dump_json())
        other.set_status("ok", "scored")
    return own


def listed(folder: StudyFolder, ids: set[str]) -> None:
    """What the planner would have written of these runs."""
    specs = [run.spec() for run in folder.runs() if run.id in ids]
    runs = [Member(run_id=one.run_id, method=one.method, seed=one.seed, role="result") for one in specs]
    folder.write_study(folder.study().model_copy(update={"membership": Membership(complete=True, runs=runs)}))


def chosen(folder: StudyFolder) -> None:
    """As an older record: which runs were chosen, and no list of members."""
    own = {(run.spec().method, run.spec().seed): run.id for run in folder.runs()}
    study = folder.study()
    selections = [one.model_copy(update={"run_id": own[one.method, 0]}) for one in study.selections]
    folder.write_study(study.model_copy(update={"selections": selections}))


def read_by_all(folder: StudyFolder, results: Path) -> list[set[str]]:
    """The runs that each reader takes for the study's own."""
    facts = gather(folder)
    entry = Index(folder.path).study(folder.path.name)
    assert entry is not None
    shown = Gatherer(Index(folder.path)).gathered(entry).facts
    assert shown is not None and progress(entry).done == 9
    target, _ = publish(folder.path, results)
    return [
        {run.id for method in facts.methods for run in method.runs.values()},
        {run.id for method in shown.methods for run in method.runs.values()},
        {run.id for run in flat_study(folder).runs if run.role != "left_over"},
        {run.id for run in StudyFolder(target).runs()},
    ]


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("record", ["with members", "older"])
def test_every_reader_takes_the_same_runs(folder: StudyFolder, tmp_path: Path, name: str, record: str) -> None:
    """Report, dashboard, exporters and publication read the study's own runs alone, though others are younger."""
    if record == "older":
        chosen(folder)
    own = with_runs_of_another_setting(folder, CHANGES[name])
    if record == "with members":
        listed(folder, own)
    assert len(own) == 9 and len(folder.runs()) == 18
    assert read_by_all(folder, tmp_path / "results") == [own] * 4


def test_members_decide_also_before_anything_is_chosen(folder: StudyFolder) -> None:
    """Baselines alone, or a study that was killed early: no choice of a rate is needed to know whose a run is."""
    own = with_runs_of_another_setting(folder, CHANGES["data"])
    folder.write_study(folder.study().model_copy(update={"selections": []}))
    listed(folder, {run.id for run in folder.runs() if run.id not in own})
    assert {run.id for method in gather(folder).methods for run in method.runs.values()}.isdisjoint(own)


def test_an_older_record_without_choices_goes_by_its_file(folder: StudyFolder) -> None:
    """Baselines alone, published before there were lists: runs of another pooling than the file's are left over."""
    study = folder.study()
    spec = {**study.spec, "model": {"source": "asset:none"}}
    folder.write_study(study.model_copy(update={"selections": [], "spec": spec}))
    own = with_runs_of_another_setting(folder, CHANGES["pooling"])
    found = members(folder.study(), {run.id: run.spec() for run in folder.runs()})
    assert {run.id for run in folder.runs() if found.role(run.id) != "left_over"} == own


def test_a_run_that_is_gone_is_counted_as_missing(folder: StudyFolder) -> None:
    """Of a study that ended; of one that still runs it is not finished."""
    ids = {run.id for run in folder.runs()}
    listed(folder, ids)
    gone = next(run for run in folder.runs() if run.spec().method == "lora" and run.spec().seed == 1)
    shutil.rmtree(gone.path)
    row = next(one for one in summary(folder.path) if one.method == "lora")
    assert (row.scored_runs, row.stopped) == (2, {"missing": 1})
    study = folder.study()
    assert study.membership is not None
    running = study.membership.model_copy(update={"complete": False})
    folder.write_study(study.model_copy(update={"membership": running}))
    row = next(one for one in summary(folder.path) if one.method == "lora")
    assert (row.scored_runs, row.stopped) == (2, {"unfinished": 1})
    with pytest.raises(RecordError, match="is not finished"):
        publish(folder.path, folder.path.parent / "results")


def a_study(tmp_path: Path, text: str = STUDY, name: str = "s.toml") -> Study:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_study_file(tmp_path / name)


def test_the_planner_names_the_runs_before_they_begin(tmp_path: Path) -> None:
    """The control's trials of the first seed, then baselines as results; after a choice its runs to come too."""
    study, folder = a_study(tmp_path), StudyFolder(tmp_path / "runs" / "s")
    plan = look(study, folder, Digests(model="m", data="d"))
    assert [(one.method, one.seed, one.role) for one in plan.members] == [
        ("full", 0, "trial"), ("full", 0, "trial"), ("majority", 0, "result"), ("majority", 1, "result"),
    ]  # fmt: skip
    assert not plan.membership.complete
    assert {job.spec.run_id for job in plan.jobs} == {one.run_id for one in plan.members}


# --- which study file a folder belongs to ---------------------------------------------------------------------------


def test_another_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """One line that names both files and the ways out; the folder stays the first one's."""
    folder = StudyFolder(tmp_path / "runs" / "s")
    first, second = a_study(tmp_path, name="a/s.toml"), a_study(tmp_path, name="b/s.toml")  # other data: paths differ
    claim(first, folder)
    with pytest.raises(ConfigError) as caught:
        claim(second, folder)
    text = str(caught.value)
    assert "\n" not in text and str(first.path) in text and str(second.path) in text
    assert "change `name`" in text and "--runs" in text and str(folder.path / ORIGIN_FILE) in text
    claim(first, folder)


def test_a_file_may_be_edited_moved_and_copied(tmp_path: Path) -> None:
    """The same file with other settings, the file at another place, and a copy of it that says the same."""
    folder = StudyFolder(tmp_path / "runs" / "s")
    claim(a_study(tmp_path), folder)
    edited = a_study(tmp_path, STUDY.replace("1e-4", "2e-4"))
    claim(edited, folder)
    claim(a_study(tmp_path, edited.text, "copy.toml"), folder)
    claim(edited, folder)
    edited.path.rename(tmp_path / "moved.toml")
    claim(read_study_file(tmp_path / "moved.toml"), folder)
    (tmp_path / "moved.toml").unlink()
    claim(a_study(tmp_path, STUDY.replace("1e-4", "3e-4"), "new.toml"), folder)
    (folder.path / ORIGIN_FILE).write_text("{")  # torn: as a folder from before there was such a file
    claim(a_study(tmp_path, STUDY, "last.toml"), folder)
