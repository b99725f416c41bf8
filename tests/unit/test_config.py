"""Settings from TOML, the registry's kin of messages, and the canonical hash."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from paretune.core.config import Settings, canonical_hash, canonical_json, load_toml, nearest, validated
from paretune.core.errors import ConfigError, UsageError, said

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


class Inner(Settings):
    rank: int = Field(default=8, ge=1)
    targets: tuple[str, ...] = ()


class Outer(Settings):
    name: str
    share: float = 0.2
    inner: Inner = Inner()
    more: dict[str, Inner] = Field(default={})


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_toml(write(folder, text), Outer)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_whole_file_loads_and_is_frozen(tmp_path: Path) -> None:
    """Lists become tuples, whole numbers fit floats, and nothing can be set afterwards."""
    found = load_toml(write(tmp_path, 'name = "a"\nshare = 1\n[inner]\nrank = 4\ntargets = ["q"]\n'), Outer)
    assert found == Outer(name="a", share=1.0, inner=Inner(rank=4, targets=("q",)))
    with pytest.raises(ValidationError, match="frozen"):
        found.name = "b"


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """An editor's byte-order mark before the first key is dropped."""
    path = tmp_path / "study.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "a"\n')
    assert load_toml(path, Outer).name == "a"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('name = "a"\nshar = 1\n', ["unknown key 'shar'", "did you mean 'share'?", "inner"]),
        ('name = "a"\n[inner]\nrnak = 1\n', ["unknown key 'inner.rnak'", "did you mean 'rank'?"]),
        ('name = "a"\n[more.x]\nrnak = 1\n', ["unknown key 'more.x.rnak'"]),
        ("share = 0.5\n", ["key 'name' is missing"]),
        ('name = "a"\n[inner]\nrank = "eight"\n', ["inner.rank", '"eight"']),
        ('name = "a"\n[inner]\nrank = 8.5\n', ["inner.rank", "8.5"]),
        ('name = "a"\n[inner]\nrank = 0\n', ["inner.rank", "greater than or equal to 1"]),
        ('name = "a"\n[inner]\nrank = true\n', ["inner.rank"]),
        ("name = 3\n", ["name = 3"]),
        ('name = "a\n', ["not valid TOML", "line 1"]),
        ('name = "a"\nname = "b"\n', ["not valid TOML"]),
        ('name = 3\nshar = 1\nshare = "x"\n', ["unknown key 'shar'", "(and 2 more)"]),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, text: str, wanted: list[str]) -> None:
    """The file, the key, what was given, what is allowed; an unknown key goes first, as it explains the others."""
    message = refused(tmp_path, text)
    for part in (*wanted, "study.toml"):
        assert part in message


def test_a_missing_or_unreadable_file_is_one_line(tmp_path: Path) -> None:
    """No file names the verb that writes one; a folder or wrong bytes are no traceback."""
    with pytest.raises(ConfigError, match="paretune new"):
        load_toml(tmp_path / "none.toml", Outer)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toml(tmp_path, Outer)
    (tmp_path / "bytes.toml").write_bytes(b'name = "\xff"\n')
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toml(tmp_path / "bytes.toml", Outer)


def test_dates_of_toml_are_refused_and_do_not_crash() -> None:
    """A TOML date where a number belongs is a wrong type."""
    import datetime

    with pytest.raises(ConfigError, match="share"):
        validated({"name": "a", "share": datetime.date(2026, 1, 1)}, Outer, "here")


def test_nearest_finds_what_was_meant_and_invents_nothing() -> None:
    """A misspelling is found; a word of its own has no nearest."""
    assert nearest("lorra", ["lora", "full", "head"]) == "lora"
    assert nearest("xyzzy", ["lora", "full", "head"]) is None


def test_an_error_has_an_exit_code_and_a_line() -> None:
    """What the user gave leaves with 2, in one line whatever was in it."""
    assert UsageError.exit_code == 2
    line = said("a\nb", "c", nearest="d", do="e")
    assert line == "a b; expected c — did you mean 'd'? — e"


@given(JSON)
def test_the_canonical_form_does_not_depend_on_the_order_of_keys(value: object) -> None:
    """Reversed dictionaries hash the same, and the form reads back as the value."""
    import json

    def mirrored(one: object) -> object:
        if isinstance(one, dict):
            return {key: mirrored(one[key]) for key in reversed(one)}
        return [mirrored(inner) for inner in one] if isinstance(one, list) else one

    text = canonical_json(value)  # type: ignore[arg-type]
    assert text == canonical_json(mirrored(value))  # type: ignore[arg-type]
    assert json.loads(text) == value


def test_the_hash_is_pinned() -> None:
    """Run ids on disk depend on it: this value is from `sha256sum` of the spelling beside it."""
    assert canonical_json({"b": [1, 2.5, None], "a": "ё"}) == '{"a":"ё","b":[1,2.5,null]}'
    assert canonical_hash({"b": 1, "a": 2}) == "d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772"
    assert canonical_hash(Outer(name="a")) == canonical_hash(Outer(name="a", share=0.2))
    assert canonical_hash(Outer(name="a")) != canonical_hash(Outer(name="a", share=0.3))


def test_not_a_number_has_no_canonical_form() -> None:
    """NaN would make a hash of nothing."""
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": math.nan})


def test_the_core_is_light() -> None:
    """Reading a study's settings imports neither torch nor pandas."""
    code = "import sys, paretune.core.config; print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
