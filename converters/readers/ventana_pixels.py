# SPDX-License-Identifier: Apache-2.0
"""The stitched pixels of a Ventana area: overlapping camera tiles decoded and pasted."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.readers.tiff_pages import CODESTREAMS, pixel_type, reference
from converters.readers.ventana_stitching import Area
from converters.slide import PixelTiles, Tiles

if TYPE_CHECKING:
    import tifffile

CACHE_BYTES = 64 << 20
MAX_TILE_BYTES = 64 << 20
WHITE = (255, 255, 255)
Decoder = Callable[[int], NDArray[np.uint8]]


def stitched_tiles(
    page: "tifffile.TiffPage",
    stored: Tiles,
    area: Area,
    grid: tuple[int, int],
    planes: tuple[int, ...],
    edges: tuple[int, int],
    white: tuple[int, int, int] | None,
) -> PixelTiles:
    """Tiles of ``edges`` (rows, columns) pixels of the area, plane by plane. ``stored``
    are the page's own tiles, ``grid`` (down, across) of them in each of ``planes``."""
    size = area.size((int(page.tilelength), int(page.tilewidth)))
    down, across = -(-size[0] // edges[0]), -(-size[1] // edges[1])
    mosaic = _Mosaic(page, stored.absent, area, grid, white or WHITE)

    def read(frame_index: int) -> NDArray[np.uint8]:
        plane, row, column = (int(at) for at in np.unravel_index(frame_index, (len(planes), down, across)))
        return mosaic.read(planes[plane], row * edges[0], column * edges[1], edges)

    missing = None
    if stored.absent.any():
        missing = np.array(
            [
                not any(True for _ in mosaic.shown(plane, row * edges[0], column * edges[1], edges))
                for plane in planes
                for row in range(down)
                for column in range(across)
            ]
        )
    return PixelTiles(
        read=read,
        count=len(planes) * down * across,
        why="tiles overlap",
        lossy_method=CODESTREAMS[int(page.compression)],
        size_bytes=int(stored.size_bytes),
        missing=missing,
    )


class _Mosaic:
    """An area's tiles at their places; of two that overlap the lower and right is on top."""

    def __init__(
        self,
        page: "tifffile.TiffPage",
        absent: NDArray[np.bool_],
        area: Area,
        grid: tuple[int, int],
        white: tuple[int, int, int],
    ) -> None:
        self._tile = int(page.tilelength), int(page.tilewidth)
        self._absent, self._area, self._grid = absent, area, grid
        self._samples = pixel_type(page).samples_per_pixel
        self._fill = white[: self._samples]
        self._tops, self._lefts = np.array(area.tops), np.array(area.lefts)
        self._decode = _decoder(page, (*self._tile, self._samples))

    def shown(self, plane: int, top: int, left: int, size: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
        """(Number in the page, top, left) of the tiles in a window, those on top last."""
        rows = np.flatnonzero((self._tops < top + size[0]) & (self._tops + self._tile[0] > top))
        columns = np.flatnonzero((self._lefts < left + size[1]) & (self._lefts + self._tile[1] > left))
        for row in rows:
            for column in columns:
                at = (self._area.start[0] + int(row)) * self._grid[1] + self._area.start[1] + int(column)
                at += plane * self._grid[0] * self._grid[1]
                if not self._absent[at]:
                    yield at, int(self._tops[row]), int(self._lefts[column])

    def read(self, plane: int, top: int, left: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        pixels = np.empty((*size, self._samples), np.uint8)
        pixels[:] = self._fill
        for at, y, x in self.shown(plane, top, left, size):
            rows = slice(max(y, top), min(y + self._tile[0], top + size[0]))
            columns = slice(max(x, left), min(x + self._tile[1], left + size[1]))
            pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = (
                self._decode(at)[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
            )
        return pixels


def _decoder(page: "tifffile.TiffPage", shape: tuple[int, int, int]) -> Decoder:
    size_bytes = shape[0] * shape[1] * shape[2]
    decode = reference(page)
    if decode is None or size_bytes > MAX_TILE_BYTES:
        raise DamagedSlide("the tiles of the finest level cannot be decoded")

    @lru_cache(maxsize=max(4, CACHE_BYTES // size_bytes))
    def tile(index: int) -> NDArray[np.uint8]:
        try:
            pixels = decode(index)
        except Exception as error:  # whatever a decoder raises: all mean damaged data
            raise DamagedSlide("a tile of the finest level cannot be decoded") from error
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise DamagedSlide("a tile of the finest level has another size than its page says")
        return pixels

    return tile
