"""Texts → token ids → padded tensors.

Not here: which rows stand together in a batch (`train/batches.py`, `serve/scheduler.py`). Axes: b batch row, t token
position.

    input_ids_bt, mask_bt = encode(tokenizer, ["one text", "another"], max_tokens=128).padded([0, 1])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase


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
        width = max(1, *(len(row) for row in rows))  # a decoder's tokenizer makes no token of an empty text
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
