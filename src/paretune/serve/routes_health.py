"""Routes that say how the server is: live, ready, its load, its metrics.

Not here: what ready means (`health.py`). /livez and /readyz are open, since what asks them (an orchestrator, a load
balancer) often has no key; they name no adapter. /v1/status needs "classify", /metrics needs "metrics".

    app.include_router(probes_router(health, scheduler))
"""

from __future__ import annotations

import os
import time

import psutil
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from paretune.core.limits import memory_limit_bytes
from paretune.serve.documents import SECONDS, errors_with
from paretune.serve.engine import Engine
from paretune.serve.guard import guarded, open_router
from paretune.serve.health import Health
from paretune.serve.keys import Keys
from paretune.serve.metrics import Metrics
from paretune.serve.scheduler import Scheduler, Stats
from paretune.serve.shapes_admin import Live, Load, Memory, Queue, Ready, Slots, Status

NOT_READY_RETRY_SECONDS = 5


def _queue(scheduler: Scheduler, stats: Stats) -> Queue:
    return Queue(
        requests=stats.queued_requests,
        max_requests=scheduler.max_requests,
        tokens=stats.queued_tokens,
        max_tokens=scheduler.max_tokens,
    )


def probes_router(health: Health, scheduler: Scheduler) -> APIRouter:
    """`/livez` and `/readyz`."""
    router = open_router()

    async def livez() -> Live:
        """The process answers."""
        return Live()

    async def readyz(response: Response) -> Ready:
        """A golden text got its golden answer within the last 30 seconds; 503 where not."""
        trouble = await health.trouble()
        response.status_code = 503 if trouble else 200
        if trouble:
            response.headers["Retry-After"] = str(NOT_READY_RETRY_SECONDS)
        return Ready(ready=not trouble, reason=trouble, queue=_queue(scheduler, scheduler.stats()))

    router.add_api_route("/livez", livez, methods=["GET"], tags=["health"], responses=errors_with(408, 413, 415, 500))
    not_ready = {503: {"model": Ready, "description": "Not ready; the reason is in the body", "headers": SECONDS}}
    router.add_api_route(
        "/readyz", readyz, methods=["GET"], tags=["health"], responses={**errors_with(408, 413, 415, 500), **not_ready}
    )
    return router


def status_router(
    health: Health, scheduler: Scheduler, engine: Engine, metrics: Metrics, keys: Keys | None
) -> APIRouter:
    """`/v1/status`, with the scope "classify"."""
    router = guarded("classify", keys)
    began = time.monotonic()
    process = psutil.Process(os.getpid())

    async def status() -> Status:
        """Health and load, for the page."""
        trouble = await health.trouble()
        stats = scheduler.stats()
        return Status(
            ready=not trouble,
            reason=trouble,
            draining=health.draining,
            precision=engine.precision,
            base=engine.base_digest,
            uptime_seconds=round(time.monotonic() - began, 1),
            queue=_queue(scheduler, stats),
            load=Load(
                tokens_per_second=stats.tokens_per_second,
                rows_total=stats.rows,
                batches_total=stats.batches,
                refused_total=metrics.refused_total,
            ),
            memory=Memory(rss_bytes=process.memory_info().rss, limit_bytes=memory_limit_bytes()),
            slots=Slots(
                max=engine.max_slots,
                resident=engine.resident(),
                swaps=engine.swaps,
                merged=stats.merged_digest,
            ),
        )

    router.add_api_route(
        "/v1/status",
        status,
        methods=["GET"],
        tags=["health"],
        responses=errors_with(401, 403, 408, 413, 415, 422, 500),
    )
    return router


def metrics_router(metrics: Metrics, keys: Keys | None) -> APIRouter:
    """`/metrics`, with the scope "metrics"."""
    router = guarded("metrics", keys)

    async def exposition() -> Response:
        """Prometheus' text format."""
        return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    router.add_api_route(
        "/metrics",
        exposition,
        methods=["GET"],
        tags=["health"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **errors_with(401, 403, 408, 413, 415, 422, 500),
        },
    )
    return router
