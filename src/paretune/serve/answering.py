"""From texts with names of adapters to answers: who answers, how many tokens, room in the queue, the wait.

Not here: the shape of HTTP bodies (`routes_classify.py`), the queue (`scheduler.py`). A request is refused as early as
can be: by name, by tokens, by quota, by the queue's bounds. While it waits its adapters are leased; a client that goes
away takes its texts out of the queue.

    answered = await answering.answers(request, [Wanted("a text", "emotions")], truncate=True)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import Request

from paretune.core.errors import DataError, ParetuneError, UnknownNameError
from paretune.models.tokenizer import Tokens
from paretune.serve.bundle import Bundle
from paretune.serve.engine import Engine, Outcome, Row
from paretune.serve.gate import ClientGoneError
from paretune.serve.keys import ApiKey
from paretune.serve.limits import TokenBucket
from paretune.serve.metrics import Metrics
from paretune.serve.names import is_digest
from paretune.serve.reading import CHARACTERS_PER_TOKEN, Read
from paretune.serve.refusals import Refused
from paretune.serve.registry import NoAdapterError, Registry
from paretune.serve.resident import Answer
from paretune.serve.scheduler import Draining, EngineDied, Overloaded, Scheduler
from paretune.serve.visit import Visit, visit_of

MAX_UNDER_WAY = 512  # requests between their admission here and their answer, tokenizing ones included
DRAINING_RETRY_SECONDS = 5.0
LEARNT = 0.1  # weight of the latest request in a moving mean


@dataclass(frozen=True)
class Wanted:
    """A text, and the name or digest that shall answer it."""

    text: str
    adapter: str


@dataclass(frozen=True)
class Answered:
    """A text with all that belongs to its answer."""

    wanted: Wanted
    bundle: Bundle
    tokens: Tokens
    outcome: Outcome

    @property
    def answer(self) -> Answer:
        """The answer; where there is none the whole request is refused."""
        if isinstance(self.outcome, Answer):
            return self.outcome
        raise Refused(500, "backend", "an adapter gave no answer to one of the texts")


class Answering:
    """The way of a request to its answers."""

    def __init__(
        self,
        registry: Registry,
        scheduler: Scheduler,
        engine: Engine,
        metrics: Metrics,
        default_adapter: str | None,
        seconds: float,
    ) -> None:
        self._registry, self._scheduler, self._engine, self._metrics = registry, scheduler, engine, metrics
        self._default = default_adapter
        self._seconds = seconds
        self._tokens_per_request = self._tokens_per_byte = 0.0  # of late; 0 before the first request
        self._pool = ThreadPoolExecutor(1, "tokenizer")
        self._buckets: dict[str, TokenBucket] = {}
        self._under_way = 0

    def adapter_for(self, visit: Visit, *names: str | None) -> str:
        """The first name that is given, or the server's default.

        Raises:
            Refused: 422 where none is given and there is no default, 404 where this key may not use it.
        """
        name = next((one for one in names if one is not None), None) or self._default_name()
        if not self.may_use(visit.key, name):
            raise no_adapter()
        return name

    def _default_name(self) -> str:
        if self._default is not None:
            return self._default
        there = self._registry.aliases.names()
        if len(there) != 1:
            raise Refused(422, "validation", "adapter: give the name of one, see /v1/models")
        return there[0]

    def may_use(self, key: ApiKey | None, name: str) -> bool:
        """Whether a key may use a name, or the digest behind one of its names."""
        if key is None or key.adapters is None:
            return True
        return any(key.may_use(one) for one in (self._registry.aliases.names_of(name) if is_digest(name) else [name]))

    async def answers(
        self, request: Request, wanted: Sequence[Wanted], truncate: bool, too_long: int = 422
    ) -> list[Answered]:
        """One outcome for each, in their order.

        Raises:
            Refused: 404 no such adapter, 422 (`too_long`) too many tokens, 429 quota or queue, 503 not working.
            ClientGoneError: nobody waits for it any more.
        """
        visit = visit_of(request)
        visit.items = len(wanted)
        if self._under_way >= MAX_UNDER_WAY:
            raise Refused(429, "overloaded", "the server is overloaded", 1.0)
        self._under_way += 1
        try:
            with self._registry.lease([(one.adapter, one.text) for one in wanted]) as bundles:
                read = await asyncio.get_running_loop().run_in_executor(self._pool, self._read, bundles, wanted)
                _check_length(bundles, read, truncate, too_long)
                tokens = [one.tokens for one in read]
                visit.tokens = sum(len(one.input_ids) for one in tokens)
                self._learn(visit, sum(one.length for one in tokens))
                self._pay(visit, sum(cost_of(one.text, its) for one, its in zip(wanted, tokens, strict=True)))
                rows = [Row(bundle.digest, one.input_ids) for bundle, one in zip(bundles, tokens, strict=True)]
                outcomes = await self._waited(request, self._submitted(rows))
        except NoAdapterError:
            raise no_adapter() from None
        finally:
            self._under_way -= 1
        found = [Answered(*one) for one in zip(wanted, bundles, tokens, outcomes, strict=True)]
        self._count(found)
        return found

    def room_wait_seconds(self, body_bytes: int) -> float | None:
        """None where the queue may have room for a request of so many bytes, else how long it will be full.

        An overload makes it dear to read and tokenize what the queue would then refuse. A request is taken for a usual
        one, or for less where its body is smaller.
        """
        stats = self._scheduler.stats()
        expected = min(self._tokens_per_request, self._tokens_per_byte * body_bytes)
        if stats.queued_tokens + expected <= self._scheduler.max_tokens:
            return None
        return stats.queued_tokens / max(stats.tokens_per_second, 1.0)

    def _learn(self, visit: Visit, uncut_tokens: int) -> None:
        if visit.body_bytes:
            weight = LEARNT if self._tokens_per_request else 1.0
            self._tokens_per_request += weight * (visit.tokens - self._tokens_per_request)
            self._tokens_per_byte += weight * (uncut_tokens / visit.body_bytes - self._tokens_per_byte)

    def _read(self, bundles: Sequence[Bundle], wanted: Sequence[Wanted]) -> list[Read]:
        """Tokens of each text; one that several adapters read alike is tokenized once."""
        places: dict[tuple[int, object], list[int]] = {}
        for place, bundle in enumerate(bundles):
            alike = (bundle.manifest.max_tokens, bundle.manifest.model.get("text_prefix"))
            places.setdefault(alike, []).append(place)
        found: dict[int, Read] = {}
        try:
            for own in places.values():
                texts = list(dict.fromkeys(wanted[place].text for place in own))
                read = dict(zip(texts, self._engine.read(bundles[own[0]].digest, texts), strict=True))
                found.update((place, read[wanted[place].text]) for place in own)
        except DataError:
            raise Refused(422, "tokenizer", "a text is not valid Unicode") from None
        return [found[place] for place in range(len(wanted))]

    def _pay(self, visit: Visit, cost: int) -> None:
        if visit.key is None or visit.key.tokens_per_minute is None:
            return
        bucket = self._buckets.setdefault(visit.key.name, TokenBucket(visit.key.tokens_per_minute))
        if wait := bucket.take(cost):
            raise Refused(429, "overloaded", "this key's tokens of a minute are used up", wait)

    def _submitted(self, rows: Sequence[Row]) -> Future[list[Outcome]]:
        try:
            return self._scheduler.submit(rows)
        except Overloaded as error:
            raise Refused(429, "overloaded", "the queue is full", error.retry_after_seconds) from None
        except EngineDied:
            raise Refused(503, "backend", "the engine has stopped", DRAINING_RETRY_SECONDS) from None
        except Draining:
            raise Refused(503, "draining", "the server is stopping", DRAINING_RETRY_SECONDS) from None
        except UnknownNameError:
            raise no_adapter() from None

    async def _waited(self, request: Request, future: Future[list[Outcome]]) -> list[Outcome]:
        waiting = asyncio.wrap_future(future)
        gone = asyncio.create_task(_gone(request))
        try:
            done, _ = await asyncio.wait({waiting, gone}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if waiting in done:
                return waiting.result()
            if gone in done:
                raise ClientGoneError
            raise Refused(503, "backend", "no answer in time", DRAINING_RETRY_SECONDS)
        except Draining:
            raise Refused(503, "draining", "the server is stopping", DRAINING_RETRY_SECONDS) from None
        except TimeoutError:
            raise Refused(503, "backend", "no answer in time", DRAINING_RETRY_SECONDS) from None
        except ParetuneError:
            raise Refused(500, "backend", "the texts could not be answered") from None
        finally:
            gone.cancel()
            waiting.cancel()  # takes rows that still wait out of the queue

    def _count(self, found: Sequence[Answered]) -> None:
        for one in found:
            if isinstance(one.outcome, Answer):
                tokens = len(one.tokens.input_ids)
                self._metrics.answered(one.bundle.digest, tokens, one.outcome.abstain, one.outcome.queue_seconds)
            else:
                self._metrics.failed(one.bundle.digest)

    def close(self) -> None:
        """Stop the tokenizer's thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def no_adapter() -> Refused:
    """One answer for a name that is unknown, not ready, or not this key's: a key learns no other key's names."""
    return Refused(404, "not_found", "no such adapter")


def cost_of(text: str, tokens: Tokens) -> int:
    """What a text costs of a quota: the tokens that were read of it, those cut off too, and at least one for every 16
    characters that were sent."""
    return max(tokens.length, -(-len(text) // CHARACTERS_PER_TOKEN))


def _check_length(bundles: Sequence[Bundle], read: Sequence[Read], truncate: bool, status: int) -> None:
    if truncate:
        return
    for place, (bundle, one) in enumerate(zip(bundles, read, strict=True)):
        if one.tokens.truncated:
            count = f"{'' if one.whole else 'more than '}{one.tokens.length} tokens"
            most = bundle.manifest.max_tokens
            raise Refused(status, "validation", f"inputs.{place} has {count}, its adapter takes {most}")


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
