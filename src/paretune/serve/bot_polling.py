"""Long polling with aiogram: begins politely, and ends only when what was begun is answered.

Not here: handlers (`bot_chat.py`), signals and logs (`bot.py`). Needs aiogram (extra `bot`). Each poll confirms what
the one before it brought (https://core.telegram.org/bots/api#getupdates); it is sent once their handlers have begun.

    await poll(settings, stop=asyncio.Event())
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiogram import BaseMiddleware, Bot, Dispatcher
from aiogram.client.default import DefaultBotProperties
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.middlewares.base import BaseRequestMiddleware, NextRequestMiddlewareType
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    AiogramError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType
from aiogram.types import BotCommand, TelegramObject

from paretune.core.errors import UsageError, said
from paretune.serve.bot import BotSettings
from paretune.serve.bot_chat import Chat
from paretune.serve.bot_choices import Choices
from paretune.serve.bot_words import ENGLISH, RUSSIAN, Words
from paretune.serve.client import ApiError, Client, check_url

LOG = logging.getLogger("paretune.bot")
POLL_SECONDS = 20
DRAIN_SECONDS = 10.0
MOST_TELEGRAM_WAIT_SECONDS = 60
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 30.0


class Patience(BaseRequestMiddleware):
    """Waits as long as Telegram asks, twice, before an error is passed on."""

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        for _ in range(2):
            try:
                return await make_request(bot, method)
            except TelegramRetryAfter as error:
                if error.retry_after > MOST_TELEGRAM_WAIT_SECONDS:
                    raise
                LOG.warning("Telegram asks to wait %d s", error.retry_after)
                await asyncio.sleep(error.retry_after)
        return await make_request(bot, method)


class Underway(BaseMiddleware):
    """Knows which updates are being handled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(
        self, handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]], event: TelegramObject, data: Any
    ) -> Any:
        task = asyncio.current_task()
        assert task is not None, "aiogram handles every update in a task"
        self._tasks.add(task)
        try:
            return await handler(event, data)
        finally:
            self._tasks.discard(task)

    async def finished(self, seconds: float) -> None:
        """Wait for those underway; what takes longer is cancelled."""
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            LOG.warning("%d messages stay unanswered", len(late))
            await asyncio.wait(late, timeout=1.0)


async def poll(settings: BotSettings, stop: asyncio.Event) -> None:
    """Answer messages until `stop` is set.

    Raises:
        UsageError: Telegram does not know the token, the API does not accept the key, or the state file is unusable.
    """
    api = check_url(settings.api, "--api")
    server = TelegramAPIServer.from_base(check_url(settings.telegram_api, "--telegram-api"))
    choices = Choices(settings.state)
    session = AiohttpSession(api=server)
    session.middleware(Patience())
    bot = Bot(settings.token, session=session, default=DefaultBotProperties(parse_mode="HTML"))
    try:
        async with Client(api, settings.key) as client:
            await _check_key(client)
            if await _greeted(bot, stop):
                await _serve(bot, Chat(client, choices), stop)
    finally:
        await session.close()


async def _check_key(client: Client) -> None:
    """A key that the service refuses is told at the start; a service that is not up yet may come later."""
    try:
        names = [one.id for one in await client.adapters()]
        LOG.info("the service has %d adapters ready: %s", len(names), ", ".join(names[:10]))
    except ApiError as error:
        if error.trouble == "auth":
            raise UsageError(
                said(f"the service refuses the bot's key ({error.reason})", "a valid --key-file")
            ) from None
        LOG.warning("%s; messages are answered as soon as it is there", error)


async def _greeted(bot: Bot, stop: asyncio.Event) -> bool:
    """Make sure of the token and set the menu of commands; wait where Telegram is out of reach. False if stopped."""
    wait = FIRST_RETRY_SECONDS
    while not stop.is_set():
        try:
            me = await bot.me()
            await bot.delete_webhook()  # while a webhook is set, polling gets nothing
            await bot.set_my_commands(_commands(ENGLISH))
            await bot.set_my_commands(_commands(RUSSIAN), language_code="ru")
        except (TelegramUnauthorizedError, TelegramNotFound):
            allowed = "a valid token, as @BotFather gives it"
            raise UsageError(said("Telegram does not know the bot's token", allowed)) from None
        except AiogramError as error:  # out of reach, or a gateway's page instead of an answer
            LOG.warning("Telegram does not answer (%s); trying again in %.0f s", _first_line(error), wait)
            await _sleep(wait, stop)
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)
            continue
        LOG.info("bot @%s is polling", me.username)
        return True
    return False


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _commands(words: Words) -> list[BotCommand]:
    return [BotCommand(command=name, description=text) for name, text in words.commands.items()]


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    """Sleep, but not longer than until `stop`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def _serve(bot: Bot, chat: Chat, stop: asyncio.Event) -> None:
    dispatcher, underway = Dispatcher(), Underway()
    dispatcher.update.outer_middleware(underway)
    dispatcher.include_router(chat.router())
    polling = asyncio.create_task(
        dispatcher.start_polling(bot, polling_timeout=POLL_SECONDS, handle_signals=False, close_bot_session=False)
    )
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({polling, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not polling.done():
        LOG.info("stopping: messages that are being read are answered first")
        await dispatcher.stop_polling()
    await polling  # raises what ended it, if it ended by itself
    await underway.finished(DRAIN_SECONDS)
    LOG.info("stopped")
