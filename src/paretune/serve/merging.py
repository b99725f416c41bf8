"""When one adapter has all the traffic, its updates are added to the weights once, and the passes get cheaper.

Merged weights are used only if they give the adapter's goldens, and go when another adapter comes. Not here: the passes
themselves (`engine.py`). An adapter that failed the comparison is not tried again.

    merging.saw({"9f86…"}); merging.due
"""

from __future__ import annotations

from collections.abc import Set

from torch import Tensor


class Merging:
    """Counts batches of one adapter; `after` of them make it due (0: never)."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._digest: str | None = None
        self._batches = 0
        self._weights: dict[str, Tensor] = {}
        self._refused: set[str] = set()

    def saw(self, digests: Set[str]) -> None:
        """Count a batch; merged weights of another adapter go."""
        only = next(iter(digests)) if len(digests) == 1 else None
        if only is None or only != self._digest:
            self._weights = {}
            self._digest, self._batches = only, 0
        self._batches += 1

    @property
    def due(self) -> str | None:
        """The adapter whose weights should be merged now."""
        waiting = self._after and self._batches >= self._after and not self._weights
        return self._digest if waiting and self._digest not in self._refused else None

    @property
    def digest(self) -> str | None:
        """The adapter whose merged weights are in use."""
        return self._digest if self._weights else None

    def weights(self, digest: str) -> dict[str, Tensor]:
        """Merged weights of this adapter; empty where there are none."""
        return self._weights if digest == self._digest else {}

    def use(self, digest: str, weights: dict[str, Tensor]) -> None:
        """Take merged weights that held the comparison, unless the adapter was unloaded meanwhile."""
        if digest == self._digest:
            self._weights = weights

    def refuse(self, digest: str) -> None:
        """Never merge this one: its merged weights gave other answers, or it has nothing to merge."""
        self._refused.add(digest)

    def forget(self, digest: str) -> None:
        """The adapter was unloaded."""
        self._refused.discard(digest)
        if digest == self._digest:
            self._digest, self._batches, self._weights = None, 0, {}
