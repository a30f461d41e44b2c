# SPDX-License-Identifier: Apache-2.0
"""Whether a quiet file is all there: a stalled copy, or one whose size was set before its
bytes were written, looks quiet too.

Only what can be told without decoding: a DICOM file's elements, a TIFF's directories and
furthest tile, companions. Everything else counts as complete; its reader will say.
"""

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from archive.part10.errors import Part10Error, Truncated
from archive.part10.scan import scan_file
from converters.errors import ConversionError, MissingCompanion
from gateway.ingest.listing import companion_folders
from gateway.ingest.pipeline import companion_names

_MAX_DIRECTORIES = 1000
_MAX_TILES = 50_000_000
_PROBE_BYTES = 16
_PREFIX_AT = 128

_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_NUMBER_BYTES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # TIFF type -> size of an unsigned integer
_NUMBER_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class _Incomplete(Exception):
    """Something lies beyond the end of the file, or is not written yet."""


def why_incomplete(path: Path, settle_s: float = 0.0) -> str | None:
    """None when nothing is missing that we can see, else what is, in a few words.

    A slide's other files must be there too, and quiet for ``settle_s``. Raises OSError
    when the file cannot be read.
    """
    for name in companion_folders(path.name):
        if not (path.parent / name).is_dir():
            return "its companion folder is missing"
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        size_bytes = os.fstat(descriptor).st_size
        if not size_bytes:
            return "it is empty"
        head = os.pread(descriptor, _PREFIX_AT + 4, 0)
        if head[_PREFIX_AT:] == b"DICM":
            return _why_incomplete_part10(path)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            try:
                _check_tiff(descriptor, size_bytes, head)
            except _Incomplete as missing:
                return str(missing)
    return _why_companions_are_not_ready(path, settle_s)


def _why_companions_are_not_ready(path: Path, settle_s: float) -> str | None:
    try:
        names = companion_names(path)
    except MissingCompanion as missing:
        return str(missing)
    except ConversionError:
        return None  # it is all there, and wrong: its reader says how
    newest = max(((path.parent / name).stat().st_mtime for name in names), default=0.0)
    if time.time() - newest < settle_s:
        return "another file of the slide is being written"
    return None


def _why_incomplete_part10(path: Path) -> str | None:
    try:
        scan_file(path)
    except Truncated:
        return "the DICOM file is cut off"
    except Part10Error:
        return None  # it is all there, and wrong: the archive says how
    return None


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) < length:
        raise _Incomplete("the TIFF is cut off")
    return data


def _check_tiff(descriptor: int, size_bytes: int, head: bytes) -> None:
    order = "<" if head[:2] == b"II" else ">"
    is_big = head[2:4] in (b"+\0", b"\0+")
    for tags in _directories(descriptor, order, is_big, head):
        for offsets_tag, counts_tag in ((_TILE_OFFSETS, _TILE_COUNTS), (_STRIP_OFFSETS, _STRIP_COUNTS)):
            if offsets_tag in tags and counts_tag in tags:
                offsets, counts = tags[offsets_tag], tags[counts_tag]
                _check_furthest(descriptor, size_bytes, offsets, counts)


def _check_furthest(
    descriptor: int, size_bytes: int, offsets: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    furthest = max(zip(offsets, counts, strict=False), default=(0, 0), key=lambda tile: tile[0] + tile[1])
    offset, count = furthest
    if offset + count > size_bytes:
        raise _Incomplete("a tile lies beyond the end of the file")
    if count > _PROBE_BYTES:
        head = _read(descriptor, offset, _PROBE_BYTES)
        if not any(head) and not any(_read(descriptor, offset + count - _PROBE_BYTES, _PROBE_BYTES)):
            raise _Incomplete("the last tile is not written yet")


def _directories(
    descriptor: int, order: str, is_big: bool, head: bytes
) -> Iterator[dict[int, tuple[int, ...]]]:
    """Offsets and counts of each directory in the chain (TIFF 6.0 Section 2, BigTIFF)."""
    word = "Q" if is_big else "I"
    word_bytes = 8 if is_big else 4
    entry_bytes = 20 if is_big else 12
    if len(head) < 16:
        raise _Incomplete("the TIFF is cut off")
    (position,) = struct.unpack_from(order + word, head, 8 if is_big else 4)
    visited: set[int] = set()
    while position and position not in visited and len(visited) < _MAX_DIRECTORIES:
        visited.add(position)
        count_code = order + ("Q" if is_big else "H")
        (entries,) = struct.unpack(count_code, _read(descriptor, position, struct.calcsize(count_code)))
        start = position + struct.calcsize(count_code)
        if entries > 4096:
            return  # no directory has so many: not ours to judge
        table = _read(descriptor, start, entries * entry_bytes + word_bytes)
        tags: dict[int, tuple[int, ...]] = {}
        for index in range(entries):
            tag, kind = struct.unpack_from(order + "HH", table, index * entry_bytes)
            (count,) = struct.unpack_from(order + word, table, index * entry_bytes + 4)
            if tag in (_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS):
                value = table[index * entry_bytes + 4 + word_bytes : (index + 1) * entry_bytes]
                tags[tag] = _numbers(descriptor, order, word, kind, count, value)
        yield tags
        (position,) = struct.unpack_from(order + word, table, entries * entry_bytes)


def _numbers(descriptor: int, order: str, word: str, kind: int, count: int, value: bytes) -> tuple[int, ...]:
    size = _NUMBER_BYTES.get(kind)
    if size is None or count > _MAX_TILES:
        return ()
    if size * count > len(value):
        (offset,) = struct.unpack(order + word, value)
        value = _read(descriptor, offset, size * count)
    return struct.unpack(f"{order}{count}{_NUMBER_CODES[size]}", value[: size * count])
