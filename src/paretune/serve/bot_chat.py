"""The bot's conversation: which message leads to which call of the API and to which words.

Not here: the words (`bot_words.py`), the process around it (`bot.py`). Needs aiogram (extra `bot`). Commands: /start,
/help, /adapters, /compare, /lang; every other text is classified. Buttons carry a hash, since Telegram allows 64 bytes.

    dispatcher.include_router(Chat(client, Choices()).router())
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

from aiogram import F, Router
from aiogram.exceptions import AiogramError, TelegramBadRequest, TelegramForbiddenError
from aiogram.filters import Command, CommandObject, CommandStart
from aiogram.types import (
    CallbackQuery,
    ErrorEvent,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    Message,
)

from paretune.core.errors import StorageError
from paretune.serve.bot_choices import Choices
from paretune.serve.bot_words import (
    WORDS,
    Language,
    Words,
    answer_html,
    labels_html,
    language_of,
    messages,
    name_html,
    result_html,
    trouble_html,
)
from paretune.serve.client import Adapter, ApiError, Client

LOG = logging.getLogger("paretune.bot")
BUTTONS_A_PAGE = 8
MOST_PENDING = 3  # messages of one chat that are being read at the same time
MOST_CALLS = 16  # of the service at the same time, for all chats; the others wait their turn
_USE, _PAGE, _LANG = "use:", "page:", "lang:"
_NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


def button_of(name: str) -> str:
    """What the button of an adapter carries: its name may be longer than Telegram allows."""
    return _USE + hashlib.sha256(name.encode()).hexdigest()[:24]


def adapters_keyboard(adapters: list[Adapter], chosen: str | None, page: int) -> InlineKeyboardMarkup:
    """One adapter a row, the chosen one marked; arrows where one page does not hold them all."""
    pages = max(1, -(-len(adapters) // BUTTONS_A_PAGE))
    page = min(max(page, 0), pages - 1)
    shown = adapters[page * BUTTONS_A_PAGE : (page + 1) * BUTTONS_A_PAGE]
    rows = [
        [InlineKeyboardButton(text=("✓ " if one.id == chosen else "") + one.id[:60], callback_data=button_of(one.id))]
        for one in shown
    ]
    if pages > 1:
        before, after = (page - 1) % pages, (page + 1) % pages
        arrows = [("‹", before), (f"{page + 1}/{pages}", page), ("›", after)]
        rows.append([InlineKeyboardButton(text=text, callback_data=f"{_PAGE}{to}") for text, to in arrows])
    return InlineKeyboardMarkup(inline_keyboard=rows)


class Chat:
    """The handlers of one bot, over one client and the choices of its chats."""

    def __init__(self, client: Client, choices: Choices) -> None:
        self._client, self._choices = client, choices
        self._default: str | None = None
        self._pending: Counter[int] = Counter()
        self._calls = asyncio.Semaphore(MOST_CALLS)

    def router(self) -> Router:
        """All handlers in the order in which they are asked."""
        router = Router(name="paretune")
        router.message.register(self.help, CommandStart())
        router.message.register(self.help, Command("help"))
        router.message.register(self.adapters, Command("adapters"))
        router.message.register(self.compare, Command("compare"))
        router.message.register(self.lang, Command("lang"))
        router.message.register(self.unknown_command, F.text.startswith("/"))
        router.message.register(self.text, F.text | F.caption)
        # Joined, pinned and the like are no one's words; only what a person sent gets an answer.
        router.message.register(self.no_text, F.content_type.in_(_SENT_BY_PEOPLE))
        router.callback_query.register(self.use, F.data.startswith(_USE))
        router.callback_query.register(self.turn_page, F.data.startswith(_PAGE))
        router.callback_query.register(self.set_language, F.data.startswith(_LANG))
        router.callback_query.register(self.stale_button)
        router.errors.register(self.failed)
        return router

    def _words(self, event: Message | CallbackQuery) -> Words:
        return WORDS[self._language(event)]

    def _language(self, event: Message | CallbackQuery) -> Language:
        chat = _chat_of(event)
        chosen = self._choices.of(chat).language if chat is not None else None
        return chosen or language_of(event.from_user.language_code if event.from_user else None)

    async def help(self, message: Message) -> None:
        """/start and /help."""
        await _reply(message, self._words(message).help)

    async def unknown_command(self, message: Message) -> None:
        await _reply(message, self._words(message).unknown_command)

    async def no_text(self, message: Message) -> None:
        """A picture, a voice, a sticker without a word."""
        await _reply(message, self._words(message).text_only)

    async def text(self, message: Message) -> None:
        """Classify a message, or the caption of a file, with the chat's adapter."""
        words = self._words(message)
        text = message.text or message.caption or ""

        async def read() -> None:
            name = await self._adapter_for(message.chat.id)
            if name is None:
                await _reply(message, words.none_ready)
                return
            try:
                answer = await self._client.classify(text, name, self._waiting(message, words))
            except ApiError as error:
                if error.trouble != "missing":
                    raise
                self._default = None
                self._remember(lambda: self._choices.forget_adapter(message.chat.id))
                await _reply(message, words.gone.format(name=name_html(name)))
                return
            await _reply(message, answer_html(answer, words))

        await self._ask(message, words, read)

    async def compare(self, message: Message, command: CommandObject) -> None:
        """/compare TEXT, or /compare as the reply to a message: what every adapter says of it."""
        words = self._words(message)
        replied = message.reply_to_message
        text = command.args or (replied and (replied.text or replied.caption)) or ""
        if not text.strip():
            await _reply(message, words.compare_how)
            return

        async def read() -> None:
            results = await self._client.compare(text, self._waiting(message, words))
            for part in messages([result_html(one, words) for one in results]) or [words.none_ready]:
                await _reply(message, part)

        await self._ask(message, words, read)

    async def adapters(self, message: Message) -> None:
        """/adapters: one button an adapter."""
        words = self._words(message)

        async def show() -> None:
            ready = await self._client.adapters()
            chosen = self._choices.of(message.chat.id).adapter or (ready[0].id if ready else None)
            if ready:
                await _reply(message, words.choose, adapters_keyboard(ready, chosen, 0))
            else:
                await _reply(message, words.none_ready)

        await self._ask(message, words, show)

    async def lang(self, message: Message, command: CommandObject) -> None:
        """/lang ru|en; without a language it offers both."""
        wanted = (command.args or "").strip().lower()
        if wanted == "ru" or wanted == "en":
            self._remember(lambda: self._choices.change(message.chat.id, language=wanted))
            await _reply(message, WORDS[wanted].language_set)
            return
        buttons = [
            InlineKeyboardButton(text=text, callback_data=_LANG + code)
            for code, text in (("ru", "Русский"), ("en", "English"))
        ]
        await _reply(message, self._words(message).language_how, InlineKeyboardMarkup(inline_keyboard=[buttons]))

    async def use(self, query: CallbackQuery) -> None:
        """A press on an adapter's button."""
        words, message = self._words(query), query.message
        try:
            ready = await self._client.adapters()
        except ApiError as error:
            await self._answer_press(query, trouble_html(error, words))
            return
        found = next((one for one in ready if button_of(one.id) == query.data), None)
        if message is None or found is None:
            await self._answer_press(query, words.old_list)
            return
        self._remember(lambda: self._choices.change(message.chat.id, adapter=found.id))
        place = [one.id for one in ready].index(found.id)
        keyboard = adapters_keyboard(ready, found.id, place // BUTTONS_A_PAGE)
        await query.answer()
        if isinstance(message, Message):  # an old message can no longer be edited
            text = words.chosen.format(name=name_html(found.id), labels=labels_html(found.labels))
            await _edit(message, text, keyboard)

    async def turn_page(self, query: CallbackQuery) -> None:
        """A press on an arrow below the adapters."""
        words, message = self._words(query), query.message
        try:
            ready = await self._client.adapters()
        except ApiError as error:
            await self._answer_press(query, trouble_html(error, words))
            return
        await query.answer()
        digits = (query.data or "").removeprefix(_PAGE)
        if isinstance(message, Message) and digits.isdecimal():
            chosen = self._choices.of(message.chat.id).adapter
            await _edit(message, words.choose, adapters_keyboard(ready, chosen, int(digits[:6])))

    async def set_language(self, query: CallbackQuery) -> None:
        """A press on a language's button."""
        message = query.message
        code = (query.data or "").removeprefix(_LANG)
        await query.answer()
        if message is not None and (code == "ru" or code == "en"):
            self._remember(lambda: self._choices.change(message.chat.id, language=code))
            if isinstance(message, Message):
                await _edit(message, WORDS[code].language_set, None)

    async def stale_button(self, query: CallbackQuery) -> None:
        """A button that no version of this bot knows."""
        await query.answer()

    async def failed(self, event: ErrorEvent) -> bool:
        """Whatever went wrong in a handler: log its kind, and tell the person if Telegram lets us."""
        error, message = event.exception, event.update.message
        if isinstance(error, TelegramForbiddenError):  # blocked by the person, or put out of the group
            LOG.info("update %d: the chat does not take messages", event.update.update_id)
            return True
        LOG.error("update %d: %s", event.update.update_id, type(error).__name__, exc_info=error)
        if message is not None and not isinstance(error, AiogramError):
            try:
                await _reply(message, self._words(message).broken)
            except AiogramError as second:
                LOG.error("update %d: %s", event.update.update_id, type(second).__name__)
        return True

    async def _ask(self, message: Message, words: Words, call: Callable[[], Awaitable[None]]) -> None:
        """Do what needs the service, a few at a time for each chat; say what went wrong."""
        with self._turn(message.chat.id) as mine:
            if not mine:
                await _reply(message, words.slow_down)
                return
            try:
                async with self._calls:
                    await call()
            except ApiError as error:
                LOG.warning("%s", error)
                await _reply(message, trouble_html(error, words))

    @contextmanager
    def _turn(self, chat: int) -> Generator[bool]:
        mine = self._pending[chat] < MOST_PENDING
        self._pending[chat] += mine
        try:
            yield mine
        finally:
            self._pending[chat] -= mine
            if not self._pending[chat]:
                del self._pending[chat]

    def _waiting(self, message: Message, words: Words) -> Callable[[float], Awaitable[None]]:
        """Tells the person of the first wait that is long enough to be noticed."""
        told = False

        async def tell(seconds: float) -> None:
            nonlocal told
            if seconds >= 1 and not told:
                told = True
                await _reply(message, words.waiting.format(seconds=round(seconds)))

        return tell

    async def _adapter_for(self, chat: int) -> str | None:
        """The chat's choice, else the first adapter of the service, which stays the default while it is there."""
        chosen = self._choices.of(chat).adapter
        if chosen is not None:
            return chosen
        if self._default is None:
            ready = await self._client.adapters()
            self._default = ready[0].id if ready else None
        return self._default

    def _remember(self, change: Callable[[], None]) -> None:
        """A choice that cannot be written still holds until the bot stops; the log says so."""
        try:
            change()
        except StorageError as error:
            LOG.error("%s", error)

    async def _answer_press(self, query: CallbackQuery, text: str) -> None:
        """A short note over the chat; Telegram shows it as plain text of at most 200 characters."""
        await query.answer(text[:200])


_SENT_BY_PEOPLE = {
    "animation", "audio", "contact", "dice", "document", "game", "invoice", "location", "paid_media", "photo", "poll",
    "sticker", "story", "venue", "video", "video_note", "voice",
}  # fmt: skip


def _chat_of(event: Message | CallbackQuery) -> int | None:
    if isinstance(event, Message):
        return event.chat.id
    return event.message.chat.id if event.message else None


async def _reply(message: Message, html: str, keyboard: InlineKeyboardMarkup | None = None) -> None:
    await message.reply(html, reply_markup=keyboard, allow_sending_without_reply=True, link_preview_options=_NO_PREVIEW)


async def _edit(message: Message, html: str, keyboard: InlineKeyboardMarkup | None) -> None:
    """Change a message of ours; a second press on the same button changes nothing, which Telegram calls an error."""
    try:
        await message.edit_text(html, reply_markup=keyboard)
    except TelegramBadRequest as error:
        if "not modified" not in error.message:
            raise
