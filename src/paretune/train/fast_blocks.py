"""The blocks of an encoder or decoder as our kernels want them, and which parameters of the plain modules stand behind.

Two kinds: BERT's (`kernels/post_norm.py`) and Llama's (`kernels/pre_norm.py`). Not here: the pass through all blocks
(`fast_encoder.py`), nor any arithmetic.

    block = bert_block(module, "bert", heads=12, dtype=torch.bfloat16, fixed=False); refresh(block.copies)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, assert_never, cast

import torch
from torch import Tensor, nn

from paretune.kernels import post_norm, pre_norm
from paretune.kernels.linear import Learns, Linear, LinearGradients
from paretune.kernels.low_rank import LowRank
from paretune.kernels.native.maps import Map, Part, Weight, even, stride_of
from paretune.kernels.rows import Around
from paretune.models.adapters import (
    LowRankLinear,
    OtherLayer,
    PlainLinear,
    TransposedLowRank,
    linear_layer,
    linear_names_of,
    norm_names_of,
)

Copy = tuple[Tensor, Tensor, float]  # where to, of which parameter, times what


class Unsupported(Exception):
    """Why an encoder keeps its plain path."""


def refresh(copies: Sequence[Copy]) -> None:
    """Bring what learns into the products' format, all of it in one call."""
    if not copies:
        return
    with torch.no_grad():
        torch.ops.aten._foreach_copy_([one for one, _, _ in copies], [one.detach() for _, one, _ in copies])
        scale([(one, factor) for one, _, factor in copies])


def scale(numbers: Sequence[tuple[Tensor, float]]) -> None:
    """Multiply in place, those of one factor in one call."""
    for factor in {factor for _, factor in numbers if factor != 1.0}:
        torch.ops.aten._foreach_mul_.Scalar([one for one, own in numbers if own == factor], factor)


def _paired(targets: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Copy]:
    return [(target, parameter, 1.0) for target, parameter in zip(targets, parameters, strict=True)]


class _Part:
    """A plain linear layer, wrapped by a low-rank update or not.

    Raises:
        Unsupported: it is neither.
    """

    def __init__(self, module: nn.Module) -> None:
        found = linear_layer(module)
        match found:
            case PlainLinear():
                self.update, self.scaling, self.dropped, self.rank = None, 1.0, 0.0, 0
            case LowRankLinear():
                self.update, self.scaling, self.rank = found, found.scaling, len(found.a_ri)
                self.a, self.b = found.a_ri, found.b_or
                self.dropped = found.dropout if found.drops else 0.0
            case TransposedLowRank() | OtherLayer():
                raise Unsupported(found.reason)
            case _:
                assert_never(found)
        self.base = found.base


