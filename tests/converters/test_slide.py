# SPDX-License-Identifier: Apache-2.0
"""Frame numbers by PS3.3 C.7.6.17.3."""

import itertools

import numpy as np
import pytest

from converters.slide import Level, TileMap


def level(rows: int, columns: int, paths: int = 1, planes: int = 1) -> Level:
    down, across = -(-rows // 10), -(-columns // 10)
    zeros = np.zeros(down * across * paths * planes, dtype=np.uint64)
    return Level(0, rows, columns, 10, 10, TileMap(zeros, zeros), optical_paths=paths, focal_planes=planes)


def test_frames_count_columns_then_rows_then_planes_then_paths() -> None:
    slide = level(25, 31, paths=2, planes=3)
    assert (slide.tiles_down, slide.tiles_across, slide.number_of_frames) == (3, 4, 72)
    places = itertools.product(range(2), range(3), range(3), range(4))
    numbers = [slide.frame_number(*place) for place in places]
    assert numbers == list(range(1, 73))


def test_the_first_tile_is_frame_1_and_index_0() -> None:
    assert level(25, 31).frame_number(0, 0, 0, 0) == 1
    assert level(25, 31).frame_index(0, 0, 0, 0) == 0


@pytest.mark.parametrize("place", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 3, 0), (0, 0, 0, 4), (0, 0, -1, 0)])
def test_a_place_outside_of_the_level_is_refused(place: tuple[int, int, int, int]) -> None:
    with pytest.raises(IndexError):
        level(25, 31).frame_index(*place)
