"""Brings requests of many threads to the one engine thread, and bounds what may wait.

The engine takes work whenever it is free: no timer, no waiting for a fuller batch (as text-embeddings-inference does,
https://github.com/huggingface/text-embeddings-inference). Not here: which row comes next (`fair.py`), HTTP.

    scheduler = Scheduler(engine); scheduler.submit([Row("9f86…", (101, 102))]).result()
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from typing import Protocol

from paretune.core.errors import ParetuneError, RunError, UnknownNameError, said
from paretune.serve.engine import Outcome, Row
from paretune.serve.fair import FairQueue
from paretune.serve.resident import Answer

QUANTUM_TOKENS = 512  # one text of the usual longest length, so that no visit to an adapter is for nothing
FIRST_RETRY_SECONDS = 1.0  # before any batch was measured
SMOOTHING = 0.2
_LOG = logging.getLogger(__name__)


class Overloaded(ParetuneError):
    """Too much is waiting already; `retry_after_seconds` is how long it will take."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(said("the queue is full", "fewer texts at once", do=f"retry in {retry_after_seconds:.1f} s"))
        self.retry_after_seconds = retry_after_seconds


class Draining(ParetuneError):
    """No more work is taken: the service is stopping."""


class EngineDied(Draining):
    """No more work is taken: the engine's thread is dead."""


class Runs(Protocol):
    """What the scheduler needs of an engine."""

    max_slots: int

    @property
    def merged_digest(self) -> str | None: ...

    def run(self, rows: Sequence[Row]) -> list[Outcome]: ...

    def evict(self, digest: str) -> None: ...


@dataclass(frozen=True)
class Stats:
    """How busy it is. Queued are requests and tokens that are not answered yet, those of the running batch included."""

    queued_requests: int
    queued_tokens: int
    tokens_per_second: float
    batches: int
    rows: int
    merged_digest: str | None
    last_batch_adapters: int


@dataclass(eq=False)
class _Request:
    future: Future[list[Outcome]]
    rows: Sequence[Row]
    outcomes: list[Outcome | None]
    submitted: float
    left: int
    tokens: int


@dataclass(frozen=True)
class _Item:
    request: _Request
    place: int

    @property
    def row(self) -> Row:
        return self.request.rows[self.place]


