"""The dashboard in a real browser: each page does its work, in both languages and themes, without error or barrier.

Not here: what stands on the pages (`integration/test_dashboard*.py`). Screenshots go to the folder that
PARETUNE_SCREENSHOTS names.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_reader import runs_of, write_one, write_studies
from page_visit import CHROMIUM, PHONE, Service, Visit
from playwright.sync_api import Browser, Page, expect

from paretune.dashboard.app import create_app
from paretune.dashboard.gate import LOOPBACK_HOSTS, Rights
from paretune.dashboard.gathered import Gatherer
from paretune.dashboard.generated import event_lines
from paretune.dashboard.index import Index
from paretune.records.store import RunFolder
from paretune.report.draws import chances, draws_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's package chromium"),
]
PAGES = {
    "list": "",
    "claims": "claims",
    "results": "study/demo",
    "budget": "study/demo/budget",
    "settings": "study/settings/settings",
    "runs": "study/demo/runs",
    "data": "study/demo/data",
    "examples": "study/demo/examples",
    "missing": "study/nope",
}
CLAIMS = """
[claims.memory]
en = "LoRA needs {memory} of the memory of full fine-tuning."
ru = "LoRA нужно {memory} памяти полного дообучения."
verdict = "supported"
[claims.memory.when.memory]
study = "fabricated"
method = "lora"
than = "full"
rule = "at_most"
cost = "peak_memory"
ratio = 0.9
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies that no test changes, with a ledger of claims."""
    root = write_studies(tmp_path_factory.mktemp("studies"))
    (root / "claims.toml").write_text(CLAIMS, encoding="utf-8")
    (runs_of(root / "demo", "head")[0] / "measurements.json").write_text('{"half": ', encoding="utf-8")
    return root


def served(root: Path, token: str | None = None) -> Service:
    return Service(create_app([root], Rights(token, LOOPBACK_HOSTS), "en"))


@pytest.fixture(scope="module")
def dashboard(studies: Path) -> Iterator[Service]:
    service = served(studies)
    yield service
    service.stop()


@pytest.fixture
def visit(browser: Browser, dashboard: Service) -> Iterator[Visit]:
    """A reader in whose window nothing may go wrong, and who talks to the dashboard alone."""
    visit = Visit(browser, dashboard)
    yield visit
    visit.context.close()
    assert visit.errors == []
    assert visit.hosts <= {f"127.0.0.1:{dashboard.port}"}


def opened(visit: Visit, path: str) -> Page:
    """A page with its figures drawn."""
    page = visit.page
    page.goto(visit.service.address + path)
    if page.locator("script.specs").count():
        page.wait_for_function("document.documentElement.dataset.drawn !== undefined")
    return page


def pictured(page: Page, name: str) -> None:
    """Keep a picture of the whole page where somebody wants them."""
    folder = os.environ.get("PARETUNE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"dashboard-{name}.png", full_page=True)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("language", "theme", "size"), [("en", "light", None), ("ru", "dark", PHONE)])
def test_every_page_is_without_barriers(
    browser: Browser, dashboard: Service, name: str, language: str, theme: str, size: dict[str, int] | None
) -> None:
    """axe-core finds nothing, nothing is wider than the window, every figure is drawn, the console is silent."""
    settings: dict[str, Any] = {"color_scheme": theme, **({"viewport": size} if size else {})}
    visit = Visit(browser, dashboard, **settings)
    page = opened(visit, f"{PAGES[name]}?lang={language}")
    assert page.locator("html").get_attribute("lang") == language
    assert visit.barriers() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    figures = page.locator(".ink")
    assert page.locator(".ink svg").count() == figures.count()
    if name in ("results", "budget", "settings", "data"):
        assert figures.count() >= 2
    pictured(page, f"{name}-{language}-{theme}" + ("-phone" if size else ""))
    visit.context.close()
    assert [one for one in visit.errors if "404" not in one] == [] and (name == "missing" or visit.errors == [])


def test_the_list_is_filtered(visit: Visit) -> None:
    """Typing hides the other rows and says how many are left; emptying brings them back."""
    page = opened(visit, "")
    rows = page.locator("#studies tbody tr:visible")
    expect(rows).to_have_count(3)
    page.get_by_label("Filter").fill("SETT")
    expect(rows).to_have_count(1)
    expect(page.locator("#filter-said")).to_have_text("shown: 1")
    page.get_by_label("Filter").fill("")
    expect(rows).to_have_count(3)
    page.get_by_role("link", name="settings").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("settings")


def test_the_slider_gives_the_chances_of_its_place(visit: Visit, studies: Path) -> None:
    """Moved with the keyboard, it shows at once what the statistics say for that budget."""
    page = opened(visit, "study/demo/budget")
    page.wait_for_selector("#budget[data-ready]")
    slider = page.get_by_label("Memory, at most")
    shares = page.locator("#chances .chance")
    free = shares.all_text_contents()
    slider.focus()
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    place = int(slider.input_value())
    assert place == 140
    low, high = (float(page.locator("#budget").get_attribute(f"data-memory-{end}") or 0) for end in ("low", "high"))
    limit = low * (high / low) ** (place / 199)
    names = page.locator("#chances tbody tr").evaluate_all("rows => rows.map((row) => row.dataset.method)")
    index = Index(studies)  # one run cannot be read, so that the report's own `gather` would not do
    entry = index.study("demo")
    assert entry is not None
    facts = Gatherer(index).gathered(entry).facts
    assert facts is not None
    draws = draws_of(facts)
    assert draws is not None
    wanted = chances(draws, limit, float("inf"))
    shown = [float(one.rstrip("%")) / 100 for one in shares.all_text_contents()]
    assert shown == pytest.approx([wanted[name] for name in names], abs=0.012)
    assert shares.all_text_contents() != free
    expect(page.locator("#budget-said")).to_contain_text("Best within the budget:")
    page.keyboard.press("Home")
    page.get_by_label("Training time, at most").press("Home")
    expect(page.locator("#budget-said")).to_have_text("Nothing fits into this budget.")
    expect(page.locator("#memory-out")).not_to_have_text("no limit")
    pictured(page, "budget-moved")


def test_language_and_theme_are_switched_and_kept(visit: Visit) -> None:
    """Both hold on the next page; the theme changes the paper, the system's returns."""
    page = opened(visit, "study/demo")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="dark").click()
    dark = page.evaluate(paper)
    assert dark != light
    page.get_by_role("link", name="Русский").click()
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    assert page.evaluate(paper) == dark
    page.goto(visit.service.address)
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.locator('[data-theme-choice=""]').click()
    assert page.evaluate(paper) == light
    page.reload()
    assert page.evaluate(paper) == light


