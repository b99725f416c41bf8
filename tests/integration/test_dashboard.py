"""The dashboard's pages over fabricated studies: what stands on them, in which language, and who may see them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from dashboard_reader import ODD, PAGES, client_of, text_of, write_one, write_studies
from fabricated_study import write_study
from fastapi.testclient import TestClient

from paretune.core.addresses import is_loopback
from paretune.core.errors import ConfigError, RecordError
from paretune.dashboard.app import create_app
from paretune.dashboard.gate import COOKIE, LOOPBACK_HOSTS, POLICY, Rights
from paretune.dashboard.server import check_token, serve_dashboard

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three studies that no test changes."""
    return write_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def client(studies: Path) -> Generator[TestClient]:
    with client_of(studies) as client:
        yield client


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A small study to be broken."""
    return write_one(tmp_path)


def test_list_has_each_study_with_state_and_progress(client: TestClient) -> None:
    """State, runs done of all, and what stopped; the page is in English and needs no script."""
    text = text_of(client.get("/").text)
    assert "demo" in text and "settings" in text and "a b&c#<i>" in text
    assert "out of memory × 1" in text and "failed × 1" in text
    assert re.search(r"incomplete \d+ of \d+; \d+ are left", text)


@pytest.mark.parametrize("lang", ["en", "ru"])
@pytest.mark.parametrize("name", ["demo", "settings", ODD])
def test_every_page_of_every_study_opens_in_both_languages(client: TestClient, name: str, lang: str) -> None:
    """200, the right language, one heading of the first order, nothing inline that would need a weaker policy."""
    for path in PAGES:
        html = client.get(f"/study/{name}{path}?lang={lang}").text
        assert f'<html lang="{lang}"' in html, path
        assert html.count("<h1>") == 1
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html), path
        for attributes, script in re.findall(r"<script([^>]*)>(.*?)</script>", html, re.S):
            assert script == "" or 'type="application/json"' in attributes
            if script:
                json.loads(script)
    client.cookies.clear()


def test_pages_are_built_for_screen_readers(client: TestClient) -> None:
    """Ids are there once, labels and sections name what exists, headings skip no level, columns say what they head."""
    for path in (
        "/",
        "/claims",
        "/nowhere",
        *(f"/study/{name}{one}" for name in ("demo", "settings") for one in PAGES),
    ):
        html = client.get(path).text
        ids = re.findall(r'\sid="([^"]+)"', html)
        assert len(ids) == len(set(ids)), path
        for named in re.findall(r'\s(?:for|aria-labelledby)="([^"]+)"', html):
            assert named in ids, (path, named)
        levels = [int(one) for one in re.findall(r"<h([1-6])[ >]", html)]
        assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels)), (path, levels)
        assert html.count("<th ") + html.count("<th>") == len(re.findall(r'<th scope="(?:row|col)"', html)), path
        for control in re.findall(r"<(?:input|select)[^>]*>", html):
            identifier = re.search(r'id="([^"]+)"', control)
            assert identifier and f'for="{identifier[1]}"' in html, (path, control)


def test_study_page_answers_and_compares_with_failures(client: TestClient) -> None:
    """The answer sentence, means with intervals, numbers of runs and the states of those that stopped."""
    text = text_of(client.get("/study/demo").text)
    assert "Answer pilot" in text and "(pilot: 3 seeds)." in text
    assert "2; out of memory × 1" in text and "2; failed × 1" in text
    assert re.search(r"full control 0\.\d{3} \[0\.\d{3} … [01]\.\d{3}\]", text)


def test_names_and_texts_of_records_are_escaped(client: TestClient) -> None:
    """A study's folder may be called anything: nothing of it becomes markup."""
    for path in ("/", "/study/a%20b%26c%23%3Ci%3E"):
        html = client.get(path).text
        assert "a b&amp;c#&lt;i&gt;" in html and "<i>" not in html


def test_policy_and_other_headers_stand_on_every_answer(client: TestClient) -> None:
    """Pages, JSON, files and refusals alike; the policy allows nothing inline and no eval."""
    file = re.findall(r'src="(/files/page\.[0-9a-f]+\.js)"', client.get("/").text)[0]
    for path in ("/", "/study/demo/live.json", file, "/nowhere", "/?lang=xx"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in POLICY and POLICY.startswith("default-src 'none'")


def test_files_have_hashes_in_their_names_and_are_kept_for_good(client: TestClient) -> None:
    """Every file that a page names is served; another hash is not found."""
    html = client.get("/study/demo").text
    names = re.findall(r'(?:src|href)="(/files/[^"]+)"', html)
    assert any("vega" in name for name in names) and any(name.endswith(".css") for name in names)
    for name in names:
        answer = client.get(name)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
        assert re.search(r"\.[0-9a-f]{12}\.(js|css|svg)$", name)
    assert client.get("/files/page.000000000000.js").status_code == 404


def test_pages_ask_no_other_host(client: TestClient) -> None:
    """No address with a host in what we send, but for identifiers of standards."""
    folder = Path(create_app.__code__.co_filename).parent
    for path in [*(folder / "page").iterdir(), *(folder / "templates").iterdir()]:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(?:https?:)?//[\w-]+\.\w", text), path.name
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), path.name


