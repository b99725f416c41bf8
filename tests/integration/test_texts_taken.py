"""Which texts the service takes, how much of a long one it reads, and what that costs a key; its refusals' form.

PYTHONPATH=src python -m pytest tests/integration/test_texts_taken.py
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from served import TEXTS, Service, digest_of, post, serving
from tokenizers import Tokenizer, models, pre_tokenizers

from paretune.core.text import is_blank
from paretune.models.tokenizer import BaseTokenizer, read_tokenizer
from paretune.serve import connection
from paretune.serve.answering import cost_of
from paretune.serve.api import ServiceSettings
from paretune.serve.connection import PatientConnection
from paretune.serve.keys import make_key, read_keys
from paretune.serve.reading import LEAST_CHARACTERS, encoded
from paretune.serve.shapes import NOT_BLANK, Text

INVISIBLE = [
    "\u200b",
    "\u2060\ufeff",
    "\u00ad",
    "\u3164",
    "\u2800",
    "\u202e\u202c",
    "\x00",
    "\x1b",
    "\ufe0f",
    " \u034f ",
]


@pytest.mark.parametrize("text", INVISIBLE, ids=[ascii(one) for one in INVISIBLE])
def test_a_text_of_invisible_characters_alone_is_refused(service: Service, text: str) -> None:
    """Whatever the character, on every route that takes texts, as the empty text is; the answer says so in words."""
    for path, body in (
        ("/v1/classify", {"inputs": [TEXTS[0], text]}),
        ("/v1/classify", {"inputs": [{"text": text}]}),
        ("/v1/compare", {"text": text}),
        ("/predict", {"inputs": text}),
        ("/predict", {"inputs": [[text]]}),
    ):
        answer = post(service, path, body)
        assert (answer.status_code, answer.json()["error_type"]) == (422, "validation"), (path, answer.text)
        error = answer.json()["error"]
        assert "expected at least one visible character" in error and error.isprintable(), (path, error)
    assert service.classify(f"{text}loan", "news").status_code == 200


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "application/json"])
def test_a_body_that_is_not_sent_as_json_says_the_header(service: Service, kind: str | None) -> None:
    """What `curl -d` without a header sends, and no body or none that is an object: one line says what to send."""
    body = b"" if kind == "application/json" else json.dumps({"inputs": [TEXTS[0]]}).encode()
    headers = {"content-type": kind} if kind else {}
    answer = service.client.post("/v1/classify", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"] == "body: expected a JSON object, sent with the header content-type: application/json"


def test_the_documented_pattern_is_the_shared_rule() -> None:
    """Every single character is taken by the pattern of /openapi.json exactly where `is_blank` sees something in it."""
    import re

    from pydantic import TypeAdapter

    pattern, text = re.compile(NOT_BLANK), TypeAdapter(Text)
    letters = [chr(one) for one in range(sys.maxunicode + 1) if not 0xD800 <= one <= 0xDFFF]
    blank = [one for one in letters if is_blank(one)]
    assert blank == [one for one in letters if not pattern.search(one)] and len(blank) > 4000
    draw = random.Random(1)
    for one in draw.sample(blank, 300):
        with pytest.raises(ValueError, match="pattern"):
            text.validate_python(one)
    assert all(text.validate_python(one) for one in draw.sample([c for c in letters if not is_blank(c)], 300))


def byte_pairs() -> BaseTokenizer:
    """Byte pairs over whole lines: no white space parts what is merged."""
    letters = ["[UNK]", *"abcdefgh \n"]
    merges = [("a", "b"), ("c", "d"), ("ab", "cd"), ("e", "f"), (" ", " ")]
    vocabulary = {one: place for place, one in enumerate([*letters, *("".join(pair) for pair in merges)])}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([])
    return BaseTokenizer(backend, pad_id=0)


def odd_texts() -> list[str]:
    """Long texts of every kind: words, one letter, spaces, a word without end, other scripts, emoji with joiners."""
    draw = random.Random(3)
    words = ["loan", "goal", "barrel", "я", "ещё", "a", "x" * 150, "…", "日本", "e\u0301", "👩\u200d🚀", "12.5"]
    mixed = [" ".join(draw.choices(words, k=draw.randint(300, 6000))) for _ in range(12)]
    return [
        *mixed, "", "loan", "a" * 50_000, " " * 90_000 + "goal match", "goal " + " " * 90_000 + "match", "日" * 20_000,
        "abcdef" * 9000, "ab\u0301" * 9000, "loan\n" * 9000, "\u200b" * 5000 + "loan", "x" * 99_000 + " loan goal",
        *("loan " * count for count in range(400, 520, 17)),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", ["right", "left"])
@pytest.mark.parametrize("kind", ["tiny_model", "tiny_decoder", "pairs"])
def test_what_is_read_of_a_long_text_gives_the_ids_of_the_whole(
    kind: str, cut: Any, request: pytest.FixtureRequest
) -> None:
    """Cut on either side, at several lengths, by word pieces, bytes and byte pairs: the same ids, and the same saying
    whether something was cut."""
    tokenizer = byte_pairs() if kind == "pairs" else read_tokenizer(f"path:{request.getfixturevalue(kind)}")
    tokenizer.cut = cut
    texts = odd_texts()
    for most in (8, 32, 128):
        whole = tokenizer.encode(texts, most, "query: ")
        read = encoded(tokenizer, texts, most, "query: ")
        for text, one, other in zip(texts, whole, read, strict=True):
            assert one.input_ids == other.tokens.input_ids, (most, text[:40], len(text))
            assert one.truncated == other.tokens.truncated and other.tokens.length <= one.length
            assert not other.whole or other.tokens.length == one.length


def test_a_megabyte_costs_no_more_than_what_is_read(tiny_model: Path) -> None:
    """Of ten texts of 100,000 characters a few thousand characters each go through the tokenizer."""
    tokenizer, seen = read_tokenizer(f"path:{tiny_model}"), [0]
    real = tokenizer.encode

    def counted(texts: Any, *more: Any) -> Any:
        seen[0] += sum(map(len, texts))
        return real(texts, *more)

    tokenizer.encode = counted  # type: ignore[method-assign]
    read = encoded(tokenizer, ["a " * 50_000] * 10, 128, "")
    assert all(len(one.tokens.input_ids) == 128 and not one.whole for one in read)
    assert seen[0] <= 10 * (LEAST_CHARACTERS + 16 * 128)


def test_a_text_too_long_to_be_counted_is_refused_with_what_was_read(service: Service) -> None:
    """With truncate false the error says "more than": nobody counted the rest."""
    body = {"inputs": ["loan " * 19_000], "adapter": "news", "truncate": False}
    refused = post(service, "/v1/classify", body)
    assert refused.status_code == 422
    words = refused.json()["error"].split()
    assert words[:4] == ["inputs.0", "has", "more", "than"] and int(words[4]) > 96


def test_a_quota_pays_for_what_was_sent(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Cut-off tokens count, and so do characters that make no tokens: a long body cannot be had for the price of its
    first 32 tokens."""
    key_file = tmp_path / "keys.toml"
    key = make_key(key_file, "client", ["classify"], 1000)
    settings = ServiceSettings(keys=read_keys(key_file))
    headers = {"Authorization": f"Bearer {key}"}
    for text in ("loan " * 1200, " " * 40_000 + "loan"):
        with serving(tmp_path / f"home{len(text)}", {"one": bundles["news"]}, settings, headers) as service:
            bodies = [post(service, "/v1/classify", {"inputs": [text]}) for _ in range(3)]
        assert [one.status_code for one in bodies][-1] == 429, [one.text for one in bodies]
    tokens = encoded(byte_pairs(), [" " * 4000 + "ab"], 8, "")[0].tokens
    assert cost_of(" " * 16_000, tokens) >= 1000


