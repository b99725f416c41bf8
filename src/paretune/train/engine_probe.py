"""Times one training step of two blocks by each engine that this machine has, in turn.

Whole blocks, not products alone: with equal products the C++ kernels are still faster, because they read and write
less, and only the whole says which to take. Not here: what follows from the figures (`core/engine_timings.py`). To be
called in a process that does nothing else (`study/engines.py`); takes a second or two.

    measured().native_seconds
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from paretune.core.engine_timings import EngineTimings, hold, machine_key
from paretune.core.limits import processor_has_bf16, usable_cores
from paretune.kernels.native.library import library
from paretune.train.fast_encoder import FastEncoder

TEXTS, TOKENS = 16, 64
ROUNDS = 5
SECONDS = 1.5  # no further round after so much
HOPELESS = 4.0  # times as slow as fp32 in its first step: not timed again


def measured() -> EngineTimings:
    """The least seconds of a step by each engine, after one step that is not counted."""
    hold(None)
    torch.set_num_threads(usable_cores())
    encoder = _encoder()
    engines = {"fp32_seconds": FastEncoder(encoder, torch.float32)}
    if processor_has_bf16():
        engines["bf16_seconds"] = FastEncoder(encoder, torch.bfloat16, native=False)
        native = FastEncoder(encoder, torch.bfloat16)
        if native.in_cpp:
            engines["native_seconds"] = native
    generator = torch.Generator().manual_seed(0)
    ids_bt = torch.randint(1, encoder.config.vocab_size, (TEXTS, TOKENS), generator=generator)
    first = {name: _step(one, encoder, ids_bt) for name, one in engines.items()}
    timed = [name for name in engines if first[name] <= HOPELESS * first["fp32_seconds"]]
    seconds = {name: first[name] for name in engines if name not in timed}
    began = time.perf_counter()
    for turn in range(ROUNDS):
        if turn > 1 and time.perf_counter() - began > SECONDS:
            break
        for name in timed:
            took = _step(engines[name], encoder, ids_bt)
            seconds[name] = min(took, seconds.get(name, took))
    return EngineTimings(machine=machine_key(), library=library().name, **seconds)


def _encoder() -> BertModel:
    config = BertConfig(
        vocab_size=1000,
        hidden_size=384,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]  as models/loading.py asks for
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertModel(config, add_pooling_layer=False).eval()


def _step(fast: FastEncoder, encoder: BertModel, ids_bt: Tensor) -> float:
    """Seconds of forward and backward with all weights learning."""
    encoder.zero_grad(set_to_none=True)
    began = time.perf_counter()
    fast.hidden(ids_bt, torch.ones_like(ids_bt)).square().mean().backward()
    return time.perf_counter() - began
