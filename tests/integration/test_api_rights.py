"""Who may ask the API: keys, scopes, quotas, host names, headers, and no route that was forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from served import Service, digest_of, post, serving

from paretune.core.errors import ConfigError
from paretune.serve.api import ServiceSettings
from paretune.serve.guard import OPEN, check_all_guarded
from paretune.serve.keys import SCOPES, ApiKey, Keys, hashed, make_key, read_keys
from paretune.serve.limits import TokenBucket
from paretune.serve.refusals import retry_seconds


def key_file(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path / "keys.toml"
    keys = {scope: make_key(path, scope, [scope]) for scope in SCOPES}
    return path, {**keys, "all": make_key(path, "all", SCOPES)}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys_open_what_their_scopes_say(bundles: dict[str, Path], tmp_path: Path) -> None:
    """No key or a wrong one is a 401, a key of another scope a 403, and the page and the probes need none."""
    path, keys = key_file(tmp_path)
    assert all(key not in path.read_text() for key in keys.values())
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}, ServiceSettings(read_keys(path))) as service:
        client = service.client
        body = {"inputs": ["goal"]}
        assert client.post("/v1/classify", json=body).status_code == 401
        for wrong in ("", "pt_x", keys["classify"].swapcase(), keys["classify"] + " ", keys["classify"][:-1]):
            answer = client.post("/v1/classify", json=body, headers=bearer(wrong))
            assert answer.status_code == (200 if wrong.strip() == keys["classify"] else 401), wrong
        assert client.post("/v1/classify", json=body, headers=bearer(keys["classify"])).status_code == 200
        assert client.post("/v1/classify", json=body, headers=bearer(keys["metrics"])).status_code == 403
        assert client.get("/metrics", headers=bearer(keys["classify"])).status_code == 403
        assert client.get("/metrics", headers=bearer(keys["metrics"])).status_code == 200
        assert client.get("/v1/adapters", headers=bearer(keys["classify"])).status_code == 403
        assert client.get("/v1/adapters", headers=bearer(keys["admin"])).status_code == 200
        assert client.get("/v1/models", headers=bearer(keys["all"])).status_code == 200
        for open_path in ("/livez", "/readyz", "/docs", "/openapi.json", "/", "/page/page.js", "/docs/docs.js"):
            assert client.get(open_path).status_code == 200, open_path
        twice = [("Authorization", f"Bearer {keys['all']}"), ("Authorization", "Bearer x")]
        assert client.get("/v1/models", headers=twice).status_code == 401


def test_a_body_without_a_key_is_not_read(bundles: dict[str, Path], tmp_path: Path) -> None:
    """What comes from nobody is refused before it is parsed: broken JSON without a key is a 401, not a 400."""
    path, keys = key_file(tmp_path)
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}, ServiceSettings(read_keys(path))) as service:
        for content in (b"{", b"x" * 2_000_000):
            assert service.client.post("/v1/classify", content=content).status_code == 401
        assert service.client.post("/v1/classify", content=b"{", headers=bearer(keys["all"])).status_code == 422


def test_a_key_sees_its_own_adapters_only(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Names of others are unknown to it, by name and by digest, in every route."""
    key = ApiKey(name="k", sha256=hashed("secret"), scopes=["classify"], adapters=["yesno"])
    served = {name: bundles[name] for name in ("news", "yesno")}
    settings = ServiceSettings(Keys([key]))
    with serving(tmp_path / "home", served, settings, bearer("secret")) as service:
        assert [one["id"] for one in service.client.get("/v1/models").json()["data"]] == ["yesno"]
        compared = post(service, "/v1/compare", {"text": "goal"}).json()
        assert [one["adapter"] for one in compared["results"]] == ["yesno"]
        assert service.classify("goal", digest_of(bundles["yesno"])).status_code == 200
        unknown = service.classify("goal", "nosuch").json()
        for name in ("news", digest_of(bundles["news"])):
            answer = service.classify("goal", name)
            assert answer.status_code == 404
            assert answer.json()["error"] == unknown["error"] == "no such adapter"


def test_a_quota_is_counted_in_tokens(bundles: dict[str, Path], tmp_path: Path) -> None:
    """A key that used up its minute gets a 429 with a computed Retry-After; another key is not touched."""
    poor = ApiKey(name="poor", sha256=hashed("poor"), scopes=["classify"], tokens_per_minute=10)
    rich = ApiKey(name="rich", sha256=hashed("rich"), scopes=["classify"])
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}, ServiceSettings(Keys([poor, rich]))) as service:
        body = {"inputs": ["goal match coach"] * 4}
        first = post(service, "/v1/classify", body, headers=bearer("poor"))
        second = post(service, "/v1/classify", body, headers=bearer("poor"))
        assert (first.status_code, second.status_code) == (200, 429)
        owed = int(first.headers["x-compute-tokens"])
        assert int(second.headers["retry-after"]) == pytest.approx(60 * owed / 10, abs=2)
        assert second.json()["error_type"] == "overloaded"
        assert post(service, "/v1/classify", body, headers=bearer("rich")).status_code == 200


