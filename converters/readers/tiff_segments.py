# SPDX-License-Identifier: Apache-2.0
"""Strips and tiles of a TIFF page, decoded when they are needed and kept for a while.

A tile of ours may touch many strips, and the next tile touches the same ones: decoded
segments stay in a cache of limited size, so that each is decoded about once when tiles
are read in their order. tifffile decodes (compression, predictor, packed bits, byte
order); where segments lie, and how large they may become, is checked here.

Sources: TIFF 6.0 Sections 3, 9, 14, 15; Adobe Photoshop TIFF Technical Notes (deflate).
"""

from collections import OrderedDict
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from converters.errors import ConversionError, DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.readers.tiff_pages import LZW, MAX_REUSE, MAX_TILES

Samples = NDArray[Any]

BUDGET_BYTES = 128 << 20
MAX_SEGMENT_BYTES = 256 << 20
PART_BYTES = 1 << 20
"""A strip that is not compressed needs no decoding as a whole: it is read in such parts."""

NONE, JPEG, WEBP = 1, 7, 50001
LOSSY_METHODS = {
    JPEG: "ISO_10918_1",
    33003: "ISO_15444_1",
    33004: "ISO_15444_1",
    33005: "ISO_15444_1",
    34712: "ISO_15444_1",
    22610: "ISO_29199_2",
    34934: "ISO_29199_2",
    50002: "ISO_18181_1",
    52546: "ISO_18181_1",
    WEBP: "WEBP",
}
"""Compression that may have lost something -> Lossy Image Compression Method (PS3.3
C.7.6.1.1.5.1; WebP has no Defined Term)."""
DECODABLE = frozenset((NONE, LZW, 8, 32946, 32773, 50000, 34926, 34925, 34933, *LOSSY_METHODS))
"""... and deflate, PackBits, Zstandard, LZMA, PNG."""


class SegmentCache:
    """The segments decoded last, up to ``budget_bytes`` of pixels."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[tuple[int, int], Samples] = OrderedDict()
        self._size_bytes = 0
        self._pages = 0

    def page_number(self) -> int:
        """A number for one page's segments."""
        self._pages += 1
        return self._pages

    def get(self, key: tuple[int, int]) -> Samples | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: tuple[int, int], pixels: Samples) -> None:
        self._kept[key] = pixels
        self._size_bytes += pixels.nbytes
        while self._size_bytes > self.budget_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._size_bytes -= oldest.nbytes


