"""An HTTP load generator in a process of its own: an open loop at a constant rate, or a closed loop of some clients.

Not here: what is sent, and what the figures mean (`bench.py`). An open loop sends on time whether or not answers come
(closed ones hide overload: https://www.usenix.org/conference/nsdi-06/open-versus-closed-cautionary-tale).

    python -m paretune.serve.load plan.json     # the result as one JSON line
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx2

from paretune.core.config import JsonObject, Settings

CONNECTIONS = 512


class LoadPlan(Settings):
    """What to send: `bodies` in turn to `url`; `rate` is in requests a second, `clients` for the closed loop."""

    url: str
    bodies: list[JsonObject]
    loop: Literal["open", "closed"]
    seconds: float
    rate: float = 0.0
    clients: int = 1
    timeout_seconds: float = 120.0


class Shot(Settings):
    """One request: when it was sent (since the start), seconds until its answer, HTTP status (0: none came)."""

    at_seconds: float
    seconds: float
    status: int
    retry_after: bool


class LoadResult(Settings):
    """All requests of a plan, the seconds until the last answer, and the share of one core that the generator used."""

    shots: list[Shot]
    wall_seconds: float
    generator_cpu_share: float


async def _send(client: httpx2.AsyncClient, plan: LoadPlan, body: bytes, began: float) -> Shot:
    sent = time.perf_counter()
    try:
        answer = await client.post(plan.url, content=body, headers={"content-type": "application/json"})
        status, retry_after = answer.status_code, "retry-after" in answer.headers
    except httpx2.HTTPError:
        status, retry_after = 0, False
    ended = time.perf_counter()
    return Shot(at_seconds=sent - began, seconds=ended - sent, status=status, retry_after=retry_after)


async def _open_loop(client: httpx2.AsyncClient, plan: LoadPlan, bodies: Iterator[bytes], began: float) -> list[Shot]:
    sending: list[asyncio.Task[Shot]] = []
    for number in range(max(1, round(plan.rate * plan.seconds))):
        await asyncio.sleep(max(0.0, began + number / plan.rate - time.perf_counter()))
        sending.append(asyncio.create_task(_send(client, plan, next(bodies), began)))
    return list(await asyncio.gather(*sending))


async def _closed_loop(client: httpx2.AsyncClient, plan: LoadPlan, bodies: Iterator[bytes], began: float) -> list[Shot]:
    async def one_client() -> list[Shot]:
        shots: list[Shot] = []
        while time.perf_counter() - began < plan.seconds:
            shots.append(await _send(client, plan, next(bodies), began))
        return shots

    found = await asyncio.gather(*(one_client() for _ in range(plan.clients)))
    return sorted((shot for shots in found for shot in shots), key=lambda shot: shot.at_seconds)


async def generate(plan: LoadPlan) -> LoadResult:
    """Send what the plan says and wait for every answer."""
    bodies = itertools.cycle([json.dumps(body).encode() for body in plan.bodies])
    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    loop = _open_loop if plan.loop == "open" else _closed_loop
    async with httpx2.AsyncClient(timeout=plan.timeout_seconds, limits=limits) as client:
        began, cpu_began = time.perf_counter(), time.process_time()
        shots = await loop(client, plan, bodies, began)
        wall = time.perf_counter() - began
        share = (time.process_time() - cpu_began) / wall
    return LoadResult(shots=shots, wall_seconds=wall, generator_cpu_share=share)


def main() -> None:
    """Read the plan that the first argument names and print the result."""
    plan = LoadPlan.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(asyncio.run(generate(plan)).model_dump_json())


if __name__ == "__main__":
    main()
