"""The page in a real browser: each view does its work, in both languages and themes, without an error or a barrier.

Not here: the files themselves (`integration/test_page.py`), tables (`test_page_table_browser.py`). The service is
`page_fake.py` on a loopback port, and once the real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_fake import digest_of
from page_visit import CHROMIUM, PHONE, VIEWS, Service, Visit, many_comments, saved
from playwright.sync_api import Browser, expect
from served import make, parts

from paretune.serve.api import ServiceSettings, create_app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's package chromium"),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("language", "theme", "size"), [("en-GB", "light", None), ("ru-RU", "dark", PHONE)])
def test_every_view_is_without_barriers_and_stands_still(
    browser: Browser, service: Service, view: str, language: str, theme: str, size: dict[str, int] | None
) -> None:
    """axe-core finds nothing, nothing is wider than a phone, nothing moves by itself, the console is silent."""
    settings: dict[str, Any] = {"locale": language, "color_scheme": theme}
    visit = Visit(browser, service, **settings, **({"viewport": size} if size else {}))
    page = visit.open(view)
    if view == "try":
        page.locator(".chip").first.click()
        page.locator(".answer-card").nth(2).wait_for()
    expect(page.locator(f"#view-{view} h2")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == language[:2]
    assert visit.barriers() == []
    assert visit.shift() < 0.02
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit.context.close()
    assert visit.errors == []


def test_try_one_text_side_by_side_and_alone(visit: Visit) -> None:
    """All adapters answer side by side with bars and numbers; one alone; the answer is read out."""
    page = visit.open()
    page.get_by_label("Text", exact=True).fill("Thank you so much!")
    page.get_by_role("button", name="Sort it").click()
    cards = page.locator(".answer-card")
    expect(cards).to_have_count(3)
    expect(cards.nth(1).locator("h3")).to_have_text("emotions")
    numbers = cards.nth(1).locator(".bars .number").all_text_contents()
    shares = [float(one.rstrip("%")) for one in numbers]
    assert len(shares) == 10 and sum(shares) == pytest.approx(100, abs=0.6)
    assert shares == sorted(shares, reverse=True)
    expect(page.locator("#try-said")).to_contain_text("emotions:")
    page.locator("#view-try").get_by_label("Adapter", exact=True).select_option("acceptability")
    page.get_by_label("Text", exact=True).press("Control+Enter")
    expect(cards).to_have_count(1)
    expect(cards.locator("h3")).to_have_text("acceptability")


def test_an_unsure_answer_is_left_to_a_person(visit: Visit) -> None:
    """The card says so in words, with the closest class, confidence and threshold."""
    page = visit.open()
    page.get_by_role("button", name="Well, that happened.").click()
    card = page.locator(".answer-card").nth(1)
    expect(card.locator(".verdict")).to_have_text("left to a person")
    expect(card).to_contain_text("closest class:")
    expect(card).to_contain_text("threshold 55.0%")
    expect(page.locator("#try-said")).to_contain_text("left to a person")


def test_an_adapter_that_fails_does_not_hide_the_others(visit: Visit) -> None:
    """The failed one has a card of its own that says why."""
    page = visit.open()
    page.get_by_label("Text", exact=True).fill("NaN")
    page.get_by_role("button", name="Sort it").click()
    expect(page.locator(".answer-card")).to_have_count(4)
    expect(page.locator(".answer-card.failed")).to_contain_text("it gave a number that is none")


def test_empty_text_is_refused_in_words(visit: Visit) -> None:
    """Nothing is sent; the focus goes to the field."""
    page = visit.open()
    page.get_by_role("button", name="Sort it").click()
    expect(page.locator("#try-problem")).to_have_text("Write a text or take an example first.")
    expect(page.get_by_label("Text", exact=True)).to_be_focused()


def test_cards_show_the_evidence(visit: Visit) -> None:
    """Quality with interval, cost, threshold with its curve, digest; what does not serve is named with its reason."""
    page = visit.open("adapters")
    card = page.locator("article.adapter").nth(0)
    expect(card).to_contain_text("macro-F1")
    expect(card).to_contain_text("95 % interval [0.860 … 0.886]")
    expect(card).to_contain_text("1.28 MiB".replace(" ", "\u00a0"))
    expect(card).to_contain_text(
        "Below a confidence of 82.0%, fitted on 1 validation row for at most 10.0% wrong answers."
    )
    expect(card.get_by_role("img")).to_have_accessible_name(
        "Risk and coverage. On test data it answers 70% of the texts and is wrong in 9.6% of those; "
        "answering all it would be wrong in 21.0%."
    )
    card.get_by_text("Identity").click()
    expect(card.locator(".version").nth(0)).to_have_text(f"{digest_of('acceptability')} 90%")
    expect(card.locator(".version").nth(1)).to_have_text(f"{digest_of('acceptability2')} 10%")
    expect(page.locator(".away")).to_contain_text("toxicity")
    expect(page.locator(".away")).to_contain_text("its base model is another one")


def test_health_is_refreshed_while_it_is_looked_at_and_can_be_paused(visit: Visit) -> None:
    """Asked again after seconds; not when paused, not when another view is shown."""
    asked: list[str] = []
    visit.page.on("request", lambda one: asked.append(one.url) if one.url.endswith("/v1/status") else None)
    page = visit.open("health")
    expect(page.locator("#health-tiles")).to_contain_text("12 of 256")
    expect(page.locator("#health-tiles")).to_contain_text("emotions")
    page.wait_for_event("request", lambda one: one.url.endswith("/v1/status"))
    page.get_by_role("button", name="Pause").click()
    seen = len(asked)
    page.wait_for_timeout(3_500)
    assert len(asked) == seen
    with page.expect_request("**/v1/status"):
        page.get_by_role("button", name="Resume").click()
    page.get_by_role("link", name="Text", exact=True).click()
    seen = len(asked)
    page.wait_for_timeout(3_500)
    assert len(asked) == seen


def test_language_and_theme_are_switched_and_remembered(visit: Visit) -> None:
    """Texts, title and html lang change at once and stay after a reload; the theme too."""
    page = visit.open()
    page.get_by_role("button", name="Русский").click()
    expect(page.locator("#try-go")).to_have_text("Определить")
    expect(page).to_have_title("Один текст — paretune")
    page.get_by_role("button", name="Тёмная").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#try-go")).to_have_text("Определить")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.get_by_role("button", name="Светлая").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    expect(page.get_by_role("button", name="Светлая")).to_have_attribute("aria-pressed", "true")


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    """Skip link first, a focus that is seen, views by Enter with the focus on their title."""
    page = visit.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.get_by_role("link", name="Adapters").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#adapters-title")).to_be_focused()
    page.go_back()
    expect(page.locator("#view-try")).to_be_visible()


def test_a_key_is_asked_for_and_forgotten(browser: Browser, service: Service) -> None:
    """401 shows the field; a wrong key is said to be wrong; the right one opens; it is in sessionStorage alone."""
    service.wishes.key = "secret-key"
    visit = Visit(browser, service)
    page = visit.open()
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    assert visit.barriers() == []
    field.fill("wrong")
    page.get_by_role("button", name="Use the key").click()
    expect(page.locator("#key-said")).to_have_text("The service did not accept this key.")
    field.fill("secret-key")
    field.press("Enter")
    expect(page.locator("#key")).to_be_hidden()
    expect(page.get_by_label("Adapter", exact=True).locator("option")).to_have_count(4)
    assert "secret-key" not in page.evaluate("JSON.stringify([{...localStorage}, document.cookie, location.href])")
    assert page.evaluate("sessionStorage.getItem('paretune.key')") == "secret-key"
    page.get_by_role("button", name="Forget the key").click()
    expect(page.locator("#key")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('paretune.key')") is None
    visit.context.close()
    assert all("401" in error for error in visit.errors)


@pytest.mark.parametrize("view", VIEWS)
def test_no_adapters_at_all(browser: Browser, service: Service, view: str) -> None:
    """Every view says what is missing and what to do, and is without barriers."""
    service.wishes.adapters = []
    visit = Visit(browser, service)
    page = visit.open(view)
    if view == "table":
        page.set_input_files("#table-file", many_comments(3))
    expect(page.locator(f"#view-{view}")).to_contain_text(
        "no adapter is loaded" if view == "health" else "No adapter is ready yet."
    )
    assert visit.barriers() == []
    visit.context.close()
    assert visit.errors == []


def test_a_server_that_is_down_and_comes_back(browser: Browser, service: Service) -> None:
    """Clear words and a button while it is down; the page recovers by itself, with the reader's text still there."""
    visit = Visit(browser, service)
    page = visit.open()
    page.get_by_label("Text", exact=True).fill("my text")
    service.stop()
    page.get_by_role("button", name="Sort it").click()
    expect(page.locator("#try-problem")).to_contain_text("The service does not answer.")
    page.get_by_role("link", name="Health").click()
    expect(page.locator("#health-tiles")).to_contain_text("No answer")
    page.get_by_role("link", name="Adapters").click()
    expect(page.get_by_role("alert").filter(has_text="The service does not answer.").first).to_be_visible()
    assert visit.barriers() == []
    service.start()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#banner")).to_be_hidden()
    page.get_by_role("link", name="Text", exact=True).click()
    expect(page.get_by_label("Text", exact=True)).to_have_value("my text")
    visit.context.close()
    assert all("Failed to load resource" in error for error in visit.errors)


