"""Which files somebody holds a lock on, read from the kernel's table: asking with a lock would get in a runner's way.

Not here: whose they are. Another machine's locks, and another container's, are not in it.
Source: proc(5), /proc/locks.

    held_inodes()
"""

from __future__ import annotations

from pathlib import Path

TABLE = Path("/proc/locks")


def held_inodes() -> frozenset[int]:
    """Inodes of files under a flock; empty where the system has no such table."""
    try:
        lines = TABLE.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return frozenset()
    fields = (line.split() for line in lines)
    found = (parts[5].rsplit(":", 1)[-1] for parts in fields if len(parts) >= 6 and parts[1] == "FLOCK")
    return frozenset(int(inode) for inode in found if inode.isdigit())
