"""Strict, frozen settings from TOML, and their canonical hash.

Not here: what the settings of a room mean; each room declares its own `Settings` model. Unknown keys are errors that
name the nearest known one (pydantic: https://docs.pydantic.dev/latest/concepts/strict_mode/).

    study = load_toml(Path("studies/demo.toml"), StudySpec)
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from paretune.core.errors import ConfigError, said

JsonValue = None | bool | int | float | str | list[Any] | dict[str, Any]
JsonObject = dict[str, Any]


class Settings(BaseModel):
    """Base of every settings model and record: frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", ser_json_inf_nan="constants")


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that `name` most likely meant, or None."""
    found = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return found[0] if found else None


def load_toml(path: Path, into: type[SettingsT]) -> SettingsT:
    """Read a TOML file into a settings model.

    Raises:
        ConfigError: the file is missing, is not TOML, or does not fit the model; the message is one line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(said(f"no file {path}", "a study file", do="`paretune new` writes one")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return validated(tree, into, str(path))


def validated(tree: object, into: type[SettingsT], where: str) -> SettingsT:
    """Check a plain tree against a settings model; TOML's lists and whole numbers fit tuples and floats.

    Raises:
        ConfigError: one line with the first problem and how many others there are.
    """
    try:
        return into.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error, into)}") from None


def _first_problem(error: ValidationError, into: type[BaseModel]) -> str:
    problems = error.errors(include_url=False)
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    place = ".".join(str(part) for part in problem["loc"]) or "the file"
    if problem["type"] == "extra_forbidden":
        allowed = _keys_at(into, problem["loc"][:-1])
        message = said(
            f"unknown key {place!r}", "one of " + ", ".join(allowed), nearest=nearest(str(problem["loc"][-1]), allowed)
        )
    elif problem["type"] == "missing":
        message = f"key {place!r} is missing"
    elif problem["type"] == "value_error":
        message = f"{place}: {str(problem['msg']).removeprefix('Value error, ')}"
    else:
        message = f"{place} = {json.dumps(problem['input'], ensure_ascii=False, default=str)}: {problem['msg']}"
    others = len(problems) - 1
    return message + (f" (and {others} more)" if others else "")


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names that a model allows at a place of its tree; empty where the place is no model."""
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        inner = [one for one in _flat(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return sorted(model.model_fields)


def _flat(annotation: object) -> list[object]:
    arguments = get_args(annotation)
    return [annotation, *(leaf for one in arguments for leaf in _flat(one))]


def canonical_json(value: BaseModel | JsonValue | JsonObject) -> str:
    """The one spelling of a value: sorted keys, no spaces, no NaN."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_hash(value: BaseModel | JsonValue | JsonObject) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
