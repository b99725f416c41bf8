"""Validation scores after each epoch, and the weights of the best one: when training stops, and with what.

A fixed number of epochs favours methods that learn fast. Here training goes on until the score has not improved for
some epochs (Prechelt 1998, https://doi.org/10.1007/3-540-49430-8_3), and the weights of the best epoch are what it
leaves; of equal epochs the earliest counts. They are kept in a file, whatever their size: memory is measured, and a
second copy of a whole model would be a cost that no one has to pay. Not here: the loop (`loop.py`) and where scores
come from.

    early = EarlyStopping(Watch(encoded, scores, lambda found: found["accuracy"], folder / "best.pt"), patience=2)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import torch

from paretune.core.config import JsonObject
from paretune.core.errors import ReloadError, said
from paretune.data.encoding import Encoded
from paretune.train.frozen_prefix import Shelf


@dataclass(frozen=True)
class Watch:
    """What training is judged by after each epoch: texts, what turns a model's outputs (n, c) for them into scores, and
    of those what is to grow. `best` is the file in which the best weights so far are kept, `shelf` where what frozen
    blocks give is."""

    encoded: Encoded
    scores: Callable[[torch.Tensor], dict[str, float]]
    merit: Callable[[dict[str, float]], float]
    best: Path
    shelf: Shelf | None = None


@dataclass
class EarlyStopping:
    """The history of one training. `decay`: by what an untouched word's embedding was multiplied up to the best
    epoch."""

    watch: Watch
    patience: int
    scores: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    best_epoch: int = 0
    best_step: int = 0
    decay: float = 1.0

    @property
    def done(self) -> bool:
        """Whether the score has not improved for as many epochs as patience allows."""
        return len(self.scores) - self.best_epoch >= self.patience

    def improved(self, scores: dict[str, float], step: int, decay: float) -> bool:
        """Take the scores of one more epoch; whether it is the best so far, so that its weights are to be kept."""
        best = self.scores[self.best_epoch - 1] if self.best_epoch else None
        self.scores.append(scores)
        if best is not None and not self.watch.merit(scores) > self.watch.merit(best):
            return False
        self.best_epoch, self.best_step, self.decay = len(self.scores), step, decay
        return True

    def file(self, epoch: int) -> Path:
        """Where the weights of an epoch are kept: each in a file of its own, so that a checkpoint of before finds its
        own best ones whatever came after it."""
        return self.watch.best.with_name(f"{self.watch.best.stem}-{epoch}{self.watch.best.suffix}")

    def keep(self, state: dict[str, torch.Tensor]) -> None:
        """Write the weights of the best epoch, by rename, tensor by tensor: no second copy is held."""
        file = self.file(self.best_epoch)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        torch.save(state, part)
        part.replace(file)

    def kept(self) -> dict[str, torch.Tensor]:
        """The weights of the best epoch, mapped from their file.

        Raises:
            ReloadError: the file is missing or torn.
        """
        file = self.file(self.best_epoch)
        try:
            return torch.load(file, weights_only=True, mmap=True)
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            given = f"{file}, the weights of epoch {self.best_epoch}, cannot be read ({error})"
            raise ReloadError(said(given, "what training wrote", do="run the study again")) from error

    def forget(self, all_but: int | None = None) -> None:
        """Remove what is kept, but for one epoch's."""
        for file in self.watch.best.parent.glob(f"{self.watch.best.stem}-*{self.watch.best.suffix}"):
            if all_but is None or file != self.file(all_but):
                file.unlink(missing_ok=True)

    def state(self) -> JsonObject:
        """What a checkpoint must hold of it."""
        return {
            "scores": self.scores,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
            "decay": self.decay,
        }

    def begin(self) -> None:
        """Forget what was restored, so that a training begins with the first epoch."""
        self.scores, self.best_epoch, self.best_step, self.decay = [], 0, 0, 1.0

    def restore(self, tree: JsonObject) -> None:
        """Go on from what `state` gave."""
        self.scores = [dict(one) for one in tree["scores"]]
        self.best_epoch, self.best_step = int(tree["best_epoch"]), int(tree["best_step"])
        self.decay = float(tree["decay"])
