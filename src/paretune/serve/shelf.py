"""Bundles on disk under their digests: copied in whole or not at all, read and checked again on every use.

Not here: which of them answer (`registry.py`), nor what a bundle holds (`bundle.py`). Layout of a home:
`adapters/DIGEST/`, `inbox/ID/` (the operator puts bundles there), `index.json`, `aliases.json`, `receipts.key`, `lock`.

    shelf = Shelf(Path("store")); digest = shelf.put(Path("emotions-bundle")); shelf.fetch(digest).manifest.labels
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from paretune.core.errors import BundleError, StorageError, said
from paretune.serve.bundle import Bundle, read_bundle
from paretune.serve.names import is_digest, is_id

KEY_FILE = "receipts.key"
_PART = ".part-"


class Shelf:
    """The bundles of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.adapters = home / "adapters"
        self.inbox = home / "inbox"

    def prepare(self) -> None:
        """Make the folders and remove what a killed process left half copied.

        Raises:
            StorageError: the home cannot be written.
        """
        try:
            for folder in (self.adapters, self.inbox):
                folder.mkdir(parents=True, exist_ok=True)
            for left in self.adapters.glob(f"{_PART}*"):
                shutil.rmtree(left)
        except OSError as error:
            raise StorageError(f"the store {self.home} cannot be written: {error.strerror}") from error

    def seal_key(self) -> bytes | None:
        """The secret that receipts of this store are sealed with; None where no server ever opened it.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            return bytes.fromhex((self.home / KEY_FILE).read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            given = f"{self.home / KEY_FILE} cannot be read ({type(error).__name__})"
            raise StorageError(said(given, "the key of this store's receipts")) from None

    def make_seal_key(self) -> bytes:
        """As `seal_key`, made where there is none.

        Raises:
            StorageError: it can be neither read nor written.
        """
        key = self.seal_key()
        if key is not None:
            return key
        key = secrets.token_bytes(32)
        try:
            handle = os.open(self.home / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(key.hex())
        except OSError as error:
            raise StorageError(f"the store {self.home} cannot be written: {error.strerror}") from error
        return key

    def has(self, digest: str) -> bool:
        return is_digest(digest) and (self.adapters / digest).is_dir()

    def fetch(self, digest: str) -> Bundle:
        """A bundle by its digest, with all its files checked.

        Raises:
            BundleError: not there, damaged, or of another digest.
        """
        if not self.has(digest):
            raise BundleError(said(f"no bundle {digest[:64]!r} in the store", "a digest that was loaded before"))
        bundle = _read(self.adapters / digest)
        if bundle.digest != digest:
            raise BundleError(said(f"the bundle in {digest[:12]} has digest {bundle.digest[:12]}", "the same digest"))
        return bundle

    def put(self, source: Path) -> str:
        """As `taken`, untried; returns the digest."""
        with self.taken(source) as bundle:
            return bundle.digest

    @contextlib.contextmanager
    def taken(self, source: Path) -> Generator[Bundle]:
        """Copy a bundle in, to be tried within the block: it stays only where the block ends without an exception.

        The copy is checked, not the source: a source that changes meanwhile cannot slip in. One that is there already
        and whole stays as it is, whatever the block says.

        Raises:
            BundleError: not a bundle, or not whole.
            StorageError: the disk is full or the home cannot be written; nothing is left behind.
        """
        known = self._known(_read(source).digest)
        if known is not None:
            yield known
            return
        part: Path | None = None
        try:
            with self._storing():
                part = Path(tempfile.mkdtemp(prefix=_PART, dir=self.adapters))
                part.chmod(0o755)
                for file in sorted(source.iterdir()):
                    _copy(file, part / file.name)
            bundle = _read(part)
            yield bundle
            with self._storing():
                shutil.rmtree(self.adapters / bundle.digest, ignore_errors=True)  # a damaged copy
                part.rename(self.adapters / bundle.digest)
        finally:
            if part is not None and part.exists():
                shutil.rmtree(part, ignore_errors=True)

    def _known(self, digest: str) -> Bundle | None:
        with contextlib.suppress(BundleError):
            return self.fetch(digest)
        return None

    @contextlib.contextmanager
    def _storing(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"the store cannot take the bundle: {error.strerror or error}") from error

    def remove(self, digest: str) -> None:
        """Take a bundle out of the store; what a process that is killed meanwhile leaves is swept by the next one."""
        if self.has(digest):
            with self._storing():
                gone = Path(tempfile.mkdtemp(prefix=_PART, dir=self.adapters))
                os.rename(self.adapters / digest, gone / digest)
                shutil.rmtree(gone)

    def in_inbox(self, name: str) -> Path | None:
        """The folder that the operator put into the inbox under an id; None where there is none.

        Raises:
            BundleError: it is a link, or leads out of the inbox.
        """
        if not is_id(name):
            return None
        folder = self.inbox / name
        if folder.is_symlink() or (folder.exists() and folder.resolve().parent != self.inbox.resolve()):
            raise BundleError(said(f"{name!r} in the inbox is a link", "a folder"))
        return folder if folder.is_dir() else None


def _read(folder: Path) -> Bundle:
    """`read_bundle`, where what the file system itself says is a BundleError too."""
    try:
        return read_bundle(folder)
    except BundleError:
        raise
    except OSError as error:
        raise BundleError(
            said(f"bundle {folder.name[:64]!r} cannot be read: {error.strerror}", "a readable folder")
        ) from error


def _copy(source: Path, target: Path) -> None:
    """Contents only; a link is not followed."""
    handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file, target.open("xb") as copy:
        try:
            shutil.copyfileobj(file, copy, 1 << 20)
        except IsADirectoryError:
            raise OSError(errno.EINVAL, "a folder inside a bundle") from None
        copy.flush()
        os.fsync(copy.fileno())
