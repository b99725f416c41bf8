"""Secrets that come in files, so that no list of processes shows them.

Not here: what a secret must look like, nor where it goes. What stands in a file is never repeated in an error.

    read_secret(Path("token"), "--token-file")
"""

from __future__ import annotations

from pathlib import Path

from paretune.core.errors import ConfigError, said


def read_secret(file: Path, option: str) -> str:
    """The one line of a secret's file.

    Raises:
        ConfigError: missing, unreadable, empty or more than one line; what stands in it is not repeated.
    """
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {file} cannot be read ({type(error).__name__})") from None
    if len(lines) != 1:
        raise ConfigError(said(f"{option} {file} holds {len(lines)} words", "one line with nothing but the secret"))
    return lines[0]
