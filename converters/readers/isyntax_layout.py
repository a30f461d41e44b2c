# SPDX-License-Identifier: Apache-2.0
"""Where the codeblocks of an iSyntax image lie: grid, block header table, seek table.

Each scale is a grid of tiles of twice a codeblock's edge. A tile's block holds its three
high bands; at the coarsest scale a further one holds the low band. Pixels of scale s are
the low band of scale s - 1, so there are as many levels as scales. The grid's first
sample lies a margin before the picture's: 3 pixels of the coarsest scale, doubled and 3
more for each finer one.

Blocks that were not scanned are not listed. Version 1 lists places in the header and
byte ranges in the seek table, in the grid's order (colours, scales from the finest with
the low band last, rows, columns), or both in the header. Version 2 lists clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.readers.isyntax_clusters import Listed, listed_in_clusters
from converters.readers.isyntax_header import Header, objects, ranges, texts
from converters.slide import Offsets

MARGIN = 3
MAX_LEVELS = 14
MAX_EDGE_PIXELS = 4_000_000
MAX_BLOCKS = 12_000_000
MAX_REUSE = 16  # blank blocks may share bytes, but not without end
EDGES = (32, 64, 128, 256)
VERSIONS = {"16": 1, "19": 2}
"""UFS_IMAGE_BLOCK_COMPRESSION_METHOD -> version of the codeblocks."""
COLOURS = 3

_TAG = [("tag", "<u2", 2), ("bytes", "<u4")]
_PLACE = [("sequence", _TAG), ("place_tag", _TAG), ("place", "<i4", 5)]
_RANGE = [("offset_tag", _TAG), ("offset", "<u8"), ("length_tag", _TAG), ("length", "<u8")]
_TEMPLATE = [("template_tag", _TAG), ("template", "<u4")]
_PARTIAL = np.dtype([*_PLACE, *_TEMPLATE])
_FULL = np.dtype([*_PLACE, *_RANGE, *_TEMPLATE])
_SEEK = np.dtype([("sequence", _TAG), *_RANGE])
_SEEK_TABLE = (0x301D, 0x2015)
_DATA_OFFSET = (0x301D, 0x2010)
_UNKNOWN_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Grid:
    """The finest level is ``rows`` x ``columns``; ``origin`` (row, column) is what block
    coordinates count from; ``edge`` is a codeblock's."""

    rows: int
    columns: int
    levels: int
    edge: int
    origin: tuple[int, int] = (0, 0)

    @property
    def margin(self) -> int:
        return (MARGIN << self.levels) - MARGIN

    def tiles(self, scale: int) -> tuple[int, int]:
        """(Down, across)."""
        whole = self.edge << self.levels
        down, across = (-(-(size + 2 * self.margin) // whole) for size in (self.rows, self.columns))
        return down << (self.levels - 1 - scale), across << (self.levels - 1 - scale)

    @cached_property
    def before(self) -> Sequence[int]:
        """Blocks of a colour before those of each scale; last but one the low band's, last all."""
        sums = [0]
        for scale in [*range(self.levels), self.levels - 1]:
            down, across = self.tiles(scale)
            sums.append(sums[-1] + down * across)
        return sums

    def first_pixel(self, scale: int) -> int:
        """Where the picture begins on the scale's grid, the same in rows and columns.

        Sample k of scale s lies at 2^s k + 2 (2^s - 1) of the finest grid. With this
        start pixel n of a level is the sample next to 2^s n + 1 of the picture, less
        than half a pixel from where an average of 2^s x 2^s pixels would have its centre.
        """
        return self.margin if scale == 0 else (MARGIN << (self.levels - scale)) - 2


@dataclass(frozen=True, eq=False)
class Layout:
    """Grid and byte ranges; index is the block's place in the grid's order."""

    grid: Grid
    version: int
    offsets: Offsets
    lengths: Offsets
    listed: NDArray[np.bool_]

    def index(self, colour: int, scale: int, row: int, column: int, low: bool) -> int:
        before = self.grid.before
        across = self.grid.tiles(scale)[1]
        return colour * before[-1] + before[scale + low] + row * across + column

    def exists(self, scale: int) -> NDArray[np.bool_]:
        """Which tiles of a scale were scanned: (down, across)."""
        before = self.grid.before
        return self.listed[before[scale] : before[scale + 1]].reshape(self.grid.tiles(scale))

    def level_bytes(self, scale: int) -> int:
        """What a level's pixels take up: its blocks, and those of all coarser scales."""
        by_colour = self.lengths.reshape(COLOURS, -1)[:, self.grid.before[scale] :]
        return int(by_colour.sum())


def layout(header: Header, path: Path, size_bytes: int) -> Layout:
    """Raises DamagedSlide, UnsupportedPixels, UnsupportedCompression."""
    edge, version = _templates(header)
    grid = _grid(header, edge)
    if COLOURS * grid.before[-1] > MAX_BLOCKS:
        raise DamagedSlide(f"the image has more than {MAX_BLOCKS} codeblocks")
    table = header.blob(header.wsi, "UFS_IMAGE_BLOCK_HEADER_TABLE")
    count = COLOURS * grid.before[-1]
    if table is None:
        clusters = header.blob(header.wsi, "UFS_IMAGE_CLUSTER_HEADER_TABLE")
        if clusters is None:
            raise DamagedSlide("the header has no table of codeblocks")
        found = listed_in_clusters(header.wsi, clusters)
        places = _places(grid, found.places)
        listed = _listed(grid, places)
    else:
        entries = _entries(table)
        places = _places(grid, entries["place"].astype(np.int64))
        listed = _listed(grid, places)
        where = entries if entries.dtype == _FULL else _seek_table(path, header.end, count)[places]
        if (where["offset_tag"]["tag"] != _DATA_OFFSET).any():
            raise DamagedSlide("the table of codeblocks is damaged")
        found = Listed(places, where["offset"], where["length"])
    offsets, lengths = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    offsets[places], lengths[places] = found.offsets, found.lengths
    _check(offsets, lengths, size_bytes, edge)
    return Layout(grid, version, offsets, lengths, listed)


def _listed(grid: Grid, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a block is. Raises DamagedSlide unless tiles are whole, and listed once."""
    listed = np.zeros(COLOURS * grid.before[-1], np.bool_)
    listed[places] = True
    if int(listed.sum()) != len(places):
        raise DamagedSlide("a codeblock is listed twice")
    by_colour = listed.reshape(COLOURS, -1)
    high, low = by_colour[0, grid.before[-3] : grid.before[-2]], by_colour[0, grid.before[-2] :]
    if not (by_colour == by_colour[0]).all() or not np.array_equal(high, low):
        raise DamagedSlide("a tile lacks one of its codeblocks")
    return listed


def _templates(header: Header) -> tuple[int, int]:
    """Edge and version of the codeblocks: one for all."""
    edges: set[tuple[int, ...]] = set()
    methods: set[str] = set()
    for template in objects(header.wsi, "UFS_IMAGE_BLOCK_HEADER_TEMPLATES"):
        dimensions = ranges(template)[:2]
        edges.add(tuple((end - start) // max(1, step) + 1 for start, step, end in dimensions))
        methods.add(texts(template).get("UFS_IMAGE_BLOCK_COMPRESSION_METHOD", ""))
    if not edges:
        raise DamagedSlide("the header has no templates of codeblocks")
    if len(edges) != 1 or edges.isdisjoint((edge, edge) for edge in EDGES):
        raise UnsupportedPixels("the codeblocks are of sizes that are not read")
    if len(methods) != 1 or methods.isdisjoint(VERSIONS):
        raise UnsupportedCompression("other than Hulsken's (methods 16, 19)", "the codeblocks")
    return edges.pop()[0], VERSIONS[methods.pop()]


def _grid(header: Header, edge: int) -> Grid:
    general = next(objects(header.wsi, "UFS_IMAGE_GENERAL_HEADERS"), None)
    dimensions = ranges(general) if general is not None else []
    if general is None or len(dimensions) < 4:
        raise DamagedSlide("the header does not state the dimensions of the image")
    names = [
        texts(one).get("UFS_IMAGE_DIMENSION_NAME", "").lower()
        for one in objects(general, "UFS_IMAGE_DIMENSIONS")
    ]
    if names and names[:2] != ["x", "y"]:
        raise UnsupportedPixels("the dimensions of the image are in an order that is not read")
    across, down, colours, scales = dimensions[:4]
    if (colours[0], colours[2]) != (0, COLOURS - 1):
        raise UnsupportedPixels("the image is not of three colours")
    if scales[0] != 0 or not 0 <= scales[2] < MAX_LEVELS:
        raise DamagedSlide("the image has an impossible number of levels")
    grid = Grid(0, 0, scales[2] + 1, edge)
    rows, columns = (end - start + 1 - 2 * grid.margin for start, _, end in (down, across))
    if not (0 < rows <= MAX_EDGE_PIXELS and 0 < columns <= MAX_EDGE_PIXELS) or down[1] != 1 or across[1] != 1:
        raise DamagedSlide("the image has an impossible size")
    return Grid(rows, columns, grid.levels, edge, (down[0], across[0]))


def _entries(table: bytes) -> NDArray[np.void]:
    """The block header table: its length (u32), then sequence items of one size."""
    size = int.from_bytes(table[:4], "little")
    body = table[4 : 4 + size]
    kind = {40: _PARTIAL, 72: _FULL}.get(int.from_bytes(body[4:8], "little"))
    if kind is None or len(body) != size or size % kind.itemsize:
        raise DamagedSlide("the table of codeblocks is damaged")
    entries = np.frombuffer(body, kind)
    if (entries["sequence"]["bytes"] != kind.itemsize - 8).any():
        raise DamagedSlide("the table of codeblocks is damaged")
    return entries


def _places(grid: Grid, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each block from its coordinates (x, y, colour, scale, coefficient: 0 low, 1 high)."""
    x, y, colour, scale, high = places.T
    if (places[:, 2:] < 0).any() or (places[:, 2:] >= (COLOURS, grid.levels, 2)).any():
        raise DamagedSlide("a codeblock lies off the grid")
    low = high == 0
    if (low & (scale != grid.levels - 1)).any():
        raise DamagedSlide("a codeblock lies off the grid")
    first = (MARGIN << scale) - (MARGIN - 1) + np.where(low, 1 << scale, 0)
    step = 2 * grid.edge << scale
    down, across = np.array([grid.tiles(s) for s in range(grid.levels)], np.int64).T
    row, row_rest = np.divmod(y - grid.origin[0] - first, step)
    column, column_rest = np.divmod(x - grid.origin[1] - first, step)
    if (row_rest | column_rest).any() or (
        (row < 0) | (row >= down[scale]) | (column < 0) | (column >= across[scale])
    ).any():
        raise DamagedSlide("a codeblock lies off the grid")
    before = np.array(grid.before, np.int64)
    result: NDArray[np.int64] = colour * before[-1] + before[scale + low] + row * across[scale] + column
    return result


def _seek_table(path: Path, start: int, count: int) -> NDArray[np.void]:
    """``count`` entries: range of every place of the grid."""
    with path.open("rb") as file:
        file.seek(start)
        head = np.frombuffer(file.read(8).ljust(8, b"\0"), np.dtype(_TAG))[0]
        if tuple(head["tag"].tolist()) != _SEEK_TABLE:
            raise DamagedSlide("no seek table follows the header")
        stated = int(head["bytes"])
        if stated != _UNKNOWN_LENGTH and stated < count * _SEEK.itemsize:
            raise DamagedSlide("the seek table is shorter than the grid")
        data = file.read(count * _SEEK.itemsize)
    if len(data) != count * _SEEK.itemsize:
        raise DamagedSlide("the file ends within the seek table")
    return np.frombuffer(data, _SEEK)


def _check(offsets: Offsets, lengths: Offsets, size_bytes: int, edge: int) -> None:
    size = np.uint64(size_bytes)
    beyond = (offsets > size) | (lengths > size) | (lengths > size - np.minimum(offsets, size))
    if beyond.any():
        raise DamagedSlide(f"{int(beyond.sum())} codeblocks lie beyond the end of the file")
    if (lengths > 2 * COLOURS * edge * edge * 2 + 4096).any():
        raise DamagedSlide("a codeblock is longer than its samples")
    if int(lengths.sum()) > MAX_REUSE * size_bytes:
        raise DamagedSlide("the codeblocks overlap each other")
