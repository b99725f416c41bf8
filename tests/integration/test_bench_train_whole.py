"""`paretune bench train` whole, on a toy model: every process runs and every figure is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_study import VOCABULARY, toy_rows, write_csv

from paretune.models.tiny import write_tiny_llama

FIGURES = (
    *("ratio", "ratio_best_peer", "roofline_fraction", "ours_tokens_per_second", "peer_tokens_per_second"),
    *("ours_peak_memory_bytes", "peer_peak_memory_bytes", "memory_ratio", "memory_ratio_best_peer"),
)


def _bench(folder: Path, model: Path, method: str) -> dict[str, object]:
    write_csv(folder / "toy.csv", toy_rows(90))
    command = [
        *(sys.executable, "-m", "paretune", "bench", "train", "--model", f"path:{model}", "--data", "path:toy.csv"),
        *("--method", method, "--seconds", "1", "--pairs", "1", "--batch-size", "8", "--max-tokens", "16", "--json"),
    ]
    one_core = {min(os.sched_getaffinity(0))}  # threads that wait for each other would take minutes on a busy machine
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, one_core)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "method"), [(False, "lora"), (True, "full")])
def test_both_sides_train_on_the_same_tokens(tmp_path: Path, tiny_model: Path, decoder: bool, method: str) -> None:
    """Every figure is a positive number; both sides tokenized alike; each trained for the second it was given."""
    model = write_tiny_llama(tmp_path / "llama", vocabulary=VOCABULARY) if decoder else tiny_model
    found = _bench(tmp_path, model, method)
    assert (found["model"], found["method"], found["data"]) == (f"path:{model.name}", method, "path:toy.csv")
    for name in FIGURES:
        value = found[name]
        assert isinstance(value, int | float) and value > 0, name
    assert (found["memory_ratio_stock_full"] is not None) is (method == "lora")
    assert isinstance(found["own_pass"], bool) if decoder else found["own_pass"] is True
    details = found["details"]
    assert isinstance(details, dict)
    (pair,) = details["pairs"]
    ours, peers = pair["ours"], [pair["peer_defaults"], pair["peer_best"]]
    assert {one["row_tokens"] for one in peers} == {ours["row_tokens"]}
    assert all(one["seconds"] >= 1 and one["tokens"] > 0 for one in peers)
    assert [one["precision"] for one in peers] == ["fp32", "bf16"]
    assert all(one["examples"] > one["steps"] for one in (ours, *peers))
    most = 2 * 2 * 8 * (32 + 64) + 4 * 2 * 8 * (32 + 32) + 3 * 32 + 3
    assert ours["trainable_parameters"] <= most if method == "lora" else ours["trainable_parameters"] > most
