"""The HTTP API over a real engine: answers, models, adapters and names. Bad input: `test_section6.py`."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from served import TEXTS, Service, digest_of, post, serving


def test_classify_mixes_adapters_and_names_the_digests(service: Service, bundles: dict[str, Path]) -> None:
    """Results stand in the order of the inputs, each from its adapter; headers name digests and tokens."""
    body = {"inputs": [TEXTS[0], {"text": TEXTS[1], "adapter": "yesno"}, {"text": TEXTS[2]}], "adapter": "news"}
    answer = post(service, "/v1/classify", body)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["adapter"] for one in results] == ["news", "yesno", "news"]
    assert [list(one["probabilities"]) for one in results] == [
        ["bank", "oil", "sport"],
        ["no", "yes"],
        ["bank", "oil", "sport"],
    ]
    for one in results:
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
        assert one["truncated"] is False and "receipt" not in one
    assert results[1]["abstain"] is True
    digests = [digest_of(bundles["news"]), digest_of(bundles["yesno"])]
    assert answer.headers["x-adapter-digest"] == ",".join(digests)
    assert int(answer.headers["x-compute-tokens"]) == sum(one["tokens"] for one in results)
    assert int(answer.headers["x-queue-time"]) >= 0
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_an_adapter_is_named_by_default_name_or_digest(service: Service, bundles: dict[str, Path]) -> None:
    """Without a name the default answers; a digest is a name too; two adapters answer a text differently."""
    plain = post(service, "/v1/classify", {"inputs": [TEXTS[0]]}).json()["results"][0]
    named = service.classify(TEXTS[0], "news").json()["results"][0]
    digest = service.classify(TEXTS[0], digest_of(bundles["news"])).json()["results"][0]
    assert plain["probabilities"] == named["probabilities"] == digest["probabilities"]
    assert digest["adapter"] == digest["digest"] == plain["digest"]


def test_a_request_id_is_kept_if_it_is_a_harmless_one(service: Service) -> None:
    """A client's own id comes back; one that could break a log line is replaced."""
    for given, kept in (("job-7.a_B", True), ("a b", False), ("x" * 65, False), ('"><script>', False)):
        answer = service.client.get("/livez", headers={"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is kept


def test_truncation_is_told_or_refused(service: Service) -> None:
    """A text that is too long is cut and flagged; with truncate false it is refused with both numbers."""
    long = " ".join(["loan"] * 200)
    cut = service.classify(long, "news").json()["results"][0]
    assert cut["truncated"] is True and cut["tokens"] == 32
    refused = post(service, "/v1/classify", {"inputs": ["goal", long], "adapter": "news", "truncate": False})
    assert refused.status_code == 422
    assert refused.json()["error"] == "inputs.1 has 202 tokens, its adapter takes 32"
    predict = post(service, "/predict", {"inputs": long, "truncate": False})
    assert (predict.status_code, predict.json()["error_type"]) == (413, "validation")


def test_predict_has_the_shape_of_text_embeddings_inference(service: Service) -> None:
    """Its published examples: a list of {score, label} in falling order for one text, a list of lists for a batch."""
    one = post(service, "/predict", {"inputs": "What is Deep Learning?"})
    assert one.status_code == 200
    assert all(set(entry) == {"score", "label"} for entry in one.json())
    scores = [entry["score"] for entry in one.json()]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-6)
    assert post(service, "/predict", {"inputs": ["What is Deep Learning?"]}).json() == one.json()
    many = post(service, "/predict", {"inputs": [[TEXTS[0]], [TEXTS[1]]], "raw_scores": False, "truncate": True})
    assert [len(entry) for entry in many.json()] == [3, 3]
    assert int(many.headers["x-compute-tokens"]) > 0
    raw = post(service, "/predict", {"inputs": TEXTS[0], "raw_scores": True}).json()
    assert [entry["label"] for entry in raw] == [entry["label"] for entry in many.json()[0]]
    assert sum(entry["score"] for entry in raw) != pytest.approx(1, abs=1e-3)
    other = post(service, "/predict?adapter=yesno", {"inputs": TEXTS[0]}).json()
    assert {entry["label"] for entry in other} == {"no", "yes"}


@pytest.mark.parametrize(
    ("inputs", "status", "kind"),
    [
        ([], 400, "empty"),
        ([["a"]] * 33, 413, "validation"),
        (["a", "b"], 422, "validation"),
        ([["a", "b"]], 422, "validation"),
        ([[]], 422, "validation"),
        ("", 422, "validation"),
        (5, 422, "validation"),
    ],
)
def test_predict_refuses_as_text_embeddings_inference_documents(
    service: Service, inputs: Any, status: int, kind: str
) -> None:
    """400 for an empty batch, 413 for one that is too large, 422 for another shape."""
    answer = post(service, "/predict", {"inputs": inputs})
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind), answer.text


