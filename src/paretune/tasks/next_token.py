"""Plain next-token prediction on text: the loss is the mean negative log-likelihood of the tokens of a batch.

A text is preceded by the tokenizer's beginning (else its end) token, so that its own first token is predicted too and
bits per byte are of the whole text; it is cut at the longest length, and then only the bytes before the cut count.
Not here: the logits, which are never held whole (`kernels/token_loss.py`), generation, and loss on a part of a text.

    NextToken(()).scores(TokenLosses(np.array([30.0]), np.array([10]), np.array([40])), [""])["nll"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from paretune.data.encoding import Encoded, TextTokenizer, encode_whole
from paretune.stats.token_scores import token_scores
from paretune.tasks.task import Answers, ModelKind, Task


@dataclass(frozen=True)
class TokenLosses(Answers):
    """What a model made of n texts: summed negative log-likelihood in nats, predicted tokens, bytes of those tokens."""

    nll_n: np.ndarray
    tokens_n: np.ndarray
    text_bytes_n: np.ndarray

    def columns(self, labels: Sequence[str]) -> dict[str, list[object]]:
        """`nll` is the sum: the mean per token is it by `tokens`."""
        return {
            "nll": self.nll_n.tolist(),
            "tokens": self.tokens_n.tolist(),
            "text_bytes": self.text_bytes_n.tolist(),
        }


class NextToken(Task[TokenLosses]):
    """Texts without labels; a model's outputs are each text's summed loss and its number of predicted tokens."""

    labelled: ClassVar[bool] = False
    model: ClassVar[ModelKind] = "language"
    metrics: ClassVar[tuple[str, ...]] = ("nll",)  # the margin and all comparisons are in nats per token

    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self.labels = ()

    def encode(self, tokenizer: TextTokenizer, texts: Sequence[str], max_tokens: int, prefix: str) -> Encoded:
        return encode_whole(tokenizer, texts, max_tokens, prefix)

    def targets(self, labels: Sequence[str]) -> torch.Tensor:
        """Nothing that the text does not say itself: zeros, shape (n,)."""
        return torch.zeros(len(labels))

    def units(self, lengths: Sequence[int]) -> int:
        """Predicted tokens: all but the first of each text."""
        return max(1, sum(max(0, length - 1) for length in lengths))

    def loss_sum(self, outputs_bc: torch.Tensor, targets_b: torch.Tensor) -> torch.Tensor:
        return outputs_bc[:, 0].sum()

    def results(self, outputs_nc: torch.Tensor, encoded: Encoded) -> np.ndarray:
        """Summed loss, tokens and bytes; shape (n, 3)."""
        bytes_n = np.array(encoded.text_bytes, dtype=float)
        return np.concatenate([outputs_nc.double().numpy(), bytes_n[:, None]], axis=1)

    def outcome(self, results_nc: np.ndarray, labels: Sequence[str]) -> TokenLosses:
        counts_n2 = results_nc[:, 1:].astype(np.int64)
        return TokenLosses(results_nc[:, 0], counts_n2[:, 0], counts_n2[:, 1])

    def scores(self, outcome: TokenLosses, labels: Sequence[str]) -> dict[str, float]:
        return token_scores(outcome.nll_n, outcome.tokens_n, outcome.text_bytes_n)
