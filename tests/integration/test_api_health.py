"""How the API says that it works, is busy, stops or is broken; and that its counts add up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import Service, digest_of, post, serving

from paretune.serve.api import ServiceSettings, create_app
from paretune.serve.metrics import MAX_ADAPTERS, Metrics


def test_readiness_is_a_golden_answer(service: Service, bundles: dict[str, Path], tmp_path: Path) -> None:
    """200 while a golden text gets its golden answer, 503 with the reason when not; one forward in 30 seconds."""
    assert service.client.get("/readyz").json()["ready"] is True
    rows = service.scheduler.stats().rows
    for _ in range(5):
        assert service.client.get("/readyz").status_code == 200
    assert service.scheduler.stats().rows == rows
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}, ServiceSettings(believed_seconds=0.0)) as other:
        assert other.client.get("/readyz").status_code == 200
        real = other.engine.run
        other.engine.run = lambda rows: [RuntimeError("no")] * len(rows)  # type: ignore[method-assign]
        answer = other.client.get("/readyz")
        assert answer.status_code == 503 and answer.json()["reason"] == "a golden text could not be answered"
        other.engine.run = real  # type: ignore[method-assign]
        assert other.client.get("/readyz").status_code == 200
        other.client.delete("/v1/adapters/yesno")
        assert other.client.get("/readyz").json()["reason"] == "no adapter is loaded"


def test_readiness_and_answers_end_with_the_engine(bundles: dict[str, Path], tmp_path: Path) -> None:
    """17: when the engine's thread dies, /readyz is 503 at once, requests get 503, and the process still answers."""
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}) as service:
        assert service.client.get("/readyz").status_code == 200

        def dies(rows: Any) -> Any:
            raise SystemExit

        service.engine.run = dies  # type: ignore[method-assign]
        answer = service.classify("goal", "yesno")
        assert (answer.status_code, answer.json()["error_type"]) == (503, "draining")
        assert service.client.get("/readyz").json() == {
            "ready": False,
            "reason": "the engine has stopped",
            "queue": {"requests": 0, "max_requests": 256, "tokens": 0, "max_tokens": 16384},
        }
        later = service.classify("goal", "yesno")
        assert later.status_code == 503 and int(later.headers["retry-after"]) >= 1
        assert service.client.get("/livez").status_code == 200


def test_a_drain_answers_what_was_accepted_and_refuses_the_rest(bundles: dict[str, Path], tmp_path: Path) -> None:
    """19: accepted requests are answered, new ones are 503 with Retry-After, /readyz is 503."""
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}) as service:
        hold, real = threading.Event(), service.engine.run

        def slow(rows: Any) -> Any:
            hold.wait(30)
            return real(rows)

        service.engine.run = slow  # type: ignore[method-assign]
        with ThreadPoolExecutor(2) as pool:
            accepted = pool.submit(service.classify, "goal", "yesno")
            while not service.scheduler.stats().queued_requests:
                time.sleep(0.01)
            draining = pool.submit(service.scheduler.drain, 30)
            while True:
                refused = service.classify("goal", "yesno") if not draining.done() else None
                if refused is not None and refused.status_code == 503:
                    break
            assert int(refused.headers["retry-after"]) >= 1
            hold.set()
            assert accepted.result().status_code == 200 and draining.result() is True


