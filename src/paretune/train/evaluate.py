"""Model × texts → results, in batches of like length; and the proof that an adapter moved and matters.

Not here: scores (`tasks/`), and when the test set may be read (`study/runner.py`).

    probabilities_nc = predict(model, task, encoded, precision="bf16")
"""

from __future__ import annotations

from itertools import chain
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from paretune.core.errors import InertAdapterError, RunError, said
from paretune.core.events import Listener, PhaseEnded, PhaseStarted
from paretune.data.encoding import Encoded
from paretune.models.adapters import inserted_parameters
from paretune.models.classifier import EncoderClassifier
from paretune.models.precision import Precision
from paretune.models.surgery import plain_encoder, trainable
from paretune.tasks.task import Task
from paretune.train.batches import length_batches
from paretune.train.fast_encoder import EngineChoice, fast_path
from paretune.train.frozen_prefix import Shelf, inputs_of, untold

EVALUATION_BATCH = 32
PROBE_ROWS = 16
WITNESSED_NUMBERS = 2**20  # of a tensor
GRADIENT_ROWS = 4
COMPARED_TENSORS = 8
PADDED = 5  # positions beside a text
PADDING_TOLERANCE = 1e-3  # of the largest feature
ROUNDING = 1e-6  # of the largest gradient


def _outputs(
    model: EncoderClassifier, encoded: Encoded, precision: Precision, shelf: Shelf | None = None
) -> tuple[Tensor, Tensor]:
    """Features (n, h) and logits (n, c) in the order of the texts; the batches depend on the lengths alone."""
    with torch.inference_mode():
        return _passed(model, encoded, precision, shelf)


def outputs_while_training(
    model: EncoderClassifier, encoded: Encoded, precision: Precision, shelf: Shelf | None
) -> torch.Tensor:
    """Logits (n, c) in the order of the texts of a model whose training goes on; it is left in eval mode.

    No tensor of inference mode is made: what the pass keeps for its next steps must take gradients.
    """
    with torch.no_grad():
        return _passed(model, encoded, precision, shelf)[1]


