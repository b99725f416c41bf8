"""A reader of the page for the browser tests: a service on a port, a window on it, and all that goes wrong in it.

Not here: any test. The browser is Debian's chromium through Playwright, barriers are looked for by axe-core
(`tests/vendor/axe-core`), the fixtures stand in `conftest.py`.

    Visit(browser, Service()).open("table")
"""

from __future__ import annotations

import csv
import io
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from page_fake import Wishes, fake_app
from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
AXE = (Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js").read_text("utf-8")
VIEWS = ("try", "table", "adapters", "health")
PHONE = {"width": 390, "height": 844}


class Service:
    """A service on a port of its own: the fake one, or `app`."""

    def __init__(self, app: FastAPI | None = None) -> None:
        self.wishes = Wishes()
        self.app = app or fake_app(self.wishes)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        """Run in a thread until `stop`."""
        config = uvicorn.Config(self.app, port=self.port, log_level="warning", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)

    def stop(self) -> None:
        """As if the process had ended."""
        self.server.should_exit = True
        self.thread.join(10)


class Visit:
    """A reader with a browser window; everything that goes wrong in it is kept."""

    def __init__(self, browser: Browser, service: Service, **settings: Any) -> None:
        self.context: BrowserContext = browser.new_context(**{"locale": "en-GB", **settings})
        self.context.add_init_script(SHIFTS)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(30_000)  # a busy machine is slow, not wrong
        self.service = service
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.page.on(
            "console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self.hosts.add(asked.url.split("/")[2]))

    def open(self, view: str = "try") -> Page:
        """A view, once the adapters are known."""
        self.page.goto(self.service.address + f"#{view}")
        self.page.wait_for_function("!document.documentElement.classList.contains('waiting')")
        self.page.wait_for_load_state("networkidle")
        return self.page

    def barriers(self) -> list[str]:
        """What axe-core finds at level AA; run as the test's own code, which the page's policy does not reach."""
        self.page.evaluate(AXE)
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['impact']} {one['id']}: {node['target']} {node['failureSummary']}"
            for one in found["violations"]
            for node in one["nodes"]
        ]

    def shift(self) -> float:
        """How much of the page has moved by itself so far (0 is nothing, 0.1 still counts as good)."""
        return self.page.evaluate("window.movedBy")


SHIFTS = """
window.movedBy = 0;
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.movedBy += one.value;
}).observe({ type: "layout-shift", buffered: true });
"""


def saved(page: Page, folder: Path, delimiter: str = ",") -> tuple[str, list[list[str]]]:
    """Save the labelled table: the name that it was given, and its rows."""
    with page.expect_download() as waiting:
        page.locator("#table-save").click()
    path = folder / "saved.csv"
    waiting.value.save_as(path)
    text = path.read_bytes().decode("utf-8")
    return waiting.value.suggested_filename, list(
        csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter)
    )


def many_comments(count: int) -> dict[str, Any]:
    """A table of comments as a file for the page."""
    return {
        "name": "many.csv",
        "mimeType": "text/csv",
        "buffer": ("text\n" + "".join(f"comment number {k}\n" for k in range(count))).encode(),
    }
