# SPDX-License-Identifier: Apache-2.0
"""A level's pixels put together from its tiles alone, by a decoder of the tests' own."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.slide import GatherMap, Level, PixelTiles, Slide, TileMap

WHITE = 255


def tile_bytes(slide: Slide, level: Level, frame_index: int) -> bytes:
    """A tile as the file holds it; empty where it was left out."""
    tiles = level.tiles
    if isinstance(tiles, GatherMap):
        return b"".join(
            piece(slide, tiles, number)
            for number in range(int(tiles.index[frame_index]), int(tiles.index[frame_index + 1]))
        )
    assert isinstance(tiles, TileMap)
    path = slide.sources[int(tiles.files[frame_index])].path
    with path.open("rb") as file:
        file.seek(int(tiles.offsets[frame_index]))
        return file.read(int(tiles.lengths[frame_index]))


def piece(slide: Slide, tiles: GatherMap, number: int) -> bytes:
    """One of the pieces that tiles are joined from."""
    offset, length = int(tiles.offsets[number]), int(tiles.lengths[number])
    if tiles.literal[number]:
        return tiles.literals[offset : offset + length]
    with slide.sources[int(tiles.files[number])].path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def tile_pixels(slide: Slide, level: Level, frame_index: int) -> NDArray[np.uint8]:
    """A tile, decoded: JPEG of a TileMap with its tables put back, or as it is read."""
    tiles = level.tiles
    if isinstance(tiles, PixelTiles):
        return np.asarray(tiles.read(frame_index), dtype=np.uint8)
    data = tile_bytes(slide, level, frame_index)
    shape = (level.tile_rows, level.tile_columns, level.pixel_type.samples_per_pixel)
    if not data:
        colour = level.absent_colour if level.absent_colour is not None else WHITE
        return np.broadcast_to(np.array(colour, np.uint8), shape)
    tables = tiles.jpeg_tables if isinstance(tiles, TileMap) else b""
    image = Image.open(io.BytesIO(tables[:-2] + data[2:] if tables else data))
    return np.array(image, dtype=np.uint8).reshape(shape)


def level_pixels(slide: Slide, level: Level, path: int = 0, plane: int = 0) -> NDArray[np.uint8]:
    """All pixels of one optical path and focal plane: (rows, columns, samples)."""
    size = (level.tiles_down * level.tile_rows, level.tiles_across * level.tile_columns)
    whole = np.zeros((*size, level.pixel_type.samples_per_pixel), np.uint8)
    for row in range(level.tiles_down):
        for column in range(level.tiles_across):
            top, left = row * level.tile_rows, column * level.tile_columns
            pixels = tile_pixels(slide, level, level.frame_index(path, plane, row, column))
            whole[top : top + level.tile_rows, left : left + level.tile_columns] = pixels
    return whole[: level.rows, : level.columns]
