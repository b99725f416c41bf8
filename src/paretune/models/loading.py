"""The base model, built with `transformers` (https://huggingface.co/docs/transformers).

Not here: where their files come from (`sources.py`), its tokenizer (`tokenizer.py`), heads and methods.

    encoder = load_encoder("asset:minilm-l6")
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from paretune.core.errors import AssetError, ConfigError, said
from paretune.models.sources import DECODERS, model_folder, model_type, readable

_NO_POOLER = ("bert", "roberta", "xlm-roberta")


def load_encoder(source: str, base: Path | None = None) -> PreTrainedModel:
    """The encoder in fp32, in eval mode, without pooling layer, with all dropout off and attention written out.

    Of a decoder the part without the map back to its vocabulary. Dropout is off by default because PyTorch's on a CPU
    costs more than the rest of the step.

    Raises:
        as `model_folder`, and AssetError when weights do not fit the config.
    """
    return _loaded(AutoModel, source, base)


def load_language_model(source: str, base: Path | None = None) -> tuple[PreTrainedModel, nn.Linear | None]:
    """A decoder as `load_encoder` gives it, and its map to the vocabulary; None where its embeddings are that map.

    Raises:
        as `load_encoder`, and ConfigError for a model that is no decoder.
    """
    kind = model_type(source, base)
    if kind not in DECODERS:
        given = f"{source} is a model of type {kind!r}, which predicts no next token"
        raise ConfigError(said(given, "a decoder of type " + " or ".join(DECODERS)))
    whole = _loaded(AutoModelForCausalLM, source, base)
    output = None if whole.config.tie_word_embeddings else cast(nn.Linear, whole.get_output_embeddings())
    return cast(PreTrainedModel, whole.base_model), output


def _loaded(how: Any, source: str, base: Path | None) -> PreTrainedModel:
    folder = model_folder(source, base)
    with _quiet_loading(), readable(source):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _without_dropout(config)
        config.use_cache = False  # of keys and values, which only generation reads
        more = {"add_pooling_layer": False} if config.model_type in _NO_POOLER else {}
        model, found = how.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",  # torch's fused backward takes a third of a step on a CPU (LOG.md)
            local_files_only=True,
            output_loading_info=True,
            **more,
        )
    if found["missing_keys"] or found["mismatched_keys"]:
        names = ", ".join(map(str, [*sorted(found["missing_keys"]), *sorted(found["mismatched_keys"])][:3]))
        raise AssetError(
            said(f"{source}: weights missing or of another shape: {names}", "weights that fit config.json")
        )
    return model.eval()


def load_outline(source: str, base: Path | None = None) -> PreTrainedModel:
    """The encoder's parts and shapes on the device "meta", without any weights: enough to count.

    Raises:
        as `model_folder`.
    """
    folder = model_folder(source, base)
    with _quiet_loading(), readable(source), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        more = {"add_pooling_layer": False} if config.model_type in _NO_POOLER else {}
        return AutoModel.from_config(config, attn_implementation="eager", dtype=torch.float32, **more)


@contextmanager
def _quiet_loading() -> Generator[None]:
    """Hold back the report of unused weights (a pooler is always unused here) and the bar of a one-second load.

    What would matter in that report, missing or misshaped weights, `load_encoder` raises itself.
    """
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _without_dropout(config: PreTrainedConfig) -> None:
    for name, value in config.to_dict().items():
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
