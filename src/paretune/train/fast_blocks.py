"""The blocks of an encoder or decoder as our kernels want them, and which parameters of the plain modules stand behind.

Two kinds: BERT's (`kernels/post_norm.py`) and Llama's (`kernels/pre_norm.py`). Not here: the pass through all blocks
(`fast_encoder.py`), nor any arithmetic.

    block = bert_block(module, "bert", heads=12, dtype=torch.bfloat16, fixed=False); refresh(block.copies)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from paretune.kernels import post_norm, pre_norm
from paretune.kernels.linear import Learns, Linear, LinearGradients
from paretune.kernels.low_rank import LowRank
from paretune.kernels.rows import Around
from paretune.models.weights import KINDS

Copy = tuple[Tensor, Tensor, float]  # where to, of which parameter, times what


class Unsupported(Exception):
    """Why an encoder keeps its plain path."""


def refresh(copies: Sequence[Copy]) -> None:
    """Bring what learns into the products' format, all of it in one call."""
    if not copies:
        return
    with torch.no_grad():
        torch.ops.aten._foreach_copy_([one for one, _, _ in copies], [one.detach() for _, one, _ in copies])
        for one, _, factor in copies:
            if factor != 1.0:
                one.mul_(factor)


def _paired(targets: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Copy]:
    return [(target, parameter, 1.0) for target, parameter in zip(targets, parameters, strict=True)]


class _Part:
    """A plain linear map, wrapped by a low-rank update or not."""

    def __init__(self, module: nn.Module) -> None:
        self.update = module if isinstance(module, LoraLayer) else None
        base = self.update.base_layer if self.update is not None else module
        if type(base) is not nn.Linear:
            raise Unsupported("linear maps of another class")
        self.base = base
        self.scaling, self.dropped, self.rank = 1.0, 0.0, 0
        if self.update is None:
            return
        if set(self.update.lora_A) != {"default"} or self.update.merged:
            raise Unsupported("low-rank updates that are merged, or several")
        self.a, self.b = (cast(nn.Linear, one["default"]).weight for one in (self.update.lora_A, self.update.lora_B))
        self.rank = len(self.a)
        self.scaling = float(self.update.scaling["default"])
        dropout = self.update.lora_dropout["default"]
        if isinstance(dropout, nn.Dropout) and dropout.training:
            self.dropped = dropout.p


class Joined:
    """Plain linear maps that get one input, as one map whose format is that of the products."""

    def __init__(self, modules: list[nn.Module], dtype: torch.dtype, fixed: bool) -> None:
        self._parts = [_Part(one) for one in modules]
        bases = [one.base for one in self._parts]
        weight_oi = torch.cat([one.weight.detach().to(dtype) for one in bases])
        biases = [cast(Tensor | None, one.bias) for one in bases]
        if len({one is None for one in biases}) > 1:
            raise Unsupported("linear maps with and without a bias over one input")
        self._biased = biases[0] is not None
        bias_o = torch.cat([one.bias.detach().to(dtype) for one in bases]) if self._biased else None
        updates = [one for one in self._parts if one.update is not None]
        if len({one.dropped for one in updates}) > 1:
            raise Unsupported("low-rank updates of different dropout over one input")
        update = self._update(len(weight_oi), weight_oi.shape[1], dtype) if updates else None
        learns = Learns(
            not fixed and any(one.weight.requires_grad for one in bases),
            not fixed and self._biased and any(one.bias.requires_grad for one in bases),
            not fixed and any(one.a.requires_grad or one.b.requires_grad for one in updates),
        )
        self.linear = Linear(weight_oi, bias_o, update, learns, updates[0].dropped if updates else 0.0)
        self._sizes = [one.out_features for one in bases]
        self._ranks = [one.rank for one in self._parts]
        held: list[Copy] = list(_paired(weight_oi.split(self._sizes), [one.weight for one in bases]))
        if bias_o is not None:
            held += _paired(bias_o.split(self._sizes), [one.bias for one in bases])
        if update is not None:
            of_updates = self._updates(update.a_ri, update.b_or)
            refresh(of_updates)
            held += of_updates
        self.parameters = [parameter for _, parameter, _ in held]
        self.copies = [one for one in held if one[1].requires_grad and not fixed]

    def _update(self, outputs: int, inputs: int, dtype: torch.dtype) -> LowRank:
        rank = sum(one.rank for one in self._parts)
        return LowRank(torch.zeros(rank, inputs, dtype=dtype), torch.zeros(outputs, rank, dtype=dtype))

    def _blocks(self, b_or: Tensor) -> list[Tensor]:
        """Each part's own rows and columns of B; all else of it stays zero."""
        rows = b_or.split(self._sizes)
        return [row.split(self._ranks, 1)[place] for place, row in enumerate(rows)]

    def _updates(self, a_ri: Tensor, b_or: Tensor) -> list[Copy]:
        """All A, then all B."""
        parts = [one for one in self._parts if one.update is not None]
        places = [place for place, one in enumerate(self._parts) if one.update is not None]
        a, b = a_ri.split(self._ranks), self._blocks(b_or)
        return [
            *((a[place], one.a, 1.0) for place, one in zip(places, parts, strict=True)),
            *((b[place], one.b, one.scaling) for place, one in zip(places, parts, strict=True)),
        ]

    def gradients(self, found: LinearGradients) -> list[Tensor | None]:
        """In the order of `parameters`."""
        answer = self._split(found.weight_oi)
        if self._biased:
            answer += self._split(found.bias_o)
        if self.linear.update is None:
            return answer
        if found.a_ri is None or found.b_or is None:
            return [*answer, *[None] * (len(self.parameters) - len(answer))]
        of_updates = self._updates(found.a_ri, found.b_or)
        return [*answer, *(found if factor == 1.0 else found * factor for found, _, factor in of_updates)]

    def _split(self, found: Tensor | None) -> list[Tensor | None]:
        return [None] * len(self._parts) if found is None else list(found.split(self._sizes))


