"""The scheduler: fairness, bounds, faults and stopping. Numbers are those of the serving test list."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundles import TEXTS, engine_for, probabilities, rows_of, toy_bundle

from paretune.core.errors import RunError, UnknownNameError
from paretune.serve import scheduler as scheduler_module
from paretune.serve.engine import Outcome, Row
from paretune.serve.fair import FairQueue
from paretune.serve.resident import Answer
from paretune.serve.scheduler import Draining, EngineDied, Overloaded, Scheduler

SOON = 20.0  # seconds; longer than anything here takes, so that a hang becomes a failure


class FakeEngine:
    """Answers with the row's first id, one batch at a time, each when the test lets it; keeps what it was given."""

    def __init__(self, max_slots: int = 4, fault: Callable[[Sequence[Row]], None] = lambda rows: None) -> None:
        self.max_slots = max_slots
        self.merged_digest: str | None = None
        self.batches: list[list[Row]] = []
        self.evicted: list[str] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self._fault = fault

    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        self.batches.append(list(rows))
        self.started.release()
        assert self.gate.acquire(timeout=SOON)
        self._fault(rows)
        return [Answer(row.digest, (float(row.input_ids[0]),), 1.0, False) for row in rows]

    def evict(self, digest: str) -> None:
        self.evicted.append(digest)

    def let(self, batches: int = 10_000) -> None:
        self.gate.release(batches)

    def wait_for_batch(self) -> None:
        assert self.started.acquire(timeout=SOON)


@contextmanager
def scheduling(engine: FakeEngine, **bounds: float) -> Generator[Scheduler]:
    scheduler = Scheduler(engine, **bounds)
    try:
        yield scheduler
    finally:
        engine.let()
        scheduler.close()


def row(digest: str, first: int = 1, tokens: int = 4) -> Row:
    return Row(digest, (first, *range(tokens - 1)))


def test_a_request_gets_its_answers_in_order_with_the_time_it_waited() -> None:
    """Rows of several adapters come back in the request's own order; a lone request is not kept waiting for more."""
    engine = FakeEngine()
    engine.let()
    with scheduling(engine) as scheduler:
        rows = [row("a", 7), row("b", 8), row("a", 9)]
        outcomes = scheduler.submit(rows).result(SOON)
        assert [(one.digest, one.probabilities) for one in outcomes] == [("a", (7.0,)), ("b", (8.0,)), ("a", (9.0,))]
        assert all(one.queue_seconds >= 0 for one in outcomes)
        assert scheduler.submit([]).result(SOON) == []
        stats = scheduler.stats()
        assert (stats.batches, stats.rows, stats.last_batch_adapters, stats.queued_requests) == (1, 3, 2, 0)
        assert stats.tokens_per_second > 0


def test_an_adapter_is_not_starved_by_a_busier_one_with_one_slot() -> None:
    """15: A, B, A, A, … with one slot: B is in the second batch after it came, though A fills every batch."""
    engine = FakeEngine(max_slots=1)
    with scheduling(engine, batch_tokens=8, max_requests=1000) as scheduler:
        for _ in range(10):
            scheduler.submit([row("a")])
        engine.wait_for_batch()
        last = scheduler.submit([row("b", 5)])
        for _ in range(50):
            scheduler.submit([row("a")])
        engine.let(3)
        assert last.result(SOON)[0].probabilities == (5.0,)
        came = next(place for place, batch in enumerate(engine.batches) if batch[0].digest == "b")
        assert came <= 2  # batch 0 ran already, and A stood in the queue before B
        assert all(len({one.digest for one in batch}) == 1 for batch in engine.batches)


@settings(deadline=None)
@given(
    puts=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 900)), min_size=1, max_size=60),
    most_keys=st.integers(1, 4),
    most_cost=st.integers(1, 2000),
)
def test_fair_queue_gives_every_item_once_within_its_bounds(
    puts: list[tuple[str, int]], most_keys: int, most_cost: int
) -> None:
    """Each batch keeps to keys and cost (or is one item), items of a key keep their order, nobody waits for ever."""
    queue: FairQueue[tuple[int, str, int]] = FairQueue(512)
    for place, (key, cost) in enumerate(puts):
        queue.put(key, cost, (place, key, cost))
    given_out: list[tuple[int, str, int]] = []
    while len(queue):
        waiting = {key for _, key, _ in set(_all(puts)) - set(given_out)}
        batches = [queue.take(most_cost, most_keys, lambda item: True) for _ in range(len(waiting))]
        for batch in batches:
            assert len({key for _, key, _ in batch}) <= most_keys
            assert len(batch) == 1 or sum(cost for _, _, cost in batch) <= most_cost
        given_out += [item for batch in batches for item in batch]
        # As many batches as there were adapters waiting serve each of them, unless its credit is still growing.
        assert waiting <= {key for batch in batches for _, key, _ in batch} or max(cost for _, cost in puts) > 512
    assert sorted(given_out) == _all(puts)
    for key in {key for key, _ in puts}:
        assert [item for item in given_out if item[1] == key] == [item for item in _all(puts) if item[1] == key]


