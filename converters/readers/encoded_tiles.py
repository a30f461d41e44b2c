# SPDX-License-Identifier: Apache-2.0
"""What the readers of containers other than TIFF share: ranges checked, pieces read, tiles
and label decoded. Nothing here knows a vendor.

Tiles are codestreams that lie in the file as they are; Pillow decodes them where pixels are
needed, so that a proof does not lean on the codecs that the writer uses.
"""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.errors import DamagedSlide, UnsupportedCompression
from converters.slide import AssociatedImage, GatherMap, Offsets, Role, TileMap

MAX_TILES = 4_000_000
MAX_REUSE = 16  # tiles may share bytes (blank ones do), but not without end
MAX_ASSOCIATED_PIXELS = 50_000_000
MAX_ASSOCIATED_BYTES = 256 << 20
LOSSY_METHODS = {"JPEG": "ISO_10918_1", "JPEG2000": "ISO_15444_1"}
"""Pillow's name of a coding -> Lossy Image Compression Method."""
PILLOW_FAULTS = (OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, struct.error)
"""What Pillow raises for damaged data (a decompression bomb is a ValueError by our check)."""


def checked_map(
    offsets: Offsets, lengths: Offsets, size_bytes: int, where: str, source: int | NDArray[np.uint8] = 0
) -> TileMap:
    """Tiles of ``where`` ("level 0"), every range checked against the file's size.
    Raises DamagedSlide."""
    offsets, lengths = offsets.copy(), lengths.copy()
    offsets[lengths == 0] = 0
    check_ranges(offsets, lengths, size_bytes, where)
    return TileMap(offsets, lengths, source)


def check_ranges(offsets: Offsets, lengths: Offsets, size_bytes: int, where: str) -> None:
    """Raises DamagedSlide unless every range lies within the file, and all of them together
    are no more than a file can hold."""
    size = np.uint64(size_bytes)
    beyond = (offsets > size) | (lengths > size) | (lengths > size - np.minimum(offsets, size))
    if beyond.any():
        raise DamagedSlide(f"{int(beyond.sum())} tiles of {where} lie beyond the end of the file")
    if int(lengths.sum()) > MAX_REUSE * size_bytes:
        raise DamagedSlide(f"the tiles of {where} overlap each other")


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Raises DamagedSlide where the file has become shorter."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, length, offset)
    except OSError as error:
        raise DamagedSlide("a tile cannot be read") from error
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise DamagedSlide("the file ends within a tile")
    return data


def tile_bytes(path: Path, tiles: TileMap | GatherMap, index: int) -> bytes:
    """The codestream of a tile of one source file; b"" where it was left out."""
    if isinstance(tiles, TileMap):
        return read_range(path, int(tiles.offsets[index]), int(tiles.lengths[index]))
    pieces = range(int(tiles.index[index]), int(tiles.index[index + 1]))
    return b"".join(read_range(path, int(tiles.offsets[at]), int(tiles.lengths[at])) for at in pieces)


def reference(
    path: Path, tiles: TileMap | GatherMap, tile_rows: int, tile_columns: int, samples: int
) -> Callable[[int], NDArray[np.uint8]]:
    """Decodes the tile of a frame index with Pillow: (tile rows, tile columns, samples)."""

    def decode(index: int) -> NDArray[np.uint8]:
        return decoded(tile_bytes(path, tiles, index), (tile_rows, tile_columns, samples), "a tile")

    return decode


def decoded(data: bytes, shape: tuple[int, int, int], what: str) -> NDArray[np.uint8]:
    """A whole codestream as 8-bit RGB or grey pixels of ``shape``. Raises DamagedSlide
    naming ``what``, before anything is decoded where the size is another."""
    rows, columns, samples = shape
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (columns, rows):
                raise DamagedSlide(f"{what} is not as large as the file says")
            pixels = np.asarray(image.convert("RGB" if samples == 3 else "L"), dtype=np.uint8)
    except (*PILLOW_FAULTS, Image.DecompressionBombError) as error:
        raise DamagedSlide(f"{what} cannot be decoded") from error
    return pixels.reshape(shape)


def associated_picture(role: Role, data: bytes) -> AssociatedImage:
    """A label, overview or thumbnail that the file holds as one picture of its own (JPEG,
    PNG, BMP, TIFF). Raises DamagedSlide, UnsupportedCompression."""
    name = role.value.lower()
    try:
        with Image.open(io.BytesIO(data)) as image:
            coding, (columns, rows), mode = str(image.format), image.size, image.mode
    except (*PILLOW_FAULTS, Image.DecompressionBombError) as error:
        raise DamagedSlide(f"the {name} image is no picture that can be read") from error
    if not (0 < rows <= 65535 and 0 < columns <= 65535 and rows * columns <= MAX_ASSOCIATED_PIXELS):
        raise DamagedSlide(f"the {name} image has an impossible size")
    if coding not in ("JPEG", "PNG", "BMP", "TIFF", "JPEG2000"):
        raise UnsupportedCompression(coding, f"the {name} image")
    samples = 1 if mode in ("1", "L") else 3
    shape = (rows, columns, samples)
    return AssociatedImage(
        role=role,
        rows=rows,
        columns=columns,
        read=lambda: decoded(data, shape, f"the {name} image"),
        compression=coding,
        lossy_method=LOSSY_METHODS.get(coding, ""),
        encoded_bytes=len(data),
        codestream=data if coding == "JPEG" else b"",
    )
