"""Measures the served path: a server process, a load generator process, and what the client of the API sees.

Not here: the engine's own figures (`bench.py`), the generator (`load.py`). Every figure is a ratio of two things that
were measured in one call on one machine; the server's adapters and texts are the same throughout.

    with running(bundles, store) as server: capacity(server, bodies, seconds=20)
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from paretune.core.config import JsonObject
from paretune.core.errors import RunError, said
from paretune.models.sources import ModelSpec
from paretune.serve.bench import TEXTS_PER_REQUEST, Shop, answer_all, rows_over
from paretune.serve.engine import Engine
from paretune.serve.load import LoadPlan, LoadResult

READY_SECONDS = 300.0
POLL_SECONDS = 0.02
CLIENTS = 8  # enough to keep the queue from running dry, few enough to stay below its bound
RECOVERY_LIMIT_SECONDS = 30.0
READ_WEIGHTS = (
    "import sys, torch; from safetensors.torch import load_file; torch.inference_mode().__enter__();"
    "print(sum(float(t.sum()) for t in load_file(sys.argv[1]).values() if t.is_floating_point()))"
)


@dataclass(frozen=True)
class Server:
    """A server process that was ready after so many seconds."""

    process: subprocess.Popen[bytes]
    url: str
    ready_seconds: float

    def resident_bytes(self) -> int:
        """Resident memory of the server now (VmRSS of proc(5))."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(bundles: Sequence[Path], store: Path, arguments: Sequence[str] = ()) -> Generator[Server]:
    """`paretune serve` on the loopback until the block ends.

    Raises:
        RunError: the server ended, or was not ready in time; its last words are in the message.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "paretune", "serve", *map(str, bundles)]
    command += ["--port", str(port), "--store", str(store), *arguments]
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            yield Server(process, url, _wait_until_ready(process, url, began))
        except RunError as error:
            log.seek(0)
            words = log.read().decode(errors="replace").strip().splitlines()[-3:]
            raise RunError(f"{error}: {' / '.join(words)}") from error
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, began: float) -> float:
    while time.perf_counter() - began < READY_SECONDS:
        if process.poll() is not None:
            raise RunError(f"the server ended with code {process.returncode}")
        try:
            if httpx2.get(f"{url}/readyz", timeout=10).status_code == 200:
                return time.perf_counter() - began
        except httpx2.HTTPError:  # not listening yet
            pass
        time.sleep(POLL_SECONDS)
    raise RunError(said("the server was not ready", f"an answer of /readyz within {READY_SECONDS:g} s"))


def reading_seconds(weights: Path) -> float:
    """Seconds of a fresh process that imports torch and reads a file of weights: what no server can do without."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", READ_WEIGHTS, str(weights)], check=True, capture_output=True)
    return time.perf_counter() - began


def fire(plan: LoadPlan) -> LoadResult:
    """Run a plan in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(plan.model_dump_json())
        file.flush()
        command = [sys.executable, "-m", "paretune.serve.load", file.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return LoadResult.model_validate_json(done.stdout.splitlines()[-1])


def classify_bodies(texts: Sequence[str], adapters: Sequence[str], per_request: int, requests: int) -> list[JsonObject]:
    """Bodies of /v1/classify: texts in turn, adapters in turn from item to item."""
    bodies: list[JsonObject] = []
    for number in range(requests):
        places = range(number * per_request, (number + 1) * per_request)
        items = [{"text": texts[place % len(texts)], "adapter": adapters[place % len(adapters)]} for place in places]
        bodies.append({"inputs": items})
    return bodies


def _plan(server: Server, bodies: list[JsonObject], seconds: float, rate: float | None, clients: int = 1) -> LoadPlan:
    return LoadPlan(
        url=f"{server.url}/v1/classify",
        bodies=bodies,
        loop="closed" if rate is None else "open",
        seconds=seconds,
        rate=rate or 0.0,
        clients=clients,
    )


def answered(result: LoadResult) -> list[float]:
    """Latencies of the requests that were answered with 200.

    Raises:
        RunError: none was.
    """
    found = [shot.seconds for shot in result.shots if shot.status == 200]
    if not found:
        raise RunError(said(f"no request was answered: statuses {statuses(result)}", "answers with status 200"))
    return found


def statuses(result: LoadResult) -> dict[int, int]:
    """How many answers had which status."""
    found: dict[int, int] = {}
    for shot in result.shots:
        found[shot.status] = found.get(shot.status, 0) + 1
    return found


def capacity(server: Server, bodies: list[JsonObject], seconds: float) -> tuple[float, float]:
    """Requests a second that a closed loop of some clients gets through, and the generator's share of a core."""
    result = fire(_plan(server, bodies, seconds, None, CLIENTS))
    return len(answered(result)) / result.wall_seconds, result.generator_cpu_share


