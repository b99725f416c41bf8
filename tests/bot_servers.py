"""Two small servers on loopback for the bot's tests: one speaks Telegram's Bot API, one the service's HTTP API.

They keep what they were asked, and answer what a test tells them to. Not here: any judgement. Source:
https://core.telegram.org/bots/api (methods, long polling with `offset`), and the docstring of `serve/api.py`.

    async with Telegram() as telegram, Service() as service: ...
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

TOKEN = "123456:test-token_OF-the-bot"
KEY = "key-of-the-bot"
JOY = {"joy": 0.71, "fear": 0.2, "anger": 0.085, "surprise": 0.005}


@dataclass
class Refusal:
    """An answer that is given once instead of the usual one."""

    status: int
    body: dict[str, Any] | str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return web.Response(status=self.status, text=text, headers=self.headers, content_type="application/json")


class _Server:
    def __init__(self) -> None:
        self.url = ""
        self._runner: web.AppRunner | None = None

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


class Telegram(_Server):
    """The Bot API for one token; `sent` holds every call but `getUpdates`, as (method, fields)."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.refusals: dict[str, list[Refusal]] = {}
        self.confirmed = 0
        self.polls = 0
        self._updates: list[dict[str, Any]] = []
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/bot{token}/{method}", self._call)]

    async def say(self, text: str | None, *, chat: int = 7, language: str | None = "en", **more: Any) -> None:
        """A person writes; `more` are further fields of the message."""
        message = self._message(chat, language) | ({"text": text} if text is not None else {}) | more
        await self._push({"message": message})

    async def press(self, data: str, *, chat: int = 7, language: str | None = "en") -> None:
        """A person presses a button below a message of the bot."""
        query = {
            "id": "q1",
            "from": self._person(language),
            "chat_instance": "1",
            "data": data,
            "message": self._message(chat, language),
        }
        await self._push({"callback_query": query})

    def replies(self, method: str = "sendMessage") -> list[dict[str, Any]]:
        return [fields for name, fields in self.sent if name == method]

    async def wait_for(self, count: int, method: str = "sendMessage", seconds: float = 20) -> list[dict[str, Any]]:
        """The fields of all calls of a method, once there are so many."""
        async with self._changed:
            done = self._changed.wait_for(lambda: len(self.replies(method)) >= count)
            try:
                await asyncio.wait_for(done, seconds)
            except TimeoutError:
                raise AssertionError(f"{count} × {method} expected, got {self.sent}") from None
        return self.replies(method)

    async def _push(self, update: dict[str, Any]) -> None:
        async with self._changed:
            self._updates.append({"update_id": next(self._ids), **update})
            self._changed.notify_all()

    def _person(self, language: str | None) -> dict[str, Any]:
        return {"id": 5, "is_bot": False, "first_name": "P"} | ({"language_code": language} if language else {})

    def _message(self, chat: int, language: str | None) -> dict[str, Any]:
        place = {"id": chat, "type": "private", "first_name": "P"}
        return {"message_id": next(self._ids), "date": 1, "chat": place, "from": self._person(language)}

    async def _call(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        if request.match_info["token"] != TOKEN:
            return web.json_response({"ok": False, "error_code": 401, "description": "Unauthorized"}, status=401)
        fields = dict(await request.post())
        if self.refusals.get(method):
            return self.refusals[method].pop(0).response()
        result: Any = True
        if method == "getUpdates":
            result = await self._get_updates(int(str(fields.get("offset", 0))), float(str(fields.get("timeout", 0))))
        elif method == "getMe":
            result = {"id": 123456, "is_bot": True, "first_name": "B", "username": "paretune_test_bot"}
        elif method in ("sendMessage", "editMessageText"):
            result = self._message(int(str(fields["chat_id"])), None) | {"text": fields["text"]}
        if method != "getUpdates":
            async with self._changed:
                self.sent.append((method, fields))
                self._changed.notify_all()
        return web.json_response({"ok": True, "result": result})

    async def _get_updates(self, offset: int, timeout: float) -> list[dict[str, Any]]:
        async with self._changed:
            self.polls += 1
            self.confirmed = max(self.confirmed, offset - 1)
            self._updates = [one for one in self._updates if one["update_id"] >= offset]
            self._changed.notify_all()
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: bool(self._updates)), timeout or 0.001)
            except TimeoutError:
                return []
            return self._updates[:100]


class Service(_Server):
    """The service's API with adapters that answer always the same; `asked` holds (path, body, authorization)."""

    def __init__(self, names: tuple[str, ...] = ("emotion", "acceptability")) -> None:
        super().__init__()
        self.names = list(names)
        self.asked: list[tuple[str, Any, str | None]] = []
        self.refusals: list[Refusal] = []  # for classify and compare
        self.key: str | None = KEY
        self.answer: dict[str, Any] = {
            "label": "joy",
            "abstain": False,
            "confidence": 0.71,
            "probabilities": JOY,
            "truncated": False,
            "tokens": 4,
        }
        self.failed: list[dict[str, Any]] = []
        self.hold: asyncio.Event | None = None  # classify answers once it is set

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/models", self._models),
            web.post("/v1/classify", self._classify),
            web.post("/v1/compare", self._compare),
        ]

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    async def _heard(self, request: web.Request) -> Any:
        tree = await request.json() if request.can_read_body else None
        self.asked.append((request.path, tree, request.headers.get("Authorization")))
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            raise web.HTTPUnauthorized(
                text=json.dumps({"error": "a valid key is needed", "error_type": "auth", "request_id": "r"})
            )
        return tree

    async def _models(self, request: web.Request) -> web.Response:
        await self._heard(request)
        lines = [
            {"id": name, "root": "d" * 64, "parent": "b" * 64, "labels": list(JOY), "method": "lora", "state": "ready"}
            for name in self.names
        ]
        return web.json_response({"data": [*lines, {"id": "broken", "root": "", "labels": [], "state": "failed"}]})

    def _result(self, name: str) -> dict[str, Any]:
        return {"adapter": name, "digest": "d" * 64, **self.answer}

    async def _classify(self, request: web.Request) -> web.Response:
        tree = await self._heard(request)
        if self.hold is not None:
            await self.hold.wait()
        if self.refusals:
            return self.refusals.pop(0).response()
        name = tree["inputs"][0]["adapter"]
        if name not in self.names:
            error = {"error": f"no adapter {name}", "error_type": "not_found", "request_id": "r"}
            return web.json_response(error, status=404)
        return web.json_response({"results": [self._result(name)], "request_id": "r"})

    async def _compare(self, request: web.Request) -> web.Response:
        await self._heard(request)
        if self.refusals:
            return self.refusals.pop(0).response()
        results = [self._result(name) for name in self.names]
        return web.json_response({"results": results, "failed": self.failed, "request_id": "r"})
