"""A small service that several files of tests ask; one for each file."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from served import Service, make, serving

from paretune.serve.api import ServiceSettings


@pytest.fixture(scope="module")
def bundles(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters with different label sets, and one to be loaded later."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "news": make(tiny_model, folder / "news", seed=1),
        "yesno": make(tiny_model, folder / "yesno", seed=2, labels=("no", "yes"), threshold=1.0),
        "later": make(tiny_model, folder / "later", seed=3),
    }


@pytest.fixture(scope="module")
def service(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """An open service with two adapters."""
    served = {name: bundles[name] for name in ("news", "yesno")}
    with serving(tmp_path_factory.mktemp("home"), served, ServiceSettings(default_adapter="news")) as one:
        yield one
