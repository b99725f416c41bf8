"""Which jobs are left, decided from records alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from paretune.core.errors import ConfigError, NewerRecordError
from paretune.methods.method import TRAINED_FILE
from paretune.records.schema import Graded, Measurements, RunSpec, Selection, Stage
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


def a_study(tmp_path: Path, extensions: int = 2) -> tuple[Study, StudyFolder]:
    file = tmp_path / "s.toml"
    file.write_text(STUDY.replace("seeds = [0, 1]", f"seeds = [0, 1]\nextensions = {extensions}"), encoding="utf-8")
    return read_study_file(file), StudyFolder(tmp_path / "runs" / "s")


ROWS = 100


def measured(accuracy: float) -> Measurements:
    nothing = Graded(value=2.0, grade="counter")
    return Measurements(
        phases=[], memory_after_imports_bytes=0, train_seconds=nothing, train_cpu_seconds=nothing,
        peak_memory_bytes=nothing, peak_memory_above_imports_bytes=nothing, energy_joules=None, energy_source="",
        trainable_parameters=1, total_parameters=1, adapter_bytes=1, train_examples=1, train_tokens=1,
        padding_ratio=1.0, steps=1, precision="fp32", scores={"validation": {"accuracy": accuracy}},
    )  # fmt: skip


def end(run: RunFolder, job_spec: RunSpec, stage: Stage, right: int, first: int = 0) -> None:
    """A run that answered `right` of a hundred validation examples rightly, from `first` on."""
    run.write_spec(job_spec)
    run.write_measurements(measured(right / ROWS))
    answers = ["a" if first <= place < first + right else "b" for place in range(ROWS)]
    rows = {"id": [str(place) for place in range(ROWS)], "label": ["a"] * ROWS, "prediction": answers}
    run.write_validation(pa.table({**rows, "score": [0.9] * ROWS, "label_probability": [0.5] * ROWS}))
    run.adapter.mkdir(exist_ok=True)
    for name in (TRAINED_FILE, REFERENCE_FILE):
        (run.adapter / name).touch()
    if stage == "scored":
        run.write_predictions(PREDICTIONS.empty_table())
    run.set_status("ok", stage)


def trials(study: Study, folder: StudyFolder) -> dict[float, RunSpec]:
    """The trials of full that are left, by their rate."""
    jobs = [job.spec for job in look(study, folder, DIGESTS).jobs if job.spec.method == "full"]
    return {spec.learning_rate: spec for spec in jobs if spec.learning_rate is not None}


def search(tmp_path: Path, right: dict[float, int], extensions: int = 2, first: int = 0) -> Selection:
    """Run a whole search in which each rate has so many right answers; what is not named diverges."""
    file = tmp_path / "s.toml"
    text = STUDY.replace("search = [1.0, 3.0]", f"search = [0.333, 1.0, 3.0]\nextensions = {extensions}")
    file.write_text(text, encoding="utf-8")
    study, folder = read_study_file(file), StudyFolder(tmp_path / "runs" / "s")
    for _ in range(extensions + 1):
        waiting = trials(study, folder)
        if look(study, folder, DIGESTS).selections:
            break
        for rate, spec in waiting.items():
            if rate in right:
                end(folder.run(spec), spec, "trained", right[rate], first if rate == 1e-4 else 0)
            else:
                folder.run(spec).write_spec(spec)
                folder.run(spec).set_status("failed", "trained", "diverged")
    (selection,) = look(study, folder, DIGESTS).selections
    return selection


def test_a_fresh_study_starts_with_the_controls_trials(tmp_path: Path) -> None:
    """The control comes first wherever it stands in the file, so that differences to it can be shown soon; nothing is
    scored before a choice."""
    study, folder = a_study(tmp_path)
    plan = look(study, folder, DIGESTS)
    assert [(job.spec.method, job.spec.seed, job.stage) for job in plan.jobs] == [
        ("full", 0, "trained"), ("full", 0, "trained"), ("majority", 0, "scored"), ("majority", 1, "scored"),
    ]  # fmt: skip
    assert (plan.total, plan.ended) == (2 + 2 + 1 + 2, 0)


def test_the_control_is_done_before_any_other_method_begins(tmp_path: Path) -> None:
    """Its further seeds and their scoring too; the choices stand in the file's order nevertheless."""
    file = tmp_path / "s.toml"
    file.write_text(STUDY.replace("[methods.majority]", "[methods.head]\n[methods.majority]"), encoding="utf-8")
    study, folder = read_study_file(file), StudyFolder(tmp_path / "runs" / "s")
    order: list[str] = []
    while (plan := look(study, folder, DIGESTS)).jobs:
        job = plan.jobs[0]
        if order[-1:] != [job.spec.method]:
            order.append(job.spec.method)
        end(folder.run(job.spec), job.spec, job.stage, 80)
    assert order == ["full", "head", "majority"]
    assert [one.method for one in plan.selections] == ["head", "full"] and plan.finished