class Scheduler:
    """One engine thread; every method may be called from any other thread."""

    def __init__(
        self,
        engine: Runs,
        max_requests: int = 256,
        max_tokens: int = 16384,
        batch_tokens: int = 4096,
        engine_timeout_s: float = 30.0,
    ) -> None:
        self._engine = engine
        self.max_requests, self.max_tokens, self._batch_tokens = max_requests, max_tokens, batch_tokens
        self._timeout = engine_timeout_s
        self._changed = threading.Condition()
        self._queue: FairQueue[_Item] = FairQueue(QUANTUM_TOKENS)
        self._open: set[_Request] = set()  # accepted and not answered
        self._open_rows: Counter[str] = Counter()
        self._open_tokens = 0
        self._retiring: set[str] = set()
        self._draining = self._stopping = False
        self._died: BaseException | None = None
        self._batch_began: float | None = None
        self._rate = 0.0
        self._batches = self._rows = self._last_adapters = 0
        self._thread = threading.Thread(target=self._main, name="paretune-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """The engine's thread lives, and its batch has not run for longer than the timeout."""
        began = self._batch_began
        stuck = began is not None and time.monotonic() - began > self._timeout
        return self._thread.is_alive() and self._died is None and not stuck

    def submit(self, rows: Sequence[Row]) -> Future[list[Outcome]]:
        """Queue rows; the future gives one answer or exception for each, in their order. Cancelling it drops them.

        Raises:
            Overloaded: too many requests or tokens are waiting.
            Draining, EngineDied: nothing more is taken.
            UnknownNameError: an adapter is being unloaded.
        """
        tokens = sum(len(row.input_ids) for row in rows)
        future: Future[list[Outcome]] = Future()
        if not rows:
            future.set_result([])
            return future
        with self._changed:
            self._admit(rows, tokens)
            request = _Request(future, tuple(rows), [None] * len(rows), time.monotonic(), len(rows), tokens)
            self._open.add(request)
            self._open_tokens += tokens
            for place, row in enumerate(rows):
                self._open_rows[row.digest] += 1
                self._queue.put(row.digest, max(1, len(row.input_ids)), _Item(request, place))
            self._changed.notify_all()
        return future

    def _admit(self, rows: Sequence[Row], tokens: int) -> None:
        if self._died is not None or not self._thread.is_alive():
            raise EngineDied(said("the engine's thread is dead", "a living one", do="restart the service"))
        if self._draining:
            raise Draining(said("the service is stopping", "requests before that"))
        retiring = next((row.digest for row in rows if row.digest in self._retiring), None)
        if retiring is not None:
            raise UnknownNameError(said(f"adapter {retiring[:12]}… is being unloaded", "a loaded adapter"))
        if self._full(tokens):
            self._drop_cancelled()
        if self._full(tokens):
            wait = self._open_tokens / self._rate if self._rate else FIRST_RETRY_SECONDS
            raise Overloaded(max(wait, 0.05))

    def _full(self, tokens: int) -> bool:
        return len(self._open) >= self.max_requests or self._open_tokens + tokens > self.max_tokens

    def _drop_cancelled(self) -> None:
        cancelled = [one for one in self._open if one.future.cancelled()]
        for request in cancelled:
            self._close(request)
        if cancelled:
            self._queue.purge(self._alive)

    def _alive(self, item: _Item) -> bool:
        return item.request in self._open and not item.request.future.cancelled()

    def _close(self, request: _Request) -> None:
        """No longer open; its rows that are still in the queue are dropped when their turn comes."""
        if request in self._open:
            self._open.remove(request)
            self._open_tokens -= request.tokens
            self._open_rows -= Counter(row.digest for row in request.rows)
            self._changed.notify_all()

    def stats(self) -> Stats:
        """Counts and rates now."""
        with self._changed:
            self._drop_cancelled()
            return Stats(
                queued_requests=len(self._open),
                queued_tokens=self._open_tokens,
                tokens_per_second=self._rate,
                batches=self._batches,
                rows=self._rows,
                merged_digest=self._engine.merged_digest,
                last_batch_adapters=self._last_adapters,
            )

    def retire(self, digest: str) -> None:
        """Refuse new rows of an adapter, let those under way finish (at most for the timeout), and evict it."""
        with self._changed:
            self._retiring.add(digest)
            try:
                self._changed.wait_for(lambda: not self._open_rows[digest] or not self.alive, self._timeout)
            finally:
                self._retiring.discard(digest)
        self._engine.evict(digest)

    def drain(self, seconds: float) -> bool:
        """Take nothing more, answer what was accepted, stop; False where that was not done in time."""
        with self._changed:
            self._draining = True
            emptied = self._changed.wait_for(lambda: not self._open or self._died is not None, seconds)
        self.close()
        return emptied and self._died is None

    def close(self) -> None:
        """Stop after the running batch; what still waits is refused."""
        with self._changed:
            self._draining = self._stopping = True
            self._changed.notify_all()
        self._thread.join(self._timeout)
        self._refuse(list(self._open), Draining(said("the service has stopped", "requests before that")))

    def _refuse(self, requests: Sequence[_Request], error: BaseException) -> None:
        for request in requests:
            with self._changed:
                self._close(request)
            _settle(request.future, error)

    def _main(self) -> None:
        try:
            while batch := self._next_batch():
                self._work(batch)
        except BaseException as error:  # whatever it was: seen by `alive`, and nobody waits for an answer for ever
            with self._changed:
                self._died = error
            _LOG.critical("the engine's thread died", exc_info=error)
            self._refuse(list(self._open), EngineDied(f"the engine's thread died ({type(error).__name__})"))

    def _next_batch(self) -> list[_Item]:
        """The next rows, waited for; empty when it is time to stop."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or len(self._queue))
                if self._stopping:
                    return []
                self._drop_cancelled()
                late = [one for one in self._open if time.monotonic() - one.submitted > self._timeout]
                for request in late:
                    self._close(request)
                batch = self._queue.take(self._batch_tokens, self._engine.max_slots, self._alive)
                self._batch_began = time.monotonic() if batch else None
            for request in late:
                _settle(request.future, TimeoutError(f"waited longer than {self._timeout:g} s"))
            if batch:
                return batch

    def _work(self, batch: Sequence[_Item]) -> None:
        began = time.monotonic()
        outcomes = self._outcomes([item.row for item in batch])
        seconds = time.monotonic() - began
        finished: list[_Request] = []
        with self._changed:
            self._batch_began = None
            rate = sum(len(item.row.input_ids) for item in batch) / max(seconds, 1e-6)
            self._rate = rate if not self._rate else (1 - SMOOTHING) * self._rate + SMOOTHING * rate
            self._batches += 1
            self._rows += len(batch)
            self._last_adapters = len({item.row.digest for item in batch})
            for item, outcome in zip(batch, outcomes, strict=True):
                request = item.request
                waited = began - request.submitted
                if isinstance(outcome, Answer):
                    outcome = replace(outcome, queue_seconds=waited)
                request.outcomes[item.place] = outcome
                request.left -= 1
                if not request.left:
                    finished.append(request)
                    self._close(request)
        for request in finished:
            _settle(request.future, [one for one in request.outcomes if one is not None])

    def _outcomes(self, rows: Sequence[Row]) -> list[Outcome]:
        """Answers of a batch; where the engine itself raises, of each row alone."""
        try:
            return self._engine.run(rows)
        except Exception as error:
            _LOG.exception("a batch of %d rows failed", len(rows))
            if len(rows) == 1:
                return [error if isinstance(error, ParetuneError) else RunError(f"the engine failed: {error}")]
            return [outcome for row in rows for outcome in self._outcomes([row])]


def _settle(future: Future[list[Outcome]], outcome: list[Outcome] | BaseException) -> None:
    """Give a result or an exception to a future that nobody cancelled or settled meanwhile."""
    with contextlib.suppress(InvalidStateError):
        if not future.done() and future.set_running_or_notify_cancel():
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
