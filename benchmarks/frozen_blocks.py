"""What it is worth that frozen blocks are computed once a study: the same study with it and without, in turn.

Head only, and last layers, over R8's 1,000 documents: three learning rates, five seeds, four epochs. Each goes through
`paretune study` in a folder of its own, with the assets that are there. Printed last, as one JSON line: for each method
how often the seconds of all its trainings (the kept numbers' making counted once), and of the whole study's processes,
fit into those without; and whether all predictions are equal to the last bit.

    python benchmarks/frozen_blocks.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paretune.records.store import RunFolder, StudyFolder

STUDY = """
[study]
name = "{name}"
metric = "accuracy"
control = "head"
seeds = [0, 1, 2, 3, 4]
search = [0.333, 1.0, 3.0]
[model]
source = "asset:minilm-l6"
pooling = "mean"
[data]
train = "asset:reuters-r8"
test = "asset:reuters-r8"
train_rows = 1000
validation_rows = 250
[train]
epochs = 4
keep_frozen = {kept}
[methods.head]
[methods.last1]
kind = "last_layers"
layers = 1
[methods.last2]
kind = "last_layers"
layers = 2
"""


def seconds(runs: list[RunFolder], phases: tuple[str, ...]) -> float:
    """Sum over runs; what all of them share ("prefix" is charged to each) counts once."""
    found = 0.0
    shared: dict[str, float] = {}
    for run in runs:
        for cost in run.measurements().phases:
            if cost.phase == "prefix":
                shared[cost.phase] = cost.seconds
            elif cost.phase in phases:
                found += cost.seconds
    return found + sum(shared.values())


def study(folder: Path, kept: bool) -> tuple[StudyFolder, float]:
    """Run it; its folder and the seconds that it took."""
    name = "kept" if kept else "anew"
    file = folder / f"{name}.toml"
    file.write_text(STUDY.format(name=name, kept=str(kept).lower()), encoding="utf-8")
    began = time.perf_counter()
    command = [sys.executable, "-m", "paretune", "study", str(file), "--runs", str(folder / "runs")]
    if subprocess.run(command, check=False).returncode not in (0, 3):
        raise SystemExit(f"the study {name} did not end well")
    return StudyFolder(folder / "runs" / name), time.perf_counter() - began


def of_method(found: StudyFolder, method: str) -> list[RunFolder]:
    """Its runs."""
    return [run for run in found.runs() if run.spec().method == method]


def equal(one: StudyFolder, other: StudyFolder) -> bool:
    """Whether each scored run of the one predicts to the bit what its twin does; False where none was scored."""
    twins = {(run.spec().method, run.spec().seed, run.spec().learning_rate): run for run in other.runs()}
    same: list[bool] = []
    for run in one.runs():
        twin = twins[run.spec().method, run.spec().seed, run.spec().learning_rate]
        for file in run.path.glob("predictions*.parquet"):
            same.append(file.read_bytes() == (twin.path / file.name).read_bytes())
    return bool(same) and all(same)


def main() -> None:
    """Both studies, then the line."""
    with tempfile.TemporaryDirectory() as place:
        (anew, anew_seconds), (kept, kept_seconds) = (study(Path(place), kept) for kept in (False, True))
        answer: dict[str, object] = {"study_ratio": anew_seconds / kept_seconds, "equal_bits": equal(anew, kept)}
        for method in ("head", "last1", "last2"):
            before, after = (seconds(of_method(one, method), ("step",)) for one in (anew, kept))
            answer[method] = {"training_ratio": before / after, "seconds": [before, after]}
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
