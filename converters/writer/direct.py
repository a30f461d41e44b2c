# SPDX-License-Identifier: Apache-2.0
"""A large file written from its first byte to its last past the system's page cache, where
the file system can: no copy, no cache that gives way for a night's slides, and no fsync
that has everything to do.
"""

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from archive.part10.writeback import start_writeback

ALIGNMENT = 4096
BUFFER_BYTES = 1 << 20  # a multiple of any block
_BUFFERS = 3
_FLUSH_BYTES = 64 << 20


class DirectFile:
    """A new file of ``path``, whose first ``reserved`` bytes are told at the end. Raises
    OSError, from any call (disk full)."""

    def __init__(self, path: Path, reserved: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._direct = _past_the_cache(path)
        self._reserved = reserved
        self._start = reserved - reserved % ALIGNMENT  # of the buffer, in the file
        self._used = reserved - self._start
        self._first = b""  # what follows the reserved bytes in their last block
        self._buffers: list[mmap.mmap] = []
        self._writing: list[Future[None] | None] = [None] * _BUFFERS
        self._turn = self._unflushed = 0
        self._thread = ThreadPoolExecutor(1, "write")

    @property
    def position(self) -> int:
        """Where the next byte goes."""
        return self._start + self._used

    def append(self, *parts: bytes | memoryview) -> None:
        if not self._buffers:
            self._buffers = [mmap.mmap(-1, BUFFER_BYTES) for _ in range(_BUFFERS)]
        buffer, used = self._buffers[self._turn], self._used
        for part in parts:
            end = used + len(part)
            if end > BUFFER_BYTES:
                self._used = used
                self._append_over(memoryview(part))
                buffer, used = self._buffers[self._turn], self._used
            else:
                buffer[used:end] = part
                used = end
        self._used = used

    def _append_over(self, view: memoryview) -> None:
        """What needs more than the buffer's rest."""
        while view:
            room = min(BUFFER_BYTES - self._used, len(view))
            self._buffers[self._turn][self._used : self._used + room] = view[:room]
            self._used += room
            view = view[room:]
            if self._used == BUFFER_BYTES:
                self._next()

    def finish(self, lead: bytes) -> None:
        """The reserved bytes and what is left; on return all of it is durable."""
        self._wait()
        if self._used:
            with memoryview(self._buffers[self._turn] if self._buffers else b"") as view:
                begin = max(0, self._reserved - self._start)
                _write_all(self._fd, view[begin : self._used], self._start + begin)
        _write_all(self._fd, memoryview(lead + self._first), 0)
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            self._thread.shutdown(wait=True)
            os.close(self._fd)
            if self._direct >= 0:
                os.close(self._direct)
            self._fd = self._direct = -1
            self._buffers.clear()

    def _next(self) -> None:
        """The buffer is full: have it written, and go on with one that was."""
        skipped = max(0, self._reserved - self._start)
        if skipped:
            self._first = bytes(self._buffers[self._turn][skipped:ALIGNMENT])
        begin = ALIGNMENT if skipped else 0
        job = self._thread.submit(self._write, self._turn, begin, self._start + begin)
        self._writing[self._turn] = job
        self._start += BUFFER_BYTES
        self._used = 0
        self._turn = (self._turn + 1) % _BUFFERS
        before = self._writing[self._turn]
        if before is not None:
            before.result()

    def _write(self, turn: int, begin: int, position: int) -> None:
        with memoryview(self._buffers[turn]) as view:
            if self._direct >= 0:
                written = self._write_direct(view[begin:], position)
                if written == BUFFER_BYTES - begin:
                    return
                begin, position = begin + written, position + written
            _write_all(self._fd, view[begin:], position)
        self._unflushed += BUFFER_BYTES
        if self._unflushed >= _FLUSH_BYTES:
            self._unflushed = 0
            start_writeback(self._fd)

    def _write_direct(self, view: memoryview, position: int) -> int:
        try:
            return os.pwrite(self._direct, view, position)
        except OSError as error:
            if error.errno != errno.EINVAL:  # other blocks than ours
                raise
            return 0

    def _wait(self) -> None:
        for job in self._writing:
            if job is not None:
                job.result()


def _past_the_cache(path: Path) -> int:
    """A second descriptor of the file; -1 where the file system has none of the kind."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except (AttributeError, OSError):
        return -1


def _write_all(fd: int, view: memoryview, position: int) -> None:
    while view:
        written = os.pwrite(fd, view, position)
        view, position = view[written:], position + written
