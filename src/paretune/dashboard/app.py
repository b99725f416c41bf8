"""The dashboard's routes: pages of folders of studies, the news of what runs, and files. Read only.

Not here: who may look (`gate.py`), the process (`server.py`). Every page is a plain HTML answer to a GET; scripts add
figures, the slider and what is live.

    app = create_app([Path("results")], Rights(None, LOOPBACK_HOSTS), "en")
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from paretune.core.errors import ConfigError
from paretune.dashboard.files import BUNDLE
from paretune.dashboard.gate import Gate, Rights
from paretune.dashboard.pages import Pages
from paretune.dashboard.refusals import refusal_page, welcome_page

log = logging.getLogger(__name__)


def create_app(roots: Sequence[Path], rights: Rights, lang: str) -> FastAPI:
    """The application.

    Raises:
        RecordError: there is no such folder. ConfigError: an unknown language.
    """
    pages = Pages(roots, lang)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        threading.Thread(target=lambda: pages.files.url(BUNDLE), daemon=True).start()  # a second, before it is needed
        yield
        pages.bodies.close()

    def refuse(request: Request, status: int, reason: str) -> Response:
        return refusal_page(pages.desk.renderer, request, pages.lang, status, reason)

    def welcome(request: Request, path: str) -> Response:
        return welcome_page(pages.desk.renderer, request, pages.lang, path)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = {404: "missing", 405: "method", 409: str(error.detail)}
        return refuse(request, error.status_code, known.get(error.status_code, str(error.detail)))

    async def on_language(request: Request, error: Exception) -> Response:
        return refuse(request, 400, str(error))

    async def on_request(request: Request, _: Exception) -> Response:
        return refuse(request, 400, "query")

    async def on_error(request: Request, error: Exception) -> Response:
        log.error("%s: %s", request.url.path, error, exc_info=error)
        return refuse(request, 500, "error")

    app = FastAPI(
        title="paretune dashboard",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: on_http,
            ConfigError: on_language,
            RequestValidationError: on_request,
            Exception: on_error,
        },
    )
    routes: dict[str, Callable[..., Response]] = {
        "/": pages.studies,
        "/claims": pages.claims,
        "/study/{name}": pages.results,
        "/study/{name}/budget": pages.budget,
        "/study/{name}/settings": pages.settings,
        "/study/{name}/runs": pages.runs,
        "/study/{name}/compare": pages.compare,
        "/study/{name}/data": pages.data,
        "/study/{name}/examples": pages.examples,
        "/study/{name}/draws.json": pages.draws,
        "/study/{name}/live.json": pages.live,
        "/study/{name}/export.html": pages.export,
        "/files/{hashed}": pages.file,
    }
    for path, answer in routes.items():
        app.add_api_route(path, answer, methods=["GET", "HEAD"], response_class=Response, response_model=None)
    app.state.pages = pages
    app.add_middleware(Gate, rights=rights, refuse=refuse, welcome=welcome)
    return app