def test_the_real_service_behind_the_page(browser: Browser, tiny_model: Path, tmp_path: Path) -> None:
    """Not the fake: toy bundles in the real engine answer one text, a table, cards, health and the page of the API."""
    bundles = {name: make(tiny_model, tmp_path / name, seed=seed) for seed, name in enumerate(("news", "again"))}
    engine, scheduler, registry = parts(tmp_path / "home", bundles)
    service = Service(create_app(registry, scheduler, engine, ServiceSettings()))
    visit = Visit(browser, service)
    page = visit.open()
    page.locator(".chip").first.click()
    expect(page.locator(".answer-card h3")).to_have_text(["again", "news"])
    page.get_by_role("link", name="Table").click()
    page.set_input_files("#table-file", many_comments(40))
    page.get_by_role("button", name="Label it").click()
    expect(page.locator(".outcome")).to_have_text("Done: 40 rows.")
    _, rows = saved(page, tmp_path)
    assert len(rows) == 41 and rows[0] == ["text", "label", "confidence", "abstain"]
    page.get_by_role("link", name="Adapters").click()
    expect(page.locator("article.adapter")).to_have_count(2)
    page.get_by_role("link", name="Health").click()
    expect(page.locator("#health-tiles .verdict").first).to_have_text("Ready")
    expect(page.locator("#health-tiles")).to_contain_text("2 of 4 slots")
    assert visit.barriers() == []
    page.get_by_role("link", name="API").click()
    expect(page.get_by_text("/v1/classify").first).to_be_visible()
    visit.context.close()
    service.stop()
    scheduler.close()
    registry.close()
    assert visit.errors == []
