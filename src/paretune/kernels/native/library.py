"""The C++ kernels in this process, or why there are none.

Not here: building them (`build.py`), what they compute (`post_norm.cpp` and the headers), tensors (`maps.py`).

    found = library(); found.calls.post_norm_forward(...) if found.calls else print(found.reason)
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

# Its OpenMP is loaded first, so that there is one pool of threads.
import torch  # noqa: F401 # pyright: ignore[reportUnusedImport]

from paretune.core.engine_timings import known, why_not_native
from paretune.kernels.native.build import NoKernels, built, digest


@dataclass(frozen=True)
class Library:
    """The loaded kernels and their file's name, or why none are used."""

    calls: ctypes.CDLL | None
    reason: str = ""
    name: str = ""


@cache
def library() -> Library:
    """The kernels, built where they are not yet; none where this machine's timings say that torch is faster."""
    try:
        path = built()
        slower = why_not_native(known(), path.stem)
        return Library(None, slower) if slower else Library(ctypes.CDLL(str(path)), name=path.stem)
    except NoKernels as error:
        return Library(None, str(error))
    except OSError as error:
        return Library(None, f"they cannot be loaded: {str(error).splitlines()[0]}")


def kernels_in_use() -> str:
    """What tells numbers of these kernels from those of others: their sources' digest, empty without them."""
    return digest() if library().calls is not None else ""
