"""What is said of a disk that is full or cannot be written: the file, the file system and what is free on it.

Not here: writing (`records/store.py`). Libraries hide the reason in texts of their own; those are known here too.

    raise cannot_write(Path("runs/demo/study.json"), error)
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from paretune.core.errors import StorageError
from paretune.core.units import size_text

FULL = (errno.ENOSPC, errno.EDQUOT)
# As safetensors, pyarrow and numpy say it.
_SIGNS = ("No space left on device", "Disk quota exceeded", "os error 28", "os error 122", " requested and ")


def is_full_disk(error: BaseException) -> bool:
    """Whether an error is that of a full disk, in a library's words too."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(sign in str(error) for sign in _SIGNS)


def cannot_write(path: Path, error: BaseException) -> StorageError:
    """One line: what cannot be written and why; of a full disk, which one it is and what is free on it."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    if not is_full_disk(error):
        return StorageError(f"cannot write {path}: {reason} — choose a folder that can be written")
    return StorageError(f"cannot write {path}: {reason}{disk_of(path)} — free space or choose another folder")


def disk_of(path: Path) -> str:
    """ " (file system /data: 0 of 20.0 GB free)"; empty where the system does not say."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return ""
    while not os.path.ismount(there):
        there = there.parent
    return f" (file system {there}: {size_text(usage.free)} of {size_text(usage.total)} free)"
