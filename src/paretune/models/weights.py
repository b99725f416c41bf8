"""A BERT-type encoder as plain tensors, read without importing `transformers` where its file is a plain one.

Importing `transformers` takes longer than all else that a server needs until it is ready. Not here: what the weights
compute (`serve/encoder.py`), nor where the folder comes from (`sources.py`). Names are those of `transformers`.

    plain = plain_encoder("asset:minilm-l6"); plain.weights["embeddings.word_embeddings.weight"]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import AliasChoices, BaseModel, Field
from safetensors.torch import load_file
from torch import Tensor

from paretune.core.errors import AssetError, UnknownNameError, said
from paretune.models.sources import model_folder, readable

WORDS, POSITIONS = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
TOKEN_TYPES, EMBEDDINGS_NORM = "embeddings.token_type_embeddings.weight", "embeddings.LayerNorm"
_TASK_PREFIXES = ("bert.", "distilbert.", "roberta.")  # of a model that was saved with a head for some task
_OLD_NAMES = (".gamma", ".beta")  # what TensorFlow's checkpoints call a norm's weight and bias


@dataclass(frozen=True)
class Kind:
    """What a type of encoder calls the parts of its blocks; where its positions begin."""

    blocks: str
    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    up: str
    down: str
    norm: str
    token_types: bool
    positions_after_padding: bool  # the first position is the padding index + 1

    @property
    def attention_in(self) -> tuple[str, str, str]:
        """Linear maps that always get one and the same input."""
        return self.query, self.key, self.value

    @property
    def others(self) -> tuple[str, str, str]:
        """All other linear maps of a block."""
        return self.attention_out, self.up, self.down

    @property
    def norms(self) -> tuple[str, str]:
        """Layer norms of a block."""
        return self.attention_norm, self.norm


def _bert(positions_after_padding: bool) -> Kind:
    return Kind(
        blocks="encoder.layer",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_out="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        norm="output.LayerNorm",
        token_types=True,
        positions_after_padding=positions_after_padding,
    )


DECODERS = ("llama",)  # whose blocks our own pass knows
KINDS = {
    "bert": _bert(positions_after_padding=False),
    "roberta": _bert(positions_after_padding=True),
    "xlm-roberta": _bert(positions_after_padding=True),
    "distilbert": Kind(
        blocks="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        norm="output_layer_norm",
        token_types=False,
        positions_after_padding=False,
    ),
}


class EncoderConfig(BaseModel):
    """What cannot be read off the weights' shapes; the defaults are those that `transformers` leaves out of a file."""

    model_type: str = ""
    heads: int = Field(default=12, ge=1, validation_alias=AliasChoices("num_attention_heads", "n_heads"))
    activation: str = Field(default="gelu", validation_alias=AliasChoices("hidden_act", "activation"))
    epsilon: float = Field(default=1e-12, validation_alias="layer_norm_eps")
    pad_token_id: int | None = None
    is_decoder: bool = False


@dataclass(frozen=True)
class PlainEncoder:
    """Checked weights in fp32: every name that the kind has, of shapes that fit each other, and no other."""

    kind: Kind
    config: EncoderConfig
    blocks: list[str]
    weights: dict[str, Tensor]

    @property
    def hidden_size(self) -> int:
        """Features of a token."""
        return self.weights[WORDS].shape[1]

    @property
    def first_position(self) -> int:
        """Where positions begin."""
        padding = 1 if self.config.pad_token_id is None else self.config.pad_token_id
        return padding + 1 if self.kind.positions_after_padding else 0


def plain_encoder(source: str, base: Path | None = None) -> PlainEncoder:
    """Read an encoder. Several files, other formats and old names are left to `transformers`.

    Raises:
        UnknownNameError: a type of model that is not of `KINDS`, or a decoder.
        AssetError: as `model_folder`; or weights that are missing or do not fit.
    """
    folder = model_folder(source, base)
    with readable(source):
        config = EncoderConfig.model_validate(json.loads((folder / "config.json").read_bytes()))
    if config.model_type not in KINDS or config.is_decoder:
        given = f"{source} is a model of type {config.model_type!r}" + (", a decoder" if config.is_decoder else "")
        raise UnknownNameError(said(given, "an encoder, one of " + ", ".join(KINDS)))
    kind = KINDS[config.model_type]
    weights = _weights(source, folder)
    layers = {name.removeprefix(f"{kind.blocks}.").split(".")[0] for name in weights if name.startswith(kind.blocks)}
    blocks = [f"{kind.blocks}.{number}" for number in range(len(layers))]
    shapes = _shapes(weights, kind, blocks)
    odd = [name for name in weights if name not in shapes and name.startswith((kind.blocks, "embeddings."))]
    if odd:
        raise UnknownNameError(said(f"{source} has a weight {odd[0]!r}", "an encoder of the known kinds, without more"))
    wrong = [name for name, shape in shapes.items() if name not in weights or tuple(weights[name].shape) != shape]
    if wrong or not blocks:
        given = f"{source}: weights missing or of another shape: {', '.join(wrong[:3]) or kind.blocks}"
        raise AssetError(said(given, "weights that fit config.json"))
    return PlainEncoder(kind, config, blocks, {name: weights[name] for name in shapes})


def _weights(source: str, folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        with readable(source):
            found = _without_prefix(load_file(files[0]))
        if not any(name.endswith(_OLD_NAMES) for name in found):
            return {name: one.float() for name, one in found.items() if one.is_floating_point()}
    from paretune.models.loading import load_encoder

    return {name: one.detach() for name, one in load_encoder(f"path:{folder}").named_parameters()}


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = next((one for one in _TASK_PREFIXES if any(name.startswith(one) for name in weights)), "")
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _shapes(weights: dict[str, Tensor], kind: Kind, blocks: list[str]) -> dict[str, tuple[int, ...]]:
    """The shape that each parameter must have, by the sizes of the embeddings and of the first block."""

    def size(name: str, axis: int) -> int:
        return weights[name].shape[axis] if name in weights and weights[name].dim() == 2 else 0

    hidden, wide = size(WORDS, 1), size(f"{blocks[0]}.{kind.up}.weight", 0) if blocks else 0
    found: dict[str, tuple[int, ...]] = {WORDS: (size(WORDS, 0), hidden), POSITIONS: (size(POSITIONS, 0), hidden)}
    if kind.token_types:
        found[TOKEN_TYPES] = size(TOKEN_TYPES, 0), hidden
    found |= {f"{EMBEDDINGS_NORM}.{what}": (hidden,) for what in ("weight", "bias")}
    linear = dict.fromkeys((*kind.attention_in, kind.attention_out), (hidden, hidden))
    linear |= {kind.up: (wide, hidden), kind.down: (hidden, wide)}
    for block in blocks:
        for part, shape in linear.items():
            found |= {f"{block}.{part}.weight": shape, f"{block}.{part}.bias": shape[:1]}
        found |= {f"{block}.{part}.{what}": (hidden,) for part in kind.norms for what in ("weight", "bias")}
    return found