def test_compare_asks_every_adapter(service: Service) -> None:
    """One text, one result for each name, in their order, the same as classify gives."""
    answer = post(service, "/v1/compare", {"text": TEXTS[0]}).json()
    assert [one["adapter"] for one in answer["results"]] == ["news", "yesno"] and answer["failed"] == []
    alone = service.classify(TEXTS[0], "yesno").json()["results"][0]
    assert answer["results"][1]["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-4)


def test_models_show_quality_and_base(service: Service, bundles: dict[str, Path]) -> None:
    """A model's root is its digest, its parent the base; abstention and labels are the bundle's."""
    models = service.client.get("/v1/models").json()
    assert [one["id"] for one in models["data"]] == ["news", "yesno"]
    first = models["data"][0]
    assert first["root"] == digest_of(bundles["news"]) and first["parent"] == service.engine.base_digest
    assert first["versions"] == {first["root"]: 1} and first["labels"] == ["bank", "oil", "sport"]
    assert first["abstention"]["threshold"] == 0.5 and first["max_tokens"] == 32


def test_an_adapter_that_gives_no_answer_fails_its_request_only(
    service: Service, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """16, 20: one broken adapter is a 500 (424 in predict), compare shows the others; the next request is fine."""
    broken = digest_of(bundles["yesno"])
    real = service.engine.run

    def run(rows: Any) -> Any:
        return [
            RuntimeError("secret /path") if row.digest == broken else out
            for row, out in zip(rows, real(rows), strict=True)
        ]

    monkeypatch.setattr(service.engine, "run", run)
    for answer, status in (
        (service.classify(TEXTS[0], "yesno"), 500),
        (post(service, "/predict?adapter=yesno", {"inputs": "goal"}), 424),
    ):
        assert (answer.status_code, answer.json()["error_type"]) == (status, "backend")
        assert "secret" not in answer.text
    compared = post(service, "/v1/compare", {"text": TEXTS[0]}).json()
    assert [one["adapter"] for one in compared["results"]] == ["news"]
    assert [one["adapter"] for one in compared["failed"]] == ["yesno"]
    monkeypatch.undo()
    service.still_works()


def test_adapters_are_loaded_renamed_rolled_back_and_unloaded(bundles: dict[str, Path], tmp_path: Path) -> None:
    """The admin's whole way over HTTP, and vLLM's two calls."""
    with serving(tmp_path / "home", {"news": bundles["news"]}) as service:
        client, news = service.client, digest_of(bundles["news"])
        service.put_into_inbox(bundles["later"], "v2")
        loaded = post(service, "/v1/adapters", {"id": "v2"}).json()
        assert (loaded["state"], loaded["names"]) == ("ready", ["v2"])
        assert client.put("/v1/aliases/news", json={"weights": {loaded["digest"]: 1}}).json()["history"] == 1
        assert service.classify("goal", "news").json()["results"][0]["digest"] == loaded["digest"]
        assert client.put("/v1/aliases/news", json={"rollback": True}).json()["weights"] == {news: 1}
        assert client.put("/v1/aliases/news", json={"rollback": True}).status_code == 409
        gone = client.delete("/v1/adapters/v2")
        assert gone.status_code == 200 and gone.json()["digests"] == [loaded["digest"]]
        assert service.classify("goal", "v2").status_code == 404
        assert client.delete("/v1/adapters/v2").status_code == 404
        lora = {"lora_name": "again", "lora_path": "v2"}
        assert client.post("/v1/load_lora_adapter", json=lora).json()["digests"] == [loaded["digest"]]
        service.put_into_inbox(bundles["yesno"], "other")
        taken = client.post("/v1/load_lora_adapter", json={**lora, "lora_path": "other"})
        assert taken.status_code == 409 and "load_inplace" in taken.json()["error"]
        inplace = {**lora, "lora_path": "other", "load_inplace": True}
        assert client.post("/v1/load_lora_adapter", json=inplace).status_code == 200
        assert service.classify("goal", "again").json()["results"][0]["label"] in ("no", "yes")
        assert client.post("/v1/unload_lora_adapter", json={"lora_name": "again"}).status_code == 200
        states = {one["id"]: one["state"] for one in client.get("/v1/adapters").json()["adapters"]}
        assert states["again"] == "unloaded" and states["news"] == "ready"
        service.still_works()


def test_a_bundle_that_is_refused_says_why_without_a_path(bundles: dict[str, Path], tmp_path: Path) -> None:
    """A damaged bundle of the inbox is a 422 with the reason; where it lies is nobody's business."""
    with serving(tmp_path / "home", {"news": bundles["news"]}) as service:
        service.put_into_inbox(bundles["later"], "bad")
        (service.home / "inbox" / "bad" / "head.safetensors").write_bytes(b"x")
        answer = post(service, "/v1/adapters", {"id": "bad"})
        assert answer.status_code == 422 and "head.safetensors" in answer.json()["error"]
        assert str(tmp_path) not in answer.text
        failed = [one for one in service.client.get("/v1/adapters").json()["adapters"] if one["state"] == "failed"]
        assert [one["id"] for one in failed] == ["bad"] and failed[0]["reason"]
        service.still_works()


def test_swapping_an_alias_under_load_never_mixes(bundles: dict[str, Path], tmp_path: Path) -> None:
    """11: while a name is swapped 100 times, every answer is that of the digest that its header names."""
    with serving(tmp_path / "home", {"news": bundles["news"], "later": bundles["later"]}) as service:
        digests = [digest_of(bundles["news"]), digest_of(bundles["later"])]
        expected = {one: service.classify(TEXTS[0], one).json()["results"][0]["probabilities"] for one in digests}
        done = threading.Event()
        seen: list[tuple[int, str, Any]] = []

        def traffic() -> None:
            while not done.is_set():
                answer = service.classify(TEXTS[0], "news")
                seen.append((answer.status_code, answer.headers["x-adapter-digest"], answer.json()["results"][0]))

        threads = [threading.Thread(target=traffic) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(100):
            service.registry.set_alias("news", {digests[(number + 1) % 2]: 1})
            time.sleep(0.002)
        done.set()
        for thread in threads:
            thread.join()
        assert {digest for _, digest, _ in seen} == set(digests)
        for status, digest, result in seen:
            assert status == 200 and result["digest"] == digest
            assert result["probabilities"] == pytest.approx(expected[digest], abs=1e-4)
