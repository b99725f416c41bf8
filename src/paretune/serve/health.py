"""Whether the server works, found out by asking it: a golden text must get its golden answer.

Not here: routes (`routes_health.py`). An answer is believed for 30 seconds; a dead engine, a drain and a registry
without adapters are seen at once. A server that is only busy is ready: sending it less is the load balancer's part of
429, not of readiness.

    (await health.check()).ready
"""

from __future__ import annotations

import asyncio
import time

from paretune.core.errors import ParetuneError
from paretune.records.bundle import Golden
from paretune.serve.bundle import Bundle
from paretune.serve.engine import Engine, Outcome, Row
from paretune.serve.goldens import differs
from paretune.serve.registry import Registry
from paretune.serve.resident import Answer
from paretune.serve.scheduler import Draining, Overloaded, Scheduler

BELIEVED_SECONDS = 30.0
PROBE_SECONDS = 15.0


class Health:
    """Readiness of one server; asked by several at once, the golden text is answered once."""

    def __init__(
        self, registry: Registry, scheduler: Scheduler, engine: Engine, believed_seconds: float = BELIEVED_SECONDS
    ) -> None:
        self._registry, self._scheduler, self._engine = registry, scheduler, engine
        self._believed_seconds = believed_seconds
        self._at = float("-inf")
        self._trouble = ""
        self._asking = asyncio.Lock()
        self.draining = False

    async def trouble(self) -> str:
        """Why the server is not ready; empty where it is."""
        if at_once := self.known_trouble():
            return at_once
        async with self._asking:
            if time.monotonic() - self._at > self._believed_seconds or self._trouble:
                self._trouble = await self._asked()
                self._at = time.monotonic()
        return self.known_trouble() or self._trouble

    def known_trouble(self) -> str:
        """What is seen without asking."""
        if self.draining:
            return "the server is stopping"
        if not self._scheduler.alive:
            return "the engine has stopped"
        return "" if self._registry.ready() else "no adapter is loaded"

    async def _asked(self) -> str:
        bundle = self._one()
        if bundle is None:
            return "no adapter is loaded"
        golden = bundle.goldens.rows[0]
        try:
            tokens = self._engine.tokens(bundle.digest, [golden.text])[0]
            future = self._scheduler.submit([Row(bundle.digest, tokens)])
            outcomes = await asyncio.wait_for(asyncio.wrap_future(future), PROBE_SECONDS)
        except Overloaded:
            return ""  # busy, and busy with answers: `known_trouble` has seen a live engine
        except Draining:
            return "the server is stopping"
        except TimeoutError:
            return "a golden text was not answered in time"
        except ParetuneError as error:
            return f"a golden text was not answered ({type(error).__name__})"
        return _compared(bundle, golden, outcomes[0])

    def _one(self) -> Bundle | None:
        """A bundle that lies in a slot already, if one does, so that asking pushes nobody out."""
        ready = {bundle.digest: bundle for bundle in self._registry.ready()}
        resident = [digest for digest in self._engine.resident() if digest in ready]
        return ready[resident[-1]] if resident else next(iter(ready.values()), None)


def _compared(bundle: Bundle, golden: Golden, outcome: Outcome) -> str:
    if not isinstance(outcome, Answer):
        return "a golden text could not be answered"
    found = differs(golden, bundle.manifest.labels, bundle.goldens.tolerance, outcome)
    return "a golden text got another answer than its own" if found else ""
