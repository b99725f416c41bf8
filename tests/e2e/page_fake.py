"""A service for the page's tests: the real page and the real shapes, answers made from the text, faults on demand.

Not here: any model, and the real API (`paretune.serve.api` has tests of its own). Every answer passes through the
models of `serve/shapes*.py`, so a change of the API's shapes breaks this file and not a reader's page.

    uvicorn.run(fake_app(Wishes()), port=8000)
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from paretune.records.bundle import Abstention, RiskPoint, Score
from paretune.serve import shapes, shapes_admin
from paretune.serve.page_routes import page_router

EMOTIONS = ["joy", "gratitude", "anger", "sadness", "fear", "surprise", "disgust", "confusion", "neutral", "love"]
LABELS = {
    "acceptability": ["acceptable", "unacceptable"],
    "emotions": EMOTIONS,
    "reviews": ["доставка", "качество", "цена", "другое"],
}
THRESHOLDS = {"acceptability": 0.82, "emotions": 0.55, "reviews": 0.6}


@dataclass
class Wishes:
    """What a test wants of the service; read at every request, so it can change while the page is open."""

    adapters: list[str] = field(default_factory=lambda: list(LABELS))
    key: str | None = None
    down: bool = False
    overloads: int = 0
    retry_after: str = "1"
    fails_on: str | None = None
    slow_seconds: float = 0.0
    batches: list[int] = field(default_factory=list[int])
    rows: int = 0


def digest_of(name: str) -> str:
    """A digest that is the same each time."""
    return hashlib.sha256(name.encode()).hexdigest()


def fake_model(name: str) -> shapes_admin.Model:
    """An adapter's entry with everything that a card shows."""
    classes = len(LABELS[name])
    curve = [RiskPoint(threshold=1 - k / 20, coverage=k / 20, risk=0.21 * (k / 20) ** 2.2) for k in range(1, 21)]
    score = Score(metric="macro_f1", split="test", mean=0.913 - 0.02 * classes, low=0.9 - 0.02 * classes,
                  high=0.926 - 0.02 * classes, seeds=5, this_model=0.917 - 0.02 * classes)  # fmt: skip
    return shapes_admin.Model(
        id=name,
        root=digest_of(name),
        parent=digest_of("base"),
        versions={digest_of(name): 1} if classes != 2 else {digest_of(name): 9, digest_of(name + "2"): 1},
        labels=LABELS[name],
        method="lora-r8" if classes != 4 else "bitfit",
        study=f"{name}-study",
        metric=score,
        scores=[score],
        cost={
            "train_seconds": 312.0,
            "peak_memory_bytes": 1_930_000_000.0,
            "adapter_bytes": 1_342_177.0,
            "base_bytes": 90_900_000.0,
            "latency_p50_seconds": 0.0124,
            "latency_p95_seconds": 0.0171,
        },
        abstention=Abstention(
            temperature=1.3,
            threshold=THRESHOLDS[name],
            target_risk=0.1,
            reachable=classes != 10,
            validation_rows=1 if classes == 2 else 1_204,
            test_coverage=0.7,
            test_risk=0.096,
            curve=curve,
        ),
        examples=["Well, that happened.", *(f"{name} example {place}" for place in range(1, 4))],
        max_tokens=256,
        licences=["MIT", "CC BY 4.0"],
        state="ready",
    )


def fake_result(name: str, text: str) -> shapes.Result:
    """Probabilities from the text's hash; "допустим" and "happened" leave every adapter unsure."""
    labels = LABELS[name]
    unsure = "допустим" in text or "happened" in text
    bits = hashlib.sha256((name + text).encode()).digest()
    raw = [1 + byte / 256 for byte in bits[: len(labels)]]
    raw[bits[-1] % len(labels)] *= 1.3 if unsure else 60
    shares = [one / sum(raw) for one in raw]
    best = max(range(len(labels)), key=shares.__getitem__)
    return shapes.Result(
        adapter=name,
        digest=digest_of(name),
        label=labels[best],
        abstain=shares[best] < THRESHOLDS[name],
        confidence=shares[best],
        probabilities=dict(zip(labels, shares, strict=True)),
        truncated=len(text) > 1000,
        tokens=min(256, 2 + len(text.split())),
    )


