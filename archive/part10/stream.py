# SPDX-License-Identifier: Apache-2.0
"""The synthesised Part 10 stream: header, bulk values and frames, joined again.

``GET instance``, C-MOVE, ``export`` and ``convert`` write these bytes, so the same
header revision gives the same bytes at every door.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archive.part10.bulk import PIXEL_DATA, BulkValue, split_path
from archive.part10.errors import Malformed, TooLarge
from archive.part10.frame_table import FrameTable, Kind, Range, Segment
from archive.part10.meta import read_meta, with_transfer_syntax
from archive.part10.normal_form import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    element_header,
    read_element,
    tag_name,
)
from archive.part10.placing import insertion_points
from archive.part10.syntaxes import EXPLICIT, NATIVE
from archive.part10.vr import LONG_MASK

_AT_ONCE = 4096
_ITEM = struct.Struct("<HHI")
_MAX_VALUE = 0xFFFFFFFE
_BITS_ALLOCATED = 0x00280100


@dataclass(frozen=True, slots=True)
class _Insertion:
    """Bytes that belong between two elements of the header. ``opening`` stands before the
    first frame, where it is encapsulated pixel data."""

    path: tuple[int, ...]
    length: int
    parts: Callable[[], Iterable[Segment]]
    opening: bytes = b""


class Part10Stream:
    """A Part 10 file as parts to be written one after another.

    ``header`` is Part 10 bytes in normal form, as ``scan_file`` and ``encode_header``
    make them: since its sequences have undefined lengths, nested ``bulk`` values are put
    back in their places without any length to mend. ``transfer_syntax_uid`` is that of
    the frames, and is written into group 2; where it is one of the native ones, the
    stream is in Explicit VR Little Endian (see the attribute of that name).

    Frames come from ``frame_table``; a pixel data value in ``bulk`` then only gives tag
    and VR. Encapsulated: one fragment a frame, one 00 pad if odd, a sequence delimiter;
    a basic offset table, or, when an offset reaches 2^32, an empty one and the extended
    offset table with unpadded lengths (PS3.5 A.4, PS3.3 C.7.6.3.1.8). Native: one value
    (``TooLarge`` from 2^32 - 1 bytes on). Without a table, pixel data in ``bulk`` are
    copied like any other bulk value, as ranges of blob 0.

    ``length`` is that of all parts together, known before the first. Raises
    ``Malformed`` for a header that is none, or a bulk value whose place it lacks.
    """

    length: int
    transfer_syntax_uid: str

    def __init__(
        self,
        header: bytes,
        transfer_syntax_uid: str,
        frame_table: FrameTable | None,
        bulk: Sequence[BulkValue] = (),
    ) -> None:
        native = transfer_syntax_uid in NATIVE
        self.transfer_syntax_uid = EXPLICIT if native else transfer_syntax_uid
        self._header = with_transfer_syntax(header, self.transfer_syntax_uid)
        start = read_meta(self._header).data_set_offset
        self._table = frame_table
        insertions = []
        pixel_data: BulkValue | None = None
        for value in bulk:
            if value.is_pixel_data and frame_table is not None:
                pixel_data = value
            else:
                insertions.append(_bulk_insertion(value))
        if frame_table is not None:
            if native:
                insertions.append(self._native(frame_table, pixel_data, start))
            else:
                insertions += self._encapsulated(frame_table)
        insertions.sort(key=lambda insertion: insertion.path)
        points = insertion_points(self._header, start, [insertion.path for insertion in insertions])
        self._insertions = list(zip(points, insertions, strict=True))
        for point, insertion in self._insertions:
            tag = insertion.path[-1]
            if self._header[point : point + 4] == struct.pack("<HH", tag >> 16, tag & 0xFFFF):
                raise Malformed(f"the header has {tag_name(tag)} already")
        self.length = len(self._header) + sum(insertion.length for insertion in insertions)

    def parts(self) -> Iterator[bytes | Range]:
        """The stream's bytes, in order: literals, and ranges of the instance's blobs.
        Neighbouring ranges are one, neighbouring literals too; none is empty."""
        return _joined(self._pieces())

    def lead(self) -> bytes:
        """All that stands before the first frame's item; of encapsulated frames only.
        Raises ``ValueError`` for others."""
        done, before = 0, b""
        for point, insertion in self._insertions:
            before += self._header[done:point]
            done = point
            if insertion.opening:
                return before + insertion.opening
            for part in insertion.parts():
                if isinstance(part, Range):
                    raise ValueError("a value before the frames lies in a blob")
                before += part
        raise ValueError("there are no encapsulated frames")

    def _pieces(self) -> Iterator[Segment]:
        done = 0
        for point, insertion in self._insertions:
            yield self._header[done:point]
            yield from insertion.parts()
            done = point
        yield self._header[done:]

    # ---- pixel data ------------------------------------------------------------------

    def _native(self, table: FrameTable, pixel_data: BulkValue | None, start: int) -> _Insertion:
        tag = PIXEL_DATA if pixel_data is None else pixel_data.tag
        if pixel_data is not None and pixel_data.vr.encode("ascii") in LONG_MASK:
            vr = pixel_data.vr.encode("ascii")
        else:
            vr = b"OW" if _bits_allocated(self._header, start) > 8 else b"OB"
        whole: Range | None = None
        if table.kind is Kind.BITS:
            _, _, bits = table.bits(0)
            whole = table.bits_range._replace(length=(bits * table.count + 7) // 8)
            length = whole.length
        else:
            length = int(np.frombuffer(table.lengths(), dtype=np.uint64).sum())
        if length > _MAX_VALUE:
            raise TooLarge("native pixel data of 4 GiB or more have no encoding")
        padding = length % 2
        opening = element_header(tag, vr, length + padding)

        def parts() -> Iterator[Segment]:
            yield opening
            if whole is not None:
                yield whole
            else:
                for frame in _frames(table):
                    yield from frame
            yield bytes(padding)

        return _Insertion((tag,), len(opening) + length + padding, parts)

    def _encapsulated(self, table: FrameTable) -> list[_Insertion]:
        if table.kind is Kind.BITS:
            raise Malformed("frames of a bits table cannot be encapsulated")
        lengths = np.frombuffer(table.lengths(), dtype=np.uint64)
        padded = lengths + (lengths & np.uint64(1))
        if padded.size and int(padded.max()) > _MAX_VALUE:
            raise TooLarge("a frame of 4 GiB or more has no encoding as one fragment")
        ends = np.cumsum(padded + np.uint64(8), dtype=np.uint64)
        total = int(ends[-1]) if ends.size else 0
        offsets = np.concatenate((np.zeros(min(1, ends.size), dtype=np.uint64), ends[:-1]))
        insertions = []
        basic = b""
        if offsets.size and int(offsets[-1]) >= 1 << 32:
            for tag, values in ((EXTENDED_OFFSETS, offsets), (EXTENDED_LENGTHS, lengths)):
                insertions.append(_literal_insertion(tag, b"OV", values.astype("<u8").tobytes()))
        else:
            basic = offsets.astype("<u4").tobytes()
        opening = element_header(PIXEL_DATA, b"OB", UNDEFINED)
        opening += _ITEM.pack(0xFFFE, 0xE000, len(basic)) + basic

        def parts() -> Iterator[Segment]:
            yield opening
            pad = b""
            item = _ITEM.pack
            sizes = chain.from_iterable(part.tolist() for part in _in_parts(lengths))
            for size, frame in zip(sizes, _frames(table), strict=True):
                odd = size & 1
                yield pad + item(0xFFFE, 0xE000, size + odd)
                yield from frame
                pad = b"\x00" if odd else b""
            yield pad + SEQUENCE_DELIMITER

        length = len(opening) + total + len(SEQUENCE_DELIMITER)
        insertions.append(_Insertion((PIXEL_DATA,), length, parts, opening))
        return insertions


def _frames(table: FrameTable) -> Iterator[Sequence[Segment]]:
    """Every frame's segments, cheaper than one by one."""
    if table.kind is not Kind.DIRECT:
        for index in range(table.count):
            yield table.segments(index)
        return
    prefixes = table.prefixes
    for entries in _in_parts(table.direct_entries()):
        rows = zip(
            (entries["offset"] + entries["skip"]).tolist(),
            (entries["length"] - entries["skip"]).tolist(),
            entries["blob"].tolist(),
            entries["prefix"].tolist(),
            strict=True,
        )
        for offset, length, blob_index, prefix_id in rows:
            body = Range(blob_index, offset, length)
            prefix = prefixes[prefix_id]
            yield (prefix, body) if prefix else (body,)


