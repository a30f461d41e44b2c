# SPDX-License-Identifier: Apache-2.0
"""The palette of PALETTE COLOR images (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6, C.7.9.2).

Three tables of 8 or 16 bits an entry, plain or in segments, become one of RGB bytes. What
comes from outside is bounded: a palette has 65,536 entries at most, however few segments
say more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from archive.errors import CannotDecode

PALETTE_COLOR = "PALETTE COLOR"
MAX_ENTRIES = 1 << 16
MAX_OCTETS = 4 * MAX_ENTRIES
"""More than any table takes; no more of a value is needed."""

_COLOURS = ("Red", "Green", "Blue")
_DESCRIPTOR = 0x00281101
_DATA = 0x00281201
_SEGMENTED = 0x00281221
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2

Entries = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Palette:
    """``entries``: red, green and blue of each entry, a byte each. A pixel value up to
    ``first`` has the first entry, the next one the second; beyond the last it has the last."""

    first: int
    entries: bytes


def palette_of(head: Dataset, value_of: Callable[[int], bytes]) -> Palette:
    """The palette of an image. ``value_of`` gives the octets of a tag, little-endian, b""
    where it is absent. Raises CannotDecode for one that is missing or malformed."""
    tables = []
    first = 0
    for n, name in enumerate(_COLOURS):
        count, first, bits = _descriptor(head.get(_DESCRIPTOR + n), name)
        plain = value_of(_DATA + n)
        tables.append(
            _words(plain, count, bits) if plain else _expanded(value_of(_SEGMENTED + n), count, bits)
        )
    if len({table.size for table in tables}) != 1:
        raise CannotDecode("the tables of the palette differ in length")
    colours = np.stack(tables, axis=-1)
    # Tables of 16 bits that use the lower 8 only are met often enough to be told.
    return Palette(first, (colours >> (8 if colours.max() > 255 else 0)).astype(np.uint8).tobytes())


def _descriptor(element: object, name: str) -> tuple[int, int, int]:
    """Number of entries, first value mapped, bits of an entry."""
    value = getattr(element, "value", None)
    try:
        if not isinstance(value, Sequence) or len(value) != 3:
            raise ValueError
        count, first, bits = (int(one) for one in value)
    except (TypeError, ValueError):
        raise CannotDecode(f"the image has no {name} Palette Color Lookup Table Descriptor") from None
    if bits not in (8, 16):
        raise CannotDecode(f"the palette has {bits} bits an entry")
    return count % MAX_ENTRIES or MAX_ENTRIES, first, bits  # many entries, written as SS, are negative


def _words(data: bytes, count: int, bits: int) -> Entries:
    """A plain table. Its length tells how entries are stored: some have 8 bits each under a
    descriptor of 16, some a word for each of 8."""
    if len(data) >= 2 * count:
        return np.frombuffer(data, "<u2", count).astype(np.int64)
    if len(data) in (count, count + 1) or (bits == 8 and len(data) > count):
        return np.frombuffer(data, np.uint8, count).astype(np.int64)
    raise CannotDecode("the palette is shorter than its descriptor says")


def _expanded(data: bytes, count: int, bits: int) -> Entries:
    """A table of segments (C.7.9.2)."""
    if len(data) > MAX_OCTETS:
        raise CannotDecode("the segments of the palette take more room than the palette would")
    width = bits // 8
    fields = np.frombuffer(data[: len(data) // width * width], "<u2" if width == 2 else np.uint8)
    expansion = _Expansion(fields.tolist(), data, width, count)
    expansion.run(0, None)
    if expansion.size < count:
        raise CannotDecode("the segments of the palette make fewer entries than its descriptor says")
    return np.concatenate(expansion.made)[:count]


class _Expansion:
    """Segments as they are read, until there are ``count`` entries."""

    def __init__(self, fields: list[int], data: bytes, width: int, count: int) -> None:
        self._fields, self._data, self._width, self._count = fields, data, width, count
        self.made: list[Entries] = []
        self.size = 0

    def run(self, at: int, segments: int | None) -> None:
        """Segments from a field on: so many, or all; of several read again (indirect) none
        may be indirect itself."""
        fields = self._fields
        while self.size < self._count and at + 2 < len(fields) and segments != 0:
            opcode, length = fields[at], fields[at + 1]
            at += 2
            if not length:  # each makes an entry at least, so that there is an end
                raise CannotDecode("the palette has an empty segment")
            if opcode == _DISCRETE:
                self._add(np.array(fields[at : at + length], np.int64))
                at += length
            elif opcode == _LINEAR:
                if not self.size:
                    raise CannotDecode("the palette begins with a linear segment")
                last = int(self.made[-1][-1])
                self._add(np.rint(np.linspace(last, fields[at], length + 1)[1:]).astype(np.int64))
                at += 1
            elif opcode == _INDIRECT and segments is None:
                at += self._copy(at, length)
            else:
                raise CannotDecode(f"the palette has a segment of type {opcode}")
            if segments is not None:
                segments -= 1

    def _add(self, entries: Entries) -> None:
        if entries.size:
            self.made.append(entries)
            self.size += entries.size

    def _copy(self, at: int, segments: int) -> int:
        """Earlier segments once more, from a byte offset of 32 bits. Its length in fields."""
        start = at * self._width
        offset = int.from_bytes(self._data[start : start + 4], "little")
        if not self.size or offset >= start or offset % self._width:
            raise CannotDecode("the palette copies a segment that does not stand before")
        self.run(offset // self._width, segments)
        return 4 // self._width
