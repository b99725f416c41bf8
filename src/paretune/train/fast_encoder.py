"""An encoder's pass through our own kernels, over the parameters of the plain modules, which stay where they are.

So what a method freezes, inserts, saves and merges is untouched; only the way from tokens to hidden states is another.
A model that the kernels do not know keeps its plain path, and the reason is said. Not here: the arithmetic
(`kernels/post_norm.py`). Axes: b texts, t positions, h hidden.

    with fast_path(model, "bf16") as way: ...
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from paretune.kernels import post_norm
from paretune.kernels.linear import Learns, Linear, LinearGradients
from paretune.kernels.low_rank import LowRank
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision
from paretune.models.surgery import layers
from paretune.models.weights import KINDS

HOOKS = ("_forward_hooks", "_forward_pre_hooks")  # torch has no public word for them
UNSEEN = -1e30  # within bf16's range


class Unsupported(Exception):
    """Why an encoder keeps its plain path."""


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


class _Joined:
    """Plain linear maps that get one input, as one map whose format is that of the products."""

    def __init__(self, modules: list[nn.Module], dtype: torch.dtype, fixed: bool) -> None:
        self._parts = [_Part(one) for one in modules]
        bases = [one.base for one in self._parts]
        weight_oi = torch.cat([one.weight.detach().to(dtype) for one in bases])
        bias_o = torch.cat([one.bias.detach().to(dtype) for one in bases])
        updates = [one for one in self._parts if one.update is not None]
        if len({one.dropped for one in updates}) > 1:
            raise Unsupported("low-rank updates of different dropout over one input")
        update = self._update(len(weight_oi), weight_oi.shape[1], dtype) if updates else None
        learns = Learns(
            not fixed and any(one.weight.requires_grad for one in bases),
            not fixed and any(one.bias.requires_grad for one in bases),
            not fixed and any(one.a.requires_grad or one.b.requires_grad for one in updates),
        )
        self.linear = Linear(weight_oi, bias_o, update, learns, updates[0].dropped if updates else 0.0)
        self._sizes = [one.out_features for one in bases]
        self._ranks = [one.rank for one in self._parts]
        self.copies: list[tuple[Tensor, Tensor, float]] = []  # where to, of what, times what
        for one, weight, bias in zip(self._parts, weight_oi.split(self._sizes), bias_o.split(self._sizes), strict=True):
            self.copies += [(weight, one.base.weight, 1.0), (bias, one.base.bias, 1.0)]
        if update is not None:
            for one, a, b in zip(self._parts, update.a_ri.split(self._ranks), self._blocks(update.b_or), strict=True):
                if one.update is not None:
                    self.copies += [(a, one.a, 1.0), (b, one.b, one.scaling)]
        _refresh(self.copies)

    def _update(self, outputs: int, inputs: int, dtype: torch.dtype) -> LowRank:
        rank = sum(one.rank for one in self._parts)
        return LowRank(torch.zeros(rank, inputs, dtype=dtype), torch.zeros(outputs, rank, dtype=dtype))

    def _blocks(self, b_or: Tensor) -> list[Tensor]:
        """Each part's own rows and columns of B; all else of it stays zero."""
        rows = b_or.split(self._sizes)
        return [row.split(self._ranks, 1)[place] for place, row in enumerate(rows)]

    def gradients(self, found: LinearGradients) -> list[Tensor | None]:
        """In the order of `copies`."""
        count = len(self._parts)
        weights = [None] * count if found.weight_oi is None else found.weight_oi.split(self._sizes)
        biases = [None] * count if found.bias_o is None else found.bias_o.split(self._sizes)
        answer: list[Tensor | None] = [one for pair in zip(weights, biases, strict=True) for one in pair]
        if self.linear.update is None:
            return answer
        a = [None] * count if found.a_ri is None else found.a_ri.split(self._ranks)
        b = [None] * count if found.b_or is None else self._blocks(found.b_or)
        for part, da, db in zip(self._parts, a, b, strict=True):
            if part.update is not None:
                answer += [da, None if db is None else db * part.scaling]
        return answer


class _Block:
    """A block's parts for the kernel, and the parameters that stand behind them."""

    def __init__(self, block: nn.Module, kind_name: str, heads: int, dtype: torch.dtype, fixed: bool) -> None:
        kind = KINDS[kind_name]
        names = (kind.attention_in, (kind.attention_out,), (kind.up,), (kind.down,))
        self._linears = [_Joined([block.get_submodule(name) for name in group], dtype, fixed) for group in names]
        norms = [cast(nn.LayerNorm, block.get_submodule(name)) for name in kind.norms]
        joined, out, up, down = (one.linear for one in self._linears)
        first, second = (
            post_norm.Norm(
                one.weight,
                one.bias,
                one.eps,
                not fixed and one.weight.requires_grad,
                not fixed and one.bias.requires_grad,
            )
            for one in norms
        )
        self.block = post_norm.Block(joined, out, first, up, down, second, heads, dtype)
        self._fixed = fixed
        self.parameters: list[Tensor] = (
            []
            if fixed
            else [
                *(one for norm in norms for one in (norm.weight, norm.bias)),
                *(parameter for linear in self._linears for _, parameter, _ in linear.copies),
            ]
        )

    def copies(self) -> list[tuple[Tensor, Tensor, float]]:
        """What has to be written anew after each step."""
        if self._fixed:
            return []
        return [one for linear in self._linears for one in linear.copies if one[1].requires_grad]

    def gradients(self, found: post_norm.BlockGradients) -> list[Tensor | None]:
        """In the order of `parameters`, in their format."""
        linears = [
            one for linear, part in zip(self._linears, found.linears, strict=True) for one in linear.gradients(part)
        ]
        return [None if one is None else one.float() for one in (*found.norms[0], *found.norms[1], *linears)]


