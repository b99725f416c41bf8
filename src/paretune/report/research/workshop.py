"""A folder for Typst's files that is gone afterwards.

with workshop({"main.typ": "= Title"}) as folder: typst.compile(str(folder / "main.typ"))
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def workshop(files: Mapping[str, str]) -> Generator[Path]:
    """Write the files and give their folder."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        yield folder