def test_the_export_opens_from_disk(visit: Visit, browser: Browser, tmp_path: Path) -> None:
    """Saved from the page, it opens without a server, with figures that come alive and no error."""
    page = opened(visit, "study/settings")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save this study as one file").click()
    assert waiting.value.suggested_filename == "settings.en.html"
    path = tmp_path / "settings.html"
    waiting.value.save_as(path)
    errors: list[str] = []
    context = browser.new_context(offline=True)
    alone = context.new_page()
    alone.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
    alone.on("pageerror", lambda error: errors.append(str(error)))
    alone.goto(path.as_uri())
    expect(alone.get_by_role("heading", level=1)).to_have_text("generated")
    expect(alone.locator("#budget h2")).to_contain_text("Within a budget")
    ink = alone.locator("#figure-effects-lora .ink.wide")
    ink.scroll_into_view_if_needed()
    ink.hover()
    expect(ink).to_have_class("ink wide live")
    pictured(alone, "export")
    context.close()
    assert errors == []


def test_a_page_is_reloaded_while_a_run_is_written(browser: Browser, tmp_path: Path) -> None:
    """Progress and curve grow by themselves, are there again after a reload, and the result comes without one."""
    one = write_one(tmp_path)
    run = runs_of(one, "lora")[-1]
    kept = {name: (run / name).read_bytes() for name in ("status", "measurements.json", "predictions.parquet")}
    for name in kept:
        (run / name).unlink()
    (run / "events.jsonl").write_text("")
    done = threading.Event()
    lines = event_lines(400, 0.0, np.random.default_rng(0))

    def write() -> None:
        with RunFolder(run).claimed():
            for at, line in enumerate(lines):
                with (run / "events.jsonl").open("a", encoding="utf-8") as file:
                    file.write(line[:20])
                    file.flush()
                    time.sleep(0.02)
                    file.write(line[20:])
                if at > 100 and done.is_set():
                    break
            done.wait()
            for name in ("predictions.parquet", "measurements.json", "status"):
                (run / f"{name}.new").write_bytes(kept[name])
                os.replace(run / f"{name}.new", run / name)

    writer = threading.Thread(target=write)
    writer.start()
    service = served(tmp_path)
    visit = Visit(browser, service)
    try:
        page = opened(visit, "study/one")
        numbers = page.locator(".live-numbers")
        expect(numbers).to_contain_text("of 400")
        expect(page.locator("#live-state")).to_have_text("running")
        first = numbers.inner_text()
        expect(numbers).not_to_have_text(first)
        expect(page.locator(".live-curve path.line")).to_have_count(1)
        before = page.locator("#results tbody").first.inner_text()
        page.reload()
        expect(numbers).to_contain_text("of 400")
        expect(page.locator("#results tbody").first).to_have_text(before, use_inner_text=True)
        assert visit.barriers() == []
        pictured(page, "running")
        done.set()
        writer.join()
        expect(page.locator("#live-state")).not_to_have_text("running")
        expect(page.locator("#live-runs")).to_have_text("Nothing runs now.")
        expect(page.locator("#results tbody").first).not_to_have_text(before, use_inner_text=True)
        expect(page.locator(".ink svg")).to_have_count(page.locator(".ink").count())
    finally:
        done.set()
        writer.join()
        visit.context.close()
        service.stop()
    assert visit.errors == []


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    """The first tab stop skips to the content; tabs, switches and tables have a visible focus."""
    page = opened(visit, "study/demo")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.get_by_role("link", name="Budget").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What you have")).to_be_visible()


