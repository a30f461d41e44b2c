# SPDX-License-Identifier: Apache-2.0
"""Pixels of an iSyntax image: codeblocks to bands, bands to tiles, tiles to RGB.

The wavelet is the reversible 5/3 of JPEG 2000 (ITU-T T.800 F.3.8), low band on even
samples: band sample k of a low band is sample 2k + 2, that of a high band 2k + 1. A tile
needs one more row and column of its neighbours' bands. What was not scanned is white.
Colours are the reversible YCoCg of Malvar and Sullivan.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.readers.isyntax_codeblocks import CodeblockDecoder
from converters.readers.isyntax_layout import COLOURS, Layout

Samples = NDArray[np.int16]

WHITE = (255, 0, 0)  # Y, Co, Cg
KEPT_TILES = 96  # 0.4 MB each
KEPT_BLOCKS = 128  # 0.3 MB each


class _Kept:
    """The results of the last calls, by place."""

    def __init__(self, make: Callable[[int, int, int], Samples], most: int) -> None:
        self._make, self._most = make, most
        self._results: OrderedDict[tuple[int, int, int], Samples] = OrderedDict()

    def __call__(self, scale: int, row: int, column: int) -> Samples:
        key = (scale, row, column)
        if key in self._results:
            self._results.move_to_end(key)
        else:
            self._results[key] = self._make(scale, row, column)
            if len(self._results) > self._most:
                self._results.popitem(last=False)
        return self._results[key]


class Pyramid:
    """Reads regions of any scale. ``close`` it."""

    def __init__(self, path: Path, layout: Layout, decoder: CodeblockDecoder) -> None:
        self.layout, self._decoder = layout, decoder
        self._exists = [layout.exists(scale) for scale in range(layout.grid.levels)]
        self._tile = _Kept(self._synthesised, KEPT_TILES)
        self._high = _Kept(self._high_bands, KEPT_BLOCKS)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        edge = layout.grid.edge
        self._white = np.empty((COLOURS, 2 * edge, 2 * edge), np.int16)
        self._white[:] = np.array(WHITE)[:, None, None]

    def close(self) -> None:
        os.close(self._file)

    def scanned(
        self, scale: int, tops: NDArray[np.int64], lefts: NDArray[np.int64], edges: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Whether any of the scale's tiles under each region was scanned: regions begin at
        ``tops`` x ``lefts`` on the scale's grid, and are ``edges`` (rows, columns) large."""
        there = self._exists[scale]
        sums = np.pad(np.cumsum(np.cumsum(there, 0), 1), ((1, 0), (1, 0)))
        tile = 2 * self.layout.grid.edge
        up, down = (np.clip(at, 0, there.shape[0]) for at in (tops // tile, -(-(tops + edges[0]) // tile)))
        near, far = (np.clip(at, 0, there.shape[1]) for at in (lefts // tile, -(-(lefts + edges[1]) // tile)))
        within = (
            sums[np.ix_(down, far)]
            - sums[np.ix_(up, far)]
            - sums[np.ix_(down, near)]
            + sums[np.ix_(up, near)]
        )
        result: NDArray[np.bool_] = within > 0
        return result

    def region(self, scale: int, top: int, left: int, rows: int, columns: int) -> NDArray[np.uint8]:
        """RGB (rows, columns, 3) of a region on the scale's grid, which may reach beyond it.
        Raises DamagedSlide."""
        edge = 2 * self.layout.grid.edge
        down = range(top // edge, -(-(top + rows) // edge))
        across = range(left // edge, -(-(left + columns) // edge))
        planes = np.empty((COLOURS, len(down) * edge, len(across) * edge), np.int16)
        for r, row in enumerate(down):
            for c, column in enumerate(across):
                scanned = self._scanned(scale, row, column)
                tile = self._tile(scale, row, column) if scanned else self._white
                planes[:, r * edge : (r + 1) * edge, c * edge : (c + 1) * edge] = tile
        top, left = top - down.start * edge, left - across.start * edge
        return to_rgb(planes[:, top : top + rows, left : left + columns])

    def _scanned(self, scale: int, row: int, column: int) -> bool:
        down, across = self._exists[scale].shape
        return 0 <= row < down and 0 <= column < across and bool(self._exists[scale][row, column])

    def _block(self, colour: int, scale: int, row: int, column: int, low: bool) -> Samples:
        layout = self.layout
        at = layout.index(colour, scale, row, column, low)
        length = int(layout.lengths[at])
        try:
            data = os.pread(self._file, length, int(layout.offsets[at]))
        except OSError as error:
            raise DamagedSlide("a codeblock cannot be read") from error
        if len(data) != length:
            raise DamagedSlide("the file ends within a codeblock")
        return self._decoder.decode(data, 1 if low else 3, layout.grid.edge, layout.version)

    def _high_bands(self, scale: int, row: int, column: int) -> Samples:
        """(Colours, bands, edge, edge)."""
        return np.stack([self._block(colour, scale, row, column, False) for colour in range(COLOURS)])

    def _low_band(self, scale: int, row: int, column: int) -> Samples:
        """(Colours, edge, edge) of a tile that was scanned."""
        edge = self.layout.grid.edge
        if scale == self.layout.grid.levels - 1:
            return np.stack([self._block(colour, scale, row, column, True)[0] for colour in range(COLOURS)])
        if not self._scanned(scale + 1, row // 2, column // 2):
            return self._white[:, :edge, :edge]
        coarser = self._tile(scale + 1, row // 2, column // 2)
        top, left = row % 2 * edge, column % 2 * edge
        return coarser[:, top : top + edge, left : left + edge]

    def _synthesised(self, scale: int, row: int, column: int) -> Samples:
        """(Colours, 2 edge, 2 edge) of a tile that was scanned."""
        edge = self.layout.grid.edge
        low = np.empty((COLOURS, edge + 1, edge + 1), np.int16)
        low[:] = np.array(WHITE)[:, None, None]
        high = np.zeros((COLOURS, 3, edge + 2, edge + 2), np.int16)
        # (where in the padded bands, where in the neighbour's) for the one before, itself, the one after
        parts = ((slice(0, 1), slice(-1, None)), (slice(1, -1), slice(None)), (slice(-1, None), slice(0, 1)))
        for down, (to_rows, from_rows) in zip((-1, 0, 1), parts, strict=True):
            for across, (to_columns, from_columns) in zip((-1, 0, 1), parts, strict=True):
                place = (scale, row + down, column + across)
                if not self._scanned(*place):
                    continue
                high[..., to_rows, to_columns] = self._high(*place)[..., from_rows, from_columns]
                if down <= 0 and across <= 0:
                    into = (
                        slice(1, None) if down == 0 else to_rows,
                        slice(1, None) if across == 0 else to_columns,
                    )
                    low[:, *into] = self._low_band(*place)[:, from_rows, from_columns]
        hl, lh, hh = high[:, 0], high[:, 1], high[:, 2]
        low_rows = _joined(low, hl[:, :-1])
        high_rows = _joined(lh[:, :, :-1], hh)
        return _joined(low_rows.swapaxes(1, 2), high_rows.swapaxes(1, 2)).swapaxes(1, 2)


def _joined(low: Samples, high: Samples) -> Samples:
    """Inverse 5/3 along the last axis: low samples -1 to n - 1, high ones -1 to n, give 2n."""
    even = low - ((high[..., :-1] + high[..., 1:] + 2) >> 2)
    odd = high[..., 1:-1] + ((even[..., :-1] + even[..., 1:]) >> 1)
    return np.stack((even[..., :-1], odd), axis=-1).reshape(*odd.shape[:-1], -1)


def to_rgb(planes: Samples) -> NDArray[np.uint8]:
    """(3, rows, columns) of Y, Co, Cg as RGB (rows, columns, 3). Y is a magnitude."""
    y, co, cg = np.abs(planes[0]), planes[1], planes[2]
    middle = y - (cg >> 1)
    blue = middle - (co >> 1)
    pixels: NDArray[np.uint8] = np.clip(np.stack((blue + co, middle + cg, blue), axis=-1), 0, 255).astype(
        np.uint8
    )
    return pixels