class FastBlock(ABC):
    """One block: `linears` and `norms` (the parameters of each) in the order of the kernel's gradients."""

    def __init__(self, linears: Sequence[Joined], norms: Sequence[Sequence[Tensor]], fixed: bool) -> None:
        self._linears = linears
        self.recomputed = False
        self.drops = any(one.linear.dropped > 0 for one in linears)
        self.copies = [one for linear in linears for one in linear.copies]
        of_norms = [one for norm in norms for one in norm]
        of_linears = [one for linear in linears for one in linear.parameters]
        self.parameters: list[Tensor] = [] if fixed else [*of_norms, *of_linears]

    @abstractmethod
    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """As the kernel."""

    @abstractmethod
    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, post_norm.BlockGradients]:
        """As the kernel."""

    def gradients(self, found: post_norm.BlockGradients) -> list[Tensor | None]:
        """In the order of `parameters`, in their format."""
        answer = [one for norm in found.norms for one in norm]
        for linear, part in zip(self._linears, found.linears, strict=True):
            answer += linear.gradients(part)
        return [None if one is None else one.float() for one in answer]


class BertBlock(FastBlock):
    """A block whose norms come after each part."""

    def __init__(self, module: nn.Module, kind_name: str, heads: int, dtype: torch.dtype, fixed: bool) -> None:
        kind = KINDS[kind_name]
        names = (kind.attention_in, (kind.attention_out,), (kind.up,), (kind.down,))
        linears = [Joined([module.get_submodule(name) for name in group], dtype, fixed) for group in names]
        norms = [cast(nn.LayerNorm, module.get_submodule(name)) for name in kind.norms]
        super().__init__(linears, [(one.weight, one.bias) for one in norms], fixed)
        joined, out, up, down = (one.linear for one in linears)
        first, second = (self._norm(one, fixed) for one in norms)
        self._block = post_norm.Block(joined, out, first, up, down, second, heads, dtype)

    @staticmethod
    def _norm(norm: nn.LayerNorm, fixed: bool) -> post_norm.Norm:
        learns = (not fixed and one.requires_grad for one in (norm.weight, norm.bias))
        return post_norm.Norm(norm.weight, norm.bias, norm.eps, *learns)

    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        return post_norm.forward(x_nh, around, self._block)

    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, post_norm.BlockGradients]:
        return post_norm.backward(dx_nh, kept, around, self._block, wants_input)


class LlamaBlock(FastBlock):
    """A block whose norms come before each part; `config` is that of `transformers`."""

    def __init__(self, module: nn.Module, config: Any, dtype: torch.dtype, fixed: bool) -> None:
        names = (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.o_proj",),
            ("mlp.gate_proj", "mlp.up_proj"),
            ("mlp.down_proj",),
        )
        linears = [Joined([module.get_submodule(name) for name in group], dtype, fixed) for group in names]
        scales = [cast(Tensor, module.get_parameter(f"{name}.weight")) for name in _LLAMA_NORMS]
        super().__init__(linears, [(one,) for one in scales], fixed)
        joined, out, gate_up, down = (one.linear for one in linears)
        first, second = (pre_norm.RmsNorm(one, config.rms_norm_eps, not fixed and one.requires_grad) for one in scales)
        heads, key_heads = config.num_attention_heads, config.num_key_value_heads
        self._block = pre_norm.Block(joined, out, first, gate_up, down, second, heads, key_heads, dtype)

    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        return pre_norm.forward(x_nh, around, self._block)

    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, post_norm.BlockGradients]:
        return pre_norm.backward(dx_nh, kept, around, self._block, wants_input)


_LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")