@pytest.mark.parametrize(
    "path",
    ["/study/nope", "/study/..%2fdemo", "/study/%2e%2e", "/study/demo/nope", "/files/..%2fapp.py", "/x",
     "/study/demo/compare?a=..&b=.."],
)  # fmt: skip
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    """Names are looked up, never joined to a path; the page says so in words."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert "no such page, study or run" in text_of(answer.text)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_answered(client: TestClient, method: str) -> None:
    """405 for every other method, on every address."""
    for path in ("/", "/study/demo", "/login"):
        assert client.request(method, path).status_code == 405


@pytest.mark.parametrize("path", ["?page=0", "?page=x", "?text=perhaps", "?label=" + "x" * 300])
def test_a_wrong_query_is_told(client: TestClient, path: str) -> None:
    """400 with a sentence, not a traceback."""
    answer = client.get("/study/demo/examples" + path)
    assert answer.status_code == 400 and "address" in text_of(answer.text)


def test_language_is_kept_by_a_cookie(studies: Path) -> None:
    """The server's language first, then the one that was asked for, on all pages; a strange cookie is passed over."""
    with client_of(studies, "ru") as client:
        assert '<html lang="ru"' in client.get("/").text
        assert '<html lang="en"' in client.get("/study/demo?lang=en").text
        assert '<html lang="en"' in client.get("/").text
    with client_of(studies) as client:
        client.cookies.set("paretune_lang", "xx")
        assert '<html lang="en"' in client.get("/").text


def test_language_links_keep_the_rest_of_the_address(client: TestClient) -> None:
    """Switching the language on a filtered list keeps the filter."""
    html = client.get("/study/demo/examples?label=acq&method=lora").text
    assert 'href="/study/demo/examples?label=acq&amp;method=lora&amp;lang=ru"' in html


def test_unknown_language_is_one_line_that_helps(client: TestClient, studies: Path) -> None:
    """In the address 400 with the languages there are; on the command line an error."""
    answer = client.get("/?lang=de")
    assert answer.status_code == 400
    assert "'de'" in text_of(answer.text) and "en, ru" in text_of(answer.text)
    with pytest.raises(ConfigError, match=r"'de'.*en, ru"):
        create_app([studies], Rights(None, None), "de")


def test_theme_comes_from_the_cookie(studies: Path) -> None:
    """The server writes the theme into the page, so that nothing flashes; an unknown one leaves the system's."""
    with client_of(studies) as client:
        assert "data-theme=" not in client.get("/").text.partition("<body")[0]
        client.cookies.set("paretune_theme", "dark")
        assert 'data-theme="dark"' in client.get("/").text
        client.cookies.set("paretune_theme", '"><script>')
        assert "data-theme=" not in client.get("/").text.partition("<body")[0]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", ""])
def test_loopback_answers_to_its_own_names_alone(client: TestClient, host: str) -> None:
    """A web page that makes its own name point here gets nothing."""
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421 and "demo" not in text_of(answer.text)
    assert client.get("/", headers={"host": "localhost:8010"}).status_code == 200


def test_token_is_needed_and_taken_as_bearer(studies: Path) -> None:
    """Without it, with a wrong one or with two headers: 401 on pages, JSON and files; with it: 200."""
    with client_of(studies, token=TOKEN) as client:
        for path in ("/", "/study/demo", "/study/demo/live.json", "/study/demo/draws.json", "/nowhere"):
            answer = client.get(path)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert "demo" not in text_of(answer.text)
        for given in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x"):
            assert client.get("/", headers={"authorization": given}).status_code == 401
        twice = [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")]
        assert client.get("/", headers=twice).status_code == 401
        assert client.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_link_with_the_token_works_once_and_sets_a_strict_cookie(studies: Path) -> None:
    """The cookie is not the token, cannot be read by scripts nor sent from elsewhere; the link is then used up."""
    with client_of(studies, token=TOKEN) as client:
        assert client.get("/study/demo?token=wrong").status_code == 401
        answer = client.get(f"/study/demo?token={TOKEN}&lang=ru")
        cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE))
        assert answer.status_code == 200 and 'content="0;url=/study/demo?lang=ru"' in answer.text
        assert TOKEN not in cookie and TOKEN not in answer.text
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert client.get("/study/demo").status_code == 200
        client.cookies.clear()
        again = client.get(f"/?token={TOKEN}", headers={"accept-language": "en"})
        assert again.status_code == 401 and "works once" in text_of(again.text)
        client.cookies.set(COOKIE, "something")
        assert client.get("/").status_code == 401


def test_form_takes_the_token(studies: Path) -> None:
    """A reader who has only the token types it in; a wrong one and a long body are refused."""
    with client_of(studies, token=TOKEN) as client:
        assert "is not the token" in text_of(client.post("/login", data={"token": "wrong"}).text)
        assert client.post("/login", content=b"token=" + b"x" * 9000).status_code == 413
        assert client.post("/login", content=b"\xff\xfe").status_code == 401
        assert client.post("/login", data={"token": TOKEN}).status_code == 200
        assert client.get("/study/demo").status_code == 200