def test_overload_is_429_with_a_computed_wait(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Beyond the queue's bounds requests are refused at once; Retry-After is queued tokens over measured speed."""
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}, max_requests=1) as service:
        service.classify("goal", "yesno")
        hold, real = threading.Event(), service.engine.run

        def slow(rows: Any) -> Any:
            hold.wait(30)
            return real(rows)

        service.engine.run = slow  # type: ignore[method-assign]
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(service.classify, "goal", "yesno")
            while not service.scheduler.stats().queued_requests:
                time.sleep(0.01)
            answer = service.classify("goal", "yesno")
            assert (answer.status_code, answer.json()["error_type"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert service.client.get("/readyz").status_code == 200  # busy, not broken
            hold.set()
            assert first.result().status_code == 200
        assert service.classify("goal", "yesno").status_code == 200


def test_a_client_that_leaves_takes_its_texts_out_of_the_queue(bundles: dict[str, Path], tmp_path: Path) -> None:
    """18: after a disconnect the future is cancelled, the queue is empty, and the adapter's lease is given back."""
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}) as service:
        hold, real = threading.Event(), service.engine.run

        def slow(rows: Any) -> Any:
            hold.wait(30)
            return real(rows)

        service.engine.run = slow  # type: ignore[method-assign]
        app = create_app(service.registry, service.scheduler, service.engine, ServiceSettings())
        body = json.dumps({"inputs": ["goal"], "adapter": "yesno"}).encode()
        headers = [
            (b"host", b"x"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "headers": headers,
        }
        scope |= {
            "path": "/v1/classify",
            "raw_path": b"/v1/classify",
            "query_string": b"",
            "scheme": "http",
            "root_path": "",
        }
        sent: list[Any] = []

        async def leave() -> None:
            messages = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                while not service.scheduler.stats().queued_requests:
                    await asyncio.sleep(0.01)
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            await app(scope, receive, send)

        asyncio.run(leave())
        assert sent == [] and service.scheduler.stats().queued_requests == 0
        assert not +service.registry._leases
        hold.set()
        service.engine.run = real  # type: ignore[method-assign]
        assert service.classify("goal", "yesno").status_code == 200


def test_metrics_add_up(bundles: dict[str, Path], tmp_path: Path) -> None:
    """35: counts equal what was sent, by route and status; texts and tokens by adapter; abstentions too."""
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}) as service:
        tokens = 0
        for _ in range(5):
            tokens += int(service.classify("goal match", "yesno").headers["x-compute-tokens"])
        for _ in range(3):
            post(service, "/predict", {"inputs": "goal"})
        for _ in range(2):
            service.classify("goal", "nosuch")
        service.client.post("/v1/classify", content=b"{")
        service.client.request("BREW", "/nowhere/at/all")
        text = service.client.get("/metrics").text
        found = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

        def count(name: str, **labels: str) -> float:
            return found.get((name, tuple(sorted(labels.items()))), 0.0)

        requests = "paretune_requests_total"
        assert count(requests, route="/v1/classify", method="POST", status="200") == 5
        assert count(requests, route="/predict", method="POST", status="200") == 3
        assert count(requests, route="/v1/classify", method="POST", status="404") == 2
        assert count(requests, route="other", method="other", status="404") == 1
        adapter = digest_of(bundles["yesno"])[:12]
        assert count("paretune_items_total", adapter=adapter) == 8
        assert count("paretune_abstained_total", adapter=adapter) == 8
        assert count("paretune_tokens_total", adapter=adapter) == tokens + 3 * 3
        assert count("paretune_request_seconds_count", route="/v1/classify") == 8
        assert count("paretune_refused_total", error_type="not_found") == 3
        assert count("paretune_adapters", state="ready") == 1
        assert count("paretune_rows_total") == 8


def test_adapter_labels_are_bounded(service: Service) -> None:
    """Digests beyond the first 64 are counted together, so nobody can make series without end."""
    metrics = Metrics(service.engine, service.scheduler, service.registry)
    for number in range(MAX_ADAPTERS + 10):
        metrics.answered(f"{number:064x}"[::-1], 1, False, 0.0)
    text = metrics.exposition().decode()
    assert text.count("paretune_items_total{") == MAX_ADAPTERS + 1
    assert 'paretune_items_total{adapter="other"} 10.0' in text


def test_status_for_the_page(service: Service) -> None:
    """Queue, load, memory and slots, each with its bound."""
    status = service.client.get("/v1/status").json()
    assert status["ready"] is True and status["precision"] == "fp32" and status["draining"] is False
    assert status["queue"]["max_requests"] == 256 and status["slots"]["max"] == 4
    assert 0 < status["memory"]["rss_bytes"] < status["memory"]["limit_bytes"]


def test_a_full_queue_refuses_before_it_tokenizes(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What surely finds no room is a 429 without any work; texts that are merely long are no reason."""
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}, max_tokens=16_384) as service:
        assert service.classify("goal " * 10_000, "yesno").status_code == 200
        encoded: list[int] = []
        real = service.engine.encode

        def encode(digest: str, texts: Any) -> Any:
            encoded.append(len(texts))
            return real(digest, texts)

        monkeypatch.setattr(service.engine, "encode", encode)
        stats = service.scheduler.stats()
        full = replace(stats, queued_tokens=16_383, tokens_per_second=1000.0)
        monkeypatch.setattr(service.scheduler, "stats", lambda: full)
        answer = post(service, "/v1/classify", {"inputs": ["goal match coach"] * 8})
        assert (answer.status_code, answer.headers["retry-after"], encoded) == (429, "17", [])
        assert answer.json()["error_type"] == "overloaded" and "X-Request-ID" in answer.headers
        unread = service.client.post("/v1/classify", content=b"{" * 200, headers={"content-type": "application/json"})
        assert unread.status_code == 429  # without its body being parsed
        monkeypatch.undo()
        assert service.classify("goal", "yesno").status_code == 200
