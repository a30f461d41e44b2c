# SPDX-License-Identifier: Apache-2.0
"""Where the tiles of a Ventana BIF lie: the EncodeInfo in the XMP of its finest level.

Each scanned area (ImageInfo) is a grid of NumRows x NumCols camera tiles, stored in the
page's own order, rows from the top, from the tile at AoiOrigin on. TileJointInfo says by
how much two neighbours overlap. It counts an area's tiles as the stage went: from 1 at
the lower left, rows upwards, the first to the right, the next back to the left. LEFT and
RIGHT both name neighbours of a row, UP and DOWN those of a column.

Joints are many, repeat each other, and some are wrong or missing: so each gap between two
columns has the mean overlap of its joints that are certain, and a gap without any that of
the area; rows likewise. (Where all agree, as a DP 200 writes them, that is the placement
by joints.) Tiles lie at whole pixels; of two the lower and right is on top, as in OpenSlide.

Pos-X and Pos-Y are an area's lower left corner, in pixels from that of the glass; older
scanners count Pos-X from the leftmost area.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

import numpy as np

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.vendor_xml import number, whole

CERTAIN = 95
"""Least Confidence (in percent) of a joint to believe."""
OLDEST_VERSION = 2
MAX_AREAS = 1000
MAX_EDGE = 100_000  # tiles
MAX_POSITION = 10_000_000  # pixels
HORIZONTAL, VERTICAL = ("LEFT", "RIGHT"), ("UP", "DOWN")


@dataclass(frozen=True)
class Area:
    """One scanned area. ``start`` and ``tiles`` are (down, across) in tiles of the page;
    ``tops`` and ``lefts`` where the rows and columns of tiles lie, in pixels from the
    area's corner. ``position`` is (Pos-Y, Pos-X)."""

    index: int
    start: tuple[int, int]
    tiles: tuple[int, int]
    tops: Sequence[int]
    lefts: Sequence[int]
    position: tuple[float, float] | None
    findings: tuple[str, ...] = ()

    def overlaps(self, tile: tuple[int, int]) -> bool:
        return any(
            later - earlier != edge
            for places, edge in ((self.tops, tile[0]), (self.lefts, tile[1]))
            for earlier, later in pairwise(places)
        )

    def size(self, tile: tuple[int, int]) -> tuple[int, int]:
        """(Rows, columns) in pixels."""
        return self.tops[-1] + tile[0], self.lefts[-1] + tile[1]


def scanned_areas(root: Element, tile: tuple[int, int], grid: tuple[int, int]) -> Sequence[Area]:
    """The areas of an EncodeInfo, of a page with ``grid`` tiles of ``tile`` pixels (down,
    across). Raises DamagedSlide; UnsupportedPixels for versions before 2."""
    version = number(root.get("Ver"))
    if version is None or version < OLDEST_VERSION:
        raise UnsupportedPixels("the stitching information is of a version that is not read")
    infos = root.findall("SlideStitchInfo/ImageInfo")
    if not 0 < len(infos) <= MAX_AREAS:
        raise DamagedSlide("the stitching information lists no areas, or too many")
    in_order = [child for parent in root.findall("AoiOrigin") for child in parent]
    origins = {child.tag: child for child in in_order}
    areas = []
    for place, info in enumerate(infos):
        if info.get("AOIScanned", "1").strip() == "0":
            continue
        index = whole(info.get("AOIIndex", str(place)), 0, MAX_AREAS)
        if index is None:
            raise DamagedSlide("an area has an impossible number")
        origin = origins.get(f"AOI{index}")
        if origin is None and len(in_order) == len(infos):
            origin = in_order[place]  # as OpenSlide takes them
        if origin is None and len(infos) > 1:
            raise DamagedSlide("an area has no origin")
        areas.append(_area(info, index, _start(origin, tile), tile, grid))
    if not areas:
        raise DamagedSlide("the stitching information lists no scanned area")
    return areas


def _start(origin: Element | None, tile: tuple[int, int]) -> tuple[int, int]:
    if origin is None:
        return 0, 0
    pixels = [
        whole(origin.get(name), 0, MAX_EDGE * edge)
        for name, edge in zip(("OriginY", "OriginX"), tile, strict=True)
    ]
    if pixels[0] is None or pixels[1] is None or pixels[0] % tile[0] or pixels[1] % tile[1]:
        raise DamagedSlide("an area does not begin at a tile")
    return pixels[0] // tile[0], pixels[1] // tile[1]


