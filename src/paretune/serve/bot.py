"""`paretune bot`: a Telegram bot that is a client of the service's API, by long polling, until SIGTERM or SIGINT.

Not here: what it says (`bot_words.py`) and when (`bot_chat.py`). aiogram is imported inside, so that a machine without
the extra gets one clear line (https://docs.aiogram.dev). Neither the token nor the key is ever logged.

    run_bot(BotSettings(api="http://127.0.0.1:8000", key=None, token=read_token(Path("token"), {})))
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paretune.core.errors import ConfigError, UsageError, said
from paretune.core.secret_files import read_secret

TOKEN_VARIABLE = "PARETUNE_BOT_TOKEN"
TELEGRAM = "https://api.telegram.org"
TOKEN_FORM = re.compile(r"[0-9]{3,20}:[A-Za-z0-9_-]{3,200}", re.ASCII)
KEY_FORM = re.compile(r"[\x21-\x7e]{1,500}", re.ASCII)
REDACTED = "[secret]"


@dataclass(frozen=True)
class BotSettings:
    """How to run the bot; `state` None keeps the chats' choices in memory only. Secrets stay out of its repr."""

    api: str
    key: str | None = field(repr=False)
    token: str = field(repr=False)
    telegram_api: str = TELEGRAM
    state: Path | None = None


def read_token(file: Path | None, environment: Mapping[str, str]) -> str:
    """The bot's token, from its file or from the environment.

    Raises:
        ConfigError: neither is there, or it has not the form of a token.
    """
    token = read_secret(file, "--token-file") if file else environment.get(TOKEN_VARIABLE, "").strip()
    if not token:
        allowed = f"--token-file FILE or {TOKEN_VARIABLE} in the environment"
        raise ConfigError(said("no token of a bot", allowed, do="@BotFather gives one"))
    if not TOKEN_FORM.fullmatch(token):
        where = f"--token-file {file}" if file else TOKEN_VARIABLE
        raise ConfigError(said(f"{where} holds no token of a bot", "digits, a colon, and letters as @BotFather gives"))
    return token


def read_key(file: Path | None) -> str | None:
    """The API's key for the bot, from its file; None for a service that asks for none.

    Raises:
        ConfigError: as `read_secret`, or signs that no key has.
    """
    if file is None:
        return None
    key = read_secret(file, "--key-file")
    if not KEY_FORM.fullmatch(key):
        raise ConfigError(said(f"--key-file {file} holds no key", "a key that `paretune serve` knows"))
    return key


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, and takes the secrets out: Telegram's URLs carry the token."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record), self._secrets)


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """The text without the secrets, also where a URL has them percent-encoded."""
    for secret in secrets:
        text = text.replace(secret, REDACTED).replace(secret.replace(":", "%3A"), REDACTED)
    return text


def _log_to_stderr(secrets: tuple[str, ...]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("aiogram.event").setLevel(logging.WARNING)  # it says a line for every message


def run_bot(settings: BotSettings) -> None:
    """Poll until SIGTERM or SIGINT; messages that are being answered are answered first.

    Raises:
        UsageError: aiogram is missing, Telegram does not know the token, the API does not accept the key, or the state
            file cannot be used.
    """
    if importlib.util.find_spec("aiogram") is None:
        raise UsageError("the bot needs aiogram, which is not installed — pip install 'paretune[bot]'")
    from paretune.serve.bot_polling import poll

    _log_to_stderr(tuple(one for one in (settings.token, settings.key) if one))

    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await poll(settings, stop)

    asyncio.run(until_told())
