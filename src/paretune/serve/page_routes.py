"""The web page as routes: static files of the package, by name from a list, under a policy that allows nothing else.

Not here: any data. The page (`serve/page/`) is a client of the API like others, so these routes need no key. The
policy is Content Security Policy level 3 (https://www.w3.org/TR/CSP3/): no inline script or style, no other host.

    app.include_router(page_router())
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, HTTPException, Request, Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again with the ETag: a new version shows at once
}
INDEX = "index.html"
FILES = {
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        (
            "first.js",
            "page.js",
            "words.js",
            "texts_en.js",
            "texts_ru.js",
            "numbers.js",
            "elements.js",
            "api.js",
            "problems.js",
            "answers.js",
            "try.js",
            "csv.js",
            "job.js",
            "labelled.js",
            "table.js",
            "table_setup.js",
            "table_run.js",
            "curve.js",
            "adapters.js",
            "health.js",
        ),
        "text/javascript; charset=utf-8",
    ),
}


@dataclass(frozen=True)
class Asset:
    """A file of the page as it is sent."""

    body: bytes
    media_type: str
    etag: str


def read_asset(name: str, media_type: str) -> Asset:
    """A file of the page from the installed package."""
    body = (resources.files("paretune.serve") / "page" / name).read_bytes()
    return Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _answer(asset: Asset, request: Request) -> Response:
    headers = {**SECURITY_HEADERS, "ETag": asset.etag}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if asset.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


def page_router() -> APIRouter:
    """Routes `/` and `/page/{file}`; every file is read once, here. A name that is not on the list is a 404."""
    index = read_asset(INDEX, "text/html; charset=utf-8")
    assets = {name: read_asset(name, media_type) for name, media_type in FILES.items()}
    router = APIRouter(include_in_schema=False)

    async def page(request: Request) -> Response:
        return _answer(index, request)

    async def file(name: str, request: Request) -> Response:
        if name not in assets:
            raise HTTPException(404, "no such file of the page")
        return _answer(assets[name], request)

    router.add_api_route("/", page, methods=["GET", "HEAD"])
    router.add_api_route("/page/{name}", file, methods=["GET", "HEAD"])
    return router
