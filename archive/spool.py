# SPDX-License-Identifier: Apache-2.0
"""The spool: files on their way in, on the store's own file system.

Bytes that arrive are written here, hashed in a thread beside the writing, and
then *renamed* into the blob store: nothing is copied twice.
"""

import contextlib
import errno
import hashlib
import mmap
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from archive.errors import SourceChanged, StorageFailed, StorageFull, Unreadable
from archive.part10.writeback import start_writeback
from archive.processes import own_name

CHUNK_BYTES = 1 << 20
_INLINE_BYTES = 1 << 20  # smaller files are hashed by the writer itself
_FLUSH_BYTES = 64 << 20  # start write-back early, so that the last fsync is short
_STEP_BYTES = 8 << 20
_WINDOW_BYTES = 32 << 20  # a multiple of any page size


Seen = Callable[[int, memoryview], int]
"""Who is shown a copy's bytes from a position on, all that follow those shown before; gives the
position from where on they are to be shown again, at most their end. They are gone afterwards."""


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A complete file of the spool (a ``values.StagedFile``); the store makes it durable."""

    path: Path
    size_bytes: int
    sha256: bytes


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the medium's refusals into ours; no path goes into the message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("no space left in the store") from error
        raise StorageFailed(f"the store cannot be written: {os.strerror(error.errno or 0)}") from error


class _Hasher:
    """SHA-256 in a thread of its own, at most four chunks behind the writer."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._queue: queue.Queue[bytes | memoryview | None] = queue.Queue(4)
        self._thread: threading.Thread | None = None
        self._seen = 0

    def update(self, data: bytes | memoryview) -> None:
        self._seen += len(data)
        if self._thread is None and self._seen <= _INLINE_BYTES:
            self._digest.update(data)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
            self._thread.start()
        self._queue.put(data)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._digest.update(data)

    def digest(self) -> bytes:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        return self._digest.digest()


class Staging:
    """A spool file being written. Use as a context manager: what is not finished is
    removed. ``write`` may be called from one thread at a time."""

    def __init__(self, path: Path, size_hint: int = 0) -> None:
        self._path = path
        self._hasher = _Hasher()
        self.size_bytes = 0
        self._unflushed = 0
        self._finished = False
        with storage_errors():
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if size_hint:
            try:
                with storage_errors():
                    _reserve(self._fd, size_hint)
            except BaseException:  # also when interrupted: nothing stays behind
                self.discard()
                raise

    def write(self, data: bytes | memoryview) -> None:
        """Append; the bytes must not change afterwards. Raises StorageFull, StorageFailed."""
        self._hasher.update(data)
        view = memoryview(data)
        with storage_errors():
            while view:
                written = os.write(self._fd, view)
                view = view[written:]
        self.size_bytes += len(data)
        self._unflushed += len(data)
        if self._unflushed >= _FLUSH_BYTES:
            self._unflushed = 0
            start_writeback(self._fd)

    def finish(self) -> SpoolFile:
        """All is written: the file is ready to be stored, which will make it durable."""
        with storage_errors():
            os.ftruncate(self._fd, self.size_bytes)
            os.close(self._fd)
        self._fd = -1
        self._finished = True
        return SpoolFile(self._path, self.size_bytes, self._hasher.digest())

    def discard(self) -> None:
        """Remove the file; harmless after :meth:`finish` has been consumed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._hasher.digest()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished or kind is not None:
            self.discard()


def _reserve(fd: int, size_bytes: int) -> None:
    """Reserve space so that a full disk is known before the first byte."""
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def hash_file(path: Path, *, chunk_bytes: int = CHUNK_BYTES) -> bytes:
    """SHA-256 of a file, in constant memory."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").digest()


