"""Studies for the tests of the dashboard, and a reader who sees the words of its pages.

Not here: any test. The fixtures stand in the files that use them.

    page(Path("/tmp/studies/demo"), "/study/demo")
"""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

from fabricated_study import write_study
from fastapi.testclient import TestClient

from paretune.dashboard.app import create_app
from paretune.dashboard.gate import LOOPBACK_HOSTS, Rights
from paretune.dashboard.generated import Size, write_generated

PAGES = ("", "/budget", "/settings", "/runs", "/data", "/examples")
ODD = "a%20b%26c%23%3Ci%3E"  # of the study "a b&c#<i>"


def write_studies(root: Path) -> Path:
    """Three studies: a usual one, LoRA's settings, and one with an odd name, one method and one seed."""
    write_study(root / "demo", test_rows=120)
    write_generated(root / "settings", Size(methods=24, seeds=2, test_rows=80, steps=10))
    write_study(root / "a b&c#<i>", seeds=(0,), methods=("full",), test_rows=40, extra_split=False, broken=False)
    return root


def write_one(root: Path) -> Path:
    """A small study to be broken."""
    methods = ("tfidf", "lora", "full")
    return write_study(root / "one", methods=methods, test_rows=60, extra_split=False, broken=False)


def client_of(root: Path, lang: str = "en", token: str | None = None) -> TestClient:
    """The dashboard of a folder; errors inside it are raised."""
    rights = Rights(token, LOOPBACK_HOSTS if token is None else None)
    return TestClient(create_app([root], rights, lang), base_url="http://127.0.0.1")


def text_of(html: str) -> str:
    """What a reader sees: no tags, entities read, one space between words."""
    bare = re.sub(r"<script.*?</script>|<[^>]+>", " ", html, flags=re.S)
    return " ".join(unescape(bare).split())


def page(root: Path, path: str, lang: str = "en") -> str:
    """The words of one page of a study."""
    with client_of(root.parent, lang) as client:
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return text_of(answer.text)


def runs_of(folder: Path, method: str) -> list[Path]:
    """Run folders of a method."""
    found = [path for path in sorted((folder / "runs").iterdir()) if (path / "spec.json").exists()]
    return [path for path in found if json.loads((path / "spec.json").read_text())["method"] == method]
