# SPDX-License-Identifier: Apache-2.0
"""Olympus ETS: the tiles of one image stack, beside its .vsi, little-endian.

A header of 64 bytes ("SIS\\0", 64, version, dimensions u32, offset i64 and length of the
second header, offset i64 and number of the used chunks, the same of free ones); the second
header ("ETS\\0", version, type of the components, their number, colour space, compression,
quality, tile columns, rows and planes, 17 hints, background (40 bytes), order of the
components, whether a pyramid); and the table of used chunks: 4 bytes, a coordinate of 32
bits for each dimension, offset i64, length u32, 4 bytes. The coordinates are column, row,
then the dimensions that the .vsi explains, and last the level where there is a pyramid.

Traps that real files set: tiles that hold nothing are not listed; raw colours may be BGR
(order 1), encoded ones never are.

Sources: slideio, drivers/vsi (BSD-3); Bio-Formats' cellSens reader (facts).
"""

import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.readers.encoded_tiles import MAX_TILES, check_ranges, decoded, read_range
from converters.slide import Colour, Offsets, Pixels

HEADER = struct.Struct("<4sIIIQIIQII")
SECOND = struct.Struct("<4s9I68s40sII")
RAW, JPEG, JPEG_2000, JPEG_LOSSLESS, PNG, BMP = 0, 2, 3, 5, 8, 9
ENCODED = (JPEG, JPEG_2000, JPEG_LOSSLESS)
DECODED = {RAW: "raw tiles", PNG: "PNG tiles", BMP: "BMP tiles"}
TYPES: dict[int, np.dtype[np.uint8] | np.dtype[np.uint16]] = {2: np.dtype(np.uint8), 4: np.dtype(np.uint16)}
BGR_ORDER = 1
MAX_DIMENSIONS, MAX_LEVELS, MAX_COORDINATE = 12, 32, 1 << 20
MAX_DECODED_TILE = 4096
JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"


@dataclass(frozen=True, eq=False)
class EtsFile:
    """``coordinates`` are (chunks, dimensions) int32, the level not among them."""

    path: Path
    size_bytes: int
    components: int
    component_type: int
    compression: int
    tile_rows: int
    tile_columns: int
    background: bytes
    order: int
    coordinates: NDArray[np.int32]
    levels: NDArray[np.int32]
    offsets: Offsets
    lengths: Offsets

    @property
    def extents(self) -> tuple[int, ...]:
        """How far each dimension reaches: columns and rows of tiles (finest level) first."""
        finest = self.coordinates[self.levels == 0]
        return tuple(int(value) + 1 for value in (finest if len(finest) else self.coordinates).max(axis=0))

    @property
    def level_count(self) -> int:
        return int(self.levels.max()) + 1

    @cached_property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Raises UnsupportedPixels for samples that are not unsigned of 8 or 16 bits."""
        dtype = TYPES.get(self.component_type)
        if dtype is None or self.components not in (1, 3) or (self.components == 3 and dtype != np.uint8):
            raise UnsupportedPixels(
                "an image stack has samples that are not read: only grey of 8 or 16 bits and RGB of 8 are"
            )
        return dtype

    @property
    def absent_colour(self) -> Colour:
        """What the scanner's software shows where there is no tile."""
        values = np.frombuffer(self.background, self.dtype, self.components).tolist()
        if self.components == 1:
            return int(values[0])
        return int(values[0]), int(values[1]), int(values[2])

    def pixels(self, offset: int, length: int) -> Pixels:
        """A tile decoded: (tile rows, tile columns, components), RGB. Length 0 is one that
        was left out. Raises DamagedSlide."""
        shape = (self.tile_rows, self.tile_columns, self.components)
        if length == 0:
            return np.broadcast_to(np.asarray(self.absent_colour, self.dtype), shape).copy()
        data = read_range(self.path, offset, length)
        if self.compression == RAW:
            return self._raw(data, shape)
        if self.dtype == np.uint8 and self.compression not in (JPEG_LOSSLESS, PNG):
            return decoded(data, shape, "a tile")
        return self._deep(data, shape)

    def _raw(self, data: bytes, shape: tuple[int, int, int]) -> Pixels:
        if len(data) < shape[0] * shape[1] * shape[2] * self.dtype.itemsize:
            raise DamagedSlide("a raw tile is shorter than its size")
        count = shape[0] * shape[1] * shape[2]
        tile = np.frombuffer(data, self.dtype, count).reshape(shape)
        return np.ascontiguousarray(
            tile[..., ::-1] if self.components == 3 and self.order == BGR_ORDER else tile
        )

    def _deep(self, data: bytes, shape: tuple[int, int, int]) -> Pixels:
        if self.compression == PNG and data[16:24] != struct.pack(">II", shape[1], shape[0]):
            raise DamagedSlide("a tile is not as large as the file says")
        decode = {JPEG_2000: imagecodecs.jpeg2k_decode, PNG: imagecodecs.png_decode}
        try:
            tile = np.asarray(decode.get(self.compression, imagecodecs.ljpeg_decode)(data))
        except Exception as error:  # whatever a decoder raises: all mean damaged data
            raise DamagedSlide("a tile cannot be decoded") from error
        if tile.ndim == 3 and tile.shape[2] > self.components:
            tile = tile[..., : self.components]
        if tile.dtype != self.dtype or tile.size != shape[0] * shape[1] * shape[2]:
            raise DamagedSlide("a tile is not as large as the file says")
        return np.ascontiguousarray(tile).reshape(shape)