def _all(puts: list[tuple[str, int]]) -> list[tuple[int, str, int]]:
    return [(place, key, cost) for place, (key, cost) in enumerate(puts)]


def test_adapters_share_the_engine_by_tokens_and_not_by_rows() -> None:
    """Long texts of one adapter and short ones of another, both waiting: each gets half of the tokens."""
    queue: FairQueue[tuple[str, int]] = FairQueue(64)
    for _ in range(100):
        queue.put("long", 50, ("long", 50))
        queue.put("short", 5, ("short", 5))
    queue.put("short", 5, ("short", 5))
    taken = [item for _ in range(5) for item in queue.take(160, 4, lambda item: True)]
    tokens = {key: sum(cost for name, cost in taken if name == key) for key in ("long", "short")}
    assert abs(tokens["long"] - tokens["short"]) <= 64


def test_what_is_too_much_is_refused_with_the_time_it_takes() -> None:
    """More requests or tokens than allowed raise Overloaded, with waiting tokens ÷ measured tokens per second."""
    engine = FakeEngine()
    with scheduling(engine, max_requests=3, max_tokens=100) as scheduler:
        with pytest.raises(Overloaded) as first:
            scheduler.submit([row("a", tokens=101)])
        assert first.value.retry_after_seconds > 0
        engine.let(1)
        scheduler.submit([row("a", tokens=50)]).result(SOON)
        for _ in range(3):
            scheduler.submit([row("a", tokens=30)])
        rate = scheduler.stats().tokens_per_second
        with pytest.raises(Overloaded) as requests:
            scheduler.submit([row("b", tokens=1)])
        assert requests.value.retry_after_seconds == pytest.approx(max(90 / rate, 0.05))
    engine = FakeEngine()
    with scheduling(engine, max_requests=10, max_tokens=100) as scheduler:
        kept = scheduler.submit([row("a", tokens=90)])
        with pytest.raises(Overloaded):
            scheduler.submit([row("a", tokens=11)])
        engine.let()
        assert len(kept.result(SOON)) == 1
        assert len(scheduler.submit([row("a", tokens=100)]).result(SOON)) == 1


def test_cancelled_requests_make_room_and_never_reach_the_engine() -> None:
    """A client that has gone costs no pass, and its place in the queue is free at once."""
    engine = FakeEngine()
    with scheduling(engine, max_requests=3) as scheduler:
        running = scheduler.submit([row("a", 1)])
        engine.wait_for_batch()
        gone = [scheduler.submit([row("a", 66)]) for _ in range(2)]
        assert all(one.cancel() for one in gone)
        kept = [scheduler.submit([row("a", 2)]) for _ in range(2)]
        engine.let()
        assert running.result(SOON)[0].probabilities == (1.0,)
        assert [one.result(SOON)[0].probabilities for one in kept] == [(2.0,), (2.0,)]
        assert all(one.input_ids[0] != 66 for batch in engine.batches for one in batch)
        assert scheduler.stats().queued_tokens == 0


def test_an_exception_in_a_batch_fails_one_row_and_not_the_thread() -> None:
    """16: the engine raises for one member: that row gets the error, the others of its batch and later ones answers."""

    def fault(rows: Sequence[Row]) -> None:
        if any(one.input_ids[0] == 13 for one in rows):
            raise RuntimeError("DefaultCPUAllocator: not enough memory")

    engine = FakeEngine(fault=fault)
    with scheduling(engine) as scheduler:
        first = scheduler.submit([row("a", 1)])
        engine.wait_for_batch()
        bad, good = scheduler.submit([row("a", 13), row("b", 14)]), scheduler.submit([row("b", 15)])
        engine.let()
        assert isinstance(bad.result(SOON)[0], RunError)
        assert bad.result(SOON)[1].probabilities == (14.0,)
        assert good.result(SOON)[0].probabilities == (15.0,)
        assert first.result(SOON)[0].probabilities == (1.0,)
        assert scheduler.submit([row("c", 3)]).result(SOON)[0].probabilities == (3.0,)
        assert scheduler.alive


def test_a_dead_engine_thread_is_seen_and_leaves_nobody_waiting() -> None:
    """17: the thread dies: `alive` is False, what waited gets EngineDied, and nothing more is taken."""

    def fault(rows: Sequence[Row]) -> None:
        raise SystemExit(3)

    engine = FakeEngine(fault=fault)
    with scheduling(engine) as scheduler:
        assert scheduler.alive
        futures = [scheduler.submit([row("a")])]
        engine.wait_for_batch()
        futures.append(scheduler.submit([row("b")]))
        engine.let()
        for future in futures:
            assert isinstance(future.exception(SOON), EngineDied)
        assert not scheduler.alive
        with pytest.raises(EngineDied):
            scheduler.submit([row("a")])
        assert scheduler.drain(SOON) is False


