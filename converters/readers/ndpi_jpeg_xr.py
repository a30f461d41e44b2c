# SPDX-License-Identifier: Apache-2.0
"""Levels that are one JPEG XR file each, decoded whole: what some NanoZoomers write for
16-bit fluorescence. (ITU-T T.832 Annex A: a TIFF-like container.)"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class JpegXrImage:
    """The JPEG XR at ``start`` to ``stop`` of a file, its size and samples by its own head."""

    descriptor: int
    start: int
    stop: int
    rows: int
    columns: int
    pixel_type: PixelType


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


def jpeg_xr_tiles(images: Sequence[JpegXrImage]) -> tuple[PixelTiles, tuple[int, int]]:
    """Tiles of a level's planes, and their (rows, columns)."""
    first = images[0]
    if any((image.rows, image.columns, image.pixel_type) != _kind(first) for image in images):
        raise DamagedSlide("planes of one level differ in size or samples")
    size = (first.rows, first.columns)
    tile_rows, tile_columns = (DEFAULT_TILE, DEFAULT_TILE) if max(size) > DEFAULT_TILE else size
    down, across = -(-first.rows // tile_rows), -(-first.columns // tile_columns)
    last: dict[int, NDArray[Any]] = {}

    def read(index: int) -> Pixels:
        plane, place = divmod(index, down * across)
        if plane not in last:
            last.clear()
            last[plane] = _decoded(images[plane])
        top, left = (place // across) * tile_rows, (place % across) * tile_columns
        part = last[plane][top : top + tile_rows, left : left + tile_columns]
        padding = ((0, tile_rows - part.shape[0]), (0, tile_columns - part.shape[1]), (0, 0))
        return np.pad(part, padding)

    encoded = sum(image.stop - image.start for image in images)
    tiles = PixelTiles(read, len(images) * down * across, "JPEG XR has no form in DICOM", "", encoded)
    return tiles, (tile_rows, tile_columns)


def _kind(image: JpegXrImage) -> tuple[int, int, PixelType]:
    return image.rows, image.columns, image.pixel_type


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
