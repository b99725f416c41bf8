"""Adds the date and this machine to the last line of a bench, which is read from standard input, and prints it.

Not here: measuring. What it prints is what results/bench/ holds, for the claims of the report to rest on.

    paretune bench serve --json | python benchmarks/stamp.py > results/bench/serve.json
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from paretune.core.config import JsonObject
from paretune.repro.provenance import machine


def stamped(text: str) -> JsonObject:
    """The object of the last line, with `date` and `machine` before its figures.

    Raises:
        ValueError: the last line is no JSON object.
    """
    lines = text.strip().splitlines()
    line: object = json.loads(lines[-1]) if lines else None
    if not isinstance(line, dict):
        raise ValueError("the last line is no JSON object; expected the output of a bench with --json")
    return {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), **line}


if __name__ == "__main__":
    try:
        print(json.dumps(stamped(sys.stdin.read()), ensure_ascii=False))
    except ValueError as error:
        print(f"stamp: {error}", file=sys.stderr)
        sys.exit(2)
