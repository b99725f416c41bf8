"""Options that several verbs share, and how a verb ends its output.

Not here: any verb (`cli.py`, `cli_serving.py`).

    say_json(True, {"report": "runs/demo/report.en.html"})
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from paretune.core.errors import UsageError, said

JsonFlag = Annotated[bool, typer.Option("--json", help="Make the last line of standard output one JSON object.")]
LangOption = Annotated[
    str | None, typer.Option("--lang", help="Language of words and numbers: ru or en; else that of the environment.")
]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder where the study's data paths start.")]
StudyArgument = Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)]


QuotingOption = Annotated[
    str | None, typer.Option("--quoting", help='What a " is in CSV and TSV: none (a character like others) or double.')
]
NoHeaderFlag = Annotated[bool, typer.Option("--no-header", help="The first line is a row; columns are called 1, 2, 3.")]


def quoting_of(typed: str | None) -> Literal["none", "double"] | None:
    """What `--quoting` says.

    Raises:
        UsageError: another word.
    """
    match typed:
        case None | "none" | "double":
            return typed
        case _:
            raise UsageError(said(f"--quoting {typed}", "none or double"))


def data_folder(data: Path | None) -> Path | None:
    """The folder of `--data`.

    Raises:
        UsageError: there is no such folder.
    """
    if data is not None and not data.is_dir():
        raise UsageError(said(f"--data {data}", "a folder that exists"))
    return data


def language(wanted: str | None) -> str:
    """The wanted language, or that of the environment where paretune speaks it, else English.

    Raises:
        ConfigError: a language that paretune does not speak.
    """
    from paretune.report.wording import check_language

    found = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return check_language(wanted or ("ru" if found.lower().startswith("ru") else "en"))


def say_json(wanted: bool, tree: dict[str, Any]) -> None:
    if wanted:
        whole = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"  # else escapes lose no sign
        print(json.dumps(tree, ensure_ascii=not whole))
