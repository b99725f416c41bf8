"""The lines of code that load what was exported, for its README; to be run inside its folder.

Not here: running them. A bundle is served or loaded with paretune; the other forms need plain `transformers`, `peft`,
`safetensors` and `torch` alone.

    print(how_to_load(Loading("merged", "minilm", False, "mean", "", 128)))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

To = Literal["bundle", "peft", "merged"]


@dataclass(frozen=True)
class Loading:
    """What the code depends on; `base` is the base model's name for readers, `prefix` stands before each text."""

    to: To
    base: str
    base_on_hub: bool
    pooling: str
    prefix: str
    max_tokens: int
    int8: bool = False


def how_to_load(loading: Loading) -> str:
    """Fenced blocks of code."""
    if loading.to == "bundle":
        return f"```sh\nparetune serve .\n```\n\n```python\n{_BUNDLE}\n```"
    adapted = loading.to == "peft"
    base = loading.base if adapted else "."
    lines = [
        "import json, torch",
        "from safetensors.torch import load_file",
        *(["from peft import PeftModel"] if adapted else []),
        "from transformers import AutoModel, AutoTokenizer",
        f"base = {base!r}" + _where(loading),
        "tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base, dtype=torch.float32)",
        *(['model = PeftModel.from_pretrained(model, ".")'] if adapted else []),
        'head, labels = load_file("head.safetensors"), json.load(open("labels.json", encoding="utf-8"))',
        f'texts = [{loading.prefix!r} + text for text in ["a text"]]',
        f"settings = dict(truncation=True, max_length={loading.max_tokens}, padding=True)",
        'batch = tokenizer(texts, return_tensors="pt", **settings)',
        "with torch.inference_mode():",
        "    hidden = model.eval()(**batch).last_hidden_state",
        *_POOLING[loading.pooling],
        'probabilities = torch.softmax(features @ head["weight"].T + head["bias"], dim=-1)',
        "print([(labels[int(row.argmax())], float(row.max())) for row in probabilities])",
    ]
    text = "```python\n" + "\n".join(lines) + "\n```"
    return text + (f"\n\n```python\n{_INT8}\n```" if loading.int8 else "")


def _where(loading: Loading) -> str:
    if loading.to != "peft" or loading.base_on_hub:
        return ""
    return f"  # the folder of this model; paretune: models.loading.model_folder({loading.base!r})"


_POOLING = {
    "mean": [
        'mask = batch["attention_mask"].unsqueeze(-1)',
        "features = (hidden * mask).sum(1) / mask.sum(1)",
    ],
    "cls": ["features = hidden[:, 0]"],
    "last": ['features = hidden[range(len(hidden)), batch["attention_mask"].sum(1) - 1]'],
}
_BUNDLE = """\
from pathlib import Path
from paretune.models.sources import ModelSpec
from paretune.serve.bundle import read_bundle
from paretune.serve.engine import Engine, Row
bundle = read_bundle(Path.cwd())
engine = Engine(ModelSpec(**bundle.manifest.model), fetch=lambda digest: bundle)
engine.check(bundle)
ids = engine.tokens(bundle.digest, ["a text"])[0]
print(bundle.manifest.labels, engine.run([Row(bundle.digest, ids)])[0])"""
_INT8 = """\
from pathlib import Path
from paretune.export.int8 import load_int8
model = load_int8(Path.cwd())  # the same model, its linear maps in int8: model(input_ids, attention_mask) → logits"""
