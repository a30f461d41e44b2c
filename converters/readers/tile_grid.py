# SPDX-License-Identifier: Apache-2.0
"""A window of a TIFF page's grid of tiles: padded levels cropped, regions cut out of a
page that holds several, still without decoding."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.slide import TileMap

Reference = Callable[[int], NDArray[np.uint8]]
ABSENT = -1


@dataclass(frozen=True, eq=False)
class Window:
    """Which tile of the page each tile of the window is; :data:`ABSENT` beyond the page."""

    index: NDArray[np.int64]

    def tiles(self, page: TileMap) -> TileMap:
        inside = self.index >= 0
        offsets, lengths = (np.zeros(len(self.index), np.uint64) for _ in range(2))
        offsets[inside] = page.offsets[self.index[inside]]
        lengths[inside] = page.lengths[self.index[inside]]
        return TileMap(offsets, lengths, page.source, page.jpeg_tables)

    def reference(self, page: Reference | None) -> Reference | None:
        if page is None:
            return None
        decode, index = page, self.index
        return lambda frame_index: decode(int(index[frame_index]))


def window(
    grid: tuple[int, int],
    size: tuple[int, int],
    corner: tuple[int, int] = (0, 0),
    planes: tuple[int, ...] = (0,),
) -> Window:
    """The window of ``size`` tiles at ``corner`` of a page of ``grid`` tiles, all (down,
    across); its ``planes`` one after the other, as numbers of the page's planes."""
    rows = np.arange(size[0], dtype=np.int64)[:, None] + corner[0]
    columns = np.arange(size[1], dtype=np.int64)[None, :] + corner[1]
    inside = (rows >= 0) & (rows < grid[0]) & (columns >= 0) & (columns < grid[1])
    one = rows * grid[1] + columns
    index = [np.where(inside, one + plane * grid[0] * grid[1], ABSENT) for plane in planes]
    return Window(np.stack(index).reshape(-1))


def scale(finest: tuple[int, int], part: tuple[int, int]) -> tuple[float, float]:
    """How many pixels of the finest level one of a coarser level covers (down, across),
    sizes being (rows, columns). Scanners reduce by whole numbers and cut off or round
    up what is left over, so a whole number is preferred."""
    factor = max(1, round(finest[1] / part[1]))
    if all(whole // factor <= size <= -(-whole // factor) for whole, size in zip(finest, part, strict=True)):
        return float(factor), float(factor)
    return finest[0] / part[0], finest[1] / part[1]
