"""Writes a study into MLflow's SQLite store through MLflow's own client: `python mlflow_writer.py OUT < study.json`.

Not here: anything of paretune, which the environment that runs this need not have. Source: MLflow 3's MlflowClient
(https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html); its limits on a batch are kept.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

STATUS = {"ok": "FINISHED", "cancelled": "KILLED"}  # everything else that ended has failed
METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
LONGEST_VALUE = 5000


def write(study: dict[str, Any], out: Path) -> None:
    """One experiment a study, one run a run."""
    mlflow, entities = importlib.import_module("mlflow"), importlib.import_module("mlflow.entities")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    tags = {key(name): value[:LONGEST_VALUE] for name, value in study["tags"].items()}
    artifacts = (out / "artifacts").as_uri()
    experiment = client.create_experiment(study["name"], artifact_location=artifacts, tags=tags)
    for run in study["runs"]:
        write_run(client, entities, experiment, run)


def write_run(client: Any, entities: Any, experiment: str, run: dict[str, Any]) -> None:
    """A run with its tags, parameters, curves, final figures, files and status."""
    start, end = times(run)
    tags = {key(name): value[:LONGEST_VALUE] for name, value in run["tags"].items()}
    run_id = client.create_run(experiment, start_time=start, tags=tags, run_name=run["name"]).info.run_id
    params = [entities.Param(key(name), value[:LONGEST_VALUE]) for name, value in run["params"].items()]
    for part in batches(params, PARAMS_A_BATCH):
        client.log_batch(run_id, params=part)
    metrics = [
        entities.Metric(key(name), value, start + round(1000 * point["at_seconds"]), point["step"])
        for point in run["points"]
        for name, value in point["values"].items()
    ]
    last = max((point["step"] for point in run["points"]), default=0)
    metrics += [entities.Metric(key(name), value, end, last) for name, value in run["finals"].items()]
    for part in batches(metrics, METRICS_A_BATCH):
        client.log_batch(run_id, metrics=part)
    for file in run["files"]:
        client.log_artifact(run_id, file)
    if run["state"] != "unfinished":
        client.set_terminated(run_id, status=STATUS.get(run["state"], "FAILED"), end_time=end)


def times(run: dict[str, Any]) -> tuple[int, int]:
    """Start and end in milliseconds since 1970, by the records; the start is the end less the last event's time."""
    last = max((point["at_seconds"] for point in run["points"]), default=0.0)
    end = datetime.fromisoformat(run["finished"]).timestamp() if run["finished"] else last
    return round(1000 * (end - last)), round(1000 * end)


def key(name: str) -> str:
    """A name as MLflow takes it: letters, digits, underscore, dash, dot, space, colon and slash."""
    return re.sub(r"[^\w\-./: ]", "_", name)


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a list into pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


if __name__ == "__main__":
    write(json.load(sys.stdin), Path(sys.argv[1]))
