"""Memory that is free inside this process goes back to the system.

Not here: how much a process uses (`measure/meter.py`). Source: malloc_trim(3) of the GNU C library.

    del tokenizer; return_free_memory()
"""

from __future__ import annotations

import ctypes
import gc
import sys


def return_free_memory() -> None:
    """What was freed in small pieces stays with the process otherwise: of a tokenizer with 250,000 words some 290 MB.

    Elsewhere than on Linux with the GNU C library only Python's own cycles are collected.
    """
    gc.collect()
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
