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
    """Token ids of n texts (special tokens in, cut at the longest length), not padded.

    `text_bytes` says how many bytes of UTF-8 the tokens of each text stand for, where that was asked.
    """

    ids: tuple[tuple[int, ...], ...]
    pad_id: int
    text_bytes: tuple[int, ...] = ()

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


def encode_whole(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, prefix: str = ""
) -> Encoded:
    """As `encode`, each text after a token that begins it, so that all its own tokens follow something; with bytes.

    The first token is the tokenizer's beginning, or its end where it has none, as in Gao et al.'s evaluation harness
    (https://github.com/EleutherAI/lm-evaluation-harness); one that the tokenizer puts there itself is not doubled.
    """
    whole = [prefix + text for text in texts]
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert isinstance(first, int), "load_tokenizer made sure of a token that ends"
    encoded = tokenizer(
        whole, add_special_tokens=False, truncation=True, max_length=max_tokens - 1, return_offsets_mapping=True
    )
    ids = tuple((first, *row) for row in encoded["input_ids"])
    ends = [max((end for _, end in spans), default=0) for spans in encoded["offset_mapping"]]
    text_bytes = tuple(len(text[:end].encode()) for text, end in zip(whole, ends, strict=True))
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)
    return Encoded(ids, pad_id, text_bytes)
