# SPDX-License-Identifier: Apache-2.0
"""Open stored files, kept and shared: a frame read costs no open and no close."""

import threading
from collections import OrderedDict
from collections.abc import Iterator

from archive.storage.base import Storage, StoredFile

READ_BYTES = 1 << 20


class OpenFile:
    """A stored file that closes itself when nobody holds it any more.

    The cache drops its reference on eviction; a reader in another thread still holds
    one, so no descriptor is closed under a positioned read.
    """

    __slots__ = ("_file", "pread", "size")

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self.pread = file.pread
        self.size = file.size

    def fileno(self) -> int:
        """For positioned reads; hold this object as long as the descriptor is used."""
        return self._file.fileno()

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` bytes in pieces of at most 1 MiB."""
        while length > 0:
            piece = self.pread(offset, min(length, READ_BYTES))
            if not piece:
                return
            yield piece
            offset += len(piece)
            length -= len(piece)

    def __del__(self) -> None:
        self._file.close()


class OpenFiles:
    """The most recently used stored files of this process, by key."""

    def __init__(self, storage: Storage, capacity: int = 256) -> None:
        self._storage = storage
        self._capacity = capacity
        self._lock = threading.Lock()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self.hits = self.misses = 0

    def get(self, key: str) -> OpenFile:
        """Raises Damaged when the object is missing."""
        with self._lock:
            file = self._files.get(key)
            if file is not None:
                self._files.move_to_end(key)
                self.hits += 1
                return file
        opened = OpenFile(self._storage.open(key))
        with self._lock:
            self.misses += 1
            self._files[key] = opened
            while len(self._files) > self._capacity:
                self._files.popitem(last=False)
        return opened

    def drop(self, key: str) -> None:
        with self._lock:
            self._files.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._files.clear()
