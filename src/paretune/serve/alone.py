"""One bundle's model alone, in two independent ways: its update beside the base's weights, or folded into them.

Not here: several adapters in one pass (`engine.py`). Certification and measurements use this file, so that the engine
is not its own witness.

    with beside(encoder, delta): logits_bc = model(input_ids_bt, mask_bt)
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretune.core.errors import BundleError, said
from paretune.kernels.low_rank import LowRank, merged
from paretune.methods.method import Delta
from paretune.models.surgery import is_linear, weight_oi


def check_fits(encoder: nn.Module, delta: Delta) -> None:
    """Every update names a linear map or a parameter of the encoder, and has its shape.

    Raises:
        BundleError: one that does not.
    """
    modules, parameters = dict(encoder.named_modules()), dict(encoder.named_parameters())
    for name, update in delta.items():
        if isinstance(update, LowRank):
            module = modules.get(name)
            wanted = (update.b_or.shape[0], update.a_ri.shape[1])
            if module is None or not is_linear(module) or tuple(weight_oi(module).shape) != wanted:
                given = f"an update of the linear map {name!r} of shape {wanted}"
                raise BundleError(said(given, "linear maps of the base model, of their shapes"))
        elif name not in parameters or parameters[name].shape != update.shape:
            given = f"a parameter {name!r} of shape {tuple(update.shape)}"
            raise BundleError(said(given, "parameters of the base model, of their shapes"))


@contextmanager
def beside(encoder: nn.Module, delta: Delta) -> Generator[None]:
    """Within the block low-rank updates are computed beside their maps and other parameters stand in the base's place.

    Raises:
        BundleError: as `check_fits`.
    """
    check_fits(encoder, delta)
    parameters = dict(encoder.named_parameters())
    kept: dict[str, Tensor] = {}
    handles = [
        encoder.get_submodule(name).register_forward_hook(_Adding(update))
        for name, update in delta.items()
        if isinstance(update, LowRank)
    ]
    try:
        for name, update in delta.items():
            if not isinstance(update, LowRank):
                kept[name] = parameters[name].data
                parameters[name].data = update
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, before in kept.items():
            parameters[name].data = before


class _Adding:
    """Adds one update to the output of its linear map."""

    def __init__(self, update: LowRank) -> None:
        self._update = update

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + functional.linear(functional.linear(inputs[0], self._update.a_ri), self._update.b_or)


def fold_in(encoder: nn.Module, delta: Delta) -> None:
    """Change the encoder's own weights by the update, for good.

    Raises:
        BundleError: as `check_fits`.
    """
    check_fits(encoder, delta)
    parameters = dict(encoder.named_parameters())
    with torch.no_grad():
        for name, update in delta.items():
            if isinstance(update, LowRank):
                weight = weight_oi(encoder.get_submodule(name))
                weight.copy_(merged(weight, update))
            else:
                parameters[name].copy_(update)