class Joined:
    """Plain linear maps that get one input, as one map whose format is that of the products; `native`: as the kernels
    in C++ want it (`map`), else as torch does (`linear`)."""

    def __init__(self, modules: list[nn.Module], dtype: torch.dtype, fixed: bool, native: bool = False) -> None:
        self._parts = [_Part(one) for one in modules]
        bases = [one.base for one in self._parts]
        biases = [cast(Tensor | None, one.bias) for one in bases]
        if len({one is None for one in biases}) > 1:
            raise Unsupported("linear maps with and without a bias over one input")
        self.biased = biases[0] is not None
        updates = [one for one in self._parts if one.update is not None]
        if len({one.dropped for one in updates}) > 1:
            raise Unsupported("low-rank updates of different dropout over one input")
        self.dropped = updates[0].dropped if updates else 0.0
        self.learns = Learns(
            not fixed and any(one.weight.requires_grad for one in bases),
            not fixed and self.biased and any(one.bias.requires_grad for one in bases),
            not fixed and any(one.a.requires_grad or one.b.requires_grad for one in updates),
        )
        self._sizes = [one.out_features for one in bases]
        self.inputs, self.outputs = bases[0].in_features, sum(self._sizes)
        self.ranks = [one.rank for one in self._parts]
        self._held_ranks = [even(one) for one in self.ranks] if native else self.ranks
        self.update = self._update(dtype, native) if updates else None
        of_bias = torch.float32 if native else dtype
        self._bias_o = torch.cat([one.bias.detach().to(of_bias) for one in bases]) if self.biased else None
        self._weight_oi = None if native else torch.cat([one.weight.detach().to(dtype) for one in bases])
        held: list[Copy] = []
        if self._weight_oi is not None:
            held += _paired(self._weight_oi.split(self._sizes), [one.weight for one in bases])
        if self._bias_o is not None:
            held += _paired(self._bias_o.split(self._sizes), [one.bias for one in bases])
        if self.update is not None:
            of_updates = self._updates(self.update.a_ri, self.update.b_or)
            refresh(of_updates)
            held += of_updates
        self.weights = [one.weight for one in bases]
        self.parameters = [*(self.weights if native else []), *(parameter for _, parameter, _ in held)]
        self.factors = [*[1.0] * (len(self.weights) if native else 0), *(factor for _, _, factor in held)]
        self.copies = [one for one in held if one[1].requires_grad and not fixed]

    def linear(self) -> Linear:
        """As torch computes it."""
        assert self._weight_oi is not None
        weight_oi, self._weight_oi = self._weight_oi, None  # it lays out what it needs
        return Linear(weight_oi, self._bias_o, self.update, self.learns, self.dropped)

    def map(self, back: bool) -> tuple[Map, list[Weight]]:
        """As the kernels in C++ compute it, and the weights that it wants to have laid out; `back`: gradients pass."""
        ranks = [sum(self._held_ranks[:place]) for place in range(len(self._held_ranks))]
        firsts = [sum(self._sizes[:place]) for place in range(len(self._sizes))]
        factors = [one.scaling for one in self._parts]
        parts = [Part(*one) for one in zip(firsts, self._sizes, ranks, self._held_ranks, factors, strict=True)]
        found = Map(self.inputs, self.outputs, self._bias_o, self.update, parts, back, self.dropped)
        weights = [one.detach() for one in self.weights]
        return found, [found.weight(one, first) for one, first in zip(weights, firsts, strict=True)]

    def _update(self, dtype: torch.dtype, native: bool) -> LowRank:
        rank = sum(self._held_ranks)
        stride = stride_of(rank) if native else rank
        return LowRank(torch.zeros(rank, self.inputs, dtype=dtype), torch.zeros(self.outputs, stride, dtype=dtype))

    def _blocks(self, b_or: Tensor) -> list[Tensor]:
        """Each part's own rows and columns of B; all else of it stays zero."""
        rows = b_or.split(self._sizes)
        firsts = [sum(self._held_ranks[:place]) for place in range(len(self.ranks))]
        return [row[:, first : first + rank] for row, first, rank in zip(rows, firsts, self.ranks, strict=True)]

    def _updates(self, a_ri: Tensor, b_or: Tensor) -> list[Copy]:
        """All A, then all B."""
        parts = [one for one in self._parts if one.update is not None]
        places = [place for place, one in enumerate(self._parts) if one.update is not None]
        a, b = a_ri.split(self._held_ranks), self._blocks(b_or)
        return [
            *((a[place][: one.rank], one.a, 1.0) for place, one in zip(places, parts, strict=True)),
            *((b[place], one.b, one.scaling) for place, one in zip(places, parts, strict=True)),
        ]

    def gradients(self, found: LinearGradients) -> list[Tensor | None]:
        """In the order of `parameters`; not yet times `factors`."""
        answer = self._split(found.weight_oi)
        if self.biased:
            answer += self._split(found.bias_o)
        if self.update is None:
            return answer
        if found.a_ri is None or found.b_or is None:
            return [*answer, *[None] * (len(self.parameters) - len(answer))]
        return [*answer, *(one for one, _, _ in self._updates(found.a_ri, found.b_or))]

    def _split(self, found: Tensor | None) -> list[Tensor | None]:
        return [None] * len(self._parts) if found is None else list(found.split(self._sizes))


class FastBlock(ABC):
    """What one pass goes through, a block or some in a row; `parameters` in the order of their gradients, `copies` of
    what learns. `recomputed`: only its input is kept, the rest is computed again on the way back."""

    recomputed = False

    def __init__(self, parameters: Sequence[Tensor], copies: Sequence[Copy], drops: bool) -> None:
        self.parameters, self.copies, self.drops = list(parameters), list(copies), drops
        self.learns = any(one.requires_grad for one in parameters)

    @abstractmethod
    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """As the kernel."""

    def output(self, x_nh: Tensor, around: Around) -> Tensor:
        """Where nothing is kept for the way back."""
        return self.forward(x_nh, around)[0]

    @abstractmethod
    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of the input, where it is wanted, and of `parameters`."""


def parameters_of(linears: Sequence[Joined], norms: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Of a block's norms and linear maps."""
    return [one for part in (*norms, *(linear.parameters for linear in linears)) for one in part]