class _Pass(torch.autograd.Function):
    """The kernel's way forward and back, in torch's graph."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x_bth: Tensor, mask_b11t: Tensor | None, block: _Block, *parameters: Tensor
    ) -> Tensor:
        z_bth, kept = post_norm.forward(x_bth, mask_b11t, block.block)
        ctx.save_for_backward(*kept)
        ctx.block = block
        return z_bth

    @staticmethod
    def backward(ctx: Any, dz_bth: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        block: _Block = ctx.block
        dx_bth, found = post_norm.backward(dz_bth, ctx.saved_tensors, block.block, ctx.needs_input_grad[0])
        return (dx_bth, None, None, *block.gradients(found))


def plain_encoder(encoder: nn.Module) -> PreTrainedModel:
    """The encoder without `peft`'s wrapper."""
    return cast(PreTrainedModel, encoder.base_model.model if isinstance(encoder, PeftModel) else encoder)


def _drops(module: nn.Module) -> bool:
    """Whether anything but low-rank updates drops now."""
    inner = {id(one) for update in module.modules() if isinstance(update, LoraLayer) for one in update.modules()}
    return any(
        isinstance(one, nn.Dropout) and one.p > 0 and one.training and id(one) not in inner for one in module.modules()
    )


def _refresh(copies: Sequence[tuple[Tensor, Tensor, float]]) -> None:
    """Bring what learns into the products' format, all of it in one call."""
    if not copies:
        return
    with torch.no_grad():
        torch.ops.aten._foreach_copy_([one for one, _, _ in copies], [one.detach() for _, one, _ in copies])
        scaled = [(one, factor) for one, _, factor in copies if factor != 1.0]
        for one, factor in scaled:
            one.mul_(factor)


class FastEncoder:
    """An encoder's pass, for the encoder as it is now: after a merge, or where other parts freeze, make it anew.

    `fixed`: nothing learns, so that all weights are brought into the products' format and layout once.
    """

    def __init__(self, encoder: nn.Module, dtype: torch.dtype, fixed: bool = False) -> None:
        """Raises: Unsupported."""
        plain = plain_encoder(encoder)
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
        heads = int(getattr(config, "num_attention_heads", 0) or config.n_heads)
        blocks = layers(plain)
        self._blocks = [_Block(block, config.model_type, heads, dtype, fixed) for block in blocks]
        self._copies = [one for block in self._blocks for one in block.copies()]
        self._dtype = dtype

    def __call__(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """As `hidden`."""
        return self.hidden(input_ids_bt, mask_bt)

    def hidden(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """Last hidden states (b, t, h) in fp32; those of padding mean nothing."""
        return self.rest(self._embedded(input_ids_bt), mask_bt, 0)

    def states(self, input_ids_bt: Tensor, mask_bt: Tensor, before: int) -> Tensor:
        """What block `before` gets, (b, t, h) in fp32; the first block is number 0."""
        return self._through(self._embedded(input_ids_bt), mask_bt, self._blocks[:before])

    def rest(self, x_bth: Tensor, mask_bt: Tensor, first: int) -> Tensor:
        """Last hidden states from what block `first` gets."""
        _refresh(self._copies)
        return self._through(x_bth, mask_bt, self._blocks[first:])

    def _embedded(self, input_ids_bt: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return cast(Tensor, self._embeddings(input_ids=input_ids_bt))

    def _through(self, x_bth: Tensor, mask_bt: Tensor, blocks: list[_Block]) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            whole = bool(mask_bt.all())
            mask_b11t = None if whole else ((1.0 - mask_bt[:, None, None, :].float()) * UNSEEN).to(self._dtype)
            for block in blocks:
                x_bth = cast(Tensor, _Pass.apply(x_bth, mask_b11t, block, *block.parameters))
        return x_bth


@dataclass(frozen=True)
class Way:
    """How a model goes inside `fast_path`: our own pass, or the plain one and why."""

    fast: FastEncoder | None
    reason: str = ""


@contextmanager
def fast_path(model: EncoderClassifier, precision: Precision, fixed: bool = False) -> Generator[Way]:
    """Inside the block the model goes our own way, where that knows it.

    `fixed`: nothing learns inside. A block within another one stays on the way of the outer.
    """
    if isinstance(model.path, FastEncoder):
        yield Way(model.path)
        return
    way = Way(None)
    try:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        way = Way(FastEncoder(model.encoder, dtype, fixed))
    except Unsupported as error:
        way = Way(None, str(error))
    model.path = way.fast
    try:
        yield way
    finally:
        model.path = None
