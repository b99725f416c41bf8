"""What a method has put into a model, as far as our own engines know it, and the reason where they do not.

The one place that looks at `peft`'s classes. A linear layer is plain, has exactly plain LoRA, or is something else;
what is something else is never taken for the other two: variants (DoRA, aLoRA, …), biases of updates, several or
disabled adapters, wrapped or replaced modules, hooks, tensors that are no plain fp32 parameters. Not here: the engines
(`train/fast_encoder.py`), which train everything that is refused here by the plain modules of `transformers`. Source of
plain LoRA: Hu et al. 2021 (https://arxiv.org/abs/2106.09685).

    own_pass_refusal(model.encoder, training=True)  # "" where our own pass computes what the plain modules do
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, assert_never, cast

import torch
from peft import PeftModel, PeftModelForFeatureExtraction
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel

from paretune.models.surgery import has_layers, is_conv1d, layers, plain_encoder
from paretune.models.weights import DECODERS, KINDS

ADAPTER = "default"  # the name that peft gives to one adapter
LLAMA_LINEARS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")
# torch has no public word for them
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN_TORCH = (nn.Linear, nn.LayerNorm, nn.Dropout, nn.Identity, nn.ModuleList, nn.ModuleDict, nn.ParameterDict)
_LORA_PARTS = {"base_layer", "lora_dropout", "lora_A", "lora_B"}
_LORA_UNUSED = {"lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}


@dataclass(frozen=True)
class PlainLinear:
    """A linear layer as torch has it."""

    base: nn.Linear


@dataclass(frozen=True)
class LowRankLinear:
    """y = base(x) + scaling · B A drop(x); `dropout` is the share of inputs that is dropped, `drops` whether now."""

    base: nn.Linear
    a_ri: nn.Parameter
    b_or: nn.Parameter
    scaling: float
    dropout: float
    drops: bool


@dataclass(frozen=True)
class TransposedLowRank:
    """As `LowRankLinear` over GPT-2's layers, whose weight is (inputs, outputs); none of our own engines has those."""

    base: nn.Module
    a_ri: nn.Parameter
    b_or: nn.Parameter
    scaling: float
    reason: str = "weights that are kept as (inputs, outputs)"


@dataclass(frozen=True)
class OtherLayer:
    """A layer that our own engines do not know, and what it is."""

    reason: str


LinearLayer = PlainLinear | LowRankLinear | TransposedLowRank | OtherLayer


def linear_layer(module: nn.Module) -> LinearLayer:
    """What stands where a linear layer is expected."""
    if type(module) is nn.Linear:
        odd = _odd_linear(module)
        return OtherLayer(odd) if odd else PlainLinear(module)
    if type(module) is not LoraLinear:
        return OtherLayer(f"linear layers of class {type(module).__name__}")
    odd = _odd_lora(module)
    if odd:
        return OtherLayer(odd)
    lora = cast(Any, module)
    base, a, b = lora.base_layer, lora.lora_A[ADAPTER], lora.lora_B[ADAPTER]
    if odd := _first(map(_odd_linear, (a, b))):
        return OtherLayer(odd)
    if lora.fan_in_fan_out and is_conv1d(base):
        return TransposedLowRank(base, a.weight, b.weight, float(lora.scaling[ADAPTER]))
    if odd := "updates of a transposed weight" if lora.fan_in_fan_out else _odd_linear(base):
        return OtherLayer(odd)
    dropout, scaling = cast(nn.Module, lora.lora_dropout[ADAPTER]), float(lora.scaling[ADAPTER])
    share = dropout.p if isinstance(dropout, nn.Dropout) else 0.0
    return LowRankLinear(base, a.weight, b.weight, scaling, share, dropout.training and share > 0)


def _first(odds: Iterable[str]) -> str:
    """The first of some reasons that is none of the empty ones."""
    return next((odd for odd in odds if odd), "")


def _odd_linear(module: nn.Module) -> str:
    """What keeps a module from being a plain linear layer in fp32; empty where nothing does."""
    if type(module) is not nn.Linear:
        return f"linear layers of class {type(module).__name__}"
    return _odd_call(module) or _first(map(_odd_tensor, module.parameters()))


