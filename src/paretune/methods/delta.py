"""How an adapted encoder differs from its base model, whatever was put into it; and the base model with that merged.

Not here: file formats (`export/`, `serve/bundle.py`). Plain LoRA over an unchanged weight is named as a low-rank
update; all else (variants, updates with a bias, weights that an initialisation changed as PiSSA's does, tensors of the
base model that were trained) as the tensor that stands in the place of the base model's. What is no change of its
tensors, as virtual tokens before a text are, is refused.

    encoder_delta(model.encoder)["encoder.layer.0.attention.self.query"].b_or
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from paretune.core.errors import ConfigError, said
from paretune.kernels.low_rank import LowRank
from paretune.models.adapters import (
    ADAPTER,
    LowRankLinear,
    TransposedLowRank,
    base_modules,
    base_parameters,
    inserted_parameters,
    linear_layer,
)
from paretune.models.surgery import plain_encoder

# Name of a linear layer → its low-rank update, or name of a parameter → what stands in its place.
Delta = dict[str, LowRank | torch.Tensor]
# Values of LoRA's `init_lora_weights` that leave the base model's weights as they are.
_LEAVES_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")


def merged_encoder(encoder: nn.Module) -> nn.Module:
    """The encoder with what was inserted folded into its weights; the given one is used up.

    Raises:
        ConfigError: what was inserted cannot be folded in.
    """
    if not isinstance(encoder, PeftModel):
        return encoder
    inner = cast(object, encoder.base_model)
    if not isinstance(inner, BaseTuner):
        kinds = ", ".join(sorted(str(one.peft_type).rpartition(".")[2] for one in encoder.peft_config.values()))
        given = f"an adapter of type {kinds}, which puts virtual tokens before a text"
        raise ConfigError(said(given, "an adapter that can be folded into the base model's weights"))
    try:
        return inner.merge_and_unload()
    except (NotImplementedError, RuntimeError, ValueError) as error:
        given = f"an adapter that peft cannot merge ({str(error).splitlines()[0]})"
        raise ConfigError(said(given, "an adapter that can be folded into the base model's weights")) from error


def encoder_delta(encoder: nn.Module) -> Delta:
    """By the base model's own names; the base model as it was before any method touched it is what it is added to.

    Raises:
        ConfigError: as `merged_encoder`; or a tensor that the base model does not have.
    """
    base = base_parameters(encoder)
    found: Delta = {name: one.detach() for name, one in base.items() if one.requires_grad}
    if not isinstance(encoder, PeftModel):
        return found
    low_rank = _low_rank(encoder)
    if sum(one.a_ri.numel() + one.b_or.numel() for one in low_rank.values()) == _numbers(encoder):
        return {**found, **low_rank}
    merged = merged_encoder(copy.deepcopy(encoder))
    for name, tensor in merged.named_parameters():
        if name not in base or base[name].shape != tensor.shape:
            raise ConfigError(said(f"an adapter that gives the model a tensor {name!r}", "tensors of the base model"))
        of_update = name.removesuffix(".weight") in low_rank and name.endswith(".weight")
        if not of_update and not torch.equal(tensor, base[name]):
            found[name] = tensor.detach()
    return {**found, **low_rank}


def _numbers(encoder: PeftModel) -> int:
    """Of all that was inserted."""
    return sum(one.numel() for one in inserted_parameters(encoder).values())


def _low_rank(encoder: PeftModel) -> dict[str, LowRank]:
    """Plain low-rank updates of weights that are still the base model's."""
    start = cast(Any, encoder.peft_config.get(ADAPTER))
    if start is None or vars(start).get("init_lora_weights", "none") not in _LEAVES_THE_BASE:
        return {}
    names = {id(module): name for name, module in base_modules(plain_encoder(encoder))}
    found: dict[str, LowRank] = {}
    for module in encoder.modules():
        layer = linear_layer(module)
        if (
            isinstance(layer, LowRankLinear | TransposedLowRank)
            and not layer.base.get_parameter("weight").requires_grad
        ):
            found[names[id(layer.base)]] = LowRank(layer.a_ri.detach(), layer.b_or.detach() * layer.scaling)
    return found
