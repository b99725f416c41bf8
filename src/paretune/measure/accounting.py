"""What a training must hold, predicted before anything runs: parameters, bytes by part, bytes of what is saved.

Numbers are counted on the adapted model itself, on any device ("meta" too, where nothing is loaded), so that no method
is named here and a new one is right at once. What backward keeps of a block and what the allocator adds to it is
calibrated (`calibration.py`); `block_bytes` is what the formula says of it. Sources: Korthikanti et al. 2022
(https://arxiv.org/abs/2205.05198) for activations, Loshchilov & Hutter 2019 (https://arxiv.org/abs/1711.05101) for
AdamW's two moments. Not here: arithmetic (`flops.py`), what was really used (`meter.py`).

    largest = Pass(texts=16, positions=16 * 128, pairs=16 * 128**2)
    found = census(model); parts = memory_parts(found, Work(largest, active_words=2000), [], "bf16", constants)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from paretune.measure.flops import Arithmetic, arithmetic
from paretune.models.adapters import base_embeddings, base_modules, inserted_parameters, own_pass_refusal
from paretune.models.classifier import EncoderClassifier
from paretune.models.surgery import is_linear, layers, plain_encoder, size_of, trainable, weight_oi

Format = Literal["bf16", "fp32"]
NUMBER_BYTES: dict[Format, int] = {"bf16": 2, "fp32": 4}
FP32, MOMENTS = 4, 2
FAULT_BYTES = 64 * 2**10  # so much of a mapped file becomes resident around each touched page


@dataclass(frozen=True)
class Census:
    """Numbers of parameters of an adapted model, and the sizes that decide what a pass holds.

    `words` and `word_width` are rows and columns of the table of words, `words_learn` whether it is trained.
    `inserted`: what the method added to the base model. `copied`: matrices and biases of the blocks, which our own pass
    converts to the format in which it multiplies. `saved_bytes` is the file that holds what was trained.
    `own_pass`: our own kernels know the model with all that the method did to it.
    """

    trainable: int
    total: int
    inserted: int
    words: int
    word_width: int
    words_learn: bool
    copied: int
    hidden: int
    feed_forward: int
    heads: int
    key_heads: int
    classes: int
    saved_bytes: int
    own_pass: bool
    arithmetic: Arithmetic

    @property
    def encoder_learns(self) -> bool:
        """Whether a gradient goes into the encoder at all."""
        return self.arithmetic.passed_blocks > 0


@dataclass(frozen=True)
class Pass:
    """What is computed at once: a micro-batch.

    `positions` is how many rows products take, `pairs` how many scores one head of attention has, both with whatever
    stands there beside real tokens. `in_cpp`: through the kernels in C++, which remember nothing of a pass and hold
    weights in a layout of their own, those that gradients pass in a second one.
    """

    texts: int
    positions: int
    pairs: int
    in_cpp: bool = False


@dataclass(frozen=True)
class Work:
    """The largest that is computed at once, and what a whole training touches.

    `active_words` rows of the table of words occur in the training texts; `widths` different numbers of positions occur
    among the passes of which products remember something; `recomputed`: of each block only its input is kept for the
    way back. `accumulates`: a step has several passes.
    """

    largest: Pass
    active_words: int
    widths: int = 1
    recomputed: bool = False
    accumulates: bool = False


@dataclass(frozen=True)
class BlockBytes:
    """What backward keeps of one block: bytes a position and bytes a pair of positions (all heads together)."""

    position: float
    pair: float

    def of(self, one: Pass) -> float:
        return self.position * one.positions + self.pair * one.pairs


@dataclass(frozen=True)
class MemoryConstants:
    """What only a measurement can tell of a machine, a model and a number format.

    `started_bytes`: the process with imports, texts tokenized, model not yet touched. `kept`: bytes taken for each byte
    that the formula keeps for backward (the allocator's slack). `working`: how many blocks' worth the work on one block
    takes beside that; `evaluation`: the same without gradients. `fixed_bytes`: whatever else. `width_bytes`: what the
    library of matrix products remembers for each new width, by what is computed.
    """

    started_bytes: float
    block: BlockBytes
    kept: float
    working: float
    evaluation: float
    fixed_bytes: float
    width_bytes: Mapping[str, float]


@dataclass(frozen=True)
class MemoryParts:
    """Bytes at the moment of a run's peak, part by part; they add up to `total`.

    `weights`: the base model as far as it is touched, what the method inserted, and copies in the format of products.
    `gradients`: twice where the kernels in C++ add up those of several passes, as they give all at once. `shared`:
    gradients that lie where backward has already given activations back (negative), which those kernels do not do.
    `evaluation`: by how much evaluation needs more than a training step.
    """

    process: float
    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    kernels: float
    shared: float
    evaluation: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def census(model: EncoderClassifier) -> Census:
    """Count an adapted model as it is now.

    Raises:
        UnknownNameError: a type of model whose blocks are not known.
    """
    encoder = model.encoder
    plain = plain_encoder(encoder)
    words = base_embeddings(encoder)
    moving = trainable(model)
    sizes = {name: one.numel() for name, one in model.named_parameters()}
    inserted = sum(one.numel() for one in (*inserted_parameters(encoder).values(), *model.head.parameters()))
    heads = size_of(plain, "num_attention_heads") or 1
    feed_forward = max((weight_oi(one).shape[0] for one in _linear(plain)), default=0)
    return Census(
        trainable=sum(one.numel() for one in moving.values()),
        total=sum(sizes.values()),
        inserted=inserted,
        words=words.num_embeddings,
        word_width=words.embedding_dim,
        words_learn=words.weight.requires_grad,
        copied=sum(one.numel() for one in _converted(plain)),
        hidden=model.head.in_features,
        feed_forward=feed_forward,
        heads=heads,
        key_heads=size_of(plain, "num_key_value_heads") or heads,
        classes=model.head.out_features,
        saved_bytes=safetensors_bytes({name: tuple(one.shape) for name, one in moving.items()}),
        own_pass=not own_pass_refusal(encoder, training=True),
        arithmetic=arithmetic(model.encoder),
    )


def _linear(plain: PreTrainedModel) -> list[nn.Module]:
    """The base model's linear layers inside the blocks."""
    return [one for _, one in base_modules(layers(plain)) if is_linear(one)]


def _converted(plain: PreTrainedModel) -> list[nn.Parameter]:
    """Weights and biases of the base model's linear maps inside the blocks."""
    return [parameter for module in _linear(plain) for parameter in module.parameters()]


def safetensors_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of a safetensors file of fp32 tensors: 8, a header of JSON that is padded to 8, and the numbers.

    Source: https://github.com/huggingface/safetensors (format).
    """
    header: dict[str, object] = {}
    offset = 0
    for name, shape in sorted(shapes.items()):
        size = FP32
        for axis in shape:
            size *= axis
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + (text + 7) // 8 * 8 + offset


def block_bytes(found: Census, precision: Format) -> BlockBytes:
    """What backward keeps of one block of BERT's kind in our own pass by torch's operators: its input, queries, keys
    and values, what attention mixed, both sums before the norms, the input of the feed-forward part and its inner width
    (8 hidden widths and the inner one); and the probabilities of attention, once per head. In C++ these are not kept:
    what is, a probe sees wherever a gradient goes into the encoder."""
    size = NUMBER_BYTES[precision]
    return BlockBytes(size * (8.0 * found.hidden + found.feed_forward), float(size * found.heads))


def held_parameters(found: Census, active_words: int) -> int:
    """Trainable parameters that have a gradient and moments: of the table of words the touched rows alone."""
    idle_rows = found.words - min(active_words, found.words) if found.words_learn else 0
    return found.trainable - idle_rows * found.word_width


def back_bytes(found: Census, precision: Format, in_cpp: bool) -> float:
    """The second layout of the weights that gradients pass; in C++ alone."""
    passed = found.arithmetic.passed_blocks / found.arithmetic.blocks
    return found.copied * NUMBER_BYTES[precision] * passed if in_cpp else 0.0


def weight_bytes(found: Census, active_words: int, precision: Format, in_cpp: bool = False) -> float:
    """Base weights as far as training touches them, what was inserted, the touched words' own table, and the copies."""
    words, touched, own_table = _words(found, active_words)
    copies = found.copied * NUMBER_BYTES[precision] + back_bytes(found, precision, in_cpp)
    return (found.total * FP32 - words) + touched + own_table + copies


def whole_table_bytes(found: Census, active_words: int) -> float:
    """By how much a table of words that learns grows once training is over, when its other rows decay."""
    words, touched, own_table = _words(found, active_words)
    return words - touched - own_table if found.words_learn else 0.0


def _words(found: Census, active_words: int) -> tuple[int, int, int]:
    """Bytes of the table of words, of what touched rows bring in of its file, and of their own table."""
    words = found.words * found.word_width * FP32
    own_table = min(active_words, found.words) * found.word_width * FP32 if found.words_learn else 0
    return words, min(words, active_words * FAULT_BYTES), own_table


def computed(found: Census) -> str:
    """Which products a step has: "forward" alone, also gradients that are "passed" on, low-rank updates ("low_rank"),
    or the matrices' own gradients ("learning")."""
    if found.arithmetic.learning > 0:
        return "learning"
    if found.arithmetic.low_rank > 0:
        return "low_rank"
    return "passed" if found.encoder_learns else "forward"


def memory_parts(
    found: Census, work: Work, evaluations: Sequence[Work], precision: Format, constants: MemoryConstants
) -> MemoryParts:
    """Bytes by part at the peak of a whole run: that of a training step, or of an evaluation where that needs more."""
    held = held_parameters(found, work.active_words)
    in_cpp = work.largest.in_cpp
    gradients, moments = float(held * FP32), float(held * FP32 * MOMENTS)
    block = constants.block.of(work.largest)
    of_one = float(FP32 * found.hidden * work.largest.positions) if work.recomputed else block
    again = constants.kept * block if work.recomputed and found.encoder_learns else 0.0
    kept = constants.kept * of_one * found.arithmetic.passed_blocks
    parts = MemoryParts(
        process=constants.started_bytes + constants.fixed_bytes,
        weights=weight_bytes(found, work.active_words, precision, in_cpp),
        gradients=2 * gradients if in_cpp and work.accumulates else gradients,
        optimizer=moments,
        activations=kept + again + constants.working * block,
        logits=float(work.largest.texts * found.classes * FP32 * 3),  # scores, their logarithms, their gradient
        kernels=constants.width_bytes.get(computed(found), 0.0) * work.widths,
        shared=0.0 if in_cpp else -min(gradients, kept),
        evaluation=0.0,
    )
    evaluating = max(
        (
            parts.process
            + weight_bytes(found, work.active_words, precision)
            + whole_table_bytes(found, work.active_words)
            + constants.evaluation * constants.block.of(one.largest)
            + constants.width_bytes.get("forward", 0.0) * one.widths
            for one in evaluations
        ),
        default=0.0,
    )
    return replace(parts, evaluation=max(0.0, evaluating - parts.total))
