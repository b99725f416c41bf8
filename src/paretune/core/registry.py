"""A table from a name to a thing that is imported only when asked for, with "did you mean".

Not here: any entry; each room keeps its own table.

    METHODS = Registry("method", {"lora": "paretune.methods.lora:Lora"})
    METHODS.load("lora")
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from paretune.core.config import nearest
from paretune.core.errors import UnknownNameError, said


class Registry:
    """Names and lazy targets ("package.module:object"); closed once made."""

    def __init__(self, word: str, targets: Mapping[str, str]) -> None:
        self.word = word
        self._targets = dict(targets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def check(self, name: str) -> str:
        """The name itself, if it is known.

        Raises:
            UnknownNameError: it is not; the message suggests the nearest one.
        """
        if name not in self._targets:
            allowed = "one of " + ", ".join(self._targets)
            raise UnknownNameError(said(f"unknown {self.word} {name!r}", allowed, nearest=nearest(name, self._targets)))
        return name

    def load(self, name: str) -> Any:
        """Import and return what the name stands for."""
        module, _, attribute = self._targets[self.check(name)].partition(":")
        return getattr(importlib.import_module(module), attribute)
