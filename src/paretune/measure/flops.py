"""How much arithmetic training needs, counted from a model's shapes: one multiply-add is two FLOP.

Per real token and number of the blocks' matrices (N, without embedding tables): 2 in the forward pass, 2 more where a
gradient passes through, 2 more where the matrix itself learns: 6·N for full fine-tuning (Kaplan et al. 2020, section
2.1, https://arxiv.org/abs/2001.08361), 4·N for low-rank updates, whose own 6·R is counted apart (Hu et al. 2021,
https://arxiv.org/abs/2106.09685). Attention: per block 2·2·s·q forward and twice that backward, half of it where a
token sees none after it (Korthikanti et al. 2022, appendix A, https://arxiv.org/abs/2205.05198).
Not here: padding, recomputation, norms and activations, the classification head (one product a text), time
(`machine.py`).

    found = arithmetic(model.encoder); found.useful_flops(tokens=4096, squares=4096 * 128)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel

from paretune.models.adapters import base_modules, low_rank_numbers
from paretune.models.families import sees_only_before
from paretune.models.surgery import is_linear, layers, plain_encoder, size_of, weight_oi

# (input features, output features) of a linear map → how many of that shape the blocks have
Shapes = Mapping[tuple[int, int], int]


@dataclass(frozen=True)
class Arithmetic:
    """What decides how much arithmetic a training step needs; counts of numbers, not of bytes.

    `weights`: all matrices of the blocks (N). `passed`: of these, the ones in blocks through which a gradient passes.
    `learning`: the ones that learn themselves. `low_rank`: numbers of all low-rank updates (R); what adapters of
    another kind need is not counted. `width`: heads × size of a head (q). `shapes`: the linear maps, for a ceiling to
    be measured at.
    """

    weights: int
    passed: int
    learning: int
    low_rank: int
    width: int
    blocks: int
    passed_blocks: int
    causal: bool = False
    shapes: Shapes = field(default_factory=dict[tuple[int, int], int])

    def useful_flops(self, tokens: int, squares: int) -> float:
        """FLOP of forward and backward of the base model for so many real tokens; `squares` is the sum over the texts
        of their lengths squared, in tokens². What a low-rank update itself needs is left out."""
        return 2.0 * (self.weights + self.passed + self.learning) * tokens + self.attention_flops(squares)

    def attention_flops(self, squares: int) -> float:
        """FLOP of scores and of weighted sums, backward where a gradient passes."""
        pairs = squares / 2 if self.causal else squares
        return 4.0 * self.width * (self.blocks + 2 * self.passed_blocks) * pairs

    def low_rank_flops(self, tokens: int) -> float:
        """FLOP of the low-rank updates themselves: forward, their input's gradient and their own."""
        return 6.0 * self.low_rank * tokens

    def forward_flops(self, tokens: int, squares: int) -> float:
        """FLOP of the forward pass alone, low-rank updates included: what evaluation needs."""
        pairs = squares / 2 if self.causal else squares
        return 2.0 * (self.weights + self.low_rank) * tokens + 4.0 * self.width * self.blocks * pairs


def output_flops(positions: int, hidden: int, outputs: int, *, passed: bool, learns: bool) -> float:
    """FLOP of an output layer at so many positions: a head over classes, or the vocabulary of next-token loss."""
    return 2.0 * (1 + passed + learns) * positions * hidden * outputs


def arithmetic(encoder: nn.Module) -> Arithmetic:
    """Count a model as it is now: with `peft`'s wrapper or without, on any device ("meta" too).

    The gradient passes through the lowest block that learns, or through all where something below the blocks learns.

    Raises:
        UnknownNameError: a type of model whose blocks are not known.
    """
    plain = plain_encoder(encoder)
    blocks = list(layers(plain))
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    below = any(one.requires_grad and id(one) not in inside for one in plain.parameters())
    moving = [place for place, block in enumerate(blocks) if any(one.requires_grad for one in block.parameters())]
    lowest = 0 if below else min(moving, default=len(blocks))
    weights = passed = learning = low_rank = 0
    shapes: dict[tuple[int, int], int] = {}
    for place, block in enumerate(blocks):
        low_rank += low_rank_numbers(block)
        for base in (one for _, one in base_modules(block) if is_linear(one)):
            outputs, inputs = weight_oi(base).shape
            size = inputs * outputs
            weights += size
            passed += size if place >= lowest else 0
            learning += size if base.get_parameter("weight").requires_grad else 0
            shape = (inputs, outputs)
            shapes[shape] = shapes.get(shape, 0) + 1
    return Arithmetic(
        weights,
        passed,
        learning,
        low_rank,
        _width(plain),
        len(blocks),
        len(blocks) - lowest,
        sees_only_before(plain.config.to_dict()),
        shapes,
    )


def _width(plain: PreTrainedModel) -> int:
    heads = size_of(plain, "num_attention_heads") or 1
    head = size_of(plain, "head_dim") or (size_of(plain, "hidden_size") or 0) // heads
    return heads * head