def test_a_batch_that_does_not_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that runs longer than the timeout makes `alive` False; a request that waited that long is given up."""
    clock = [0.0]
    monkeypatch.setattr(scheduler_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    engine = FakeEngine()
    with scheduling(engine, engine_timeout_s=30.0) as scheduler:
        stuck = scheduler.submit([row("a")])
        engine.wait_for_batch()
        late = scheduler.submit([row("b")])
        clock[0] = 30.0
        assert scheduler.alive
        clock[0] = 30.1
        assert not scheduler.alive
        engine.let()
        assert stuck.result(SOON)[0].digest == "a"
        assert isinstance(late.exception(SOON), TimeoutError)
        assert scheduler.alive
        assert [one.digest for batch in engine.batches for one in batch] == ["a"]


def test_draining_answers_all_that_was_accepted_and_refuses_the_rest() -> None:
    """Every accepted request is answered, new ones raise Draining, and the thread is gone."""
    engine = FakeEngine(max_slots=1)
    with scheduling(engine, batch_tokens=4) as scheduler:
        futures = [scheduler.submit([row(digest, place)]) for place, digest in enumerate("abcabc")]
        engine.wait_for_batch()
        drained: list[bool] = []
        stopper = threading.Thread(target=lambda: drained.append(scheduler.drain(SOON)))
        stopper.start()
        with pytest.raises(Draining):
            while True:  # until the other thread has said so
                scheduler.submit([row("z")]).cancel()
        engine.let()
        stopper.join(SOON)
        assert drained == [True]
        assert [future.result(0)[0].probabilities for future in futures] == [(float(place),) for place in range(6)]
        assert not scheduler.alive


def test_draining_that_takes_too_long_says_so_and_leaves_nobody_waiting() -> None:
    """Past its deadline drain returns False, and what never ran is refused."""
    engine = FakeEngine(max_slots=1)
    with scheduling(engine, batch_tokens=4) as scheduler:
        running = scheduler.submit([row("a")])
        engine.wait_for_batch()
        waiting = scheduler.submit([row("b")])
        freed = threading.Timer(0.2, engine.let)
        freed.start()
        assert scheduler.drain(0.0) is False
        freed.join()
        assert running.result(SOON)[0].digest == "a"
        assert isinstance(waiting.exception(SOON), Draining)


def test_unload_lets_running_rows_finish_and_refuses_new_ones() -> None:
    """10: rows under way are answered before the adapter is evicted; new rows of it raise, others go on."""
    engine = FakeEngine()
    with scheduling(engine) as scheduler:
        running = scheduler.submit([row("a", 1)])
        engine.wait_for_batch()
        queued = scheduler.submit([row("a", 2)])
        unloader = threading.Thread(target=scheduler.retire, args=("a",))
        unloader.start()
        with pytest.raises(UnknownNameError, match="being unloaded"):
            while True:
                scheduler.submit([row("a", 3)]).cancel()
        other = scheduler.submit([row("b", 4)])
        assert engine.evicted == []
        engine.let()
        unloader.join(SOON)
        assert engine.evicted == ["a"]
        assert running.result(0)[0].probabilities == (1.0,)
        assert queued.result(0)[0].probabilities == (2.0,)
        assert other.result(SOON)[0].probabilities == (4.0,)
        assert scheduler.submit([row("a", 5)]).result(SOON)[0].probabilities == (5.0,)


def test_many_threads_get_the_plain_models_answers(tiny_model: Path) -> None:
    """Requests of eight threads over five adapters in three slots, the real engine behind: every answer is right."""
    toys = [
        toy_bundle(tiny_model, "lora", {"rank": 3}, seed=11),
        toy_bundle(tiny_model, "lora", {"rank": 5, "targets": ("value",)}, ("no", "yes"), seed=12),
        toy_bundle(tiny_model, "head", seed=13),
        toy_bundle(tiny_model, "bitfit", seed=14),
        toy_bundle(tiny_model, "last_layers", {"layers": 1}, ("u", "v"), seed=15),
    ]
    engine = engine_for(toys, slots=3, merge_after=2)
    expected = {toy.digest: toy.expected(TEXTS) for toy in toys}
    scheduler = Scheduler(engine, batch_tokens=128)
    errors: list[BaseException] = []

    def client(number: int) -> None:
        try:
            for turn in range(6):
                places = [(number + turn + step) % len(TEXTS) for step in range(3)]
                chosen = [toys[(number * turn + step) % len(toys)] for step in range(3)]
                rows = [rows_of(engine, toy, [TEXTS[place]])[0] for toy, place in zip(chosen, places, strict=True)]
                outcomes = scheduler.submit(rows).result(SOON)
                for toy, place, found in zip(chosen, places, probabilities(outcomes), strict=True):
                    torch.testing.assert_close(torch.tensor(found), expected[toy.digest][place], rtol=0, atol=1e-5)
        except BaseException as error:
            errors.append(error)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(SOON)
    assert not errors
    assert scheduler.drain(SOON)
