# SPDX-License-Identifier: Apache-2.0
"""The frame table, format v1: where each frame's bytes lie in an instance's blobs.

All integers are little endian. A header of 80 bytes::

    4s   magic "CSFT"
    u16  version, 1
    u8   kind: 1 direct, 2 gather, 3 bits
    u8   0
    u64  count: number of frames
    u64  rows: rows of the second array (gather: segments; else 0)
    u64  heap offset, from the table's first byte
    u64  heap length
    32s  SHA-256 of all that follows the header
    u32  0
    u32  CRC-32 of the 76 bytes before

then the body:

* ``direct``: ``count`` entries of 17 bytes: u64 offset, u32 length, u16 prefix id,
  u16 skip, u8 blob index. Frame = prefix + range[skip:]. Heap: u16 number of prefixes,
  a u32 length for each, their bytes.
* ``gather``: ``count + 1`` u64, the first segment of each frame; then ``rows`` segments
  of 18 bytes: u64 offset, u64 length, u8 blob index, u8 literal. A literal's offset
  counts in the heap. Frame = its segments, joined.
* ``bits``: one entry: u64 offset, u64 length, u64 bits in a frame, u8 blob index. Frame
  n starts at bit n x bits, least significant bit of a byte first (PS3.5 8.1.1).

Frame indexes count from 0.
"""

import hashlib
import os
import struct
import zlib
from array import array
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archive.part10.errors import Malformed, Truncated

MAGIC = b"CSFT"
VERSION = 1
_HEADER = struct.Struct("<4sHBBQQQQ32sI")
_HEADER_SIZE = _HEADER.size + 4
_DIRECT = struct.Struct("<QIHHB")
_SEGMENT = struct.Struct("<QQBB")
_BITS = struct.Struct("<QQQB")
_INDEX_PAIR = struct.Struct("<QQ")
_DIRECT_TYPE = np.dtype(
    [("offset", "<u8"), ("length", "<u4"), ("prefix", "<u2"), ("skip", "<u2"), ("blob", "u1")]
)
_SEGMENT_TYPE = np.dtype([("offset", "<u8"), ("length", "<u8"), ("blob", "u1"), ("literal", "u1")])
_MAX_HEAP = 1 << 32

_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class Kind(IntEnum):
    """How a table addresses its frames."""

    DIRECT = 1
    GATHER = 2
    BITS = 3


class Range(NamedTuple):
    """``length`` bytes at ``offset`` of blob number ``blob_index`` of the instance."""

    blob_index: int
    offset: int
    length: int


Segment = bytes | Range
"""A piece of a frame: literal bytes, or a range of a blob."""


