# SPDX-License-Identifier: Apache-2.0
"""Levels that are one large JPEG, or a matrix of them, as tiles.

A restart interval of Hamamatsu's is a strip, one row of units high. Strips one below the
other make a tile: its head is the JPEG's own with the tile's size, and only the numbers
of the markers change, so that every coefficient stays. JPEGs that are not cut so, or not
at all, are one tile if that is not too large, else they are decoded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.codecs.decoders import jpeg_is_ycbcr
from converters.errors import DamagedSlide
from converters.readers.jpeg_image import JpegImage, JpegRegions
from converters.readers.jpeg_strip import blank_interval
from converters.readers.restart_intervals import EOI
from converters.slide import DEFAULT_TILE, GatherMap, Offsets, Pixels, PixelTiles

LOWEST_TILE = 64
MAX_TILE_EDGE = 65535
MAX_TILE_PIXELS = 1 << 26
JPEG_METHOD = "ISO_10918_1"


@dataclass(frozen=True, eq=False)
class Mosaic:
    """JPEGs side by side, by row: one plane of one optical path of a level. Raises
    DamagedSlide where their edges do not meet."""

    images: Sequence[Sequence[JpegImage]]

    def __post_init__(self) -> None:
        widths = [image.columns for image in self.images[0]]
        for row in self.images:
            if [image.columns for image in row] != widths or len({image.rows for image in row}) > 1:
                raise DamagedSlide("the image files are not as large as their neighbours")

    @property
    def shape(self) -> tuple[Sequence[int], Sequence[int]]:
        """(Heights of the files, widths of the files)."""
        return tuple(row[0].rows for row in self.images), tuple(image.columns for image in self.images[0])

    @property
    def rows(self) -> int:
        return sum(row[0].rows for row in self.images)

    @property
    def columns(self) -> int:
        return sum(image.columns for image in self.images[0])

    @property
    def all(self) -> Sequence[JpegImage]:
        return [image for row in self.images for image in row]


@dataclass(frozen=True, eq=False)
class MosaicTiles:
    """What :class:`~converters.slide.Level` needs of mosaics."""

    tiles: GatherMap | PixelTiles
    tile_rows: int
    tile_columns: int
    reference: Callable[[int], NDArray[np.uint8]] | None


@dataclass(frozen=True)
class _Cut:
    """How tiles are cut: ``strips`` one below the other, 0 for a JPEG as a whole."""

    tile_rows: int
    tile_columns: int
    strips: int


def mosaic_tiles(mosaics: Sequence[Mosaic], *, white: bool = True) -> MosaicTiles:
    """Tiles of a level's planes, those of the first optical path first, all of one size.
    ``white``: what fills up tiles at the lower edge; else black."""
    first = mosaics[0]
    if any(mosaic.shape != first.shape for mosaic in mosaics):
        raise DamagedSlide("planes of one level differ in size")
    cut = _cut(mosaics)
    if isinstance(cut, str):
        size = DEFAULT_TILE if max(first.rows, first.columns) > DEFAULT_TILE else 0
        rows, columns = size or first.rows, size or first.columns
        tiles = decoded_tiles(mosaics, rows, columns, cut, white=white)
        return MosaicTiles(tiles, rows, columns, None)
    gathered = joined([_gather(mosaic, cut, white) for mosaic in mosaics])
    return MosaicTiles(gathered, cut.tile_rows, cut.tile_columns, _reference(mosaics, cut, white))


def decoded_tiles(
    mosaics: Sequence[Mosaic],
    tile_rows: int,
    tile_columns: int,
    why: str,
    *,
    white: bool = True,
    bands: Sequence[int | None] = (None,),
) -> PixelTiles:
    """The planes' tiles decoded. ``bands`` has an item for all, or one for each mosaic: which
    of three colours is taken as grey values. Raises UnsupportedPixels for what is too large
    to decode."""
    readers = [[[JpegRegions(image) for image in row] for row in mosaic.images] for mosaic in mosaics]
    down, across = -(-mosaics[0].rows // tile_rows), -(-mosaics[0].columns // tile_columns)

    def read(index: int) -> Pixels:
        plane, place = divmod(index, down * across)
        top, left = (place // across) * tile_rows, (place % across) * tile_columns
        samples = mosaics[plane].all[0].head.components
        pixels = np.full((tile_rows, tile_columns, samples), 255 if white else 0, np.uint8)
        _paint(pixels, readers[plane], top, left)
        band = bands[plane % len(bands)]
        return pixels if band is None or samples == 1 else np.ascontiguousarray(pixels[..., band : band + 1])

    return PixelTiles(
        read, len(mosaics) * down * across, why, JPEG_METHOD,
        sum(image.stop - image.start for mosaic in mosaics for image in mosaic.all),
    )  # fmt: skip


def _paint(pixels: NDArray[np.uint8], readers: Sequence[Sequence[JpegRegions]], top: int, left: int) -> None:
    """Fill in what the files have of the region that begins at (top, left) of the level."""
    for row in readers:
        rows, at = row[0].image.rows, left
        first, last = max(0, top), min(rows, top + pixels.shape[0])
        for reader in row if first < last else ():
            columns = reader.image.columns
            begin, end = max(0, at), min(columns, at + pixels.shape[1])
            if begin < end:
                part = reader.region(first, begin, last - first, end - begin)
                pixels[first - top : last - top, begin - at : end - at] = part
            at -= columns
        top -= rows


def _cut(mosaics: Sequence[Mosaic]) -> _Cut | str:
    """How to cut, or why tiles cannot be copied."""
    images = [image for mosaic in mosaics for image in mosaic.all]
    first = images[0]
    if not all(image.head.is_sequential for image in images):
        return "its JPEGs are progressive"
    if len({(image.head.stream.sof, image.head.stream.sampling) for image in images}) > 1:
        return "its JPEGs differ in sampling"
    if all(image.intervals is None for image in images):
        return _whole(mosaics)
    strips = {image.strip for image in images}
    if len(strips) > 1 or first.strip is None or any(image.intervals is None for image in images):
        return "its restart intervals make no whole tiles"
    height, width = first.strip
    heights = [row[0].rows for row in mosaics[0].images]
    if any(rows % height for rows in heights[:-1]):
        return "its restart intervals do not end where its files do"
    if any(image.columns % width for image in mosaics[0].images[0][:-1]):
        return "its restart intervals do not end where its files do"
    most = max(1, DEFAULT_TILE // height)
    if len(heights) > 1:
        shared = int(np.gcd.reduce([rows // height for rows in heights[:-1]]))
        most = max(number for number in range(1, most + 1) if shared % number == 0)
    strips_down = sum(-(-rows // height) for rows in heights)
    number = min(most, strips_down)
    tile_rows, tile_columns = number * height, width
    if len(heights) > 1 and tile_rows < min(LOWEST_TILE, mosaics[0].rows):
        return "its files would make tiles that are too low"
    if number == strips_down:
        tile_rows = mosaics[0].rows
    if mosaics[0].columns <= width:
        tile_columns = mosaics[0].columns
    if max(tile_rows, tile_columns) > MAX_TILE_EDGE or tile_rows * tile_columns > MAX_TILE_PIXELS:
        return "its restart intervals are too large for tiles"
    return _Cut(tile_rows, tile_columns, number)


def _whole(mosaics: Sequence[Mosaic]) -> _Cut | str:
    rows, columns = mosaics[0].rows, mosaics[0].columns
    if any(len(mosaic.all) > 1 for mosaic in mosaics):
        return "its JPEGs have no restart markers"
    if max(rows, columns) > MAX_TILE_EDGE or rows * columns > MAX_TILE_PIXELS:
        return "it has no restart markers and is too large for one tile"
    return _Cut(rows, columns, 0)


class _Pieces:
    """Pieces of tiles as arrays (tile rows, tile columns, pieces), from literals that are
    kept once."""

    def __init__(self) -> None:
        self.literals = bytearray()
        self.known: dict[bytes, int] = {}

    def literal(self, data: bytes) -> int:
        """Where it stands among the literals."""
        if data not in self.known:
            self.known[data] = len(self.literals)
            self.literals += data
        return self.known[data]


def _gather(mosaic: Mosaic, cut: _Cut, white: bool) -> GatherMap:
    pieces = _Pieces()
    blocks = [
        np.concatenate([_tiles(image, cut, pieces, white) for image in row], axis=1) for row in mosaic.images
    ]
    tiles = np.concatenate(blocks, axis=0)
    in_tile = tiles.shape[2]
    flat = tiles.reshape(-1)
    count = tiles.shape[0] * tiles.shape[1]
    return GatherMap(
        index=np.arange(count + 1, dtype=np.uint64) * np.uint64(in_tile),
        offsets=np.ascontiguousarray(flat["offset"]),
        lengths=np.ascontiguousarray(flat["length"]),
        literal=np.ascontiguousarray(flat["literal"]),
        literals=bytes(pieces.literals),
        source=np.ascontiguousarray(flat["source"]),
    )


_PIECE = np.dtype([("offset", "u8"), ("length", "u8"), ("literal", "?"), ("source", "u1")])


def _tiles(image: JpegImage, cut: _Cut, pieces: _Pieces, white: bool) -> NDArray[np.void]:
    """An image's tiles as (tile rows, tile columns, pieces) of _PIECE: a head, then data and
    marker by turns."""
    if not cut.strips:
        begins, ends = np.array([[[[image.first]]], [[[image.end]]]], dtype=np.uint64)
        number, beyond = 1, np.zeros((1, 1, 1), np.bool_)
    else:
        assert image.intervals is not None
        assert image.strip is not None
        number = cut.strips
        strips_down = -(-image.rows // image.strip[0])
        across = -(-image.columns // image.strip[1])
        tile_row, column, strip = np.ogrid[: -(-strips_down // number), :across, :number]
        row = tile_row * number + strip
        beyond = np.broadcast_to(row >= strips_down, (row.shape[0], across, number))
        numbers = np.minimum(row, strips_down - 1) * across + column
        begins, ends = image.intervals.begins[numbers], image.intervals.ends[numbers]
    tiles = np.zeros((*begins.shape[:2], 1 + 2 * number), _PIECE)
    tiles["source"] = image.source
    head = image.head.resized(cut.tile_rows, cut.tile_columns, restarts=bool(cut.strips))
    _put(tiles[..., 0], pieces, head)
    data = tiles[..., 1::2]
    data["offset"], data["length"] = begins, ends - begins
    blank = _blank(image, white) if beyond.any() else b""
    if blank:
        at = pieces.literal(blank)
        data["offset"] = np.where(beyond, at, data["offset"])
        data["length"] = np.where(beyond, len(blank), data["length"])
        data["literal"] = beyond
    for place in range(number - 1):
        _put(tiles[..., 2 + 2 * place], pieces, bytes((0xFF, 0xD0 + place % 8)))
    _put(tiles[..., 2 * number], pieces, EOI)
    return tiles


def _put(places: NDArray[np.void], pieces: _Pieces, data: bytes) -> None:
    places["offset"], places["length"], places["literal"] = pieces.literal(data), len(data), True


def _blank(image: JpegImage, white: bool) -> bytes:
    """An interval of white or black; empty where the image's tables have no code for it: the
    last strip is repeated then."""
    assert image.strip is not None
    head = image.head
    tile = head.resized(8, 8)
    return blank_interval(
        head, head.stream.restart_interval, white=white, is_ycbcr=jpeg_is_ycbcr(tile, head.stream, "")
    )


def joined(maps: Sequence[GatherMap]) -> GatherMap:
    """The tiles of several maps, one map after the other."""
    if len(maps) == 1:
        return maps[0]
    pieces = np.cumsum([0, *(len(part.offsets) for part in maps)]).astype(np.uint64)
    heaps = np.cumsum([0, *(len(part.literals) for part in maps)]).astype(np.uint64)
    offsets: list[Offsets] = [
        part.offsets + np.where(part.literal, heap, np.uint64(0))
        for part, heap in zip(maps, heaps[:-1], strict=True)
    ]
    index = [part.index[:-1] + start for part, start in zip(maps, pieces[:-1], strict=True)]
    return GatherMap(
        index=np.concatenate((*index, pieces[-1:])),
        offsets=np.concatenate(offsets),
        lengths=np.concatenate([part.lengths for part in maps]),
        literal=np.concatenate([part.literal for part in maps]),
        literals=b"".join(part.literals for part in maps),
        source=np.concatenate([part.files for part in maps]),
    )


def _reference(
    mosaics: Sequence[Mosaic], cut: _Cut, white: bool
) -> Callable[[int], NDArray[np.uint8]] | None:
    """Each interval decoded alone, to prove by; None where decoders interpolate chroma
    across strips."""
    stream = mosaics[0].all[0].head.stream
    if cut.strips and len({down for _, down in stream.sampling}) > 1:
        return None
    tiles = decoded_tiles(mosaics, cut.tile_rows, cut.tile_columns, "", white=white)
    if not cut.strips:
        return lambda index: np.asarray(tiles.read(index), np.uint8)
    across = -(-mosaics[0].columns // cut.tile_columns)
    down = -(-mosaics[0].rows // cut.tile_rows)

    def decode(index: int) -> NDArray[np.uint8]:
        plane, place = divmod(index, down * across)
        top, left = (place // across) * cut.tile_rows, (place % across) * cut.tile_columns
        for row in mosaics[plane].images:
            if top < row[0].rows or row is mosaics[plane].images[-1]:
                break
            top -= row[0].rows
        for image in row:
            if left < image.columns or image is row[-1]:
                break
            left -= image.columns
        return _padded_tile(image, cut, top, left, white)

    return decode


def _padded_tile(image: JpegImage, cut: _Cut, top: int, left: int, white: bool) -> NDArray[np.uint8]:
    assert image.strip is not None
    rows = min(cut.tile_rows, image.mcus_down * image.head.mcu_shape[0] - top)
    pixels = JpegRegions(image).region(top, left, rows, cut.tile_columns)
    below = cut.tile_rows - rows
    if not below:
        return pixels
    if _blank(image, white):
        return np.pad(pixels, ((0, below), (0, 0), (0, 0)), constant_values=255 if white else 0)
    strip = pixels[-image.strip[0] :]
    return np.concatenate((pixels, np.tile(strip, (below // len(strip), 1, 1))))
