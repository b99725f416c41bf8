"""Writes a study into a Trackio folder through Trackio's own interface: `python trackio_writer.py OUT < study.json`.

Not here: anything of paretune, which the environment that runs this need not have. Source: Trackio 0.4x
(https://huggingface.co/docs/trackio/api); its storage is declared unstable, so its interface alone is used. The folder
is given by TRACKIO_DIR, which it reads when it is imported. It knows no status of a run: that stands in the config, and
as the figure `status/ok`. Its figures carry the time of the export, not of the run.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def write(study: dict[str, Any]) -> None:
    """One project a study, one run a run, grouped by method."""
    trackio = importlib.import_module("trackio")
    for run in study["runs"]:
        write_run(trackio, study, run)


def write_run(trackio: Any, study: dict[str, Any], run: dict[str, Any]) -> None:
    """A run with its status, parameters and tags (its config), curves, final figures and predictions."""
    state = {"status": run["state"], "reason": run["reason"]}
    config = {**state, "study": study["tags"], "tags": run["tags"], "params": run["params"]}
    opened = trackio.init(
        project=study["name"], name=run["name"], group=run["method"], config=config, embed=False,
        auto_log_gpu=False, auto_log_cpu=False,
    )  # fmt: skip
    for point in run["points"]:
        opened.log(point["values"], step=point["step"])
    last = max((point["step"] for point in run["points"]), default=0)
    final = {**run["finals"], "status/ok": float(run["state"] == "ok")}  # a run without any figure would not be listed
    opened.log(final, step=last)
    predictions = [file for file in run["files"] if file.endswith("predictions.parquet")]
    for file in predictions:
        trackio.log_artifact(file, name=f"predictions-{run['id']}", type="predictions")
    opened.finish()


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    write(json.load(sys.stdin))
