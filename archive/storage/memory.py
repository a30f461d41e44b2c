# SPDX-License-Identifier: Apache-2.0
"""Objects in memory, for tests: the same promises, but for durability."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from archive.errors import Damaged
from archive.storage.base import check_key, check_ranges
from archive.storage.local import LocalFile


class MemoryStorage:
    """:class:`archive.storage.base.Storage` in this process's memory."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._paths: dict[str, LocalFile] = {}  # kept open so that the path stays valid
        self._lock = threading.Lock()

    def put_file(self, key: str, path: Path, *, sha256: bytes) -> None:
        data = path.read_bytes()
        if hashlib.sha256(data).digest() != sha256:
            raise Damaged("the file to store differs from its digest")
        self.put_bytes(key, data)
        path.unlink()

    def put_bytes(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            kept, _ = self._objects.setdefault(key, (bytes(data), time.time()))
        if kept != data:
            raise Damaged("another content is stored under the same key")

    def open(self, key: str) -> LocalFile:
        data = self._data(key)
        fd = os.memfd_create("object", os.MFD_CLOEXEC)
        with open(os.dup(fd), "wb") as file:
            file.write(data)
        return LocalFile(fd, len(data))

    def open_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        data = self._data(key)
        if not check_ranges(len(data), ranges):
            raise Damaged("a stored object is shorter than its index says")
        return (data[start : start + length] for start, length in ranges)

    def stat(self, key: str) -> int | None:
        found = self._objects.get(check_key(key))
        return None if found is None else len(found[0])

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(check_key(key), None)
            kept = self._paths.pop(key, None)
        if kept is not None:
            kept.close()

    def sweep(self, older_than_s: float) -> int:
        return 0  # nothing is ever unfinished

    def keys(self, prefix: str = "") -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        return iter(sorted(key for key in list(self._objects) if key.startswith(prefix)))

    def modified(self, key: str) -> float:
        self._data(key)
        return self._objects[key][1]

    def free_bytes(self) -> int | None:
        return None

    def local_path(self, key: str) -> Path:
        file = self._paths.get(check_key(key))
        if file is None:
            file = self.open(key)
            file = self._paths.setdefault(key, file)
        return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")

    def _data(self, key: str) -> bytes:
        found = self._objects.get(check_key(key))
        if found is None:
            raise Damaged("a stored object is missing")
        return found[0]
