# SPDX-License-Identifier: Apache-2.0
"""Tiles of an MRXS level that must be put together: images decoded, placed, joined.

Where photos overlap, the one further down, then further right, is seen. At whole positions
pixels are copied. Coarser levels have positions between pixels: there images are moved
by bilinear interpolation in steps of 1/128 pixel, and at their edges, where they cover a
pixel in part, contributions add up until the pixel is full. That is what OpenSlide 4
computes: at the finest level its pixels come out, at coarser ones to within two grey levels.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.readers.mirax_layout import Pieces

Bytes = NDArray[np.uint8]
CACHE_BYTES = 96 << 20
MAX_PAIRS = 8_000_000
STEPS = 128  # of a pixel, in interpolation
FIXED = 256  # positions closer to a whole pixel than half of its 256th are whole


@dataclass
class ImageCache:
    """Decoded images, those used last: neighbouring tiles share them."""

    decode: Callable[[int], Bytes]
    kept: OrderedDict[int, Bytes] = field(default_factory=OrderedDict)
    size_bytes: int = 0

    def get(self, number: int) -> Bytes:
        found = self.kept.pop(number, None)
        if found is None:
            found = self.decode(number)
            self.size_bytes += found.nbytes
        self.kept[number] = found
        while self.size_bytes > CACHE_BYTES and len(self.kept) > 1:
            self.size_bytes -= self.kept.popitem(last=False)[1].nbytes
        return found


class Stitch:
    """A level of one filter and focal plane, tile by tile.

    ``origin`` is the (x, y) of the level's first pixel on the canvas, ``shape`` the
    level's (rows, columns), ``tile`` those of a tile. ``decode`` gives an image of a
    number as (rows, columns, samples).
    """

    def __init__(
        self,
        pieces: Pieces,
        decode: Callable[[int], Bytes],
        origin: tuple[float, float],
        shape: tuple[int, int],
        tile: tuple[int, int],
        fill: Sequence[int],
    ) -> None:
        self.pieces, self.origin, self.tile = pieces, origin, tile
        self.across = -(-shape[1] // tile[1])
        self.count = -(-shape[0] // tile[0]) * self.across
        self.fill = np.array(fill, np.uint8)
        self.blank: Bytes = np.empty((*tile, len(fill)), np.uint8)
        self.blank[:] = self.fill
        self.images = ImageCache(decode)
        self.covering = ImageCache(lambda number: with_cover(decode(number)))
        self._index, self._found = self._by_tile(shape)

    def _by_tile(self, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Pieces of each tile, as ends in a list: a piece is in all tiles that it touches."""
        pieces = self.pieces
        spans = []
        for at, size, origin, tile, edge in (
            (pieces.y, pieces.rows, self.origin[1], self.tile[0], shape[0]),
            (pieces.x, pieces.columns, self.origin[0], self.tile[1], shape[1]),
        ):
            first = np.floor((at - origin) / tile).astype(np.int64)
            last = np.ceil((at + size - origin) / tile).astype(np.int64)
            most = -(-edge // tile)
            spans.append((np.clip(first, 0, most), np.clip(last, 0, most)))
        (top, bottom), (left, right) = spans
        down, across = bottom - top, right - left
        each = down * across
        if int(each.sum()) > MAX_PAIRS:
            raise DamagedSlide("the slide has more images in each place than it can have")
        piece = np.repeat(np.arange(len(pieces)), each)
        within = np.arange(len(piece)) - np.repeat(np.cumsum(each) - each, each)
        row, column = np.divmod(within, np.maximum(across, 1)[piece])
        number = (top[piece] + row) * self.across + left[piece] + column
        order = np.lexsort((pieces.order[piece], number))
        ends = np.searchsorted(number[order], np.arange(self.count + 1))
        return ends, piece[order].astype(np.int32)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Tiles that no image touches."""
        result: NDArray[np.bool_] = self._index[1:] == self._index[:-1]
        return result

    def read(self, number: int) -> Bytes:
        """A tile of the level, by its number in rows; what no image covers has the fill."""
        row, column = divmod(number, self.across)
        left = self.origin[0] + column * self.tile[1]
        top = self.origin[1] + row * self.tile[0]
        chosen = self._found[self._index[number] : self._index[number + 1]]
        x, y = self.pieces.x[chosen] - left, self.pieces.y[chosen] - top
        if _whole(x).all() and _whole(y).all() and self._is_cut_at_whole_pixels:
            return self._copied(chosen, np.rint(x).astype(int), np.rint(y).astype(int))
        return self._interpolated(chosen, x, y)

    @property
    def _is_cut_at_whole_pixels(self) -> bool:
        return float(self.pieces.rows).is_integer() and float(self.pieces.columns).is_integer()

    def _copied(self, chosen: NDArray[np.int32], x: NDArray[np.int64], y: NDArray[np.int64]) -> Bytes:
        tile = self.blank.copy()
        for piece, left, top in zip(chosen.tolist(), x.tolist(), y.tolist(), strict=True):
            source = self._piece(piece)
            rows, columns = source.shape[:2]
            place = tile[max(0, top) : max(0, top + rows), max(0, left) : max(0, left + columns)]
            height, width = place.shape[:2]
            place[:] = source[max(0, -top) :, max(0, -left) :][:height, :width]
        return tile

    def _piece(self, piece: int) -> Bytes:
        """A piece's own pixels, at whole pixels of its image."""
        image = self.images.get(int(self.pieces.image[piece]))
        left, top = int(self.pieces.source_x[piece]), int(self.pieces.source_y[piece])
        return image[top : top + int(self.pieces.rows), left : left + int(self.pieces.columns)]

    def _interpolated(
        self, chosen: NDArray[np.int32], x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> Bytes:
        rows, columns = self.tile
        samples = len(self.fill)
        tile = np.zeros((rows, columns, samples + 1), np.uint8)
        for piece, left, top in zip(chosen[::-1].tolist(), x[::-1].tolist(), y[::-1].tolist(), strict=True):
            source = self.covering.get(int(self.pieces.image[piece]))
            height, width = math.ceil(self.pieces.rows), math.ceil(self.pieces.columns)
            if source.shape[:2] != (height, width):
                start = self.pieces.source_x[piece], self.pieces.source_y[piece]
                source = shifted(source, float(start[0]), float(start[1]), height, width)
            first_row, first_column = max(0, math.floor(top)), max(0, math.floor(left))
            height = min(rows, math.ceil(top + height)) - first_row
            width = min(columns, math.ceil(left + width)) - first_column
            if height <= 0 or width <= 0:
                continue
            moved = shifted(source, first_column - left, first_row - top, height, width)
            fill_up(tile[first_row : first_row + height, first_column : first_column + width], moved)
        result: Bytes = np.empty((rows, columns, samples), np.uint8)
        full = tile[..., samples]
        empty, thin = full == 0, (full > 0) & (full < 255)
        for sample in range(samples):  # many times as fast as all at once
            result[..., sample] = tile[..., sample]
            np.copyto(result[..., sample], self.fill[sample], where=empty)
        if thin.any():
            under = (255 - tile[thin, samples:].astype(np.uint16)) * self.fill
            result[thin] = (result[thin] + ((under + 127) // 255)).astype(np.uint8)
        return result


def with_cover(image: Bytes) -> Bytes:
    """An image with one sample more: how full each pixel is, here wholly."""
    result: Bytes = np.full((*image.shape[:2], image.shape[2] + 1), 255, np.uint8)
    for sample in range(image.shape[2]):
        result[..., sample] = image[..., sample]
    return result


def _whole(at: NDArray[np.float64]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = np.rint(at * FIXED) % FIXED == 0
    return result


def shifted(source: Bytes, x: float, y: float, rows: int, columns: int) -> Bytes:
    """``rows`` x ``columns`` pixels of ``source`` from (x, y) on, between pixels
    interpolated; outside of it all is 0."""
    if all(round(at * FIXED) % FIXED == 0 for at in (x, y)):
        x, y = float(round(x)), float(round(y))
    left, top = math.floor(x), math.floor(y)
    part_x, part_y = (int((at - math.floor(at)) * STEPS) for at in (x, y))
    if min(left, top) >= 0 and top + rows < source.shape[0] and left + columns < source.shape[1]:
        around = source[top : top + rows + 1, left : left + columns + 1]
    else:
        around = np.zeros((rows + 1, columns + 1, source.shape[2]), np.uint8)
        inner = source[max(0, top) : max(0, top + rows + 1), max(0, left) : max(0, left + columns + 1)]
        at_row, at_column = max(0, -top), max(0, -left)
        around[at_row : at_row + inner.shape[0], at_column : at_column + inner.shape[1]] = inner
    if not part_x and not part_y:
        return around[:-1, :-1]
    wide = around.astype(np.uint16)  # 128 x 255 fits: only both ways need more
    if not part_x:
        return _blended(wide[:-1, :-1], wide[1:, :-1], part_y, 7)
    if not part_y:
        return _blended(wide[:-1, :-1], wide[:-1, 1:], part_x, 7)
    lines = wide[:, :-1] * np.uint16(STEPS - part_x)
    lines += wide[:, 1:] * np.uint16(part_x)
    deep = lines.astype(np.uint32)
    return _blended(deep[:-1], deep[1:], part_y, 14)


def _blended(one: NDArray[Any], other: NDArray[Any], part: int, shift: int) -> Bytes:
    kind = one.dtype.type
    sums = one * kind(STEPS - part)
    sums += other * kind(part)
    sums >>= kind(shift)
    result: Bytes = sums.astype(np.uint8)
    return result


def fill_up(under: Bytes, source: Bytes) -> None:
    """Add ``source`` to ``under``, in place, as far as each pixel is not full yet. The last
    sample is how full, the others are already multiplied by it."""
    cover = under[..., -1]
    empty = cover == 0
    if empty.all():
        under[:] = source
        return
    seam = ~empty & (cover < 255)
    if seam.any():
        under[seam] = _added(under[seam], source[seam])
    pixel = {2: np.uint16, 4: np.uint32}[under.shape[2]]  # whole pixels at once
    np.copyto(under.view(pixel)[..., 0], source.view(pixel)[..., 0], where=empty)


def _added(under: Bytes, source: Bytes) -> Bytes:
    """:func:`fill_up` for (pixels, samples) that are full in part."""
    room = 255 - under[..., -1:].astype(np.uint32)
    cover = source[..., -1:].astype(np.uint32)
    more = cover > room
    if more.any():
        share = np.where(more, (room * 255 + cover // 2) // np.maximum(cover, 1), 255)
        scaled = source * share + 128
        source = (((scaled >> 8) + scaled) >> 8).astype(np.uint8)
    result: Bytes = np.minimum(under.astype(np.uint16) + source, 255).astype(np.uint8)
    return result
