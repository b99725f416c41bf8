"""The service's HTTP API over an engine, a scheduler and a registry. The whole of it, as clients see it:

    POST /v1/classify {"inputs": ["text" | {"text", "adapter"?}, …≤32], "adapter"?, "truncate"? = true, "receipt"?}
      → {"results": [{"adapter", "digest", "label", "abstain", "out_of_domain"?, "confidence",
         "probabilities": {label: p}, "truncated", "tokens", "receipt"?}], "request_id"}
    POST /v1/compare {"text"} → {"results": [as classify], "failed": [{"adapter", "digest", "error"}], "request_id"}
    POST /predict[?adapter=] {"inputs": "t" | ["t"] | [["t"], …], "raw_scores"?, "truncate"?} → [{"score", "label"}] or
      a list of such lists (text-embeddings-inference)
    GET /v1/models → {"data": [{"id", "root", "parent", "versions", "labels", "method", "study", "metric", "scores",
      "cost", "abstention", "domain"?, "examples", "max_tokens", "licences", "state"}]}
    GET /v1/adapters → {"adapters": [{"digest", "id", "state", "reason", "names", "resident"}], "aliases": […]}
    POST /v1/adapters {"id", "name"?} · DELETE /v1/adapters/NAME · PUT /v1/aliases/NAME {"weights"} | {"rollback": true}
    POST /v1/load_lora_adapter {"lora_name", "lora_path": id, "load_inplace"?} · /v1/unload_lora_adapter {"lora_name"}
    GET /livez · /readyz · /v1/status · /metrics · /docs · /openapi.json · / (the page)

Every error is {"error", "error_type", "request_id"}. With keys configured all but /livez, /readyz, the page and the
documents needs `Authorization: Bearer KEY`. Not here: the process (`server.py`). CORS is off: no other site's page may
read an answer.

    app = create_app(registry, scheduler, engine, ServiceSettings())
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from paretune.serve.answering import Answering
from paretune.serve.documents import documents_router
from paretune.serve.engine import Engine
from paretune.serve.gate import Gate, refuse, refuse_for_now
from paretune.serve.guard import check_all_guarded
from paretune.serve.health import BELIEVED_SECONDS, Health
from paretune.serve.keys import Keys
from paretune.serve.limits import BodyLimit, Shed
from paretune.serve.metrics import Metrics
from paretune.serve.page_routes import page_router
from paretune.serve.refusals import on_http, on_validation
from paretune.serve.registry import Registry
from paretune.serve.routes_admin import admin_router, models_router
from paretune.serve.routes_classify import TEXT_PATHS, classify_router
from paretune.serve.routes_health import metrics_router, probes_router, status_router
from paretune.serve.scheduler import Scheduler


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and rights. `hosts`: names under which the server may be called (None: any); without keys it should be
    the loopback's, so that no web page reaches the server by a name that it made point here."""

    keys: Keys | None = None
    hosts: frozenset[str] | None = None
    default_adapter: str | None = None
    max_body_bytes: int = 1_000_000
    body_seconds: float = 10.0
    answer_seconds: float = 45.0
    believed_seconds: float = BELIEVED_SECONDS


def create_app(registry: Registry, scheduler: Scheduler, engine: Engine, settings: ServiceSettings) -> FastAPI:
    """The application; `app.state.health` is where the server says that it drains.

    Raises:
        RuntimeError: a route that asks for no scope and is not on the list of open ones.
    """
    metrics = Metrics(engine, scheduler, registry)
    health = Health(registry, scheduler, engine, settings.believed_seconds)
    answering = Answering(
        registry,
        scheduler,
        engine,
        metrics,
        settings.default_adapter,
        settings.answer_seconds,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        answering.close()

    app = FastAPI(
        title="paretune",
        summary="Small adapters over one base model, classifying texts.",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={HTTPException: on_http, RequestValidationError: on_validation},
    )
    app.state.health = health
    keys = settings.keys
    routers = [
        classify_router(answering, registry, engine, keys),
        models_router(registry, engine, keys),
        admin_router(registry, engine, keys),
        status_router(health, scheduler, engine, metrics, keys),
        metrics_router(metrics, keys),
        probes_router(health, scheduler),
        documents_router(),
        page_router(),
    ]
    for router in routers:
        app.include_router(router)
    check_all_guarded(app)
    # The last that is added is the first that sees a request.
    app.add_middleware(Shed, paths=TEXT_PATHS, wait_seconds=answering.room_wait_seconds, refuse=refuse_for_now)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds, refuse=refuse)
    app.add_middleware(Gate, keys=keys, hosts=settings.hosts, done=metrics.done)
    return app
