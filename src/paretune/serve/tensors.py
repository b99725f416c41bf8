"""Safetensors files that strangers wrote: looked through before a library opens them.

Refused here: pickles and zips under this name, headers that lie about lengths, shapes or offsets, other number formats
than fp32, anything executable by design. Not here: which tensors a bundle must have (`bundle.py`).
Source: the format's specification (https://github.com/huggingface/safetensors#format).

    tensors = read_safetensors(Path("bundle/head.safetensors"), most_bytes=2**26)
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from paretune.core.errors import BundleError, said

MOST_HEADER_BYTES = 4 * 2**20
MOST_TENSORS = 20_000
MOST_AXES = 4
VALUE_BYTES = 4  # fp32
_STRANGERS = {b"\x80": "a pickle", b"PK": "a zip file (torch.save writes one)", b"\x1f\x8b": "a gzip file"}


def open_plain(path: Path, most_bytes: int) -> io.BufferedReader[io.FileIO]:
    """Open a regular file for reading, following no symlink.

    Raises:
        BundleError: missing, a symlink, not a regular file, or larger than `most_bytes`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "a symlink" if path.is_symlink() else (error.strerror or str(error))
        raise BundleError(said(f"{path.name}: {reason}", "a regular file that can be read")) from None
    state = os.fstat(handle)
    if not stat.S_ISREG(state.st_mode) or state.st_size > most_bytes:
        os.close(handle)
        given = f"{path.name} is no regular file" if not stat.S_ISREG(state.st_mode) else f"{path.name} is too large"
        raise BundleError(said(given, f"a regular file of at most {most_bytes} bytes"))
    return io.BufferedReader(io.FileIO(handle))


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BundleError(said("a name stands twice in the header", "each tensor once"))
    return found


def check_header(path: Path, most_bytes: int) -> dict[str, tuple[int, ...]]:
    """The shapes by name, after checking that header and size of the file agree to the byte.

    Raises:
        BundleError: not a safetensors file of fp32 tensors, or one whose header does not describe it.
    """
    with open_plain(path, most_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 9 or start[8:9] != b"{" or length > min(MOST_HEADER_BYTES, size - 8):
            kind = next((name for sign, name in _STRANGERS.items() if start.startswith(sign)), None)
            given = f"{path.name} is {kind}" if kind else f"{path.name} has a header of {length} bytes"
            raise BundleError(said(given, f"safetensors with a header of at most {MOST_HEADER_BYTES} bytes"))
        text = start[8:] + file.read(length - 1)
    try:
        tree = json.loads(text, object_pairs_hook=_no_twins)
    except BundleError:
        raise
    except (ValueError, RecursionError):
        raise BundleError(said(f"{path.name}: the header is not JSON", "a safetensors file")) from None
    if not isinstance(tree, dict) or len(cast(dict[str, Any], tree)) > MOST_TENSORS:
        raise BundleError(said(f"{path.name}: the header is no table", f"at most {MOST_TENSORS} tensors by name"))
    entries = cast(dict[str, Any], tree)
    shapes = {name: _entry(path.name, name, entry) for name, entry in entries.items()}
    end = 0
    for begin, stop, name in sorted((*span, name) for name, (_, span) in shapes.items()):
        if begin != end:
            raise BundleError(said(f"{path.name}: {name!r} overlaps or leaves a gap", "tensors one after the other"))
        end = stop
    if size != 8 + length + end:
        raise BundleError(said(f"{path.name} has {size} bytes", f"{8 + length + end}, as its header says"))
    return {name: shape for name, (shape, _) in shapes.items()}


def _entry(file: str, name: str, entry: object) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Shape and span of one header entry."""
    allowed = "{dtype: F32, shape, data_offsets}"
    if not isinstance(entry, dict) or cast(dict[str, Any], entry).keys() != {"dtype", "shape", "data_offsets"}:
        raise BundleError(said(f"{file}: entry {name!r}", allowed))
    parts = cast(dict[str, Any], entry)
    if parts["dtype"] != "F32":
        raise BundleError(said(f"{file}: {name!r} has dtype {str(parts['dtype'])[:20]!r}", "F32"))
    shape, span = _numbers(parts["shape"]), _numbers(parts["data_offsets"])
    if shape is None or span is None or len(span) != 2 or len(shape) > MOST_AXES:
        raise BundleError(said(f"{file}: entry {name!r}", allowed + " with whole numbers from 0"))
    if span[1] - span[0] != VALUE_BYTES * math.prod(shape):
        raise BundleError(said(f"{file}: {name!r} spans {span[1] - span[0]} bytes", f"what shape {shape} needs"))
    return shape, (span[0], span[1])


def _numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    items = cast(list[object], value)
    numbers = [one for one in items if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**48]
    return tuple(numbers) if len(numbers) == len(items) else None


def read_safetensors(path: Path, most_bytes: int) -> dict[str, torch.Tensor]:
    """The tensors of a file that holds up to `check_header`; all values finite.

    Raises:
        BundleError: as `check_header`, or a value that is no finite number.
    """
    check_header(path, most_bytes)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(said(f"{path.name} cannot be read ({reason})", "a safetensors file")) from None
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(said(f"{path.name}: {name!r} holds NaN or infinity", "finite numbers"))
    return tensors


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write fp32 tensors, each with memory of its own, without metadata."""
    save_file({name: tensor.detach().to(torch.float32).clone().contiguous() for name, tensor in tensors.items()}, path)