def test_a_link_leads_to_no_other_site(studies: Path) -> None:
    """The way on is a path of this server."""
    with client_of(studies, token=TOKEN) as client:
        answer = client.get(f"http://127.0.0.1//evil.example/?token={TOKEN}")
        assert 'content="0;url=/evil.example/"' in answer.text


def test_server_refuses_to_be_open_to_others_without_a_token(studies: Path) -> None:
    """A clear line says what is allowed; odd tokens, addresses and folders are refused before a port is opened."""
    said: list[str] = []
    for host, port, token, words in (
        ("0.0.0.0", 0, None, "without --token-file or --token"),
        ("", 0, None, "without --token"),
        ("127.0.0.1", 0, "", "--token"),
        ("127.0.0.1", 0, "a b", "--token"),
        ("127.0.0.1", 0, "ключ", "--token"),
        ("127.0.0.1", 99_999, None, "--port"),
        ("no.such.host.invalid", 0, TOKEN, "--host"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            serve_dashboard([studies], host, port, token, "en", said.append)
    with pytest.raises(RecordError, match="not there"):
        serve_dashboard([studies / "nope"], "127.0.0.1", 0, None, "en", said.append)
    assert said == []
    assert is_loopback("localhost") and not is_loopback("0.0.0.0")
    check_token(TOKEN, "0.0.0.0", local=False)


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    """No study yet is no error: the page waits for one, and finds it."""
    with client_of(tmp_path) as client:
        assert "There is no study in this folder yet" in text_of(client.get("/").text)
        assert "There is no ledger of claims" in text_of(client.get("/claims").text)
        write_study(tmp_path / "new", methods=("full",), seeds=(0,), test_rows=20, extra_split=False)
        assert "new" in text_of(client.get("/").text)


def test_a_file_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    """What was given and what is expected, in one line."""
    (tmp_path / "file").write_text("")
    for path, word in ((tmp_path / "file", "is a file"), (tmp_path / "nope", "is not there")):
        with pytest.raises(RecordError, match=word):
            create_app([path], Rights(None, None), "en")


def test_one_study_is_a_folder_too(one: Path) -> None:
    """A study's own folder shows that study alone."""
    with client_of(one) as client:
        assert "one" in text_of(client.get("/").text)
        assert client.get("/study/one").status_code == 200


def test_several_folders_are_shown_together(tmp_path: Path) -> None:
    """Each study is there once, by its own name or, where another has it, with its place; the first ledger counts."""
    for place in ("runs", "results", "more/results"):
        write_study(tmp_path / place / "demo", methods=("full",), seeds=(0,), test_rows=20, extra_split=False)
    write_study(tmp_path / "results" / "other", methods=("full",), seeds=(0,), test_rows=20, extra_split=False)
    (tmp_path / "results" / "claims.toml").write_text("claims = 1")
    roots = [tmp_path / one for one in ("runs", "results", "results/other", "more/results", "runs")]
    app = create_app(roots, Rights(None, LOOPBACK_HOSTS), "en")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        names = re.findall(r'href="/study/([^"/]+)"', client.get("/").text)
        assert {unquote(name) for name in names} == {"demo", "demo (results)", "demo (results 2)", "other"}
        for name in set(names):
            assert client.get(f"/study/{name}").status_code == 200
        assert "claims.toml" in text_of(client.get("/claims").text)
    with pytest.raises(RecordError, match="is not there"):
        create_app([tmp_path / "runs", tmp_path / "nope"], Rights(None, None), "en")


def test_one_seed_and_one_method_say_so(client: TestClient) -> None:
    """No interval over seeds, nothing to compare with, and chances that tell of examples alone."""
    name = ODD
    text = text_of(client.get(f"/study/{name}").text)
    assert "One seed: there is no interval over seeds" in text
    assert "One method: there is nothing to compare it with." in text
    budget = text_of(client.get(f"/study/{name}/budget").text)
    assert "One seed: the chances tell of the test examples alone" in budget
    assert "there is nothing to choose from" in budget
    assert "one seed" in text_of(client.get(f"/study/{name}/examples").text)


PROCESS = """
import sys
from pathlib import Path
from paretune.dashboard.server import serve_dashboard
code = serve_dashboard([Path(sys.argv[1])], "127.0.0.1", 0, None, "ru", lambda line: print(line, flush=True))
assert "torch" not in sys.modules
raise SystemExit(code)
"""


def test_the_process_says_where_it_is_and_ends_with_a_signal(studies: Path) -> None:
    """One ready line with the address; SIGTERM ends it with 0; it never loads torch."""
    command = [sys.executable, "-c", PROCESS, str(studies)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.match(r"готово: (http://127\.0\.0\.1:\d+/) ", process.stdout.readline())
            assert address is not None
            with urllib.request.urlopen(address[1], timeout=30) as answer:
                assert answer.status == 200 and '<html lang="ru"' in answer.read().decode()
        finally:
            process.terminate()
        assert process.wait(30) == 0
