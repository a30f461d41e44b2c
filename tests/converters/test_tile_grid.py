# SPDX-License-Identifier: Apache-2.0
"""Windows of a page's tiles: nothing beyond the page is taken for a tile of it."""

import numpy as np
import pytest

from converters.readers.tile_grid import scale, window
from converters.slide import TileMap

PAGE = TileMap(
    np.arange(1, 25, dtype=np.uint64), np.full(24, 9, np.uint64), 0, b"tables"
)  # 2 planes of 3 x 4


def test_a_window_takes_the_tiles_of_its_rows_and_columns() -> None:
    part = window((3, 4), (2, 2), (1, 2)).tiles(PAGE)
    assert part.offsets.tolist() == [7, 8, 11, 12]
    assert part.lengths.tolist() == [9] * 4
    assert part.jpeg_tables == b"tables"


def test_tiles_beyond_the_page_are_absent_to_the_right_and_below() -> None:
    part = window((3, 4), (2, 2), (2, 3)).tiles(PAGE)
    assert part.offsets.tolist() == [12, 0, 0, 0]
    assert part.absent.tolist() == [False, True, True, True]


def test_planes_follow_each_other_in_the_order_asked() -> None:
    assert window((3, 4), (1, 2), planes=(1, 0)).tiles(PAGE).offsets.tolist() == [13, 14, 1, 2]


def test_a_reference_is_asked_for_the_pages_own_tile() -> None:
    asked: list[int] = []

    def decode(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        asked.append(index)
        return np.zeros((1, 1, 3), np.uint8)

    reference = window((3, 4), (2, 2), (1, 2)).reference(decode)
    assert reference is not None
    reference(2)
    assert asked == [10]
    assert window((3, 4), (2, 2)).reference(None) is None


@pytest.mark.parametrize(
    ("part", "factors"),
    [
        ((25, 38), (4.0, 4.0)),
        ((26, 39), (4.0, 4.0)),
        ((30, 38), (102 / 30, 153 / 38)),
        ((102, 153), (1.0, 1.0)),
    ],
)
def test_whole_numbers_are_preferred_where_pixels_were_cut_off_or_rounded_up(
    part: tuple[int, int], factors: tuple[float, float]
) -> None:
    assert scale((102, 153), part) == factors
