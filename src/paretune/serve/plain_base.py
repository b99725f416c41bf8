"""A base model of any family in the server: the forward pass of `transformers`, one adapter at a time.

Texts of one adapter and one length go through together, so there is no padding, and an answer does not depend on the
texts beside it; adapters do not share a pass. Slower than the packed pass of `encoder.py`, which knows a few families.
Not here: choosing between the two (`base_model.py`). Axes: n tokens of all texts, h hidden, i input and o output
features, r rank, b texts, t positions.

    hidden_nh = PlainBase("asset:smollm2-135m", "bf16").hidden([(1, 5, 7)], [], {})
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from paretune.core.config import nearest
from paretune.core.errors import BundleError, said
from paretune.kernels.low_rank import LowRank, merged
from paretune.methods.method import Delta
from paretune.models.loading import load_encoder
from paretune.models.precision import Precision, autocast
from paretune.models.surgery import is_linear, usable_positions, weight_oi
from paretune.serve.encoder import Replaced, Segment, Updates, blocks

NO_LIMIT = 2**20  # tokens of a text, where the model itself sets none


class PlainBase:
    """As `BaseModel`; weights stay in fp32, products run under autocast as they did in the run."""

    path = "plain"

    def __init__(self, source: str, digest: str, precision: Precision) -> None:
        self.precision: Precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.digest = digest
        self._model = load_encoder(source)
        self._model.requires_grad_(False)
        self._linears = {name: one for name, one in self._model.named_modules() if is_linear(one)}
        self._parameters = dict(self._model.named_parameters())
        words = cast(nn.Embedding, self._model.get_input_embeddings())
        self.vocabulary = words.num_embeddings
        self.hidden_size = int(self._model.config.get_text_config().hidden_size)
        self.max_tokens = usable_positions(self._model) or NO_LIMIT

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear layer, by name."""
        shapes = {name: weight_oi(one).shape for name, one in self._linears.items()}
        return {name: (shape[0], shape[1]) for name, shape in shapes.items()}

    def hidden(self, texts: Sequence[Sequence[int]], segments: Sequence[Segment], replaced: Replaced) -> Tensor:
        """As `Encoder.hidden`."""
        found: list[Tensor] = []
        with torch.inference_mode(), self._standing(replaced):
            start = 0
            for end, updates in _ends(texts, segments):
                with self._beside(updates):
                    found += [self._pass(texts[start:end])]
                start = end
        return torch.cat(found)

    def _pass(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states (n, h) in fp32 of neighbours; those of one length at once."""
        found: list[Tensor] = []
        place = 0
        for block in blocks([len(text) for text in texts]):
            ids_bt = torch.tensor([list(text) for text in texts[place : place + block.texts]])
            place += block.texts
            with autocast(self.precision):
                hidden_bth = self._model(input_ids=ids_bt, attention_mask=torch.ones_like(ids_bt)).last_hidden_state
            found.append(cast(Tensor, hidden_bth).float().flatten(0, 1))
        return torch.cat(found)

    @contextmanager
    def _beside(self, updates: Updates) -> Generator[None]:
        """Inside the block low-rank updates are added to the outputs of their layers."""
        with ExitStack() as stack:
            for name, update in updates.items():
                stack.callback(self._linears[name].register_forward_hook(_Adding(update)).remove)
            yield

    @contextmanager
    def _standing(self, replaced: Replaced) -> Generator[None]:
        """Inside the block other parameters stand in the places of the base's."""
        before = {name: self._parameters[name].data for name in replaced}
        try:
            for name, value in replaced.items():
                self._parameters[name].data = value
            yield
        finally:
            for name, value in before.items():
                self._parameters[name].data = value

    def fitted(self, delta: Delta, name: str) -> tuple[dict[str, LowRank], dict[str, Tensor]]:
        """A bundle's updates and replaced parameters in this engine's number formats.

        Raises:
            BundleError: a name that the base does not have, or a shape that does not fit.
        """
        updates: dict[str, LowRank] = {}
        replaced: dict[str, Tensor] = {}
        shapes = self.linear_shapes
        for key, value in delta.items():
            known = shapes if isinstance(value, LowRank) else self._parameters
            if key not in known:
                what = f"update of {key!r}" if isinstance(value, LowRank) else f"parameter {key!r}"
                given = f"{name}: {what} fits nothing in the base"
                raise BundleError(said(given, "its own names", nearest=nearest(key, known)))
            if isinstance(value, LowRank):
                (outputs, inputs), a, b = shapes[key], tuple(value.a_ri.shape), tuple(value.b_or.shape)
                if len(a) != 2 or len(b) != 2 or a[1] != inputs or b[0] != outputs or a[0] != b[1]:
                    given = f"{name}: the update of {key!r} has shapes {a} and {b}"
                    raise BundleError(said(given, f"(rank, {inputs}) and ({outputs}, rank)"))
                updates[key] = value.to(self.dtype)
            elif self._parameters[key].shape != value.shape:
                wanted = tuple(self._parameters[key].shape)
                raise BundleError(said(f"{name}: {key!r} has shape {tuple(value.shape)}", f"{wanted}"))
            else:
                replaced[key] = value.detach().float().clone()
        return updates, replaced

    def merged(self, updates: Updates) -> dict[str, Tensor]:
        """The weights that stand in place of the base's when one adapter has all the traffic."""
        found: dict[str, Tensor] = {}
        for name, update in updates.items():
            module = self._linears[name]
            whole_oi = merged(weight_oi(module), update)
            found[f"{name}.weight"] = whole_oi if isinstance(module, nn.Linear) else whole_oi.T.contiguous()
        return found


class _Adding:
    """Adds one update to the output of its linear layer."""

    def __init__(self, update: LowRank) -> None:
        self._update = update

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + functional.linear(functional.linear(inputs[0], self._update.a_ri), self._update.b_or)


def _ends(texts: Sequence[Sequence[int]], segments: Sequence[Segment]) -> list[tuple[int, Updates]]:
    """Where the texts of each segment end, and its updates; without segments all texts have none."""
    if not segments:
        return [(len(texts), {})]
    found: list[tuple[int, Updates]] = []
    place = 0
    for tokens, updates in segments:
        while tokens > 0:
            tokens -= len(texts[place])
            place += 1
        found.append((place, updates))
    return found
