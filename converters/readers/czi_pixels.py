# SPDX-License-Identifier: Apache-2.0
"""Sub-blocks of CZI decoded, and levels drawn from them.

Colours are stored as B, G, R; the decoders of JPEG and JPEG XR give R, G, B whatever the order
inside. Zstandard comes in two forms: plain, and after a header of 1 or 3 bytes whose last bit
says that the low bytes of all 16-bit samples precede the high ones. Where tiles overlap, the one
with the higher M index lies on top; area that no tile covers is white in colour, black in grey.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import sniff
from converters.errors import ConversionError, DamagedSlide, UnsupportedCompression
from converters.readers import jpeg_xr_head
from converters.readers.czi_segments import MAX_BLOCK_PIXELS, Czi
from converters.slide import Pixels

HEAD_BYTES = 2048
MAX_LOOKED_AT = 2000
CACHE_BYTES = 192 * 1024**2
UNCOMPRESSED, JPEG, JPEG_XR, ZSTD_0, ZSTD_1 = 0, 1, 4, 5, 6
COMPRESSIONS = {0: "none", 1: "JPEG", 2: "LZW", 4: "JPEG XR", 5: "Zstandard", 6: "Zstandard"}
LOSSY_METHODS = {JPEG: "ISO_10918_1", JPEG_XR: "ISO_29199_2"}
SAMPLES = {0: ("u1", 1), 1: ("<u2", 1), 2: ("<f4", 1), 3: ("u1", 3), 4: ("<u2", 3)}
"""Pixel type -> numpy's type of a sample, samples of a pixel."""


def decode(czi: Czi, block: int) -> NDArray[np.generic]:
    """A sub-block as (stored rows, stored columns, samples), RGB or grey, as it was scanned.

    Raises DamagedSlide, UnsupportedCompression."""
    row = czi.blocks[block]
    kind, samples = SAMPLES[int(row["pixel_type"])]
    shape = int(row["stored_rows"]), int(row["stored_columns"]), samples
    compression = int(row["compression"])
    if compression not in LOSSY_METHODS and compression not in (UNCOMPRESSED, ZSTD_0, ZSTD_1):
        raise UnsupportedCompression(COMPRESSIONS.get(compression, str(compression)), "a sub-block")
    if compression in LOSSY_METHODS and kind == "<f4":
        raise UnsupportedCompression(COMPRESSIONS[compression], "a sub-block of floats")
    data = czi.pixels(block)
    try:
        if compression in LOSSY_METHODS:
            pixels = _picture(data, compression, shape)
        else:
            pixels = _raw(data, compression, np.dtype(kind), shape)
    except ConversionError:
        raise
    except Exception as error:  # whatever a decoder raises: all mean damaged data
        raise DamagedSlide("a sub-block cannot be decoded") from error
    if pixels.size != np.prod(shape) or pixels.dtype != np.dtype(kind):
        raise DamagedSlide("a sub-block is not as large as the directory says")
    return pixels.reshape(shape)


def _raw(
    data: bytes | bytearray, compression: int, kind: "np.dtype[np.generic]", shape: tuple[int, int, int]
) -> NDArray[np.generic]:
    size = int(np.prod(shape)) * kind.itemsize
    halves = False
    if compression == ZSTD_1:
        header = data[0]
        if header not in (1, 3) or (header == 3 and data[1] != 1):
            raise DamagedSlide("a sub-block cannot be decoded")
        halves = header == 3 and bool(data[2] & 1)
        data = data[header:]
    if compression != UNCOMPRESSED:
        data = imagecodecs.zstd_decode(data, out=size)
    if len(data) < size:
        raise DamagedSlide("a sub-block is not as large as the directory says")
    flat = np.frombuffer(data, np.uint8, size)
    if halves:
        if kind.itemsize != 2:
            raise DamagedSlide("a sub-block cannot be decoded")
        flat = np.ascontiguousarray(flat.reshape(2, -1).T).reshape(-1)
    pixels = flat.view(kind).reshape(shape)
    return _reversed(pixels) if shape[2] == 3 else pixels


