"""What `paretune bench serve` counts, on fabricated shots, and the whole of it once, small, on a tiny model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from paretune.core.errors import RunError
from paretune.serve import bench_http
from paretune.serve.bench_http import Server, at_rate, capacity, classify_bodies, overload, statuses
from paretune.serve.bench_serve import BenchPlan, bench_serve
from paretune.serve.load import LoadPlan, LoadResult, Shot, generate

LINE = [
    "requests_per_second",
    "mixed_ratio",
    "peer_ratio",
    "peer_ratio_defaults",
    "overhead_ratio",
    "p95_ratio",
    "overload_goodput",
    "cliff",
    "memory_growth",
    "ready_ratio",
    "generator_cpu_share",
]
SERVER = Server(None, "http://127.0.0.1:1", 0.0)  # pyright: ignore[reportArgumentType]  nothing is sent to it


def _shot(at: float, seconds: float, status: int = 200, retry_after: bool = False) -> Shot:
    return Shot(at_seconds=at, seconds=seconds, status=status, retry_after=retry_after)


def _fired(monkeypatch: pytest.MonkeyPatch, shots: Sequence[Shot], wall_seconds: float) -> list[LoadPlan]:
    """Stand in for the generator's process; the plans that it was given."""
    plans: list[LoadPlan] = []

    def fire(plan: LoadPlan) -> LoadResult:
        plans.append(plan)
        return LoadResult(shots=list(shots), wall_seconds=wall_seconds, generator_cpu_share=0.1)

    monkeypatch.setattr(bench_http, "fire", fire)
    return plans


def test_bodies_go_through_texts_and_adapters_in_turn() -> None:
    """Neither of them starts anew with a request."""
    first, second = classify_bodies(["a", "b", "c"], ["x", "y"], per_request=2, requests=2)
    assert first == {"inputs": [{"text": "a", "adapter": "x"}, {"text": "b", "adapter": "y"}]}
    assert second == {"inputs": [{"text": "c", "adapter": "x"}, {"text": "a", "adapter": "y"}]}


def test_capacity_counts_answers_over_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused requests are no capacity; the loop is closed."""
    plans = _fired(monkeypatch, [_shot(0, 1), _shot(0, 1), _shot(1, 1, 429, True), _shot(1, 3)], wall_seconds=4.0)
    assert capacity(SERVER, [], 3.0) == (0.75, 0.1)
    assert (plans[0].loop, plans[0].clients) == ("closed", bench_http.CLIENTS)


def test_a_connection_that_the_service_closed_is_no_refusal() -> None:
    """One answer a connection, though the service promises to keep it: the next request takes a new one."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def measured() -> LoadResult:
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/v1/classify"
            return await generate(LoadPlan(url=url, bodies=[{}], loop="open", seconds=0.5, rate=10))

    shots = asyncio.run(measured()).shots
    assert [(shot.status, shot.retry_after) for shot in shots] == [(429, True)] * 5


def test_nobody_there_is_status_0() -> None:
    """A refused connection is counted, not raised."""
    plan = LoadPlan(url=f"http://127.0.0.1:{bench_http.free_port()}/", bodies=[{}], loop="open", seconds=0.1, rate=10)
    assert [shot.status for shot in asyncio.run(generate(plan)).shots] == [0]


def test_latency_under_load_is_of_the_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is quick, and no answer."""
    shots = [_shot(0, seconds) for seconds in (0.3, 0.1, 0.2)] + [_shot(0, 0.01, 429, True)]
    plans = _fired(monkeypatch, shots, 5.0)
    loaded = at_rate(SERVER, [], 7.0, 5.0)
    assert (loaded.p50_seconds, loaded.p95_seconds, loaded.refused, loaded.requests) == (0.2, 0.2, 1, 4)
    assert (plans[0].loop, plans[0].rate) == ("open", 7.0)


def test_goodput_is_what_was_answered_while_the_load_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer after the end is late; a refusal without Retry-After, or another than 429, is counted apart."""
    shots = [
        _shot(0.0, 1.0),
        _shot(1.0, 2.0),
        _shot(9.0, 2.0),
        _shot(2.0, 0.1, 429, True),
        _shot(2.0, 0.1, 429, False),
        _shot(3.0, 0.1, 503, True),
        _shot(3.0, 0.1, 0),
    ]
    _fired(monkeypatch, shots, wall_seconds=11.0)
    monkeypatch.setattr(bench_http.httpx2, "post", lambda *_, **__: SimpleNamespace(status_code=200))
    found = overload(SERVER, [{}], rate=3.0, seconds=10.0, unloaded=0.5)
    assert found.goodput_per_second == pytest.approx(0.2)
    assert (found.refused, found.refused_otherwise) == (4, 3)
    assert found.accepted_p95_seconds == 2.0
    assert found.recovery_seconds == pytest.approx(1.0, abs=0.1)  # a second of late answers, then at once


def test_a_server_that_answers_nothing_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statuses are in the message."""
    shots = [_shot(0, 1, 503), _shot(0, 1, 503), _shot(0, 1, 0)]
    _fired(monkeypatch, shots, 1.0)
    assert statuses(LoadResult(shots=shots, wall_seconds=1.0, generator_cpu_share=0.0)) == {503: 2, 0: 1}
    with pytest.raises(RunError, match="503: 2"):
        capacity(SERVER, [], 1.0)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its last words are in the message."""
    with (
        pytest.raises(RunError, match=r"ended with code 2.*nothing-here"),
        bench_http.running([tmp_path / "nothing-here"], tmp_path / "store"),
    ):
        pass


@pytest.mark.slow
def test_the_whole_bench_gives_its_line(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers, generator and engine are real and small; every figure is there, but for the other library's."""
    monkeypatch.chdir(tmp_path)  # where benchmarks/ is not
    said: list[str] = []
    plan = BenchPlan(model=f"path:{tiny_model}", adapters=2, many=4, seconds=1.5, rounds=1, cycles=3)
    found = bench_serve(plan, said.append)
    assert [name for name in found if name != "details"] == LINE
    assert found["peer_ratio"] is None and found["peer_ratio_defaults"] is None
    assert any("nothing is compared" in line for line in said)
    figures = [found[name] for name in LINE if not name.startswith("peer") and name != "memory_growth"]
    assert all(isinstance(one, float) and math.isfinite(one) and one > 0 for one in figures)
    details = found["details"]
    assert isinstance(details, dict)
    assert details["overload_refused_otherwise"] == 0
    assert details["cliff_swaps"]["fits"] == 2 < details["cliff_swaps"]["all"]
