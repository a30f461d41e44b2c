# SPDX-License-Identifier: Apache-2.0
"""Levels of one or several NDPIs, each file an optical path, each page a focal plane."""

from collections.abc import Sequence

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.jpeg_image import JpegImage
from converters.readers.jpeg_mosaic import Mosaic, MosaicTiles, decoded_tiles, mosaic_tiles
from converters.readers.ndpi_jpeg_xr import jpeg_xr_tiles
from converters.readers.ndpi_pages import (
    JPEG_XR,
    NdpiFile,
    Page,
    jpeg_xr_level,
    optical_path,
    page_image,
    spacing_mm,
)
from converters.slide import DEFAULT_TILE, Illumination, Level, PixelType

RED, GREEN, BLUE = 0, 1, 2


def levels_of(files: Sequence[NdpiFile], sources: Sequence[int], findings: list[str]) -> Sequence[Level]:
    """``sources``: number of each file. Raises DamagedSlide, UnsupportedCompression,
    UnsupportedPixels."""
    sizes = [(page.rows, page.columns) for (page, *_) in files[0].levels]
    planes = len(files[0].levels[0])
    for file in files[1:]:
        others = [(page.rows, page.columns) for (page, *_) in file.levels]
        if others != sizes or len(file.levels[0]) != planes:
            raise DamagedSlide("the channels of the set are not of one size")
    levels: list[Level] = []
    for number in range(len(sizes)):
        pages = [
            (page, source)
            for file, source in zip(files, sources, strict=True)
            for page in file.levels[number]
        ]
        level = _level(files, pages, levels, findings)
        if not levels or level.columns < levels[-1].columns:
            levels.append(level)
    return tuple(levels)


def _level(
    files: Sequence[NdpiFile],
    pages: Sequence[tuple[Page, int]],
    finer: Sequence[Level],
    findings: list[str],
) -> Level:
    if all(page.compression == JPEG_XR for page, _ in pages):
        images = [jpeg_xr_level(page) for page, _ in pages]
        tiles, tile = jpeg_xr_tiles(images)
        rows, columns = images[0].rows, images[0].columns
        pixel_type, cut, container_rgb = images[0].pixel_type, MosaicTiles(tiles, *tile, None), None
    else:
        jpegs = [page_image(page, source) for page, source in pages]
        rows, columns = jpegs[0].rows, jpegs[0].columns
        pixel_type, cut = _cut(files, jpegs)
        container_rgb = jpegs[0].container_rgb if pixel_type.samples_per_pixel == 3 else None
        if any(image.intervals is not None and image.intervals.searched for image in jpegs):
            findings.append("the offsets of restart intervals are wrong: they were searched for")
    first = files[0].first
    spacing = spacing_mm(first)
    scale = scale_of(finer[0], rows, columns) if finer else (1.0, 1.0)
    return Level(
        index=len(finer),
        rows=rows,
        columns=columns,
        tile_rows=cut.tile_rows,
        tile_columns=cut.tile_columns,
        tiles=cut.tiles,
        pixel_type=pixel_type,
        pixel_spacing_mm=(spacing[0] * scale[0], spacing[1] * scale[1]) if spacing else None,
        downsample=scale[1],
        container_rgb=container_rgb,
        optical_paths=len(files),
        focal_planes=len(pages) // len(files),
        reference=cut.reference,
    )


def _cut(files: Sequence[NdpiFile], jpegs: Sequence[JpegImage]) -> tuple[PixelType, MosaicTiles]:
    mosaics = [Mosaic(((image,),)) for image in jpegs]
    samples = {image.head.components for image in jpegs}
    paths = [optical_path(file, "") for file in files]
    dark = paths[0].illumination is Illumination.EPIFLUORESCENCE
    if len(files) == 1 or samples == {1}:
        if len(samples) > 1:
            raise DamagedSlide("planes of one level differ in samples")
        return PixelType(samples.pop()), mosaic_tiles(mosaics, white=not dark)
    bands = [_band(file) for file in files for _ in range(len(jpegs) // len(files))]
    rows, columns = mosaics[0].rows, mosaics[0].columns
    edge = DEFAULT_TILE if max(rows, columns) > DEFAULT_TILE else 0
    tile = edge or rows, edge or columns
    tiles = decoded_tiles(mosaics, *tile, "a channel is one colour of its JPEGs", white=False, bands=bands)
    return PixelType(1), MosaicTiles(tiles, *tile, None)


def _band(file: NdpiFile) -> int:
    """The colour that shows a channel: that of its wavelength, or else the only one that its
    shading data (lines of the property map that begin with ";") let light through to.
    Raises UnsupportedPixels where neither is stated."""
    emission_nm = optical_path(file, "").emission_nm
    if emission_nm is not None:
        return RED if emission_nm > 580 else GREEN if emission_nm > 490 else BLUE
    said = [file.properties.get(f";transmittance{letter}", "-").strip(" %") for letter in "rgb"]
    lit = [band for band, text in enumerate(said) if text not in ("-", "", "0")]
    if len(lit) != 1:
        raise UnsupportedPixels("a channel is a colour picture, and the file does not say which colour of it")
    return lit[0]


def scale_of(finest: Level, rows: int, columns: int) -> tuple[float, float]:
    """How many pixels of the finest level one of this level covers (rows, columns). Scanners
    reduce by whole numbers and round sizes either way, so a whole one is preferred."""
    factor = max(1, round(finest.columns / columns))
    sizes = ((finest.rows, rows), (finest.columns, columns))
    if all(abs(size / factor - part) <= 1 for size, part in sizes):
        return float(factor), float(factor)
    return finest.rows / rows, finest.columns / columns
