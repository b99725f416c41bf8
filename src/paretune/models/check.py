"""What must hold between a base model, its tokenizer and a study's settings, looked at before anything runs.

No weights are read: the model is built on the device "meta". Not here: whether the folder is whole (`sources.py`) and
its type known (`loading.py`), which are looked at on the way.

    notes = check_model("asset:minilm-l6", max_tokens=128)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from torch import nn
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from paretune.models.limits import check_ids, check_length
from paretune.models.loading import load_outline
from paretune.models.sources import TOKENIZER_FILE, first_line, model_folder
from paretune.models.surgery import position_table, usable_positions
from paretune.models.tokenizer import ODD_TEXTS, BaseTokenizer, read_tokenizer

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
    rows = cast(nn.Embedding, outline.get_input_embeddings()).num_embeddings
    check_ids(source, tokenizer.largest_id, rows)
    positions, table = usable_positions(outline), position_table(outline)
    if positions is not None:
        check_length(source, max_tokens, positions, positions if table is None else table.num_embeddings)
    return _other_tokens(source, tokenizer, base)


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