def _passed(
    model: EncoderClassifier, encoded: Encoded, precision: Precision, shelf: Shelf | None
) -> tuple[torch.Tensor, torch.Tensor]:
    model.eval()
    features: list[Tensor] = []
    logits: list[Tensor] = []
    order: list[int] = []
    with (
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


def predict_logits(model: EncoderClassifier, encoded: Encoded, precision: Precision) -> Tensor:
    """Logits, shape (n, c), float32."""
    return _outputs(model, encoded, precision)[1]


def frozen_features(
    model: EncoderClassifier, encoded: Encoded, precision: Precision, shelf: Shelf | None, emit: Listener | None = None
) -> tuple[torch.Tensor, EngineChoice]:
    """Features (n, h) of a model whose encoder is frozen, and the engine that made them. To `emit` they are training:
    the phase "prefix" where they are made to be kept, and "step" where they are read or made for this once."""
    model.eval()
    tell = emit if emit is not None else untold
    with (
        torch.inference_mode(),
        fast_path(model, precision, fixed=True) as way,
        inputs_of(model, encoded, precision, way.fast, shelf, emit) as inputs,
    ):
        tell(PhaseStarted("step"))
        batches = [index_b.tolist() for index_b in length_batches(encoded.lengths_n, EVALUATION_BATCH)]
        features_nh = torch.cat([inputs.features(rows) for rows in batches])
        tell(PhaseEnded("step"))
    back_n = torch.argsort(torch.tensor([row for rows in batches for row in rows]))
    return features_nh[back_n].clone(), way.engine


def check_padding(model: EncoderClassifier, encoded: Encoded) -> None:
    """What stands beside a text in its batch may not change its features: one is asked alone and with padding.

    Raises:
        RunError: it does, by more than rounding.
    """
    model.eval()
    ids_1t, mask_1t = Encoded(encoded.ids[:1], encoded.pad_id).padded([0])
    with torch.inference_mode():
        alone_1h = model.pooled(ids_1t, mask_1t)
        ids_1t, mask_1t = pad(ids_1t, (0, PADDED), value=encoded.pad_id), pad(mask_1t, (0, PADDED))
        off = float((model.pooled(ids_1t, mask_1t) - alone_1h).abs().max() / alone_1h.abs().max().clamp(min=1e-12))
    if not off <= PADDING_TOLERANCE:
        kind = plain_encoder(model.encoder).config.model_type
        given = f"features of a text change by {off:.1g} of the largest with padding beside it (model of type {kind!r})"
        raise RunError(said(given, "a model that leaves masked tokens out", do="take another model"))


class Witness:
    """Remembers a model before training, to prove afterwards that training moved all of it that it should have, and
    that the output depends on it.

    Two sums a tensor are kept instead of a copy, and of a large one its first numbers are read (of a table of words the
    rows that occur in `learnt`), so that the proof costs no memory next to full fine-tuning: a table of words that is
    read whole comes out of its file and stays.
    """

    def __init__(
        self, model: EncoderClassifier, encoded: Encoded, precision: Precision, learnt: Encoded | None = None
    ) -> None:
        """`encoded`: texts whose output is looked at; `learnt`: those that are trained on, if they are others."""
        rows = min(PROBE_ROWS, len(encoded))
        self._probe = Encoded(encoded.ids[:rows], encoded.pad_id)
        self._learnt = encoded if learnt is None else learnt
        self._precision: Precision = precision
        self._sums = self._fingerprints(model)
        self._features_nh, self._logits_nc = _outputs(model, self._probe, precision)
        self._inner = any(name.startswith("encoder.") for name in self._sums)

    def _fingerprints(self, model: EncoderClassifier) -> dict[str, tuple[float, float]]:
        table = cast(nn.Embedding, plain_encoder(model.encoder).get_input_embeddings()).weight.shape
        ids = sorted({*chain.from_iterable(self._learnt.ids)})
        few = ids[:: max(1, len(ids) * table[1] // WITNESSED_NUMBERS)]

        def sums(tensor: Tensor) -> tuple[float, float]:
            tensor = tensor.detach()[few] if tensor.shape == table else tensor.detach()
            numbers = tensor.reshape(-1)[:WITNESSED_NUMBERS]
            return float(numbers.sum(dtype=torch.float64)), float(numbers.norm(dtype=torch.float64))

        return {name: sums(parameter) for name, parameter in trainable(model).items()}

    def check(self, model: EncoderClassifier, steps: int = 2) -> list[str]:
        """Compare with the model after so many optimizer steps; returns a note on tensors that no gradient reaches.

        A tensor that did not move is an error where the plain modules' output depends on it. In a single step a factor
        of a product whose other factor starts at zero cannot move: there some tensor of each part must.

        Raises:
            InertAdapterError: a trained tensor did not move; or the output does not depend on what moved (as where all
                of an adapter's `lora_B` stay zero).
        """
        now = self._fingerprints(model)
        still = [name for name in now if now[name] == self._sums[name]]
        for part, members in _parts(model, list(now)).items():
            if members and all(name in still for name in members):
                given = f"none of the {len(members)} trained tensors of {part} moved"
                raise InertAdapterError(said(given, "a change by training", do="check the learning rate"))
        idle = self._without_gradient(model, still) if still and steps > 1 else []
        stuck = [name for name in still if name not in idle]
        if stuck and steps > 1:
            given = f"{len(stuck)} of {len(now)} trained tensors have not moved, such as {stuck[0]}"
            raise InertAdapterError(said(given, "a change of each", do="check the learning rate and the engine"))
        features_nh, logits_nc = _outputs(model, self._probe, self._precision)
        if self._inner and torch.equal(features_nh, self._features_nh):
            given = "the encoder's tensors moved, but its output did not"
            raise InertAdapterError(said(given, "an adapter that the output depends on", do="check its targets"))
        if torch.equal(logits_nc, self._logits_nc):
            raise InertAdapterError(said("training did not change the output", "other logits than before training"))
        if not idle:
            return []
        more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
        return [f"not trained, because the output does not depend on it: {idle[0]}{more}"]

    def _without_gradient(self, model: EncoderClassifier, names: list[str]) -> list[str]:
        """Those of the encoder's tensors through which the plain modules' features of some texts that were trained on
        pass no gradient, or one that is rounding beside that of other tensors."""
        parameters = trainable(model)
        asked = [name for name in names if name.startswith("encoder.")]
        if not asked:
            return []
        moved = [one for name, one in parameters.items() if name.startswith("encoder.") and name not in names]
        others = sorted(moved, key=lambda one: one.numel())[:COMPARED_TENSORS]
        model.eval()
        with torch.enable_grad():
            features_bh = model.pooled(*self._learnt.padded(range(min(GRADIENT_ROWS, len(self._learnt)))))
            weight_h = torch.linspace(-1, 1, features_bh.shape[1])
            tensors = [*(parameters[name] for name in asked), *others]
            loss = (features_bh * weight_h).sum()
            found = cast(tuple[Tensor | None, ...], torch.autograd.grad(loss, tensors, allow_unused=True))
        largest = [0.0 if one is None else float(one.abs().max()) for one in found]
        least = ROUNDING * max(largest[len(asked) :], default=0.0)
        return [name for name, size in zip(asked, largest, strict=False) if size <= least]


def _parts(model: EncoderClassifier, names: list[str]) -> dict[str, list[str]]:
    """Trained tensors by what they belong to: each of these must have learnt something."""
    inserted = {f"encoder.{name}" for name in inserted_parameters(model.encoder)}
    return {
        "the head": [name for name in names if name.startswith("head.")],
        "the adapter": [name for name in names if name in inserted],
        "the encoder": [name for name in names if name.startswith("encoder.") and name not in inserted],
    }
