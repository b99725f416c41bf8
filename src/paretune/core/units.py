"""Sizes and durations as people write them ("2 GiB", "10 min") ⇄ numbers in bytes and seconds.

Sizes are written in powers of 1024 (KiB, MiB, GiB), as limits are and as the kernel counts; decimal ones are read too.
Not here: numbers for readers in a language (`report/wording.py`).

    parse_bytes("1.5 GiB") == 1_610_612_736
"""

from __future__ import annotations

import re

from paretune.core.errors import ConfigError, said

BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")  # what sizes are written in
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


def in_unit(size_bytes: float) -> tuple[float, str]:
    """A size in the largest of `UNITS` of which it has at least one: (1.5, "GiB")."""
    power = 0
    while abs(size_bytes) >= 1024 and power + 1 < len(UNITS):
        size_bytes, power = size_bytes / 1024, power + 1
    return size_bytes, UNITS[power]


def unit_digits(value: float) -> int:
    """Decimals with which a value of a unit is written: about three figures."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def size_text(size_bytes: float) -> str:
    """A size in English, such as "1.5 GiB"; for lines that have no language."""
    value, unit = in_unit(size_bytes)
    digits = unit_digits(value) if unit != "B" else 0
    text = f"{value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
