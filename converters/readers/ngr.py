# SPDX-License-Identifier: Apache-2.0
"""Hamamatsu's NGR: uncompressed pixels of 12 bits in 16, in columns of equal width, each
column whole before the next. (openslide.org/formats/hamamatsu)"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.slide import DEFAULT_TILE, Pixels, PixelTiles

MAGIC = b"GN"
HEAD_BYTES = 28
PIXEL_BYTES = 6
SPARE_BITS = 4  # of the twelve: colours of slides are of eight in DICOM (PS3.3 A.32.8)


@dataclass(frozen=True, slots=True)
class NgrImage:
    descriptor: int
    rows: int
    columns: int
    column_width: int
    first: int  # offset of the pixels

    def region(self, top: int, left: int, rows: int, columns: int) -> NDArray[np.uint8]:
        """RGB of 8 bits; the region lies within. Raises DamagedSlide."""
        pixels = np.empty((rows, columns, 3), np.uint8)
        at = left
        while at < left + columns:
            number, inside = divmod(at, self.column_width)
            width = min(self.column_width - inside, left + columns - at)
            begin = (number * self.rows + top) * self.column_width + inside
            for row in range(rows):
                offset = self.first + (begin + row * self.column_width) * PIXEL_BYTES
                data = os.pread(self.descriptor, width * PIXEL_BYTES, offset)
                if len(data) < width * PIXEL_BYTES:
                    raise DamagedSlide("an image file ends too early")
                values = np.frombuffer(data, "<u2") >> SPARE_BITS
                pixels[row, at - left : at - left + width] = np.minimum(values, 255).reshape(-1, 3)
            at += width
        return pixels


def open_ngr(descriptor: int, size_bytes: int, what: str) -> NgrImage:
    """Raises DamagedSlide, ``what`` naming the file."""
    head = os.pread(descriptor, HEAD_BYTES, 0)
    if len(head) < HEAD_BYTES or head[:2] != MAGIC:
        raise DamagedSlide(f"{what} is no NGR image")
    columns, rows, column_width = struct.unpack_from("<3I", head, 4)
    (first,) = struct.unpack_from("<I", head, 24)
    if not (0 < rows < 2**31 and 0 < columns < 2**31 and column_width) or columns % column_width:
        raise DamagedSlide(f"{what} has an impossible size")
    if first < HEAD_BYTES or first + rows * columns * PIXEL_BYTES > size_bytes:
        raise DamagedSlide(f"{what} ends too early")
    return NgrImage(descriptor, rows, columns, column_width, first)


def ngr_tiles(images: Sequence[NgrImage]) -> tuple[PixelTiles, tuple[int, int]]:
    """Tiles of a level's planes, and their (rows, columns)."""
    rows, columns = images[0].rows, images[0].columns
    if any((image.rows, image.columns) != (rows, columns) for image in images):
        raise DamagedSlide("planes of one level differ in size")
    edge = DEFAULT_TILE if max(rows, columns) > DEFAULT_TILE else 0
    tile_rows, tile_columns = edge or rows, edge or columns
    down, across = -(-rows // tile_rows), -(-columns // tile_columns)

    def read(index: int) -> Pixels:
        plane, place = divmod(index, down * across)
        top, left = (place // across) * tile_rows, (place % across) * tile_columns
        pixels = np.full((tile_rows, tile_columns, 3), 255, np.uint8)
        inside = min(tile_rows, rows - top), min(tile_columns, columns - left)
        pixels[: inside[0], : inside[1]] = images[plane].region(top, left, *inside)
        return pixels

    count = len(images) * down * across
    size = len(images) * rows * columns * PIXEL_BYTES
    return PixelTiles(read, count, "12-bit colours have no form in DICOM", "", size), (
        tile_rows,
        tile_columns,
    )
