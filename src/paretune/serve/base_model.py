"""The base encoder, once in memory, with linear maps that several adapters share in one pass without padding.

All texts of a pass lie one after another in one row of tokens (n); attention stays inside each text. Not here: slots
(`pool.py`), heads (`resident.py`), the linear maps themselves (`linear.py`).
Axes: n tokens of all texts, h hidden, d features of a head.

    hidden_nh = BaseModel(ModelSpec(source="asset:minilm-l6"), "bf16").hidden([(101, 102)], [], {})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from paretune.core.config import nearest
from paretune.core.errors import BundleError, UnknownNameError, said
from paretune.kernels.low_rank import LowRank, merged
from paretune.methods.method import Delta
from paretune.models.loading import ModelSpec, load_encoder, model_digest
from paretune.models.precision import Precision
from paretune.serve.linear import Place, Plan, Updates, join, joined_update

ATTENTION = "paretune_packed"
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta")
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta")  # their first position is the padding index + 1

Replaced = Mapping[str, Tensor]
Segment = tuple[int, Updates]  # so many tokens, and what is added to the linear maps for them


@dataclass(frozen=True)
class Block:
    """`texts` neighbours of one length: tokens start … start + texts · length."""

    start: int
    texts: int
    length: int


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    packed_blocks: Sequence[Block],
    **_: object,  # the interface of transformers passes more than is used here
) -> tuple[Tensor, None]:
    """Attention inside each text; query, key, value (1, heads, n, d) → (1, n, heads, d)."""
    # The fused kernel is faster in fp32 and slower in bf16; of NaN it makes zeros, which would be a random label
    # (https://github.com/pytorch/pytorch/issues/141128).
    fused = query.dtype == torch.float32 and bool(torch.isfinite(query.sum() + key.sum()))
    q_nhd, k_nhd, v_nhd = (one[0].transpose(0, 1) for one in (query, key, value))
    found: list[Tensor] = []
    for block in packed_blocks:
        tokens = slice(block.start, block.start + block.texts * block.length)
        shape = (block.texts, block.length)
        q, k, v = (one[tokens].unflatten(0, shape).transpose(1, 2) for one in (q_nhd, k_nhd, v_nhd))
        if fused:
            out = functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        else:
            out = torch.matmul(torch.matmul(q * scaling, k.transpose(2, 3)).softmax(-1), v)
        found.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).unsqueeze(0), None


def blocks(lengths: Sequence[int]) -> list[Block]:
    """Neighbours of one length, together."""
    found: list[Block] = []
    start = 0
    for length, group in groupby(lengths):
        texts = len(list(group))
        found.append(Block(start, texts, length))
        start += texts * length
    return found


class BaseModel:
    """One encoder, its number format, and how tensors of a bundle fit it. One thread at a time runs `hidden`."""

    def __init__(self, spec: ModelSpec, precision: Precision) -> None:
        self.precision: Precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.digest = model_digest(spec.source)
        self._encoder = load_encoder(spec.source).requires_grad_(False)
        config = self._encoder.config
        kind = config.model_type
        if kind not in ENCODERS:
            given = f"{spec.source} is a model of type {kind!r}"
            raise UnknownNameError(said(given, "one of " + ", ".join(ENCODERS), nearest=nearest(kind, ENCODERS)))
        self.hidden_size = cast(int, config.hidden_size)
        self.vocabulary = cast(int, config.vocab_size)
        first = cast(int, config.pad_token_id) + 1 if kind in _POSITIONS_AFTER_PADDING else 0
        self.max_tokens = cast(int, config.max_position_embeddings) - first
        self._positions = torch.arange(first, first + self.max_tokens)
        self._plan = Plan()
        shapes = {name: one.shape for name, one in self._encoder.named_parameters()}
        self._places = join(self._encoder, self._plan, self.dtype)
        AttentionInterface.register(ATTENTION, cast(Callable[..., object], packed_attention))
        self._encoder.set_attn_implementation(ATTENTION)
        self._parameters = dict(self._encoder.named_parameters())
        self._shapes = shapes  # of the base's own parameters, by the names that they had before some were joined

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear map inside the blocks, by the base's name."""
        return {name: (one.stop - one.start, one.whole.weight.shape[1]) for name, one in self._places.items()}

    def hidden(self, texts: Sequence[Sequence[int]], segments: Sequence[Segment], replaced: Replaced) -> Tensor:
        """Last hidden states (n, h) in fp32 of texts laid one after another; segments share out all their tokens.

        `replaced` stands in place of the base's parameters for this pass only.
        """
        lengths = [len(text) for text in texts]
        inputs = {
            "input_ids": torch.tensor([list(chain.from_iterable(texts))]),
            "position_ids": torch.cat([self._positions[:length] for length in lengths]).unsqueeze(0),
            "packed_blocks": blocks(lengths),
        }
        if any(updates for _, updates in segments):
            self._plan.lengths = [length for length, _ in segments]
            self._plan.updates = [updates for _, updates in segments]
        try:
            with torch.inference_mode():
                if replaced:
                    out = torch.func.functional_call(self._encoder, dict(replaced), (), inputs)
                else:
                    out = self._encoder(**inputs)
                return out.last_hidden_state[0].float()
        finally:
            self._plan.clear()

    def fitted(self, delta: Delta, name: str) -> tuple[dict[str, LowRank], dict[str, Tensor]]:
        """A bundle's updates and replaced parameters in this engine's number formats.

        Raises:
            BundleError: a name that the base does not have, or a shape that does not fit.
        """
        parts: dict[str, list[tuple[Place, LowRank]]] = {}
        replaced: dict[str, Tensor] = {}
        for key, value in delta.items():
            if isinstance(value, LowRank):
                place = self._checked_place(key, value, name)
                parts.setdefault(place.whole.name, []).append((place, value))
                continue
            if key not in self._shapes:
                raise self._unknown(name, f"parameter {key!r}", key, self._shapes)
            if self._shapes[key] != value.shape:
                raise BundleError(
                    said(f"{name}: {key!r} has shape {tuple(value.shape)}", f"{tuple(self._shapes[key])}")
                )
            self._replace(replaced, key, value)
        return {whole: joined_update(several).to(self.dtype) for whole, several in parts.items()}, replaced

    def _replace(self, replaced: dict[str, Tensor], key: str, value: Tensor) -> None:
        """Note a parameter; a part of joined maps goes into a copy of the whole."""
        module, _, kind = key.rpartition(".")
        place = self._places.get(module)
        own = f"{place.whole.name}.{kind}" if place else key
        if own not in replaced:
            replaced[own] = self._parameters[own].detach().clone()
        target = replaced[own][place.start : place.stop] if place else replaced[own]
        target.copy_(value.detach())

    def _checked_place(self, key: str, update: LowRank, name: str) -> Place:
        if key not in self._places:
            raise self._unknown(name, f"update of {key!r}", key, self._places)
        (outputs, inputs), a, b = self.linear_shapes[key], tuple(update.a_ri.shape), tuple(update.b_or.shape)
        if len(a) != 2 or len(b) != 2 or a[1] != inputs or b[0] != outputs or a[0] != b[1]:
            given = f"{name}: the update of {key!r} has shapes {a} and {b}"
            raise BundleError(said(given, f"(rank, {inputs}) and ({outputs}, rank)"))
        return self._places[key]

    @staticmethod
    def _unknown(name: str, what: str, key: str, known: Mapping[str, object]) -> BundleError:
        return BundleError(
            said(f"{name}: {what} fits nothing in the base", "its own names", nearest=nearest(key, known))
        )

    def merged(self, updates: Updates) -> dict[str, Tensor]:
        """The weights that stand in place of the base's when one adapter has all the traffic."""
        wholes = {place.whole.name: place.whole for place in self._places.values()}
        return {f"{name}.weight": merged(wholes[name].weight, update) for name, update in updates.items()}
