"""Find, freeze and count the parts of a model.

Not here: any method of adapting it (`methods/`), nor building one (`loading.py`). Names are those of
`transformers` models (https://huggingface.co/docs/transformers).

    freeze(encoder); trainable(layers(encoder)[-1])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from paretune.core.config import nearest
from paretune.core.errors import ConfigError, UnknownNameError, said

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# config.model_type → where the transformer blocks are
_LAYERS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "distilbert": "transformer.layer",
    "llama": "layers",
}


def plain_encoder(encoder: nn.Module) -> PreTrainedModel:
    """The encoder without `peft`'s wrapper."""
    from peft import PeftModel  # seconds to import, and not wanted where nothing is adapted

    return cast("PreTrainedModel", encoder.base_model.model if isinstance(encoder, PeftModel) else encoder)


def freeze(module: nn.Module) -> None:
    """Take every parameter of a module out of training."""
    module.requires_grad_(False)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def count(module: nn.Module) -> tuple[int, int]:
    """Numbers of trainable and of all parameters; a shared one counts once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, moves in sizes if moves), sum(size for size, _ in sizes)


def _layers_path(encoder: PreTrainedModel) -> str:
    kind = encoder.config.model_type
    if kind not in _LAYERS:
        allowed = "one of " + ", ".join(_LAYERS)
        raise UnknownNameError(said(f"model type {kind!r} has unknown layers", allowed, nearest=nearest(kind, _LAYERS)))
    return _LAYERS[kind]


def layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """The transformer blocks, first to last.

    Raises:
        UnknownNameError: a type of model whose blocks are not known here.
    """
    return cast(nn.ModuleList, encoder.get_submodule(_layers_path(encoder)))


def frozen_blocks(encoder: PreTrainedModel) -> int:
    """How many of the lowest blocks no gradient passes, so that they give the same in every step: 0 where the
    embeddings learn."""
    blocks = layers(encoder)
    within = {id(one) for block in blocks for one in block.parameters()}
    if any(one.requires_grad and id(one) not in within for one in encoder.parameters()):
        return 0
    learning = (place for place, block in enumerate(blocks) if trainable(block))
    return next(learning, len(blocks))


def linear_names(encoder: PreTrainedModel, last: int | None = None) -> list[str]:
    """Full names of all linear maps inside the transformer blocks, or inside the last so many of them.

    Raises:
        UnknownNameError: as `layers`.
        ConfigError: the model has fewer blocks.
    """
    path, blocks = _layers_path(encoder), last_layers(encoder, last)
    first = len(layers(encoder)) - len(blocks)
    return [
        f"{path}.{place}.{name}"
        for place, block in enumerate(blocks, first)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]


def last_layers(encoder: PreTrainedModel, count: int | None) -> list[nn.Module]:
    """The last so many transformer blocks; all of them for None.

    Raises:
        UnknownNameError: as `layers`.
        ConfigError: the model has fewer.
    """
    blocks = list(layers(encoder))
    if count is not None and count > len(blocks):
        raise ConfigError(said(f"layers = {count}", f"at most {len(blocks)}, the model's number"))
    return blocks if count is None else blocks[-count:]


def is_query_or_value(linear_name: str) -> bool:
    """Whether a linear map makes the queries or the values of attention."""
    return linear_name.rpartition(".")[2] in ("query", "value", "q_lin", "v_lin", "q_proj", "v_proj")


def is_attention(linear_name: str) -> bool:
    """Whether a linear map belongs to attention, its output map included; else it is of the feed-forward part."""
    return any(part in ("attention", "self_attn") for part in linear_name.split("."))


def biases(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """All bias terms, those of layer norms included (BitFit: https://aclanthology.org/2022.acl-short.1)."""
    return {name: parameter for name, parameter in encoder.named_parameters() if name.split(".")[-1] == "bias"}