def engine_requests_per_second(shop: Shop, spec: ModelSpec, texts: Sequence[str], seconds: float) -> float:
    """Requests a second when the engine is called directly, tokenizing included, in batches as the scheduler makes."""
    engine = Engine(spec, slots=len(shop.digests), fetch=shop.fetch)
    answer_all(engine, rows_over(engine, shop.digests, texts))
    answered_texts, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        answer_all(engine, rows_over(engine, shop.digests, texts))
        answered_texts += len(texts)
    return answered_texts / TEXTS_PER_REQUEST / passed


def unloaded_median_seconds(server: Server, bodies: list[JsonObject], seconds: float) -> float:
    """Median latency of one client that waits for each answer."""
    return statistics.median(answered(fire(_plan(server, bodies, seconds, None))))


@dataclass(frozen=True)
class Loaded:
    """Latency at a constant rate below capacity."""

    p50_seconds: float
    p95_seconds: float
    refused: int
    requests: int


def at_rate(server: Server, bodies: list[JsonObject], rate: float, seconds: float) -> Loaded:
    """Constant arrivals at `rate` requests a second."""
    result = fire(_plan(server, bodies, seconds, rate))
    found = sorted(answered(result))
    refused = len(result.shots) - len(found)
    return Loaded(found[len(found) // 2], found[int(0.95 * (len(found) - 1))], refused, len(result.shots))


@dataclass(frozen=True)
class Overload:
    """What happened at a multiple of capacity: answers a second while the load lasted, who was refused and how, and
    seconds after its end until one lone request was answered as fast as an unloaded one (twice its median)."""

    goodput_per_second: float
    accepted_p95_seconds: float
    refused: int
    refused_otherwise: int
    recovery_seconds: float


def overload(server: Server, bodies: list[JsonObject], rate: float, seconds: float, unloaded: float) -> Overload:
    """Constant arrivals at `rate`, far over capacity; refusals must be 429 with Retry-After."""
    result = fire(_plan(server, bodies, seconds, rate))
    found = sorted(answered(result))
    ended = [shot.at_seconds + shot.seconds for shot in result.shots if shot.status == 200]
    in_time = sum(end <= seconds for end in ended)
    refused = [shot for shot in result.shots if shot.status != 200]
    proper = sum(shot.status == 429 and shot.retry_after for shot in refused)
    return Overload(
        in_time / seconds,
        found[int(0.95 * (len(found) - 1))],
        len(refused),
        len(refused) - proper,
        max(0.0, result.wall_seconds - seconds) + _recovery(server, bodies, unloaded),
    )


def _recovery(server: Server, bodies: list[JsonObject], unloaded: float) -> float:
    """Seconds until a lone request is answered within twice the unloaded median."""
    began = time.perf_counter()
    content = json.dumps(bodies[0])
    headers = {"content-type": "application/json"}
    while time.perf_counter() - began < RECOVERY_LIMIT_SECONDS:
        sent = time.perf_counter()
        answer = httpx2.post(f"{server.url}/v1/classify", content=content, headers=headers, timeout=60)
        if answer.status_code == 200 and time.perf_counter() - sent <= 2 * unloaded:
            return sent - began
    return RECOVERY_LIMIT_SECONDS
