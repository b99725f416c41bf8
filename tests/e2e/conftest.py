"""Fixtures of the browser tests; Playwright is imported only where one of them is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from page_visit import Service, Visit
    from playwright.sync_api import Browser

PATIENCE_MS = 30_000  # a busy machine is slow, not wrong


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, one for a test file."""
    from page_visit import CHROMIUM
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """The fake service."""
    from page_visit import Service

    service = Service()
    yield service
    service.stop()


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Visit]:
    """A reader in whose window nothing may go wrong, and who talks to the service alone."""
    from page_visit import Visit

    visit = Visit(browser, service)
    yield visit
    visit.context.close()
    assert visit.errors == []
    assert visit.hosts <= {f"127.0.0.1:{service.port}"}
