"""A pass through an encoder or decoder by our own kernels, over the parameters of the plain modules.

They stay in place, so that what a method freezes, inserts, saves and merges is untouched; only the way from tokens to
hidden states is another. A model that the kernels do not know keeps its plain path, and the reason is said. Not here:
the arithmetic (`kernels/`), nor which parameter stands where in a block (`fast_blocks.py`). Axes: b texts, t positions,
h hidden.

    with fast_path(model, "bf16") as way: ...
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from paretune.core.engine_timings import known, why_fp32
from paretune.kernels.native.batches import Batch
from paretune.kernels.native.blocks import Room
from paretune.kernels.native.library import library
from paretune.kernels.native.maps import Layouts
from paretune.kernels.rows import Around, Rows, round_count, rows_of
from paretune.models.adapters import own_pass_refusal
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision
from paretune.models.surgery import frozen_blocks, layers, plain_encoder
from paretune.models.weights import DECODERS
from paretune.train.fast_blocks import BertBlock, FastBlock, LlamaBlock, Unsupported, refresh
from paretune.train.native_blocks import (
    NativeBlock,
    NativeStack,
    Shape,
    native_bert_block,
    native_llama_block,
    refused,
)

UNSEEN = -1e30  # within bf16's range


class _Packed(torch.autograd.Function):
    """Hidden states of texts as rows."""

    @staticmethod
    def forward(ctx: Any, x_bth: Tensor, rows: Rows) -> Tensor:  # type: ignore[override]
        ctx.rows = rows
        return rows.packed(x_bth)

    @staticmethod
    def backward(ctx: Any, dx_nh: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.rows.padded(dx_nh), None


class _Padded(torch.autograd.Function):
    """Rows as hidden states of texts."""

    @staticmethod
    def forward(ctx: Any, x_nh: Tensor, rows: Rows) -> Tensor:  # type: ignore[override]
        ctx.rows = rows
        return rows.padded(x_nh)

    @staticmethod
    def backward(ctx: Any, dx_bth: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.rows.packed(dx_bth), None


class _Pass(torch.autograd.Function):
    """The kernel's way forward and back, in torch's graph, which knows one parameter, so that a gradient is asked for;
    those of all others are brought to them here: a node for each costs more than its gradient."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x_nh: Tensor, around: Around, block: FastBlock, parameter: Tensor | None
    ) -> Tensor:
        ctx.block, ctx.around = block, around
        ctx.random = torch.get_rng_state() if block.recomputed and block.drops else None
        if block.recomputed:
            ctx.save_for_backward(x_nh)
            return block.output(x_nh, around)
        z_nh, kept = block.forward(x_nh, around)
        ctx.save_for_backward(*kept)
        return z_nh

    @staticmethod
    def backward(ctx: Any, dz_nh: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        block: FastBlock = ctx.block
        kept = _kept_again(ctx, block) if block.recomputed else ctx.saved_tensors
        dx_nh, grown = block.backward(dz_nh, kept, ctx.around, ctx.needs_input_grad[0])
        for parameter, gradient in zip(block.parameters, grown, strict=True):
            if parameter.requires_grad and gradient is not None:
                _add_gradient(parameter, gradient)
        return dx_nh, None, None, None


def _add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """As torch's graph does it, in the parameter's own layout, which the optimizer relies on."""
    if parameter.grad is not None:
        parameter.grad += gradient
    else:
        parameter.grad = gradient.contiguous()


def _kept_again(ctx: Any, block: FastBlock) -> tuple[Tensor, ...]:
    """What the way forward kept, from the block's input; dropout draws what it drew."""
    (x_nh,) = ctx.saved_tensors
    if ctx.random is None:
        return cast(tuple[Tensor, ...], block.forward(x_nh, ctx.around)[1])
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(ctx.random)
        return cast(tuple[Tensor, ...], block.forward(x_nh, ctx.around)[1])


def _heads(config: Any) -> int:
    return int(getattr(config, "num_attention_heads", 0) or config.n_heads)


def _shape(config: Any) -> Shape:
    """Sizes of a block."""
    hidden, heads = int(config.hidden_size), _heads(config)
    inner = int(getattr(config, "intermediate_size", 0) or config.hidden_dim)
    head = int(getattr(config, "head_dim", 0) or hidden // heads)
    keys = int(getattr(config, "num_key_value_heads", 0) or heads)
    return Shape(hidden, inner, heads, keys, head)


class FastEncoder:
    """An encoder's pass, for the encoder as it is now: after a merge, or where other parts freeze, make it anew.

    `fixed`: nothing learns, so that all weights are brought into the products' format and layout once. `recomputed`: of
    each block only its input is kept, the rest is computed again on the way back (activation checkpointing, Chen et al.
    2016, https://arxiv.org/abs/1604.06174). `native`: by the C++ kernels where they can be had.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dtype: torch.dtype,
        fixed: bool = False,
        recomputed: bool = False,
        native: bool = True,
    ) -> None:
        """Raises: Unsupported."""
        if reason := own_pass_refusal(encoder, training=False):
            raise Unsupported(reason)
        self._plain = plain_encoder(encoder)
        self._modules = cast(Any, self._plain)  # each type of model has names of its own for them
        self._dtype = dtype
        config = self._plain.config
        decoder = config.model_type in DECODERS
        self._layouts: Layouts | None = None
        self.slower = ""
        self._decoder, self._recomputed = decoder, recomputed
        self._native = self._in_cpp(config, fixed) if native else []
        self._blocks = [] if self._native else self._by_torch(config, fixed)
        for block in self._blocks:
            block.recomputed = recomputed
        self._copies = [one for block in self._blocks for one in block.copies]
        self._room = Room()
        self._stacks: dict[tuple[int, int], list[FastBlock]] = {}

    def _by_torch(self, config: Any, fixed: bool) -> list[FastBlock]:
        if self._decoder:
            return [LlamaBlock(one, config, self._dtype, fixed) for one in layers(self._plain)]
        return [BertBlock(one, config.model_type, _heads(config), self._dtype, fixed) for one in layers(self._plain)]

    def _in_cpp(self, config: Any, fixed: bool) -> list[NativeBlock]:
        """Blocks of the kernels in C++; none where `slower` says why."""
        if self._dtype != torch.bfloat16:
            timed = known()
            faster = why_fp32(timed) if timed is not None else ""
            self.slower = "the C++ kernels multiply in bf16 alone, and this is fp32" + (f": {faster}" if faster else "")
            return []
        found = refused(_shape(config))
        self.slower = f"no C++ kernels: {found}" if found else ""
        calls = library().calls
        if self.slower or calls is None:
            return []
        modules = layers(self._plain)
        lowest = len(modules) if fixed else frozen_blocks(self._plain)
        blocks = [
            native_llama_block(calls, one, config, fixed, place >= lowest)
            if self._decoder
            else native_bert_block(calls, one, config.model_type, _heads(config), fixed, place >= lowest)
            for place, one in enumerate(modules)
        ]
        learnt = ([part for one in blocks for part in one.weights], [part for one in blocks for part in one.updated])
        self._layouts = Layouts(calls, *learnt, [part for one in blocks for part in one.copied])
        return blocks

    def _row(self, first: int, end: int | None = None) -> list[FastBlock]:
        """Blocks [first, end) as the pass goes through them: many in one where the kernels in C++ know them."""
        if not self._native:
            return self._blocks[first:end]
        calls = library().calls
        assert calls is not None
        end = len(self._native) if end is None else end
        if (first, end) not in self._stacks:
            learning = (at for at in range(first, end) if self._native[at].parameters)
            lowest = next(learning, end)  # gradients go no further down
            cuts = [*range(first, end), end] if self._recomputed else sorted({first, lowest, end})
            stacks = [NativeStack(calls, self._native[a:b], self._room) for a, b in itertools.pairwise(cuts)]
            for one in stacks:
                one.recomputed = self._recomputed
            self._stacks[first, end] = [*stacks]
        return self._stacks[first, end]

    def positions(self, lengths: Sequence[int]) -> int:
        """For how many rows something is computed, of texts of so many tokens."""
        return sum(lengths) if self.in_cpp else round_count(sum(lengths))

    @property
    def in_cpp(self) -> bool:
        """Whether blocks go through the kernels in C++."""
        return self._layouts is not None

    def __call__(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """As `hidden`."""
        return self.hidden(input_ids_bt, mask_bt)

    def hidden(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """Last hidden states (b, t, h) in fp32; those of padding, which stands on the right, mean nothing."""
        return self.rest(self._embedded(input_ids_bt), mask_bt, 0)

    def states(self, input_ids_bt: Tensor, mask_bt: Tensor, before: int) -> Tensor:
        """What block `before` gets, (b, t, h) in fp32; the first block is number 0."""
        return self._through(self._embedded(input_ids_bt), mask_bt, self._row(0, before))

    def rest(self, x_bth: Tensor, mask_bt: Tensor, first: int) -> Tensor:
        """Last hidden states from what block `first` gets."""
        refresh(self._copies)
        if self._layouts is not None:
            self._layouts.refresh()
        x_bth = self._through(x_bth, mask_bt, self._row(first))
        if not self._decoder:
            return x_bth
        with torch.autocast("cpu", enabled=False):
            return cast(Tensor, self._modules.norm(x_bth))

    def _embedded(self, input_ids_bt: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            if self._decoder:
                return cast(Tensor, self._modules.embed_tokens(input_ids_bt))
            return cast(Tensor, self._modules.embeddings(input_ids=input_ids_bt))

    def _batch(self, mask_bt: Tensor) -> Batch:
        return Batch(mask_bt.sum(1).tolist(), torch.get_num_threads())

    def _around(self, rows: Rows, mask_bt: Tensor) -> Around:
        if self._decoder:
            places_1w = torch.arange(rows.width).unsqueeze(0)
            cos_1wd, sin_1wd = self._modules.rotary_emb(torch.zeros(()), places_1w)
            half = cos_1wd.shape[-1] // 2
            cos_wd, sin_wd = (one[0, :, :half].contiguous() for one in (cos_1wd, sin_1wd))
            if self.in_cpp:
                return Around(rows, batch=self._batch(mask_bt), cos_wd=cos_wd, sin_wd=sin_wd)
            unseen_11ww = torch.full((1, 1, rows.width, rows.width), UNSEEN, dtype=self._dtype).triu(1)
            return Around(rows, unseen_11ww, cos_wd=cos_wd, sin_wd=sin_wd)
        if self.in_cpp:
            return Around(rows, batch=self._batch(mask_bt))
        if bool(mask_bt.all()) and rows.width == rows.length:
            return Around(rows)
        unseen_bw = torch.full((rows.texts, rows.width), UNSEEN, dtype=self._dtype)
        unseen_bw[:, : rows.length] *= 1 - mask_bt
        return Around(rows, unseen_bw[:, None, None, :])

    def _through(self, x_bth: Tensor, mask_bt: Tensor, blocks: list[FastBlock]) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            rows = rows_of(mask_bt, spare=not self.in_cpp)
            around = self._around(rows, mask_bt)
            x_nh = cast(Tensor, _Packed.apply(x_bth, rows))
            for block in blocks:
                if torch.is_grad_enabled() and (x_nh.requires_grad or block.learns):
                    one = next((one for one in block.parameters if one.requires_grad), None)
                    x_nh = cast(Tensor, _Pass.apply(x_nh, around, block, one))
                else:
                    x_nh = block.output(x_nh, around)
            return cast(Tensor, _Padded.apply(x_nh, rows))


EngineName = Literal["native", "torch", "transformers"]


@dataclass(frozen=True)
class EngineChoice:
    """Which implementation of forward and backward a model goes through: "native" (the C++ kernels), "torch" (fused
    blocks of torch's operators) or "transformers" (the plain modules); `reason` says why no faster one."""

    name: EngineName
    reason: str = ""


@dataclass(frozen=True)
class Way:
    """How a model goes inside `fast_path`: `fast` is our own pass, None where the plain modules are used."""

    fast: FastEncoder | None
    engine: EngineChoice


def _own_pass(fast: FastEncoder) -> Way:
    return Way(fast, EngineChoice("native") if fast.in_cpp else EngineChoice("torch", fast.slower))


@contextmanager
def fast_path(
    model: EncoderClassifier, precision: Precision, fixed: bool = False, recomputed: bool = False
) -> Generator[Way]:
    """Inside the block the model goes our own way, where that knows it.

    `fixed` and `recomputed` are those of `FastEncoder`. A block within another one stays on the way of the outer.
    """
    if isinstance(model.path, FastEncoder):
        yield _own_pass(model.path)
        return
    try:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        way = _own_pass(FastEncoder(model.encoder, dtype, fixed, recomputed))
    except Unsupported as error:
        way = Way(None, EngineChoice("transformers", f"our own pass does not know {error}"))
    model.path = way.fast
    try:
        yield way
    finally:
        model.path = None
