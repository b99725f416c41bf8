"""What the OpenAPI document says beside the shapes: errors by status, headers of answers; and a page that shows it.

Not here: the shapes (`shapes.py`). The framework's own page loads a script from another host, which the policy of this
service forbids; this one is three files of the package and works offline.

    app.include_router(documents_router())
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from paretune.serve.page_routes import SECURITY_HEADERS, read_asset
from paretune.serve.shapes import ErrorAnswer

_WORDS = {
    400: "The body is no JSON, or empty",
    401: "No valid key",
    403: "The key has not this scope",
    404: "No such adapter, or none that this key may use",
    408: "The body was not there in time",
    409: "Not in this state",
    413: "Too large: body, batch or text",
    415: "A compressed body",
    422: "Another shape than documented here, or a text with more tokens than its adapter takes",
    424: "The adapter gave no answer",
    429: "The queue is full or the key's tokens are used up; Retry-After says for how many seconds",
    500: "An error inside the server",
    503: "Stopping, or the engine is not working",
}
SECONDS = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}}
_ANSWER_HEADERS = {
    "X-Adapter-Digest": {"description": "digests that answered, with commas", "schema": {"type": "string"}},
    "X-Queue-Time": {"description": "milliseconds in the queue", "schema": {"type": "integer", "minimum": 0}},
    "X-Compute-Tokens": {"description": "tokens read", "schema": {"type": "integer", "minimum": 0}},
}
_FILES = {
    "docs.js": "text/javascript; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
}


def errors_with(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route can answer."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"model": ErrorAnswer, "description": _WORDS[status]}
        if status in (429, 503):
            found[status]["headers"] = SECONDS
    return found


def answers_with(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors, and the headers of an answer."""
    return {200: {"headers": _ANSWER_HEADERS}, **errors_with(*statuses)}


def documents_router() -> APIRouter:
    """`/docs` and its files, read once, here."""
    page = read_asset("docs.html", "text/html; charset=utf-8")
    assets = {name: read_asset(name, media_type) for name, media_type in _FILES.items()}
    router = APIRouter(include_in_schema=False)

    async def docs(request: Request) -> Response:
        return Response(page.body, media_type=page.media_type, headers=SECURITY_HEADERS)

    async def file(name: str) -> Response:
        if name not in assets:
            raise HTTPException(404, "no such file of the page")
        return Response(assets[name].body, media_type=assets[name].media_type, headers=SECURITY_HEADERS)

    router.add_api_route("/docs", docs, methods=["GET", "HEAD"])
    router.add_api_route("/docs/{name}", file, methods=["GET", "HEAD"])
    return router
