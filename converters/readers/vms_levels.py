# SPDX-License-Identifier: Apache-2.0
"""Levels of a VMS (a matrix of JPEGs) and of a VMU (an NGR)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.hamamatsu_index import index_number
from converters.readers.jpeg_image import open_image
from converters.readers.jpeg_mosaic import Mosaic, MosaicTiles, mosaic_tiles
from converters.readers.ndpi_levels import scale_of
from converters.readers.ngr import ngr_tiles, open_ngr
from converters.slide import Level, PixelType

BITS_PER_PIXEL = 36


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An open file of the slide: ``number`` among its sources, ``what`` names it to people."""

    descriptor: int
    number: int
    size_bytes: int
    what: str


Matrix = Sequence[Sequence[ImageFile]]


def jpeg_level(planes: Sequence[Matrix], index: Mapping[str, str], finest: Level | None) -> Level:
    """Raises DamagedSlide, UnsupportedPixels."""
    mosaics = [
        Mosaic(
            [
                [open_image(file.descriptor, file.number, 0, file.size_bytes, what=file.what) for file in row]
                for row in matrix
            ]
        )
        for matrix in planes
    ]
    samples = {image.head.components for mosaic in mosaics for image in mosaic.all}
    if len(samples) > 1:
        raise DamagedSlide("image files differ in samples")
    return _level(
        (mosaics[0].rows, mosaics[0].columns),
        mosaic_tiles(mosaics),
        PixelType(samples.pop()),
        len(planes),
        index,
        finest,
    )


def check_ngr(index: Mapping[str, str]) -> None:
    if (index_number(index, "bitsperpixel"), index.get("pixelorder")) != (BITS_PER_PIXEL, "RGB"):
        raise UnsupportedPixels("an uncompressed slide of other pixels than RGB of 12 bits each")


def ngr_level(planes: Sequence[Matrix], index: Mapping[str, str], finest: Level | None) -> Level:
    """Raises DamagedSlide."""
    images = [open_ngr(file.descriptor, file.size_bytes, file.what) for ((file,),) in planes]
    tiles, tile = ngr_tiles(images)
    size = images[0].rows, images[0].columns
    return _level(size, MosaicTiles(tiles, *tile, None), PixelType(3), len(planes), index, finest)


def _level(
    size: tuple[int, int],
    cut: MosaicTiles,
    pixel_type: PixelType,
    planes: int,
    index: Mapping[str, str],
    finest: Level | None,
) -> Level:
    rows, columns = size
    scale = scale_of(finest, rows, columns) if finest is not None else (1.0, 1.0)
    of_finest = _spacing_mm(index, rows, columns) if finest is None else finest.pixel_spacing_mm
    return Level(
        index=0 if finest is None else finest.index + 1,
        rows=rows,
        columns=columns,
        tile_rows=cut.tile_rows,
        tile_columns=cut.tile_columns,
        tiles=cut.tiles,
        pixel_type=pixel_type,
        pixel_spacing_mm=(of_finest[0] * scale[0], of_finest[1] * scale[1]) if of_finest else None,
        downsample=scale[1],
        focal_planes=planes,
        reference=cut.reference,
    )


def _spacing_mm(index: Mapping[str, str], rows: int, columns: int) -> tuple[float, float] | None:
    """(Between rows, between columns) from the image's size in nm, where it can be a
    microscope's."""
    height, width = (index_number(index, key) or 0.0 for key in ("physicalheight", "physicalwidth"))
    spacing = height / 1e6 / rows, width / 1e6 / columns
    return spacing if all(0.00002 <= value <= 0.02 for value in spacing) else None
