"""Takes out of a run's trained model what a bundle holds, and what that model says of validation and test data.

Not here: any judgement of it (`certify.py`). Axes: n rows, c classes.

    words = extract(Path("runs/demo/runs/…"), Path("bundles/.part"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretune.data.encoding import Encoded
from paretune.export.trained import Trained, kept_logits, rebuild, setting_of
from paretune.models.precision import Precision
from paretune.records.store import RunFolder
from paretune.serve.bundle import ADAPTER_FILE, HEAD_FILE, write_delta, write_head
from paretune.study.desk import REFERENCE_ROWS
from paretune.train.evaluate import predict_logits


@dataclass(frozen=True)
class Words:
    """Logits of the run's own model: on validation data by precision, on test data in the run's precision.

    `reference_gap` is how far its logits lie from those that were kept when training ended.
    """

    precision: Precision
    validation_nc: dict[Precision, np.ndarray]
    test_nc: np.ndarray
    reference_gap: float


def extract(run: Path, folder: Path) -> Words:
    """Write adapter and head into `folder`; returns what the run's model says.

    Raises:
        ConfigError: not an exportable run.
        BundleError, ReloadError, DataError, AssetError: weights, data or base model are not those of the run.
    """
    trained = rebuild(setting_of(RunFolder(run)))
    write_delta(folder / ADAPTER_FILE, trained.method.delta(trained.model))
    write_head(folder / HEAD_FILE, trained.model.head.weight, trained.model.head.bias)
    setting = trained.setting
    validation = setting.encoded(setting.data.splits["validation"].texts)
    test = setting.encoded(setting.data.splits["test"].texts)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    return Words(
        precision=setting.precision,
        validation_nc={one: predict_logits(trained.model, validation, one).numpy() for one in precisions},
        test_nc=predict_logits(trained.model, test, setting.precision).numpy(),
        reference_gap=_reference_gap(trained, validation),
    )


def _reference_gap(trained: Trained, validation: Encoded) -> float:
    kept_nc = kept_logits(trained.setting.run)
    rows = Encoded(validation.ids[:REFERENCE_ROWS], validation.pad_id)
    now_nc = predict_logits(trained.model, rows, trained.setting.precision)
    return float((now_nc - kept_nc).abs().max()) if now_nc.shape == kept_nc.shape else float("inf")