class _Source(Protocol):
    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset`` of the table, or ``Truncated``."""


class _Memory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > len(self._data):
            raise Truncated("frame table ends early")
        return self._data[offset : offset + length]


class _File:
    def __init__(self, fd: int, offset: int, length: int) -> None:
        self._fd, self._offset, self._length = fd, offset, length

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self._length:
            raise Truncated("frame table ends early")
        data = os.pread(self._fd, length, self._offset + offset)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), self._offset + offset + len(data))
            if not more:
                raise Truncated("frame table ends early")
            data += more
        return data

    def read_now(self, offset: int, length: int) -> bytearray | None:
        return read_now(self._fd, self._offset + offset, length)


def read_now(fd: int, offset: int, length: int) -> bytearray | None:
    """``length`` bytes of a file if the page cache holds them all (``preadv2`` with
    RWF_NOWAIT, Linux); None when one would have to wait, or cannot know."""
    if not _NOWAIT:
        return None
    data = bytearray(length)
    try:
        return data if os.preadv(fd, (data,), offset, _NOWAIT) == length else None
    except OSError:
        return None


def _table(kind: Kind, count: int, rows: int, arrays: bytes, heap: bytes) -> bytes:
    body = arrays + heap
    header = _HEADER.pack(
        MAGIC, VERSION, kind, 0, count, rows, _HEADER_SIZE + len(arrays), len(heap),
        hashlib.sha256(body).digest(), 0,
    )  # fmt: skip
    return header + struct.pack("<I", zlib.crc32(header)) + body


def encode_direct(
    offsets: ArrayLike,
    lengths: ArrayLike,
    *,
    blob_index: int | ArrayLike = 0,
    prefixes: Sequence[bytes] = (),
    prefix_ids: ArrayLike | None = None,
    skips: ArrayLike | None = None,
) -> bytes:
    """A ``direct`` table: frame n = ``prefixes[prefix_ids[n]] + range[skips[n]:]``.

    ``offsets`` and ``lengths`` (bytes, whole range with what is skipped) are arrays of
    equal size: ``array('Q')``, numpy or lists. ``prefix_ids`` index ``prefixes`` from
    0 and default to 0, so one prefix alone is every frame's; put ``b""`` among the
    prefixes for frames without any. ``skips`` and ``blob_index`` are one number for
    all, or an array. Raises ``ValueError`` for what does not fit the format: a length
    of 4 GiB or more is for :func:`encode_gather`.
    """
    starts = _integers(offsets, "offsets", 1 << 64)
    entries = np.zeros(starts.shape, dtype=_DIRECT_TYPE)
    entries["offset"] = starts
    entries["length"] = _integers(lengths, "lengths", 1 << 32, starts.size)
    entries["blob"] = _integers(blob_index, "blob_index", 256, starts.size)
    if skips is not None:
        entries["skip"] = _integers(skips, "skips", 1 << 16, starts.size)
        if np.any(entries["skip"] > entries["length"]):
            raise ValueError("a skip exceeds its range's length")
    if len(prefixes) > 1 << 16:
        raise ValueError("more than 65,536 prefixes")
    table = list(prefixes) or [b""]
    if prefix_ids is not None:
        entries["prefix"] = _integers(prefix_ids, "prefix_ids", len(table), starts.size)
    heap = struct.pack(f"<H{len(table)}I", len(table) & 0xFFFF, *map(len, table)) + b"".join(table)
    return _table(Kind.DIRECT, starts.size, 0, entries.tobytes(), heap)


def _integers(values: ArrayLike, name: str, bound: int, size: int | None = None) -> NDArray[np.uint64]:
    """``values`` as u64, all below ``bound``; one number is repeated to ``size``."""
    given = np.asarray(values)
    if given.size and given.dtype.kind not in "iu":
        raise ValueError(f"{name} are not integers")
    if given.dtype.kind == "i" and np.any(given < 0):
        raise ValueError(f"{name} are negative")
    result = given.astype(np.uint64)
    if bound < 1 << 64 and np.any(result >= np.uint64(bound)):
        raise ValueError(f"{name} are not below {bound}")
    if size is not None:
        if result.ndim == 0:
            return np.full(size, result, dtype=np.uint64)
        if result.shape != (size,):
            raise ValueError(f"{name}: {result.size} values for {size} frames")
    elif result.ndim != 1:
        raise ValueError(f"{name} is not a list")
    return result


def encode_gather(frames: Iterable[Sequence[Segment]]) -> bytes:
    """A ``gather`` table: each frame is its segments joined. Equal literals are kept
    once. Raises ``ValueError`` for what does not fit the format."""
    index = array("Q", [0])
    segments = bytearray()
    heap = bytearray()
    literals: dict[bytes, int] = {}
    rows = 0
    pack = _SEGMENT.pack
    for frame in frames:
        for segment in frame:
            if isinstance(segment, Range):
                blob_index, offset, length = segment
                try:
                    segments += pack(offset, length, blob_index, 0)
                except struct.error as problem:
                    raise ValueError("a segment does not fit the frame table") from problem
            else:
                start = literals.get(segment)
                if start is None:
                    literals[segment] = start = len(heap)
                    heap += segment
                segments += pack(start, len(segment), 0, 1)
        rows += len(frame)
        index.append(rows)
    if index.itemsize != 8 or len(heap) >= _MAX_HEAP:
        raise ValueError("the literals do not fit the frame table")
    arrays = np.frombuffer(index, dtype=np.uint64).astype("<u8").tobytes() + bytes(segments)
    return _table(Kind.GATHER, len(index) - 1, rows, arrays, bytes(heap))


def encode_gathered(
    index: ArrayLike,
    offsets: ArrayLike,
    lengths: ArrayLike,
    literal: ArrayLike,
    literals: bytes,
    *,
    blob_index: int | ArrayLike = 0,
) -> bytes:
    """A ``gather`` table from arrays, for frames of very many segments: frame n is the
    segments ``index[n]`` to ``index[n + 1]``; segment s is ``lengths[s]`` bytes at
    ``offsets[s]`` of ``literals`` where ``literal[s]``, else of its blob. Raises
    ``ValueError`` for what does not fit the format.
    """
    first = _integers(index, "index", 1 << 64)
    starts = _integers(offsets, "offsets", 1 << 64)
    if not first.size or first[0] != 0 or np.any(first[1:] < first[:-1]) or first[-1] != starts.size:
        raise ValueError("the index does not fit the segments")
    if len(literals) >= _MAX_HEAP:
        raise ValueError("the literals do not fit the frame table")
    segments = np.zeros(starts.shape, dtype=_SEGMENT_TYPE)
    segments["offset"] = starts
    segments["length"] = _integers(lengths, "lengths", 1 << 64, starts.size)
    segments["literal"] = np.broadcast_to(np.asarray(literal, dtype=np.bool_), starts.shape)
    blobs = _integers(blob_index, "blob_index", 256, starts.size)
    segments["blob"] = np.where(segments["literal"] == 1, np.uint64(0), blobs)
    inside = segments["literal"] == 1
    if np.any(segments["offset"][inside] + segments["length"][inside] > len(literals)):
        raise ValueError("a literal lies outside of the literals")
    arrays = first.astype("<u8").tobytes() + segments.tobytes()
    return _table(Kind.GATHER, first.size - 1, starts.size, arrays, literals)


def sliced(table: "FrameTable", start: int, stop: int) -> bytes:
    """Frames ``start`` to ``stop`` (from 0, ``stop`` excluded) of a ``direct`` or
    ``gather`` table as a table of their own, over the same blobs. ``IndexError`` for
    frames that ``table`` lacks, ``ValueError`` for a ``bits`` table."""
    if not 0 <= start <= stop <= table.count:
        raise IndexError(f"frames {start} to {stop} of {table.count}")
    if table.kind is Kind.GATHER:
        return encode_gather(map(table.segments, range(start, stop)))
    entries = table.direct_entries()[start:stop]
    return encode_direct(
        entries["offset"],
        entries["length"],
        blob_index=entries["blob"],
        prefixes=table.prefixes,
        prefix_ids=entries["prefix"],
        skips=entries["skip"],
    )


def encode_bits(count: int, bits_per_frame: int, *, offset: int, length: int, blob_index: int = 0) -> bytes:
    """A ``bits`` table: ``count`` frames of ``bits_per_frame`` bits, one after another
    without padding between, in ``length`` bytes at ``offset`` of a blob."""
    if bits_per_frame < 1 or count < 0 or count * bits_per_frame > length * 8:
        raise ValueError("the frames do not fit the range")
    try:
        entry = _BITS.pack(offset, length, bits_per_frame, blob_index)
    except struct.error as problem:
        raise ValueError("the range does not fit the frame table") from problem
    return _table(Kind.BITS, count, 0, entry, b"")


def repack(data: bytes, first_bit: int, bit_count: int) -> bytes:
    """``bit_count`` bits of ``data`` from ``first_bit`` on, moved to bit 0 of byte 0,
    the rest of the last byte 0; least significant bit first (PS3.5 8.1.1)."""
    if first_bit < 0 or bit_count < 0 or first_bit + bit_count > len(data) * 8:
        raise ValueError("more bits than the data holds")
    first, shift = divmod(first_bit, 8)
    if not shift and not bit_count % 8:
        return bytes(data[first : first + bit_count // 8])
    bits = np.unpackbits(
        np.frombuffer(data, dtype=np.uint8)[first:], count=shift + bit_count, bitorder="little"
    )
    return np.packbits(bits[shift:], bitorder="little").tobytes()


class FrameTable:
    """A frame table to read: whole in memory, or entry by entry from a file.

    Thread-safe: reads are positioned and nothing is kept between them.
    """

    def __init__(self, source: _Source, size: int) -> None:
        """Use :meth:`from_bytes` or :meth:`open`."""
        if size < _HEADER_SIZE:
            raise Truncated("frame table is shorter than its header")
        header = source.read(0, _HEADER_SIZE)
        (magic, version, kind, _, count, rows, heap_offset, heap_length, digest, _) = _HEADER.unpack_from(
            header
        )
        if magic != MAGIC:
            raise Malformed("not a frame table")
        if version != VERSION:
            raise Malformed(f"frame table version {version} is not known")
        if zlib.crc32(header[:-4]) != struct.unpack_from("<I", header, _HEADER.size)[0]:
            raise Malformed("frame table header is damaged")
        try:
            self.kind = Kind(kind)
        except ValueError:
            raise Malformed(f"frame table kind {kind} is not known") from None
        self.count: int = count
        self._source, self._size, self._digest, self._rows = source, size, digest, rows
        arrays = {
            Kind.DIRECT: count * _DIRECT.size,
            Kind.GATHER: (count + 1) * 8 + rows * _SEGMENT.size,
            Kind.BITS: _BITS.size,
        }[self.kind]
        if heap_offset != _HEADER_SIZE + arrays:
            raise Malformed("frame table header contradicts itself")
        if heap_offset + heap_length != size:
            raise Truncated("frame table is not as long as its header says")
        self._heap_offset, self._heap_length = heap_offset, heap_length
        self._segments_offset = _HEADER_SIZE + (count + 1) * 8
        self._prefixes: list[bytes] = self._read_prefixes() if self.kind is Kind.DIRECT else []
        self._bits_entry = (0, 0, 1, 0)
        if self.kind is Kind.BITS:
            self._bits_entry = _BITS.unpack(source.read(_HEADER_SIZE, _BITS.size))
            _, length, bits, _ = self._bits_entry
            if not bits or count * bits > length * 8:
                raise Malformed("frame table: the frames exceed their range")

    @classmethod
    def from_bytes(cls, data: bytes) -> "FrameTable":
        """A table in memory. Checks magic, version and both checksums; raises
        ``Malformed`` or ``Truncated``."""
        table = cls(_Memory(bytes(data)), len(data))
        table.verify()
        return table

    @classmethod
    def open(cls, fd: int, offset: int, length: int) -> "FrameTable":
        """A table of ``length`` bytes at ``offset`` of a file, whose descriptor stays
        the caller's. Checks the header now, the body only by :meth:`verify`; each entry
        is one ``pread``."""
        return cls(_File(fd, offset, length), length)

    def verify(self) -> None:
        """Compare the body with its SHA-256; raises ``Malformed`` or ``Truncated``."""
        digest = hashlib.sha256()
        for start in range(_HEADER_SIZE, self._size, 1 << 20):
            digest.update(self._source.read(start, min(1 << 20, self._size - start)))
        if digest.digest() != self._digest:
            raise Malformed("frame table is damaged")

    def segments(self, index: int) -> tuple[Segment, ...]:
        """Frame ``index`` (from 0) as literals and ranges, to be joined. ``IndexError``
        beyond the last; ``ValueError`` for a ``bits`` table (see :meth:`bits`)."""
        self._check(index)
        if self.kind is Kind.DIRECT:
            return self._direct(_DIRECT.unpack(self._source.read(_HEADER_SIZE + index * 17, 17)))
        if self.kind is Kind.BITS:
            raise ValueError("frames of a bits table are not whole bytes")
        first, last = _INDEX_PAIR.unpack(self._source.read(_HEADER_SIZE + index * 8, 16))
        if not first <= last <= self._rows:
            raise Malformed("frame table: an index is out of order")
        rows = self._source.read(self._segments_offset + first * 18, (last - first) * 18)
        return tuple(map(self._gathered, _SEGMENT.iter_unpack(rows)))

    def segments_now(self, index: int) -> tuple[Segment, ...] | None:
        """:meth:`segments` of a ``direct`` table in a file, if the page cache holds the entry;
        else None. ``IndexError`` beyond the last."""
        self._check(index)
        source = self._source
        if self.kind is not Kind.DIRECT or not isinstance(source, _File):
            return None
        entry = source.read_now(_HEADER_SIZE + index * 17, 17)
        return None if entry is None else self._direct(_DIRECT.unpack(entry))

    def bits(self, index: int) -> tuple[Range, int, int]:
        """Frame ``index`` of a ``bits`` table: the bytes that hold it, its first bit in
        them (0 to 7) and its number of bits; for :func:`repack`."""
        self._check(index)
        if self.kind is not Kind.BITS:
            raise ValueError("not a bits table")
        offset, _, bits, blob_index = self._bits_entry
        first_byte, first_bit = divmod(index * bits, 8)
        return Range(blob_index, offset + first_byte, (first_bit + bits + 7) // 8), first_bit, bits

    @property
    def bits_range(self) -> Range:
        """All bytes of a ``bits`` table, padding included."""
        if self.kind is not Kind.BITS:
            raise ValueError("not a bits table")
        offset, length, _, blob_index = self._bits_entry
        return Range(blob_index, offset, length)

    def frame_length(self, index: int) -> int:
        """Bytes of frame ``index`` as it is served."""
        self._check(index)
        if self.kind is Kind.BITS:
            return int(self._bits_entry[2] + 7) // 8
        return sum(s.length if isinstance(s, Range) else len(s) for s in self.segments(index))

    def lengths(self) -> "array[int]":
        """Bytes of every frame as it is served, in order, as ``array('Q')``."""
        if self.kind is Kind.BITS:
            return array("Q", repeat(self.frame_length(0), self.count)) if self.count else array("Q")
        if self.kind is Kind.DIRECT:
            entries = self.direct_entries()
            sizes = np.array([len(p) for p in self._prefixes], dtype=np.uint64)
            self._check_prefixes(entries)
            result = entries["length"].astype(np.uint64) - entries["skip"] + sizes[entries["prefix"]]
        else:
            index, segments = self._gather_arrays()
            sums = np.concatenate(([0], np.cumsum(segments["length"], dtype=np.uint64)))
            result = sums[index[1:]] - sums[index[:-1]]
        lengths = array("Q")
        lengths.frombytes(result.astype(np.uint64).tobytes())
        return lengths

    def direct_entries(self) -> NDArray[np.void]:
        """All entries of a ``direct`` table, as a structured array with the fields
        offset, length, prefix, skip and blob; for bulk work."""
        if self.kind is not Kind.DIRECT:
            raise ValueError("not a direct table")
        data = self._source.read(_HEADER_SIZE, self.count * _DIRECT.size)
        return np.frombuffer(data, dtype=_DIRECT_TYPE)

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """What entries of a ``direct`` table begin with, by prefix id."""
        return tuple(self._prefixes)

    def gathered(self) -> tuple[NDArray[np.uint64], NDArray[np.void], bytes]:
        """All of a ``gather`` table, for bulk work: the first segment of each frame and one
        more, the segments with the fields offset, length, blob and literal, and what
        literals are of. Raises ``Malformed`` where a literal lies outside."""
        if self.kind is not Kind.GATHER:
            raise ValueError("not a gather table")
        index, segments = self._gather_arrays()
        inside = segments["literal"] != 0
        if np.any(segments["offset"][inside] + segments["length"][inside] > self._heap_length):
            raise Malformed("frame table: a literal lies outside of the heap")
        return index, segments, self._source.read(self._heap_offset, self._heap_length)

    def _gather_arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
        index = np.frombuffer(self._source.read(_HEADER_SIZE, (self.count + 1) * 8), dtype="<u8")
        if index[0] != 0 or np.any(index[1:] < index[:-1]) or index[-1] != self._rows:
            raise Malformed("frame table: the index is out of order")
        data = self._source.read(self._segments_offset, self._rows * _SEGMENT.size)
        return index, np.frombuffer(data, dtype=_SEGMENT_TYPE)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise IndexError(f"frame index {index} of {self.count}")

    def _check_prefixes(self, entries: NDArray[np.void]) -> None:
        if np.any(entries["prefix"] >= len(self._prefixes)) or np.any(entries["skip"] > entries["length"]):
            raise Malformed("frame table: an entry contradicts itself")

    def _direct(self, entry: tuple[int, ...]) -> tuple[Segment, ...]:
        offset, length, prefix_id, skip, blob_index = entry
        if prefix_id >= len(self._prefixes) or skip > length:
            raise Malformed("frame table: an entry contradicts itself")
        prefix = self._prefixes[prefix_id]
        body = Range(blob_index, offset + skip, length - skip)
        return (prefix, body) if prefix else (body,)

    def _gathered(self, row: tuple[int, ...]) -> Segment:
        offset, length, blob_index, literal = row
        if not literal:
            return Range(blob_index, offset, length)
        if offset + length > self._heap_length:
            raise Malformed("frame table: a literal lies outside of the heap")
        return self._source.read(self._heap_offset + offset, length)

    def _read_prefixes(self) -> list[bytes]:
        heap = self._source.read(self._heap_offset, self._heap_length)
        if len(heap) < 2:
            raise Truncated("frame table has no prefixes")
        count = struct.unpack_from("<H", heap)[0] or 1 << 16
        if 2 + 4 * count > len(heap):
            raise Truncated("frame table: the prefixes end early")
        prefixes = []
        position = 2 + 4 * count
        for length in struct.unpack_from(f"<{count}I", heap, 2):
            prefixes.append(heap[position : position + length])
            position += length
        if position != len(heap):
            raise Malformed("frame table: the prefixes are not as long as declared")
        return prefixes
