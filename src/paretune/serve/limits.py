"""Limits on what one client can take: bytes and seconds of a body, tokens a minute of a key; and the early refusal.

Not here: the queue's bounds (`scheduler.py`). A body is counted as it arrives, whatever its Content-Length says, and
must be there in time; the application sees it whole or not at all. ASGI: https://asgi.readthedocs.io.

    app.add_middleware(BodyLimit, max_bytes=1_000_000, seconds=10.0, refuse=refuse)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paretune.serve.visit import STATE, Visit

Refuse = Callable[[Scope, Send, int, str], Awaitable[None]]
RefuseForNow = Callable[[Scope, Send, float], Awaitable[None]]
DISCARD_FACTOR = 4  # of a body that is too large this much is read and dropped, so that the client sees the answer


class BodyLimit:
    """Reads the body first: 413 where it is larger than `max_bytes`, 408 where it is not there after `seconds`,
    415 where it is compressed (nothing here unpacks, so no bomb can go off)."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float, refuse: Refuse) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_body(scope):
            await self._app(scope, receive, send)
            return
        if header(scope, b"content-encoding") not in (b"", b"identity"):
            await self._refuse(scope, send, 415, "a compressed body is not read")
            return
        declared = header(scope, b"content-length")
        if declared and (not declared.isdigit() or int(declared[:20]) > self._max_bytes):
            await self._too_large(scope, receive, send, 0)
            return
        try:
            body = await asyncio.wait_for(self._read(receive), self._seconds)
        except TimeoutError:
            await self._refuse(scope, send, 408, f"the body was not there after {self._seconds:g} s")
            return
        if body is None:
            return  # the client has gone
        if len(body) > self._max_bytes:
            await self._too_large(scope, receive, send, len(body))
            return
        await self._app(scope, _again(bytes(body), receive), send)

    async def _read(self, receive: Receive) -> bytearray | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False) or len(body) > self._max_bytes:
                return body

    async def _too_large(self, scope: Scope, receive: Receive, send: Send, read: int) -> None:
        async def discard() -> None:
            left = DISCARD_FACTOR * self._max_bytes - read
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))

        with contextlib.suppress(TimeoutError):  # a client that is slow to send too much need not see the answer
            await asyncio.wait_for(discard(), min(2.0, self._seconds))
        await self._refuse(scope, send, 413, f"the body is larger than {self._max_bytes} bytes")


class Shed:
    """Refuses a request to one of `paths` as soon as its body is there, unless `wait_seconds` (of its bytes) is None.

    What is refused anyway is then neither parsed nor tokenized: under overload those seconds are the engine's.
    """

    def __init__(
        self, app: ASGIApp, paths: frozenset[str], wait_seconds: Callable[[int], float | None], refuse: RefuseForNow
    ) -> None:
        self._app = app
        self._paths = paths
        self._wait_seconds = wait_seconds
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = header(scope, b"content-length") if scope["type"] == "http" else b""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._paths and declared:
            visit: Visit = scope["state"][STATE]
            visit.path, visit.body_bytes = scope["path"], int(declared)
            wait = self._wait_seconds(int(declared))
            if wait is not None:
                await self._refuse(scope, send, wait)
                return
        await self._app(scope, receive, send)


def has_body(scope: Scope) -> bool:
    """Whether a request announces a body (RFC 9112, 6.3)."""
    return bool(header(scope, b"transfer-encoding")) or header(scope, b"content-length") not in (b"", b"0")


def header(scope: Scope, name: bytes) -> bytes:
    """A header's last value in lower case, or nothing."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[-1].strip().lower() if found else b""


def _again(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the whole body once, then what the real one says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def once() -> Message:
        return waiting.pop() if waiting else await receive()

    return once


class TokenBucket:
    """So many tokens a minute, saved up for one minute at most.

    A request is let in while there is anything left to pay with, up to its cost or the whole bucket; the rest is
    debt. So a request that costs more than the bucket holds is possible, and pays by a longer wait of the next.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._left = self._capacity
        self._at = clock()

    def take(self, cost: int) -> float:
        """Pay and return 0, or pay nothing and return the seconds to wait."""
        now = self._clock()
        self._left = min(self._capacity, self._left + max(0.0, now - self._at) * self._per_second)
        self._at = now
        needed = min(float(cost), self._capacity)
        if self._left < needed:
            return (needed - self._left) / self._per_second
        self._left -= cost
        return 0.0
