"""Where the user's cache is.

home() / "models"
"""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Folder of downloads, converted models and built kernels: PARETUNE_HOME, or ~/.cache/paretune. It need not exist
    yet."""
    return Path(os.environ.get("PARETUNE_HOME") or "~/.cache/paretune").expanduser().absolute()
