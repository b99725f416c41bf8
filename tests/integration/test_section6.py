"""The list of tests that a service of this class owes (serving anchors, section 6), by its numbers.

Where each case is tested; `test_every_case_is_somewhere` holds this table to the truth. A test's docstring begins with
the numbers of its cases.

     1– 6  correctness of mixing        tests/integration/test_engine.py
     7, 9, 10, 12, 21  life cycle       tests/integration/test_adapter_registry.py
     8, 22–24, 26–29  here              tests/integration/test_section6.py
    11, 16–20, 35  answers, health      tests/integration/test_api.py, test_api_health.py
    15, 16, 17  scheduler and faults    tests/integration/test_scheduler.py, test_engine.py
    12, 17, 18, 19, 22, 25  process     tests/e2e/test_serve.py
    13, 14, 30–33  load                 `paretune bench serve`, which measures; a test without a clock cannot
    34  soak of 30 minutes              `paretune bench serve --seconds`, by hand
    36  container                       `.ci/run`, with the container check

Not applicable yet, because nothing is generated: the streaming half of 18 (a client that leaves while text is streamed;
what is tested is a client that leaves while it waits), limits on generated tokens in 24, and streaming in 19.

After every bad request the server is live and a golden request gives exactly its first answer.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from served import Service, digest_of, make, serving

from paretune.records.bundle import Manifest
from paretune.serve.api import ServiceSettings
from paretune.serve.bundle import seal
from paretune.serve.guard import OPEN
from paretune.serve.keys import SCOPES, ApiKey, Keys, hashed

ELSEWHERE = {
    "test_engine.py": {1, 2, 3, 4, 5, 6, 20},
    "test_scheduler.py": {10, 15, 16, 17},
    "test_adapter_registry.py": {7, 9, 10, 12, 21, 23},
    "test_api.py": {11, 16, 20},
    "test_api_health.py": {17, 18, 19, 35},
    "test_serve.py": {12, 17, 18, 19, 22, 25},
}
HERE = {8, 22, 23, 24, 26, 27, 28, 29}
IN_THE_BENCH = {13, 14, 30, 31, 32, 33, 34}
IN_CI = {36}
DEEP = 250_000
KEY = "pt_the-key"


@pytest.fixture(scope="module")
def bundles(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters to serve."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "news": make(tiny_model, folder / "news", seed=1),
        "yesno": make(tiny_model, folder / "yesno", seed=2, labels=("no", "yes")),
    }


@pytest.fixture(scope="module")
def service(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """An open service; each test leaves it working."""
    with serving(tmp_path_factory.mktemp("home"), bundles, ServiceSettings(default_adapter="news")) as one:
        yield one


@pytest.fixture(scope="module")
def locked(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service that wants keys; its client sends one with every scope."""
    keys = Keys([ApiKey(name="all", sha256=hashed(KEY), scopes=list(SCOPES))])
    home = tmp_path_factory.mktemp("home")
    with serving(home, bundles, ServiceSettings(keys), {"Authorization": f"Bearer {KEY}"}) as one:
        yield one


@pytest.fixture(autouse=True)
def works_afterwards(request: pytest.FixtureRequest) -> Generator[None]:
    """Triton's rule: after every bad request a good one is answered as before."""
    yield
    for name in ("service", "locked"):
        if name in request.fixturenames:
            request.getfixturevalue(name).still_works()


def numbers_in(text: str) -> set[int]:
    """Numbers at the beginning of test docstrings."""
    found: set[int] = set()
    for line in re.findall(r'"""(\d[\d, ]*):', text):
        found |= {int(number) for number in line.split(",")}
    return found


def test_every_case_is_somewhere() -> None:
    """The table above is true: each file has tests with the numbers that it is said to have, and none is missing."""
    tests = Path(__file__).parents[1]
    for name, numbers in ELSEWHERE.items():
        file = next(tests.glob(f"*/{name}"))
        assert numbers <= numbers_in(file.read_text()), (name, numbers - numbers_in(file.read_text()))
    assert numbers_in(Path(__file__).read_text()) >= HERE
    assert set().union(*ELSEWHERE.values(), HERE, IN_THE_BENCH, IN_CI) == set(range(1, 37))