class Spool:
    """A folder on the store's file system; every file in it is nobody's after a crash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storage_errors():
            folder.mkdir(parents=True, exist_ok=True)

    def new_path(self, suffix: str = ".part") -> Path:
        """A fresh name, for those that must write a file themselves."""
        return self.folder / f"{own_name()}-{uuid.uuid4().hex}{suffix}"

    def stage(self, size_hint: int = 0) -> Staging:
        """A new file to write to; ``size_hint`` bytes are reserved first (StorageFull)."""
        return Staging(self.new_path(), size_hint)

    def adopt(self, path: Path, sha256: bytes | None = None) -> SpoolFile:
        """A file that somebody else wrote in the spool: fsynced and hashed here.

        ``sha256`` is taken where the writer hashed it already.
        """
        with storage_errors():
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                digest: list[bytes] = [sha256] if sha256 is not None else []
                hashing = threading.Thread(target=lambda: digest.append(hash_file(path)), name="sha256")
                if sha256 is None:
                    hashing.start()
                os.fsync(fd)
                if sha256 is None:
                    hashing.join()
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)
        if not digest:
            raise StorageFailed("the received file cannot be read back")
        return SpoolFile(path, size, digest[0])

    def copy(
        self,
        source: Path,
        progress: Callable[[int], None] | None = None,
        meanwhile: Callable[[Path], None] | None = None,
        target: Path | None = None,
        seen: Seen | None = None,
    ) -> SpoolFile:
        """Copy a file into the spool, hashed beside the copy; to ``target``, a path there
        that is free, where its name matters to who reads it.

        ``progress`` is called with the bytes copied so far; ``meanwhile`` with the copy's
        path once all its bytes are there, beside the rest of hashing and the fsync. What it
        raises is raised here, and the copy is removed. ``seen`` is shown the copy's bytes
        as they are hashed, in the thread that does it. Raises SourceChanged when
        size or modification time moved meanwhile, Unreadable when it cannot be read.
        """
        try:
            file = source.open("rb", buffering=0)
        except OSError as error:
            raise Unreadable(f"the file cannot be opened: {os.strerror(error.errno or 0)}") from error
        with file:
            before = os.fstat(file.fileno())
            path = target or self.new_path()
            try:
                digest, size = _copy(file.fileno(), before.st_size, path, progress, meanwhile, seen)
                after = os.stat(source)
                if _identity(before) != _identity(after) or size != before.st_size:
                    raise SourceChanged("the file changed while it was copied")
            except BaseException:  # also when interrupted: nothing stays behind
                path.unlink(missing_ok=True)
                raise
            return SpoolFile(path, size, digest)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Follower:
    """SHA-256 of a file that is being written, by a thread that reads behind the writer:
    the digest is that of the copy, not of what it was copied from."""

    def __init__(self, fd: int, seen: Seen | None = None) -> None:
        self._fd, self._seen = fd, seen
        self._written = self._wanted = 0
        self._over = False
        self._moved = threading.Condition()
        self._digest = hashlib.sha256()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
        self._thread.start()

    def advance(self, written: int) -> None:
        with self._moved:
            self._written = written
            self._moved.notify()

    def _run(self) -> None:
        position = 0
        try:
            while True:
                with self._moved:
                    while self._written - position < _WINDOW_BYTES and not self._over:
                        self._moved.wait()
                    ready = self._written
                if position >= ready:
                    return
                while position < ready and (ready - position >= _WINDOW_BYTES or self._over):
                    step = min(_WINDOW_BYTES, ready - position)
                    self._hash(position, step)
                    position += step
        except Exception as error:  # noqa: BLE001 - whatever it is, the digest is not that of the copy
            self._failure = OSError(errno.EIO, str(error)) if isinstance(error, ValueError) else error

    def _hash(self, position: int, length: int) -> None:
        # Mapped, not read: no copy, and one long call without the interpreter's lock, which
        # a busy thread would otherwise keep from us after every short one.
        with mmap.mmap(self._fd, length, access=mmap.ACCESS_READ, offset=position) as window:
            self._digest.update(window)
        if self._seen is not None:
            start = self._wanted - self._wanted % mmap.ALLOCATIONGRANULARITY
            end = position + length
            with (
                mmap.mmap(self._fd, end - start, access=mmap.ACCESS_READ, offset=start) as window,
                memoryview(window) as whole,
                whole[self._wanted - start :] as shown,
            ):
                self._wanted = self._seen(self._wanted, shown)

    def stop(self) -> None:
        """End the thread: all that was announced is hashed, more will not come."""
        with self._moved:
            self._over = True
            self._moved.notify()
        self._thread.join()

    def finish(self) -> bytes:
        """All is written: the digest. Raises OSError if the copy cannot be read back, and
        what an onlooker raised."""
        self.stop()
        if self._failure is not None:
            raise self._failure
        return self._digest.digest()


def _copy(
    source: int,
    size_hint: int,
    path: Path,
    progress: Callable[[int], None] | None,
    meanwhile: Callable[[Path], None] | None,
    seen: Seen | None,
) -> tuple[bytes, int]:
    """Copy within the kernel where it can; returns SHA-256 and size of the copy, fsynced."""
    with storage_errors():
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, target)
        with storage_errors():
            _reserve(target, size_hint)
        follower = _Follower(target, seen)
        stack.callback(follower.stop)
        copied = flushed = 0
        # One byte more than was there is enough to see that the file grows.
        while copied <= size_hint and (step := _copy_step(source, target, copied)):
            copied += step
            follower.advance(copied)
            if copied - flushed >= _FLUSH_BYTES:
                flushed = copied
                start_writeback(target)
            if progress is not None:
                progress(copied)
        with storage_errors():
            os.ftruncate(target, copied)
        if meanwhile is None:
            with storage_errors():
                os.fsync(target)
        else:
            syncing = stack.enter_context(ThreadPoolExecutor(1, "fsync")).submit(os.fsync, target)
            meanwhile(path)
            with storage_errors():
                syncing.result()
        with storage_errors():
            return follower.finish(), copied


def _copy_step(source: int, target: int, position: int) -> int:
    """Copy some bytes at ``position``; 0 at the end of the source."""
    try:
        copied = os.copy_file_range(source, target, _STEP_BYTES, position, position)
        if copied:
            return copied  # some file systems say 0 without being at the end: that is read for
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StorageFull("no space left in the store") from error
            raise Unreadable(f"the file cannot be copied: {os.strerror(error.errno or 0)}") from error
    try:
        data = os.pread(source, CHUNK_BYTES, position)
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {os.strerror(error.errno or 0)}") from error
    with storage_errors():
        done = 0
        while done < len(data):
            done += os.pwrite(target, data[done:], position + done)
    return len(data)
