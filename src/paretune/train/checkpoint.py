"""Save and resume a training in the middle, bit for bit: trained tensors, optimizer, step, all random states, costs.

Not here: the finished adapter (`methods/method.py` saves it). A checkpoint appears by rename or not at all.

    write_checkpoint(path, checkpoint_bytes(state, optimizer, step=40)); read_checkpoint(path, optimizer).step
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import numpy as np
import torch

from paretune.core.config import JsonObject
from paretune.core.errors import ReloadError, said


class Costs(Protocol):
    """Who knows what a training has cost so far; what it knows goes on with the checkpoint, and decides nothing."""

    def so_far(self) -> JsonObject: ...

    def resume(self, cost: JsonObject | None) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """How far a training came, its trained tensors, what it had cost (None where nobody wrote that down), and what the
    loop noted of the way there."""

    step: int
    state: dict[str, torch.Tensor]
    cost: JsonObject | None
    notes: JsonObject


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


def read_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Restore the optimizer and all random states; the rest is for the caller.

    Raises:
        ReloadError: the file is torn or of another kind.
    """
    try:
        tree = torch.load(path, weights_only=True)
        optimizer.load_state_dict(tree["optimizer"])
        torch.set_rng_state(tree["torch_random"])
        random.setstate(tree["python_random"])
        name, key, *rest = tree["numpy_random"]
        np.random.set_state((name, np.array(key, dtype=np.uint32), *rest))
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
        given = f"{path} cannot be read ({error})"
        raise ReloadError(said(given, "a checkpoint of this run", do="delete it")) from error
    cost = tree.get("cost")
    spent = None if cost is None else json.loads(cost)
    return Checkpoint(int(tree["step"]), tree["state"], spent, tree.get("notes", {}))