def test_adapters_loaded_at_once_into_few_slots_all_answer(tiny_model: Path, tmp_path: Path) -> None:
    """8: ten adapters are loaded concurrently into two slots, and each answers three requests as it does alone."""
    made = {f"a{number}": make(tiny_model, tmp_path / "made" / f"a{number}", seed=number) for number in range(10)}
    with serving(tmp_path / "home", {"news": made["a0"]}, slots=2) as service:
        for name, folder in made.items():
            service.put_into_inbox(folder, name)

        def load(name: str) -> int:
            return service.client.post("/v1/adapters", json={"id": name}).status_code

        def ask(name: str) -> tuple[str, str, dict[str, float]]:
            answer = service.classify("loan rate goal", name)
            return name, answer.headers["x-adapter-digest"], answer.json()["results"][0]["probabilities"]

        with ThreadPoolExecutor(10) as pool:
            assert list(pool.map(load, made)) == [200] * 10
            answers = list(pool.map(ask, [*made, *made, *made]))
        alone = {name: ask(name)[2] for name in made}
        for name, digest, probabilities in answers:
            assert digest == digest_of(made[name])
            assert probabilities == pytest.approx(alone[name], abs=1e-4)
        assert len(service.engine.resident()) <= 2
        service.still_works()


def routes_of(service: Service) -> list[tuple[str, str]]:
    """Every method and path that the application really has, also those that its document does not show."""
    app: Any = service.client.app
    return [(method, one.path) for one in iter_route_contexts(app.routes) for method in sorted(one.methods or ())]


