"""What a name that comes from a client may look like: the id of a bundle, the name of an alias, a digest.

Not here: what a name stands for (`registry.py`). A client never sends a path: an id has no separator, no leading dot
and is ASCII in lower case, so that no two spellings name one file.

    is_id("emotions-v2"), is_digest("9f86d0…")
"""

from __future__ import annotations

import re

ID_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
NAME_ALLOWED = "1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit"
_ID = re.compile(ID_PATTERN)
_DIGEST = re.compile(DIGEST_PATTERN)
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\w.~+-]*[/\\])+[\w.~+@%-]*")


def is_digest(name: str) -> bool:
    """64 hexadecimal digits in lower case: a bundle's identity."""
    return _DIGEST.fullmatch(name) is not None


def is_id(name: str) -> bool:
    """A name of a bundle in the inbox, or an alias; a digest is neither, though it looks like one."""
    return _ID.fullmatch(name) is not None and not is_digest(name)


def id_of(text: str) -> str:
    """The nearest id to a free name, such as a study's: lower case, all else becomes a dash."""
    found = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    return found if is_id(found) else "adapter"


def without_paths(text: str) -> str:
    """A message in which every file name with a folder is replaced; what a client is told names no place on disk."""
    return _PATH.sub("(a file)", text).replace("\n", " ")
