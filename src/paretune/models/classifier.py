"""An encoder, a pooling and one linear head: text → one score per class.

Not here: what is trained of it (`methods/`), nor the loss (`tasks/`). Mean pooling as in Reimers & Gurevych 2019
(https://aclanthology.org/D19-1410); a decoder's last token is the only one that has seen the whole text, and stands for
it as in Radford et al. 2018. A pooling with "_unit" behind its name divides the features by their length (so that the
head compares directions, as a search by cosine does). Axes: b examples, t positions, h hidden, c classes.

    logits_bc = EncoderClassifier(encoder, classes=8, pooling="mean")(input_ids_bt, mask_bt)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from paretune.core.errors import ConfigError, said

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNIT = "_unit"
POOLINGS = ("mean", "cls", "last", "mean_unit", "cls_unit", "last_unit")
SHORTEST = 1e-12  # a length that is divided by


def zero_head(hidden: int, classes: int) -> nn.Linear:
    """Zeros until `new_head` or a saved state: building a model draws nothing from the global generator."""
    head = cast(nn.Linear, nn.utils.skip_init(nn.Linear, hidden, classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def unit_length(features_bh: Tensor) -> Tensor:
    """Each row divided by its Euclidean length."""
    return features_bh / features_bh.norm(dim=-1, keepdim=True).clamp(min=SHORTEST)


class EncoderClassifier(nn.Module):
    """The encoder runs under the caller's autocast; pooling and head always compute in fp32.

    `pools_states`: features are made of last hidden states and mask alone, by `pool`.
    """

    pools_states: ClassVar[bool] = True

    def __init__(self, encoder: PreTrainedModel, classes: int, pooling: str = "mean") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ConfigError(said(f"pooling {pooling!r}", "one of " + ", ".join(POOLINGS)))
        self.pooling = pooling
        self.encoder = encoder
        self.head = zero_head(cast(int, encoder.config.get_text_config().hidden_size), classes)
        # Another way from input ids and mask to last hidden states, of the same values (`fast_encoder.py`).
        self.path: Callable[[Tensor, Tensor], Tensor] | None = None

    def all_learn(self) -> None:
        """Let every parameter of the base model learn."""
        self.encoder.requires_grad_(True)

    def checkpoint_plain_blocks(self) -> None:
        """Let the plain encoder keep of each block only its input for the way back, if it can."""
        if self.encoder.supports_gradient_checkpointing:
            self.encoder.activation_checkpointing_enable()

    def other_head(self, classes: int) -> None:
        """A head of zeros for another task's classes in place of this one; the encoder stays."""
        self.head = zero_head(self.head.in_features, classes)

    def new_head(self, generator: torch.Generator) -> None:
        """Start the head anew: weights normal with deviation 0.02, bias 0."""
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.head.bias)

    def hidden(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """Last hidden states [b, t, h]; those of padding mean nothing."""
        if self.path is not None:
            return self.path(input_ids_bt, mask_bt)
        states_bth = self.encoder(input_ids=input_ids_bt, attention_mask=mask_bt).last_hidden_state
        return states_bth[:, -mask_bt.shape[1] :]  # without virtual tokens that a method puts before a text

    def pooled(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """Features [b, h] in fp32, padding (which stands on the right) left out."""
        return self.pool(self.hidden(input_ids_bt, mask_bt), mask_bt)

    def pool(self, hidden_bth: Tensor, mask_bt: Tensor) -> Tensor:
        """Features [b, h] in fp32 out of last hidden states."""
        return self.scaled(self.unscaled(hidden_bth, mask_bt))

    def scaled(self, features_bh: Tensor) -> Tensor:
        """Features [b, h] of length 1 where the pooling says so, else as they are."""
        return features_bh if self.pooling == self.plain_pooling else unit_length(features_bh)

    @property
    def plain_pooling(self) -> str:
        """The pooling before its features are scaled."""
        return self.pooling.removesuffix(UNIT)

    def unscaled(self, hidden_bth: Tensor, mask_bt: Tensor) -> Tensor:
        """Features [b, h] in fp32 of the plain pooling."""
        with torch.autocast(hidden_bth.device.type, enabled=False):
            if self.plain_pooling == "cls":
                return hidden_bth[:, 0].float()
            if self.plain_pooling == "last":
                rows_b = torch.arange(len(mask_bt), device=mask_bt.device)
                return hidden_bth[rows_b, (mask_bt.sum(1) - 1).clamp(min=0)].float()
            weight_bt1 = mask_bt.to(torch.float32).unsqueeze(-1)
            return (hidden_bth.float() * weight_bt1).sum(1) / weight_bt1.sum(1).clamp(min=1.0)

    def forward(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """Logits [b, c] in fp32."""
        features_bh = self.pooled(input_ids_bt, mask_bt)
        with torch.autocast(features_bh.device.type, enabled=False):
            return self.head(features_bh)