class Segments:
    """One page as a grid of segments, each (``segment_rows``, ``segment_columns``,
    samples) of the page's own type. ``down`` x ``across`` segments show all of the image;
    where colours are stored apart (Planar Configuration 2), each colour has such a grid.

    Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels.
    """

    def __init__(self, page: "tifffile.TiffPage", cache: SegmentCache) -> None:
        self.page = page
        self._cache, self._number = cache, cache.page_number()
        self.rows, self.columns = int(page.imagelength), int(page.imagewidth)
        self.samples = int(page.samplesperpixel)
        self._check(page)
        self.apart = int(page.planarconfig) == 2 and self.samples > 1
        self.dtype = np.dtype(page.dtype)
        if page.is_tiled:
            self.segment_rows, self.segment_columns = int(page.tilelength), int(page.tilewidth)
        else:
            self.segment_rows = max(1, min(int(page.rowsperstrip), self.rows))
            self.segment_columns = self.columns
        colours = self.samples if self.apart else 1
        self.down = -(-self.rows // self.segment_rows)
        self.across = -(-self.columns // self.segment_columns)
        per_row = self.segment_columns * (self.samples // colours) * self.dtype.itemsize
        self.offsets, self.lengths = self._ranges(colours)
        self._raw = self._split_strip(colours, per_row)
        if self.segment_rows * per_row > MAX_SEGMENT_BYTES:
            raise UnsupportedPixels(f"one strip or tile of page {page.index} holds too many pixels")

    @staticmethod
    def _check(page: "tifffile.TiffPage") -> None:
        where = f"page {page.index}"
        if not (0 < page.imagewidth < 2**31 and 0 < page.imagelength < 2**31):
            raise DamagedSlide(f"{where} has an impossible size")
        if page.is_tiled and not (0 < page.tilewidth <= 65535 and 0 < page.tilelength <= 65535):
            raise DamagedSlide(f"{where} has an impossible tile size")
        if int(page.compression) not in DECODABLE:
            raise UnsupportedCompression(str(int(page.compression)), where)
        if page.dtype is None or page.imagedepth != 1 or not 0 < int(page.samplesperpixel) <= 256:
            raise UnsupportedPixels(f"{where} has samples that are not read")
        if page.is_subsampled and int(page.compression) != JPEG:
            raise UnsupportedPixels(f"{where} has subsampled colours without JPEG")

    def _ranges(self, colours: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        page, where = self.page, f"page {self.page.index}"
        count = self.down * self.across * colours
        if count > MAX_TILES:
            raise DamagedSlide(f"{where} has more than {MAX_TILES} strips or tiles")
        if not len(page.dataoffsets) == len(page.databytecounts) == count:
            raise DamagedSlide(f"{where} needs {count} strips or tiles and lists {len(page.dataoffsets)}")
        offsets = np.array(page.dataoffsets, dtype=np.uint64)
        lengths = np.array(page.databytecounts, dtype=np.uint64)
        lengths[offsets == 0] = 0
        size = np.uint64(page.parent.filehandle.size)
        if ((offsets > size) | (lengths > size - np.minimum(offsets, size)))[lengths > 0].any():
            raise DamagedSlide(f"strips or tiles of {where} lie beyond the end of the file")
        if int(lengths.sum()) > MAX_REUSE * int(size):
            raise DamagedSlide(f"the strips or tiles of {where} overlap each other")
        return offsets, lengths

    def _split_strip(self, colours: int, per_row: int) -> bool:
        """Cut the one strip (of each colour) of an image without compression into parts;
        False where the page is of another form."""
        page = self.page
        whole = self.rows * per_row
        if (
            page.is_tiled
            or int(page.compression) != NONE
            or int(page.predictor) != 1
            or int(page.fillorder) != 1
            or page.bitspersample != self.dtype.itemsize * 8
            or self.down != 1
            or not (self.lengths >= whole).all()
        ):
            return False
        self.segment_rows = max(1, min(self.rows, PART_BYTES // per_row))
        self.down = -(-self.rows // self.segment_rows)
        first_rows = np.arange(self.down, dtype=np.uint64) * np.uint64(self.segment_rows)
        parts = np.minimum(np.uint64(self.segment_rows), np.uint64(self.rows) - first_rows)
        self.offsets = (self.offsets[:, None] + first_rows * np.uint64(per_row)).reshape(-1)
        self.lengths = np.tile(parts * np.uint64(per_row), colours)
        return True

    @property
    def absent(self) -> NDArray[np.bool_]:
        """(down, across): True where the file holds nothing of any colour."""
        held = (self.lengths > 0).reshape(-1, self.down, self.across)
        absent: NDArray[np.bool_] = np.logical_not(np.any(held, axis=0))
        return absent

    @property
    def size_bytes(self) -> int:
        return int(self.lengths.sum())

    def first_bytes(self, size: int = 4096) -> bytes:
        """The head of the first segment that there is."""
        present = np.flatnonzero(self.lengths)
        if not present.size:
            return b""
        return self._read(int(present[0]), size)

    def segment(self, colour: int, row: int, column: int, *, keep: bool = True) -> Samples | None:
        """The pixels of one segment, cut at the image's end where they are strips; None
        where the file holds none. Raises DamagedSlide."""
        index = (colour * self.down + row) * self.across + column
        if not self.lengths[index]:
            return None
        found = self._cache.get((self._number, index))
        if found is None:
            found = self._decoded(index)
            if keep:
                self._cache.put((self._number, index), found)
        return found

    def _read(self, index: int, most: int = MAX_SEGMENT_BYTES) -> bytes:
        handle = self.page.parent.filehandle
        handle.seek(int(self.offsets[index]))
        data: bytes = handle.read(min(int(self.lengths[index]), most))
        return data

    def _decoded(self, index: int) -> Samples:
        page = self.page
        data = self._read(index)
        try:
            if self._raw:
                stored = np.frombuffer(data, self.dtype.newbyteorder(page.parent.byteorder))
                pixels = stored.astype(self.dtype).reshape(-1, self.columns, self._samples_each)
            else:
                tables = {"jpegtables": page.jpegtables} if int(page.compression) == JPEG else {}
                decoded, _, _ = page.decode(data, index, **tables)
                pixels = np.asarray(decoded)[0]
        except (ConversionError, MemoryError):
            raise
        except Exception as error:  # whatever a decoder raises: all mean damaged data
            raise DamagedSlide(f"a strip or tile of page {page.index} cannot be decoded") from error
        if pixels.ndim != 3 or pixels.shape[2] != self._samples_each:
            raise DamagedSlide(f"a strip or tile of page {page.index} is not as large as the file says")
        return pixels

    @property
    def _samples_each(self) -> int:
        return 1 if self.apart else self.samples

    def region(self, top: int, left: int, rows: int, columns: int, *, fill: int = 0) -> Samples:
        """Pixels (rows, columns, samples) from (top, left) on, ``fill`` where the file
        holds none. A tile's pixels beyond the image's end are given as stored."""
        out = np.full((rows, columns, self.samples), fill, self.dtype)
        one = rows == self.segment_rows and columns == self.segment_columns
        for row in range(top // self.segment_rows, min(self.down, -(-(top + rows) // self.segment_rows))):
            first, last = left // self.segment_columns, -(-(left + columns) // self.segment_columns)
            for column in range(first, min(self.across, last)):
                for colour in range(self.samples if self.apart else 1):
                    pixels = self.segment(colour, row, column, keep=not one)
                    if pixels is not None:
                        target = out[..., colour : colour + 1] if self.apart else out
                        y, x = row * self.segment_rows - top, column * self.segment_columns - left
                        _paste(target, pixels, y, x)
        return out


def _paste(target: Samples, pixels: Samples, y: int, x: int) -> None:
    """Put ``pixels`` at (y, x) of the target, which may be negative; cut what is outside."""
    top, left = max(0, -y), max(0, -x)
    rows, columns = pixels.shape[0] - top, pixels.shape[1] - left
    y, x = y + top, x + left
    rows, columns = min(rows, target.shape[0] - y), min(columns, target.shape[1] - x)
    if rows > 0 and columns > 0:
        target[y : y + rows, x : x + columns] = pixels[top : top + rows, left : left + columns]
