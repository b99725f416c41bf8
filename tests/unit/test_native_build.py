"""Why there are no kernels in C++: on any machine, whether it has them or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.kernels.native import build, library


@pytest.mark.parametrize("why", ["PARETUNE_NATIVE", "g++", "processor", "broken"])
def test_without_them_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str) -> None:
    """Switched off, no compiler, another processor, a compiler that fails: one line, and training goes on by torch."""
    monkeypatch.setenv("PARETUNE_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setattr(build, "processor_flags", lambda: list(build.NEEDED))
    if why == "PARETUNE_NATIVE":
        monkeypatch.setenv("PARETUNE_NATIVE", "0")
    elif why == "g++":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif why == "processor":
        monkeypatch.setattr(build, "processor_flags", lambda: ["avx2"])
    else:
        compiler = tmp_path / "g++"
        compiler.write_text("#!/bin/sh\nexit 1\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = library.library.__wrapped__()
    said = {"PARETUNE_NATIVE": "PARETUNE_NATIVE=0", "g++": "no g++", "processor": "avx512f", "broken": "did not build"}
    assert found.calls is None and said[why] in found.reason and "\n" not in found.reason