def _area(
    info: Element, index: int, start: tuple[int, int], tile: tuple[int, int], grid: tuple[int, int]
) -> Area:
    down, across = whole(info.get("NumRows"), 1, MAX_EDGE), whole(info.get("NumCols"), 1, MAX_EDGE)
    if down is None or across is None or start[0] + down > grid[0] or start[1] + across > grid[1]:
        raise DamagedSlide("an area has more tiles than its page")
    if number(info.get("Height")) != tile[0] or number(info.get("Width")) != tile[1]:
        raise DamagedSlide("the tiles of an area are not as large as those of its page")
    gaps = (_Gaps(down - 1), _Gaps(across - 1))
    shifted = [_add(joint, (down, across), tile, gaps) for joint in info.findall("TileJointInfo")]
    pos_y, pos_x = number(info.get("Pos-Y")), number(info.get("Pos-X"))
    stated = pos_x is not None and pos_y is not None and max(abs(pos_x), abs(pos_y)) <= MAX_POSITION
    return Area(
        index,
        start,
        (down, across),
        gaps[0].places(tile[0]),
        gaps[1].places(tile[1]),
        (pos_y or 0.0, pos_x or 0.0) if stated else None,
        ("joints of tiles are shifted along their seams too, which is not applied",) if any(shifted) else (),
    )


class _Gaps:
    """The overlaps between neighbouring rows (or columns) of tiles."""

    def __init__(self, count: int) -> None:
        self._sums, self._counts = np.zeros(count), np.zeros(count)
        self._doubtful_sum = self._doubtful_weight = 0.0

    def add(self, gap: int, overlap: float, confidence: float, certain: bool) -> None:
        if certain:
            self._sums[gap] += overlap
            self._counts[gap] += 1
        else:
            self._doubtful_sum += overlap * confidence
            self._doubtful_weight += confidence

    def places(self, edge: int) -> Sequence[int]:
        """Where each row begins, in whole pixels."""
        mean = self._doubtful_sum / self._doubtful_weight if self._doubtful_weight else 0.0
        if self._counts.any():
            mean = float(self._sums.sum() / self._counts.sum())
        overlaps = np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), mean)
        begins = np.concatenate((np.zeros(1), np.cumsum(edge - overlaps)))
        return tuple(int(begin) for begin in np.floor(begins + 0.5))


def _add(joint: Element, tiles: tuple[int, int], tile: tuple[int, int], gaps: tuple[_Gaps, _Gaps]) -> bool:
    """Count one joint; True where it says that the tiles are shifted along the seam."""
    first, second = (_cell(joint.get(name), tiles) for name in ("Tile1", "Tile2"))
    overlap_x, overlap_y = number(joint.get("OverlapX", "0")), number(joint.get("OverlapY", "0"))
    confidence = number(joint.get("Confidence", "100"))
    direction = joint.get("Direction", "").strip().upper()
    if overlap_x is None or overlap_y is None or confidence is None or not 0 <= confidence <= 100:
        raise DamagedSlide("a joint of tiles has impossible numbers")
    certain = joint.get("FlagJoined", "1").strip() != "0" and confidence >= CERTAIN
    if abs(overlap_x) >= tile[1] or abs(overlap_y) >= tile[0]:
        if certain:
            raise DamagedSlide("tiles overlap by more than their size")
        return False
    apart = abs(first[0] - second[0]), abs(first[1] - second[1])
    if direction in HORIZONTAL and apart == (0, 1):
        gaps[1].add(min(first[1], second[1]), overlap_x, confidence, certain)
        return certain and overlap_y != 0
    if direction in VERTICAL and apart == (1, 0):
        gaps[0].add(min(first[0], second[0]), overlap_y, confidence, certain)
        return certain and overlap_x != 0
    raise DamagedSlide("a joint is not between neighbouring tiles")


def _cell(text: str | None, tiles: tuple[int, int]) -> tuple[int, int]:
    """(Row, column) of a tile, from its number along the stage's way."""
    down, across = tiles
    counted = whole(text, 1, down * across)
    if counted is None:
        raise DamagedSlide("a joint names a tile that its area lacks")
    row, column = divmod(counted - 1, across)
    return down - 1 - row, across - 1 - column if row % 2 else column