class _TorchBlock(FastBlock):
    """A block that goes through torch's operators; no parameters where it is fixed."""

    def __init__(self, linears: Sequence[Joined], norms: Sequence[Sequence[Tensor]], fixed: bool) -> None:
        self._linears = linears
        copies = [one for linear in linears for one in linear.copies]
        super().__init__(
            [] if fixed else parameters_of(linears, norms), copies, any(one.dropped > 0 for one in linears)
        )

    def gradients(self, found: post_norm.BlockGradients) -> list[Tensor | None]:
        """In the order of `parameters`, in their format."""
        answer = [one for norm in found.norms for one in norm]
        factors = [1.0] * len(answer)
        for linear, part in zip(self._linears, found.linears, strict=True):
            answer += linear.gradients(part)
            factors += linear.factors
        grown = [None if one is None else one.float() for one in answer]
        scale([(one, factor) for one, factor in zip(grown, factors, strict=True) if one is not None])
        return grown


def _joined(module: nn.Module, kind_name: str, dtype: torch.dtype, fixed: bool, native: bool) -> list[Joined]:
    """A block's linear layers in the order of the pass."""
    groups = linear_names_of(kind_name)
    return [Joined([module.get_submodule(name) for name in group], dtype, fixed, native) for group in groups]


def bert_parts(
    module: nn.Module, kind_name: str, dtype: torch.dtype, fixed: bool, native: bool = False
) -> tuple[list[Joined], list[post_norm.Norm]]:
    """Linear maps and norms of a block whose norms come after each part."""
    linears = _joined(module, kind_name, dtype, fixed, native)
    norms: list[post_norm.Norm] = []
    for one in (cast(nn.LayerNorm, module.get_submodule(name)) for name in norm_names_of(kind_name)):
        learns = (not fixed and part.requires_grad for part in (one.weight, one.bias))
        norms.append(post_norm.Norm(one.weight, one.bias, one.eps, *learns))
    return linears, norms


class BertBlock(_TorchBlock):
    """A block whose norms come after each part."""

    def __init__(self, module: nn.Module, kind_name: str, heads: int, dtype: torch.dtype, fixed: bool) -> None:
        linears, norms = bert_parts(module, kind_name, dtype, fixed)
        super().__init__(linears, [(one.scale_h, one.shift_h) for one in norms], fixed)
        joined, out, up, down = (one.linear() for one in linears)
        self._block = post_norm.Block(joined, out, norms[0], up, down, norms[1], heads, dtype)

    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        return post_norm.forward(x_nh, around, self._block)

    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        dx, found = post_norm.backward(dx_nh, kept, around, self._block, wants_input)
        return dx, self.gradients(found)


def llama_parts(
    module: nn.Module, config: Any, dtype: torch.dtype, fixed: bool, native: bool = False
) -> tuple[list[Joined], list[pre_norm.RmsNorm]]:
    """Linear maps and norms of a block whose norms come before each part; `config` is that of `transformers`."""
    linears = _joined(module, config.model_type, dtype, fixed, native)
    scales = [cast(Tensor, module.get_parameter(f"{name}.weight")) for name in norm_names_of(config.model_type)]
    return linears, [pre_norm.RmsNorm(one, config.rms_norm_eps, not fixed and one.requires_grad) for one in scales]


class LlamaBlock(_TorchBlock):
    """A block whose norms come before each part; `config` is that of `transformers`."""

    def __init__(self, module: nn.Module, config: Any, dtype: torch.dtype, fixed: bool) -> None:
        linears, norms = llama_parts(module, config, dtype, fixed)
        super().__init__(linears, [(one.scale_h,) for one in norms], fixed)
        joined, out, gate_up, down = (one.linear() for one in linears)
        first, second = norms
        heads, key_heads = config.num_attention_heads, config.num_key_value_heads
        self._block = pre_norm.Block(joined, out, first, gate_up, down, second, heads, key_heads, dtype)

    def forward(self, x_nh: Tensor, around: Around) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        return pre_norm.forward(x_nh, around, self._block)

    def backward(
        self, dx_nh: Tensor, kept: tuple[Tensor, ...], around: Around, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        dx, found = pre_norm.backward(dx_nh, kept, around, self._block, wants_input)
        return dx, self.gradients(found)
