"""BitFit: only the biases and the head learn (Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199).

Not here: norm weights, which the paper leaves frozen too. The default learning rate is the highest of the paper's.

    BitFit(NoSettings()).attach(model, generator)
"""

from __future__ import annotations

from typing import ClassVar

import torch

from paretune.core.errors import ConfigError, said
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.surgery import biases, freeze


class BitFit(Adaptation):
    """All bias vectors of the encoder and the head learn."""

    paper: ClassVar[str] = "https://arxiv.org/abs/2106.10199"
    summary_en: ClassVar[str] = "only biases and the head are trained"
    summary_ru: ClassVar[str] = "обучаются только смещения и голова"
    default_learning_rate: ClassVar[float] = 1e-3

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        """Freeze all but the biases.

        Raises:
            ConfigError: the model has none, as most decoders.
        """
        found = biases(model.encoder)
        if not found:
            given = f"bitfit on a model of type {model.encoder.config.model_type!r}, which has no biases"
            raise ConfigError(said(given, "a model with biases, such as a BERT", do="use another method"))
        freeze(model.encoder)
        for bias in found.values():
            bias.requires_grad_(True)
        model.new_head(generator)
