"""Save and resume a training in the middle, bit for bit: trained tensors, optimizer, step, all random states.

Not here: the finished adapter (`methods/method.py` saves it). A checkpoint appears by rename or not at all.

    write_checkpoint(path, checkpoint_bytes(state, optimizer, step=40)); step, state = read_checkpoint(path, optimizer)
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from paretune.core.errors import ReloadError, said


def checkpoint_bytes(state: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, step: int) -> bytes:
    """A checkpoint as one blob."""
    name, key, position, has_gauss, gauss = np.random.get_state(legacy=True)  # libraries draw from it
    tree = {
        "step": step,
        "state": state,
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


def read_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, torch.Tensor]]:
    """Restore the optimizer and all random states; returns the step and the trained tensors.

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
    return int(tree["step"]), tree["state"]
