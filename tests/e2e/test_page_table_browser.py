"""A table in the page's real browser: read, labelled in batches, waited for, cancelled, continued, saved.

Not here: the logic without a browser (`integration/page_logic.test.mjs`).
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from page_visit import CHROMIUM, Service, Visit, many_comments, saved
from playwright.sync_api import Browser, expect

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Debian's package chromium"),
]


def test_a_text_is_shown_as_text(visit: Visit) -> None:
    """Markup in a comment, in a name or in an error never becomes part of the page."""
    page = visit.open("table")
    evil = "<img src=x onerror=alert(1)>"
    page.set_input_files(
        "#table-file", {"name": f"{evil}.csv", "mimeType": "text/csv", "buffer": f"text,{evil}\n{evil},2\n".encode()}
    )
    expect(page.locator("#table-setup td").first).to_have_text(evil)
    expect(page.locator("#table-setup")).to_contain_text(f"{evil}.csv")
    assert page.locator("img").count() == 0


RUSSIAN_TABLE = 'id;комментарий\r\n1;"Спасибо,\r\nвсё отлично"\r\n2;=1+1\r\n3;\r\n'


def test_a_russian_table_comes_back_labelled(visit: Visit, tmp_path: Path) -> None:
    """cp1251, semicolons, a quoted line break: columns are added, the formula harmless, the empty row a person's."""
    page = visit.open("table")
    page.set_input_files(
        "#table-file", {"name": "отзывы.csv", "mimeType": "text/csv", "buffer": RUSSIAN_TABLE.encode("cp1251")}
    )
    expect(page.get_by_label("Encoding")).to_have_value("windows-1251")
    expect(page.get_by_label("Delimiter")).to_have_value(";")
    expect(page.get_by_label("Column with the texts")).to_have_value("1")
    page.locator("#view-table").get_by_label("Adapter", exact=True).select_option("emotions")
    page.get_by_role("button", name="Label it").click()
    expect(page.locator(".outcome")).to_have_text("Done: 3 rows.")
    expect(page.locator("#table-save")).to_be_focused()
    name, rows = saved(page, tmp_path, ";")
    assert name == "отзывы.labelled.csv"
    assert rows[0] == ["id", "комментарий", "label", "confidence", "abstain", "note"]
    assert rows[1][:2] == ["1", "Спасибо,\r\nвсё отлично"] and rows[1][2] and 0 < float(rows[1][3]) <= 1
    assert rows[2][1] == "'=1+1"
    assert rows[3] == ["3", "", "", "", "true", "empty text"]


def test_batches_are_of_32_and_a_busy_service_is_waited_for(browser: Browser, service: Service) -> None:
    """Two refusals with Retry-After: 2 are waited out, then 100 rows go in four requests."""
    service.wishes.overloads, service.wishes.retry_after = 2, "2"
    visit = Visit(browser, service)
    page = visit.open("table")
    page.set_input_files("#table-file", many_comments(100))
    began = time.monotonic()
    page.get_by_role("button", name="Label it").click()
    expect(page.locator(".left")).to_contain_text("The service is busy; the next try is in 2 sec")
    expect(page.locator(".outcome")).to_have_text("Done: 100 rows.")
    assert time.monotonic() - began >= 4
    assert service.wishes.batches == [32, 32, 32, 4]
    visit.context.close()
    assert all("429" in error for error in visit.errors)  # the browser's own line for each refusal


def test_cancel_keeps_what_is_done_and_continue_does_the_rest(visit: Visit, tmp_path: Path) -> None:
    """No row is sent twice: what was answered before the cancel stands."""
    visit.service.wishes.slow_seconds = 2.0
    page = visit.open("table")
    page.set_input_files("#table-file", many_comments(128))
    page.get_by_role("button", name="Label it").click()
    expect(page.locator(".counted")).to_have_text(re.compile("^(32|64|96) of 128$"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".outcome")).to_contain_text("Cancelled;")
    _, rows = saved(page, tmp_path)
    assert [row[-1] for row in rows[-5:]] == ["not labelled"] * 5
    visit.service.wishes.slow_seconds = 0
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".outcome")).to_have_text("Done: 128 rows.")
    assert sum(visit.service.wishes.batches) <= 128 + 32  # the batch that was under way when it was cancelled
    _, rows = saved(page, tmp_path)
    assert len(rows) == 129 and all(row[1] for row in rows)


def test_files_that_are_no_tables_are_refused_in_words(visit: Visit) -> None:
    """A workbook and an empty file; afterwards a good file still works."""
    page = visit.open("table")
    for content, words in (
        (b"PK\x03\x04" + bytes(range(32)) * 20, "This is not a text file."),
        (b"", "The file holds no rows."),
    ):
        page.set_input_files("#table-file", {"name": "a.csv", "mimeType": "text/csv", "buffer": content})
        expect(page.locator("#table-problem")).to_contain_text(words)
    page.set_input_files("#table-file", many_comments(1))
    expect(page.locator("#table-problem")).to_be_empty()
    expect(page.get_by_role("button", name="Label it")).to_be_visible()


def test_a_file_can_be_dropped(visit: Visit) -> None:
    """The drop zone takes a file as the file chooser does."""
    page = visit.open("table")
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["text\\none dropped comment\\n"], "dropped.csv", { type: "text/csv" }));
          const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
          document.getElementById("table-drop").dispatchEvent(drop);
        }"""
    )
    expect(page.locator("#table-setup")).to_contain_text("dropped.csv")
