# SPDX-License-Identifier: Apache-2.0
"""Tiles of one size on all levels of a scene, wherever tiles are made anew anyway.

DICOM lets every level have its own, and readers give them as the file suggests. But
wsidicom leaves out levels whose tiles are not as large as those of the finest one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.slide import Level, Pixels, PixelTiles, Scene, Slide
from converters.writer.tilework import absent_colour

MAX_EDGE = 2048
Read = Callable[[int], Pixels]


def with_even_tiles(slide: Slide) -> Slide:
    """The slide, its decoded levels cut as the finest level of their scene is."""
    return replace(slide, scenes=tuple(map(_even, slide.scenes)))


def _even(scene: Scene) -> Scene:
    finest = scene.levels[0]
    size = (finest.tile_rows, finest.tile_columns)
    levels = tuple(
        _cut(scene, level, *size)
        if isinstance(level.tiles, PixelTiles) and (level.tile_rows, level.tile_columns) != size
        else level
        for level in scene.levels
    )
    return replace(scene, levels=levels) if max(size) <= MAX_EDGE else scene


def _cut(scene: Scene, level: Level, rows: int, columns: int) -> Level:
    tiles = level.tiles
    assert isinstance(tiles, PixelTiles)
    cut = replace(level, tile_rows=rows, tile_columns=columns, reference=None)
    cutter = _Cutter(scene, level, cut, tiles.read, tiles.absent)
    count = cut.number_of_frames
    missing = None
    if tiles.missing is not None:
        left_out = (all(tiles.absent[own] for *_, own in cutter.parts(at)) for at in range(count))
        missing = np.fromiter(left_out, np.bool_, count)
    made = replace(tiles, read=cutter.read, count=count, missing=missing)
    return replace(cut, tiles=made)


class _Cutter:
    """Reads tiles of ``cut`` out of those of ``level``; keeps the last one that it read."""

    def __init__(self, scene: Scene, level: Level, cut: Level, read: Read, absent: NDArray[np.bool_]) -> None:
        self._level, self._cut, self._read, self._absent = level, cut, read, absent
        self._colour = absent_colour(scene, level)
        self._last: tuple[int, Pixels] | None = None

    def parts(self, index: int) -> list[tuple[int, int, int]]:
        """(top, left, index) of each of the level's own tiles that lies in tile ``index``;
        its place counted from that tile's corner."""
        level, cut = self._level, self._cut
        shape = (cut.optical_paths, cut.focal_planes, cut.tiles_down, cut.tiles_across)
        path, plane, down, across = (int(at) for at in np.unravel_index(index, shape))
        top, left = down * cut.tile_rows, across * cut.tile_columns
        bottom, right = min(top + cut.tile_rows, level.rows), min(left + cut.tile_columns, level.columns)
        return [
            (
                row * level.tile_rows - top,
                column * level.tile_columns - left,
                level.frame_index(path, plane, row, column),
            )
            for row in range(top // level.tile_rows, -(-bottom // level.tile_rows))
            for column in range(left // level.tile_columns, -(-right // level.tile_columns))
        ]

    def read(self, index: int) -> Pixels:
        """A tile of ``cut``; what lies outside of the level repeats its edge."""
        level, cut, pixel = self._level, self._cut, self._level.pixel_type
        down, across = divmod(index % (cut.tiles_down * cut.tiles_across), cut.tiles_across)
        rows = min(cut.tile_rows, level.rows - down * cut.tile_rows)
        columns = min(cut.tile_columns, level.columns - across * cut.tile_columns)
        kind = np.uint8 if pixel.bits_allocated == 8 else np.uint16
        whole: NDArray[Any] = np.empty((rows, columns, pixel.samples_per_pixel), kind)
        whole[...] = self._colour
        for top, left, own in self.parts(index):
            if not self._absent[own]:
                tile = self._tile(own)
                target = whole[max(top, 0) : top + level.tile_rows, max(left, 0) : left + level.tile_columns]
                first = max(-top, 0), max(-left, 0)
                target[...] = tile[
                    first[0] : first[0] + target.shape[0], first[1] : first[1] + target.shape[1]
                ]
        padding = ((0, cut.tile_rows - rows), (0, cut.tile_columns - columns), (0, 0))
        return np.pad(whole, padding, mode="edge")

    def _tile(self, index: int) -> Pixels:
        if self._last is None or self._last[0] != index:
            self._last = None
            tile = self._read(index)
            if tile.shape[:2] != (self._level.tile_rows, self._level.tile_columns):
                raise DamagedSlide(
                    f"tile {index + 1} of level {self._level.index} is not as large as the file says"
                )
            self._last = (index, tile)
        return self._last[1]
