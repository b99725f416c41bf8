"""LoRA: low-rank updates beside frozen weights, through `peft` (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

rsLoRA's scale is that of Kalajdzievski 2023 (https://arxiv.org/abs/2312.03732).

Not here: faster kernels for it. All linear layers are adapted by default, after Schulman et al. 2025
(https://thinkingmachines.ai/blog/lora). The default learning rate is that of Hu et al. for encoders; at Schulman et
al.'s ten times that of full fine-tuning a small encoder fell to the majority class (LOG.md).

    Lora(LoraSettings(rank=8)).attach(model, generator)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ClassVar, Literal, cast

import torch
from peft import LoraConfig, get_peft_model
from pydantic import Field
from transformers import PreTrainedModel

from paretune.core.config import Settings
from paretune.core.errors import ConfigError, said
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.surgery import freeze, is_attention, is_conv1d, is_query_or_value, linear_names

Part = Literal["all_linear", "query_value", "attention", "mlp"]
_PARTS: dict[Part, Callable[[str], bool]] = {
    "all_linear": lambda name: True,
    "query_value": is_query_or_value,
    "attention": is_attention,
    "mlp": lambda name: not is_attention(name),
}


class LoraSettings(Settings):
    """Which linear maps are adapted, and how strongly.

    `alpha` is 2·rank where it is not given. `rank_stabilised` divides it by √rank rather than by rank (rsLoRA).
    `targets`: a part of the blocks or a tuple of suffixes of names. `layers`: the last so many blocks; all by default.
    """

    rank: int = Field(default=8, ge=1)
    alpha: int | None = Field(default=None, ge=1)
    rank_stabilised: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Part | tuple[str, ...] = "all_linear"
    layers: int | None = Field(default=None, ge=1)


class Lora(Adaptation):
    """W stays frozen; ΔW = (alpha / rank)·B·A learns, with B zero at the start."""

    settings_model: ClassVar[type[Settings]] = LoraSettings
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.09685"
    summary_en: ClassVar[str] = "low-rank updates of the linear layers and the head are trained"
    summary_ru: ClassVar[str] = "обучаются низкоранговые добавки к линейным слоям и голова"
    default_learning_rate: ClassVar[float] = 5e-4
    settings: LoraSettings

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        """Wrap the encoder.

        Raises:
            ConfigError: no linear map of the model has a name that ends with a target, or there are fewer blocks.
        """
        names = self._names(model)
        freeze(model.encoder)
        config = LoraConfig(
            r=self.settings.rank,
            lora_alpha=self.settings.alpha if self.settings.alpha is not None else 2 * self.settings.rank,
            use_rslora=self.settings.rank_stabilised,
            lora_dropout=self.settings.dropout,
            target_modules=names,
            fan_in_fan_out=all(is_conv1d(model.encoder.get_submodule(name)) for name in names),
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # peft draws from the global generator
            # peft 0.21 asks transformers 5.24 by the old name of a property
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            # peft's wrapper answers as the model that it wraps
            model.encoder = cast(PreTrainedModel, get_peft_model(model.encoder, config))
        model.new_head(generator)

    def _names(self, model: EncoderClassifier) -> list[str]:
        names = linear_names(model.encoder, self.settings.layers)
        targets = self.settings.targets
        chosen = [
            name for name in names if (_PARTS[targets](name) if isinstance(targets, str) else name.endswith(targets))
        ]
        if not chosen:
            endings = sorted({name.rsplit(".", 1)[-1] for name in names})
            given = f"targets = {targets if isinstance(targets, str) else list(targets)} match no layer"
            raise ConfigError(said(given, "names ending in " + ", ".join(endings)))
        return chosen
