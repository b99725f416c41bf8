"""A decoder with its own map back to the vocabulary: text → how unlikely it finds the text.

It stands where a classifier stands, so that every method, the loop and evaluation take it as it is: its features of a
text are two numbers, and its head passes them on. Not here: what is made of the two (`tasks/next_token.py`), nor
generation. Axes: b texts, t positions, n predicted positions of all texts, h hidden, v pieces.

    nll_and_tokens_b2 = LanguageModel(*load_language_model("asset:smollm2-135m"))(input_ids_bt, mask_bt)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from paretune.kernels.token_loss import token_losses
from paretune.models.classifier import EncoderClassifier, zero_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OUTPUTS = 2  # of a text: the summed negative log-likelihood in nats, and of how many tokens


class LanguageModel(EncoderClassifier):
    """`output` is the map to the vocabulary, or None where the table of embeddings is that map (tied embeddings)."""

    pools_states: ClassVar[bool] = False  # the texts' own tokens are what is predicted

    def __init__(self, encoder: PreTrainedModel, output: nn.Linear | None) -> None:
        super().__init__(encoder, OUTPUTS, "last")
        self.output = output
        if output is not None:
            output.requires_grad_(False)
        self.head = zero_head(OUTPUTS, OUTPUTS)
        nn.init.eye_(self.head.weight)
        self.head.requires_grad_(False)

    def new_head(self, generator: torch.Generator) -> None:
        """Nothing is new: the map to the vocabulary is the model's own."""
        return None

    def all_learn(self) -> None:
        super().all_learn()
        if self.output is not None:
            self.output.requires_grad_(True)

    def _output_weight(self) -> Tensor:
        if self.output is not None:
            return self.output.weight
        return cast(nn.Embedding, self.encoder.get_input_embeddings()).weight

    def pooled(self, input_ids_bt: Tensor, mask_bt: Tensor) -> Tensor:
        """Of each text the summed negative log-likelihood of its tokens after the first, and their number; [b, 2]."""
        hidden_bth = self.hidden(input_ids_bt, mask_bt)
        device = hidden_bth.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        with torch.autocast(device, enabled=False):
            predicted_bt = mask_bt[:, 1:].bool()
            hidden_nh = hidden_bth[:, :-1][predicted_bt].to(dtype)
            losses_n = token_losses(hidden_nh, self._output_weight(), input_ids_bt[:, 1:][predicted_bt])
            row_n = predicted_bt.nonzero()[:, 0]
            nll_b = torch.zeros(len(mask_bt), device=losses_n.device).index_add(0, row_n, losses_n)
            return torch.stack([nll_b, predicted_bt.sum(1).float()], 1)
