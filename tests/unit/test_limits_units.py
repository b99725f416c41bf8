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
    put_groups(folder, monkeypatch, "0::/\n", {})


def put_groups(folder: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str]) -> None:
    """A tree as under /sys/fs/cgroup, and what /proc says of the own groups."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(own)
    monkeypatch.setattr(limits, "CGROUP", folder)
    monkeypatch.setattr(limits, "OWN_CGROUPS", folder / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("quota", "wanted"), [("max 100000\n", 8), ("250000 100000\n", 2), ("50000 100000\n", 1), ("1600000 100000\n", 8)]
)
def test_cores_are_cut_by_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, wanted: int) -> None:
    """Whole cores of the quota, at least one, at most the affinity."""
    put_cgroup(tmp_path, monkeypatch, quota, None)
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


V1 = "4:memory:{0}\n3:cpuset:/\n2:cpu,cpuacct:{0}\n0::/\n"
MIB = str(2**20)
OPEN = "9223372036854771712\n"  # what v1 says where nothing is capped: more than any machine has


@pytest.mark.parametrize(
    ("own", "files", "cores", "cap"),
    [
        # A container under v1: its own group is what it sees as the root, /proc names the path outside.
        (
            V1.format("/machine/abc"),
            {"memory/memory.limit_in_bytes": MIB, "cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            2,
            2**20,
        ),
        # A service of the host under v1: the cap is at its own group or above.
        (
            V1.format("/user/one"),
            {
                "memory/memory.limit_in_bytes": OPEN,
                "memory/user/memory.limit_in_bytes": MIB,
                "memory/user/one/memory.limit_in_bytes": OPEN,
                "cpu/user/one/cpu.cfs_quota_us": "150000",
                "cpu/user/one/cpu.cfs_period_us": "50000",
                "memory/other/memory.limit_in_bytes": "1",
                "cpu/other/cpu.cfs_quota_us": "1",
                "cpu/other/cpu.cfs_period_us": "1",
            },
            3,
            2**20,
        ),
        # v1 without any cap.
        (
            V1.format("/"),
            {"memory/memory.limit_in_bytes": OPEN, "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            8,
            None,
        ),
        # v2 below the root, as under a user session.
        (
            "0::/user.slice/run-1.scope\n",
            {
                "user.slice/cpu.max": "400000 100000",
                "user.slice/run-1.scope/cpu.max": "max 100000",
                "user.slice/memory.max": "max",
                "user.slice/run-1.scope/memory.max": MIB,
            },
            4,
            2**20,
        ),
        # A group outside the one that is seen as the root.
        ("0::/../other\n", {"../other/memory.max": "1"}, 8, None),
        # No quota's period, and words where numbers are expected.
        ("nonsense\n::\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu.max": "a b", "memory.max": "-5"}, 8, None),
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "0"}, 8, None),
    ],
    ids=["container v1", "service v1", "open v1", "nested v2", "outside", "nonsense", "period of zero"],
)
def test_the_tightest_of_all_groups_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], cores: int, cap: int | None
) -> None:
    """Own group and those above it, v1 and v2; a neighbour's limits are not mine."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    put_groups(folder, monkeypatch, own, files)
    assert limits.usable_cores() == cores
    assert limits.memory_limit_bytes() == (cap or psutil.virtual_memory().total)


def test_without_a_word_of_proc_the_root_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc/self/cgroup cannot be read the mount's root is still asked."""
    put_groups(tmp_path, monkeypatch, "", {"memory.max": MIB})
    monkeypatch.setattr(limits, "OWN_CGROUPS", tmp_path / "none")
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


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, None)],
)
def test_waits_are_short_unless_the_user_decides(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: str | None
) -> None:
    """Either variable of the user's stays alone."""
    monkeypatch.setattr(os, "environ", environment)
    limits.wait_briefly()
    assert environment.get("GOMP_SPINCOUNT") == wanted
