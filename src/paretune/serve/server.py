"""The server process: one uvicorn worker, one engine thread, a clean way up and down.

Not here: the API (`api.py`). A first SIGTERM or Ctrl-C refuses new work (503), answers what was accepted and exits 0; a
second one exits at once with 1. A dead engine thread ends the process with 1, so that whoever supervises it starts
another. Without keys it listens on the loopback only. Everything is ready before the port opens.

    serve([Path("emotions-bundle")], ServerOptions(store=Path("store")))
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import uvicorn
from fastapi import FastAPI

from paretune.core.addresses import is_loopback, listening
from paretune.core.config import validated
from paretune.core.errors import ConfigError, said
from paretune.core.limits import usable_cores
from paretune.models.sources import ModelSpec
from paretune.serve.api import ServiceSettings, create_app
from paretune.serve.bundle import MANIFEST_FILE, read_bundle
from paretune.serve.connection import PatientConnection
from paretune.serve.engine import Engine
from paretune.serve.health import Health
from paretune.serve.keys import Keys, read_keys
from paretune.serve.names import id_of
from paretune.serve.registry import Registry
from paretune.serve.scheduler import Scheduler
from paretune.serve.shelf import Shelf

log = logging.getLogger(__name__)
DRAIN_SECONDS = 30.0
LINGER_SECONDS = 0.5  # after the last answer, so that clients on open connections hear a 503 rather than a reset
# The engine's thread asks for the interpreter after each of some thousand small calls a pass; it should not wait long
# for the event loop, nor the event loop for it.
SWITCH_SECONDS = 0.001
MOST_HEADER_BYTES = 16_384
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class ServerOptions:
    """What the command line gives. `port` 0 takes a free one; the ready line names it. `base` is a model's source
    ("asset:minilm-l6"), needed only where there is no bundle yet."""

    store: Path
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: Path | None = None
    slots: int = 16
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    drain_seconds: float = DRAIN_SECONDS
    base: str | None = None


def named(argument: str) -> tuple[str | None, Path]:
    """NAME=FOLDER or FOLDER, as the command line takes bundles."""
    name, mark, path = argument.partition("=")
    return (name, Path(path)) if mark and "/" not in name else (None, Path(argument))


def serve(
    bundles: Sequence[tuple[str | None, Path]], options: ServerOptions, say: Callable[[str], None] = print
) -> int:
    """Serve until a signal ends it; the exit status. One line is said when it is ready.

    Raises:
        ConfigError: a public address without keys, a port that is taken, a store that is in use.
        BundleError: a bundle that may not serve, or none at all.
    """
    began = time.perf_counter()
    keys = read_keys(options.api_keys) if options.api_keys else None
    check_address(options.host, keys)
    sys.setswitchinterval(SWITCH_SECONDS)
    with ended_by_a_signal(), listening(options.host, options.port) as bound:  # bound before all the loading
        engine, scheduler, registry, default = assembled(bundles, options)
        with contextlib.closing(registry):
            hosts = None if keys else frozenset(LOOPBACK_HOSTS) | {options.host.lower()}
            app = create_app(registry, scheduler, engine, ServiceSettings(keys, hosts, default))
            host = f"[{options.host}]" if ":" in options.host else options.host
            place = f"http://{host}:{bound.getsockname()[1]}"

            def ready() -> None:
                count = len(registry.ready())
                adapters = f"{count} adapter{'s' if count != 1 else ''}"
                say(f"ready: {place} · {adapters} · {engine.precision} · {time.perf_counter() - began:.1f} s")

            process = Process(_server(app), app.state.health, scheduler, options.drain_seconds, ready)
            return asyncio.run(process.run([bound]))


@contextlib.contextmanager
def ended_by_a_signal() -> Generator[None]:
    """SIGTERM ends the process with 0 while it still loads; as a container's first process it would not hear it."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def assembled(
    bundles: Sequence[tuple[str | None, Path]], options: ServerOptions
) -> tuple[Engine, Scheduler, Registry, str | None]:
    """Engine, scheduler and registry with all bundles loaded, and the name of the first one given.

    Raises:
        as `serve`; nothing keeps running.
    """
    torch.set_num_threads(usable_cores())
    shelf = Shelf(options.store)
    shelf.prepare()
    given = expanded(bundles)
    engine = Engine(_spec(shelf, given, options.base), options.precision, options.slots, fetch=shelf.fetch)
    with contextlib.ExitStack() as undo:
        scheduler = Scheduler(engine)
        undo.callback(scheduler.close)
        registry = Registry(options.store, engine, scheduler)
        undo.callback(registry.close)
        registry.restore()
        names: list[str] = []
        for name, path in given:
            names.append(registry.add(path, name))
            if names[-1] in names[:-1]:
                known = said(f"two bundles are named {names[-1]!r}", "one name each", do="give NAME=FOLDER")
                raise ConfigError(known)
        undo.pop_all()
    return engine, scheduler, registry, names[0] if names else None


