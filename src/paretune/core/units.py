"""Sizes and durations as people write them ("2 GiB", "10 min") ⇄ numbers in bytes and seconds.

Not here: numbers for readers in a language (`report/wording.py`).

    parse_bytes("1.5 GiB") == 1_610_612_736
"""

from __future__ import annotations

import re

from paretune.core.errors import ConfigError, said

BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def _parse(text: str, table: dict[str, int], example: str) -> float:
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]+)\s*", text)
    if not found or found[2].lower() not in table:
        raise ConfigError(said(f"{text!r}", f"a number and a unit ({', '.join(table)}), such as {example!r}"))
    return float(found[1]) * table[found[2].lower()]


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "2 GiB" or "500MB".

    Raises:
        ConfigError: no number, or an unknown unit.
    """
    return round(_parse(text, BYTES, "2 GiB"))


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as "10 min" or "1.5h".

    Raises:
        ConfigError: no number, or an unknown unit.
    """
    return _parse(text, SECONDS, "10 min")
