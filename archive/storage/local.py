# SPDX-License-Identifier: Apache-2.0
"""Objects as files below one folder: ``ROOT/<key>``.

A put makes the file durable before it has its name: content fsynced, linked under its
key without overwriting, then every directory of the way fsynced. Unfinished copies live
in ``ROOT/.incoming`` and are no objects.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from archive.errors import Damaged
from archive.storage.base import check_key, check_ranges, refusal

_CHUNK = 1 << 20
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalFile:
    """A stored file, open; see :class:`archive.storage.base.StoredFile`."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def fileno(self) -> int:
        return self._fd

    def pread(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise refusal(error, "reading") from error

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A cache that drops the last reference must not leak the descriptor.
        self.close()


class LocalStorage:
    """:class:`archive.storage.base.Storage` on a local file system."""

    def __init__(self, root: Path) -> None:
        """Makes ``root`` if it is absent."""
        self._root = Path(root)
        self._incoming = self._root / ".incoming"
        # Directories whose own entry this process has seen durable. Another process
        # may have made one a moment ago and not synced it yet, so existence is not
        # enough for a promise.
        self._durable: set[Path] = set()
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            _sync_directory(self._root)
            _sync_directory(self._root.parent)
        except OSError as error:
            raise refusal(error, "opening the store") from error

    # ---- writing -------------------------------------------------------------

    def put_file(self, key: str, path: Path, *, sha256: bytes) -> None:
        target = self._path(key)
        try:
            made = self._make_directories(target.parent)
            _sync_file(path)
            self._sync_entries(made)
            if self._publish(path, target):
                return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise refusal(error, "writing") from error
            self._copy_in(path, target, sha256)
        else:
            self._accept_existing(target, os.stat(path).st_size, sha256)
        path.unlink(missing_ok=True)

    def put_bytes(self, key: str, data: bytes) -> None:
        target = self._path(key)
        try:
            made = self._make_directories(target.parent)
            part = self._new_part()
            try:
                with open(part, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._sync_entries(made)
                if self._publish(part, target):
                    return
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise refusal(error, "writing") from error
        self._accept_existing(target, len(data), hashlib.sha256(data).digest())

    def delete(self, key: str) -> None:
        target = self._path(key)
        try:
            target.unlink()
            _sync_directory(target.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise refusal(error, "deleting") from error

    def sweep(self, older_than_s: float) -> int:
        """Remove copies that a crash left unfinished; returns how many."""
        removed = 0
        limit = time.time() - older_than_s
        for entry in os.scandir(self._incoming):
            if entry.stat().st_mtime < limit:
                os.unlink(entry.path)
                removed += 1
        return removed

    # ---- reading -------------------------------------------------------------

    def open(self, key: str) -> LocalFile:
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._missing_or_refused(error, "opening") from error
        return LocalFile(fd, os.fstat(fd).st_size)

    def open_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        file = self.open(key)
        if not check_ranges(file.size, ranges):
            file.close()
            raise Damaged("a stored object is shorter than its index says")
        return _read_ranges(file, ranges)

    def stat(self, key: str) -> int | None:
        try:
            return self._path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise refusal(error, "reading") from error

    def keys(self, prefix: str = "") -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        return self._walk(folder, prefix)

    def modified(self, key: str) -> float:
        try:
            return self._path(key).stat().st_mtime
        except OSError as error:
            raise self._missing_or_refused(error, "reading") from error

    def free_bytes(self) -> int | None:
        try:
            found = os.statvfs(self._root)
        except OSError as error:
            raise refusal(error, "asking for free space") from error
        return found.f_bavail * found.f_frsize

    def local_path(self, key: str) -> Path:
        path = self._path(key)
        if not path.exists():
            raise Damaged("a stored object is missing")
        return path

    # ---- inside --------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _new_part(self) -> Path:
        return self._incoming / f"{os.getpid()}-{secrets.token_hex(12)}"

    def _make_directories(self, folder: Path) -> list[Path]:
        """Make what is missing between the root and ``folder``; those whose entries are
        not durable yet, from the root on. A file system with a journal makes them so with
        the content that is synced next, and has little left to do for each."""
        if folder in self._durable or folder == self._root:
            return []
        made = self._make_directories(folder.parent)
        folder.mkdir(exist_ok=True)
        return [*made, folder]

    def _sync_entries(self, made: Sequence[Path]) -> None:
        for folder in made:
            _sync_directory(folder.parent)
            self._durable.add(folder)

    def _publish(self, source: Path, target: Path) -> bool:
        """Give a durable file its name, durably. False when the name is taken."""
        os.chmod(source, 0o440)
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if not self._rename_alone(source, target):
                return False
        else:
            os.unlink(source)
        _sync_directory(target.parent)
        return True

    def _rename_alone(self, source: Path, target: Path) -> bool:
        """Rename without overwriting where the file system has no hard links: nobody
        else publishes while we hold the lock."""
        with open(self._incoming / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.exists():
                return False
            os.rename(source, target)
            return True

    def _copy_in(self, path: Path, target: Path, sha256: bytes) -> None:
        """Put a file that lives on another file system: copied, checked, published."""
        part = self._new_part()
        try:
            found = hashlib.sha256()
            with open(path, "rb") as source, open(part, "xb") as file:
                while chunk := source.read(_CHUNK):
                    found.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            if found.digest() != sha256:
                raise Damaged("the file to store differs from its digest")
            if not self._publish(part, target):
                self._accept_existing(target, size, sha256)
        except OSError as error:
            raise refusal(error, "writing") from error
        finally:
            part.unlink(missing_ok=True)

    def _accept_existing(self, target: Path, size: int, sha256: bytes) -> None:
        """Success if the object there is the same; it is read through, so that an
        acknowledgement never rests on a damaged copy."""
        try:
            with open(target, "rb") as file:
                same = os.fstat(file.fileno()).st_size == size
                same = same and hashlib.file_digest(file, "sha256").digest() == sha256
                os.fsync(file.fileno())
            _sync_directory(target.parent)
        except OSError as error:
            raise refusal(error, "comparing") from error
        if not same:
            raise Damaged("another content is stored under the same key")

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                found = sorted(
                    (entry.name + "/" if entry.is_dir() else entry.name)
                    for entry in entries
                    if not entry.name.startswith(".")
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise refusal(error, "listing") from error
        for name in found:
            key = f"{folder}/{name}" if folder else name
            if not key.startswith(prefix) and not prefix.startswith(key):
                continue
            if name.endswith("/"):
                yield from self._walk(key[:-1], prefix)
            elif key.startswith(prefix):
                yield key

    @staticmethod
    def _missing_or_refused(error: OSError, doing: str) -> Exception:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return Damaged("a stored object is missing")
        return refusal(error, doing)


def _read_ranges(file: LocalFile, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    with file:
        for start, length in ranges:
            data = file.pread(start, length)
            while len(data) < length:  # one read gives 2 GiB at most
                more = file.pread(start + len(data), length - len(data))
                if not more:
                    raise Damaged("a stored object is shorter than its index says")
                data += more
            yield data


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
