"""The comparison of a container's study with the host's: same is same, and what differs is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fabricated_study import predict_instead, write_study

from paretune.records.store import RunFolder, StudyFolder
from paretune.report.bench_lines import bench_lines

PROGRAM = Path(__file__).parents[2] / "deploy" / "verify_container.py"


def verify(host: Path, container: Path) -> tuple[int, str]:
    found = subprocess.run([sys.executable, PROGRAM, host, container], capture_output=True, text=True)
    return found.returncode, found.stdout + found.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("host") / "demo", broken=False, extra_split=False)


@pytest.fixture
def container(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "demo"))


def runs_of(folder: Path, method: str) -> list[RunFolder]:
    return [run for run in StudyFolder(folder).runs() if run.spec().method == method]


def change(run: RunFolder, every: int) -> None:
    """Make every so manieth prediction of a run wrong."""
    table = run.predictions()
    said = table["prediction"].to_pylist()
    labels = table["label"].to_pylist()
    wrong = ["acq" if label == "earn" else "earn" for label in labels]
    changed = [wrong[at] if at % every == 0 else one for at, one in enumerate(said)]
    predict_instead(run, changed)


def test_the_same_study_twice_agrees(made: Path, container: Path) -> None:
    """Every prediction the same, a difference of zero with its interval, time and memory side by side, exit 0."""
    code, said = verify(made, container)
    assert code == 0, said
    assert "21 runs compared, 100.00% of predictions the same." in said and "Conclusions: the same." in said
    lora = next(line for line in said.splitlines() if line.startswith("| lora | 3 |"))
    assert "+0.0000 [+0.0000, +0.0000]" in lora and lora.count("(×1.00)") == 2


def test_the_figures_go_into_a_line_for_claims(made: Path, container: Path, tmp_path: Path) -> None:
    """Shares and counts of what differs, of the same and of other runs; the claims of the report can read it."""
    file = tmp_path / "bench" / "container.json"
    for changed, differing, conclusions in ((False, 0.0, 0), (True, 1 / 3 * 3 / 21, 1)):
        if changed:
            for run in runs_of(container, "lora"):
                change(run, every=3)
        subprocess.run([sys.executable, PROGRAM, made, container, file], capture_output=True)
        figures = bench_lines(tmp_path / "bench")["container"].figures
        assert figures["compared_runs"] == 21
        assert figures["differing_predictions"] == pytest.approx(differing, abs=0.005)
        assert (figures["differing_conclusions"] or 0) >= conclusions
        assert (figures["largest_difference"] == 0) is not changed
    assert bench_lines(tmp_path / "bench")["container"].date


def test_a_few_other_predictions_are_shown_and_conclude_the_same(made: Path, container: Path) -> None:
    """One changed answer of 240 lowers the agreement and is within chance."""
    change(runs_of(container, "head")[0], every=240)
    code, said = verify(made, container)
    assert code == 0, said
    assert "99.9" in said.splitlines()[-2] and "100.00%" not in said.splitlines()[-2]


def test_another_quality_is_found(made: Path, container: Path) -> None:
    """A method that is wrong far more often in the container differs, and so may its verdict."""
    for run in runs_of(container, "lora"):
        change(run, every=3)
    code, said = verify(made, container)
    assert code == 1
    assert "lora: its scores differ by more than chance" in said


def test_a_missing_run_is_named(made: Path, container: Path) -> None:
    """A run that only one side has is no agreement."""
    shutil.rmtree(runs_of(container, "head")[0].path)
    code, said = verify(made, container)
    assert code == 1 and "head, seed" in said and "scored on the host only" in said


def test_another_learning_rate_is_named(made: Path, container: Path) -> None:
    """What validation data chose is a conclusion too."""
    folder = StudyFolder(container)
    study = folder.study()
    chosen = [
        one.model_copy(update={"learning_rate": 0.5}) if one.method == "bitfit" else one for one in study.selections
    ]
    folder.write_study(study.model_copy(update={"selections": chosen}))
    code, said = verify(made, container)
    assert code == 1 and "bitfit: learning rate 0.003 on the host, 0.5 in the container" in said


@pytest.mark.slow
def test_what_cannot_be_compared_is_wrong_usage(made: Path, container: Path, tmp_path: Path) -> None:
    """Another study file, no study, no arguments: exit 2 and one line."""
    folder = StudyFolder(container)
    folder.write_study(folder.study().model_copy(update={"spec_hash": "e" * 64}))
    for other in (container, tmp_path / "nothing"):
        code, said = verify(made, other)
        assert code == 2 and len(said.splitlines()) == 1 and said.startswith("verify_container: ")
    assert subprocess.run([sys.executable, PROGRAM], capture_output=True).returncode == 2
