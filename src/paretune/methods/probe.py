"""A linear probe: logistic regression on the features of the frozen base model, fitted until it converges.

The cheapest method that uses the model, tuned as hard as its cost allows (Alain & Bengio 2016,
https://arxiv.org/abs/1610.01644): all strengths of the penalty, features as they are and of length 1, and class weights
where the metric counts classes alike. What comes out is a head, so that it is exported and served as any other; where
features of length 1 were chosen, the pooling that serves scales them too. It draws nothing at random: all seeds of a
study fit the same head, as they do for TF-IDF. Not here: the regression and its search (`regression.py`).

    choice = Probe(ProbeSettings()).fit(model, train, validation, ("earn", "acq"), "accuracy")
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from paretune.core.config import Settings
from paretune.core.errors import ReloadError, said
from paretune.methods.method import Choice, FeatureRows, Fitted
from paretune.methods.regression import Features, Strengths, searched
from paretune.models.classifier import UNIT, EncoderClassifier, unit_length
from paretune.models.surgery import freeze

PLAIN, OF_LENGTH_ONE = "as they are", "of length 1"
POOLING_MARK = "head.unit_length"  # beside the head's tensors: 1 where it was fitted to features of length 1


class ProbeSettings(Settings):
    """`strengths` are the values of C (inverse regularisation) that are tried on validation data, for features whose
    mean squared length is 1; past an edge the search goes on, twice at most."""

    strengths: Strengths = (1.0, 10.0, 100.0, 1000.0)


class Probe(Fitted):
    """The encoder stays as it is; the head is the best logistic regression on its features."""

    settings_model: ClassVar[type[Settings]] = ProbeSettings
    paper: ClassVar[str] = "https://arxiv.org/abs/1610.01644"
    summary_en: ClassVar[str] = "logistic regression on the frozen features, fitted until it converges"
    summary_ru: ClassVar[str] = "логистическая регрессия по признакам замороженной модели, обученная до сходимости"
    settings: ProbeSettings

    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        freeze(model.encoder)
        model.new_head(generator)

    @property
    def fits(self) -> int:
        return 2 * len(self.settings.strengths) + 1

    def fit(
        self,
        model: EncoderClassifier,
        train: FeatureRows,
        validation: FeatureRows,
        labels: tuple[str, ...],
        metric: str,
    ) -> Choice:
        """Fit the model's head, and change its pooling where features of length 1 were chosen.

        The plain features are divided by one number, the root of their mean squared length, so that a strength means
        the same for every model; the head's weights are divided by it in turn.
        """
        scale = 1.0 / max(float(train.features_nh.square().sum(1).mean().sqrt()), 1e-12)
        kinds = {PLAIN: scale} if model.pooling != model.plain_pooling else {PLAIN: scale, OF_LENGTH_ONE: 1.0}
        found = searched(
            {kind: _as(kind, train.features_nh, scale) for kind in kinds},
            train.labels,
            {kind: _as(kind, validation.features_nh, scale) for kind in kinds},
            validation.labels,
            labels,
            metric,
            self.settings.strengths,
        )
        kind = found.fit.setting.features
        with torch.no_grad():
            model.head.weight.copy_(torch.from_numpy(found.fit.weight_ch * kinds[kind]))
            model.head.bias.copy_(torch.from_numpy(found.fit.bias_c))
        if kind == OF_LENGTH_ONE:
            model.pooling += UNIT
        return replace(found.choice, setting={**found.choice.setting, "pooling": model.pooling})

    def state(self, model: EncoderClassifier) -> dict[str, torch.Tensor]:
        unit = model.pooling != model.plain_pooling
        return {**super().state(model), POOLING_MARK: torch.tensor([float(unit)])}

    def load_state(self, model: EncoderClassifier, state: dict[str, torch.Tensor]) -> None:
        if POOLING_MARK not in state:
            raise ReloadError(said(f"a saved probe without {POOLING_MARK!r}", "the head's tensors and that one"))
        super().load_state(model, {name: tensor for name, tensor in state.items() if name != POOLING_MARK})
        model.pooling = model.plain_pooling + (UNIT if bool(state[POOLING_MARK].any()) else "")


def _as(kind: str, features_nh: torch.Tensor, scale: float) -> Features:
    """Features as one kind of them, fp64."""
    wanted_nh = unit_length(features_nh) if kind == OF_LENGTH_ONE else features_nh.double() * scale
    return np.asarray(wanted_nh.double().numpy())
