"""An HTTP load generator in a process of its own: an open loop at a constant rate, or a closed loop of some clients.

Not here: what is sent, and what the figures mean (`bench.py`). An open loop sends on time whether or not answers come
(closed ones hide overload: https://www.usenix.org/conference/nsdi-06/open-versus-closed-cautionary-tale). It speaks
just as much HTTP/1.1 as the service answers with: generator and service share the cores, and a client library's
millisecond a request would be taken from what is measured.

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
from urllib.parse import urlsplit

from paretune.core.config import JsonObject, Settings

END_OF_HEADERS = b"\r\n\r\n"


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


class _Connections:
    """Connections to the service, opened when none is idle and used again while the service keeps them open."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._head = (
            f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode()
        self._timeout = timeout_seconds
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> tuple[int, bool]:
        """Status (0: no answer, or no answer in time) and whether Retry-After came with it."""
        message = self._head + b"%d" % len(body) + END_OF_HEADERS + body
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(message)
        except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError):
            return 0, False

    async def _exchange(self, message: bytes) -> tuple[int, bool]:
        while self._idle:
            try:
                return await self._over(*self._idle.pop(), message)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if getattr(error, "partial", b""):
                    raise  # an answer had begun
                # The service closes what was idle for long; that is no refusal.
        return await self._over(*await asyncio.open_connection(self._host, self._port), message)

    async def _over(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
    ) -> tuple[int, bool]:
        kept = False
        try:
            writer.write(message)
            first, *lines = (await reader.readuntil(END_OF_HEADERS))[: -len(END_OF_HEADERS)].split(b"\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            await reader.readexactly(int(headers.get(b"content-length", b"")))
            kept = headers.get(b"connection", b"").lower() != b"close"
            return int(first.split(b" ", 2)[1]), b"retry-after" in headers
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()

    def close(self) -> None:
        """Close what is idle."""
        for _, writer in self._idle:
            writer.close()


async def _send(connections: _Connections, body: bytes, began: float) -> Shot:
    sent = time.perf_counter()
    status, retry_after = await connections.post(body)
    ended = time.perf_counter()
    return Shot(at_seconds=sent - began, seconds=ended - sent, status=status, retry_after=retry_after)


async def _open_loop(connections: _Connections, plan: LoadPlan, bodies: Iterator[bytes], began: float) -> list[Shot]:
    sending: list[asyncio.Task[Shot]] = []
    for number in range(max(1, round(plan.rate * plan.seconds))):
        await asyncio.sleep(max(0.0, began + number / plan.rate - time.perf_counter()))
        sending.append(asyncio.create_task(_send(connections, next(bodies), began)))
    return list(await asyncio.gather(*sending))


async def _closed_loop(connections: _Connections, plan: LoadPlan, bodies: Iterator[bytes], began: float) -> list[Shot]:
    async def one_client() -> list[Shot]:
        shots: list[Shot] = []
        while time.perf_counter() - began < plan.seconds:
            shots.append(await _send(connections, next(bodies), began))
        return shots

    found = await asyncio.gather(*(one_client() for _ in range(plan.clients)))
    return sorted((shot for shots in found for shot in shots), key=lambda shot: shot.at_seconds)


async def generate(plan: LoadPlan) -> LoadResult:
    """Send what the plan says and wait for every answer."""
    bodies = itertools.cycle([json.dumps(body).encode() for body in plan.bodies])
    loop = _open_loop if plan.loop == "open" else _closed_loop
    connections = _Connections(plan.url, plan.timeout_seconds)
    began, cpu_began = time.perf_counter(), time.process_time()
    shots = await loop(connections, plan, bodies, began)
    wall = time.perf_counter() - began
    share = (time.process_time() - cpu_began) / wall
    connections.close()
    return LoadResult(shots=shots, wall_seconds=wall, generator_cpu_share=share)


def main() -> None:
    """Read the plan that the first argument names and print the result."""
    plan = LoadPlan.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(asyncio.run(generate(plan)).model_dump_json())


if __name__ == "__main__":
    main()
