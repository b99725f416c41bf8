"""An HTTP/1.1 connection that does not wait for ever for a request's headers; too many of them, and what is no HTTP,
get the service's own kind of refusal.

Not here: bodies (`limits.py`). uvicorn bounds the time between requests, but a client that sends one byte now and then
holds a connection as long as it likes (slow loris); its 400 for what is no HTTP and its 503 for too many connections
(`limit_concurrency`, which is left unset) are plain text without headers.

    uvicorn.Config(app, http=PatientConnection)
"""

from __future__ import annotations

import asyncio
import uuid
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from paretune.serve.gate import HEADERS
from paretune.serve.refusals import error_body
from paretune.serve.shapes import ErrorType

HEADER_SECONDS = 10.0
MOST_CONNECTIONS = 1000
RETRY_SECONDS = 5


class PatientConnection(H11Protocol):
    """uvicorn's h11 connection with a deadline for headers."""

    _deadline: asyncio.TimerHandle | None = None
    _one_too_many = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._one_too_many = len(self.connections) > MOST_CONNECTIONS
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # refused already
        if self._one_too_many:  # said to a client that speaks: what it sent is read, so that no reset eats the answer
            self._refuse(503, b"Service Unavailable", "too many connections", "overloaded", RETRY_SECONDS)
            return
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets the service's own shape."""
        self._refuse(400, b"Bad Request", "the request is not valid HTTP", "validation")

    def _refuse(self, status: int, phrase: bytes, reason: str, kind: ErrorType, retry_seconds: int = 0) -> None:
        """Answer without the application, and close."""
        request_id = uuid.uuid4().hex
        body = error_body(reason, kind, request_id)
        headers = {**HEADERS, "X-Request-ID": request_id, "Content-Type": "application/json", "Connection": "close"}
        headers["Content-Length"] = str(len(body))
        if retry_seconds:
            headers["Retry-After"] = str(retry_seconds)
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        for event in (
            h11.Response(status_code=status, headers=lines, reason=phrase),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """A deadline runs while headers are awaited and begun: from the first byte, or from the connection itself."""
        cycle = cast(RequestResponseCycle | None, self.cycle)  # None until a first request's headers are there
        begun = cycle is None or (cycle.response_complete and bool(self.conn.trailing_data[0]))
        if not begun:
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._late)

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
