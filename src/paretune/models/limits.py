"""How many token ids and positions a model has, by config.json alone where that tells, and what is said beyond them.

Not here: the same of a built model (`surgery.py`), and so no import of `torch` or `transformers`. A type that is not in
the table has no answer here; `check.py` builds the model and looks.

    positions_of({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == (512, 514)
"""

from __future__ import annotations

from collections.abc import Mapping

from paretune.core.errors import ConfigError, said

_WHOLE_TABLE = ("albert", "bert", "distilbert", "electra")
_AFTER_PADDING = ("camembert", "roberta", "xlm-roberta")
_ROTARY = ("gemma", "llama", "mistral", "modernbert", "qwen2", "qwen3")


def positions_of(config: Mapping[str, object]) -> tuple[int, int] | None:
    """The longest text in tokens and the rows of the table of positions; None where config.json does not tell."""
    kind = config.get("model_type")
    rows = config.get("n_positions" if kind == "gpt2" else "max_position_embeddings")
    if not isinstance(rows, int) or rows <= 0:
        return None
    if kind in _AFTER_PADDING:
        padding = config.get("pad_token_id")
        return (rows - padding - 1, rows) if isinstance(padding, int) else None
    return (rows, rows) if kind == "gpt2" or kind in (*_WHOLE_TABLE, *_ROTARY) else None


def check_length(source: str, max_tokens: int, positions: int, rows: int) -> None:
    """Refuse texts that are longer than the positions, of which a table of `rows` may keep some.

    Raises:
        ConfigError: they are.
    """
    if max_tokens <= positions:
        return
    why = f"{source} has positions for {positions} tokens"
    if rows > positions:
        why += f" ({rows} less {rows - positions} before the first)"
    raise ConfigError(said(f"train.max_tokens = {max_tokens}: {why}", f"4 to {positions}"))


def check_ids(source: str, largest_id: int, rows: int) -> None:
    """Refuse a tokenizer whose ids have no row in the embeddings.

    Raises:
        ConfigError: it has some.
    """
    if largest_id >= rows:
        given = f"{source}: its tokenizer has ids up to {largest_id}, its embeddings {rows:,} rows"
        do = "take the tokenizer that belongs to the model, or resize its embeddings and save it again"
        raise ConfigError(said(given, f"ids up to {rows - 1}", do=do))