def test_the_best_validation_score_wins_and_is_the_first_seed(tmp_path: Path) -> None:
    """The winning trial is scored as the first seed; the losing one is neither scored nor kept."""
    study, folder = a_study(tmp_path, extensions=0)
    low, high = trials(study, folder).values()
    end(folder.run(low), low, "trained", 80)
    end(folder.run(high), high, "trained", 90)
    plan = look(study, folder, DIGESTS)
    assert plan.selections[0].run_id == high.run_id
    assert plan.selections[0].trials == {"0.0001": 0.8, "0.0003": 0.9}
    jobs = [(job.spec.run_id, job.stage) for job in plan.jobs if job.spec.method == "full"]
    assert jobs[0] == (high.run_id, "scored")
    assert [(job.spec.seed, job.stage) for job in plan.jobs if job.spec.method == "full"][1] == (1, "trained")
    assert [run.id for run in losing_trials(plan, folder)] == [low.run_id]


def test_rates_within_noise_of_the_best_leave_the_default(tmp_path: Path) -> None:
    """Three more right of a hundred, with five better and two worse, is about one standard error: no reason to leave
    it."""
    found = search(tmp_path, {3.33e-5: 60, 1e-4: 88, 3e-4: 90}, first=3)
    assert found.learning_rate == 1e-4 and found.tied == [3e-4]
    assert found.noise is not None and found.noise["0.0001"] == pytest.approx(0.02, abs=0.001)
    assert (found.rule, found.extended, found.edge) == ("extended", 0, None)


def test_what_is_beyond_noise_is_taken_and_its_edge_extends_the_search(tmp_path: Path) -> None:
    """The next factor of three is tried, and ends the search where it is worse or no better than noise."""
    found = search(tmp_path, {3.33e-5: 50, 1e-4: 60, 3e-4: 80, 9e-4: 70})
    assert (found.learning_rate, found.extended, found.edge) == (3e-4, 1, None)
    assert found.trials == {"3.33e-05": 0.5, "0.0001": 0.6, "0.0003": 0.8, "0.0009": 0.7}
    assert found.trial_seconds == 8.0, "all four are what the search cost"
    (tmp_path / "again").mkdir()
    near = search(tmp_path / "again", {3.33e-5: 50, 1e-4: 60, 3e-4: 80, 9e-4: 81})
    assert (near.learning_rate, near.extended, near.edge, near.tied) == (3e-4, 1, None, [9e-4])


def test_a_search_that_ends_at_an_edge_says_so(tmp_path: Path) -> None:
    """Twice at most, downwards as upwards; without extensions at once."""
    found = search(tmp_path, {3.33e-5: 80, 1e-4: 60, 3e-4: 50, 1.11e-5: 85, 3.7e-6: 95})
    assert (found.learning_rate, found.extended, found.edge) == (3.7e-6, 2, "low") and len(found.trials) == 5
    (tmp_path / "off").mkdir()
    off = search(tmp_path / "off", {3.33e-5: 50, 1e-4: 60, 3e-4: 80}, extensions=0)
    assert (off.learning_rate, off.extended, off.edge) == (3e-4, 0, "high")


def test_a_rate_beside_one_that_diverged_is_no_edge(tmp_path: Path) -> None:
    """The neighbour was tried and gave no model: there is nothing past it to try."""
    found = search(tmp_path, {3.33e-5: 50, 1e-4: 60})
    assert (found.learning_rate, found.extended, found.edge) == (1e-4, 0, None)
    assert set(found.trials) == {"3.33e-05", "0.0001"}


def test_a_search_of_one_rate_is_none_and_is_not_extended(tmp_path: Path) -> None:
    """A study that names one factor means that rate."""
    file = tmp_path / "s.toml"
    file.write_text(STUDY.replace("[1.0, 3.0]", "[1.0]"), encoding="utf-8")
    study, folder = read_study_file(file), StudyFolder(tmp_path / "runs" / "s")
    (spec,) = trials(study, folder).values()
    end(folder.run(spec), spec, "trained", 80)
    (found,) = look(study, folder, DIGESTS).selections
    assert (found.learning_rate, found.edge, found.tied) == (1e-4, None, [])


@pytest.mark.parametrize(
    ("line", "instead", "named"),
    [
        ("search = [1.0, 3.0]", "search = [1.0, 1.0]", "none twice"),
        ("search = [1.0, 3.0]", "search = [1.0, 1.0001]", "differ in their first three digits"),
        ("search = [1.0, 3.0]", "search = [0.0, 1.0]", "factors above 0"),
        ("search = [1.0, 3.0]", "search = [-1.0, 1.0]", "factors above 0"),
        ("search = [1.0, 3.0]", "search = [nan, 1.0]", "factors above 0"),
        ("search = [1.0, 3.0]", "search = [inf, 1.0]", "factors above 0"),
        ("learning_rate = 1e-4", "learning_rate = 1e-323", "rates above 0"),
        ("[methods.majority]", "[methods.tfidf]\nstrengths = [0.0, 1.0]", "C above 0"),
        ("[methods.majority]", "[methods.probe]\nstrengths = [1.0, 1.0]", "none twice"),
        ("[methods.majority]", '[task]\nkind = "next_token"\n[train]\nclass_weights = "balanced"', "no classes"),
    ],
)
def test_a_search_that_is_none_is_refused_in_one_line(tmp_path: Path, line: str, instead: str, named: str) -> None:
    """A rate of zero, below it, or tried twice would end in a crash, or be counted as two."""
    file = tmp_path / "s.toml"
    text = STUDY.replace("search = [1.0, 3.0]", "search = [0.01, 1.0]") if "e-323" in instead else STUDY
    file.write_text(text.replace(line, instead), encoding="utf-8")
    with pytest.raises(ConfigError, match=named) as caught:
        read_study_file(file)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


