"""Measures the dashboard on generated records: how long a reader waits for the list, a study, and what is new.

Figures, not a test; "cold" is the first question to a fresh server, "warm" the median of later ones, "after one run"
the first question after another run was scored (it may get the older part), "fresh" when that run is seen. Ratios say
what keeping saves. Not here: the browser's own time.

    print("\n".join(report_lines(bench_dashboard(500))))
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from paretune.dashboard.app import create_app
from paretune.dashboard.gate import LOOPBACK_HOSTS, Rights
from paretune.dashboard.generated import (
    LABELS,
    Size,
    event_lines,
    generated_spec,
    labels_of,
    settings_grid,
    write_generated,
    write_scored,
)
from paretune.records.store import StudyFolder

SEEDS = 5
LEAST_RUNS, MOST_RUNS = 30, 690  # outside them the folder would hold another number than was asked for
STUDIES = 4  # small ones beside the large one, so that the list has rows
REPEATS = 7
WITHIN_MS = {"list_warm_ms": 300.0, "study_warm_ms": 1000.0}  # what the dashboard aims at with 500 runs on two cores


def bench_dashboard(runs: int) -> dict[str, float]:
    """Milliseconds and ratios for a folder with so many runs: most in one study, the rest in four small ones."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        small = max(1, runs // 10 // STUDIES // SEEDS)
        large = max(2, min(126, runs // SEEDS - STUDIES * small))
        for at in range(STUDIES):
            write_generated(root / f"small-{at}", Size(methods=small, seeds=SEEDS))
        write_generated(root / "large", Size(methods=large, seeds=SEEDS))
        found = _measured(root, large)
    found["runs"] = float((large + STUDIES * small) * SEEDS)
    return found


def _measured(root: Path, methods: int) -> dict[str, float]:
    app = create_app([root], Rights(None, LOOPBACK_HOSTS), "en")
    found: dict[str, float] = {}
    with TestClient(app, base_url="http://127.0.0.1") as client:

        def ask(path: str) -> float:
            began = time.perf_counter()
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.status_code)
            return 1000 * (time.perf_counter() - began)

        pages = {"list": "/", "study": "/study/large", "budget": "/study/large/budget", "runs": "/study/large/runs"}
        pages |= {"settings": "/study/large/settings", "examples": "/study/large/examples"}
        pages |= {"draws": "/study/large/draws.json"}
        for name, path in pages.items():
            found[f"{name}_cold_ms"] = ask(path)
            found[f"{name}_warm_ms"] = _median(lambda path=path: ask(path))
        _one_more_run(root / "large", methods)
        for name in ("list", "study"):
            found[f"{name}_after_one_run_ms"] = ask(pages[name])
        began = time.perf_counter()
        shown = ""
        while shown != _version(client, "/study/large/live.json"):
            shown = client.get("/study/large").text.partition('data-version="')[2].partition('"')[0]
        found["study_fresh_after_one_run_ms"] = 1000 * (time.perf_counter() - began)
        found |= _live(root / "large", ask)
    found["study_cold_by_warm"] = found["study_cold_ms"] / found["study_warm_ms"]
    found["list_cold_by_warm"] = found["list_cold_ms"] / found["list_warm_ms"]
    return found


def _version(client: TestClient, path: str) -> str:
    return str(client.get(path).json()["version"])


def _median(ask: Callable[[], float]) -> float:
    return statistics.median(ask() for _ in range(REPEATS))


def _one_more_run(folder: Path, methods: int) -> None:
    """The last method's last seed is scored anew."""
    settings, rng = settings_grid(methods)[-1], np.random.default_rng(5)
    rows = Size().test_rows
    run = StudyFolder(folder).run(generated_spec(labels_of(settings), settings, SEEDS - 1))
    truth = np.asarray(run.predictions()["label"].to_pylist())
    assert len(truth) == rows and set(truth) <= set(LABELS)
    write_scored(run, settings, SEEDS - 1, truth, rng.random(rows), steps=120)


def _live(folder: Path, ask: Callable[[str], float]) -> dict[str, float]:
    """News of a run with 20,000 steps: all of them, then the last ten alone."""
    settings, rng = settings_grid(1)[0], np.random.default_rng(6)
    spec = generated_spec(labels_of(settings), settings, 0, rate=1e-5)
    run = StudyFolder(folder).run(spec)
    run.write_spec(spec)
    events = run.path / "events.jsonl"
    lines = event_lines(20_000, 0.0, rng)
    events.write_text("".join(lines[:-10]), encoding="utf-8")
    whole = ask("/study/large/live.json")
    at = f"{spec.run_id}:{events.stat().st_ino}:{events.stat().st_size}"
    with events.open("a", encoding="utf-8") as file:
        file.write("".join(lines[-10:]))
    appended = statistics.median(ask(f"/study/large/live.json?at={at}") for _ in range(REPEATS))
    return {"live_whole_ms": whole, "live_appended_ms": appended, "live_whole_by_appended": whole / appended}


def report_lines(found: dict[str, float]) -> list[str]:
    """The figures for a terminal, with the aims beside those that have one."""
    lines = [f"{found['runs']:.0f} runs"]
    for name, value in found.items():
        if name.endswith("_ms"):
            aim = f" (aim: {WITHIN_MS[name]:.0f})" if name in WITHIN_MS else ""
            lines.append(f"{name.removesuffix('_ms'):32} {value:9.1f} ms{aim}")
        elif name != "runs":
            lines.append(f"{name:32} {value:9.1f} ×")
    return lines
