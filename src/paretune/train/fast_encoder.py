"""An encoder's pass through our own kernels, over the parameters of the plain modules, which stay where they are.

So what a method freezes, inserts, saves and merges is untouched; only the way from tokens to hidden states is another.
A model that the kernels do not know keeps its plain path, and the reason is said. Not here: the arithmetic
(`kernels/post_norm.py`). Axes: b texts, t positions, h hidden.

    with fast_path(model, "bf16") as reason: ...
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from paretune.kernels.post_norm import BlockWeights, LinearWeights, NormWeights, post_norm_block
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision
from paretune.models.weights import KINDS

HOOKS = ("_forward_hooks", "_forward_pre_hooks")  # torch has no public word for them
UNSEEN = -1e30  # within bf16's range


class Unsupported(Exception):
    """Why an encoder keeps its plain path."""


def _drops(module: nn.Module) -> bool:
    return module.training and any(isinstance(one, nn.Dropout) and one.p > 0 for one in module.modules())


class _Linear:
    """Plain linear maps that get one input, as one map; what is frozen is converted once."""

    def __init__(self, modules: list[nn.Module], dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._lora = [one if isinstance(one, LoraLayer) else None for one in modules]
        bases = [one.base_layer if isinstance(one, LoraLayer) else one for one in modules]
        self._bases = [one for one in bases if type(one) is nn.Linear]
        if len(self._bases) < len(modules):
            raise Unsupported("linear maps of another class")
        for one in self._lora:
            if one is not None and (set(one.lora_A) != {"default"} or one.merged or _drops(one)):
                raise Unsupported("low-rank updates with dropout, merged, or several")
        self._frozen: dict[str, Tensor] = {}

    def weights(self) -> LinearWeights:
        """As they are now."""
        weight_oi = self._together("weight", [one.weight for one in self._bases])
        bias_o = self._together("bias", [one.bias for one in self._bases])
        if not any(self._lora):
            return LinearWeights(weight_oi, bias_o)
        a, b = [], []
        for base, one in zip(self._bases, self._lora, strict=True):
            if one is None:
                b.append(base.weight.new_zeros(base.out_features, 0))
                continue
            a.append(one.lora_A["default"].weight)
            b.append(one.lora_B["default"].weight * one.scaling["default"])
        return LinearWeights(weight_oi, bias_o, torch.cat(a).to(self._dtype), torch.block_diag(*b).to(self._dtype))

    def _together(self, what: str, parts: list[Tensor]) -> Tensor:
        if any(one.requires_grad for one in parts):
            return torch.cat([one.to(self._dtype) for one in parts]) if len(parts) > 1 else parts[0].to(self._dtype)
        if what not in self._frozen:
            self._frozen[what] = torch.cat([one.detach().to(self._dtype) for one in parts])
        return self._frozen[what]


class _Block:
    def __init__(self, block: nn.Module, kind_name: str, dtype: torch.dtype) -> None:
        kind = KINDS[kind_name]

        def linear(*names: str) -> _Linear:
            return _Linear([block.get_submodule(name) for name in names], dtype)

        self._joined, self._out = linear(*kind.attention_in), linear(kind.attention_out)
        self._up, self._down = linear(kind.up), linear(kind.down)
        self._norms = [cast(nn.LayerNorm, block.get_submodule(name)) for name in kind.norms]
        self.epsilon = self._norms[0].eps

    def weights(self) -> BlockWeights:
        first, second = (NormWeights(one.weight, one.bias) for one in self._norms)
        return BlockWeights(
            self._joined.weights(), self._out.weights(), first, self._up.weights(), self._down.weights(), second
        )


class FastEncoder:
    """An encoder's pass, for the encoder as it is now: after a merge, or where other parts freeze, make it anew."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        """Raises: Unsupported."""
        plain = cast(PreTrainedModel, encoder.base_model.model if isinstance(encoder, PeftModel) else encoder)
        config = plain.config
        if config.model_type not in KINDS or getattr(config, "is_decoder", False):
            raise Unsupported(f"models of type {config.model_type}")
        if getattr(config, "hidden_act", getattr(config, "activation", None)) != "gelu":
            raise Unsupported("another activation than GELU")
        if _drops(plain):
            raise Unsupported("dropout inside the encoder")
        if any(vars(one)[hooks] for one in encoder.modules() for hooks in HOOKS):
            raise Unsupported("something that is hooked into a module's call")
        self._embeddings = cast(nn.Module, plain.embeddings)
        self._heads = int(getattr(config, "num_attention_heads", 0) or config.n_heads)
        blocks = cast(nn.ModuleList, plain.get_submodule(KINDS[config.model_type].blocks))
        self._blocks = [_Block(block, config.model_type, dtype) for block in blocks]

    def hidden(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """Last hidden states (b, t, h) in fp32; those of padding mean nothing."""
        with torch.autocast("cpu", enabled=False):
            x_bth = self._embeddings(input_ids=input_ids_bt)
            whole = bool(mask_bt.all())
            mask_b11t = None if whole else (1.0 - mask_bt[:, None, None, :].float()) * UNSEEN
            for block in self._blocks:
                x_bth = post_norm_block(x_bth, mask_b11t, block.weights(), self._heads, block.epsilon)
        return x_bth


@contextmanager
def fast_path(model: EncoderClassifier, precision: Precision) -> Generator[str]:
    """Inside the block the model goes our own way; gives why it does not, or nothing."""
    reason = ""
    try:
        model.path = FastEncoder(model.encoder, torch.bfloat16 if precision == "bf16" else torch.float32).hidden
    except Unsupported as error:
        reason = str(error)
    try:
        yield reason
    finally:
        model.path = None
