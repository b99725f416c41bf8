"""What `paretune predict` does and says: options in, lines and one JSON object out.

Not here: parsing a command line (`cli_serving.py`), labelling itself (`predict.py`).

    lines, tree = predict_command(Path("bundles/demo"), Path("reviews.csv"), None, "review")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from paretune.core.config import JsonObject, validated
from paretune.data.files import Quoting
from paretune.data.sources import DataSpec
from paretune.serve.predict import Labelled, predict

SHOWN = 10

_TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "done": "rows labelled: {rows}; {out}",
        "label": "{count:>8}  {label}",
        "others": "{count:>8}  ({kinds} more labels)",
        "abstained": "{count:>8}  left to a person (unsure {unsure}, "
        "unlike training texts {unlike}, empty {empty}, no answer {failed})",
        "truncated": "{count} texts were longer than the model reads: only a part of them counted",
    },
    "ru": {
        "done": "размечено строк: {rows}; {out}",
        "label": "{count:>8}  {label}",
        "others": "{count:>8}  (ещё меток: {kinds})",
        "abstained": "{count:>8}  решает человек (модель не уверена {unsure}, "
        "не похожи на обучающие {unlike}, пустые {empty}, сбои {failed})",
        "truncated": "текстов длиннее, чем читает модель: {count}; учтена только их часть",
    },
}


def predict_command(
    bundle: Path,
    file: Path,
    out: Path | None,
    text: str | None = None,
    *,
    encoding: str = "utf-8",
    separator: str | None = None,
    quoting: Quoting | None = None,
    header: bool = True,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    force: bool = False,
    lang: str = "en",
    say: Callable[[int, int], None] = lambda done, rows: None,
) -> tuple[list[str], JsonObject]:
    """Label a file, and what to print of it.

    Raises:
        as `predict`, and ConfigError for an encoding or separator that is none.
    """
    separator = "\t" if separator == "\\t" else separator  # what a shell can type
    given = {"train": f"path:{file}", "encoding": encoding, "separator": separator, "quoting": quoting}
    layout = validated({**given, "header": header}, DataSpec, "predict").layout(flags=True)
    found = predict(bundle, file, out, layout, text, precision=precision, force=force, say=say)
    return lines_of(found, lang), json_of(found)


def lines_of(found: Labelled, lang: str) -> list[str]:
    """How many rows got which label, the commonest first, and how many are left to a person."""
    texts, most = _TEXTS[lang], found.labels.most_common(SHOWN)
    lines = [texts["done"].format(rows=found.rows, out=found.out)]
    lines += [texts["label"].format(count=count, label=_line(label)) for label, count in most]
    if len(found.labels) > SHOWN:
        rest = found.labels.total() - sum(count for _, count in most)
        lines.append(texts["others"].format(count=rest, kinds=len(found.labels) - SHOWN))
    unsure = found.abstained - found.out_of_domain - found.empty - found.failed
    lines.append(
        texts["abstained"].format(
            count=found.abstained, unsure=unsure, unlike=found.out_of_domain, empty=found.empty, failed=found.failed
        )
    )
    if found.truncated:
        lines.append(texts["truncated"].format(count=found.truncated))
    return lines


def _line(label: str) -> str:
    """A label on one line of a terminal."""
    return label if label.isprintable() else ascii(label)


def json_of(found: Labelled) -> JsonObject:
    """The same for programs."""
    return {
        "out": str(found.out),
        "digest": found.digest,
        "rows": found.rows,
        "labels": dict(found.labels),
        "abstained": found.abstained,
        "out_of_domain": found.out_of_domain,
        "empty": found.empty,
        "truncated": found.truncated,
        "failed": found.failed,
    }
