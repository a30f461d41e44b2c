# SPDX-License-Identifier: Apache-2.0
"""Where an MRXS slide's images lie: camera fields, pieces of images, the scanned area.

The camera takes overlapping photos and states a position for each. A photo is cut into
``divisions`` x ``divisions`` images that do not overlap. A coarser level halves each
image and joins two by two of them, whatever overlap there was: so from some level on an
image holds several photos, and must be cut into pieces that are placed by themselves.

Positions are in pixels of the level they are in, (x, y) as floats; at coarser levels they
are fractions. Where no field overlaps and all lie on a grid, the images themselves are
the tiles.

Source: openslide.org/formats/mirax.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.readers.mirax_index import Images

Floats = NDArray[np.float64]
RECORD = np.dtype([("flag", "u1"), ("x", "<i4"), ("y", "<i4")])
MAX_EDGE = 4_000_000  # pixels: a metre of glass at 0.25 um
SMALLEST_PIECE = 4  # pixels: below, a level is made of slivers of photos


@dataclass(frozen=True)
class Zoom:
    """A zoom level as Slidedat.ini states it. ``concat`` is how many images of the finest
    grid one image holds, each way."""

    number: int
    concat: int
    rows: int  # of an image
    columns: int
    overlap: tuple[float, float]  # (x, y) between photos
    image_format: str
    quality: str
    spacing_mm: tuple[float, float] | None  # (between rows, between columns)
    fill_rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Geometry:
    """The slide's grid, and how each zoom level divides it."""

    grid: tuple[int, int]  # (rows, columns) in images of the finest level
    divisions: int
    zooms: Sequence[Zoom]
    positioned: bool  # camera positions are stated

    @property
    def fields(self) -> tuple[int, int]:
        return self.grid[0] // self.divisions, self.grid[1] // self.divisions

    @property
    def in_pieces(self) -> bool:
        return self.positioned or any(self.zooms[0].overlap)

    def pieces(self, zoom: Zoom) -> int:
        """Pieces of an image of the level, each way: one for each photo in it."""
        return max(1, zoom.concat // self.divisions) if self.in_pieces else 1

    def downsample(self, zoom: Zoom) -> float:
        return zoom.concat / self.zooms[0].concat

    @property
    def canvas(self) -> tuple[int, int]:
        """(rows, columns) in pixels of the finest level, were every field photographed."""
        first = self.zooms[0]
        edges = []
        for images, edge, overlap in zip(
            self.grid, (first.rows, first.columns), reversed(first.overlap), strict=True
        ):
            seams = (images - 1) // self.divisions
            edges.append(int(images * edge - seams * math.ceil(overlap)) // first.concat)
        return edges[0], edges[1]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Parts of images, placed. ``image`` numbers the image in its record; ``order`` decides
    who is seen where two overlap: the greater."""

    x: Floats
    y: Floats
    source_x: Floats  # of the corner, within the image
    source_y: Floats
    image: NDArray[np.int64]
    order: NDArray[np.int64]
    columns: float
    rows: float

    def __len__(self) -> int:
        return len(self.x)


def stated_positions(content: bytes, deflated: bool, geometry: Geometry) -> NDArray[np.int64]:
    """Camera positions as (fields, 2) of x, y in pixels of the finest grid. Raises
    DamagedSlide."""
    size = math.prod(geometry.fields) * RECORD.itemsize
    if deflated:
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(content, size + 1)
        except zlib.error as error:
            raise DamagedSlide("the camera positions cannot be decompressed") from error
    if len(content) != size:
        raise DamagedSlide("the list of camera positions is not as long as it must be")
    table = np.frombuffer(content, RECORD)
    if (table["flag"] > 1).any():
        raise DamagedSlide("the list of camera positions has an unknown flag")
    scale = geometry.zooms[0].concat
    return np.stack((table["x"], table["y"]), axis=1).astype(np.int64) * scale


def nominal_positions(geometry: Geometry) -> NDArray[np.int64]:
    """Where none are stated: evenly, by the nominal overlap."""
    first, down = geometry.zooms[0], geometry.fields
    row, column = np.divmod(np.arange(math.prod(down)), max(1, down[1]))
    steps = [
        edge * geometry.divisions - overlap
        for edge, overlap in zip((first.columns, first.rows), first.overlap, strict=True)
    ]
    return np.stack((np.trunc(column * steps[0]), np.trunc(row * steps[1])), axis=1).astype(np.int64)


class Placement:
    """Places images by the positions of their camera fields."""

    def __init__(self, geometry: Geometry, positions: NDArray[np.int64]) -> None:
        self.geometry, self.positions = geometry, positions
        self.active = np.zeros(len(positions), np.bool_)

    def place(self, zoom: Zoom, images: Images) -> Pieces:
        """The finest level comes first: it says which fields were photographed. Raises
        DamagedSlide."""
        geometry, divisions = self.geometry, self.geometry.divisions
        count = geometry.pieces(zoom)
        piece_rows, piece_columns = zoom.rows / count, zoom.columns / count
        down, across = (part.ravel() for part in np.divmod(np.arange(count * count), count))
        row = (images.row[:, None] + down * divisions).ravel()
        column = (images.column[:, None] + across * divisions).ravel()
        inside = (row < geometry.grid[0]) & (column < geometry.grid[1])
        image = np.repeat(np.arange(len(images)), count * count)
        # Fields are counted down to the full ones: a scanner's grid has no others.
        field_row, field_column = row // divisions, column // divisions
        if ((field_row >= geometry.fields[0]) | (field_column >= geometry.fields[1]))[inside].any():
            raise DamagedSlide("an image belongs to no camera field")
        inside &= self._seen(zoom, field_row, field_column, inside)
        row, column, image = row[inside], column[inside], image[inside]
        number = (row // divisions) * geometry.fields[1] + column // divisions
        first = geometry.zooms[0]
        x = self.positions[number, 0] + first.columns * (column % divisions)
        y = self.positions[number, 1] + first.rows * (row % divisions)
        divisor = min(zoom.concat, divisions) if geometry.in_pieces else zoom.concat
        order = (row // divisor) * (geometry.grid[1] + 1) + column // divisor
        return Pieces(
            x=x / zoom.concat,
            y=y / zoom.concat,
            source_x=np.tile(across * piece_columns, len(images))[inside],
            source_y=np.tile(down * piece_rows, len(images))[inside],
            image=image,
            order=order,
            columns=piece_columns,
            rows=piece_rows,
        )

    def _seen(
        self, zoom: Zoom, row: NDArray[np.int64], column: NDArray[np.int64], inside: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Pieces of fields that were photographed. Where the finest images hold several
        fields, those that were not are known by their position (0, 0)."""
        fields = self.geometry.fields
        number = np.where(inside, row * fields[1] + column, 0)
        if zoom is self.geometry.zooms[0]:
            seen = (self.positions[number] != 0).any(axis=1) | (number == 0)
            self.active[number[seen & inside]] = True
            result: NDArray[np.bool_] = seen
            return result
        if self.geometry.in_pieces:
            return self.active[number]
        across = max(1, zoom.concat // self.geometry.divisions)
        grid = self.active.reshape(fields)
        sums = np.pad(np.cumsum(np.cumsum(grid, axis=0), axis=1), ((1, 0), (1, 0)))
        bottom, right = np.minimum(row + across, fields[0]), np.minimum(column + across, fields[1])
        top, left = np.minimum(row, fields[0]), np.minimum(column, fields[1])
        found: NDArray[np.bool_] = (
            sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        ) > 0
        return found


@dataclass(frozen=True)
class Area:
    """The scanned area on the canvas, in pixels of the finest level."""

    x: int
    y: int
    rows: int
    columns: int


def scanned_area(placed: Sequence[Pieces], geometry: Geometry) -> Area:
    """Around all pieces of the finest level, within the canvas. Raises DamagedSlide."""
    if not any(len(pieces) for pieces in placed):
        raise DamagedSlide("the slide has no images at its finest level")
    left = min(pieces.x.min() for pieces in placed if len(pieces))
    top = min(pieces.y.min() for pieces in placed if len(pieces))
    right = max(pieces.x.max() + pieces.columns for pieces in placed if len(pieces))
    bottom = max(pieces.y.max() + pieces.rows for pieces in placed if len(pieces))
    rows, columns = geometry.canvas
    right, bottom = min(right, columns), min(bottom, rows)
    x, y = math.floor(left), math.floor(top)
    area = Area(x, y, math.ceil(bottom) - y, math.ceil(right) - x)
    if not (0 < area.rows <= MAX_EDGE and 0 < area.columns <= MAX_EDGE):
        raise DamagedSlide("the camera positions span an area that no slide has")
    return area


def is_on_grid(geometry: Geometry, zoom: Zoom, images: Images, pieces: Pieces) -> bool:
    """Whether the level's images lie edge to edge from the canvas' corner: each is a tile."""
    return bool(
        (pieces.x - pieces.source_x == images.column[pieces.image] / zoom.concat * zoom.columns).all()
        and (pieces.y - pieces.source_y == images.row[pieces.image] / zoom.concat * zoom.rows).all()
        and zoom.columns == geometry.zooms[0].columns
        and zoom.rows == geometry.zooms[0].rows
    )


def grid_area(area: Area, geometry: Geometry, zooms: Sequence[Zoom]) -> Area:
    """The smallest area around ``area`` that begins at a corner of an image at each level."""
    step = int(max(geometry.downsample(zoom) for zoom in zooms))
    first = geometry.zooms[0]
    x, y = area.x // (step * first.columns), area.y // (step * first.rows)
    left, top = x * step * first.columns, y * step * first.rows
    return Area(left, top, area.y + area.rows - top, area.x + area.columns - left)
