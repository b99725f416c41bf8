"""While an encoder's word embeddings learn, only the rows that the training texts touch are held by the optimizer.

Of a multilingual vocabulary of 250,000 a small data set touches some thousands. A row that never occurs gets no
gradient, so its moments stay zero and all that AdamW does to it is to decay it: after the last step it is the first
value times ∏(1 − rate·decay), which is applied once. What is trained is exactly what the dense optimizer would train
(tested); gradients, moments and updates of all other rows are neither held nor computed. Not here: the optimizer
(`optim.py`).

    with active_vocabulary(model, encoded) as active: ...; active.decay = 0.99
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from paretune.data.encoding import Encoded
from paretune.models.classifier import EncoderClassifier

# Type of model → its table of words; others make positions from ids.
WORDS = {"bert": "embeddings.word_embeddings", "llama": "embed_tokens"}


def _trained_words(model: EncoderClassifier) -> tuple[nn.Module, nn.Embedding] | None:
    """The embeddings' module and its table of words, where that learns and ids mean nothing but a row of it."""
    config = getattr(model.encoder, "config", None)
    if config is None or config.model_type not in WORDS or not model.pools_states:
        return None
    above, _, _ = WORDS[config.model_type].rpartition(".")
    words = model.encoder.get_input_embeddings()
    if type(words) is not nn.Embedding or not words.weight.requires_grad:  # an adapter's is left as it is
        return None
    return model.encoder.get_submodule(above), words


@dataclass
class Active:
    """The texts by the rows of the table that is held now. `decay` is what the training multiplies an untouched row by:
    set it when the training has reached its end; one that has not leaves those rows as they were."""

    texts: tuple[Encoded, ...]
    decay: float = 1.0


@contextmanager
def active_vocabulary(model: EncoderClassifier, *texts: Encoded) -> Generator[Active]:
    """Inside the block the table of words has only the rows that the texts touch, and their ids are those of its rows.

    Only after it is all of the table in memory: what training needed is better gone by then. Where the words do not
    learn nothing changes. A row that only texts without a gradient touch decays step by step, as the dense optimizer
    would have it.
    """
    found = _trained_words(model)
    if found is None:
        yield Active(texts)
        return
    embeddings, whole = found
    ids = sorted({one for encoded in texts for one in (*chain.from_iterable(encoded.ids), encoded.pad_id)})
    place = {one: row for row, one in enumerate(ids)}
    padding = None if whole.padding_idx is None or whole.padding_idx not in place else place[whole.padding_idx]
    few = nn.Embedding.from_pretrained(whole.weight.detach()[ids], freeze=False, padding_idx=padding)
    name = WORDS[model.encoder.config.model_type].rpartition(".")[2]
    embeddings.register_module(name, few)
    active = Active(
        tuple(
            Encoded(tuple(tuple(place[one] for one in row) for row in encoded.ids), place[encoded.pad_id])
            for encoded in texts
        )
    )
    try:
        yield active
    finally:
        with torch.no_grad():
            if active.decay != 1:
                whole.weight.mul_(active.decay)
            whole.weight[ids] = few.weight.detach()
        whole.weight.grad = None
        embeddings.register_module(name, whole)
