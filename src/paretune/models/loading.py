"""The base model, built with `transformers` (https://huggingface.co/docs/transformers).

Not here: where their files come from (`sources.py`), its tokenizer (`tokenizer.py`), heads and methods.

    encoder = load_encoder("asset:minilm-l6")
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING
from transformers.utils import logging as transformers_logging

from paretune.core.errors import AssetError, ConfigError, said
from paretune.models.families import sees_only_before
from paretune.models.sources import first_line, model_folder, own_code, readable

# How transformers builds the encoder alone of a model.
Build = Literal["AutoModel", "AutoModelForTextEncoding", "AutoModel.get_encoder"]
_OUTPUT_TOLERANCE = 1e-4  # of a score for the next token, relative to the largest


def load_encoder(source: str, base: Path | None = None) -> PreTrainedModel:
    """The encoder in fp32, in eval mode, without pooling layer, with all dropout off and attention written out.

    Of a decoder the part without the map back to its vocabulary, of an encoder with a decoder the encoder. Dropout is
    off by default because PyTorch's on a CPU costs more than the rest of the step.

    Raises:
        as `model_folder` and `read_config`, and AssetError when weights do not fit the config.
    """
    config = read_config(source, base)
    match build_of(config):
        case "AutoModel":
            return _loaded(AutoModel, config, source, base)
        case "AutoModelForTextEncoding":
            return _loaded(AutoModelForTextEncoding, config, source, base)
        case "AutoModel.get_encoder":
            return cast(PreTrainedModel, load_whole(source, base).get_encoder())


def load_whole(source: str, base: Path | None = None) -> PreTrainedModel:
    """An encoder with its decoder, as `load_encoder` loads."""
    return _loaded(AutoModel, read_config(source, base), source, base)


def build_of(config: PreTrainedConfig) -> Build:
    """What gives the encoder alone."""
    if not config.is_encoder_decoder:
        return "AutoModel"
    return "AutoModelForTextEncoding" if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else "AutoModel.get_encoder"


def load_language_model(source: str, base: Path | None = None) -> tuple[PreTrainedModel, nn.Linear | None]:
    """A decoder as `load_encoder` gives it, and its map to the vocabulary; None where its embeddings are that map.

    Raises:
        as `load_encoder`, and ConfigError for a model that is no decoder, or whose scores for the next token are not
            that map of its last hidden states alone (capped, scaled).
    """
    config = read_config(source, base)
    if not sees_only_before(config.to_dict()):
        given = f"{source} is a model of type {config.model_type!r}, which predicts no next token"
        raise ConfigError(said(given, "a decoder, such as a Llama or a Qwen"))
    whole = _loaded(AutoModelForCausalLM, config, source, base)
    inner = cast(PreTrainedModel, whole.base_model)
    tied = bool(config.get_text_config().tie_word_embeddings)
    output = None if tied else cast(nn.Linear, whole.get_output_embeddings())
    _check_output(whole, inner, output, source)
    return inner, output


def _check_output(whole: PreTrainedModel, inner: PreTrainedModel, output: nn.Linear | None, source: str) -> None:
    embeddings = cast(nn.Embedding, inner.get_input_embeddings())
    ids_bt = torch.arange(min(4, embeddings.num_embeddings)).unsqueeze(0)
    with torch.inference_mode():
        told = cast(torch.Tensor, whole(input_ids=ids_bt).logits)
        hidden = cast(torch.Tensor, inner(input_ids=ids_bt).last_hidden_state)
        ours = hidden @ (embeddings.weight if output is None else output.weight).T
    if not float((told - ours).abs().max()) <= _OUTPUT_TOLERANCE * max(1.0, float(told.abs().max())):
        given = f"{source} (type {inner.config.model_type!r}) caps, scales or shifts its scores for the next token"
        raise ConfigError(said(given, "a decoder whose scores are a plain product, such as a Llama or a Qwen"))


def read_config(source: str, base: Path | None = None) -> PreTrainedConfig:
    """config.json; code that lies in a model's folder is never run.

    Raises:
        as `model_folder`, and AssetError for a type that `transformers` does not know, or weights that were quantised.
    """
    folder = model_folder(source, base)
    with _quiet_loading(), readable(source):
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except ValueError as error:
            if "trust_remote_code" not in str(error) and "custom code" not in str(error):
                raise
            raise AssetError(own_code(source)) from error
    if "quantization_config" in config.to_dict():
        given = f"{source} has quantised weights (quantization_config in config.json)"
        raise AssetError(said(given, "weights in fp32, fp16 or bf16", do="take the model that it was made from"))
    return config


def _more(config: PreTrainedConfig) -> dict[str, bool]:
    """No pooling layer, where the model's class can do without."""
    if type(config) not in MODEL_MAPPING or config.is_encoder_decoder:
        return {}
    found = cast(object, MODEL_MAPPING[type(config)])
    several = cast("tuple[type[PreTrainedModel], ...]", found if isinstance(found, tuple) else (found,))
    can = all("add_pooling_layer" in inspect.signature(one.__init__).parameters for one in several)
    return {"add_pooling_layer": False} if can else {}


def _loaded(how: Any, config: PreTrainedConfig, source: str, base: Path | None) -> PreTrainedModel:
    folder = model_folder(source, base)
    with _quiet_loading(), readable(source):
        _without_dropout(config)
        config.use_cache = False  # of keys and values, which only generation reads
        try:
            model, found = how.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation="eager",  # torch's fused backward takes a third of a step on a CPU (LOG.md)
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **(_more(config) if how is AutoModel else {}),
            )
        except (ImportError, RuntimeError) as error:
            given = f"{source} (type {config.model_type!r}) cannot be built ({first_line(error)})"
            raise AssetError(said(given, "a model that transformers builds without further packages")) from error
    missing = [
        name for name in found["missing_keys"] if not name.startswith("pooler.")
    ]  # its output is never asked for
    if missing or found["mismatched_keys"]:
        names = ", ".join(map(str, [*sorted(missing), *sorted(found["mismatched_keys"])][:3]))
        raise AssetError(
            said(f"{source}: weights missing or of another shape: {names}", "weights that fit config.json")
        )
    return model.eval()


def load_outline(source: str, base: Path | None = None) -> PreTrainedModel:
    """The encoder's parts and shapes on the device "meta", without any weights: enough to count.

    Raises:
        as `read_config`.
    """
    config = read_config(source, base)
    with _quiet_loading(), readable(source), torch.device("meta"):
        _without_dropout(config)
        settings = {"attn_implementation": "eager", "dtype": torch.float32, **_more(config)}
        match build_of(config):
            case "AutoModel":
                return AutoModel.from_config(config, **settings)
            case "AutoModelForTextEncoding":
                return AutoModelForTextEncoding.from_config(config, **settings)
            case "AutoModel.get_encoder":
                return cast(PreTrainedModel, AutoModel.from_config(config, **settings).get_encoder())


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
