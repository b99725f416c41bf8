"""`paretune bench serve`: every figure of the service in one call, engine and served path, side by side on one machine.

Not here: how one figure is measured (`bench.py`, `bench_http.py`), nor the other library's side, which is a script of
`benchmarks/` and is run where the working folder has it.

    bench_serve(BenchPlan(model="asset:minilm-l6", adapters=16), say=print)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paretune.core.config import JsonObject
from paretune.core.limits import usable_cores
from paretune.models.sources import ModelSpec, model_folder
from paretune.serve.bench import TEXTS_PER_REQUEST, Shop, cliff_rates, memory_growth, mixed_rates
from paretune.serve.bench_http import (
    Overload,
    Server,
    at_rate,
    capacity,
    classify_bodies,
    engine_requests_per_second,
    overload,
    reading_seconds,
    running,
    unloaded_median_seconds,
)
from paretune.serve.synthetic import texts, write_synthetic

SHORTEST, LONGEST = 64, 128
TEXTS = 256
PEER = Path("benchmarks/peer_mixed.py")
PART_OF_CAPACITY, OVERLOAD = 0.7, 3.0


@dataclass(frozen=True)
class BenchPlan:
    """What to measure: each load lasts `seconds`; for the cliff `many` adapters share the slots of `adapters`."""

    model: str = "asset:minilm-l6"
    adapters: int = 16
    many: int = 64
    seconds: float = 60.0
    rounds: int = 7
    cycles: int = 500


def bench_serve(plan: BenchPlan, say: Callable[[str], None]) -> JsonObject:
    """Measure all; the dictionary is the bench's last line. Figures that could not be had are None.

    Raises:
        RunError: the server did not come up, or answered nothing.
    """
    import torch

    torch.set_num_threads(usable_cores())
    spec = ModelSpec(source=plan.model)
    inputs = texts(plan.model, TEXTS, SHORTEST, LONGEST)
    with tempfile.TemporaryDirectory() as scratch:
        folders = write_synthetic(Path(scratch) / "bundles", spec, max(plan.adapters, plan.many))
        few = Shop(folders[: plan.adapters])
        say("engine: one adapter and all of them, in turn")
        mixed = mixed_rates(few, spec, inputs, rounds=plan.rounds)
        say(f"engine: {plan.many} adapters over {plan.adapters} slots")
        cliff, swaps = cliff_rates(Shop(folders[: plan.many]), spec, inputs, plan.adapters, rounds=plan.rounds)
        say(f"engine: {plan.cycles} loads and unloads")
        growth = memory_growth(few, spec, inputs, plan.cycles)
        peer = _peer(plan, say)
        served = _served(plan, folders[: plan.adapters], few, spec, inputs, Path(scratch), say)
    return {
        "requests_per_second": served["requests_per_second"],
        "mixed_ratio": mixed.ratio("mixed", "one"),
        "peer_ratio": peer.get("peer_ratio"),
        "peer_ratio_defaults": peer.get("peer_ratio_defaults"),
        "overhead_ratio": served["overhead_ratio"],
        "p95_ratio": served["p95_ratio"],
        "overload_goodput": served["overload_goodput"],
        "cliff": cliff.ratio("fits", "all"),
        "memory_growth": growth,
        "ready_ratio": served["ready_ratio"],
        "generator_cpu_share": served["generator_cpu_share"],
        "details": {
            **served["details"],
            "cliff_swaps": swaps,
            "mixed_ratio_to_merged": mixed.ratio("mixed", "one_merged"),
            "tokens_per_second": mixed.median("mixed"),
            "peer": peer,
        },
    }


def _peer(plan: BenchPlan, say: Callable[[str], None]) -> JsonObject:
    if not PEER.exists():
        say(f"no {PEER} here: nothing is compared with peft")
        return {}
    say("engine against peft's own mixed batches")
    command = [sys.executable, str(PEER), "--model", plan.model, "--adapters", str(plan.adapters)]
    done = subprocess.run([*command, "--rounds", str(plan.rounds)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _served(
    plan: BenchPlan,
    folders: list[Path],
    shop: Shop,
    spec: ModelSpec,
    inputs: list[str],
    scratch: Path,
    say: Callable[[str], None],
) -> JsonObject:
    say("start: a process that imports torch and reads the weights, against the server until it is ready, in turn")
    weights = next(model_folder(plan.model).glob("*.safetensors"))
    starts: list[tuple[float, float]] = []
    for number in range(3):
        reading = reading_seconds(weights)
        with running(folders[:1], scratch / f"start-{number}") as server:
            starts.append((server.ready_seconds, reading))
    bodies = classify_bodies(inputs, [folder.name for folder in folders], TEXTS_PER_REQUEST, TEXTS // TEXTS_PER_REQUEST)
    with running(folders, scratch / "store") as server:
        say("served: unloaded, at capacity, at a part of it, overloaded")
        unloaded = unloaded_median_seconds(server, bodies, plan.seconds / 3)
        direct, full, share = _capacities(plan, server, bodies, shop, spec, inputs)
        loaded = at_rate(server, bodies, PART_OF_CAPACITY * full, plan.seconds)
        over = overload(server, bodies, OVERLOAD * full, plan.seconds, unloaded)
    return {
        "requests_per_second": full,
        "overhead_ratio": direct / full,
        "p95_ratio": loaded.p95_seconds / unloaded,
        "overload_goodput": over.goodput_per_second / full,
        "ready_ratio": statistics.median(ready / reading for ready, reading in starts),
        "generator_cpu_share": share,
        "details": {
            "engine_requests_per_second": direct,
            "unloaded_median_seconds": unloaded,
            "loaded_refused": loaded.refused,
            "ready_seconds": [ready for ready, _ in starts],
            "reading_seconds": [reading for _, reading in starts],
            **_overload_details(over, unloaded),
        },
    }


def _capacities(
    plan: BenchPlan, server: Server, bodies: list[JsonObject], shop: Shop, spec: ModelSpec, inputs: list[str]
) -> tuple[float, float, float]:
    """Requests a second of the engine called directly and of the served path, in turn; and the generator's share."""
    direct: list[float] = []
    full: list[float] = []
    shares: list[float] = []
    for _ in range(3):
        direct.append(engine_requests_per_second(shop, spec, inputs, plan.seconds / 6))
        rate, share = capacity(server, bodies, plan.seconds / 3)
        full.append(rate)
        shares.append(share)
    return statistics.median(direct), statistics.median(full), max(shares)


def _overload_details(over: Overload, unloaded: float) -> JsonObject:
    return {
        "overload_accepted_p95_ratio": over.accepted_p95_seconds / unloaded,
        "overload_refused": over.refused,
        "overload_refused_otherwise": over.refused_otherwise,
        "overload_recovery_seconds": over.recovery_seconds,
    }
