"""Scripts, style and figures' engine as files with hashes in their names: kept by a browser for good, never stale.

Not here: pages (`render.py`). A name is looked up in a list, never joined to a path.

    Files().url("page.js")
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from importlib import resources

from paretune.report.ink import browser_bundle

NAMES = ("page.css", "page.js", "live.js", "curve.js", "figures.js", "budget.js", "icon.svg")
BUNDLE = "vega.js"
MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    body: bytes
    media_type: str


class Files:
    """All files of the pages. Vega's bundle takes a second to make: it is made when it is first asked for."""

    def __init__(self) -> None:
        folder = resources.files("paretune.dashboard") / "page"
        self._by_url: dict[str, File] = {}
        self._urls: dict[str, str] = {}
        self._lock = threading.Lock()
        for name in NAMES:
            self._add(name, (folder / name).read_bytes())

    def _add(self, name: str, body: bytes) -> None:
        stem, _, kind = name.rpartition(".")
        hashed = f"{stem}.{hashlib.sha256(body).hexdigest()[:12]}.{kind}"
        self._by_url[hashed] = File(body, MEDIA_TYPES[kind])
        self._urls[name] = f"/files/{hashed}"

    def url(self, name: str) -> str:
        """Where a file lies."""
        if name == BUNDLE:
            with self._lock:
                if name not in self._urls:
                    self._add(name, browser_bundle().encode())
        return self._urls[name]

    def find(self, hashed: str) -> File | None:
        """A file by its name with the hash."""
        return self._by_url.get(hashed)
