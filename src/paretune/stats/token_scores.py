"""How well a language model predicts texts: from each text's summed negative log-likelihood, tokens and bytes.

Lower is better throughout. Nats per token and perplexity compare models of one tokenizer alone; bits per byte any (Gao
et al. 2020, https://arxiv.org/abs/2101.00027, section 3.1). All are ratios of sums over the texts, so a text counts by
its length. Not here: anything that runs a model; scores of classifiers (`metrics.py`).

    token_scores(nll=[30.0, 12.5], tokens=[10, 5], text_bytes=[40, 21])["bits_per_byte"]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def token_scores(
    nll: Sequence[float] | np.ndarray, tokens: Sequence[int] | np.ndarray, text_bytes: Sequence[int] | np.ndarray
) -> dict[str, float]:
    """Mean nats per token, perplexity, bits per byte; `nll` is each text's sum in nats.

    Raises:
        ValueError: unequal lengths, or no token or byte at all.
    """
    if not len(nll) == len(tokens) == len(text_bytes):
        raise ValueError(f"{len(nll)} sums, {len(tokens)} token and {len(text_bytes)} byte counts; one of each a text")
    total = float(np.sum(np.asarray(nll, dtype=np.float64)))
    all_tokens, all_bytes = int(np.sum(tokens)), int(np.sum(text_bytes))
    if all_tokens < 1 or all_bytes < 1:
        raise ValueError("no token was predicted; at least one is needed")
    mean = total / all_tokens
    return {
        "nll": mean,
        "perplexity": math.exp(mean) if mean < 700 else math.inf,
        "bits_per_byte": total / all_bytes / math.log(2),
    }


def nll_per_example(nll: Sequence[float] | np.ndarray, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """One value a text, whose mean is the nats per token of all: the ratio plus each text's first-order share in it.

    What paired comparisons average over texts (the delta method of a ratio of sums, as `metrics.per_example`).

    Raises:
        ValueError: unequal lengths, or no token at all.
    """
    nll_n, tokens_n = np.asarray(nll, dtype=float), np.asarray(tokens, dtype=float)
    if nll_n.shape != tokens_n.shape or not tokens_n.sum() > 0:
        raise ValueError(f"{nll_n.size} sums and {tokens_n.size} token counts; one of each a text, and some token")
    ratio = nll_n.sum() / tokens_n.sum()
    return ratio + (nll_n - ratio * tokens_n) / tokens_n.mean()
