# SPDX-License-Identifier: Apache-2.0
"""A stream of literals and ranges of files, joined into pieces worth a system call each.

Tiles are ten or twenty kilobytes and mostly lie in order: a file is read ahead as long as
what is asked for follows what was read, and not at all where tiles are scattered.
"""

import os
from collections.abc import Iterable, Iterator, Sequence

from archive.part10.frame_table import Range
from converters.errors import DamagedSlide

PIECE_BYTES = 1 << 20
_NEAR_BYTES = 1 << 16  # from the end of one range to the start of the next


def pieces(parts: Iterable[bytes | Range], blobs: Sequence[int | bytes]) -> Iterator[bytes]:
    """The bytes of all parts, in order. ``blobs`` are descriptors of open files, or bytes;
    ranges count in them. A piece has at least PIECE_BYTES but for the last, and hardly
    more unless a literal is larger. Raises DamagedSlide when a blob ends early, OSError
    when it cannot be read."""
    windows = [_Window(blob) for blob in blobs]
    waiting: list[bytes | memoryview] = []
    size = 0
    for part in parts:
        if isinstance(part, bytes):
            waiting.append(part)
            size += len(part)
        else:
            window = windows[part.blob_index]
            offset, length = part.offset, part.length
            while length:
                found = window.read(offset, length)
                waiting.append(found)
                offset += len(found)
                length -= len(found)
                size += len(found)
                if size >= PIECE_BYTES:
                    yield b"".join(waiting)
                    waiting.clear()
                    size = 0
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if waiting:
        yield b"".join(waiting)


class _Window:
    """The part of a blob that was read last."""

    __slots__ = ("_ahead", "_blob", "_data", "_end", "_start")

    def __init__(self, blob: int | bytes) -> None:
        self._blob = blob
        self._data = memoryview(blob if isinstance(blob, bytes) else b"")
        self._start, self._end = 0, len(self._data)
        self._ahead = 0

    def read(self, offset: int, length: int) -> memoryview:
        """The first of these bytes, one at least."""
        if not self._start <= offset < self._end:
            self._fill(offset, length)
        at = offset - self._start
        return self._data[at : at + length]

    def _fill(self, offset: int, length: int) -> None:
        if isinstance(self._blob, bytes):
            raise DamagedSlide("a frame lies beyond the end of its bytes")
        follows = 0 <= offset - self._end < _NEAR_BYTES
        self._ahead = min(PIECE_BYTES, max(length, 2 * self._ahead if follows else 0))
        self._data = memoryview(os.pread(self._blob, self._ahead, offset))
        if not self._data:
            raise DamagedSlide("the slide's file became shorter while it was read")
        self._start, self._end = offset, offset + len(self._data)
