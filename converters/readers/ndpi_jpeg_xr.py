# SPDX-License-Identifier: Apache-2.0
"""Levels in JPEG XR, what some NanoZoomers write for 16-bit fluorescence: one file for the
level, or one for each tile of it, of another size in each level. (ITU-T T.832 Annex A: a
TIFF-like container.)"""

import os
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.slide import DEFAULT_TILE, Pixels, PixelTiles, PixelType

MAX_DECODED_BYTES = 1 << 30
PIXEL_FORMAT, WIDTH, HEIGHT = 0xBC01, 0xBC80, 0xBC81
FORMATS = {
    0x08: PixelType(1), 0x0B: PixelType(1, 16, 16), 0x0C: PixelType(3), 0x0D: PixelType(3),
}  # fmt: skip
"""Last byte of the pixel format's GUID: 8 and 16 bits of grey, BGR, RGB."""


MAX_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class JpegXrImage:
    """A JPEG XR at ``start`` to ``stop`` of a file, its size and samples by its own head."""

    descriptor: int
    start: int
    stop: int
    rows: int
    columns: int
    pixel_type: PixelType


@dataclass(frozen=True)
class JpegXrLevel:
    """One plane of a level, (rows, columns) large: ``ranges`` are (start, stop) of each of
    its tiles by rows, every one checked, (0, 0) where it was left out."""

    descriptor: int
    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    ranges: Sequence[tuple[int, int]]
    what: str

    @property
    def across(self) -> int:
        return -(-self.columns // self.tile_columns)

    def image(self, number: int) -> JpegXrImage:
        """Raises DamagedSlide, UnsupportedPixels."""
        found = open_jpeg_xr(self.descriptor, *self.ranges[number], self.what)
        row, column = divmod(number, self.across)
        least = (
            min(self.tile_rows, self.rows - row * self.tile_rows),
            min(self.tile_columns, self.columns - column * self.tile_columns),
        )
        if not (least[0] <= found.rows <= self.tile_rows and least[1] <= found.columns <= self.tile_columns):
            raise DamagedSlide(f"{self.what} is not as large as the directory says")
        return found

    @cached_property
    def pixel_type(self) -> PixelType:
        """Of its first tile. Raises DamagedSlide, UnsupportedPixels."""
        first = next((at for at, (start, stop) in enumerate(self.ranges) if stop > start), None)
        if first is None:
            raise DamagedSlide(f"{self.what} has no tiles")
        return self.image(first).pixel_type


def open_jpeg_xr(descriptor: int, start: int, stop: int, what: str) -> JpegXrImage:
    """Raises DamagedSlide, and UnsupportedPixels where it is too large to be decoded."""
    damaged = DamagedSlide(f"{what} is no JPEG XR, or its head is damaged")
    head = os.pread(descriptor, min(1 << 16, stop - start), start)
    try:
        (offset,) = struct.unpack_from("<I", head, 4)
        (count,) = struct.unpack_from("<H", head, offset)
        entries = {
            tag: value
            for tag, _, _, value in struct.iter_unpack("<HHII", head[offset + 2 : offset + 2 + 12 * count])
        }
        columns, rows, last = entries[WIDTH], entries[HEIGHT], head[entries[PIXEL_FORMAT] + 15]
    except (struct.error, LookupError) as error:
        raise damaged from error
    if head[:3] != b"II\xbc" or not rows or not columns:
        raise damaged
    if last not in FORMATS:
        raise UnsupportedPixels(f"{what} has pixels of a kind that is not read")
    kind = FORMATS[last]
    if rows * columns * kind.samples_per_pixel * kind.bits_allocated // 8 > MAX_DECODED_BYTES:
        raise UnsupportedPixels(f"{what} is too large to be decoded")
    return JpegXrImage(descriptor, start, stop, rows, columns, kind)


def jpeg_xr_tiles(levels: Sequence[JpegXrLevel]) -> tuple[PixelTiles, tuple[int, int]]:
    """Tiles of a level's planes, and their (rows, columns)."""
    first = levels[0]
    if any((level.rows, level.columns, level.pixel_type) != _kind(first) for level in levels):
        raise DamagedSlide("planes of one level differ in size or samples")
    size = (first.rows, first.columns)
    tile_rows, tile_columns = (DEFAULT_TILE, DEFAULT_TILE) if max(size) > DEFAULT_TILE else size
    down, across = -(-first.rows // tile_rows), -(-first.columns // tile_columns)
    kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()

    def stored(plane: int, number: int) -> NDArray[Any]:
        pixels = kept.get((plane, number))
        if pixels is None:
            image = levels[plane].image(number)
            if image.pixel_type != first.pixel_type:
                raise DamagedSlide("tiles of one level differ in samples")
            kept[plane, number] = pixels = _decoded(image)
            while len(kept) > 1 and sum(each.nbytes for each in kept.values()) > MAX_KEPT_BYTES:
                kept.popitem(last=False)
        kept.move_to_end((plane, number))
        return pixels

    def read(index: int) -> Pixels:
        plane, place = divmod(index, down * across)
        top, left = (place // across) * tile_rows, (place % across) * tile_columns
        bits = first.pixel_type.bits_allocated
        tile = np.zeros((tile_rows, tile_columns, first.pixel_type.samples_per_pixel), f"u{bits // 8}")
        level = levels[plane]
        bottom, right = min(top + tile_rows, level.rows), min(left + tile_columns, level.columns)
        for row in range(top // level.tile_rows, -(-bottom // level.tile_rows)):
            for column in range(left // level.tile_columns, -(-right // level.tile_columns)):
                number = row * level.across + column
                if not level.ranges[number][1]:
                    continue
                above, before = row * level.tile_rows, column * level.tile_columns
                part = stored(plane, number)
                part = part[max(0, top - above) : bottom - above, max(0, left - before) : right - before]
                at_row, at_column = max(0, above - top), max(0, before - left)
                tile[at_row : at_row + part.shape[0], at_column : at_column + part.shape[1]] = part
        return tile

    encoded = sum(stop - start for level in levels for start, stop in level.ranges)
    tiles = PixelTiles(read, len(levels) * down * across, "JPEG XR has no form in DICOM", "", encoded)
    return tiles, (tile_rows, tile_columns)


def _kind(level: JpegXrLevel) -> tuple[int, int, PixelType]:
    return level.rows, level.columns, level.pixel_type


def _decoded(image: JpegXrImage) -> NDArray[Any]:
    data = os.pread(image.descriptor, image.stop - image.start, image.start)
    try:
        pixels: NDArray[Any] = np.asarray(imagecodecs.jpegxr_decode(data))
    except Exception as error:  # the codec library's own kinds
        raise DamagedSlide("a JPEG XR of the slide cannot be decoded") from error
    shape = (image.rows, image.columns, image.pixel_type.samples_per_pixel)
    if pixels.size != np.prod(shape) or pixels.dtype.itemsize * 8 != image.pixel_type.bits_allocated:
        raise DamagedSlide("a JPEG XR of the slide is not as large as it says")
    return pixels.reshape(shape)
