"""`paretune plan` and the predictions of runs on a toy model: probed, planned, run, compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_study import study_text, toy_rows, write_csv

from paretune.core.config import JsonObject

MODULE = [sys.executable, "-m", "paretune"]


@pytest.fixture(scope="module")
def place(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy data, a study file, and a cache of its own."""
    folder = tmp_path_factory.mktemp("plan")
    write_csv(folder / "toy.csv", toy_rows(90))
    methods = {"majority": "", "head": "", "lora": "rank = 2", "full": ""}
    (folder / "toy.toml").write_text(study_text(f"path:{tiny_model}", methods, seeds=[0]), encoding="utf-8")
    return folder


def asked(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command on one core: what is planned there is planned for one core."""
    environment = {**os.environ, "PARETUNE_HOME": str(place / "home"), "PARETUNE_OFFLINE": "1"}
    core = min(os.sched_getaffinity(0))
    return subprocess.run(
        [*MODULE, *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def last_json(done: subprocess.CompletedProcess[str]) -> JsonObject:
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_toy_study_is_planned_certified_run_and_compared(place: Path) -> None:
    """Probed once, then from the cache; the runs keep what was expected of them, and the planner shows its errors.

    Where the time did not suffice for all sorts of steps, they are measured at the next call.
    """
    done = asked(place, "plan", "toy.toml", "--memory", "2 GiB", "--certify", "--json")
    assert done.returncode == 0, done.stderr
    assert "measuring steps" in done.stderr
    found = last_json(done)
    by_name = {one["method"]: one for one in found["methods"]}
    assert by_name["majority"]["fits"] is None
    for name in ("head", "lora", "full"):
        assert by_name[name]["fits"] is True
        assert by_name[name]["peak_memory_bytes"] > 100e6
        assert by_name[name]["seconds"]["step"] > 0
    assert by_name["head"]["trainable_parameters"] < by_name["lora"]["trainable_parameters"]
    assert found["certificate"]["held"] is True, found["certificate"]
    assert found["record"] is None

    study = asked(place, "study", "toy.toml", "--runs", "runs")
    assert study.returncode in (0, 3), study.stderr
    kept = [json.loads(path.read_text()) for path in sorted(place.glob("runs/toy/runs/*/measurements.json"))]
    predicted = [one["predicted"] for one in kept if "predicted" in one]
    assert len(predicted) == 3 and all(one["calibrated"] for one in predicted)
    for one in kept:
        if "predicted" in one:
            assert one["predicted"]["trainable_parameters"] == one["trainable_parameters"]
            assert one["predicted"]["adapter_bytes"] == one["adapter_bytes"]

    whole = all(json.loads(path.read_text())["complete"] for path in place.glob("home/calibrations/*/*.json"))
    again = asked(place, "plan", "toy.toml", "--memory", "2 GiB", "--json")
    assert ("measuring steps" in again.stderr) != whole
    record = last_json(again)["record"]
    assert record["runs"] == 3
    assert record["memory_error_median"] < 0.3


@pytest.mark.slow
def test_a_budget_that_nothing_fits_leaves_with_three_and_says_by_how_much(place: Path) -> None:
    """The imports alone take more than the limit."""
    done = asked(place, "plan", "toy.toml", "--memory", "100 MiB", "--json")
    assert done.returncode == 3, done.stderr
    found = {one["method"]: one for one in last_json(done)["methods"]}
    assert found["full"]["fits"] is False and found["full"]["over"]["memory_bytes"] > 100e6
    assert "fits with no setting; nearest is" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("toy.toml", "--memory", "4 gigs"), "a number and a unit"),
        (("toy.toml", "--time", "soon"), "a number and a unit"),
        (("none.toml",), "no file none.toml"),
        (("broken.toml",), "not valid TOML"),
        (("toy.toml", "--data", "nowhere"), "a folder that exists"),
    ],
)
@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_code_two(place: Path, words: tuple[str, ...], expected: str) -> None:
    """Nothing is measured."""
    (place / "broken.toml").write_text("[study\n", encoding="utf-8")
    done = asked(place, "plan", *words)
    assert done.returncode == 2
    assert expected in done.stderr and done.stderr.count("\n") == 1
