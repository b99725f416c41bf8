"""Which methods a model has no place for, known before anything runs: each is attached to the model's outline.

What would end every run of a method (no biases for BitFit, fewer blocks than asked for, targets that match no layer)
ends the study at once, and is left out of a new one. Not here: what a method needs (`methods/`), and what of the model
does not fit the settings (`models/check.py`). No weights are read.

    check_methods_fit(study); misfit(method, load_outline("asset:smollm2-135m"))
"""

from __future__ import annotations

import copy

from transformers import PreTrainedModel

from paretune.core.errors import ConfigError, said
from paretune.methods.method import Adaptation
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_outline
from paretune.models.sources import first_line
from paretune.models.surgery import trainable
from paretune.repro.seeding import torch_generator
from paretune.study.design import Study


def check_methods_fit(study: Study) -> None:
    """Raises: ConfigError: a method of the study that cannot train its model; the line names the method's table."""
    trained = {label: one.method for label, one in study.methods.items() if isinstance(one.method, Adaptation)}
    outline = load_outline(study.file.model.source) if trained else None
    for label, method in trained.items():
        assert outline is not None
        if why := misfit(method, outline):
            raise ConfigError(f"methods.{label}: {why}, or leave methods.{label} out")


def misfit(method: Adaptation, outline: PreTrainedModel) -> str:
    """Why a method cannot train a model, in a line; empty where it can, or where only its weights would tell."""
    if method.only_new_head:
        return ""  # needs no part of the model by name
    model, kind = EncoderClassifier(copy.deepcopy(outline), classes=2), outline.config.model_type
    try:
        method.attach(model, torch_generator(0, "init"))
    except ConfigError as error:
        return str(error)
    except NotImplementedError:
        return ""  # begins with numbers made of weights, which an outline has not: its first run will say
    except ValueError as error:  # peft's refusals
        return said(first_line(error).rstrip("."), f"a method for a model of type {kind!r}", do="use another method")
    if not trainable(model.encoder):
        given = f"it trains nothing of a model of type {kind!r}"
        return said(given, "a method that trains a part of it", do='use "head" to train the head alone')
    return ""
