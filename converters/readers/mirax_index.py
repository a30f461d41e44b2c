# SPDX-License-Identifier: Apache-2.0
"""Index.dat of an MRXS slide: where in the Data files each image lies.

A version ("01.02"), the slide's identifier, then little-endian 32-bit integers: pointers
to two tables of pointers, one for the images (zoom level varies fastest, then the other
hierarchies in the order of Slidedat.ini), one for all else. Each leads to a chain of
pages: count of items, pointer to the next page or 0, items. The first page is empty.

    image:      number in the grid (row * images across + column), offset, length, file
    all else:   0, 0, offset, length, file

Pointers and counts are checked: a chain ends, stays in the file, and holds no more
items than there are places.
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide

MAX_BYTES = 1 << 28
Sizes = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one record, in the order of the grid: each one's column and row (in images
    of the finest level), offset, length and file."""

    column: NDArray[np.int64]
    row: NDArray[np.int64]
    offset: NDArray[np.uint64]
    length: NDArray[np.uint64]
    file: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.column)


@dataclass(frozen=True, slots=True)
class Range:
    """What a record of no level points to."""

    offset: int
    length: int
    file: int


class Index:
    """``sizes`` are the Data files' in bytes, ``grid`` the slide's (rows, columns) in
    images of the finest level. Raises DamagedSlide, as all methods do."""

    def __init__(self, path: Path, slide_id: str, sizes: Sizes, grid: tuple[int, int]) -> None:
        try:
            with path.open("rb") as file:
                self._bytes = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise DamagedSlide("Index.dat cannot be read") from error
        if len(self._bytes) > MAX_BYTES:
            raise DamagedSlide("Index.dat is larger than any slide's")
        identifier = slide_id.encode()
        if not re.match(rb"\d\d\.\d\d", self._bytes[:5]):
            raise DamagedSlide("Index.dat does not begin with a version")
        if self._bytes[5 : 5 + len(identifier)] != identifier:
            raise DamagedSlide("Index.dat belongs to another slide than Slidedat.ini")
        self._roots = 5 + len(identifier)
        self._sizes, self._grid = sizes, grid

    def images(self, record: int, concat: int) -> Images:
        """The images of a record of the first table; a zoom level's stand at multiples of
        ``concat`` in the grid. None may be there."""
        rows, columns = self._grid
        places = -(-rows // concat) * -(-columns // concat)
        table = self._items(self._roots, record, 16, places, follow=True)
        if not len(table):
            items = np.zeros((0, 4), np.uint32)
        else:
            items = np.frombuffer(table, "<u4").reshape(-1, 4)
        number, offset, length, file = items.T.astype(np.uint64)
        row, column = (part.astype(np.int64) for part in np.divmod(number, np.uint64(columns)))
        if (row >= rows).any() or (row % concat).any() or (column % concat).any():
            raise DamagedSlide("Index.dat puts an image outside of the slide's grid")
        self._check(offset, length, file)
        # Of two with the same number, the later one holds.
        _, last = np.unique(number[::-1], return_index=True)
        kept = len(number) - 1 - last
        return Images(column[kept], row[kept], offset[kept], length[kept], file[kept].astype(np.uint32))

    def other(self, record: int) -> Range | None:
        """The first item of a record of the second table; None where it has none."""
        table = self._items(self._roots + 4, record, 20, 64, follow=False)
        if not table:
            return None
        first, second, offset, length, file = struct.unpack_from("<5I", table)
        if first or second:
            raise DamagedSlide("Index.dat has a record of an unknown kind")
        self._check(*(np.array([value], np.uint64) for value in (offset, length, file)))
        return Range(offset, length, file)

    def _check(
        self, offset: NDArray[np.uint64], length: NDArray[np.uint64], file: NDArray[np.uint64]
    ) -> None:
        if (file >= len(self._sizes)).any():
            raise DamagedSlide("Index.dat names a Data file that there is not")
        if (offset + length > self._sizes[file.astype(np.int64)]).any():
            raise DamagedSlide("an image lies beyond the end of its Data file")
        if (length == 0).any():
            raise DamagedSlide("Index.dat has an image without bytes")

    def _items(self, root: int, record: int, item_bytes: int, most: int, *, follow: bool) -> bytes:
        """All items of a record's pages, joined."""
        table = self._integer(root)
        head = self._integer(table + 4 * record)
        if not head:
            return b""
        if self._integer(head):
            raise DamagedSlide("Index.dat has a first page that is not empty")
        page, seen, parts, count = self._integer(head + 4), set(), [], 0
        while page:
            if page in seen:
                raise DamagedSlide("Index.dat has pages that lead in a circle")
            seen.add(page)
            items = self._integer(page)
            count += items
            # Items may stand twice, but not more often.
            if count > 2 * most or page + 8 + items * item_bytes > len(self._bytes):
                raise DamagedSlide("Index.dat has a page that is longer than it can be")
            parts.append(self._bytes[page + 8 : page + 8 + items * item_bytes])
            page = self._integer(page + 4) if follow else 0
        return b"".join(parts)

    def _integer(self, at: int) -> int:
        if at < 0 or at + 4 > len(self._bytes):
            raise DamagedSlide("Index.dat points beyond its own end")
        return int.from_bytes(self._bytes[at : at + 4], "little")
