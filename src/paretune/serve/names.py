"""What a name that comes from outside may look like: the id of a bundle, the name of an alias, a digest, words of a
manifest.

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


# Moves a terminal's cursor, or shows other words than it holds (bidirectional overrides, https://trojansource.codes).
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKUP = re.compile(r"<[A-Za-z/!?]")


def fault_of(text: str, most: int, breaks: bool = False, markup: bool = False) -> str | None:
    """Why words of a stranger may not be shown, or None; `breaks` allows tabs and line breaks, `markup` what looks like
    tags."""
    odd = _UNSHOWN.search(re.sub(r"[\t\r\n]", "", text) if breaks else text)
    if odd:
        return f"the character U+{ord(odd[0]):04X}"
    if not markup and _MARKUP.search(text):
        return "what looks like markup"
    return f"{len(text)} characters" if len(text) > most else None


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