def numbers_of_requests(document: dict[str, Any]) -> list[str]:
    """Names of the schemas of whole numbers that a client may send."""
    found: list[str] = []

    def walk(tree: Any, at: str, seen: frozenset[str]) -> None:
        if isinstance(tree, dict):
            if tree.get("type") == "integer":
                found.append(at)
            reference = tree.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                walk(document["components"]["schemas"][reference.rsplit("/", 1)[1]], at, seen | {reference})
            for key, value in tree.items():
                walk(value, f"{at}.{key}" if key not in ("properties", "schema") else at, seen)
        if isinstance(tree, list):
            for one in tree:
                walk(one, at, seen)

    for path, item in document["paths"].items():
        for method, operation in item.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            walk([body, operation.get("parameters", [])], f"{method} {path}", frozenset())
    return found


def test_a_whole_number_may_be_spelt_with_a_point(service: Service, bundles: dict[str, Path]) -> None:
    """`2382.0` is an integer to JSON Schema and so to every field of a request that is one; a fraction and a word are
    not. Weights are the only numbers that clients send: another would have to be added here."""
    digest = digest_of(bundles["news"])
    numbers = numbers_of_requests(service.client.get("/openapi.json").json())
    assert numbers and all(one.startswith("put /v1/aliases/{name}") for one in numbers), numbers
    for spelt, status in (("2382.0", 200), ("2.382e3", 200), ("2382", 200), ("0.0", 422), ("2.5", 422), ('"2"', 422),
                          ("true", 422), ("1e300", 422), ("1000001.0", 422), ("null", 422)):  # fmt: skip
        body = f'{{"weights": {{"{digest}": {spelt}}}}}'
        answer = service.client.put("/v1/aliases/whole", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, (spelt, answer.text)
        if status == 200:
            assert answer.json()["weights"] == {digest: 2382}
    service.client.delete("/v1/adapters/whole")


def test_too_many_connections_are_refused_in_the_services_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the JSON of every other error, its headers and Retry-After; the connections that are there go on."""
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=PatientConnection, ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    def asked(one: socket.socket) -> bytes:
        """The whole answer: to its last word, or to the end of the connection."""
        one.sendall(request)
        answer = b""
        while not answer.endswith(b"ok") and (part := one.recv(65536)):
            answer += part
        return answer

    try:
        while not server.started:
            time.sleep(0.01)
        address = listener.getsockname()
        with socket.create_connection(address) as first, socket.create_connection(address) as second:
            assert asked(first).startswith(b"HTTP/1.1 200") and asked(second).startswith(b"HTTP/1.1 200")
            with socket.create_connection(address) as third:
                head, _, body = asked(third).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503") and b"Retry-After: 5" in head and b"application/json" in head
            assert json.loads(body)["error_type"] == "overloaded" and b"nosniff" in head
            assert asked(first).startswith(b"HTTP/1.1 200")
    finally:
        server.should_exit = True
        thread.join(10)


def test_every_503_of_the_api_is_json_and_says_when_to_come_again(service: Service) -> None:
    """The document promises Retry-After with each, and a server that stops keeps it."""
    document = service.client.get("/openapi.json").json()
    with_503 = [
        operation["responses"]["503"]
        for item in document["paths"].values()
        for operation in item.values()
        if "503" in operation["responses"]
    ]
    assert len(with_503) >= 8
    assert all("Retry-After" in one["headers"] and "application/json" in one["content"] for one in with_503)
    service.client.app.state.health.draining = True  # type: ignore[attr-defined]
    try:
        answer = service.client.get("/readyz")
    finally:
        service.client.app.state.health.draining = False  # type: ignore[attr-defined]
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1 and answer.json()["ready"] is False
