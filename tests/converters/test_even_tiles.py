# SPDX-License-Identifier: Apache-2.0
"""Decoded levels cut as the finest level of their scene is."""

from dataclasses import replace

import numpy as np
import pytest

from converters.errors import DamagedSlide
from converters.even_tiles import with_even_tiles
from converters.slide import Level, OpticalPath, Pixels, PixelTiles, PixelType, Scan, Scene, Slide, SourceFile
from tests.support.level_pixels import level_pixels
from tests.support.make_slide import picture


def drawn_level(
    index: int, size: tuple[int, int], tile: tuple[int, int], holes: tuple[int, ...] = ()
) -> Level:
    """Grey of two paths and two planes, each another picture."""
    rows, columns = size
    level = Level(index, rows, columns, *tile, PixelTiles(lambda _: np.empty(0, np.uint8), 0, ""))
    level = replace(level, pixel_type=PixelType(1), optical_paths=2, focal_planes=2, downsample=2.0**index)

    def read(at: int) -> Pixels:
        assert at not in holes
        shape = (2, 2, level.tiles_down, level.tiles_across)
        path, plane, row, column = np.unravel_index(at, shape)
        seen = picture(rows, columns, 10 * int(path) + int(plane) + 1)[..., :1]
        part = seen[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]]
        return np.pad(part, ((0, tile[0] - part.shape[0]), (0, tile[1] - part.shape[1]), (0, 0)))

    missing = np.isin(np.arange(level.number_of_frames), holes) if holes else None
    return replace(level, tiles=PixelTiles(read, level.number_of_frames, "drawn", missing=missing))


def slide_of(source: SourceFile, *levels: Level) -> Slide:
    paths = (OpticalPath("1"), OpticalPath("2"))
    scene = Scene(0, levels, paths, focal_planes_um=(0.0, 1.0))
    return with_even_tiles(Slide("drawn", (source,), (scene,), (), Scan()))


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceFile:
    return SourceFile(tmp_path_factory.getbasetemp() / "none", 0, 0.0)


@pytest.mark.parametrize(
    ("finest", "own"),
    [((64, 64), (30, 70)), ((50, 70), (64, 64)), ((64, 64), (128, 128)), ((64, 64), (64, 64))],
)
def test_the_pixels_stay(source: SourceFile, finest: tuple[int, int], own: tuple[int, int]) -> None:
    size = (150, 130)
    slide = slide_of(source, drawn_level(0, (300, 260), finest), drawn_level(1, size, own))
    level = slide.scenes[0].levels[1]
    assert (level.tile_rows, level.tile_columns) == finest
    assert len(level.tiles) == level.number_of_frames == 4 * -(-150 // finest[0]) * -(-130 // finest[1])
    for path in (0, 1):
        for plane in (0, 1):
            expected = picture(*size, 10 * path + plane + 1)[..., :1]
            assert np.array_equal(level_pixels(slide, level, path, plane), expected)


def test_a_tile_is_absent_where_all_that_it_is_cut_from_is(source: SourceFile) -> None:
    slide = slide_of(
        source, drawn_level(0, (300, 260), (64, 64)), drawn_level(1, (128, 128), (128, 64), (1,))
    )
    level = slide.scenes[0].levels[1]
    assert np.flatnonzero(level.tiles.absent).tolist() == [1, 3]
    slide = slide_of(source, drawn_level(0, (300, 260), (64, 64)), drawn_level(1, (128, 128), (64, 32), (1,)))
    level = slide.scenes[0].levels[1]
    assert not level.tiles.absent.any()
    assert isinstance(level.tiles, PixelTiles)
    assert (level.tiles.read(0)[:, 32:] == 255).all()


def test_what_lies_outside_repeats_the_edge(source: SourceFile) -> None:
    slide = slide_of(source, drawn_level(0, (300, 260), (64, 64)), drawn_level(1, (40, 50), (40, 50)))
    tiles = slide.scenes[0].levels[1].tiles
    assert isinstance(tiles, PixelTiles)
    tile = tiles.read(0)
    assert (tile[40:, :50] == tile[39, :50]).all()
    assert (tile[:, 50:] == tile[:, 49:50]).all()


def test_a_tile_of_another_size_than_stated_is_damage(source: SourceFile) -> None:
    level = drawn_level(1, (40, 50), (40, 50))
    level = replace(level, tiles=PixelTiles(lambda _: np.zeros((20, 50, 1), np.uint8), 4, "drawn"))
    tiles = slide_of(source, drawn_level(0, (300, 260), (64, 64)), level).scenes[0].levels[1].tiles
    assert isinstance(tiles, PixelTiles)
    with pytest.raises(DamagedSlide, match=r"^tile 1 of level 1 is not as large as the file says$"):
        tiles.read(0)