@pytest.mark.parametrize("order", ["[0.333, 1.0, 3.0]", "[3.0, 0.333, 1.0]"])
def test_the_order_of_the_rates_decides_nothing(tmp_path: Path, order: str) -> None:
    """Neither which is chosen nor past which edge the search goes."""
    file = tmp_path / "s.toml"
    file.write_text(STUDY.replace("[1.0, 3.0]", order), encoding="utf-8")
    study, folder = read_study_file(file), StudyFolder(tmp_path / "runs" / "s")
    for rate, spec in trials(study, folder).items():
        end(folder.run(spec), spec, "trained", {3.33e-5: 50, 1e-4: 60, 3e-4: 80}[rate])
    assert list(trials(study, folder)) == [9e-4]


def test_ties_without_the_default_go_on_towards_it(tmp_path: Path) -> None:
    """Rates that all do the same leave the nearest, an edge, until the default has neighbours on both sides."""
    file = tmp_path / "s.toml"
    file.write_text(STUDY.replace("[1.0, 3.0]", "[9.0, 3.0]"), encoding="utf-8")
    study, folder = read_study_file(file), StudyFolder(tmp_path / "runs" / "s")
    tried: list[float] = []
    while waiting := {} if look(study, folder, DIGESTS).selections else trials(study, folder):
        for rate, spec in waiting.items():
            tried.append(rate)
            end(folder.run(spec), spec, "trained", 80)
    (found,) = look(study, folder, DIGESTS).selections
    assert tried == [9e-4, 3e-4, 1e-4, 3.33e-5]
    assert (found.learning_rate, found.extended, found.edge) == (1e-4, 2, None)


def test_a_fitted_head_has_no_search_and_two_stages_a_seed(tmp_path: Path) -> None:
    """Its settings are searched inside each run; the first seed is timed."""
    file = tmp_path / "s.toml"
    file.write_text(STUDY.replace("[methods.majority]", "[methods.probe]"), encoding="utf-8")
    study, folder = read_study_file(file), StudyFolder(tmp_path / "runs" / "s")
    jobs = [job for job in look(study, folder, DIGESTS).jobs if job.spec.method == "probe"]
    assert [(job.spec.seed, job.stage, job.spec.learning_rate) for job in jobs] == [
        (0, "trained", None), (1, "trained", None),
    ]  # fmt: skip
    end(folder.run(jobs[0].spec), jobs[0].spec, "trained", 80)
    plan = look(study, folder, DIGESTS)
    first = next(job for job in plan.jobs if job.spec.method == "probe")
    assert (first.stage, first.probe_latency) == ("scored", True)


def test_a_failed_trial_is_out_of_the_choice_and_all_failed_ends_the_method(tmp_path: Path) -> None:
    """A trial without a model cannot win; where none has one, the method is done and its failures stand."""
    study, folder = a_study(tmp_path, extensions=0)
    low, high = trials(study, folder).values()
    folder.run(high).write_spec(high)
    folder.run(high).set_status("oom", "trained", "too big")
    end(folder.run(low), low, "trained", 50)
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
    study, folder = a_study(tmp_path, extensions=0)
    low, high = trials(study, folder).values()
    end(folder.run(low), low, "trained", 80)
    end(folder.run(high), high, "scored", 90)
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
    study, folder = a_study(tmp_path, extensions=0)
    low, high = trials(study, folder).values()
    end(folder.run(low), low, "trained", 80)
    end(folder.run(high), high, "trained", 90)
    for spec in (low, high):
        shutil.rmtree(folder.run(spec).adapter)
    assert next_stage(folder.run(low), low, chosen=False) is None
    assert next_stage(folder.run(high), high, chosen=True) == "trained"


def test_records_of_a_newer_paretune_are_not_made_again(tmp_path: Path) -> None:
    """They are whole, for a newer program."""
    study, folder = a_study(tmp_path, extensions=0)
    low, _ = trials(study, folder).values()
    end(folder.run(low), low, "trained", 80)
    (folder.run(low).path / "measurements.json").write_text('{"schema_version": 99}')
    with pytest.raises(NewerRecordError, match="update paretune"):
        look(study, folder, DIGESTS)