def test_the_token_bucket_fills_again() -> None:
    """It saves at most a minute, lets a large request through once and then makes it pay."""
    now = [0.0]
    bucket = TokenBucket(60, lambda: now[0])
    assert bucket.take(60) == 0
    assert bucket.take(1) == pytest.approx(1)
    now[0] = 1.0
    assert bucket.take(1) == 0
    now[0] = 1000.0
    assert bucket.take(600) == 0
    assert bucket.take(1) == pytest.approx(541)
    now[0] = 1000.0 + 541
    assert bucket.take(1) == 0
    assert [retry_seconds(one) for one in (0.0, 0.2, 1.5, 1e9, float("inf"))] == [1, 1, 2, 3600, 3600]


def test_key_files(tmp_path: Path) -> None:
    """A key is added beside the others, its hash only; what is wrong is said in one line."""
    path = tmp_path / "keys.toml"
    first = make_key(path, "bot", ["classify"], tokens_per_minute=100)
    path.write_text("# a remark\n" + path.read_text())
    second = make_key(path, "ops", ["admin", "metrics"])
    keys = read_keys(path)
    assert len(keys) == 2 and path.read_text().startswith("# a remark")
    found = keys.find(first)
    assert found is not None and (found.name, found.tokens_per_minute) == ("bot", 100)
    other = keys.find(second)
    assert other is not None and other.scopes == ["admin", "metrics"]
    assert keys.find("") is None and keys.find("x" * 10_000) is None and keys.find("\udcff") is None
    for name, scopes, quota in (
        ("bot", ["admin"], None),
        ("A b", ["admin"], None),
        ("c", [], None),
        ("c", ["root"], None),
        ("c", ["admin"], -1),
    ):
        with pytest.raises(ConfigError):
            make_key(path, name, scopes, quota)
    path.write_text("")
    with pytest.raises(ConfigError, match="no key"):
        read_keys(path)
    path.write_text("[[keys]]\nname = 'a'\nsha256 = 'x'\nscopes = ['classify']\n")
    with pytest.raises(ConfigError):
        read_keys(path)


def test_without_keys_only_the_names_of_this_machine_are_served(bundles: dict[str, Path], tmp_path: Path) -> None:
    """A web page that makes its own host name point to this machine (DNS rebinding) gets nothing."""
    settings = ServiceSettings(hosts=frozenset({"127.0.0.1", "localhost", "[::1]"}))
    with serving(tmp_path / "home", {"yesno": bundles["yesno"]}, settings) as service:
        for host, status in (
            ("127.0.0.1", 200),
            ("localhost:8000", 200),
            ("LOCALHOST", 200),
            ("[::1]:9", 200),
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example:8000", 421),
            ("", 421),
        ):
            assert service.client.get("/v1/models", headers={"Host": host}).status_code == status, host


def test_a_route_that_nobody_guards_does_not_start(service: Service) -> None:
    """Forgetting the scope of a new route is found before the first request."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.add_api_route("/v1/secret", lambda: 1, methods=["GET"])
    with pytest.raises(RuntimeError, match="/v1/secret"):
        check_all_guarded(app)
    mounted = FastAPI(docs_url=None, redoc_url=None)
    mounted.mount("/anything", FastAPI())
    with pytest.raises(RuntimeError, match="/anything"):
        check_all_guarded(mounted)
    check_all_guarded(FastAPI(docs_url=None, redoc_url=None))


def test_every_answer_has_the_security_headers(service: Service) -> None:
    """Good answers, errors and files: a strict policy, no sniffing, no referrer, no frame, and no CORS."""
    for method, path in (
        ("GET", "/livez"),
        ("GET", "/"),
        ("GET", "/page/page.js"),
        ("GET", "/docs"),
        ("GET", "/nowhere"),
        ("POST", "/v1/classify"),
        ("DELETE", "/livez"),
        ("OPTIONS", "/v1/classify"),
    ):
        answer = service.client.request(method, path, headers={"Origin": "https://evil.example"})
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_docs_page_needs_no_other_host(service: Service) -> None:
    """Its page and script name no other address, and the script draws every call that the document has."""
    page = service.client.get("/docs").text
    script = service.client.get("/docs/docs.js").text
    assert "://" not in page + script and "innerHTML" not in script and "<style" not in page
    document = service.client.get("/openapi.json").json()
    assert set(document["paths"]) >= {
        "/v1/classify",
        "/predict",
        "/v1/compare",
        "/v1/adapters",
        "/readyz",
    }
    assert service.client.get("/docs/docs.html").status_code == 404


def test_the_document_is_true_about_errors(service: Service) -> None:
    """Every route of the document names the one shape of errors, and no route is missing from it."""
    document = service.client.get("/openapi.json").json()
    for path, verbs in document["paths"].items():
        for about in verbs.values():
            for status, answer in about["responses"].items():
                if status not in ("200", "503") or (status == "503" and path != "/readyz"):
                    schema = answer["content"]["application/json"]["schema"]
                    assert status == "200" or schema["$ref"].endswith("ErrorAnswer"), (path, status)
    assert not any("HTTPValidationError" in name for name in document["components"]["schemas"])
    app: Any = service.client.app
    shown = {one.path for one in iter_route_contexts(app.routes) if one.original_route.include_in_schema}
    assert shown == set(document["paths"]) and shown - OPEN
