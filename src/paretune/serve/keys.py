"""API keys: a file with their hashes, what each may do and how much of it.

Not here: where a request is checked (`guard.py`). A key is 256 random bits, so a plain SHA-256 protects it; it is
shown once, when it is made. The file is TOML, one [[keys]] table a key:

    make_key(Path("keys.toml"), "bot", ["classify"], tokens_per_minute=60_000)
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from paretune.core.config import Settings, load_toml, nearest, validated
from paretune.core.errors import ConfigError, said
from paretune.records.store import write_atomically
from paretune.serve.names import DIGEST_PATTERN, ID_PATTERN, NAME_ALLOWED, is_id

Scope = Literal["classify", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = ("classify", "admin", "metrics")
PREFIX = "pt_"
LONGEST_KEY = 256


class ApiKey(Settings):
    """A key's hash and rights; `adapters` lists the names it may use (left out: all), `tokens_per_minute` its quota."""

    name: Annotated[str, Field(pattern=ID_PATTERN)]
    sha256: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    scopes: list[Scope]
    tokens_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    adapters: list[str] | None = None

    def may_use(self, adapter: str) -> bool:
        """Whether an adapter's name is among this key's."""
        return self.adapters is None or adapter in self.adapters


class KeyFile(Settings):
    """The whole file."""

    keys: list[ApiKey] = Field(default_factory=list)


class Keys:
    """All keys of a server."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, presented: str) -> ApiKey | None:
        """The key whose hash this is; every hash is compared, in constant time each."""
        if not presented or len(presented) > LONGEST_KEY:
            return None
        given = hashed(presented)
        found: ApiKey | None = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, given):
                found = key
        return found


def hashed(key: str) -> str:
    """SHA-256 (hex) of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(path: Path) -> Keys:
    """The keys of a file.

    Raises:
        ConfigError: no such file, not of this shape, no key in it, or two of one name.
    """
    if not path.exists():
        raise ConfigError(said(f"no file {path}", "a file of API keys", do="`paretune keys` makes one"))
    keys = load_toml(path, KeyFile).keys
    if not keys:
        raise ConfigError(said(f"{path} has no key", "at least one [[keys]] table"))
    names = [key.name for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(said(f"{path} has two keys named {twice!r}", "one name a key"))
    return Keys(keys)


def make_key(path: Path, name: str, scopes: Sequence[str], tokens_per_minute: int | None = None) -> str:
    """Add a key to a file (made if it is not there) and return it: the only time that it can be seen.

    Raises:
        ConfigError: a name that is taken or not allowed, an unknown scope, or a file of another shape.
        StorageError: the file cannot be written.
    """
    if not is_id(name):
        raise ConfigError(said(f"key name {name!r}", NAME_ALLOWED))
    for scope in scopes:
        if scope not in SCOPES:
            raise ConfigError(said(f"scope {scope!r}", "one of " + ", ".join(SCOPES), nearest=nearest(scope, SCOPES)))
    if not scopes:
        raise ConfigError(said("a key without scopes", "one or more of " + ", ".join(SCOPES)))
    there = load_toml(path, KeyFile).keys if path.exists() else []
    if any(key.name == name for key in there):
        raise ConfigError(said(f"key {name!r} is in {path} already", "another name", do="or delete its table first"))
    secret = PREFIX + secrets.token_urlsafe(32)
    rights = {
        "name": name,
        "sha256": hashed(secret),
        "scopes": sorted(set(scopes)),
        "tokens_per_minute": tokens_per_minute,
    }
    validated(rights, ApiKey, "the new key")
    # A JSON string and a JSON list of strings are TOML as well.
    lines = ["[[keys]]", *(f"{key} = {json.dumps(value)}" for key, value in rights.items() if value is not None)]
    before = path.read_text(encoding="utf-8-sig").rstrip("\n") + "\n\n" if path.exists() else ""
    write_atomically(path, before + "\n".join(lines) + "\n")
    return secret
