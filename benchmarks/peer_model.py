"""The model that a plain script builds from `transformers` and `peft`, for comparisons with paretune's.

Not here: training it (`peer_trainer.py` for quality, `peer_speed.py` for cost). An encoder gets the mean of its tokens
and a linear head; a decoder is `transformers`' own classifier on the last token.

    model = build("asset:minilm-l6", Lora(rank=8, alpha=16), classes=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from paretune.models.sources import model_folder

NO_POOLER = ("bert", "roberta", "xlm-roberta")


@dataclass(frozen=True)
class Lora:
    """Low-rank updates of all linear layers of the blocks."""

    rank: int
    alpha: int


class MeanPooled(nn.Module):
    """An encoder, the mean of its tokens, a linear head, and the loss that the Trainer asks for."""

    def __init__(self, encoder: nn.Module, hidden: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(hidden, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        weight = attention_mask.unsqueeze(-1).float()
        logits = self.head((hidden * weight).sum(1) / weight.sum(1))
        out = {"logits": logits}
        if labels is not None:
            out["loss"] = nn.functional.cross_entropy(logits, labels)
        return out


def build(
    source: str, lora: Lora | None, classes: int, *, dropout: bool = False, pooling: str = "mean", pad_id: int = 0
) -> nn.Module:
    """A fresh model in fp32, its random parts from the global generator; without `dropout` all of it is 0.

    `pad_id` is for a decoder alone, which finds its last token by it.
    """
    folder = model_folder(source)
    config = AutoConfig.from_pretrained(folder)
    if not dropout:
        for name, value in config.to_dict().items():
            if ("dropout" in name or "pdrop" in name) and isinstance(value, float):
                setattr(config, name, 0.0)
    if pooling == "last":
        config.num_labels, config.pad_token_id = classes, pad_id
        whole = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
        return whole if lora is None else get_peft_model(whole, lora_config(lora, "SEQ_CLS"))
    more = {"add_pooling_layer": False} if config.model_type in NO_POOLER else {}
    encoder = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, **more)
    if lora is not None:
        encoder = get_peft_model(encoder, lora_config(lora, None))
    return MeanPooled(encoder, config.hidden_size, classes)


def lora_config(lora: Lora, task: str | None) -> LoraConfig:
    return LoraConfig(task_type=task, r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules="all-linear")