def _odd_lora(module: nn.Module) -> str:
    """What makes a LoRA layer another than plain LoRA; its three linear layers are looked at apart."""
    lora = cast(Any, module)
    children = dict(module.named_children())
    if lora.disable_adapters or lora.merged or list(lora.active_adapters) != [ADAPTER]:
        return "adapters that are disabled, merged, or not the one active"
    if set(lora.lora_A) != {ADAPTER} or set(lora.lora_B) != {ADAPTER}:
        return "several low-rank updates of one layer"
    if variant := lora.lora_variant.get(ADAPTER):
        return f"low-rank updates of the variant {type(variant).__name__}"
    if lora.lora_bias.get(ADAPTER) or lora.use_dora.get(ADAPTER):
        return "low-rank updates with a bias or a magnitude"
    if lora.lora_A[ADAPTER].bias is not None or lora.lora_B[ADAPTER].bias is not None:
        return "low-rank updates with a bias or a magnitude"
    if not children.keys() <= _LORA_PARTS | _LORA_UNUSED or any(
        len(list(children[name].parameters())) for name in _LORA_UNUSED & children.keys()
    ):
        return "low-rank updates with further parts"
    if any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers()):
        return "low-rank updates with further tensors"
    dropout = lora.lora_dropout[ADAPTER]
    if type(dropout) not in (nn.Identity, nn.Dropout):
        return f"low-rank updates with inputs dropped by {type(dropout).__name__}"
    return _odd_call(module) or _odd_call(dropout)


def _odd_call(module: nn.Module) -> str:
    """What changes a module's call beside its class."""
    if any(vars(module).get(hooks) for hooks in _HOOKS):
        return "something that is hooked into a module's call"
    return "a forward pass that was replaced" if "forward" in vars(module) else ""


def _odd_tensor(tensor: Tensor) -> str:
    if type(tensor) is not nn.Parameter or tensor.layout is not torch.strided:
        return f"weights of class {type(tensor).__name__}"
    if tensor.dtype is not torch.float32 or tensor.device.type not in ("cpu", "meta"):
        return f"weights in {str(tensor.dtype).removeprefix('torch.')} on the device {tensor.device.type}"
    if not tensor.is_contiguous():
        return "weights that do not lie in one piece"
    hooks = cast(Any, tensor)._backward_hooks or cast(Any, tensor)._post_accumulate_grad_hooks
    return "something that is hooked into a weight's gradient" if hooks else ""


def linear_names_of(model_type: str) -> tuple[tuple[str, ...], ...]:
    """Names of a block's linear layers in the order of the pass; those of one tuple get one input."""
    if model_type in DECODERS:
        return LLAMA_LINEARS
    kind = KINDS[model_type]
    return kind.attention_in, (kind.attention_out,), (kind.up,), (kind.down,)


def norm_names_of(model_type: str) -> tuple[str, ...]:
    """Names of a block's norms in the order of the pass."""
    return LLAMA_NORMS if model_type in DECODERS else tuple(KINDS[model_type].norms)


def own_pass_refusal(encoder: nn.Module, training: bool) -> str:
    """What of an encoder our own pass does not know, in words that follow "does not know"; empty where it knows all.

    `training`: as the model will be while it trains, when dropout counts.
    """
    if odd := _odd_wrapper(encoder):
        return odd
    plain = plain_encoder(encoder)
    if odd := _odd_model(plain, plain.config) or _first(map(_odd_call, encoder.modules())):
        return odd
    if _drops(plain, training):
        return "dropout inside the encoder"
    if not has_layers(plain):  # int8 layers, say, hold no parameters to find blocks by
        return "no list of transformer blocks"
    return _first(_odd_block(block, plain) for block in layers(plain))


def _odd_wrapper(encoder: nn.Module) -> str:
    """An encoder is bare or in peft's wrapper of LoRA; all else that is put around it changes what it computes."""
    if not isinstance(encoder, PeftModel):
        return ""
    if type(encoder) not in (PeftModel, PeftModelForFeatureExtraction):
        return f"models wrapped by {type(encoder).__name__}"
    kinds = {str(config.peft_type).rpartition(".")[2] for config in encoder.peft_config.values()}
    if kinds != {"LORA"} or type(encoder.base_model) is not LoraModel:
        return f"adapters of type {', '.join(sorted(kinds))}"
    return "" if set(encoder.peft_config) == {ADAPTER} else "several adapters"


def _odd_model(plain: PreTrainedModel, config: PreTrainedConfig) -> str:
    decoder = config.model_type in DECODERS
    settings = config.to_dict()
    if not decoder and (config.model_type not in KINDS or settings.get("is_decoder")):
        return f"models of type {config.model_type}"
    wanted = cast(Any, MODEL_MAPPING[type(config)]) if type(config) in MODEL_MAPPING else None
    if type(plain) is not wanted:
        return f"models of class {type(plain).__name__}"
    activation = "silu" if decoder else "gelu"
    if settings.get("hidden_act", settings.get("activation")) != activation:
        return f"another activation than {activation}"
    return ""


