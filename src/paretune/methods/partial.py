"""Methods that train a part of the model as it is: the head alone, the last k layers, or everything.

Not here: methods that insert parameters. Sources: feature extraction and top-layer tuning as in Houlsby et al. 2019
(https://arxiv.org/abs/1902.00751); learning rates of full fine-tuning: Mosbach et al. 2021
(https://arxiv.org/abs/2006.04884), moved up for small encoders and few steps.

    LastLayers(LastLayersSettings(layers=2)).attach(model, generator)
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from paretune.core.config import Settings
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.surgery import freeze, last_layers


class HeadOnly(Adaptation):
    """The encoder stays as it is; only the linear head learns."""

    paper: ClassVar[str] = "https://arxiv.org/abs/1902.00751"
    summary_en: ClassVar[str] = "only the classification head is trained"
    summary_ru: ClassVar[str] = "обучается только классификационная голова"
    default_learning_rate: ClassVar[float] = 3e-2
    only_new_head: ClassVar[bool] = True

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        freeze(model.encoder)
        model.new_head(generator)

    def parameter_groups(
        self, model: EncoderClassifier, learning_rate: float, head_learning_rate: float, weight_decay: float
    ) -> list[dict[str, object]]:
        """The rate that is searched is the head's: there is nothing else that learns."""
        return super().parameter_groups(model, learning_rate, learning_rate, weight_decay)


class LastLayersSettings(Settings):
    """`layers` is the number of top transformer layers that are trained."""

    layers: int = Field(default=2, ge=1)


class LastLayers(Adaptation):
    """The last k transformer layers and the head learn."""

    settings_model: ClassVar[type[Settings]] = LastLayersSettings
    paper: ClassVar[str] = "https://arxiv.org/abs/1902.00751"
    summary_en: ClassVar[str] = "the last transformer layers and the head are trained"
    summary_ru: ClassVar[str] = "обучаются последние слои трансформера и голова"
    default_learning_rate: ClassVar[float] = 2e-4
    settings: LastLayersSettings

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        """Freeze all but the last k layers.

        Raises:
            ConfigError: the model has fewer layers.
        """
        blocks = last_layers(model.encoder, self.settings.layers)
        freeze(model.encoder)
        for block in blocks:
            block.requires_grad_(True)
        model.new_head(generator)


class Full(Adaptation):
    """Every parameter learns: the control that others are compared with."""

    paper: ClassVar[str] = "https://arxiv.org/abs/1810.04805"
    summary_en: ClassVar[str] = "all parameters are trained"
    summary_ru: ClassVar[str] = "обучаются все параметры"
    default_learning_rate: ClassVar[float] = 1e-4

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        model.all_learn()
        model.new_head(generator)
