# SPDX-License-Identifier: Apache-2.0
"""A picture on the grid of iSyntax: planes of every scale, their bands, the codeblocks in
chunks of three scales (1 + 4 + 16 blocks for each colour), as files hold them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.support.slides.isyntax_wavelet import WHITE, Bands, Plane, decompose, to_ycocg

Pixels = NDArray[np.uint8]

BLOCK = 128  # edge of a codeblock: tiles have twice as much
PADDING = 3
ORIGIN = (41_000, 58_000)  # (row, column) of the scan's first pixel, margin included


@dataclass(frozen=True, eq=False)
class Block:
    """One codeblock: where it stands, and its bands."""

    colour: int
    scale: int
    row: int
    column: int
    bands: Sequence[Plane]

    @property
    def is_ll(self) -> bool:
        return len(self.bands) == 1

    @property
    def empty(self) -> bool:
        expected = WHITE[self.colour] if self.is_ll else 0
        return all((band == expected).all() for band in self.bands)


@dataclass(frozen=True, eq=False)
class Scan:
    """The picture on its grid of tiles, decomposed: ``planes[s]`` are the three of scale s."""

    rows: int
    columns: int
    levels: int
    planes: Sequence[Plane]
    bands: Sequence[Sequence[Bands]] = field(repr=False)  # [scale][colour]

    @property
    def margin(self) -> int:
        return (PADDING << self.levels) - PADDING

    def tiles(self, scale: int) -> tuple[int, int]:
        """(Down, across)."""
        _, rows, columns = self.planes[scale].shape
        return rows // (2 * BLOCK), columns // (2 * BLOCK)


def scanned(pixels: Pixels, levels: int) -> Scan:
    rows, columns, _ = pixels.shape
    margin = (PADDING << levels) - PADDING
    edge = BLOCK << levels
    grid = [-(-(size + 2 * margin) // edge) * edge for size in (rows, columns)]
    plane = np.empty((3, *grid), np.int32)
    plane[:] = np.array(WHITE)[:, None, None]
    plane[:, margin : margin + rows, margin : margin + columns] = to_ycocg(pixels)
    planes, bands = [plane], []
    for _ in range(levels):
        bands.append([decompose(part, outside) for part, outside in zip(planes[-1], WHITE, strict=True)])
        planes.append(np.stack([band.ll for band in bands[-1]]))
    return Scan(rows, columns, levels, planes, bands)


def chunks_of(scan: Scan) -> Iterator[list[Block]]:
    """Coarsest first; within a chunk colours one after the other, coarse blocks first."""
    top = scan.levels - 1
    for scale in range(top, -1, -1):
        if scale != top and scale % 3 != 2:
            continue
        down, across = scan.tiles(scale)
        for row in range(down):
            for column in range(across):
                yield [block for colour in range(3) for block in _of_colour(scan, colour, scale, row, column)]


def _of_colour(scan: Scan, colour: int, scale: int, row: int, column: int) -> Iterator[Block]:
    for below in range(scale % 3 + 1):
        for place in range(4**below):
            r, c = (row << below) + (place >> below), (column << below) + (place & ((1 << below) - 1))
            bands = [_cut(band, r, c) for band in scan.bands[scale - below][colour].high]
            yield Block(colour, scale - below, r, c, bands)
    if scale == scan.levels - 1:
        yield Block(colour, scale, row, column, [_cut(scan.bands[scale][colour].ll, row, column)])


def _cut(band: Plane, row: int, column: int) -> Plane:
    return band[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]


def template_number(scan: Scan, block: Block) -> int:
    """Number of the block's template: high bands by colour and scale, then LL by colour."""
    return 3 * scan.levels + block.colour if block.is_ll else block.colour * scan.levels + block.scale


def places_of(scan: Scan) -> int:
    """Places in the seek table: every block that the grid could have."""
    down, across = scan.tiles(scan.levels - 1)
    return 3 * (sum(int(np.prod(scan.tiles(scale))) for scale in range(scan.levels)) + down * across)


def place_of(scan: Scan, block: Block) -> int:
    scales = range(block.scale + block.is_ll)
    place = block.row * scan.tiles(block.scale)[1] + block.column
    before = sum(int(np.prod(scan.tiles(scale))) for scale in scales)
    return block.colour * (places_of(scan) // 3) + before + place