def _error(status: int, error_type: shapes.ErrorType, error: str, headers: dict[str, str] | None = None) -> Response:
    body = shapes.ErrorAnswer(error=error, error_type=error_type, request_id="fake-1")
    return JSONResponse(body.model_dump(), status, headers)


def fake_app(wishes: Wishes) -> FastAPI:
    """The page and the calls that it makes."""
    app = FastAPI(openapi_url=None)
    app.include_router(page_router())
    began = time.monotonic()

    @app.middleware("http")
    async def faults(request: Request, call_next: Any) -> Response:
        if request.url.path.startswith("/v1/"):
            if wishes.down:
                return _error(503, "draining", "the service is stopping")
            if wishes.key and request.headers.get("authorization") != f"Bearer {wishes.key}":
                return _error(401, "auth", "a key is needed")
        return await call_next(request)

    @app.get("/v1/models")
    def models() -> shapes_admin.Models:
        return shapes_admin.Models(data=[fake_model(name) for name in wishes.adapters])

    @app.get("/v1/adapters")
    def adapters() -> shapes_admin.Adapters:
        failed = shapes_admin.Adapter(
            digest=None,
            id="toxicity",
            state="failed",
            reason="its base model is another one",
            names=[],
            resident=False,
        )
        return shapes_admin.Adapters(adapters=[failed], aliases=[])

    @app.post("/v1/classify", response_model=None)
    def classify(asked: shapes.ClassifyRequest) -> shapes.ClassifyAnswer | Response:
        texts = [one if isinstance(one, str) else one.text for one in asked.inputs]
        if wishes.overloads > 0:
            wishes.overloads -= 1
            return _error(429, "overloaded", "the queue is full", {"Retry-After": wishes.retry_after})
        if wishes.fails_on is not None and any(wishes.fails_on in text for text in texts):
            return _error(422, "validation", "inputs: this text is not wanted")
        if asked.adapter not in wishes.adapters:
            return _error(404, "not_found", "no such adapter")
        time.sleep(wishes.slow_seconds)
        wishes.batches.append(len(texts))
        wishes.rows += len(texts)
        return shapes.ClassifyAnswer(results=[fake_result(asked.adapter, text) for text in texts], request_id="fake-1")

    @app.post("/v1/compare")
    def compare(asked: shapes.CompareRequest) -> shapes.CompareAnswer:
        wishes.rows += len(wishes.adapters)
        results = [fake_result(name, asked.text) for name in wishes.adapters]
        failed = [shapes.Failed(adapter="old", digest=digest_of("old"), error="it gave a number that is none")]
        return shapes.CompareAnswer(results=results, failed=failed if "NaN" in asked.text else [], request_id="fake-1")

    @app.get("/v1/status")
    def status() -> shapes_admin.Status:
        return shapes_admin.Status(
            ready=bool(wishes.adapters),
            reason="" if wishes.adapters else "no adapter is loaded",
            draining=False,
            precision="bf16",
            base=digest_of("base"),
            uptime_seconds=time.monotonic() - began + 4000,
            queue=shapes_admin.Queue(requests=12, max_requests=256, tokens=3_400, max_tokens=16_384),
            load=shapes_admin.Load(
                tokens_per_second=2_841.0, rows_total=wishes.rows, batches_total=len(wishes.batches), refused_total=3
            ),
            memory=shapes_admin.Memory(rss_bytes=612_000_000, limit_bytes=1_073_741_824),
            slots=shapes_admin.Slots(
                max=16, resident=[digest_of(name) for name in wishes.adapters], swaps=4, merged=None
            ),
        )

    return app
