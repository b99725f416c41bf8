"""The dashboard's process: one uvicorn worker on the loopback, or elsewhere with a token, until a signal ends it.

Not here: pages (`app.py`), rights (`gate.py`). It only reads, so that a signal ends it at once, with 0.

    serve_dashboard([Path("results")], "127.0.0.1", 8010, None, "en", print)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import uvicorn

from paretune.core.addresses import is_loopback, listening
from paretune.core.errors import ConfigError, said
from paretune.core.secret_files import read_secret
from paretune.dashboard.app import create_app
from paretune.dashboard.gate import LOOPBACK_HOSTS, Rights
from paretune.report.wording import Words

MOST_CONNECTIONS = 200
NICE = 10  # pages give way to the runs that they show, whose seconds are measured


def serve_dashboard(
    folders: Sequence[Path], host: str, port: int, token: str | None, lang: str, say: Callable[[str], None]
) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit status. One line is said when it is ready; `port` 0 takes a free one.

    Raises:
        ConfigError: a public address without a token, a token that no header can carry, an address that is taken, an
            unknown language. RecordError: there is no such folder.
    """
    local = is_loopback(host)
    check_token(token, host, local)
    rights = Rights(token, LOOPBACK_HOSTS | {_bracketed(host).lower()} if local else None)
    app = create_app(folders, rights, lang)
    words = Words(lang)
    with contextlib.closing(listening(host, port)) as bound:
        config = uvicorn.Config(
            app,
            ws="none",
            loop="asyncio",
            lifespan="on",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        os.nice(NICE)
        place = f"http://{_bracketed(host)}:{bound.getsockname()[1]}/"
        return asyncio.run(_served(QuietServer(config), bound, lambda: say(_ready(words, place, token, folders))))


def _ready(words: Words, place: str, token: str | None, folders: Sequence[Path]) -> str:
    """The ready line; the token itself is not in it, since logs keep it."""
    values = {"address": place, "folders": ", ".join(map(str, folders))}
    if token is None:
        return words.say("ready: {address} shows {folders}; Ctrl-C ends it", values)
    return words.say("ready: {address} shows {folders} to those who have the token; Ctrl-C ends it", values)


def given_token(token: str | None, file: Path | None) -> str | None:
    """The token of the command line: as it stands there, or in a file.

    Raises:
        ConfigError: both are given, or the file holds no secret.
    """
    if token is not None and file is not None:
        raise ConfigError(said("--token and --token-file", "one of them"))
    return read_secret(file, "--token-file") if file is not None else token


def check_token(token: str | None, host: str, local: bool) -> None:
    """Without a token only this machine may reach the dashboard.

    Raises:
        ConfigError: it could be reached from elsewhere, or the token fits into no header.
    """
    if token is None and not local:
        given = f"--host {host} without --token-file or --token"
        raise ConfigError(said(given, "127.0.0.1, or a token that readers must give"))
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(said("this --token", "visible ASCII characters without spaces, at least one"))


class QuietServer(uvicorn.Server):
    """Signals are handled here: uvicorn would raise them again at the end, and so exit with 143."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _served(server: uvicorn.Server, bound: socket.socket, ready: Callable[[], None]) -> int:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit  # the second signal does not wait for answers
        logging.getLogger("uvicorn.error").disabled = server.force_exit  # nor tells of what it cuts off
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    serving = asyncio.create_task(server.serve([bound]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if not serving.done():
        ready()
    await serving
    return 0 if server.started else 1


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
