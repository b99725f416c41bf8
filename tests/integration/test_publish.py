"""What is copied from runs/ to results/, and what is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fabricated_study import write_study

from paretune.core.errors import RecordError
from paretune.records.seal import SEAL_FILE
from paretune.records.store import StudyFolder
from paretune.report.build import build
from paretune.study.publish import publish


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A made-up study with all that a real one has on disk: weights, checkpoints, locks, data, a report."""
    folder = write_study(tmp_path / "runs" / "made-up", seeds=(0, 1))
    (folder / "data").mkdir()
    (folder / "data" / "data.parquet").write_bytes(b"texts of the user")
    (folder / "report.en.html").write_text("old")
    for run in StudyFolder(folder).runs():
        run.adapter.mkdir()
        (run.adapter / "trained.safetensors").write_bytes(b"weights")
        (run.path / "checkpoint.pt").write_bytes(b"state")
        (run.path / "error.txt").write_text("a trace with paths of this machine")
        (run.path / "lock").touch()
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_records_and_predictions_go_and_nothing_else(source: Path, tmp_path: Path) -> None:
    """No weights, no data, no locks, no traces; every record byte for byte."""
    target, size = publish(source, tmp_path / "results")
    names = {Path(name).name for name in files(target)}
    assert names == {
        "study.json", "explore.json", "examples.json", "spec.json", "status", "provenance.json", "measurements.json",
        "predictions.parquet", "events.jsonl", SEAL_FILE,
    }  # fmt: skip
    for name in files(target) - {SEAL_FILE}:
        assert (target / name).read_bytes() == (source / name).read_bytes()
    assert size == sum((target / name).stat().st_size for name in files(target))
    assert len(StudyFolder(target).runs()) == len(StudyFolder(source).runs())


def test_failures_are_published_as_results(source: Path, tmp_path: Path) -> None:
    """A run out of memory keeps its status and reason; only its events stay behind."""
    target, _ = publish(source, tmp_path / "results")
    bad = [run for run in StudyFolder(target).runs() if not run.scored]
    assert bad
    for run in bad:
        assert run.status() is not None and not (run.path / "events.jsonl").exists()


def test_publishing_again_replaces_the_whole_folder(source: Path, tmp_path: Path) -> None:
    """A run that is no longer in the study is no longer in what is published; no scratch folder stays."""
    target, _ = publish(source, tmp_path / "results")
    folder = StudyFolder(source)
    folder.write_study(folder.study().model_copy(update={"seeds": [0]}))
    publish(source, tmp_path / "results")
    assert {run.spec().seed for run in StudyFolder(target).runs()} == {0}
    assert [path.name for path in (tmp_path / "results").iterdir()] == [target.name]


def test_runs_from_before_the_study_was_changed_stay_behind(source: Path, tmp_path: Path) -> None:
    """What was trained by an earlier recipe is read by no report, so nobody need carry it along."""
    folder = StudyFolder(source)
    run = next(one for one in folder.runs() if one.scored and one.spec().method == "full")
    spec, study = run.spec(), folder.study()
    chosen = [one.model_copy(update={"run_id": run.id}) if one.method == "full" else one for one in study.selections]
    folder.write_study(study.model_copy(update={"selections": chosen}))
    older = spec.model_copy(update={"recipe": spec.recipe - 1})
    shutil.copytree(run.path, run.path.parent / older.run_id)
    (run.path.parent / older.run_id / "spec.json").write_text(older.model_dump_json())
    target, _ = publish(source, tmp_path / "results")
    published = {one.id for one in StudyFolder(target).runs()}
    assert run.id in published and older.run_id not in published


def test_the_report_of_what_was_published_is_the_report_of_the_study(source: Path, tmp_path: Path) -> None:
    """`paretune report results/NAME` needs nothing that was left behind."""
    target, _ = publish(source, tmp_path / "results")
    here = build(source, "en", tmp_path / "here.html").read_text()
    there = build(target, "en", tmp_path / "there.html").read_text()
    assert there == here


def test_an_unfinished_study_is_not_published(tmp_path: Path) -> None:
    """No choice of learning rates was recorded yet: one line, and nothing is written."""
    folder = write_study(tmp_path / "runs" / "made-up", seeds=(0,))
    study = StudyFolder(folder).study()
    StudyFolder(folder).write_study(study.model_copy(update={"selections": []}))
    with pytest.raises(RecordError, match="is not finished"):
        publish(folder, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_run_that_has_not_ended_is_left_out(source: Path, tmp_path: Path) -> None:
    """What another runner is at work on has no status and no place in a publication."""
    run = StudyFolder(source).runs()[0]
    (run.path / "status").unlink()
    target, _ = publish(source, tmp_path / "results")
    assert run.id not in {one.id for one in StudyFolder(target).runs()}
