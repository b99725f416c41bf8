"""What must hold between a base model, its tokenizer and a study's settings, looked at before anything runs.

No weights are read: the model is built on the device "meta". Not here: whether the folder is whole (`sources.py`) and
its type known (`loading.py`), which are looked at on the way.

    notes = check_model("asset:minilm-l6", max_tokens=128)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from paretune.core.errors import ConfigError, said
from paretune.models.limits import check_ids, check_length
from paretune.models.loading import load_outline
from paretune.models.sources import TOKENIZER_FILE, first_line, model_folder
from paretune.models.surgery import position_table, usable_positions
from paretune.models.tokenizer import ODD_TEXTS, BaseTokenizer, read_tokenizer

SHORT = 7  # tokens of a text that is tried
_PADDING = "whose answer for a text depends on the padding beside it"
# What an outline cannot tell: it looks at no values.
REFUSED = {
    **dict.fromkeys(("fnet", "convbert", "funnel", "mobilebert"), _PADDING),  # neighbours are mixed, whatever the mask
    "nystromformer": "which takes texts of some lengths only",
    "reformer": "which takes texts of some lengths only, and gives states of twice its hidden_size",
}
LONGEST_COMPARED = 64  # tokens: so that the odd long texts are cut
# Classes that take tokenizer.json as it is: there is nothing to compare.
_TAKE_THE_FILE = ("PreTrainedTokenizerFast", "TokenizersBackend")


def check_model(source: str, max_tokens: int, base: Path | None = None) -> list[str]:
    """Remarks for the terminal; none where there is nothing to say.

    Raises:
        as `load_outline` and `read_tokenizer`; ConfigError where texts of `max_tokens` or tokens of the tokenizer have
            no place in the model's tables.
    """
    tokenizer, outline = read_tokenizer(source, base), load_outline(source, base)
    rows = _token_rows(source, outline)
    _check_pass(source, outline)
    check_ids(source, tokenizer.largest_id, rows)
    positions, table = usable_positions(outline), position_table(outline)
    if positions is not None:
        check_length(source, max_tokens, positions, positions if table is None else table.num_embeddings)
    return _other_tokens(source, tokenizer, base)


def _token_rows(source: str, outline: PreTrainedModel) -> int:
    """Rows of the table of token embeddings.

    Raises:
        ConfigError: there is no plain one.
    """
    try:
        table = cast(object, outline.get_input_embeddings())
    except NotImplementedError:
        table = None
    if not isinstance(table, nn.Embedding):
        found = "none" if table is None else type(table).__name__
        parts = ", ".join(name for name, _ in outline.named_children())
        given = f"{source} (type {outline.config.model_type!r}) has no plain table of token embeddings ({found})"
        raise ConfigError(said(f"{given}; its parts: {parts}", "a model whose tokens are rows of such a table"))
    return table.num_embeddings


def _check_pass(source: str, outline: PreTrainedModel) -> None:
    """Two short texts through the outline: do they come out as states of the width that the config names?

    Raises:
        ConfigError: they do not, or what is beside a text would change its answer.
    """
    kind, do = outline.config.model_type, "take another model"
    if kind in REFUSED:
        given = f"{source} is of type {kind!r}, {REFUSED[kind]}"
        raise ConfigError(said(given, "a model that takes padded texts of any length", do=do))
    ids_bt = torch.zeros((2, SHORT), dtype=torch.long, device="meta")
    try:
        width = int(outline(input_ids=ids_bt).last_hidden_state.shape[-1])
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if "meta" in str(error).lower() or "item()" in str(error):
            return  # it looks at values, which an outline has not
        given = f"{source} (type {kind!r}) cannot take a text of {SHORT} tokens ({first_line(error)})"
        raise ConfigError(said(given, "a model that takes texts of any length", do=do)) from error
    wanted = cast(int, outline.config.get_text_config().hidden_size)
    if width != wanted:
        given = f"{source} (type {kind!r}) gives states of {width} numbers, and its config says hidden_size {wanted}"
        raise ConfigError(said(given, "states of that width", do=do))


def _other_tokens(source: str, tokenizer: BaseTokenizer, base: Path | None) -> list[str]:
    """What `AutoTokenizer` would do otherwise with the same folder; the file's way is the one taken here."""
    folder = model_folder(source, base)
    about = folder / "tokenizer_config.json"
    named = (
        cast("dict[str, object]", json.loads(about.read_bytes())).get("tokenizer_class") if about.is_file() else None
    )
    if not (folder / TOKENIZER_FILE).is_file():
        return [f"{source} has no {TOKENIZER_FILE}: transformers made one of its vocabulary, which is kept and served"]
    if named in _TAKE_THE_FILE:
        return []
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        auto = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        return [f"{source}: AutoTokenizer cannot read it ({first_line(error)}); {TOKENIZER_FILE} is taken as it is"]
    finally:
        transformers_logging.set_verbosity(level)
    ours = [one.input_ids for one in tokenizer.encode(ODD_TEXTS, LONGEST_COMPARED)]
    theirs = auto(list(ODD_TEXTS), truncation=True, max_length=LONGEST_COMPARED, padding=False)["input_ids"]
    odd = [text for text, one, other in zip(ODD_TEXTS, ours, theirs, strict=True) if list(one) != list(other)]
    if not odd:
        return []
    other = f"AutoTokenizer builds another tokenizer ({type(auto).__name__}) than its {TOKENIZER_FILE}"
    where = f"which gives other tokens of {len(odd)} of {len(ODD_TEXTS)} odd texts, such as {odd[0][:20]!r}"
    return [f"{source}: {other}, {where}; the file's are taken, in training and in serving"]
