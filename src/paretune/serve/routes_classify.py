"""Routes that answer texts: classify, compare, and text-embeddings-inference's predict.

Not here: how answers come about (`answering.py`). Headers of an answer: X-Adapter-Digest (distinct digests, commas),
X-Queue-Time (milliseconds, the longest of its texts), X-Compute-Tokens.

    app.include_router(classify_router(answering, registry, engine, keys))
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from paretune.serve.answering import Answered, Answering, Wanted
from paretune.serve.documents import answers_with
from paretune.serve.engine import Engine
from paretune.serve.guard import guarded
from paretune.serve.keys import Keys
from paretune.serve.names import ID_PATTERN
from paretune.serve.receipts import make_receipt, threads_of
from paretune.serve.refusals import Refused
from paretune.serve.registry import Registry
from paretune.serve.resident import Answer
from paretune.serve.shapes import (
    MAX_ITEMS,
    ClassifyAnswer,
    ClassifyRequest,
    CompareAnswer,
    CompareRequest,
    Failed,
    PredictAnswer,
    Prediction,
    PredictRequest,
    Result,
)
from paretune.serve.visit import visit_of

AdapterQuery = Annotated[str | None, Query(pattern=ID_PATTERN, max_length=64, description="a name or a digest")]

CLASSIFY, COMPARE, PREDICT = "/v1/classify", "/v1/compare", "/predict"
TEXT_PATHS = frozenset({CLASSIFY, COMPARE, PREDICT})


def classify_router(answering: Answering, registry: Registry, engine: Engine, keys: Keys | None) -> APIRouter:
    """All of them, with the scope "classify"."""
    router = guarded("classify", keys)

    async def classify(body: ClassifyRequest, request: Request, response: Response) -> ClassifyAnswer:
        """Classify up to 32 texts, each by any adapter."""
        visit = visit_of(request)
        wanted = [
            Wanted(item, answering.adapter_for(visit, body.adapter))
            if isinstance(item, str)
            else Wanted(item.text, answering.adapter_for(visit, item.adapter, body.adapter))
            for item in body.inputs
        ]
        answered = await answering.answers(request, wanted, body.truncate)
        results = [_result(one) for one in answered]
        if body.receipt:
            for place, (one, result) in enumerate(zip(answered, results, strict=True)):
                mark = await asyncio.to_thread(engine.fingerprint, threads_of(one.answer))
                receipt = make_receipt(one, visit.request_id, body.truncate, engine, mark, registry.seal_key)
                results[place] = result.model_copy(update={"receipt": receipt})
        _add_headers(response, answered)
        return ClassifyAnswer(results=results, request_id=visit.request_id)

    async def compare(body: CompareRequest, request: Request, response: Response) -> CompareAnswer:
        """One text through every adapter, side by side."""
        visit = visit_of(request)
        names = [name for name in registry.names_ready() if answering.may_use(visit.key, name)][:MAX_ITEMS]
        if not names:
            raise Refused(404, "not_found", "no adapter is loaded")
        answered = await answering.answers(request, [Wanted(body.text, name) for name in names], True)
        good = [one for one in answered if isinstance(one.outcome, Answer)]
        failed = [
            Failed(adapter=one.wanted.adapter, digest=one.bundle.digest, error="gave no answer")
            for one in answered
            if not isinstance(one.outcome, Answer)
        ]
        _add_headers(response, good)
        return CompareAnswer(results=[_result(one) for one in good], failed=failed, request_id=visit.request_id)

    async def predict(
        body: PredictRequest, request: Request, response: Response, adapter: AdapterQuery = None
    ) -> PredictAnswer:
        """text-embeddings-inference's call; the adapter is the server's default unless the query names one."""
        single, texts = body.texts()
        if not texts:
            raise Refused(400, "empty", "Batch is empty")
        if len(texts) > MAX_ITEMS:
            raise Refused(413, "validation", f"batch size {len(texts)} > maximum allowed batch size {MAX_ITEMS}")
        name = answering.adapter_for(visit_of(request), adapter)
        answered = await answering.answers(request, [Wanted(text, name) for text in texts], body.truncate, 413)
        if not all(isinstance(one.outcome, Answer) for one in answered):
            raise Refused(424, "backend", "Inference failed")
        _add_headers(response, answered)
        found = [_predictions(one, body.raw_scores) for one in answered]
        return found[0] if single else found

    router.add_api_route(
        CLASSIFY,
        classify,
        methods=["POST"],
        responses=answers_with(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503),
        response_model_exclude_none=True,
        tags=["answers"],
    )
    router.add_api_route(
        COMPARE,
        compare,
        methods=["POST"],
        responses=answers_with(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503),
        response_model_exclude_none=True,
        tags=["answers"],
    )
    router.add_api_route(
        PREDICT,
        predict,
        methods=["POST"],
        responses=answers_with(400, 401, 403, 404, 408, 413, 415, 422, 424, 429, 500, 503),
        tags=["answers"],
    )
    return router


def _result(one: Answered) -> Result:
    answer, manifest = one.answer, one.bundle.manifest
    return Result(
        adapter=one.wanted.adapter,
        digest=one.bundle.digest,
        label=answer.label(manifest.labels),
        abstain=answer.abstain,
        out_of_domain=answer.out_of_domain,
        confidence=answer.confidence,
        probabilities=dict(zip(manifest.labels, answer.probabilities, strict=True)),
        truncated=one.tokens.truncated,
        tokens=len(one.tokens.input_ids),
    )


def _predictions(one: Answered, raw: bool) -> list[Prediction]:
    scores = one.answer.logits if raw else one.answer.probabilities
    pairs = zip(scores, one.bundle.manifest.labels, strict=True)
    return [Prediction(score=score, label=label) for score, label in sorted(pairs, key=lambda pair: -pair[0])]


def _add_headers(response: Response, answered: Sequence[Answered]) -> None:
    digests = dict.fromkeys(one.bundle.digest for one in answered)
    queued = max((one.answer.queue_seconds for one in answered), default=0.0)
    response.headers["X-Adapter-Digest"] = ",".join(digests)
    response.headers["X-Queue-Time"] = str(round(1000 * queued))
    response.headers["X-Compute-Tokens"] = str(sum(len(one.tokens.input_ids) for one in answered))
