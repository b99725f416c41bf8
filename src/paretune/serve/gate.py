"""The first and last thing that sees a request: its id, its key, headers of every answer, one log line without texts.

Not here: scopes (`guard.py`), limits (`limits.py`). A body is not even read from somebody without a valid key. What no
one else caught ends here as a plain 500, and the log gets its place in the code but not its words, which could hold a
text. Headers: https://owasp.org/www-project-secure-headers/.

    app.add_middleware(Gate, keys=keys, hosts=None, done=metrics.done)
"""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paretune.serve.keys import ApiKey, Keys
from paretune.serve.limits import has_body, header
from paretune.serve.refusals import error_body, retry_seconds
from paretune.serve.shapes import ErrorType
from paretune.serve.visit import STATE, Visit

log = logging.getLogger(__name__)
access = logging.getLogger("paretune.access")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
CLIENT_GONE = 499
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_ERROR_TYPES: dict[int, ErrorType] = {401: "auth", 500: "backend"}
Done = Callable[[str, str, int, float, Visit], None]  # route, method, status, seconds, visit


class ClientGoneError(Exception):
    """The client has closed its connection; there is nobody to answer."""


class Gate:
    """ASGI middleware around all else. `hosts`: names under which the server may be called; None: any."""

    def __init__(self, app: ASGIApp, keys: Keys | None, hosts: frozenset[str] | None, done: Done) -> None:
        self._app = app
        self._keys = keys
        self._hosts = hosts
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(_request_id(scope), self._key(scope))
        scope.setdefault("state", {})[STATE] = visit
        began = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_headers(message, visit.request_id)
            await send(message)

        try:
            if self._hosts is not None and host_of(scope) not in self._hosts:
                await refuse(scope, sending, 421, "this server is not called by that name")
            elif self._keys is not None and visit.key is None and has_body(scope):
                await refuse(scope, sending, 401, "a valid key is needed: Authorization: Bearer KEY")
            else:
                await self._app(scope, receive, sending)
        except ClientGoneError:
            status = status or CLIENT_GONE
        except Exception as error:
            place = " < ".join(
                f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)[:-6:-1]
            )
            log.error("request %s: %s at %s", visit.request_id, type(error).__name__, place)
            if not status:
                await refuse(scope, sending, 500, "an error inside the server")
        finally:
            self._report(scope, visit, status or CLIENT_GONE, time.perf_counter() - began)

    def _key(self, scope: Scope) -> ApiKey | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if self._keys is None or len(given) != 1:
            return None
        scheme, _, key = given[0].partition(b" ")
        return self._keys.find(key.strip().decode("latin-1")) if scheme.lower() == b"bearer" else None

    def _report(self, scope: Scope, visit: Visit, status: int, seconds: float) -> None:
        route = route_of(scope, visit)
        self._done(route, scope["method"], status, seconds, visit)
        access.info(
            "%s %s %d %.1f ms items=%d tokens=%d key=%s id=%s",
            *(scope["method"], route, status, 1000 * seconds),
            *(visit.items, visit.tokens, visit.caller or "-", visit.request_id),
        )


def route_of(scope: Scope, visit: Visit) -> str:
    """The pattern of the route that matched; never the path itself where a client can have made it up."""
    route = scope.get("route")
    return str(route.path) if route is not None else visit.path or "other"


def host_of(scope: Scope) -> str:
    """Host header without its port."""
    host = header(scope, b"host").decode("latin-1")
    return re.sub(r":\d{1,5}$", "", host)


def add_headers(message: Message, request_id: str) -> None:
    """Security headers where the answer does not bring its own, and the request's id."""
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers["X-Request-ID"] = request_id


async def refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    """An error from outside the framework; the connection ends, since a body may not have been read."""
    headers = [(b"connection", b"close")] if has_body(scope) else []
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await _refuse(scope, send, status, _ERROR_TYPES.get(status, "validation"), reason, headers)


async def refuse_for_now(scope: Scope, send: Send, wait_seconds: float) -> None:
    """429 for a request whose body was read, with the seconds after which it may come again."""
    headers = [(b"retry-after", b"%d" % retry_seconds(wait_seconds))]
    await _refuse(scope, send, 429, "overloaded", "the queue is full", headers)


async def _refuse(
    scope: Scope, send: Send, status: int, error_type: ErrorType, reason: str, headers: list[tuple[bytes, bytes]]
) -> None:
    visit: Visit = scope["state"][STATE]
    visit.error_type = error_type
    body = error_body(reason, error_type, visit.request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
