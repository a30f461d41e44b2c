# SPDX-License-Identifier: Apache-2.0
"""A blob that holds another one, its JPEG frames recompressed (docs/adr/0011).

Little endian::

    8s   magic "CSPACKED"
    u16  version, 1
    u16  flags, 0
    u32  0
    u64  count: number of frames
    u64  bytes of the first blob
    32s  SHA-256 of the first blob

then the first blob's bytes in their order: what lies between frames as it is, each frame
as a JPEG XL codestream (transfer syntax 1.2.840.10008.1.2.4.111), or as it is where that
would not be smaller; then an index of ``count`` entries of 24 bytes, to the end of the
blob: u64 offset of the frame in the first blob, u64 offset of its stored form here, u32
length of the frame, u32 length of its stored form. Equal lengths: as it is.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

from archive.errors import Damaged, StoreTooNew
from archive.files import READ_BYTES

MAGIC = b"CSPACKED"
VERSION = 1
_HEAD = struct.Struct("<8sHHIQQ32s")
_ENTRY = struct.Struct("<QQII")
_AHEAD = 4  # pieces restored at once, where somebody reads a whole blob

Given = TypeVar("Given")
Made = TypeVar("Made")


class Readable(Protocol):
    """A stored object: positioned reads."""

    @property
    def size(self) -> int: ...

    def pread(self, offset: int, length: int, /) -> bytes: ...


class Place(NamedTuple):
    """A frame in the first blob."""

    offset: int
    length: int


class _Entry(NamedTuple):
    offset: int  # in the first blob
    place: int  # in this one
    length: int  # in the first blob
    stored: int  # in this one


class _Part(NamedTuple):
    """``length`` bytes of the first blob from ``start`` on: of a frame, or between frames
    and then at ``place`` here."""

    start: int
    length: int
    place: int
    frame: _Entry | None


def ahead(work: Callable[[Given], Made], items: Iterable[Given], at_once: int = _AHEAD) -> Iterator[Made]:
    """``map`` with a few items worked on at once, results in order, and no more than twice
    as many of them waiting to be taken."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def pack(
    source: Readable,
    digest: bytes,
    places: Sequence[Place],
    squeeze: Callable[[bytes], bytes],
    write: Callable[[bytes], None],
) -> None:
    """Write the packed form of ``source``, whose SHA-256 is ``digest``.

    ``places`` are its frames, by offset, none overlapping another. ``squeeze`` gives a
    frame's JPEG XL codestream, from several threads; where that is not smaller the frame
    is kept as it is. Raises Damaged when the source ends early.
    """

    def squeezed(place: Place) -> tuple[Place, bytes]:
        frame = exactly(source, *place)
        smaller = squeeze(frame)
        return place, smaller if len(smaller) < len(frame) else frame

    write(_HEAD.pack(MAGIC, VERSION, 0, 0, len(places), source.size, digest))
    index = bytearray()
    done, position = 0, _HEAD.size
    for place, stored in ahead(squeezed, places):
        for piece in pieces(source, done, place.offset - done):
            write(piece)
        position += place.offset - done
        write(stored)
        index += _ENTRY.pack(place.offset, position, place.length, len(stored))
        position += len(stored)
        done = place.offset + place.length
    for piece in pieces(source, done, source.size - done):
        write(piece)
    write(bytes(index))


def pieces(source: Readable, offset: int, length: int) -> Iterator[bytes]:
    """``length`` bytes, 1 MiB at a time. Raises Damaged."""
    while length > 0:
        piece = exactly(source, offset, min(length, READ_BYTES))
        yield piece
        offset += len(piece)
        length -= len(piece)


def exactly(source: Readable, offset: int, length: int) -> bytes:
    """A positioned read of all that is asked. Raises Damaged."""
    data = source.pread(offset, length)
    if len(data) != length:
        raise Damaged("a stored blob ends early")
    return data


