# SPDX-License-Identifier: Apache-2.0
"""A level's tiles from the pages of a TIFF: as they are where they can be copied
(:func:`level_tiles`), else decoded (:class:`~converters.slide.PixelTiles`), strips cut
into tiles.

Sources: TIFF 6.0; TIFF Technical Note 2 (JPEG); PS3.3 C.7.6.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import sniff
from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.tiff_pages import (
    CODESTREAMS,
    container_rgb,
    is_copyable,
    is_ycbcr_jpeg_2000,
    reference,
    tile_map,
)
from converters.readers.tiff_samples import (
    BLACK_IS_ZERO,
    RGB,
    YCBCR,
    Plane,
    PlaneReader,
    plane_reader,
    value_mapping,
)
from converters.readers.tiff_segments import JPEG, LOSSY_METHODS, WEBP, SegmentCache, Segments
from converters.slide import (
    DEFAULT_TILE,
    Pixels,
    PixelTiles,
    PixelType,
    RealWorldMapping,
    TileMap,
    Tiles,
)

__all__ = ["LevelTiles", "Plane", "SegmentCache", "level_tiles"]

if TYPE_CHECKING:
    import tifffile

SMALLEST_TILE, LARGEST_TILE = 64, 2048
TALLEST_BAND_BYTES = 64 << 20
"""What a row of tiles cut from strips may take decoded; lower tiles are cut beyond it."""

NAMES = {
    1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 34925: "LZMA",
    34926: "Zstandard", 50000: "Zstandard", 34933: "PNG", 50001: "WebP", 50002: "JPEG XL",
    52546: "JPEG XL", 22610: "JPEG XR", 34934: "JPEG XR",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class LevelTiles:
    """What :class:`~converters.slide.Level` needs of the pages. ``mappings`` has an item
    for each optical path, None where values are stored as they are."""

    tiles: Tiles
    tile_rows: int
    tile_columns: int
    pixel_type: PixelType
    container_rgb: bool | None
    reference: Callable[[int], NDArray[np.uint8]] | None
    mappings: tuple[RealWorldMapping | None, ...]
    findings: tuple[str, ...] = ()


def level_tiles(
    planes: Sequence[Sequence[Plane | None]],
    *,
    mappings: Sequence[RealWorldMapping | None] | None = None,
    cache: SegmentCache | None = None,
    scan: bool = False,
) -> LevelTiles:
    """The tiles of ``planes[optical path][focal plane]``, None where the scanner left
    the plane out. Copied where every page allows it.

    ``mappings`` are those of the finest level, for a coarser one. ``cache`` may be
    shared by a slide's levels. ``scan`` allows wide integers and floats, which are decoded
    here to find their extent: only for readers that are ``isolated``. Raises DamagedSlide,
    UnsupportedCompression, UnsupportedPixels.
    """
    paths = [list(path) for path in planes]
    present = [plane for path in paths for plane in path if plane is not None]
    if not present:
        raise DamagedSlide("a level has no pages")
    first = present[0].page
    size = (first.imagelength, first.imagewidth)
    if any((plane.page.imagelength, plane.page.imagewidth) != size for plane in present):
        raise DamagedSlide("the planes of a level differ in size")
    why = _why_not_copied(present)
    if not why and len(present) == sum(map(len, paths)):
        return _copied(present, len(paths))
    return _decoded(paths, why or "planes are missing", mappings, cache or SegmentCache(), scan)


def _why_not_copied(planes: Sequence[Plane]) -> str:
    first = planes[0].page
    for plane in planes:
        page = plane.page
        if not page.is_tiled:
            return "strips instead of tiles"
        if int(page.compression) not in CODESTREAMS:
            return f"no legal form in DICOM for compression {_name(page)}"
        alone = plane.sample is not None and int(page.samplesperpixel) > 1
        if alone or not is_copyable(page):
            return (
                "samples are stored apart" if int(page.planarconfig) == 2 else "samples must be taken apart"
            )
        samples, bits = int(page.samplesperpixel), int(page.bitspersample)
        grey = samples == 1 and int(page.photometric) == BLACK_IS_ZERO and 8 <= bits <= 16
        colour = samples == 3 and int(page.photometric) in (RGB, YCBCR) and bits == 8
        if not (grey or colour) or np.dtype(page.dtype).kind != "u":
            return "samples of another type than DICOM's"
        if page.jpegtables != first.jpegtables:
            return "pages have different JPEG tables"
        alike = ("tilelength", "tilewidth", "compression", "photometric", "samplesperpixel", "bitspersample")
        if any(getattr(page, name) != getattr(first, name) for name in alike):
            return "pages are of different form"
    return ""


def _name(page: "tifffile.TiffPage") -> str:
    return NAMES.get(int(page.compression), str(int(page.compression)))


def _copied(planes: Sequence[Plane], paths: int) -> LevelTiles:
    page = planes[0].page
    maps = [tile_map(plane.page, plane.page.parent.filehandle.size, plane.source) for plane in planes]
    tiles = maps[0]
    if len(maps) > 1:
        tiles = TileMap(
            np.concatenate([one.offsets for one in maps]),
            np.concatenate([one.lengths for one in maps]),
            np.concatenate([one.files for one in maps]),
            maps[0].jpeg_tables,
        )
    bits = int(page.bitspersample)
    return LevelTiles(
        tiles=tiles,
        tile_rows=int(page.tilelength),
        tile_columns=int(page.tilewidth),
        pixel_type=PixelType(int(page.samplesperpixel), 8 if bits == 8 else 16, bits),
        container_rgb=False if is_ycbcr_jpeg_2000(page) else container_rgb(page),
        reference=_references([plane.page for plane in planes], len(maps[0])) if bits == 8 else None,
        mappings=(None,) * paths,
    )


def _references(
    pages: Sequence["tifffile.TiffPage"], tiles_each: int
) -> Callable[[int], NDArray[np.uint8]] | None:
    """:func:`reference` over several pages, one after the other."""
    decoders = [reference(page) for page in pages]
    if any(decoder is None for decoder in decoders):
        return None

    def decode(index: int) -> NDArray[np.uint8]:
        decoder = decoders[index // tiles_each]
        assert decoder is not None
        return decoder(index % tiles_each)

    return decode


def _decoded(
    paths: Sequence[Sequence[Plane | None]],
    why: str,
    mappings: Sequence[RealWorldMapping | None] | None,
    cache: SegmentCache,
    scan: bool,
) -> LevelTiles:
    readers = [[None if plane is None else plane_reader(plane, cache) for plane in path] for path in paths]
    present = [reader for path in readers for reader in path if reader is not None]
    first = present[0]
    if len({(reader.form in ("rgb", "palette")) for reader in present}) > 1:
        raise UnsupportedPixels("a level mixes colour and grey pages")
    if mappings is None:
        mappings = [
            value_mapping([reader for reader in path if reader is not None], scan) for path in readers
        ]
    tile_rows, tile_columns = _tile_size(present)
    down = -(-first.segments.rows // tile_rows)
    across = -(-first.segments.columns // tile_columns)
    planes = len(readers[0])
    samples = 1 if first.form == "grey" else 3
    narrow = samples == 3 or all(
        _narrow(reader, mapping)
        for path, mapping in zip(readers, mappings, strict=True)
        for reader in path
        if reader is not None
    )

    def read(index: int) -> Pixels:
        place, column = divmod(index, across)
        place, row = divmod(place, down)
        path, plane = divmod(place, planes)
        reader = readers[path][plane]
        if reader is None:
            empty = np.zeros((tile_rows, tile_columns, samples), np.uint8)
            return empty if narrow else empty.astype(np.uint16)
        pixels = reader.pixels(
            row * tile_rows, column * tile_columns, (tile_rows, tile_columns), mappings[path]
        )
        return pixels if narrow or pixels.dtype == np.uint16 else pixels.astype(np.uint16)

    grid = (down, across, tile_rows, tile_columns)
    missing = [
        np.ones((down, across), np.bool_) if reader is None else _missing(reader.segments, grid)
        for path in readers
        for reader in path
    ]
    absent = np.concatenate([part.reshape(-1) for part in missing])
    return LevelTiles(
        tiles=PixelTiles(
            read=read,
            count=down * across * planes * len(readers),
            why=why,
            lossy_method=next(filter(None, map(_lossy_method, present)), ""),
            size_bytes=sum(reader.segments.size_bytes for reader in present),
            missing=absent if absent.any() else None,
        ),
        tile_rows=tile_rows,
        tile_columns=tile_columns,
        pixel_type=PixelType(samples, 8, 8) if narrow else PixelType(samples, 16, 16),
        container_rgb=None,
        reference=None,
        mappings=tuple(mappings),
        findings=tuple(dict.fromkeys(text for reader in present for text in reader.findings)),
    )


def _narrow(reader: PlaneReader, mapping: RealWorldMapping | None) -> bool:
    """Whether the stored values fit 8 bits."""
    dtype = reader.segments.dtype
    return bool(dtype == np.int8 if mapping is not None else dtype.itemsize == 1)


def _tile_size(readers: Sequence[PlaneReader]) -> tuple[int, int]:
    """The file's own tile size where it has one of use, else ours."""
    first = readers[0].segments
    sizes = {
        (reader.segments.segment_rows, reader.segments.segment_columns)
        if reader.segments.page.is_tiled
        else 0
        for reader in readers
    }
    own = (first.segment_rows, first.segment_columns)
    if sizes == {own} and all(SMALLEST_TILE <= edge <= LARGEST_TILE for edge in own):
        return own
    edge = DEFAULT_TILE
    per_row = first.columns * first.samples * first.dtype.itemsize
    while edge > SMALLEST_TILE and edge * per_row > TALLEST_BAND_BYTES:
        edge //= 2
    return min(edge, first.rows), min(edge, first.columns)


def _missing(segments: Segments, grid: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """(down, across): True for tiles of which the file holds nothing."""
    down, across, tile_rows, tile_columns = grid
    absent = segments.absent
    if not absent.any():
        return np.zeros((down, across), np.bool_)
    missing = np.zeros((down, across), np.bool_)
    for row in range(down):
        top = row * tile_rows
        last = -(-min(top + tile_rows, segments.rows) // segments.segment_rows)
        band = np.all(absent[top // segments.segment_rows : last], axis=0)
        for column in range(across):
            left = column * tile_columns
            end = -(-min(left + tile_columns, segments.columns) // segments.segment_columns)
            missing[row, column] = bool(np.all(band[left // segments.segment_columns : end]))
    return missing


def _lossy_method(reader: PlaneReader) -> str:
    segments = reader.segments
    method = LOSSY_METHODS.get(int(segments.page.compression), "")
    if not method or int(segments.page.compression) == JPEG:
        return method
    head = segments.first_bytes()
    if int(segments.page.compression) == WEBP:
        return "" if b"VP8L" in head[:64] else method
    return "" if sniff(head).reversible else method
