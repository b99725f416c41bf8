"""How the service says no: one exception with a status and a type, one JSON shape, nothing about its inside.

Not here: when it says no. A message names what the client sent and what is allowed; no path, no stack, no other
client's names. Shape and types follow text-embeddings-inference.

    raise Refused(429, "overloaded", "the queue is full", retry_after_seconds=2.5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Route

from paretune.serve.shapes import NOT_BLANK, ErrorAnswer, ErrorType
from paretune.serve.visit import visit_of

_TYPES: dict[int, ErrorType] = {401: "auth", 403: "auth", 404: "not_found", 409: "conflict", 429: "overloaded"}
BLANK = "nothing in it can be seen; expected at least one visible character"
NO_BODY = "expected a JSON object, sent with the header content-type: application/json"


class Refused(HTTPException):
    """A request that gets no answer; `retry_after_seconds` becomes a whole number of seconds, at least 1."""

    def __init__(
        self, status: int, error_type: ErrorType, reason: str, retry_after_seconds: float | None = None
    ) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if retry_after_seconds is not None:
            headers["Retry-After"] = str(retry_seconds(retry_after_seconds))
        super().__init__(status, reason, headers or None)
        self.error_type: ErrorType = error_type


def retry_seconds(seconds: float) -> int:
    """Retry-After's whole number: rounded up, 1 to 3600."""
    return max(1, min(3600, math.ceil(seconds))) if math.isfinite(seconds) else 3600


def error_body(error: str, error_type: ErrorType, request_id: str) -> bytes:
    """The JSON of an error."""
    return ErrorAnswer(error=error, error_type=error_type, request_id=request_id).model_dump_json().encode()


def _answer(request: Request, status: int, error_type: ErrorType, reason: str, headers: Any = None) -> JSONResponse:
    visit = visit_of(request)
    visit.error_type = error_type
    body = ErrorAnswer(error=reason, error_type=error_type, request_id=visit.request_id)
    return JSONResponse(body.model_dump(), status, headers)


async def on_http(request: Request, error: Exception) -> JSONResponse:
    """Ours, and the framework's own 404 and 405."""
    assert isinstance(error, StarletteHTTPException)
    if isinstance(error, Refused):
        return _answer(request, error.status_code, error.error_type, str(error.detail), error.headers)
    kind = _TYPES.get(error.status_code, "validation")
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return _answer(request, error.status_code, kind, str(error.detail), headers)


def _allowed(request: Request) -> str:
    """Methods of a path; the framework names those of the first route that has it."""
    found: set[str] = set()
    for one in iter_route_contexts(request.app.routes):
        route = one.original_route
        if isinstance(route, Route) and route.path_regex.match(request.scope["path"]):
            found |= route.methods or set()
    return ", ".join(sorted(found))


async def on_validation(request: Request, error: Exception) -> JSONResponse:
    """A body or parameter of another shape; says where and what is expected, never what was sent."""
    assert isinstance(error, RequestValidationError)
    return _answer(request, 422, "validation", first_problem(error.errors()))


def first_problem(problems: Sequence[Any]) -> str:
    """One line from pydantic's list."""
    if not problems:
        return "the request has another shape than /docs says"
    problem = problems[0]
    place = ".".join(_shown(part) for part in problem["loc"]) or "request"
    others = len(problems) - 1
    more = f" (and {others} more)" if others else ""
    blank = problem.get("ctx", {}).get("pattern") == NOT_BLANK  # a page of code points, control characters in
    reason = BLANK if blank else problem["msg"].removeprefix("Value error, ")
    if tuple(problem["loc"]) == ("body",) and problem["type"] in ("missing", "model_attributes_type"):
        reason = NO_BODY
    return f"{place}: {reason}{more}"[:500]


def _shown(part: object) -> str:
    """A step of a place; keys are the client's own, so they are cut short and made printable."""
    text = str(part)[:64]
    return text if text.isprintable() else ascii(text)
