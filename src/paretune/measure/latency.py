"""How long one answer takes: p50 and p95 of single texts and of batches of 32, tokenizing included.

Not here: throughput under load. Texts are real ones, taken in turn; the first calls are not counted.

    probe(lambda texts: model_probabilities(texts), test_texts)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from paretune.records.schema import Latency

BATCHES = ((1, 40), (32, 8))
WARM_CALLS = 2


def probe(answer: Callable[[Sequence[str]], object], texts: Sequence[str]) -> list[Latency]:
    """Time `answer` on real texts, for each batch size."""
    found: list[Latency] = []
    for batch, calls in BATCHES:
        seconds: list[float] = []
        for call in range(WARM_CALLS + calls):
            chosen = [texts[(call * batch + place) % len(texts)] for place in range(batch)]
            began = time.perf_counter()
            answer(chosen)
            seconds.append(time.perf_counter() - began)
        p50, p95 = np.percentile(seconds[WARM_CALLS:], [50, 95])
        found.append(Latency(batch=batch, calls=calls, p50_seconds=float(p50), p95_seconds=float(p95)))
    return found
