"""Fixtures that several test files share; being here also makes `fabricated_study.py` and `toy_study.py` importable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy_study import VOCABULARY

# Tests run side by side: a thread that waits for another must not hold the core that this one needs.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Kernels in C++ are built once, not once for each test with a cache of its own.
os.environ.setdefault("PARETUNE_KERNELS", str(Path.home() / ".cache" / "paretune" / "kernels"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy encoder repository whose tokenizer knows the toy texts' words."""
    from paretune.models.tiny import write_tiny_bert

    return write_tiny_bert(tmp_path_factory.mktemp("tiny-model"), vocabulary=VOCABULARY)


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy decoder repository with tied embeddings, whose tokenizer knows the toy texts' words."""
    from paretune.models.tiny import write_tiny_llama

    return write_tiny_llama(tmp_path_factory.mktemp("tiny-decoder"), vocabulary=VOCABULARY)
