"""While an encoder's word embeddings learn, only the rows that the training texts touch are held by the optimizer.

Of a multilingual vocabulary of 250,000 a small data set touches some thousands. A row that never occurs gets no
gradient, so its moments stay zero and all that AdamW does to it is to decay it: after the last step it is the first
value times ∏(1 − rate·decay), which is applied once. What is trained is exactly what the dense optimizer would train
(tested); gradients, moments and updates of all other rows are neither held nor computed. Not here: the optimizer
(`optim.py`).

    with active_vocabulary(model, encoded, decay=0.99) as encoded: ...
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
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


@contextmanager
def active_vocabulary(model: EncoderClassifier, encoded: Encoded, decay: float) -> Generator[Encoded]:
    """Inside the block the table of words has the touched rows only, and the texts' ids are those of its rows.

    `decay` is what the whole training multiplies an untouched row by; one that did not reach its end leaves them as
    they were. Only then is all of the table in memory: what training needed is better gone by then. Where the words do
    not learn nothing changes.
    """
    found = _trained_words(model)
    if found is None:
        yield encoded
        return
    embeddings, whole = found
    ids = sorted({*chain.from_iterable(encoded.ids), encoded.pad_id})
    place = {one: row for row, one in enumerate(ids)}
    padding = None if whole.padding_idx is None or whole.padding_idx not in place else place[whole.padding_idx]
    few = nn.Embedding.from_pretrained(whole.weight.detach()[ids], freeze=False, padding_idx=padding)
    name = WORDS[model.encoder.config.model_type].rpartition(".")[2]
    embeddings.register_module(name, few)
    factor = 1.0
    try:
        yield Encoded(tuple(tuple(place[one] for one in row) for row in encoded.ids), place[encoded.pad_id])
        factor = decay
    finally:
        with torch.no_grad():
            if factor != 1:
                whole.weight.mul_(factor)
            whole.weight[ids] = few.weight.detach()
        whole.weight.grad = None
        embeddings.register_module(name, whole)
