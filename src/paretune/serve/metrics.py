"""Counts and gauges for Prometheus, in a registry of their own.

Not here: the route (`routes_health.py`). An adapter's label is the beginning of its digest; beyond 64 of them the rest
are counted together as "other", so that no client can make series without end. Every request is counted once, when
its answer has gone. Format: https://prometheus.io/docs/instrumenting/exposition_formats/.

    metrics = Metrics(engine, scheduler, registry); metrics.exposition()
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from paretune.serve.engine import Engine
from paretune.serve.registry import Registry
from paretune.serve.scheduler import Scheduler
from paretune.serve.visit import Visit

MAX_ADAPTERS = 64
PREFIX = 12
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Metrics:
    """All metrics of one server."""

    def __init__(self, engine: Engine, scheduler: Scheduler, registry: Registry) -> None:
        self._registry = CollectorRegistry()
        self._known: dict[str, str] = {}
        self.refused_total = 0
        own = self._registry
        self._requests = Counter(
            "paretune_requests", "Requests by route, method and status", ["route", "method", "status"], registry=own
        )
        self._seconds = Histogram(
            "paretune_request_seconds",
            "Seconds from a request's headers to its answer",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self._refused = Counter("paretune_refused", "Requests refused, by type of error", ["error_type"], registry=own)
        self._items = Counter("paretune_items", "Texts answered", ["adapter"], registry=own)
        self._tokens = Counter("paretune_tokens", "Tokens read", ["adapter"], registry=own)
        self._abstained = Counter("paretune_abstained", "Answers left to a person", ["adapter"], registry=own)
        self._failed = Counter(
            "paretune_failed_items", "Texts that an adapter could not answer", ["adapter"], registry=own
        )
        self._queued = Histogram("paretune_queue_seconds", "Seconds that a text waited", buckets=SECONDS, registry=own)
        self._registry.register(_State(engine, scheduler, registry))
        ProcessCollector(registry=self._registry)

    def done(self, route: str, method: str, status: int, seconds: float, visit: Visit) -> None:
        """Count a request whose answer has gone."""
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if visit.error_type:
            self._refused.labels(visit.error_type).inc()
            self.refused_total += visit.error_type == "overloaded"

    def answered(self, digest: str, tokens: int, abstain: bool, queue_seconds: float) -> None:
        """Count a text that was answered."""
        adapter = self._label(digest)
        self._items.labels(adapter).inc()
        self._tokens.labels(adapter).inc(tokens)
        self._queued.observe(queue_seconds)
        if abstain:
            self._abstained.labels(adapter).inc()

    def failed(self, digest: str) -> None:
        """Count a text that got no answer."""
        self._failed.labels(self._label(digest)).inc()

    def exposition(self) -> bytes:
        """All of it as text."""
        return generate_latest(self._registry)

    def _label(self, digest: str) -> str:
        if digest not in self._known and len(self._known) < MAX_ADAPTERS:
            self._known[digest] = digest[:PREFIX]
        return self._known.get(digest, "other")


class _State(Collector):
    """What is so at the moment of asking."""

    def __init__(self, engine: Engine, scheduler: Scheduler, registry: Registry) -> None:
        self._engine, self._scheduler, self._adapters = engine, scheduler, registry

    def collect(self) -> Iterator[Metric]:
        stats = self._scheduler.stats()
        gauges = {
            "queue_requests": ("Requests that wait", stats.queued_requests),
            "queue_tokens": ("Tokens that wait", stats.queued_tokens),
            "tokens_per_second": ("Speed of late", stats.tokens_per_second),
            "engine_alive": ("1 while the engine's thread works", int(self._scheduler.alive)),
            "slots": ("Adapters that fit into memory", self._engine.max_slots),
            "slots_used": ("Adapters in memory", len(self._engine.resident())),
            "merged": (
                "1 while one adapter has all traffic and its weights are merged",
                int(bool(stats.merged_digest)),
            ),
            "last_batch_adapters": ("Adapters in the last batch", stats.last_batch_adapters),
        }
        counters = {
            "batches": ("Batches run", stats.batches),
            "rows": ("Texts run", stats.rows),
            "adapter_swaps": ("Adapters read into a slot", self._engine.swaps),
        }
        for name, (words, value) in gauges.items():
            yield GaugeMetricFamily(f"paretune_{name}", words, value)
        for name, (words, value) in counters.items():
            yield CounterMetricFamily(f"paretune_{name}", words, value)
        states = GaugeMetricFamily("paretune_adapters", "Bundles by state", labels=["state"])
        for state, count in sorted(Count(entry.state for entry in self._adapters.entries()).items()):
            states.add_metric([state], count)
        yield states