class PackedFile:
    """The first blob, read out of the one that holds it: same size, same bytes.

    Nothing is kept in memory but the file; an entry is found by positioned reads. Frames
    are restored by ``restore(codestream) -> JPEG``, one at a time by :meth:`pread` and
    :meth:`chunks`, a few at once by :meth:`chunks_ahead`. Thread-safe if ``restore`` is.
    """

    def __init__(self, file: Readable, restore: Callable[[bytes], bytes]) -> None:
        """Raises Damaged, StoreTooNew."""
        head = file.pread(0, _HEAD.size)
        if len(head) < _HEAD.size or head[:8] != MAGIC:
            raise Damaged("not a blob of recompressed frames")
        _, version, _, _, count, size, digest = _HEAD.unpack(head)
        if version > VERSION:
            raise StoreTooNew(f"recompressed frames of version {version}; this release reads up to {VERSION}")
        self._index = file.size - count * _ENTRY.size
        if self._index < _HEAD.size:
            raise Damaged("a blob of recompressed frames that is shorter than it says")
        self.size: int = size
        self.digest: bytes = digest
        self._file, self._restore, self._count = file, restore, count

    def pread(self, offset: int, length: int, /) -> bytes:
        """At most ``length`` bytes, fewer only at the end."""
        parts = list(self._parts(offset, length))
        return self._load(parts[0]) if len(parts) == 1 else b"".join(map(self._load, parts))

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes in pieces: of at most 1 MiB, or a frame."""
        return map(self._load, self._parts(offset, length))

    def chunks_ahead(self) -> Iterator[bytes]:
        """All bytes, the next few frames being restored meanwhile."""
        return ahead(self._load, self._parts(0, self.size))

    def stored(self, offset: int, length: int) -> bytes | None:
        """The JPEG XL codestream of the frame at this range of the first blob; None when
        there is none, or it was kept as it is."""
        index = self._first(offset)
        if index < self._count:
            entry = self._entry(index)
            if (entry.offset, entry.length) == (offset, length) and entry.stored != length:
                return exactly(self._file, entry.place, entry.stored)
        return None

    def _entry(self, index: int) -> _Entry:
        if index >= self._count:
            return _Entry(self.size, self._index, 0, 0)
        return _Entry(*_ENTRY.unpack(exactly(self._file, self._index + index * _ENTRY.size, _ENTRY.size)))

    def _first(self, offset: int) -> int:
        """Number of the first frame that ends behind ``offset``."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            entry = self._entry(middle)
            if entry.offset + entry.length > offset:
                high = middle
            else:
                low = middle + 1
        return low

    def _parts(self, start: int, length: int) -> Iterator[_Part]:
        end = min(start + length, self.size)
        if start >= end:
            return
        index = self._first(start)
        before = self._entry(index - 1) if index else _Entry(0, _HEAD.size, 0, 0)
        while start < end:
            entry = self._entry(index)
            done, place = before.offset + before.length, before.place + before.stored
            if entry.offset < done or entry.offset - done != entry.place - place:
                raise Damaged("the index of recompressed frames contradicts itself")
            while start < min(end, entry.offset):
                size = min(end, entry.offset, start + READ_BYTES) - start
                yield _Part(start, size, place + start - done, None)
                start += size
            if start < end:
                size = min(end, entry.offset + entry.length) - start
                if size <= 0:
                    raise Damaged("the index of recompressed frames contradicts itself")
                yield _Part(start, size, 0, entry)
                start += size
            before = entry
            index += 1

    def _load(self, part: _Part) -> bytes:
        entry = part.frame
        if entry is None:
            return exactly(self._file, part.place, part.length)
        if entry.stored == entry.length:
            return exactly(self._file, entry.place + part.start - entry.offset, part.length)
        frame = self._restore(exactly(self._file, entry.place, entry.stored))
        if len(frame) != entry.length:
            raise Damaged("a recompressed frame does not come back in its length")
        if part.length == entry.length:
            return frame
        first = part.start - entry.offset
        return frame[first : first + part.length]