def _reversed(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """B, G, R as R, G, B: one sample after the other, which is many times as fast as all."""
    result = np.empty_like(pixels)
    for sample in range(3):
        result[..., sample] = pixels[..., 2 - sample]
    return result


def _picture(data: bytes, compression: int, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """JPEG or JPEG XR, whose own size is looked at first: it decides what is allocated."""
    if compression == JPEG:
        head = sniff(data)
        size = head.rows, head.columns
    else:
        size = jpeg_xr_head.size(data)
    if size != shape[:2] or size[0] * size[1] > MAX_BLOCK_PIXELS:
        raise DamagedSlide("a sub-block is not as large as the directory says")
    found: NDArray[np.generic] = (
        imagecodecs.jpeg8_decode(data) if compression == JPEG else imagecodecs.jpegxr_decode(data)
    )
    return found


def lossy_methods(czi: Czi, blocks: NDArray[np.intp]) -> list[str]:
    """DICOM's names of the lossy codings among sub-blocks. JPEG XR may be either: of very many
    sub-blocks, some are looked at."""
    compressions = czi.blocks["compression"][blocks]
    found = [LOSSY_METHODS[JPEG]] if (compressions == JPEG).any() else []
    pictures = blocks[compressions == JPEG_XR]
    for block in pictures[:: max(1, len(pictures) // MAX_LOOKED_AT)].tolist():
        if not jpeg_xr_head.is_lossless(czi.pixels(block, HEAD_BYTES)):
            return [*found, LOSSY_METHODS[JPEG_XR]]
    return found


@dataclass(frozen=True)
class Canvas:
    """A level to draw on: its sub-blocks are ``factor`` times coarser than the finest."""

    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    samples: int
    kind: str  # "u1" or "u2": what tiles are given in
    factor: int
    origin: tuple[int, int]  # (x, y) of the first pixel, in pixels of the finest level


Slices = Mapping[tuple[int, int], NDArray[np.intp]]
"""(optical path, focal plane) -> its sub-blocks, the topmost last."""


class Painter:
    """Draws tiles of a level. ``convert`` makes samples of ``Canvas.kind`` of decoded ones,
    knowing the optical path."""

    def __init__(
        self,
        czi: Czi,
        canvas: Canvas,
        slices: Slices,
        convert: Callable[[NDArray[np.generic], int], Pixels],
    ) -> None:
        self._czi = czi
        self._canvas = canvas
        self._slices = slices
        self._convert = convert
        self._places = {key: places(czi, canvas, blocks) for key, blocks in slices.items()}
        self._cache: OrderedDict[int, Pixels] = OrderedDict()
        self._cached_bytes = 0

    def region(self, path: int, plane: int, top: int, left: int, rows: int, columns: int) -> Pixels:
        """(rows, columns, samples) from (top, left); what lies outside is background."""
        canvas = self._canvas
        background = np.iinfo(canvas.kind).max if canvas.samples == 3 else 0
        tile: Pixels = np.full((rows, columns, canvas.samples), background, canvas.kind)
        blocks = self._slices.get((path, plane))
        if blocks is None:
            return tile
        where = self._places[path, plane]  # (blocks, 4): top, left, bottom, right
        hits = (where[:, 0] < top + rows) & (where[:, 2] > top)
        hits &= (where[:, 1] < left + columns) & (where[:, 3] > left)
        for block, (above, before, below, after) in zip(
            blocks[hits].tolist(), where[hits].tolist(), strict=True
        ):
            pixels = self._block(block, path)
            first_row, first_column = max(above, top), max(before, left)
            end_row, end_column = min(below, top + rows), min(after, left + columns)
            tile[first_row - top : end_row - top, first_column - left : end_column - left] = pixels[
                first_row - above : end_row - above, first_column - before : end_column - before
            ]
        return tile

    def _block(self, block: int, path: int) -> Pixels:
        found = self._cache.get(block)
        if found is not None:
            self._cache.move_to_end(block)
            return found
        pixels = self._convert(decode(self._czi, block), path)
        self._cache[block] = pixels
        self._cached_bytes += pixels.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        return pixels


def places(czi: Czi, canvas: Canvas, blocks: NDArray[np.intp]) -> NDArray[np.int64]:
    """Where sub-blocks lie on the canvas: (blocks, 4) of top, left, bottom, right."""
    rows = czi.blocks[blocks]
    top = np.rint((rows["y"] - canvas.origin[1]) / canvas.factor).astype(np.int64)
    left = np.rint((rows["x"] - canvas.origin[0]) / canvas.factor).astype(np.int64)
    return np.stack((top, left, top + rows["stored_rows"], left + rows["stored_columns"]), axis=1)


def tile_size(czi: Czi, blocks: NDArray[np.intp], origin: tuple[int, int]) -> tuple[int, int] | None:
    """(rows, columns) of the sub-blocks where all are of one size and lie on a grid of it
    from ``origin``; None where they overlap or are scattered."""
    rows = czi.blocks[blocks]
    size = int(rows["stored_rows"][0]), int(rows["stored_columns"][0])
    covers = int(rows["rows"][0]), int(rows["columns"][0])
    same = (rows["stored_rows"] == size[0]) & (rows["stored_columns"] == size[1])
    same &= (rows["rows"] == covers[0]) & (rows["columns"] == covers[1])
    on_grid = ((rows["x"] - origin[0]) % covers[1] == 0) & ((rows["y"] - origin[1]) % covers[0] == 0)
    return size if bool((same & on_grid).all()) else None


def absent_tiles(
    grid: tuple[int, int, int, int], canvas: Canvas, czi: Czi, slices: Slices
) -> NDArray[np.bool_]:
    """True for each frame index that no sub-block touches. ``grid``: paths, planes, tiles down,
    tiles across."""
    absent = np.ones(grid, np.bool_)
    for key, blocks in slices.items():
        where = np.maximum(places(czi, canvas, blocks), 0)
        where[:, :2] //= (canvas.tile_rows, canvas.tile_columns)
        where[:, 2:] = -(-where[:, 2:] // (canvas.tile_rows, canvas.tile_columns))
        for top, left, bottom, right in where.tolist():
            absent[(*key, slice(top, bottom), slice(left, right))] = False
    return absent.reshape(-1)
