"""Which jobs are left, decided from records alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paretune.core.errors import NewerRecordError
from paretune.methods.method import TRAINED_FILE
from paretune.records.schema import Graded, Measurements
from paretune.records.store import PREDICTIONS, RunFolder, StudyFolder
from paretune.study.design import Study, read_study_file
from paretune.study.desk import REFERENCE_FILE
from paretune.study.plan import Digests, look, losing_trials, next_stage

DIGESTS = Digests(model="m", data="d")
STUDY = """
[study]
name = "s"
metric = "accuracy"
control = "full"
seeds = [0, 1]
search = [1.0, 3.0]
[model]
source = "asset:minilm-l6"
[data]
train = "asset:reuters-r8"
[methods.majority]
[methods.full]
learning_rate = 1e-4
"""


def a_study(tmp_path: Path) -> tuple[Study, StudyFolder]:
    file = tmp_path / "s.toml"
    file.write_text(STUDY, encoding="utf-8")
    return read_study_file(file), StudyFolder(tmp_path / "runs" / "s")


def measured(accuracy: float, log_loss: float = 1.0) -> Measurements:
    nothing = Graded(value=2.0, grade="counter")
    return Measurements(
        phases=[], memory_after_imports_bytes=0, train_seconds=nothing, train_cpu_seconds=nothing,
        peak_memory_bytes=nothing, peak_memory_above_imports_bytes=nothing, energy_joules=None, energy_source="",
        trainable_parameters=1, total_parameters=1, adapter_bytes=1, train_examples=1, train_tokens=1,
        padding_ratio=1.0, steps=1, precision="fp32",
        scores={"validation": {"accuracy": accuracy, "log_loss": log_loss}},
    )  # fmt: skip


def end(run: RunFolder, job_spec, stage: str, accuracy: float, log_loss: float = 1.0) -> None:
    run.write_spec(job_spec)
    run.write_measurements(measured(accuracy, log_loss))
    run.adapter.mkdir(exist_ok=True)
    for name in (TRAINED_FILE, REFERENCE_FILE):
        (run.adapter / name).touch()
    run.set_status("ok", stage)


def test_a_fresh_study_starts_with_baselines_and_trials(tmp_path: Path) -> None:
    """Every method gets the same number of trials with the first seed; nothing is scored before a choice."""
    study, folder = a_study(tmp_path)
    plan = look(study, folder, DIGESTS)
    assert [(job.spec.method, job.spec.seed, job.stage) for job in plan.jobs] == [
        ("majority", 0, "scored"), ("majority", 1, "scored"), ("full", 0, "trained"), ("full", 0, "trained"),
    ]  # fmt: skip
    assert (plan.total, plan.ended) == (2 + 2 + 1 + 2, 0)


def test_the_best_validation_score_wins_and_is_the_first_seed(tmp_path: Path) -> None:
    """The winning trial is scored as the first seed; the losing one is neither scored nor kept."""
    study, folder = a_study(tmp_path)
    low, high = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "full"]
    end(folder.run(low), low, "trained", 0.8)
    end(folder.run(high), high, "trained", 0.9)
    plan = look(study, folder, DIGESTS)
    assert plan.selections[0].run_id == high.run_id
    assert plan.selections[0].trials == {"0.0001": 0.8, "0.0003": 0.9}
    jobs = [(job.spec.run_id, job.stage) for job in plan.jobs if job.spec.method == "full"]
    assert jobs[0] == (high.run_id, "scored")
    assert [(job.spec.seed, job.stage) for job in plan.jobs if job.spec.method == "full"][1] == (1, "trained")
    assert [run.id for run in losing_trials(plan, folder)] == [low.run_id]


def test_equal_scores_are_decided_by_log_loss(tmp_path: Path) -> None:
    """A tie in the headline metric goes to the lower log-loss."""
    study, folder = a_study(tmp_path)
    low, high = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "full"]
    end(folder.run(low), low, "trained", 0.9, log_loss=0.3)
    end(folder.run(high), high, "trained", 0.9, log_loss=0.4)
    assert look(study, folder, DIGESTS).selections[0].run_id == low.run_id


def test_a_failed_trial_is_out_of_the_choice_and_all_failed_ends_the_method(tmp_path: Path) -> None:
    """A trial without a model cannot win; where none has one, the method is done and its failures stand."""
    study, folder = a_study(tmp_path)
    low, high = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "full"]
    folder.run(high).write_spec(high)
    folder.run(high).set_status("oom", "trained", "too big")
    end(folder.run(low), low, "trained", 0.5)
    assert look(study, folder, DIGESTS).selections[0].run_id == low.run_id
    folder.run(low).set_status("failed", "trained", "diverged")
    plan = look(study, folder, DIGESTS)
    assert plan.selections == [] and not [job for job in plan.jobs if job.spec.method == "full"]
    assert plan.total - plan.ended == 2


def test_cancelled_runs_are_done_again_and_failed_ones_are_not(tmp_path: Path) -> None:
    """A cancelled run is open; a failure is a result."""
    study, folder = a_study(tmp_path)
    first, second = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "majority"]
    for spec, state in ((first, "cancelled"), (second, "failed")):
        folder.run(spec).write_spec(spec)
        folder.run(spec).set_status(state, "scored", "")
    assert [job.spec.run_id for job in look(study, folder, DIGESTS).jobs if job.spec.method == "majority"] == [
        first.run_id
    ]


@pytest.mark.parametrize(
    ("lost", "stage"),
    [
        ("status", "trained"),
        ("measurements.json", "trained"),
        ("predictions.parquet", "scored"),
        ("adapter/trained.safetensors", None),  # what is scored needs no weights any more
    ],
)
@pytest.mark.parametrize("how", ["gone", "torn"])
def test_a_finished_run_that_lost_a_file_is_done_again(tmp_path: Path, lost: str, stage: str | None, how: str) -> None:
    """From the first stage that made what is lost; nothing else is done again."""
    study, folder = a_study(tmp_path)
    low, high = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "full"]
    end(folder.run(low), low, "trained", 0.8)
    end(folder.run(high), high, "scored", 0.9)
    run = folder.run(high)
    run.write_predictions(PREDICTIONS.empty_table())
    assert next_stage(run, high, chosen=True) is None
    path = run.path / lost
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    assert next_stage(run, high, chosen=True) == stage
    jobs = [(job.spec.run_id, job.stage) for job in look(study, folder, DIGESTS).jobs if job.spec.seed == 0]
    assert [one for one in jobs if one[0] in (low.run_id, high.run_id)] == ([(high.run_id, stage)] if stage else [])


def test_scored_predictions_without_weights_are_trained_again(tmp_path: Path) -> None:
    """What cannot be scored again from its weights begins anew; a losing trial needs neither."""
    study, folder = a_study(tmp_path)
    low, high = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "full"]
    end(folder.run(low), low, "trained", 0.8)
    end(folder.run(high), high, "trained", 0.9)
    for spec in (low, high):
        shutil.rmtree(folder.run(spec).adapter)
    assert next_stage(folder.run(low), low, chosen=False) is None
    assert next_stage(folder.run(high), high, chosen=True) == "trained"


def test_records_of_a_newer_paretune_are_not_made_again(tmp_path: Path) -> None:
    """They are whole, for a newer program."""
    study, folder = a_study(tmp_path)
    low, _ = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "full"]
    end(folder.run(low), low, "trained", 0.8)
    (folder.run(low).path / "measurements.json").write_text('{"schema_version": 99}')
    with pytest.raises(NewerRecordError, match="update paretune"):
        look(study, folder, DIGESTS)
