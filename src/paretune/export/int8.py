"""Linear maps in int8 for the CPU: weights rounded once (a scale for each output), inputs rounded at each call.

Only the linear maps inside the transformer blocks; embeddings, norms and head stay in fp32. Dynamic quantisation as in
https://arxiv.org/abs/2208.07339 without its outlier part; torch's own `quantize_dynamic` is deprecated and saves
pickles, so the product is taken from `torch._int_mm` and the file is safetensors. Not here: 4 bits, training, GPUs.
Axes: n rows, i input features, o output features.

    write_int8(merged_folder); model = load_int8(merged_folder)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from paretune.core.errors import RunError, said
from paretune.export.certify import here
from paretune.export.plain import LABELS_FILE
from paretune.export.trained import setting_of
from paretune.measure.latency import probe
from paretune.models.classifier import EncoderClassifier
from paretune.models.loading import load_encoder
from paretune.models.precision import Precision
from paretune.models.surgery import linear_names, weight_oi
from paretune.records.schema import Latency
from paretune.records.store import RunFolder
from paretune.serve.bundle import HEAD_FILE, read_head
from paretune.stats.metrics import score
from paretune.train.evaluate import predict_logits

INT8_FILE = "int8.safetensors"
ABOUT_FILE = "int8.json"
STEPS = 127


@dataclass(frozen=True)
class Variant:
    """One number format of one model on the study's test split; `flipped` counts labels other than in fp32."""

    name: str
    latency: list[Latency]
    flipped: int
    rows: int
    score: float
    linear_bytes: int


class Int8Linear(nn.Module):
    """y = (x₈ @ W₈)·scales + bias: both factors rounded to −127 … 127 by their largest absolute value."""

    weight_io: Tensor
    scale_o: Tensor
    bias_o: Tensor | None

    def __init__(self, weight_oi: Tensor, scale_o: Tensor, bias_o: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight_io", weight_oi.t().contiguous())
        self.register_buffer("scale_o", scale_o)
        self.register_buffer("bias_o", bias_o)

    def forward(self, x: Tensor) -> Tensor:
        x_ni = x.reshape(-1, x.shape[-1]).float()
        step_n1 = x_ni.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / STEPS
        rounded_ni = (x_ni / step_n1).round().to(torch.int8)
        # the only int8 product of torch 2.13 that is not deprecated
        product_no = torch._int_mm(rounded_ni, self.weight_io)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        y_no = product_no.float() * (step_n1 * self.scale_o)
        if self.bias_o is not None:
            y_no = y_no + self.bias_o
        return y_no.reshape(*x.shape[:-1], y_no.shape[-1])


def rounded(weight_oi: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as int8 (o, i) and the scale (o) by which they come back."""
    scale_o = weight_oi.detach().float().abs().amax(dim=1).clamp(min=1e-12) / STEPS
    return (weight_oi.detach().float() / scale_o[:, None]).round().to(torch.int8), scale_o


def _replace(encoder: nn.Module, made: dict[str, tuple[Tensor, Tensor]]) -> None:
    for name, (rounded_oi, scale_o) in made.items():
        parent, _, child = name.rpartition(".")
        linear = cast(nn.Linear, encoder.get_submodule(name))
        bias_o = cast("Tensor | None", linear.bias)
        module = Int8Linear(rounded_oi, scale_o, None if bias_o is None else bias_o.detach())
        encoder.get_submodule(parent).register_module(child, module)


def write_int8(folder: Path, pooling: str) -> None:
    """Write int8.safetensors beside the files of a merged model."""
    encoder = load_encoder(f"path:{folder.resolve()}")
    tensors: dict[str, Tensor] = {}
    for name in linear_names(encoder):
        rounded_oi, scale_o = rounded(weight_oi(encoder.get_submodule(name)))
        tensors |= {f"{name}.weight": rounded_oi.contiguous(), f"{name}.scale": scale_o}
    save_file(tensors, folder / INT8_FILE)
    (folder / ABOUT_FILE).write_text(json.dumps({"pooling": pooling}), encoding="utf-8")


def load_int8(folder: Path) -> EncoderClassifier:
    """The model of a folder that `paretune export --to merged --int8` wrote: (input_ids, attention_mask) → logits."""
    encoder = load_encoder(f"path:{folder.resolve()}")
    tensors = load_file(folder / INT8_FILE)
    names = [name.removesuffix(".scale") for name in tensors if name.endswith(".scale")]
    _replace(encoder, {name: (tensors[f"{name}.weight"], tensors[f"{name}.scale"]) for name in names})
    labels = json.loads((folder / LABELS_FILE).read_text(encoding="utf-8"))
    pooling = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))["pooling"]
    return _with_head(encoder, folder, len(labels), pooling)


def _with_head(encoder: PreTrainedModel, folder: Path, classes: int, pooling: str) -> EncoderClassifier:
    model = EncoderClassifier(encoder, classes, pooling)
    weight_ch, bias_c = read_head(folder / HEAD_FILE, classes)
    model.head.load_state_dict({"weight": weight_ch, "bias": bias_c})
    return model.eval()


def measure_int8(run: Path, folder: Path, metric: str) -> list[Variant]:
    """The merged model in fp32, bf16 (where the processor has it) and int8, side by side on the test split.

    Raises:
        RunError: the int8 model does not run on this machine, or gives NaN.
    """
    setting = setting_of(RunFolder(run))
    rows, labels = setting.data.splits["test"], setting.data.labels
    encoded = setting.encoded(rows.texts)
    plain = _with_head(load_encoder(f"path:{folder.resolve()}"), folder, len(labels), setting.model_spec.pooling)
    names = linear_names(plain.encoder)
    cells = sum(weight_oi(plain.encoder.get_submodule(name)).numel() for name in names)
    found: list[Variant] = []
    fp32_n: np.ndarray | None = None
    variants = [(one, plain, one, 4 * cells) for one in here()] + [("int8", load_int8(folder), "fp32", cells)]
    for name, model, precision, size in variants:
        answer = _answering(setting.encoded, model, cast(Precision, precision))
        try:
            logits_nc = predict_logits(model, encoded, cast(Precision, precision)).numpy()
            latency = probe(answer, rows.texts)
        except RuntimeError as error:
            given = f"{name} does not run on this machine ({str(error).splitlines()[0]})"
            raise RunError(said(given, "torch's int8 product", do="export without --int8")) from None
        if not np.isfinite(logits_nc).all():
            raise RunError(said(f"{name} gives NaN or infinity", "finite logits", do="export without --int8"))
        said_n = logits_nc.argmax(axis=1)
        fp32_n = said_n if fp32_n is None else fp32_n
        quality = score(metric, rows.labels, [labels[place] for place in said_n])
        found.append(Variant(name, latency, int((said_n != fp32_n).sum()), len(said_n), quality, size))
    return found


def _answering(encoded: Callable[..., object], model: EncoderClassifier, precision: Precision) -> Callable[..., object]:
    def answer(texts: Sequence[str]) -> object:
        return predict_logits(model, encoded(list(texts)), precision)  # type: ignore[arg-type]

    return answer
