"""Texts → token ids → padded tensors.

Not here: which rows stand together in a batch (`train/batches.py`, `serve/scheduler.py`). Axes: b batch row, t token
position.

    input_ids_bt, mask_bt = encode(tokenizer, ["one text", "another"], max_tokens=128).padded([0, 1])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


class Cut(Protocol):
    """Tokens of one text; `start` to `end` are the characters that they stand for, `length` is that without a cut."""

    @property
    def input_ids(self) -> tuple[int, ...]: ...
    @property
    def length(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


class TextTokenizer(Protocol):
    """A base model's tokenizer; the only one is `BaseTokenizer` of `models/tokenizer.py`, for training and serving."""

    @property
    def pad_id(self) -> int: ...
    @property
    def first_id(self) -> int | None: ...
    @property
    def unknown_id(self) -> int | None: ...
    def __len__(self) -> int: ...
    def encode(
        self, texts: Sequence[str], max_tokens: int | None = None, prefix: str = "", special: bool = True
    ) -> Sequence[Cut]: ...


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


def encode(tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int, prefix: str = "") -> Encoded:
    """Tokenize once; `prefix` stands before each text (E5 models want "query: ")."""
    return Encoded(tuple(one.input_ids for one in tokenizer.encode(texts, max_tokens, prefix)), tokenizer.pad_id)


def encode_whole(tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int, prefix: str = "") -> Encoded:
    """As `encode`, each text after a token that begins it, so that all its own tokens follow something; with bytes.

    The first token is the tokenizer's beginning, or its end where it has none, as in Gao et al.'s evaluation harness
    (https://github.com/EleutherAI/lm-evaluation-harness); one that the tokenizer puts there itself is not doubled.
    """
    first = tokenizer.first_id
    assert first is not None, "read_tokenizer made sure of a token that ends"
    found = tokenizer.encode(texts, max_tokens - 1, prefix, special=False)
    spans = [(prefix + text)[one.start : one.end] for text, one in zip(texts, found, strict=True)]
    ids = tuple((first, *one.input_ids) for one in found)
    return Encoded(ids, tokenizer.pad_id, tuple(len(span.encode()) for span in spans))