def test_two_runs_are_chosen_and_compared(visit: Visit) -> None:
    """From the list of runs, by their names."""
    page = opened(visit, "study/demo/runs")
    page.get_by_label("second run").select_option(index=5)
    page.get_by_role("button", name="Put side by side").click()
    expect(page.get_by_role("heading", name="Entries of the specs that differ")).to_be_visible()
    assert visit.barriers() == []
    pictured(page, "compare")


def test_a_token_opens_the_door_once(browser: Browser, studies: Path) -> None:
    """The link leads in and is gone from the address; the form takes the token where the link is used up."""
    service = served(studies, "the-token")
    visit = Visit(browser, service)
    page = visit.page
    page.goto(service.address + "?token=the-token")
    expect(page.get_by_role("link", name="demo")).to_be_visible()
    assert "token" not in page.url
    visit.context.clear_cookies()
    page.goto(service.address + "?token=the-token")
    expect(page.get_by_label("Token")).to_be_visible()
    assert visit.barriers() == []
    page.get_by_label("Token").fill("the-token")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("link", name="demo")).to_be_visible()
    visit.context.close()
    service.stop()
    assert [one for one in visit.errors if "401" not in one] == []


def test_a_phone_shows_each_verdict(browser: Browser, dashboard: Service) -> None:
    """At 360 px the verdict of every method lies inside the window, with the name of its column before it."""
    visit = Visit(browser, dashboard, viewport={"width": 360, "height": 780})
    for language, column in (("en", "verdict"), ("ru", "вывод")):
        page = opened(visit, f"study/demo?lang={language}")
        cells = page.locator("#results table").first.locator(f'td[data-label="{column}"] span')
        assert cells.count() == 7
        for place in range(7):
            box = cells.nth(place).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360
    visit.context.close()
