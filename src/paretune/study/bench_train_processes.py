"""Starts the processes of `paretune bench train`, one at a time, and reads what each prints last.

Not here: what they do (`bench_train_ours.py`, `bench_train_ceiling.py`, the peer's script of `benchmarks/`).

    run = Runner("bert", Path("/tmp/bench"), Path("benchmarks/peer_speed.py")); run.ours(job).tokens_per_second
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from paretune.core.config import JsonObject
from paretune.core.errors import RunError
from paretune.core.limits import usable_cores, wait_briefly
from paretune.measure.flops import Arithmetic
from paretune.measure.speed import Job, Sample
from paretune.models.precision import chosen_precision

CEILING_SECONDS = 2.0


class Runner:
    """Processes for one base model of type `kind`; their jobs' file lies in `scratch`.

    Raises:
        RunError: a process failed; the message ends with the last line of its errors.
    """

    def __init__(self, kind: str, scratch: Path, script: Path | None) -> None:
        self._kind, self._file, self._script = kind, scratch / "job.json", script
        self._precision = chosen_precision("auto")
        self._as_it_is = dict(os.environ)
        wait_briefly()
        self._workers = dict(os.environ)

    def ours(self, job: Job) -> Sample:
        """In the environment of a study's worker."""
        return self._sample(job, ["-m", "paretune.study.bench_train_ours"], self._workers)

    def peer(self, job: Job, settings: Literal["defaults", "best"]) -> Sample:
        """In the environment as it is."""
        assert self._script is not None
        return self._sample(job.model_copy(update={"settings": settings}), [str(self._script)], self._as_it_is)

    def ceiling(self, counted: Arithmetic, rows: int) -> float:
        """FLOP a second of the model's own products now, in the environment of ours."""
        asked = {
            "shapes": [[inputs, outputs, count] for (inputs, outputs), count in counted.shapes.items()],
            "rows": rows,
            "precision": self._precision,
            "threads": usable_cores(),
            "seconds": CEILING_SECONDS,
        }
        found = _last_line(["-m", "paretune.study.bench_train_ceiling", json.dumps(asked)], self._workers)
        return float(found["flops_per_second"])

    def _sample(self, job: Job, command: Sequence[str], environment: Mapping[str, str]) -> Sample:
        self._file.write_text(job.model_dump_json(), encoding="utf-8")
        return Sample.model_validate(_last_line([*command, self._kind, str(self._file)], environment))


def _last_line(command: Sequence[str], environment: Mapping[str, str]) -> JsonObject:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunError(f"{command[0] if command[0] != '-m' else command[1]} failed: {reason}")
    return json.loads(done.stdout.splitlines()[-1])
