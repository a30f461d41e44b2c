# SPDX-License-Identifier: Apache-2.0
"""The storage protocol: bytes under a key, written once, durable on return.

A new back end is one module beside ``local.py``, a :class:`Storage` that passes
``tests/contracts/storage.py``, and one line in ``gateway/compose.py``.

Errors, the same for all back ends and without any local path in their message:
``StorageFull`` (no space or quota), ``StorageFailed`` (the medium refused), ``Damaged``
(an object that should be there is missing, too short, or has other content).
"""

import errno
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from archive.errors import ArchiveError, StorageFailed, StorageFull

MAX_KEY_LENGTH = 512

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class StoredFile(Protocol):
    """One stored object, open for reading; close it, or use it as a context manager."""

    size: int  # in bytes

    def fileno(self) -> int:
        """A descriptor for positioned reads; never move its offset."""

    def pread(self, offset: int, length: int) -> bytes:
        """One positioned read: at most ``length`` bytes, fewer only at the end."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Storage(Protocol):
    """Objects under keys. Keys are content digests or hashed UIDs, never a peer's
    string: ASCII, relative, ``/`` between segments (:func:`check_key`)."""

    def put_file(self, key: str, path: Path, *, sha256: bytes) -> None:
        """Take over a complete local file; it is gone from ``path`` afterwards.

        On return the object is on stable storage, name included. Readers see nothing
        or all of it. A key is written once: the same content again is success, other
        content is ``Damaged`` and changes nothing. On the store's own file system
        nothing is copied and ``sha256`` is trusted; elsewhere it is checked.
        """

    def put_bytes(self, key: str, data: bytes) -> None:
        """The same for a small byte string."""

    def open(self, key: str) -> StoredFile: ...

    def open_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """One byte string for each (start, length), in the order asked, from 0.

        All ranges are checked against the size before the first is given (``Damaged``)."""

    def stat(self, key: str) -> int | None:
        """Size in bytes; None when there is no such object."""

    def delete(self, key: str) -> None:
        """Remove it durably; no object is no error."""

    def sweep(self, older_than_s: float) -> int:
        """Remove unfinished writes that are older; returns how many."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with ``prefix``, sorted as ASCII."""

    def modified(self, key: str) -> float:
        """Seconds since the epoch at which it was written."""

    def free_bytes(self) -> int | None:
        """Space left; None where that has no meaning."""

    def local_path(self, key: str) -> Path:
        """A path that a library can open for reading, valid while the object is."""


def check_key(key: str) -> str:
    """The key itself. ValueError for one that is not ASCII, not relative, too long, or
    has an empty segment or one that starts with a dot (``..`` among them)."""
    segments = key.split("/")
    if len(key) > MAX_KEY_LENGTH or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise ValueError("not a storage key")
    return key


def check_ranges(size: int, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether all (start, length) lie within an object of ``size`` bytes."""
    return all(start >= 0 and length >= 0 and start + length <= size for start, length in ranges)


def refusal(error: OSError, doing: str) -> ArchiveError:
    """What an operating system's error means here: full, or failed. The message has
    the error's symbol (``EIO``) and no path: both end up in logs and answers."""
    symbol = errno.errorcode.get(error.errno or 0, "unknown error")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"no space left while {doing} ({symbol})")
    return StorageFailed(f"the storage refused while {doing} ({symbol})")
