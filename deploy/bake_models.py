"""Prepares base models for an image: fetched, converted, and readable where nothing can be written.

Not here: which there are (`paretune assets`). The downloaded wheels do not stay. Times are the same in every build.

    PARETUNE_HOME=/opt/paretune python deploy/bake_models.py minilm-l6
"""

import os
import shutil
import sys

from paretune.core.cache import home
from paretune.core.errors import ParetuneError
from paretune.models.sources import model_digest, model_folder

SAME_TIME = 1_767_225_600  # 2026-01-01; any will do


def bake(names: list[str]) -> None:
    """Make every model of `names` ready under `home()`.

    Raises:
        ParetuneError: unknown, or not to be had.
    """
    for name in names:
        model_folder(f"asset:{name}")
    shutil.rmtree(home() / "wheels", ignore_errors=True)
    for file in home().rglob("*"):
        os.utime(file, (SAME_TIME, SAME_TIME))
    for name in names:
        print(f"{name}: {model_digest(f'asset:{name}')}")


if __name__ == "__main__":
    try:
        bake(sys.argv[1:])
    except ParetuneError as error:
        sys.exit(f"bake_models: {error}")
