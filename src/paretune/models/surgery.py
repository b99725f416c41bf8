"""Find, freeze and count the parts of a model.

Parts are found by what they are, not by a table of families: blocks are the longest list of modules of one class that
hold linear layers, so that every model of `transformers` (https://huggingface.co/docs/transformers) has them. Not here:
any method of adapting it (`methods/`), nor building one (`loading.py`). Names are those of `transformers`.

    freeze(encoder); trainable(layers(encoder)[-1])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from paretune.core.errors import ConfigError, said

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def plain_encoder(encoder: nn.Module) -> PreTrainedModel:
    """The encoder without `peft`'s wrapper."""
    from peft import PeftModel  # seconds to import, and not wanted where nothing is adapted

    return cast("PreTrainedModel", encoder.get_base_model() if isinstance(encoder, PeftModel) else encoder)


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


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer: torch's, or GPT-2's own, whose weight is (inputs, outputs)."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer."""
    from transformers.pytorch_utils import Conv1D  # seconds to import

    return isinstance(module, Conv1D)


def weight_oi(module: nn.Module) -> Tensor:
    """The weight of a linear layer as (outputs, inputs); a view of it."""
    weight = cast(Tensor, module.weight)
    return weight.T if is_conv1d(module) else weight


def _layers_path(encoder: PreTrainedModel) -> str:
    best, most = "", 0
    for path, module in encoder.named_modules():
        if not isinstance(module, nn.ModuleList) or not len(module) or len({type(one) for one in module}) > 1:
            continue
        if any(path.startswith(f"{outer}.") for outer in (best,) if outer):
            continue  # a list inside a block
        size = sum(one.numel() for one in module.parameters())
        if size > most and any(is_linear(one) for one in module.modules()):
            best, most = path, size
    if not best:
        parts = ", ".join(name for name, _ in encoder.named_children())
        given = f"a model of type {encoder.config.model_type!r} has no list of transformer blocks among its parts"
        raise ConfigError(said(f"{given} ({parts})", "such a list", do="use a method that needs none: head or full"))
    return best


def layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """The transformer blocks, first to last. A model that uses one block many times (ALBERT) has it once here.

    Raises:
        ConfigError: the model has no list of such.
    """
    return cast(nn.ModuleList, encoder.get_submodule(_layers_path(encoder)))


def has_layers(encoder: PreTrainedModel) -> bool:
    """Whether there is a list of transformer blocks."""
    try:
        _layers_path(encoder)
    except ConfigError:
        return False
    return True


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
        ConfigError: as `layers`, or the model has fewer blocks.
    """
    path, blocks = _layers_path(encoder), last_layers(encoder, last)
    first = len(layers(encoder)) - len(blocks)
    return [
        f"{path}.{place}.{name}"
        for place, block in enumerate(blocks, first)
        for name, module in block.named_modules()
        if is_linear(module)
    ]


def last_layers(encoder: PreTrainedModel, count: int | None) -> list[nn.Module]:
    """The last so many transformer blocks; all of them for None.

    Raises:
        ConfigError: as `layers`, or the model has fewer.
    """
    blocks = list(layers(encoder))
    if count is not None and count > len(blocks):
        raise ConfigError(said(f"layers = {count}", f"at most {len(blocks)}, the model's number"))
    return blocks if count is None else blocks[-count:]


# What families call the projections to queries and values; in the second row queries, keys and values are one layer.
_QUERY_OR_VALUE = ("query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj", "q", "v")
_JOINED = ("c_attn", "wqkv", "query_key_value", "qkv_proj", "qkv", "in_proj")


def is_query_or_value(linear_name: str) -> bool:
    """Whether a linear layer makes the queries or the values of attention, maybe with the keys in one product."""
    name = linear_name.rpartition(".")[2].lower()
    return is_attention(linear_name) and name in (*_QUERY_OR_VALUE, *_JOINED)


def is_attention(linear_name: str) -> bool:
    """Whether a linear layer belongs to attention, its output layer included; else it is of the feed-forward part."""
    return any("att" in part.lower() for part in linear_name.split("."))


def size_of(encoder: PreTrainedModel, name: str) -> int | None:
    """A whole number of the text model's config by its usual name, whatever its family calls it; None without one."""
    config = encoder.config.get_text_config()
    value = config.to_dict().get(config.attribute_map.get(name, name))
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def position_table(encoder: PreTrainedModel) -> nn.Embedding | None:
    """The table of learnt positions; None of a model that has none (rotary or relative positions)."""
    names = ("position_embeddings", "wpe", "embed_positions", "positions_embed")
    for path, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and path.rpartition(".")[2] in names:
            return module
    return None


def usable_positions(encoder: PreTrainedModel) -> int | None:
    """The longest text in tokens; None where the model sets no limit.

    A table with a padding index (RoBERTa's) begins after it. A model of rotary positions has those of its config,
    beyond which it was not trained; one of relative positions alone (T5, DeBERTa) has no limit.
    """
    table = position_table(encoder)
    named = size_of(encoder, "max_position_embeddings")
    limit = named if named is not None and named > 0 else None
    if table is not None:
        first = 0 if table.padding_idx is None else table.padding_idx + 1
        rows = table.num_embeddings - first
        return rows if limit is None else min(rows, limit)
    rotary = any("rotary" in type(one).__name__.lower() for one in encoder.modules())
    return limit if rotary else None


def biases(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """All bias terms, those of layer norms included (BitFit: https://aclanthology.org/2022.acl-short.1)."""
    return {name: parameter for name, parameter in encoder.named_parameters() if name.split(".")[-1] == "bias"}
