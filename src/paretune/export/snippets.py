"""The lines of code that load what was exported, for its README; to be run inside its folder.

The text is what is checked: `answers_of` runs it as it stands. A bundle is served or loaded with paretune; the other
forms need plain `transformers`, `peft`, `tokenizers`, `safetensors` and `torch` alone. tokenizer.json makes the tokens,
padding stands on the right, whatever `AutoTokenizer` would do. Not here: comparing what it answers (`plain.py`,
`certify.py`).

    print(how_to_load(Loading("merged", "minilm", "", "AutoModel", "mean", "", 128, 0, "right")))
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from paretune.core.errors import BundleError, said

if TYPE_CHECKING:
    from paretune.models.loading import Build  # a module that takes seconds to import

UNIT = "_unit"  # as `models/classifier.py` has it, which takes seconds to import

To = Literal["bundle", "peft", "merged"]
AT_ONCE = 32


@dataclass(frozen=True)
class Loading:
    """What the code depends on. `base` is the base model's name for readers, `revision` its commit on the hub, `build`
    how transformers builds it; `prefix` stands before each text, `cut` is the end of a long text that is cut off."""

    to: To
    base: str
    revision: str
    build: Build
    pooling: str
    prefix: str
    max_tokens: int
    pad_id: int
    cut: str
    on_hub: bool = False
    int8: bool = False


def how_to_load(loading: Loading) -> str:
    """Fenced blocks of code."""
    if loading.to == "bundle":
        return f"```sh\nparetune serve .\n```\n\n```python\n{code(loading)}\n```"
    text = f"```python\n{code(loading)}\n```"
    return text + (f"\n\n```python\n{_INT8}\n```" if loading.int8 else "")


def code(loading: Loading) -> str:
    """The lines that define `labels` and `predict`, and call it once."""
    if loading.to == "bundle":
        return BUNDLE
    adapted = loading.to == "peft"
    whole, _, part = loading.build.partition(".")
    revision = f", revision={loading.revision!r}" if adapted and loading.revision else ""
    model = f"{whole}.from_pretrained(base, dtype=torch.float32{revision})" + (f".{part}()" if part else "")
    lines = [
        "import json, torch",
        "from safetensors.torch import load_file",
        "from tokenizers import Tokenizer",
        *(["from peft import PeftModel"] if adapted else []),
        f"from transformers import {whole}",
        f"base = {loading.base if adapted else '.'!r}" + _where(loading),
        f"model = {model}",
        *(['model = PeftModel.from_pretrained(model, ".")'] if adapted else []),
        'tokenizer = Tokenizer.from_file("tokenizer.json")',
        f"tokenizer.enable_truncation({loading.max_tokens}, direction={loading.cut!r})",
        f'tokenizer.enable_padding(direction="right", pad_id={loading.pad_id})',
        'head, labels = load_file("head.safetensors"), json.load(open("labels.json", encoding="utf-8"))',
        "",
        "def predict(texts):",
        f"    rows = tokenizer.encode_batch([{loading.prefix!r} + text for text in texts])",
        "    mask = torch.tensor([row.attention_mask for row in rows])",
        "    ids = torch.tensor([row.ids for row in rows])",
        "    with torch.inference_mode():",
        "        hidden = model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state",
        *_pooling(loading.pooling),
        '    return torch.softmax(features @ head["weight"].T + head["bias"], dim=-1)',
        "",
        'probabilities = predict(["a text"])',
        "print([(labels[int(row.argmax())], float(row.max())) for row in probabilities])",
    ]
    return "\n".join(lines)


def _where(loading: Loading) -> str:
    return "" if loading.to != "peft" or loading.on_hub else "  # the folder of this model"


def _pooling(pooling: str) -> list[str]:
    plain = pooling.removesuffix(UNIT)
    scaled = [] if plain == pooling else ["    features = features / features.norm(dim=-1, keepdim=True)"]
    return [*POOLING[plain], *scaled]


POOLING = {
    "mean": [
        "    weights = mask.unsqueeze(-1)",
        "    features = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)",
    ],
    "cls": ["    features = hidden[:, 0]"],
    "last": ["    features = hidden[range(len(hidden)), (mask.sum(1) - 1).clamp(min=0)]"],
}
BUNDLE = """\
from pathlib import Path
from paretune.models.sources import ModelSpec
from paretune.serve.bundle import read_bundle
from paretune.serve.engine import Engine, Row
bundle = read_bundle(Path.cwd())
labels = bundle.manifest.labels
engine = Engine(ModelSpec(**bundle.manifest.model), fetch=lambda digest: bundle)
engine.check(bundle)

def predict(texts):
    answers = engine.run([Row(bundle.digest, ids) for ids in engine.tokens(bundle.digest, texts)])
    return [answer.probabilities for answer in answers]

probabilities = predict(["a text"])
print([(labels[row.index(max(row))], max(row)) for row in probabilities])"""
_INT8 = """\
from pathlib import Path
from paretune.export.int8 import load_int8
model = load_int8(Path.cwd())  # the same model, its linear layers in int8: model(input_ids, attention_mask) → logits"""


def answers_of(text: str, folder: Path, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Run the code of a README as it stands, in its folder, and ask its `predict`; to be called in a fresh process.

    Returns probabilities (n, c) in float32.

    Raises:
        BundleError: it does not run, or has other labels.
    """
    found: dict[str, Any] = {}
    try:
        with chdir(folder), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(text, "README.md", "exec"), found)
            rows: list[list[float]] = []
            for start in range(0, len(texts), AT_ONCE):
                answered = found["predict"](list(texts[start : start + AT_ONCE]))
                rows += [[float(value) for value in row] for row in answered]
    except Exception as error:  # of whatever library; all of it is a README that does not work
        reason = (str(error).splitlines() or [""])[0]
        raise BundleError(
            said(f"the README's code fails ({type(error).__name__}: {reason})", "code that runs")
        ) from error
    if list(cast("list[str]", found["labels"])) != list(labels):
        raise BundleError(said("the README's code has other labels", "those of the run"))
    return np.array(rows, dtype=np.float32).reshape(len(texts), len(labels))