def _drops(plain: PreTrainedModel, training: bool) -> bool:
    """Whether anything but low-rank updates drops, now or where the model is `training`."""
    updates = {id(one) for lora in plain.modules() if type(lora) is LoraLinear for one in lora.modules()}
    dropouts = (one for one in plain.modules() if isinstance(one, nn.Dropout) and id(one) not in updates)
    if any(one.p > 0 and (training or one.training) for one in dropouts):
        return True
    of_attention = plain.config.model_type in DECODERS and plain.config.to_dict().get("attention_dropout")
    return bool(of_attention) and (training or plain.training)


def _odd_block(block: nn.Module, plain: PreTrainedModel) -> str:
    """What a block holds that its kind does not."""
    config = plain.config
    own = type(plain).__module__  # transformers has all classes of a kind in one file
    settings = config.to_dict()
    heads = int(settings.get("num_attention_heads") or settings["n_heads"])
    head = int(settings.get("head_dim") or int(settings.get("hidden_size") or settings["dim"]) // heads)
    for module in block.modules():
        if type(module) in (*_PLAIN_TORCH, LoraLinear):
            continue
        if type(module).__module__ not in (own, "transformers.activations"):
            return f"modules of class {type(module).__name__} inside a block"
        if vars(module).get("scaling", head**-0.5) != head**-0.5:
            return "attention whose scores have a scale of their own"
    for group in linear_names_of(config.model_type):
        if odd := _odd_group([linear_layer(block.get_submodule(name)) for name in group]):
            return odd
    return _first(_odd_norm(block.get_submodule(name), plain) for name in norm_names_of(config.model_type))


def _odd_norm(norm: nn.Module, plain: PreTrainedModel) -> str:
    """What keeps a norm from being a plain layer norm, or a decoder's own."""
    if plain.config.model_type not in DECODERS:
        if type(norm) is not nn.LayerNorm or len(dict(norm.named_parameters())) < 2:
            return f"norms of class {type(norm).__name__}, or without a shift"
    elif type(norm).__module__ != type(plain).__module__:
        return f"norms of class {type(norm).__name__}"
    elif vars(norm).get("variance_epsilon") != plain.config.rms_norm_eps:
        return "norms with an epsilon of their own"
    return _first(map(_odd_tensor, norm.parameters()))


def _odd_group(group: list[LinearLayer]) -> str:
    """Layers that get one input are multiplied as one."""
    biased, dropped = set[bool](), set[float]()
    for one in group:
        match one:
            case PlainLinear():
                pass
            case LowRankLinear():
                dropped.add(one.dropout)
            case TransposedLowRank() | OtherLayer():
                return one.reason
            case _:
                assert_never(one)
        biased.add("bias" in dict(one.base.named_parameters()))
    if len(biased) > 1:
        return "linear layers with and without a bias over one input"
    return "low-rank updates of different dropout over one input" if len(dropped) > 1 else ""


def base_modules(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules of the base model, by the names that they have without any adapter."""
    while isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module.original_module
        module = cast(nn.Module, base)
    yield name, module
    for child_name, child in module.named_children():
        yield from base_modules(child, f"{name}.{child_name}" if name else child_name)


def base_parameters(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """The base model's own parameters by the names that they have without any adapter, a shared one by its first."""
    found = {
        f"{name}.{own}" if name else own: parameter
        for name, module in base_modules(plain_encoder(encoder))
        for own, parameter in module.named_parameters(recurse=False)
    }
    first = {id(one): name for name, one in reversed(found.items())}
    return {name: one for name, one in found.items() if first[id(one)] == name}


def base_embeddings(encoder: nn.Module) -> nn.Embedding:
    """The base model's table of words, whatever a method put around it."""
    inputs = plain_encoder(encoder).get_input_embeddings()
    return cast(nn.Embedding, next(base_modules(inputs))[1])


def inserted_parameters(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """What a method has added to the base model, by the names in the wrapped model."""
    base = {id(one) for one in base_parameters(encoder).values()}
    return {name: one for name, one in encoder.named_parameters() if id(one) not in base}


def low_rank_numbers(module: nn.Module) -> int:
    """Numbers in A and B of all LoRA layers inside a module, of its variants too; other adapters are not counted."""
    loras = (cast(Any, one) for one in module.modules() if type(one) is LoraLinear)
    return sum(half.weight.numel() for one in loras for part in (one.lora_A, one.lora_B) for half in part.values())
