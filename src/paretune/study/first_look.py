"""What of a study can be refused in about a second, before PyTorch and transformers are imported, which takes longer.

Not here: the whole check (`design.py`, `models/check.py`, `data/prepare.py`), which follows in any case: whatever this
look cannot judge is left to it. It judges the model's folder, ids and positions, and the classes of the training file.

    first_look(Path("studies/demo.toml"), None)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from paretune.core.cache import home
from paretune.core.errors import AssetError
from paretune.data.prepare import check_classes
from paretune.data.sources import DataSpec
from paretune.models.families import FAMILIES
from paretune.models.limits import check_ids, check_length, positions_of
from paretune.models.sources import TOKENIZER_FILE, ModelSpec, config_of, model_folder, own_code, parse_source
from paretune.models.tokenizer import read_tokenizer

LARGEST_FILE = 20_000_000  # bytes; larger training files take seconds to read, and are read once


def first_look(file: Path, base: Path | None) -> None:
    """Refuse what is surely wrong; `base` is where relative data paths start (the file's own folder by default).

    Raises:
        AssetError, ConfigError, DataError, UnknownNameError: the line that the whole check would end with.
    """
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        model, data = ModelSpec.model_validate(tree.get("model")), DataSpec.model_validate(tree.get("data"))
    except (OSError, ValueError, ValidationError):
        return  # the whole check says what is wrong with the study file
    _look_at_model(model.source, _table(tree, "train").get("max_tokens", 128))
    path = (base or file.resolve().parent) / data.train.removeprefix("path:")
    labelled = _table(tree, "task").get("kind", "classification") == "classification"
    if labelled and data.train.startswith("path:") and path.is_file() and path.stat().st_size <= LARGEST_FILE:
        check_classes(data, base or file.resolve().parent)


def _table(tree: Mapping[str, object], name: str) -> dict[str, object]:
    found = tree.get(name)
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _look_at_model(source: str, max_tokens: object) -> None:
    """A local folder, or an asset that was made before: nothing is fetched."""
    kind, name, _ = parse_source(source)
    if kind == "hub" or (kind == "asset" and not (home() / "models" / name / "made.stamp").is_file()):
        return
    config = config_of(source)
    if "auto_map" in config and config.get("model_type") not in FAMILIES:
        _refuse_unknown_type(source, str(config.get("model_type")))
    rows = config.get("vocab_size")
    if isinstance(rows, int) and (model_folder(source) / TOKENIZER_FILE).is_file():
        check_ids(source, read_tokenizer(source).largest_id, rows)
    positions = positions_of(config)
    if positions is not None and isinstance(max_tokens, int):
        check_length(source, max_tokens, *positions)


def _refuse_unknown_type(source: str, kind: str) -> None:
    """Refuse a type that stands nowhere in the tables of transformers, which are looked through as text."""
    found = find_spec("transformers")
    tables = Path(found.origin).parent / "models" / "auto" if found is not None and found.origin else Path()
    texts = [path.read_text(encoding="utf-8") for path in tables.glob("*.py")]
    if texts and not any(f'"{kind}"' in text for text in texts):
        raise AssetError(own_code(source))
