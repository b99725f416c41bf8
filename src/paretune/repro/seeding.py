"""One seed → named, independent random streams, and the switches that make a run repeat itself.

Not here: which stream a room takes. Streams: "init" (adapter and head), "order" (of the batches), "dropout",
"bootstrap". A stream's seed is the hash of the run's seed and its name, so adding a stream changes no other.

    generator = torch_generator(7, "order", epoch=2)
"""

from __future__ import annotations

import hashlib
import os
import random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch

Stream = Literal["init", "order", "dropout", "bootstrap"]


def stream_seed(seed: int, stream: Stream, epoch: int = 0) -> int:
    """A 63-bit seed for one stream of one run."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def torch_generator(seed: int, stream: Stream, epoch: int = 0) -> torch.Generator:
    """A CPU generator of one stream."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, stream, epoch))


def numpy_generator(seed: int, stream: Stream, epoch: int = 0) -> np.random.Generator:
    """A numpy generator of one stream."""
    import numpy as np

    return np.random.default_rng(stream_seed(seed, stream, epoch))


def make_repeatable(seed: int, threads: int) -> None:
    """Seed what libraries draw from globally, and fix thread counts: the split of a sum depends on them."""
    import numpy as np
    import torch

    random.seed(stream_seed(seed, "dropout"))
    np.random.seed(stream_seed(seed, "dropout") % 2**32)  # libraries draw from it
    torch.manual_seed(stream_seed(seed, "dropout"))
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # A debugging aid that costs time on every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]  torch sets it by __setattr__ of the module
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
