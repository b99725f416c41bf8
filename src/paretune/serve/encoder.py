"""A BERT-type encoder's forward pass over texts that lie one after another in one row of tokens: no padding at all.

Linear maps see the whole row, each adapter's update is added to its own segment, attention stays inside each text.
Weights are looked up by name, so a pass may put others in their place; query, key and value are computed as one map:
one large product and one small one per adapter instead of three each. What comes out is compared with `transformers` in
the tests. Not here: fitting a bundle to these names (`base_model.py`).
Sources: Devlin et al. 2019 (https://aclanthology.org/N19-1423), Liu et al. 2019 (https://arxiv.org/abs/1907.11692),
Sanh et al. 2019 (https://arxiv.org/abs/1910.01108).
Axes: n tokens of all texts, h hidden, i input and o output features, d features of an attention head.

    encoder = Encoder(plain_encoder("asset:minilm-l6"), torch.bfloat16); encoder.hidden([(101, 102)], [], {})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby

import torch
from torch import Tensor
from torch.nn import functional

from paretune.core.config import nearest
from paretune.core.errors import AssetError, UnknownNameError, said
from paretune.kernels.low_rank import LowRank, add_segments
from paretune.models.weights import EMBEDDINGS_NORM, POSITIONS, TOKEN_TYPES, WORDS, PlainEncoder

Updates = Mapping[str, LowRank]  # by the name of the whole map
Segment = tuple[int, Updates]  # so many tokens, and what is added to the linear maps for them
Replaced = Mapping[str, Tensor]
_TANH_GELU = partial(functional.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "relu": functional.relu,
    "silu": functional.silu,
}


@dataclass(frozen=True)
class Block:
    """`texts` neighbours of one length: tokens start … start + texts · length."""

    start: int
    texts: int
    length: int


def blocks(lengths: Sequence[int]) -> list[Block]:
    """Neighbours of one length, together."""
    found: list[Block] = []
    start = 0
    for length, group in groupby(lengths):
        texts = len(list(group))
        found.append(Block(start, texts, length))
        start += texts * length
    return found


def attention(q_nhd: Tensor, k_nhd: Tensor, v_nhd: Tensor, packed: Sequence[Block]) -> Tensor:
    """Attention inside each text; three times (n, heads, d) → (n, heads · d)."""
    # The fused kernel is faster in fp32 and slower in bf16; of NaN it makes zeros, which would be a random label
    # (https://github.com/pytorch/pytorch/issues/141128).
    fused = q_nhd.dtype == torch.float32 and bool(torch.isfinite(q_nhd.sum() + k_nhd.sum()))
    scale = q_nhd.shape[-1] ** -0.5
    found: list[Tensor] = []
    for block in packed:
        tokens = slice(block.start, block.start + block.texts * block.length)
        shape = (block.texts, block.length)
        q, k, v = (one[tokens].unflatten(0, shape).transpose(1, 2) for one in (q_nhd, k_nhd, v_nhd))
        if fused:
            out = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        else:
            out = torch.matmul(torch.matmul(q * scale, k.transpose(2, 3)).softmax(-1), v)
        found.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(found).flatten(1)


@dataclass(frozen=True)
class Place:
    """Where a linear map of the base is now: output features start … stop of a whole map."""

    whole: str
    start: int
    stop: int


class Encoder:
    """Weights as a pass multiplies them: the blocks' linear maps in `dtype`, all else in fp32."""

    def __init__(self, plain: PlainEncoder, dtype: torch.dtype) -> None:
        name, heads = plain.config.activation, plain.config.heads
        if name not in ACTIVATIONS:
            allowed = "one of " + ", ".join(ACTIVATIONS)
            raise UnknownNameError(said(f"activation {name!r}", allowed, nearest=nearest(name, ACTIVATIONS)))
        if plain.hidden_size % heads:
            raise AssetError(said(f"{heads} attention heads of {plain.hidden_size} features", "as many for each"))
        self.hidden_size = plain.hidden_size
        self._activation, self._heads, self._dtype = ACTIVATIONS[name], heads, dtype
        self._kind, self._epsilon, self._blocks = plain.kind, plain.config.epsilon, plain.blocks
        self._positions_n = torch.arange(plain.first_position, plain.weights[POSITIONS].shape[0])
        self._padding = plain.first_position - 1  # RoBERTa's: such a token has its own position and moves none on
        self.weights = {name: weight for name, weight in plain.weights.items() if name.startswith("embeddings.")}
        self.places: dict[str, Place] = {}
        for block in plain.blocks:
            self._take(block, plain.weights)

    @property
    def max_tokens(self) -> int:
        """The longest text that there are positions for."""
        return len(self._positions_n)

    def _take(self, block: str, weights: Mapping[str, Tensor]) -> None:
        kind, width = self._kind, self.hidden_size
        for place, part in enumerate(kind.attention_in):
            self.places[f"{block}.{part}"] = Place(self._joined(block), place * width, (place + 1) * width)
        for part in kind.others:
            self.places[f"{block}.{part}"] = Place(f"{block}.{part}", 0, weights[f"{block}.{part}.bias"].shape[0])
        for what in ("weight", "bias"):
            together = torch.cat([weights[f"{block}.{part}.{what}"] for part in kind.attention_in])
            self.weights[f"{self._joined(block)}.{what}"] = together.to(self._dtype)
            self.weights |= {f"{block}.{one}.{what}": weights[f"{block}.{one}.{what}"] for one in kind.norms}
            for part in kind.others:
                self.weights[f"{block}.{part}.{what}"] = weights[f"{block}.{part}.{what}"].to(self._dtype)

    def _joined(self, block: str) -> str:
        return f"{block}.{self._kind.query.rpartition('.')[0]}.joined"

    def _positions(self, text: Sequence[int]) -> Tensor:
        if not self._kind.positions_after_padding or self._padding not in text:
            return self._positions_n[: len(text)]
        real_t = torch.tensor(text) != self._padding
        return real_t.cumsum(0) * real_t + self._padding

    def hidden(self, texts: Sequence[Sequence[int]], segments: Sequence[Segment], replaced: Replaced) -> Tensor:
        """Last hidden states (n, h) in fp32 of texts laid one after another; segments share out all their tokens.

        `replaced` stands in place of the weights of its names, for this pass only.
        """
        lengths = [len(text) for text in texts]
        ids_n = torch.tensor(list(chain.from_iterable(texts)))
        positions_n = torch.cat([self._positions(text) for text in texts])
        packed, kind = blocks(lengths), self._kind
        weights = {**self.weights, **replaced} if replaced else self.weights
        spans = [length for length, _ in segments] if any(updates for _, updates in segments) else []

        def norm(x_nh: Tensor, name: str) -> Tensor:
            scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
            return functional.layer_norm(x_nh, (self.hidden_size,), scale, shift, self._epsilon)

        def linear(x_ni: Tensor, name: str) -> Tensor:
            x_ni = x_ni.to(self._dtype)
            y_no = functional.linear(x_ni, weights[f"{name}.weight"], weights[f"{name}.bias"])
            if spans:
                add_segments(y_no, x_ni, spans, [updates.get(name) for _, updates in segments])
            return y_no

        with torch.inference_mode():
            x_nh = functional.embedding(ids_n, weights[WORDS])
            if kind.token_types:
                x_nh = x_nh + weights[TOKEN_TYPES][0]
            x_nh = norm(x_nh + functional.embedding(positions_n, weights[POSITIONS]), EMBEDDINGS_NORM)
            for block in self._blocks:
                qkv = linear(x_nh, self._joined(block)).unflatten(1, (3, self._heads, -1)).unbind(1)
                mixed_nh = linear(attention(*qkv, packed), f"{block}.{kind.attention_out}")
                x_nh = norm(mixed_nh + x_nh, f"{block}.{kind.attention_norm}")
                inner_no = self._activation(linear(x_nh, f"{block}.{kind.up}"))
                x_nh = norm(linear(inner_no, f"{block}.{kind.down}") + x_nh, f"{block}.{kind.norm}")
        return x_nh
