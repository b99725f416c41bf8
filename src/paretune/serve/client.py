"""A small client of the service's HTTP API: which adapters there are, classify, compare; it waits where asked to wait.

Not here: the API itself (`api.py`) and what a person is told (`bot_words.py`). Needs aiohttp, which the extra `bot`
brings. Answers are read leniently: a newer service may say more than this client knows.

    async with Client("http://127.0.0.1:8000", None) as client: print(await client.adapters())
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from paretune.core.config import JsonObject
from paretune.core.errors import ConfigError, ParetuneError, said

Trouble = Literal["down", "auth", "busy", "rejected", "missing", "broken"]
ModelT = TypeVar("ModelT", bound=BaseModel)
Waiting = Callable[[float], Awaitable[None]]  # told the seconds before each wait

REQUEST_SECONDS = 40.0  # the service gives up on its engine after 30
PATIENCE_SECONDS = 60.0  # all waits of one call together
FIRST_WAIT_SECONDS = 1.0  # where the service names none; doubled each time
SHORTEST_WAIT_SECONDS = 0.05


class ApiError(ParetuneError):
    """The service did not answer a request; `trouble` says in one word why, `reason` in the service's own words."""

    def __init__(self, trouble: Trouble, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"the service's API: {trouble} ({reason})")
        self.trouble: Trouble = trouble
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Adapter(_Lenient):
    """One line of `GET /v1/models`."""

    id: str
    labels: list[str]
    state: str = "ready"


class Answer(_Lenient):
    """What one adapter says of one text; the probabilities are those of all its labels, in its order.

    `out_of_domain` None: the adapter cannot tell whether the text is like those that it was trained on.
    """

    adapter: str
    digest: str
    label: str
    abstain: bool
    out_of_domain: bool | None = None
    confidence: float
    probabilities: dict[str, float]
    truncated: bool = False


class Failed(_Lenient):
    """A text that one adapter could not answer while others could."""

    adapter: str = ""
    error: str


class _Models(_Lenient):
    data: list[Adapter]


class _Results(_Lenient):
    results: list[Failed | Answer]
    failed: list[Failed] = []


@dataclass(frozen=True)
class _Reply:
    status: int
    retry_after: str | None
    body: bytes


def check_url(url: str, option: str) -> str:
    """The URL without a closing slash.

    Raises:
        ConfigError: no http:// or https:// URL of a host.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
        good = good and parts.username is None and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(said(f"{option} {url!r}", "a URL such as http://127.0.0.1:8000, without a key in it"))
    return url.rstrip("/")


def seconds_of(retry_after: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3); None if it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            then = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = (then - now).total_seconds() if then.tzinfo else (then.replace(tzinfo=UTC) - now).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None  # a NaN compares as False


class Client:
    """Speaks to one service with one key (None: a service on this machine that asks for none).

    A redirect is not followed: the key would go along.
    """

    def __init__(self, url: str, key: str | None, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._url = check_url(url, "--api")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience_seconds = patience_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=5)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def adapters(self) -> list[Adapter]:
        """The adapters that answer now, in the service's order.

        Raises:
            ApiError: as every call here.
        """
        reply = await self._call("GET", "/v1/models", None, None)
        return [one for one in _parsed(reply, _Models).data if one.state == "ready"]

    async def classify(self, text: str, adapter: str, waiting: Waiting | None = None) -> Answer:
        """What an adapter says of a text; waits up to `patience_seconds` where the service is busy."""
        tree: JsonObject = {"inputs": [{"text": text, "adapter": adapter}]}
        results = _parsed(await self._call("POST", "/v1/classify", tree, waiting), _Results).results
        if len(results) != 1:
            raise ApiError("broken", f"{len(results)} results for one text")
        if isinstance(results[0], Failed):
            raise ApiError("rejected", results[0].error)
        return results[0]

    async def compare(self, text: str, waiting: Waiting | None = None) -> list[Answer | Failed]:
        """What every adapter says of a text; those that failed come last."""
        found = _parsed(await self._call("POST", "/v1/compare", {"text": text}, waiting), _Results)
        return [*found.results, *found.failed]

    async def _call(self, verb: str, path: str, tree: JsonObject | None, waiting: Waiting | None) -> bytes:
        """The body of a good answer; 429 and 503 are waited for as the service asks."""
        give_up_at = time.monotonic() + self._patience_seconds
        own_wait = FIRST_WAIT_SECONDS
        while True:
            reply = await self._once(verb, path, tree)
            if reply.status == 200:
                return reply.body
            if reply.status not in (429, 503):
                raise _refusal(reply)
            wanted = seconds_of(reply.retry_after, datetime.now(UTC))
            wait = own_wait if wanted is None else max(wanted, SHORTEST_WAIT_SECONDS)
            own_wait *= 2
            if time.monotonic() + wait > give_up_at:
                raise ApiError("busy", _reason(reply), wait)
            if waiting is not None:
                await waiting(wait)
            await asyncio.sleep(wait)

    async def _once(self, verb: str, path: str, tree: JsonObject | None) -> _Reply:
        assert self._session is not None, "a Client is used inside `async with`"
        try:
            async with self._session.request(verb, self._url + path, json=tree, allow_redirects=False) as response:
                return _Reply(response.status, response.headers.get("Retry-After"), await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError("down", type(error).__name__) from error


def _parsed(body: bytes, into: type[ModelT]) -> ModelT:
    try:
        return into.model_validate_json(body)
    except ValidationError as error:
        raise ApiError("broken", f"an answer of another shape: {str(error).splitlines()[0]}") from None


def _refusal(reply: _Reply) -> ApiError:
    troubles: dict[int, Trouble] = {401: "auth", 403: "auth", 404: "missing"}
    rest: Trouble = "rejected" if 400 <= reply.status < 500 else "broken"
    return ApiError(troubles.get(reply.status, rest), _reason(reply))


class _Said(_Lenient):
    error: str


def _reason(reply: _Reply) -> str:
    """The service's own one line, else the status."""
    try:
        return _Said.model_validate_json(reply.body).error[:300]
    except ValidationError:
        return f"HTTP {reply.status}"
