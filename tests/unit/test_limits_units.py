"""Sizes and durations as people write them, and what this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core import limits
from paretune.core.errors import ConfigError
from paretune.core.units import BYTES, SECONDS, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2 GiB", 2 * 2**30), ("1.5GiB", 3 * 2**29), ("500MB", 500_000_000), ("7 b", 7), (" 64 mib ", 64 * 2**20)],
)
def test_sizes(text: str, wanted: int) -> None:
    """By hand; binary and decimal units are told apart."""
    assert parse_bytes(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("10 min", 600), ("1.5h", 5400), ("0.5 s", 0.5), ("2 d", 172_800), ("3m", 180)]
)
def test_durations(text: str, wanted: float) -> None:
    """By hand."""
    assert parse_seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "GiB", "2", "2 gb gb", "-2 GiB", "2 lightyears", "1,5 GiB", "nan GiB", "1e3 GiB"])
def test_what_is_no_size_is_refused_with_the_units(text: str) -> None:
    """One line that shows all units and an example."""
    with pytest.raises(ConfigError, match=r"expected a number and a unit \(b, kb, .*'2 GiB'"):
        parse_bytes(text)
    with pytest.raises(ConfigError):
        parse_seconds(text)


@given(st.integers(0, 10**6), st.sampled_from(sorted(BYTES)))
def test_whole_sizes_are_exact(number: int, unit: str) -> None:
    """No size of whole units loses a byte, in any case of letters and spacing."""
    assert parse_bytes(f"{number} {unit}") == parse_bytes(f"  {number}{unit.upper()}") == number * BYTES[unit]


@given(st.floats(0, 1e6), st.sampled_from(sorted(SECONDS)))
def test_durations_scale(number: float, unit: str) -> None:
    """A duration is its number times its unit."""
    text = f"{number:.6f}"
    assert parse_seconds(f"{text}{unit}") == float(text) * SECONDS[unit]


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_a_clear_refusal(text: str) -> None:
    """No text crashes the parser."""
    try:
        assert parse_bytes(text) >= 0
    except ConfigError as error:
        assert "expected a number and a unit" in str(error)


def put_cgroup(folder: Path, monkeypatch: pytest.MonkeyPatch, cpu: str | None, memory: str | None) -> None:
    for name, text in (("cpu.max", cpu), ("memory.max", memory)):
        if text is not None:
            (folder / name).write_text(text)
    monkeypatch.setattr(limits, "CGROUP", folder)


@pytest.mark.parametrize(
    ("quota", "wanted"), [("max 100000\n", 8), ("250000 100000\n", 2), ("50000 100000\n", 1), ("1600000 100000\n", 8)]
)
def test_cores_are_cut_by_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, wanted: int) -> None:
    """Whole cores of the quota, at least one, at most the affinity."""
    put_cgroup(tmp_path, monkeypatch, quota, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert limits.usable_cores() == wanted


def test_cores_without_a_cgroup_are_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cpu.max, no cut."""
    put_cgroup(tmp_path, monkeypatch, None, None)
    assert limits.usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("cap", ["max\n", None, ""])
def test_memory_without_a_cap_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cap: str | None) -> None:
    """No cap, an open one or an empty file leave what the machine has."""
    put_cgroup(tmp_path, monkeypatch, None, cap)
    assert limits.memory_limit_bytes() == psutil.virtual_memory().total


def test_memory_is_cut_by_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap below the machine's memory is the limit."""
    put_cgroup(tmp_path, monkeypatch, None, "1048576\n")
    assert limits.memory_limit_bytes() == 2**20


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [("flags : fpu avx512f avx512_bf16", True), ("flags : amx_tile amx_bf16", True), ("flags : fpu avx2", False)],
)
def test_bf16_is_read_from_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, wanted: bool) -> None:
    """A processor without native bf16 is not made to emulate it."""
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(limits, "CPUINFO", tmp_path / "cpuinfo")
    assert limits.processor_has_bf16() is wanted
    monkeypatch.setattr(limits, "CPUINFO", tmp_path / "none")
    assert limits.processor_has_bf16() is False