def check_address(host: str, keys: Keys | None) -> None:
    """Without keys only this machine may reach the server.

    Raises:
        ConfigError: it could be reached from elsewhere, or the name is unknown.
    """
    if keys is None and not is_loopback(host):
        given = f"--host {host} without --api-keys"
        raise ConfigError(said(given, "127.0.0.1, or a file of keys", do="`paretune keys` makes one"))


def expanded(bundles: Sequence[tuple[str | None, Path]]) -> list[tuple[str | None, Path]]:
    """Bundles as they are; a folder of bundles stands for all of them, each under its folder's name."""
    found: list[tuple[str | None, Path]] = []
    for name, path in bundles:
        if name is None and path.is_dir() and not (path / MANIFEST_FILE).exists():
            inside = sorted(one.parent for one in path.glob(f"*/{MANIFEST_FILE}"))
            found += [(id_of(one.name), one) for one in inside]
        else:
            found.append((name, path))
    return found


def _spec(shelf: Shelf, bundles: Sequence[tuple[str | None, Path]], base: str | None) -> ModelSpec:
    """The base model: that of the first bundle given, else of one that the store has, else the one that is named."""
    folders = [path for _, path in bundles] or sorted(shelf.adapters.glob("[0-9a-f]*"))
    if folders:
        return validated(read_bundle(folders[0]).manifest.model, ModelSpec, "the bundle's model")
    if base is not None:
        return validated({"source": base}, ModelSpec, "--base")
    do = "`paretune export RUN --to bundle` makes one, or --base asset:minilm-l6 starts without"
    raise ConfigError(said("no bundle to serve", "at least one", do=do))


def _server(app: FastAPI) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=PatientConnection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        workers=1,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )
    return QuietServer(config)


class QuietServer(uvicorn.Server):
    """Signals are handled by `Process`: uvicorn would raise them again at the end, and so exit with 143."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Process:
    """One server from its first request to its exit status."""

    def __init__(
        self,
        server: uvicorn.Server,
        health: Health,
        scheduler: Scheduler,
        drain_seconds: float,
        ready: Callable[[], None],
    ) -> None:
        self._server, self._health, self._scheduler = server, health, scheduler
        self._drain_seconds = drain_seconds
        self._ready = ready
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self, sockets: list[socket.socket]) -> int:
        """Serve, and return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        serving = asyncio.create_task(self._server.serve(sockets))
        watching = asyncio.create_task(self._watch())
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        if not serving.done():
            trouble = await self._health.trouble()
            if trouble:
                log.warning("not ready: %s", trouble)
            self._ready()
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await self._drain()
        await serving
        for task in (watching, stopping):
            task.cancel()
        return self._code

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            log.warning("stopped at once by a second signal")
            sys.stdout.flush()
            os._exit(1)  # the engine's thread may be in the middle of a batch
        self._stopping.set()

    async def _drain(self) -> None:
        """New work is refused at once; what was accepted is answered, then the connections are closed."""
        self._health.draining = True
        if self._scheduler.alive and not await asyncio.to_thread(self._scheduler.drain, self._drain_seconds):
            log.warning("some requests were not answered within %g s", self._drain_seconds)
        await asyncio.sleep(LINGER_SECONDS)
        self._server.should_exit = True

    async def _watch(self) -> None:
        """End the process when the engine's thread is dead; /readyz has said so meanwhile."""
        while not self._stopping.is_set():
            if not self._scheduler.alive:
                log.critical("the engine has stopped")
                await asyncio.sleep(1.0)
                self._code = 1
                self._stopping.set()
            await asyncio.sleep(0.25)