def _in_parts(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some at a time: as Python's numbers all of them would take much memory."""
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE]


def _joined(pieces: Iterable[Segment]) -> Iterator[Segment]:
    """Neighbours of one kind made one, empty ones left out."""
    literals: list[bytes] = []
    pending: Range | None = None
    for piece in pieces:
        if isinstance(piece, Range):
            if not piece.length:
                continue
            if literals:
                yield b"".join(literals)
                literals.clear()
            if pending is not None:
                blob_index, offset, length = pending
                if piece.blob_index == blob_index and piece.offset == offset + length:
                    pending = Range(blob_index, offset, length + piece.length)
                    continue
                yield pending
            pending = piece
        elif piece:
            if pending is not None:
                yield pending
                pending = None
            literals.append(piece)
    if pending is not None:
        yield pending
    if literals:
        yield b"".join(literals)


def _bulk_insertion(value: BulkValue) -> _Insertion:
    try:
        path = split_path(value.path)
    except ValueError as problem:
        raise Malformed("a bulk value has no path") from problem
    padding = value.length % 2
    vr = value.vr.encode("ascii")
    opening = element_header(value.tag, vr, UNDEFINED if value.encapsulated else value.length + padding)
    body = Range(0, value.offset, value.length)
    pad = b"\x00" if vr in LONG_MASK and vr not in (b"UC", b"UR", b"UT") else b" "
    pieces: tuple[Segment, ...] = (opening, body, pad * padding)
    return _Insertion(path, len(opening) + value.length + padding, lambda: pieces)


def _literal_insertion(tag: int, vr: bytes, value: bytes) -> _Insertion:
    if len(value) > _MAX_VALUE:
        raise TooLarge("an offset table of 4 GiB or more has no encoding")
    whole = element_header(tag, vr, len(value)) + value
    return _Insertion((tag,), len(whole), lambda: (whole,))


def _bits_allocated(header: bytes, start: int) -> int:
    """Bits Allocated of a header, 8 where absent."""
    (point,) = insertion_points(header, start, [(_BITS_ALLOCATED,)])
    if point < len(header):
        tag, _, value, end = read_element(header, point)
        if tag == _BITS_ALLOCATED and end - value == 2:
            return int.from_bytes(header[value:end], "little")
    return 8
