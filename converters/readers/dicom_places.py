# SPDX-License-Identifier: Apache-2.0
"""Where each frame of a whole slide image lies (PS3.3 C.7.6.17.3): by its number
(TILED_FULL), or by functional groups of its own (TILED_SPARSE)."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archive.part10.normal_form import read_element
from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.encoded_tiles import MAX_TILES

Indexes = NDArray[np.int64]
_PLANE_POSITION, _PATH_IDENTIFICATION = 0x0048021A, 0x00480207
_COLUMN, _ROW, _HEIGHT, _PATH = 0x0048021E, 0x0048021F, 0x0040074A, 0x00480106


@dataclass(frozen=True)
class Shape:
    """What all parts of one level share. Sizes in pixels."""

    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    samples: int
    bits: int  # allocated

    @property
    def area(self) -> int:
        return self.rows * self.columns

    @property
    def extent(self) -> tuple[int, int]:
        """Tiles (down, across)."""
        return -(-self.rows // self.tile_rows), -(-self.columns // self.tile_columns)


def full_places(shape: Shape, frames: int, first: int, paths: int, planes: int, *, partial: bool) -> Indexes:
    """Places of the frames of a TILED_FULL image, the first being number ``first`` (from
    0) of the whole. Raises DamagedSlide where the frames are not as many as the tiles."""
    whole = (paths, planes, *shape.extent)
    total = math.prod(whole)
    if total > MAX_TILES:
        raise DamagedSlide(f"a whole slide image of more than {MAX_TILES} tiles")
    if first + frames > total or (not partial and frames != total):
        raise DamagedSlide(f"an image of {total} tiles has {first + frames} frames")
    return np.stack(np.unravel_index(np.arange(first, first + frames), whole), axis=1).astype(np.int64)


def sparse_places(
    groups: bytes, shape: Shape, frames: int, identifiers: Sequence[str]
) -> tuple[Indexes, tuple[float | None, ...]]:
    """Places of frames that say it themselves, and the heights of their focal planes in
    micrometres. ``groups`` is the value of the Per-Frame Functional Groups Sequence in
    normal form. Raises DamagedSlide, UnsupportedPixels."""
    rows, columns, heights, paths = _positions(groups, frames)
    if len(rows) != frames or (rows < 1).any() or (columns < 1).any():
        raise DamagedSlide("the frames of an image do not all say where they lie")
    if ((rows - 1) % shape.tile_rows).any() or ((columns - 1) % shape.tile_columns).any():
        raise UnsupportedPixels("the frames of an image do not lie on a grid of tiles")
    down, across = (rows - 1) // shape.tile_rows, (columns - 1) // shape.tile_columns
    if (down >= shape.extent[0]).any() or (across >= shape.extent[1]).any():
        raise DamagedSlide("frames lie outside of the image that they are of")
    known = {name: number for number, name in enumerate(identifiers)}
    try:
        path = np.array([known[name] if name else 0 for name in paths], dtype=np.int64)
    except KeyError:
        raise DamagedSlide("a frame names an optical path that is not described") from None
    levels = sorted({round(height, 3) for height in heights if height is not None})
    if not levels:
        return np.stack((path, np.zeros_like(path), down, across), axis=1), (None,)
    plane = np.array(
        [levels.index(round(height or 0.0, 3)) if height is not None else 0 for height in heights]
    )
    return np.stack((path, plane.astype(np.int64), down, across), axis=1), tuple(levels)


def _positions(data: bytes, frames: int) -> tuple[Indexes, Indexes, list[float | None], list[str]]:
    """Row and column (from 1; 0 where unsaid), height and optical path of each item. One
    flat pass: a slide may have a hundred thousand of them."""
    rows, columns = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
    heights: list[float | None] = [None] * frames
    paths = [""] * frames
    item, pos, end = -1, 0, len(data)
    way: list[int] = []  # tags of the sequences that we are in
    try:
        while pos < end:
            if data[pos : pos + 2] == b"\xfe\xff":
                if data[pos + 2 : pos + 4] == b"\x00\xe0" and not way:
                    item += 1
                elif data[pos + 2 : pos + 4] == b"\xdd\xe0":
                    way.pop()
                pos += 8
                continue
            tag, vr, value, after = read_element(data, pos)
            if vr == b"SQ":
                way.append(tag)
            elif len(way) == 1 and 0 <= item < frames:
                if way[0] == _PLANE_POSITION:
                    if tag == _ROW and after - value == 4:
                        rows[item] = struct.unpack_from("<i", data, value)[0]
                    elif tag == _COLUMN and after - value == 4:
                        columns[item] = struct.unpack_from("<i", data, value)[0]
                    elif tag == _HEIGHT:
                        heights[item] = float(data[value:after].rstrip(b"\0 ") or b"0")
                elif way[0] == _PATH_IDENTIFICATION and tag == _PATH:
                    paths[item] = data[value:after].rstrip(b"\0 ").decode("utf-8", "replace")
            pos = after
    except (struct.error, ValueError, IndexError, OverflowError):
        raise DamagedSlide("the places of the frames of an image are damaged") from None
    if item + 1 != frames or any(height is not None and not math.isfinite(height) for height in heights):
        raise DamagedSlide("the frames of an image do not all say where they lie")
    return rows, columns, heights, paths