@pytest.mark.slow
def test_no_route_answers_without_its_key(locked: Service) -> None:
    """22: every route of the app × no key, wrong key, other case, other scheme, slash, OPTIONS, forged host."""
    routes = routes_of(locked)
    assert len(routes) >= 15
    attempts: list[dict[str, str]] = [
        {"Authorization": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "", "Host": "x/livez?"},
        {"Authorization": "", "X-Forwarded-Prefix": "/livez", "X-Original-URL": "/livez"},
        {"Authorization": "", "Cookie": f"key={KEY}"},
    ]
    for method, path in routes:
        real = path.replace("{name}", "news")
        for headers in attempts:
            slashes = (real + "/", "http://127.0.0.1/" + real, "/livez/.." + real)
            for target in (real, *slashes, real.upper() + "?key=" + KEY):
                for verb in (method, "OPTIONS", "TRACE"):
                    json_body = {"inputs": ["goal"]} if verb in ("POST", "PUT") else None
                    answer = locked.client.request(verb, target, headers=headers, json=json_body)
                    allowed = {401, 404, 405} | ({200} if path in OPEN and verb == method else set())
                    assert answer.status_code in allowed, (verb, target, headers, answer.status_code)
                    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "name",
    ["", " ", "../", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 257, "nеws", "NEWS", "news/", ".", "..", "%2e%2e",
     "news\n", "a\\b", "C:\\x", "-", "_x", "\u202enews", "ﬁle", "f" * 63 + "G", "~root", "file:///etc/passwd"],
)  # fmt: skip
def test_bad_names(service: Service, name: str) -> None:
    """23: empty, blank, paths, NUL, 257 characters, look-alikes: 4xx wherever a name can stand, and nothing is read."""
    client = service.client
    answers = [
        client.post("/v1/classify", json={"inputs": ["goal"], "adapter": name}),
        client.post("/v1/classify", json={"inputs": [{"text": "goal", "adapter": name}]}),
        client.post("/predict", json={"inputs": "goal"}, params={"adapter": name}),
        client.post("/v1/adapters", json={"id": name}),
        client.post("/v1/adapters", json={"id": "news", "name": name}),
        client.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": name}),
        client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": "x"}),
        client.post("/v1/unload_lora_adapter", json={"lora_name": name}),
        client.put("/v1/aliases/x", json={"weights": {name: 1}}),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500, (name, answer.request.url, answer.status_code, answer.text)
        assert "root:" not in answer.text and str(service.home) not in answer.text


BAD_BODIES: dict[str, bytes] = {
    "depth 120": b'{"inputs": ' + b"[" * 120 + b"]" * 120 + b"}",
    "depth 250000": b'{"inputs": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * 90_000 + b"1" + b"}" * 90_000,
    "duplicate keys": b'{"inputs": ["a"], "inputs": ["b"]}',
    "duplicate inside": b'{"inputs": [{"text": "a", "text": "b"}]}',
    "NaN": b'{"inputs": NaN}',
    "Infinity": b'{"inputs": ["a"], "truncate": Infinity}',
    "-Infinity": b'{"inputs": [-Infinity]}',
    "huge float": b'{"inputs": 1e99999}',
    "huge whole number": b'{"inputs": ' + b"9" * 5000 + b"}",
    "number for a text": b'{"inputs": [5]}',
    "number for a flag": b'{"inputs": ["a"], "truncate": 1}',
    "text for a flag": b'{"inputs": ["a"], "truncate": "true"}',
    "extra field": b'{"inputs": ["a"], "model": "x"}',
    "extra field inside": b'{"inputs": [{"text": "a", "n": 16384}]}',
    "null": b"null",
    "list": b"[]",
    "string": b'"inputs"',
    "empty": b"",
    "half": b'{"inputs": ["a"',
    "two values": b'{"inputs": ["a"]} {}',
    "comment": b'{"inputs": ["a"]} // x',
    "single quotes": b"{'inputs': ['a']}",
    "UTF-16": '{"inputs": ["a"]}'.encode("utf-16"),
    "UTF-8 that is none": b'{"inputs": ["\xff\xfe"]}',
    "overlong UTF-8": b'{"inputs": ["\xc0\xaf"]}',
    "raw surrogate": b'{"inputs": ["\xed\xa0\x80"]}',
    "raw control character": b'{"inputs": ["a\x00b"]}',
    "BOM": b'\xef\xbb\xbf{"inputs": ["a"]}',
    "no inputs": b"{}",
    "batch of 0": b'{"inputs": []}',
    "batch of 33": json.dumps({"inputs": ["a"] * 33}).encode(),
    "prototype": b'{"__proto__": {"x": 1}, "inputs": ["a"]}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
@pytest.mark.parametrize("path", ["/v1/classify", "/predict", "/v1/compare", "/v1/adapters"])
def test_bad_json(service: Service, body: bytes, path: str) -> None:
    """24: deep, doubled, non-finite, huge, wrongly typed and unknown things in JSON are 4xx, in one shape."""
    answer = service.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"error", "error_type", "request_id"} and len(answer.text) < 900


@pytest.mark.parametrize("weight", [0, -1, 0.5, 1.5, 1e300, "1", True, None, 10**30, [1]])
def test_bad_weights(service: Service, bundles: dict[str, Path], weight: object) -> None:
    """24: negative, huge, fractional and boolean numbers are refused where a whole number is wanted."""
    body = json.dumps({"weights": {digest_of(bundles["news"]): weight}})
    answer = service.client.put("/v1/aliases/news", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert service.registry.aliases.get("news").weights == {digest_of(bundles["news"]): 1}  # type: ignore[union-attr]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_other_content_types(service: Service, content_type: str) -> None:
    """24: what a form of another site could send without asking is not read as JSON."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = service.client.post("/v1/classify", content=b'{"inputs": ["goal"]}', headers=headers)
    assert answer.status_code == 422


def test_compressed_bodies(service: Service) -> None:
    """25: nothing is unpacked, so no bomb goes off."""
    import gzip

    bomb = gzip.compress(b'{"inputs": ["' + b"a" * 50_000_000 + b'"]}')
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        answer = service.client.post("/v1/classify", content=bomb, headers={"Content-Encoding": coding})
        assert answer.status_code == 415


def test_the_body_limit(service: Service) -> None:
    """25, 26: 1 MB of one token and everything larger is a 413 by its length or as it comes, before it is parsed."""
    one_token = json.dumps({"inputs": ["a" * 1_000_000]})
    assert service.client.post("/v1/classify", content=one_token).status_code == 413

    def chunks() -> Generator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    assert service.client.post("/v1/classify", content=chunks()).status_code == 413
    just_below = json.dumps({"inputs": ["a" * 99_000] * 10}).encode()
    answer = service.client.post("/v1/classify", content=just_below, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and all(one["tokens"] <= 32 for one in answer.json()["results"])
    too_long = service.client.post("/v1/classify", json={"inputs": ["a" * 100_001]})
    assert too_long.status_code == 422


GOOD_TEXTS = {
    "rtl": "\u202eשלום עולם مرحبا بالعالم",
    "joined": "a\u200db\u2060c",
    "emojis": "😀" * 10_000,
    "combining": "e" + "\u0301" * 500,
    "flags": "🏳️‍🌈🇷🇺" * 50,
    "private use": "\ue000\U0010ffff",
    "controls": "a\x00b\x07c\x1b[31m",
    "new lines": "goal\r\n\r\nmatch\u2028coach",
    "one character": "a",
    "not a character": "\ufffe\uffff",
    "markup": "<script>alert(1)</script>'\"; DROP TABLE x; --",
    "special tokens": "[CLS] [SEP] [MASK] <s> </s> [PAD]",
    "mixed scripts": "Отличный goal 目标 لكن",
    "nfd and nfc": "й й",
    "one long word": "б" * 50_000,
}


@pytest.mark.parametrize("text", GOOD_TEXTS.values(), ids=GOOD_TEXTS.keys())
def test_strange_texts_are_answered(service: Service, text: str) -> None:
    """26: right-to-left, zero width in words, 10,000 emojis, controls: an answer, always the same, never a 5xx."""
    first, second = service.classify(text, "news"), service.classify(text, "news")
    assert first.status_code == 200, first.text
    assert first.json()["results"] == second.json()["results"]
    batch = service.client.post("/v1/classify", json={"inputs": [text] * 32 if len(text) < 1000 else [text]})
    assert batch.status_code == 200


@pytest.mark.parametrize(
    "escaped",
    ['""', '"   "', '"\\t\\n"', '"\\u00a0\\u3000"', '"\\u200b\\u200b"', '"\\ud800"', '"\\udc00\\ud800"', '"a\\ud83d"'],
)
def test_texts_without_anything_in_them_are_refused(service: Service, escaped: str) -> None:
    """26: empty, only spaces or zero width, lone surrogates: a 422 in every route that takes a text."""
    for path, body in (
        ("/v1/classify", f'{{"inputs": [{escaped}]}}'),
        ("/v1/classify", f'{{"inputs": ["goal", {{"text": {escaped}}}]}}'),
        ("/predict", f'{{"inputs": {escaped}}}'),
        ("/predict", f'{{"inputs": [["goal"], [{escaped}]]}}'),
        ("/v1/compare", f'{{"text": {escaped}}}'),
    ):
        answer = service.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, (path, body, answer.text)


def resealed(folder: Path) -> None:
    """Give the changed files the hashes that the manifest wants, as an attacker would."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    seal(folder, manifest)


def pickled(folder: Path) -> None:
    import pickle

    (folder / "adapter.safetensors").write_bytes(pickle.dumps({"weight": os.system}))


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "adapter.safetensors", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 10_000_000)


def with_header(length: int, text: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "adapter.safetensors").write_bytes(struct.pack("<Q", length) + text)

    return write


def overlapping(folder: Path) -> None:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    text = json.dumps({"a.lora_A": entry, "a.lora_B": entry}).encode()
    (folder / "adapter.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 16)


def beyond_the_file(folder: Path) -> None:
    text = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (folder / "adapter.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)


def huge_rank(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    a, b = torch.zeros(100_000, 2), torch.zeros(2, 100_000)
    save_file({"x.lora_A": a, "x.lora_B": b}, folder / "adapter.safetensors")


def with_code(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("import os")


def with_config(folder: Path) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    tree["auto_map"] = {"AutoModel": "modeling_evil.Evil"}
    (folder / "manifest.json").write_text(json.dumps(tree))


def other_source(folder: Path) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    tree["files"]["../../../etc/passwd"] = {"sha256": "0" * 64, "bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(tree))


def deep_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"settings":' * 100_000)


def not_finite(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.full((3, 32), float("nan")), "bias": torch.zeros(3)}, folder / "head.safetensors")


def a_fifo(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")


ATTACKS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "pickle": (pickled, True),
    "zip bomb": (zipped, True),
    "header of 2^63": (with_header(1 << 63, b"{}"), True),
    "header of 200 MB": (with_header(200_000_000, b"{}"), True),
    "header that is no JSON": (with_header(4, b"oops"), True),
    "deep header": (with_header(100_000, b"[" * 100_000), True),
    "overlapping offsets": (overlapping, True),
    "offsets beyond the file": (beyond_the_file, True),
    "rank 100,000": (huge_rank, True),
    "code beside it": (with_code, True),
    "auto_map": (with_config, False),
    "a path among the files": (other_source, False),
    "deep manifest": (deep_manifest, False),
    "NaN": (not_finite, True),
    "a pipe": (a_fifo, False),
}


@pytest.mark.parametrize(("attack", "seal_again"), ATTACKS.values(), ids=ATTACKS.keys())
def test_malicious_bundles(
    service: Service, bundles: dict[str, Path], attack: Callable[[Path], None], seal_again: bool, request: Any
) -> None:
    """27: pickles, bombs, impossible headers, huge ranks and code are refused with a reason, even with good hashes."""
    name = "bad-" + re.sub(r"[^a-z0-9]+", "-", request.node.callspec.id.lower()).strip("-")
    service.put_into_inbox(bundles["yesno"], name)
    folder = service.home / "inbox" / name
    attack(folder)
    if seal_again:
        resealed(folder)
    answer = service.client.post("/v1/adapters", json={"id": name})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"].startswith("the bundle was refused: ") and "inside the server" not in answer.text
    assert service.classify("goal", name).status_code == 404


def test_methods_and_urls_that_nobody_expects(service: Service) -> None:
    """28: strange methods and targets on every route: never a 5xx, never a stack."""
    verbs = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND", "BREW")
    targets = (
        *("/", "/v1", "/v1/", "/;/", "/%ff", "/docs/..", "/page/../../../etc/passwd", "/page/%2e%2e%2fapi.py"),
        *("/v1/adapters/%00", "/v1/adapters/%2F", "/v1/aliases/" + "x" * 5000, "/metrics?x=%00", "/?" + "a=b&" * 500),
    )
    paths = [path.replace("{name}", "nosuch") for _, path in routes_of(service)]
    for verb in verbs:
        for target in (*targets, *paths):
            answer = service.client.request(verb, target)
            assert answer.status_code < 500, (verb, target, answer.status_code, answer.text[:200])
            assert "Traceback" not in answer.text
    assert service.client.options("/v1/adapters").headers["allow"] == "GET, POST"


def test_errors_tell_nothing(locked: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """29: an error inside the server is a 500 with a request id and nothing else; no path, no stack, no other names."""
    secret = "/srv/secret/path of the text loan rate"

    def breaks(*_: object, **__: object) -> None:
        raise OSError(secret)

    monkeypatch.setattr(locked.engine, "read", breaks)
    answer = locked.classify("loan rate", "news")
    assert answer.status_code == 500
    assert answer.json() | {"request_id": ""} == {
        "error": "an error inside the server",
        "error_type": "backend",
        "request_id": "",
    }
    monkeypatch.undo()
    bodies = [locked.classify("goal", "neww").text, locked.client.delete("/v1/adapters/neww").text]
    bodies += [locked.client.post("/v1/classify", json={"inputs": ["goal"]}).text]
    bodies += [locked.client.post("/v1/adapters", json={"id": "nosuch"}).text]
    for text in bodies:
        for word in ("news", "yesno", str(locked.home), "Traceback", "site-packages", ".py", "OSError"):
            assert word not in text, (word, text)


def test_logs_hold_no_texts(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """29: neither the access log nor the log of an error holds a text, a query or a key."""
    caplog.set_level("DEBUG")

    def breaks(*_: object, **__: object) -> None:
        raise ValueError("a very private text")

    service.classify("a very private text", "news")
    service.client.get("/livez?text=private", headers={"Authorization": "Bearer private"})
    monkeypatch.setattr(service.engine, "read", breaks)
    service.classify("a very private text", "news")
    monkeypatch.undo()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("paretune")]
    assert any("POST /v1/classify 500" in line for line in ours)
    assert not [line for line in ours if "private" in line]
