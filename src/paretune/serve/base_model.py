"""The base model, once in memory, and how a bundle's tensors fit it.

`load_base` takes the packed pass for the families that it knows, and the forward pass of `transformers` for all others
(`plain_base.py`). Not here: the pass itself (`encoder.py`), slots (`pool.py`), heads (`resident.py`).
Axes: n tokens of all texts, h hidden, i input and o output features, r rank.

    hidden_nh = BaseModel(ModelSpec(source="asset:minilm-l6"), "bf16").hidden([(101, 102)], [], {})
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from paretune.core.config import nearest
from paretune.core.errors import BundleError, UnknownNameError, said
from paretune.kernels.low_rank import LowRank, merged
from paretune.methods.method import Delta
from paretune.models.precision import Precision
from paretune.models.sources import ModelSpec, model_digest
from paretune.models.weights import WORDS, plain_encoder
from paretune.serve.encoder import Encoder, Place, Replaced, Segment, Updates

_LOG = logging.getLogger(__name__)


class Base(Protocol):
    """What the engine asks of a base model; one thread at a time runs `hidden`. `path` says which pass it is."""

    @property
    def path(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]: ...
    def hidden(self, texts: Sequence[Sequence[int]], segments: Sequence[Segment], replaced: Replaced) -> Tensor: ...
    def fitted(self, delta: Delta, name: str) -> tuple[dict[str, LowRank], dict[str, Tensor]]: ...
    def merged(self, updates: Updates) -> dict[str, Tensor]: ...


def load_base(spec: ModelSpec, precision: Precision) -> Base:
    """The base model: packed where its family is known to that pass, else plain.

    Raises:
        as `load_encoder`.
    """
    try:
        return BaseModel(spec, precision)
    except UnknownNameError as error:
        from paretune.serve.plain_base import PlainBase  # seconds to import, and not wanted where it is not needed

        _LOG.info("%s is served by the plain path: %s", spec.source, error)
        return PlainBase(spec.source, model_digest(spec.source), precision)


class BaseModel:
    """One encoder, its number format, and how tensors of a bundle fit it. One thread at a time runs `hidden`."""

    path = "packed"

    def __init__(self, spec: ModelSpec, precision: Precision) -> None:
        """Raises: UnknownNameError for a family, or a feature of one, that the packed pass does not know."""
        self.precision: Precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.digest = model_digest(spec.source)
        plain = plain_encoder(spec.source)
        self._encoder = Encoder(plain, self.dtype)
        self._shapes = {name: tuple(weight.shape) for name, weight in plain.weights.items()}
        self.hidden_size, self.max_tokens = plain.hidden_size, self._encoder.max_tokens
        self.vocabulary = self._shapes[WORDS][0]

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear map inside the blocks, by the base's name."""
        return {name: (one.stop - one.start, self._whole(one).shape[1]) for name, one in self._encoder.places.items()}

    def _whole(self, place: Place) -> Tensor:
        return self._encoder.weights[f"{place.whole}.weight"]

    def hidden(self, texts: Sequence[Sequence[int]], segments: Sequence[Segment], replaced: Replaced) -> Tensor:
        """As `Encoder.hidden`."""
        return self._encoder.hidden(texts, segments, replaced)

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
                parts.setdefault(place.whole, []).append((place, value))
                continue
            if key not in self._shapes:
                raise self._unknown(name, f"parameter {key!r}", key, self._shapes)
            if self._shapes[key] != value.shape:
                raise BundleError(said(f"{name}: {key!r} has shape {tuple(value.shape)}", f"{self._shapes[key]}"))
            self._replace(replaced, key, value)
        sizes = {whole: self._encoder.weights[f"{whole}.bias"].shape[0] for whole in parts}
        return {whole: joined(several, sizes[whole]).to(self.dtype) for whole, several in parts.items()}, replaced

    def _replace(self, replaced: dict[str, Tensor], key: str, value: Tensor) -> None:
        """Note a parameter; a part of joined maps goes into a copy of the whole."""
        module, _, kind = key.rpartition(".")
        place = self._encoder.places.get(module)
        own = f"{place.whole}.{kind}" if place else key
        if own not in replaced:
            replaced[own] = self._encoder.weights[own].clone()
        target = replaced[own][place.start : place.stop] if place else replaced[own]
        target.copy_(value.detach())

    def _checked_place(self, key: str, update: LowRank, name: str) -> Place:
        if key not in self._encoder.places:
            raise self._unknown(name, f"update of {key!r}", key, self._encoder.places)
        (outputs, inputs), a, b = self.linear_shapes[key], tuple(update.a_ri.shape), tuple(update.b_or.shape)
        if len(a) != 2 or len(b) != 2 or a[1] != inputs or b[0] != outputs or a[0] != b[1]:
            given = f"{name}: the update of {key!r} has shapes {a} and {b}"
            raise BundleError(said(given, f"(rank, {inputs}) and ({outputs}, rank)"))
        return self._encoder.places[key]

    @staticmethod
    def _unknown(name: str, what: str, key: str, known: Mapping[str, object]) -> BundleError:
        return BundleError(
            said(f"{name}: {what} fits nothing in the base", "its own names", nearest=nearest(key, known))
        )

    def merged(self, updates: Updates) -> dict[str, Tensor]:
        """The weights that stand in place of the base's when one adapter has all the traffic."""
        named = {f"{whole}.weight": update for whole, update in updates.items()}
        return {name: merged(self._encoder.weights[name], update) for name, update in named.items()}


def joined(parts: Sequence[tuple[Place, LowRank]], outputs: int) -> LowRank:
    """Updates of parts of one whole map as one update of it: ranks add up, each touches its own outputs."""
    a_ri = torch.cat([update.a_ri for _, update in parts])
    b_or = a_ri.new_zeros(outputs, a_ri.shape[0])
    rank = 0
    for place, update in parts:
        b_or[place.start : place.stop, rank : rank + update.a_ri.shape[0]] = update.b_or
        rank += update.a_ri.shape[0]
    return LowRank(a_ri, b_or)
