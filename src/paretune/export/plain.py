"""A run's model for plain `peft` or plain `transformers`, and the proof in a clean process that it loads there.

Not here: bundles (`export.py`), the README (`card.py`). The adapter's file format is peft's own
(https://huggingface.co/docs/peft/developer_guides/checkpoint), the merged model's that of `transformers`.

    write_merged(run_path, folder); gap = check_snippet(run_path, folder, code(loading))
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import torch
from peft import LoraConfig
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from paretune.core.errors import BundleError, ConfigError, said
from paretune.export.evidence import base_name
from paretune.export.goldens import evenly
from paretune.export.snippets import answers_of
from paretune.export.trained import Setting, Trained, rebuild, setting_of
from paretune.kernels.low_rank import LowRank
from paretune.models.loading import build_of, load_whole
from paretune.models.sources import TOKENIZER_FILE, model_folder, parse_source
from paretune.models.surgery import is_conv1d
from paretune.records.store import RunFolder
from paretune.serve.bundle import HEAD_FILE, write_head
from paretune.serve.tensors import write_safetensors
from paretune.stats.selective import probabilities
from paretune.train.evaluate import predict_logits

LABELS_FILE = "labels.json"
PROBABILITY_TOLERANCE = 1e-3  # of two forward passes in fp32
MOST_ASKED = 1000  # texts
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
    bare = trained.setting.bare().encoder
    turned = all(is_conv1d(bare.get_submodule(name)) for name in updates)
    _config(updates, trained.setting, turned).save_pretrained(str(folder))
    tensors: dict[str, torch.Tensor] = {}
    for name, one in updates.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = one.a_ri
        tensors[f"base_model.model.{name}.lora_B.weight"] = one.b_or
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    _write_tokenizer(trained, folder)
    _write_head(trained, folder)


def _config(updates: dict[str, LowRank], setting: Setting, turned: bool) -> LoraConfig:
    """alpha = rank for every layer: the scale is already in the matrices; `turned`: weights are (inputs, outputs)."""
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
        fan_in_fan_out=turned,
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
    setting = trained.setting
    trained.method.merge(trained.model)
    disable_progress_bar()  # of a one-second write
    whole: PreTrainedModel = trained.model.encoder
    if build_of(whole.config) == "AutoModel.get_encoder":
        whole = load_whole(setting.model_spec.source)
        cast(torch.nn.Module, whole.get_encoder()).load_state_dict(trained.model.encoder.state_dict())
    whole.save_pretrained(folder)
    source = model_folder(setting.model_spec.source)
    for file in {file for pattern in _OF_TOKENIZER for file in source.glob(pattern)}:
        shutil.copyfile(file, folder / file.name)
    _write_tokenizer(trained, folder)
    _write_head(trained, folder)


def _write_tokenizer(trained: Trained, folder: Path) -> None:
    """The tokenizer that trained; where its configuration lies beside it, AutoTokenizer is told to take the file."""
    trained.setting.tokenizer.save(folder / TOKENIZER_FILE)
    about = folder / "tokenizer_config.json"
    if about.is_file():
        tree = {**json.loads(about.read_bytes()), "tokenizer_class": "PreTrainedTokenizerFast"}
        about.write_text(json.dumps(tree, ensure_ascii=False, indent=2), encoding="utf-8")


def check_snippet(run: Path, folder: Path, text: str) -> float:
    """Run the README's code in the folder, over validation texts; how far its probabilities lie from the run's.

    Raises:
        BundleError: it does not run, or a text is answered otherwise.
    """
    setting = setting_of(RunFolder(run))
    places = asked_places(len(setting.data.splits["validation"].texts))
    texts = [setting.data.splits["validation"].texts[place] for place in places]
    own_nc = probabilities(predict_logits(rebuild(setting).model, setting.encoded(texts), "fp32").numpy())
    with tempfile.TemporaryDirectory() as place:
        there = Path(place)
        for file in folder.iterdir():
            (there / file.name).symlink_to(file)
        named = there / base_name(setting.spec)  # what is no model of the hub is looked for beside the files
        if not named.exists() and "/" not in base_name(setting.spec):
            named.symlink_to(model_folder(setting.model_spec.source), target_is_directory=True)
        found_nc = answers_of(text, there, texts, setting.data.labels)
    return snippet_gap(found_nc, own_nc, PROBABILITY_TOLERANCE)


def asked_places(rows: int) -> list[int]:
    """Places of the validation texts that a README's code is asked, evenly spread."""
    return evenly(rows, MOST_ASKED).tolist()


def snippet_gap(found_nc: np.ndarray, told_nc: np.ndarray, limit: float) -> float:
    """The largest difference of a probability.

    Raises:
        BundleError: over the limit, or another label where the two largest lie further apart than that.
    """
    gap = float(np.abs(found_nc - told_nc).max())
    if not gap <= limit:
        rows = int((found_nc.argmax(1) != told_nc.argmax(1)).sum())
        given = (
            f"the README's code answers with probabilities up to {gap:.3g} off, {rows} of {len(told_nc)} labels differ"
        )
        raise BundleError(said(given, f"the run's own, within {limit:g}"))
    return gap