def read_ets(path: Path) -> EtsFile:
    """Header and chunk table, every range checked. Raises DamagedSlide,
    UnsupportedCompression, UnsupportedPixels."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEADER.size)
            if len(head) < HEADER.size or not head.startswith(b"SIS\0"):
                raise DamagedSlide("an image file (.ets) does not start as one")
            _, length, _, dimensions, second_at, _, _, table_at, count, _ = HEADER.unpack(head)
            second = _read(file.fileno(), size, second_at, SECOND.size)
            if length != 64 or not second.startswith(b"ETS\0") or not 2 <= dimensions <= MAX_DIMENSIONS:
                raise DamagedSlide("the header of an image file (.ets) is damaged")
            if not 0 < count <= MAX_TILES:
                raise DamagedSlide("an image file (.ets) lists no tiles, or impossibly many")
            record = np.dtype(
                [("", "V4"), ("at", "<i4", (dimensions,)), ("offset", "<i8"), ("length", "<u4"), ("", "V4")]
            )
            table = np.frombuffer(_read(file.fileno(), size, table_at, count * record.itemsize), record)
    except OSError as error:
        raise DamagedSlide("an image file (.ets) cannot be read") from error
    return _ets(path, size, SECOND.unpack(second), table)


def _read(descriptor: int, size: int, offset: int, length: int) -> bytes:
    if offset > size or length > size - offset:
        raise DamagedSlide("an image file (.ets) ends within its tile table")
    return os.pread(descriptor, length, offset)


def _ets(path: Path, size: int, fields: tuple[int | bytes, ...], table: NDArray[np.void]) -> EtsFile:
    _, _, kind, components, _, compression, _, columns, rows, planes, _, background, order, pyramid = fields
    assert isinstance(background, bytes)
    kind, components, compression, columns, rows, planes, order, pyramid = (
        int(value) for value in (kind, components, compression, columns, rows, planes, order, pyramid)
    )
    if compression not in (*ENCODED, *DECODED):
        raise UnsupportedCompression(str(compression), "an image stack")
    most = 65535 if compression in ENCODED else MAX_DECODED_TILE
    if not (0 < columns <= most and 0 < rows <= most) or planes > 1:
        raise UnsupportedPixels("an image stack has tiles of a size that is not read")
    at = table["at"]
    if int(at.min()) < 0 or int(at.max()) > MAX_COORDINATE:
        raise DamagedSlide("a tile of an image file (.ets) has an impossible place")
    levels = at[:, -1] if pyramid and at.shape[1] > 2 else np.zeros(len(at), np.int32)
    if int(levels.max()) >= MAX_LEVELS:
        raise DamagedSlide("an image file (.ets) has impossibly many levels")
    if int(table["offset"].min()) < 0:
        raise DamagedSlide("a tile of an image file (.ets) lies before its start")
    offsets, lengths = table["offset"].astype(np.uint64), table["length"].astype(np.uint64)
    check_ranges(offsets, lengths, size, "an image file (.ets)")
    return EtsFile(
        path, size, components, kind, compression, rows, columns, background, order,
        np.ascontiguousarray(at[:, :-1] if pyramid and at.shape[1] > 2 else at), levels, offsets, lengths,
    )  # fmt: skip


def without_boxes(ets: EtsFile, offsets: Offsets, lengths: Offsets) -> tuple[Offsets, Offsets]:
    """Ranges of the JPEG 2000 codestreams alone, where the tiles are JP2 files around them."""
    present = np.flatnonzero(lengths)
    if ets.compression != JPEG_2000 or not len(present):
        return offsets, lengths
    first = int(present[0])
    if read_range(ets.path, int(offsets[first]), min(int(lengths[first]), 12)) != JP2_SIGNATURE:
        return offsets, lengths
    offsets, lengths = offsets.copy(), lengths.copy()
    for at in present.tolist():
        head = read_range(ets.path, int(offsets[at]), min(int(lengths[at]), 4096))
        skip = head.find(b"jp2c\xff\x4f") + 4
        if skip < 8:
            raise DamagedSlide("a JPEG 2000 tile holds no codestream")
        (box,) = struct.unpack(">I", head[skip - 8 : skip - 4])
        left = int(lengths[at]) - skip
        lengths[at] = min(box - 8, left) if box > 8 else left
        offsets[at] += skip
    return offsets, lengths
