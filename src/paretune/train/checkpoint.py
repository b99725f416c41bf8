"""Save and resume a training in the middle, bit for bit: trained tensors, optimizer, step, all random states, costs.

Not here: the finished adapter (`methods/method.py` saves it). A checkpoint appears by rename or not at all.

    write_checkpoint(path, checkpoint_bytes(state, optimizer, step=40)); read_checkpoint(path).step
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from paretune.core.config import JsonObject
from paretune.core.errors import ReloadError, said

_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError, BadZipFile)


class Costs(Protocol):
    """Who knows what a training has cost so far; what it knows goes on with the checkpoint, and decides nothing."""

    def so_far(self) -> JsonObject: ...

    def resume(self, cost: JsonObject | None) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """How far a training came, its trained tensors, what it had cost (None where nobody wrote that down), what the loop
    noted of the way there, and the states of the optimizer and of all generators."""

    step: int
    state: dict[str, torch.Tensor]
    cost: JsonObject | None
    notes: JsonObject
    optimizer: dict[str, Any]
    random: tuple[torch.Tensor, Any, Any]


def checkpoint_bytes(
    state: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    cost: JsonObject | None = None,
    notes: JsonObject | None = None,
) -> bytes:
    """A checkpoint as one blob; `notes` are plain values."""
    name, key, position, has_gauss, gauss = np.random.get_state(legacy=True)  # libraries draw from it
    tree = {
        "step": step,
        "cost": None if cost is None else json.dumps(cost),
        "state": state,
        "notes": notes or {},
        "optimizer": optimizer.state_dict(),
        "torch_random": torch.get_rng_state(),
        "python_random": random.getstate(),
        "numpy_random": (name, np.asarray(key).tolist(), position, has_gauss, gauss),
    }
    sink = io.BytesIO()
    torch.save(tree, sink)
    return sink.getvalue()


def write_checkpoint(path: Path, blob: bytes) -> None:
    """Write by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(blob)
    temporary.replace(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """What a checkpoint holds; nothing is changed by it yet.

    Raises:
        ReloadError: the file is torn or of another kind.
    """
    check_whole(path)
    try:
        tree = torch.load(path, weights_only=True)
        cost = tree.get("cost")
        return Checkpoint(
            step=int(tree["step"]),
            state=tree["state"],
            cost=None if cost is None else json.loads(cost),
            notes=tree["notes"],
            optimizer=tree["optimizer"],
            random=(tree["torch_random"], tree["python_random"], tree["numpy_random"]),
        )
    except (*_UNREADABLE, AttributeError, TypeError) as error:
        raise _unusable(path, error) from error


def check_whole(path: Path) -> None:
    """Read what `torch.save` wrote against its checksums, which `torch.load` does not look at.

    Raises:
        ReloadError: the file is missing, torn or changed.
    """
    try:
        with ZipFile(path) as file:
            odd = file.testzip()
    except _UNREADABLE as error:
        raise _unusable(path, error) from error
    if odd is not None:
        raise _unusable(path, ValueError(f"{odd} is not what was written"))


def restore_optimizer(found: Checkpoint, path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put the optimizer back; after an error it is of no use any more.

    Raises:
        ReloadError: it is the optimizer of another training.
    """
    try:
        optimizer.load_state_dict(found.optimizer)
    except (KeyError, ValueError) as error:
        raise _unusable(path, error) from error


def restore_random(found: Checkpoint) -> None:
    """Put all random states back."""
    of_torch, of_python, (name, key, *rest) = found.random
    torch.set_rng_state(of_torch)
    random.setstate(of_python)
    np.random.set_state((name, np.array(key, dtype=np.uint32), *rest))


def _unusable(path: Path, error: Exception) -> ReloadError:
    reason = (str(error).splitlines() or [""])[0] if str(error) else type(error).__name__
    return ReloadError(said(f"{path.name} cannot be read ({reason})", "a file as training wrote it"))
