"""Examples → token ids → batches of similar length, padded no further than their longest row.

Not here: what a batch is for. Axes, used in all names: b batch row, t token position, h hidden unit, c class,
n example, s seed, e test example.

    for index_b in epoch_batches(lengths_n, batch_size=16, seed=0, epoch=0): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from paretune.repro.seeding import numpy_generator

WINDOW_BATCHES = 16
LENGTH_NOISE = 0.1


@dataclass(frozen=True)
class Encoded:
    """Token ids of n texts (special tokens in, cut at the longest length), not padded."""

    ids: tuple[tuple[int, ...], ...]
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths_n(self) -> np.ndarray:
        """Real tokens of each text."""
        return np.array([len(row) for row in self.ids])

    def padded(self, index_b: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Input ids and mask of some rows, both (b, t), padded on the right to the longest of them."""
        rows = [self.ids[index] for index in index_b]
        width = max(len(row) for row in rows)
        input_ids_bt = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        mask_bt = torch.zeros((len(rows), width), dtype=torch.long)
        for place, row in enumerate(rows):
            input_ids_bt[place, : len(row)] = torch.tensor(row)
            mask_bt[place, : len(row)] = 1
        return input_ids_bt, mask_bt


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, prefix: str = "") -> Encoded:
    """Tokenize once; `prefix` stands before each text (E5 models want "query: ")."""
    encoded = tokenizer([prefix + text for text in texts], truncation=True, max_length=max_tokens)
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)
    return Encoded(tuple(tuple(row) for row in encoded["input_ids"]), pad_id)


def epoch_batches(lengths_n: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row indices of each batch of one epoch: shuffled, then sorted by length within windows of 16 batches.

    Lengths are taken with 10 % noise, so that a data set of one window does not give the same batches in every epoch.
    The same seed and epoch give every method the same batches. Only the last batch of all may be smaller.
    """
    random = numpy_generator(seed, "order", epoch)
    order_n = random.permutation(len(lengths_n))
    window = batch_size * WINDOW_BATCHES
    batches: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for start in range(0, len(order_n), window):
        chunk = order_n[start : start + window]
        noise = random.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(chunk))
        chunk = chunk[np.argsort(lengths_n[chunk] * noise, kind="stable")]
        for first in range(0, len(chunk), batch_size):
            batch = chunk[first : first + batch_size]
            (batches if len(batch) == batch_size else rest).append(batch)
    shuffled = [batches[place] for place in random.permutation(len(batches))]
    return shuffled + rest


def length_batches(lengths_n: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row indices in batches of like length, longest first: an out-of-memory shows at once."""
    order_n = np.argsort(-lengths_n, kind="stable")
    return [order_n[start : start + batch_size] for start in range(0, len(order_n), batch_size)]
