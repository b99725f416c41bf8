"""Receipts of answers, replayed offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from served import TEXTS, digest_of, post, serving

from paretune.core.errors import BundleError, RecordError
from paretune.serve.receipts import read_receipt, replay


def test_a_receipt_is_replayed_offline(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Alone in its batch the same bits come out; in company they agree within the tolerance; a changed one differs."""
    home = tmp_path / "home"
    with serving(home, {name: bundles[name] for name in ("news", "yesno")}) as service:
        alone = post(service, "/v1/classify", {"inputs": [TEXTS[0]], "adapter": "news", "receipt": True}).json()
        mixed = post(
            service,
            "/v1/classify",
            {"inputs": [TEXTS[0], {"text": TEXTS[2], "adapter": "yesno"}], "adapter": "news", "receipt": True},
        )
    receipt = tmp_path / "receipt.json"
    receipt.write_text(json.dumps(alone))
    result = replay(receipt, home)
    assert (result.verdict, result.difference, result.reasons) == ("bit-equal", 0.0, ())
    company = mixed.json()["results"][0]["receipt"]
    assert len(company["batch"]) == 2
    receipt.write_text(json.dumps(company))
    result = replay(receipt, home)
    assert result.agrees and result.difference <= result.tolerance and "2 adapters" in result.reasons[0]
    changed = {**alone["results"][0]["receipt"], "text": TEXTS[1]}
    receipt.write_text(json.dumps(changed))
    assert not replay(receipt, home).agrees
    receipt.write_text(json.dumps({**changed, "adapter_digest": "0" * 64}))
    with pytest.raises(BundleError):
        replay(receipt, home)
    shutil.rmtree(home / "adapters" / digest_of(bundles["news"]))
    receipt.write_text(json.dumps(alone))
    with pytest.raises(BundleError):
        replay(receipt, home)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "{}", '{"results": 5}', '{"results": [{}]}', '{"adapter_digest": 5}']
)
def test_what_is_no_receipt_is_said(text: str, tmp_path: Path) -> None:
    """Every other file is one clear line, never a stack."""
    path = tmp_path / "receipt.json"
    path.write_text(text)
    with pytest.raises(RecordError):
        read_receipt(path)
    with pytest.raises(RecordError):
        read_receipt(tmp_path / "missing.json")
