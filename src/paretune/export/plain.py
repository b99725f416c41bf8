"""A run's model for plain `peft` or plain `transformers`, and the proof in a clean process that it loads there.

Not here: bundles (`export.py`), the README (`card.py`). The adapter's file format is peft's own
(https://huggingface.co/docs/peft/developer_guides/checkpoint), the merged model's that of `transformers`.

    write_merged(run_path, folder); gap = check_merged(run_path, folder)
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModel, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from paretune.core.errors import BundleError, ConfigError, said
from paretune.data.encoding import Encoded
from paretune.export.trained import Setting, Trained, rebuild, setting_of
from paretune.kernels.low_rank import LowRank
from paretune.models.sources import model_folder, parse_source
from paretune.records.store import RunFolder
from paretune.serve.bundle import HEAD_FILE, read_head, write_head
from paretune.serve.tensors import write_safetensors
from paretune.study.desk import REFERENCE_ROWS
from paretune.train.evaluate import predict_logits

LABELS_FILE = "labels.json"
PARITY_TOLERANCE = 1e-4
_OF_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model", "added_tokens.json")


def write_peft(run: Path, folder: Path) -> None:
    """adapter_config.json, adapter_model.safetensors, head.safetensors, labels.json.

    Raises:
        ConfigError: not an exportable run, or a method whose change is not of low rank throughout.
        as `setting_of` and `rebuild`.
    """
    trained = rebuild(setting_of(RunFolder(run)))
    delta = trained.method.delta(trained.model)
    updates = {name: one for name, one in delta.items() if isinstance(one, LowRank)}
    if not delta or len(updates) < len(delta):
        given = f"method {trained.setting.spec.method!r} ({trained.setting.spec.kind}) has no low-rank adapter"
        raise ConfigError(said(given, "a low-rank method for --to peft", do="--to bundle and --to merged take any"))
    _config(updates, trained.setting).save_pretrained(str(folder))
    tensors: dict[str, torch.Tensor] = {}
    for name, one in updates.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = one.a_ri
        tensors[f"base_model.model.{name}.lora_B.weight"] = one.b_or
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    _write_head(trained, folder)


def _config(updates: dict[str, LowRank], setting: Setting) -> LoraConfig:
    """alpha = rank for every map: the scale is already in the matrices."""
    ranks = {name: int(one.a_ri.shape[0]) for name, one in updates.items()}
    rank = max(ranks.values())
    odd = {name: value for name, value in ranks.items() if value != rank}
    kind, name, _ = parse_source(setting.model_spec.source)
    return LoraConfig(
        base_model_name_or_path=name if kind != "path" else Path(name).name,
        r=rank,
        lora_alpha=rank,
        rank_pattern=odd,
        alpha_pattern=dict(odd),
        target_modules=sorted(updates),
        inference_mode=True,
    )


def _write_head(trained: Trained, folder: Path) -> None:
    write_head(folder / HEAD_FILE, trained.model.head.weight, trained.model.head.bias)
    labels = list(trained.setting.data.labels)
    (folder / LABELS_FILE).write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")


def write_merged(run: Path, folder: Path) -> None:
    """config.json, model.safetensors, the tokenizer's files, head.safetensors, labels.json.

    Raises:
        as `setting_of` and `rebuild`.
    """
    trained = rebuild(setting_of(RunFolder(run)))
    trained.method.merge(trained.model)
    disable_progress_bar()  # of a one-second write
    trained.model.encoder.save_pretrained(folder)
    source = model_folder(trained.setting.model_spec.source)
    for file in {file for pattern in _OF_TOKENIZER for file in source.glob(pattern)}:
        shutil.copyfile(file, folder / file.name)
    _write_head(trained, folder)


def check_peft(run: Path, folder: Path) -> float:
    """How far logits by plain `peft` lie from those of the run's own model, in fp32.

    Raises:
        BundleError: too far.
    """
    setting = setting_of(RunFolder(run))
    base = _plain(model_folder(setting.model_spec.source))
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.24 by the old name of a property
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = PeftModel.from_pretrained(base, str(folder))
    return _checked(setting, folder, adapted.eval(), "peft")


def check_merged(run: Path, folder: Path) -> float:
    """How far logits by plain `transformers` lie from those of the run's own model, in fp32.

    Raises:
        BundleError: too far.
    """
    return _checked(setting_of(RunFolder(run)), folder, _plain(folder), "transformers")


def _plain(folder: Path) -> PreTrainedModel:
    return AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def _checked(setting: Setting, folder: Path, model: torch.nn.Module, library: str) -> float:
    encoded = setting.encoded(setting.data.splits["validation"].texts[:REFERENCE_ROWS])
    rows = Encoded(encoded.ids, encoded.pad_id)
    own_nc = predict_logits(rebuild(setting).model, rows, "fp32")
    weight_ch, bias_c = read_head(folder / HEAD_FILE, len(setting.data.labels))
    input_ids_bt, mask_bt = rows.padded(range(len(rows)))
    with torch.inference_mode():
        hidden_bth = model(input_ids=input_ids_bt, attention_mask=mask_bt).last_hidden_state
        features_bh = _features(hidden_bth, mask_bt, setting.model_spec.pooling)
        gap = float((features_bh @ weight_ch.T + bias_c - own_nc).abs().max())
    if not gap <= PARITY_TOLERANCE:
        given = f"logits by plain {library} differ by {gap:.3g} from those of run {setting.run.id}"
        raise BundleError(said(given, f"at most {PARITY_TOLERANCE:g}"))
    return gap


def _features(hidden_bth: torch.Tensor, mask_bt: torch.Tensor, pooling: str) -> torch.Tensor:
    """As the code of the README pools."""
    if pooling == "cls":
        return hidden_bth[:, 0]
    if pooling == "last":
        return hidden_bth[torch.arange(len(mask_bt)), mask_bt.sum(1) - 1]
    weight_bt1 = mask_bt.unsqueeze(-1)
    return (hidden_bth * weight_bt1).sum(1) / weight_bt1.sum(1)
