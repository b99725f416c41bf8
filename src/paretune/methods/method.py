"""The contract of a method, and the table of methods.

Two families: an `Adaptation` trains (parts of) a neural model, or fits a head to what it gives (`Fitted`); a `Baseline`
costs nothing next to it and stands in every table. Not here: any task, and the training loop, which never asks for a
method's name.

    method = METHODS.load("lora")(METHODS.load("lora").settings_model(rank=8))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from paretune.core.config import JsonObject, Settings
from paretune.core.errors import ReloadError, said
from paretune.core.registry import Registry
from paretune.methods.delta import Delta, encoder_delta, merged_encoder
from paretune.models.classifier import EncoderClassifier
from paretune.models.surgery import trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METHODS = Registry(
    "method",
    {
        "majority": "paretune.methods.baselines:Majority",
        "tfidf": "paretune.methods.baselines:Tfidf",
        "probe": "paretune.methods.probe:Probe",
        "head": "paretune.methods.partial:HeadOnly",
        "last_layers": "paretune.methods.partial:LastLayers",
        "bitfit": "paretune.methods.bitfit:BitFit",
        "lora": "paretune.methods.lora:Lora",
        "full": "paretune.methods.partial:Full",
    },
)
TRAINED_FILE = "trained.safetensors"
Family = Literal["baseline", "adaptation"]


@dataclass(frozen=True)
class Choice:
    """What a method chose for itself on validation data: the setting, each tried one's score, those that are tied with
    it within noise, how often the search went past an edge, and whether the choice is at one still."""

    setting: JsonObject
    trials: dict[str, float]
    tied: tuple[str, ...]
    extended: int
    edge: bool


@dataclass(frozen=True)
class FeatureRows:
    """Features (n, h) of texts as a frozen encoder gives them, with their labels."""

    features_nh: torch.Tensor
    labels: Sequence[str]


class NoSettings(Settings):
    """A method that has nothing to set."""


class Method(ABC):
    """What every method says of itself. `paper` is where it comes from; `summary_en` and `summary_ru` are one line."""

    family: ClassVar[Family]
    settings_model: ClassVar[type[Settings]] = NoSettings
    paper: ClassVar[str]
    summary_en: ClassVar[str]
    summary_ru: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


class Adaptation(Method):
    """A method that trains parameters of a base model, and the new head where the task gives it one.

    `only_new_head`: it has nothing to train where the task needs no new head.
    """

    family: ClassVar[Family] = "adaptation"
    default_learning_rate: ClassVar[float]
    only_new_head: ClassVar[bool] = False

    @abstractmethod
    def attach(self, model: EncoderClassifier, generator: torch.Generator) -> None:
        """Freeze, insert and unfreeze in place; what is drawn at random comes from the generator."""

    def parameter_groups(
        self, model: EncoderClassifier, learning_rate: float, head_learning_rate: float, weight_decay: float
    ) -> list[dict[str, object]]:
        """Groups for the optimizer: matrices decay, vectors (biases, norms) do not; the new head has its own rate."""
        head = {id(one) for one in model.head.parameters()}
        groups: list[dict[str, object]] = []
        for of_head, rate in ((False, learning_rate), (True, head_learning_rate)):
            parameters = [one for one in trainable(model).values() if (id(one) in head) is of_head]
            matrices = [one for one in parameters if one.ndim > 1]
            vectors = [one for one in parameters if one.ndim <= 1]
            groups.append({"params": matrices, "lr": rate, "weight_decay": weight_decay})
            groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def state(self, model: EncoderClassifier) -> dict[str, torch.Tensor]:
        """All that training may have changed, head included, by name."""
        return {name: parameter.detach() for name, parameter in trainable(model).items()}

    def load_state(self, model: EncoderClassifier, state: dict[str, torch.Tensor]) -> None:
        """Put a state into a model to which this method was attached.

        Raises:
            ReloadError: names or shapes are not those of the model.
        """
        own = trainable(model)
        if own.keys() != state.keys():
            odd = sorted(own.keys() ^ state.keys())[0]
            raise ReloadError(said(f"saved tensors differ from the model's at {odd!r}", "the same names"))
        for name, parameter in own.items():
            if parameter.shape != state[name].shape:
                given = f"saved {name!r} has shape {tuple(state[name].shape)}"
                raise ReloadError(said(given, f"{tuple(parameter.shape)}"))
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])

    def delta(self, model: EncoderClassifier) -> Delta:
        """How the adapted encoder differs from the base model, by the base model's own names; the head is not in it.

        Raises:
            ConfigError: what was inserted is no change of the base model's tensors.
        """
        return encoder_delta(model.encoder)

    def save(self, model: EncoderClassifier, folder: Path) -> int:
        """Write the state as safetensors; returns its bytes on disk."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / TRAINED_FILE
        save_file({name: tensor.contiguous() for name, tensor in self.state(model).items()}, path)
        return path.stat().st_size

    def load(self, model: EncoderClassifier, folder: Path) -> None:
        """Read what `save` wrote."""
        self.load_state(model, load_file(folder / TRAINED_FILE))

    def merge(self, model: EncoderClassifier) -> None:
        """Fold what was inserted into the base weights, in place; nothing to do for a method that inserts nothing.

        Raises:
            ConfigError: it cannot be folded in.
        """
        model.encoder = cast("PreTrainedModel", merged_encoder(model.encoder))

    def after_step(self, model: EncoderClassifier, step: int) -> None:
        """Called after each optimizer step (AdaLoRA-like methods move their budget here)."""
        return None

    @property
    def resumes(self) -> bool:
        """Whether `state` holds all that an interrupted training goes on from. A method with an `after_step` of its own
        moves something else, which only a `state` of its own could hold; without one its training begins anew."""
        moves = type(self).after_step is not Adaptation.after_step
        return not moves or type(self).state is not Adaptation.state


class Fitted(Adaptation):
    """An adaptation that goes through no steps: it fits the head at once to the features of the frozen encoder."""

    default_learning_rate: ClassVar[float] = 3e-2  # of no use to it; a loop that trains its head anyway takes it
    only_new_head: ClassVar[bool] = True

    def parameter_groups(
        self, model: EncoderClassifier, learning_rate: float, head_learning_rate: float, weight_decay: float
    ) -> list[dict[str, object]]:
        """There is nothing but the head."""
        return super().parameter_groups(model, learning_rate, learning_rate, weight_decay)

    @property
    @abstractmethod
    def fits(self) -> int:
        """About how many fits a search of its settings takes, for a prediction of its time."""

    @abstractmethod
    def fit(
        self,
        model: EncoderClassifier,
        train: FeatureRows,
        validation: FeatureRows,
        labels: tuple[str, ...],
        metric: str,
    ) -> Choice:
        """Fit the model's head; settings are chosen by the metric on validation data. `labels` is the head's order."""


class Baseline(Method):
    """A method without a neural model; what it chooses, it chooses on validation data by the study's metric."""

    family: ClassVar[Family] = "baseline"

    @abstractmethod
    def fit(
        self,
        train: tuple[Sequence[str], Sequence[str]],
        validation: tuple[Sequence[str], Sequence[str]],
        labels: tuple[str, ...],
        seed: int,
        metric: str,
    ) -> Choice | None:
        """Fit on (texts, labels); `labels` fixes the order of the probabilities. What was chosen, if anything was."""

    @abstractmethod
    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (n, c) in the order of `labels`."""

    @abstractmethod
    def parameters(self) -> int:
        """How many numbers were fitted."""
