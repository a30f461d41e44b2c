# SPDX-License-Identifier: Apache-2.0
"""NDPI's directories: those of a TIFF, with the high halves of offsets put behind them.

What differs from TIFF 6.0: offsets of directories are 64 bits long; behind a directory's
last offset lie 32 more bits of each entry's value; ASCII lies out of line even where it
is short. Values are read when they are asked for, and every range is checked: McuStarts
of a large slide are megabytes.

Sources: openslide.org/formats/hamamatsu; TIFF 6.0.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.probe import DAMAGED

HEADER = b"II*\0"
FILE_FORMAT = 65420
MAX_DIRECTORIES = 2000
MAX_ENTRIES = 4096
MAX_TEXT = 1 << 20
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 7, 9, 11, 12
TYPES = {BYTE: "u1", ASCII: "S1", SHORT: "<u2", LONG: "<u4", UNDEFINED: "u1", SLONG: "<i4",
         FLOAT: "<f4", DOUBLE: "<f8", RATIONAL: "<u8"}  # fmt: skip
"""TIFF's field types as numpy's; a rational's low half is the numerator."""


@dataclass(frozen=True, slots=True)
class Entry:
    kind: int
    count: int
    value: bytes  # eight bytes: the value itself, or the offset of it


@dataclass(frozen=True, eq=False)
class Directory:
    """One image's tags, in a file open as ``descriptor``. Absent tags are None or empty."""

    descriptor: int
    size_bytes: int
    number: int
    entries: Mapping[int, Entry]

    def numbers(self, tag: int, most: int = MAX_TEXT) -> NDArray[np.float64] | NDArray[np.uint64] | None:
        """A tag's values; None if it is absent, of an unknown type or of more than ``most``
        values. Raises DamagedSlide when they lie beyond the file."""
        data = self._data(tag, most)
        if data is None:
            return None
        kind = self.entries[tag].kind
        if kind == RATIONAL:
            pairs = np.frombuffer(data, "<u4").reshape(-1, 2).astype(np.float64)
            return np.divide(pairs[:, 0], pairs[:, 1], out=np.zeros(len(pairs)), where=pairs[:, 1] != 0)
        raw = np.frombuffer(data, np.uint8 if kind == ASCII else TYPES[kind])
        return raw.astype(np.float64) if kind in (FLOAT, DOUBLE, SLONG) else raw.astype(np.uint64)

    def number_of(self, tag: int) -> float | None:
        """The first value, when it is finite."""
        values = self.numbers(tag)
        return float(values[0]) if values is not None and len(values) and np.isfinite(values[0]) else None

    def integer(self, tag: int) -> int | None:
        """The one value of an integer tag, with its high half."""
        entry = self.entries.get(tag)
        if entry is None or entry.count != 1:
            return None
        if entry.kind == LONG:
            return int.from_bytes(entry.value, "little")
        value = self.number_of(tag)
        return None if value is None else int(value)

    def count(self, tag: int) -> int:
        return self.entries[tag].count if tag in self.entries else 0

    def text(self, tag: int) -> str:
        """An ASCII tag's text, in UTF-8 or else in Latin-1."""
        entry = self.entries.get(tag)
        data = self._data(tag, MAX_TEXT) if entry is not None and entry.kind == ASCII else None
        if not data:
            return ""
        data = data.split(b"\0", 1)[0]
        try:
            return data.decode().strip()
        except UnicodeDecodeError:
            return data.decode("latin-1").strip()

    def raw(self, tag: int, most: int) -> bytes:
        """A tag's bytes; empty if it is absent or longer than ``most`` values."""
        return self._data(tag, most) or b""

    def _data(self, tag: int, most: int) -> bytes | None:
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in TYPES or entry.count > most:
            return None
        length = entry.count * np.dtype(TYPES[entry.kind]).itemsize
        if length <= 4 and entry.kind != ASCII:
            return entry.value[:length]
        offset = int.from_bytes(entry.value, "little")
        if offset > self.size_bytes or length > self.size_bytes - offset:
            raise DamagedSlide(f"a tag of page {self.number} lies beyond the end of the file")
        return os.pread(self.descriptor, length, offset)


def why_no_ndpi(descriptor: int, size_bytes: int) -> str | None:
    """None for a file whose first directory bears NDPI's tag, else the reason."""
    head = os.pread(descriptor, 12, 0)
    if len(head) < 12 or head[:4] != HEADER:
        return "not a little-endian TIFF"
    (offset,) = struct.unpack_from("<Q", head, 4)
    try:
        first, _ = read_directory(descriptor, size_bytes, offset, 0)
    except DamagedSlide:
        return f"{DAMAGED}, or one with other offsets than NDPI's"
    return None if FILE_FORMAT in first.entries else f"TIFF tag {FILE_FORMAT} is absent"


def read_directory(descriptor: int, size_bytes: int, offset: int, number: int) -> tuple[Directory, int]:
    """The directory at ``offset``, and the offset of the next one (0: none)."""
    broken = DamagedSlide(f"the file ends, or its directory breaks off, at page {number}")
    if not 8 <= offset <= size_bytes - 2:
        raise broken
    (count,) = struct.unpack("<H", os.pread(descriptor, 2, offset))
    data = os.pread(descriptor, 16 * count + 8, offset + 2)
    if not 0 < count <= MAX_ENTRIES or len(data) < 16 * count + 8:
        raise broken
    (following,) = struct.unpack_from("<Q", data, 12 * count)
    entries: dict[int, Entry] = {}
    for index in range(count):
        tag, kind, values = struct.unpack_from("<HHI", data, 12 * index)
        high = 12 * count + 8 + 4 * index
        value = data[12 * index + 8 : 12 * index + 12] + data[high : high + 4]
        entries.setdefault(tag, Entry(kind, values, value))
    return Directory(descriptor, size_bytes, number, entries), following


def read_directories(descriptor: int, size_bytes: int) -> Sequence[Directory]:
    """All directories, in the file's order. Raises DamagedSlide when the chain breaks off or
    never ends."""
    (offset,) = struct.unpack("<Q", os.pread(descriptor, 8, 4).ljust(8, b"\0"))
    found: list[Directory] = []
    while offset or not found:
        if len(found) == MAX_DIRECTORIES:
            raise DamagedSlide(f"more than {MAX_DIRECTORIES} pages")
        directory, offset = read_directory(descriptor, size_bytes, offset, len(found))
        found.append(directory)
    return tuple(found)
