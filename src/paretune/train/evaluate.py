"""Model × texts → results, in batches of like length; and the proof that an adapter moved and matters.

Not here: scores (`tasks/`), and when the test set may be read (`study/runner.py`).

    probabilities_nc = predict(model, task, encoded, precision="bf16")
"""

from __future__ import annotations

import numpy as np
import torch

from paretune.core.errors import InertAdapterError, said
from paretune.data.encoding import Encoded
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision
from paretune.models.surgery import trainable
from paretune.tasks.task import Task
from paretune.train.batches import length_batches
from paretune.train.fast_encoder import fast_path
from paretune.train.frozen_prefix import Shelf, inputs_of

EVALUATION_BATCH = 32
PROBE_ROWS = 16
WITNESSED_NUMBERS = 2**20  # of a tensor


def _outputs(
    model: EncoderClassifier, encoded: Encoded, precision: Precision, shelf: Shelf | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, h) and logits (n, c) in the order of the texts; the batches depend on the lengths alone."""
    model.eval()
    features: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    order: list[int] = []
    with (
        torch.inference_mode(),
        fast_path(model, precision, fixed=True) as way,
        inputs_of(model, encoded, precision, way.fast, shelf) as inputs,
    ):
        for index_b in length_batches(encoded.lengths_n, EVALUATION_BATCH):
            features_bh = inputs.features(index_b.tolist())
            features.append(features_bh)
            logits.append(model.head(features_bh))
            order.extend(index_b.tolist())
    back_n = torch.argsort(torch.tensor(order))
    return torch.cat(features)[back_n], torch.cat(logits)[back_n]


def predict(
    model: EncoderClassifier, task: Task, encoded: Encoded, precision: Precision, shelf: Shelf | None = None
) -> np.ndarray:
    """The task's results of each text: for a classifier probabilities, shape (n, c), float32.

    `shelf` is where what frozen blocks give is kept.
    """
    return task.results(_outputs(model, encoded, precision, shelf)[1], encoded)


def predict_logits(model: EncoderClassifier, encoded: Encoded, precision: Precision) -> torch.Tensor:
    """Logits, shape (n, c), float32."""
    return _outputs(model, encoded, precision)[1]


class Witness:
    """Remembers a model before training, to prove afterwards that training moved it and that the output depends on it.

    Two sums a tensor are kept instead of a copy, and of a large one its first numbers are read, so that the proof costs
    no memory next to full fine-tuning: a table of words that is read whole comes out of its file and stays.
    """

    def __init__(self, model: EncoderClassifier, encoded: Encoded, precision: Precision) -> None:
        rows = min(PROBE_ROWS, len(encoded))
        self._probe = Encoded(encoded.ids[:rows], encoded.pad_id)
        self._precision: Precision = precision
        self._sums = self._fingerprints(model)
        self._features_nh, self._logits_nc = _outputs(model, self._probe, precision)
        self._inner = any(name.startswith("encoder.") for name in self._sums)

    @staticmethod
    def _fingerprints(model: EncoderClassifier) -> dict[str, tuple[float, float]]:
        def sums(tensor: torch.Tensor) -> tuple[float, float]:
            numbers = tensor.detach().reshape(-1)[:WITNESSED_NUMBERS]
            return float(numbers.sum(dtype=torch.float64)), float(numbers.norm(dtype=torch.float64))

        return {name: sums(parameter) for name, parameter in trainable(model).items()}

    def check(self, model: EncoderClassifier) -> None:
        """Compare with the trained model.

        Raises:
            InertAdapterError: no tensor of the encoder, or none of the head, moved; or the output does not depend on
                what moved (as where all of an adapter's `lora_B` stay zero).
        """
        now = self._fingerprints(model)
        still = [name for name in now if now[name] == self._sums[name]]
        kinds = {name.split(".", 1)[0] for name in now}
        for kind in sorted(kinds):
            members = [name for name in now if name.startswith(kind)]
            if all(name in still for name in members):
                given = f"none of the {len(members)} trained tensors of the {kind} moved"
                raise InertAdapterError(said(given, "a change by training", do="check the learning rate"))
        features_nh, logits_nc = _outputs(model, self._probe, self._precision)
        if self._inner and torch.equal(features_nh, self._features_nh):
            given = "the encoder's tensors moved, but its output did not"
            raise InertAdapterError(said(given, "an adapter that the output depends on", do="check its targets"))
        if torch.equal(logits_nc, self._logits_nc):
            raise InertAdapterError(said("training did not change the output", "other logits than before training"))
