# SPDX-License-Identifier: Apache-2.0
"""Trestle MedScan: a tiled TIFF whose Software starts with "MedScan", a macro beside it.

Every page is a level, finest first. Traps:

- XResolution and YResolution hold micrometres per pixel, not pixels per unit. (1, which
  libraries write for want of a value, is not believed.)
- OverlapsXY in the description lists, for each level, by how many pixels neighbouring
  tiles overlap (X, Y). Such levels must be stitched: tiles are laid one on the other, the
  lower and right one on top, as OpenSlide does.
- What each tile's overlap really is stands in ".tif-Nb" files beside the slide, whose form
  is not public: the standard overlaps are used, and a finding says so.
- The macro is the JPEG of the same name ending in ".Full"; many archives have lost it.

Sources: openslide.org/formats/trestle. No file from a scanner was at hand.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import ConversionError, DamagedSlide, UnsupportedPixels
from converters.probe import Probe
from converters.readers.encoded_tiles import MAX_ASSOCIATED_BYTES, associated_picture
from converters.readers.tiff_pages import all_pages, first_page, opened
from converters.readers.tiff_pixels import Plane, SegmentCache, level_tiles
from converters.readers.tiff_pyramid import icc_profile, plausible
from converters.readers.tiff_samples import PlaneReader, plane_reader
from converters.readers.tiff_segments import LOSSY_METHODS
from converters.readers.tile_grid import scale
from converters.readers.vendor_xml import number, whole
from converters.slide import (
    AssociatedImage,
    Level,
    OpticalPath,
    Pixels,
    PixelTiles,
    Role,
    Scan,
    Scene,
    Slide,
    SourceFile,
    left_out,
)

if TYPE_CHECKING:
    import tifffile

MACRO_SUFFIX = ".Full"
MAX_LEVELS = 32


class TrestleReader:
    """See :class:`converters.registry.Reader`."""

    format = "trestle"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        if not page.software.startswith("MedScan"):
            return "Software does not start with 'MedScan'"
        if not page.description:
            return "there is no ImageDescription"
        return None

    @staticmethod
    def companions(probe: Probe) -> Sequence[str]:
        """The macro, where there is one: a slide is complete without it."""
        name = probe.path.stem + MACRO_SUFFIX
        return (name,) if (probe.path.parent / name).is_file() else ()

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = all_pages(tiff)
    if len(pages) > MAX_LEVELS:
        raise DamagedSlide(f"more than {MAX_LEVELS} levels")
    properties = parse_description(pages[0].description)
    findings: list[str] = []
    levels = _levels(pages, _overlaps(properties.get("overlapsxy", "")), findings)
    sources = [SourceFile(probe.path, probe.size_bytes, probe.modified)]
    associated = _macro(probe, sources, findings)
    power = number(properties.get("objective power"))
    path = OpticalPath(
        objective_power=power if power and power > 0 else None, icc_profile=icc_profile(pages[0])
    )
    return Slide(
        format=TrestleReader.format,
        sources=tuple(sources),
        scenes=(Scene(0, levels, (path,)),),
        associated=associated,
        scan=Scan(
            manufacturer="Trestle",
            software_versions=(pages[0].software,),
            description=pages[0].description,
            properties=properties,
        ),
        closer=tiff.close,
        findings=tuple(findings),
    )


def parse_description(text: str) -> dict[str, str]:
    """The pairs ``key=value`` between semicolons, keys in lower case."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {key.strip().lower(): value.strip() for key, equals, value in pairs if equals and key.strip()}


def _overlaps(text: str) -> list[tuple[int, int]]:
    """(Rows, columns) by which neighbouring tiles of each level overlap."""
    numbers = [whole(word, 0, 65535) for word in text.split()]
    if None in numbers:
        raise DamagedSlide("the overlaps of the tiles are no numbers")
    values = [value or 0 for value in numbers]
    return [(y, x) for x, y in zip(values[::2], values[1::2], strict=False)]


def _spacing(page: "tifffile.TiffPage", findings: list[str]) -> tuple[float, float] | None:
    microns = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        numerator, denominator = tag.value if tag is not None else (0, 0)
        microns.append(numerator / denominator if denominator else 0.0)
    if microns == [1.0, 1.0]:
        findings.append("the pixel size is given as exactly 1 µm, as by libraries: not used")
        return None
    return plausible((microns[0] / 1000, microns[1] / 1000))


def _levels(
    pages: Sequence["tifffile.TiffPage"], overlaps: Sequence[tuple[int, int]], findings: list[str]
) -> tuple[Level, ...]:
    spacing = _spacing(pages[0], findings)
    cache = SegmentCache()
    levels: list[Level] = []
    for position, page in enumerate(pages):
        found = level_tiles([[Plane(page)]], cache=cache)
        size = (int(page.imagelength), int(page.imagewidth))
        overlap = overlaps[position] if position < len(overlaps) else (0, 0)
        tiles, tile = found.tiles, (found.tile_rows, found.tile_columns)
        if overlap != (0, 0):
            size = _stitched_size(page, size, overlap)
            tiles = _stitched(plane_reader(Plane(page), cache), size, tile, overlap)
        down, across = scale((levels[0].rows, levels[0].columns) if levels else size, size)
        if levels and (size[1] >= levels[-1].columns or not 0.8 < down / across < 1.25):
            raise DamagedSlide(f"page {page.index} is not a smaller picture of the slide")
        levels.append(
            Level(
                index=len(levels),
                rows=size[0],
                columns=size[1],
                tile_rows=tile[0],
                tile_columns=tile[1],
                tiles=tiles,
                pixel_type=found.pixel_type,
                pixel_spacing_mm=(spacing[0] * down, spacing[1] * across) if spacing else None,
                downsample=across,
                container_rgb=found.container_rgb,
                reference=found.reference if tiles is found.tiles else None,
                history=page.description[:1024],
            )
        )
    if any(overlap != (0, 0) for overlap in overlaps):
        findings.append(
            "tiles overlap: stitched by the standard overlaps, those of single tiles are not read"
        )
    return tuple(levels)


def _stitched_size(
    page: "tifffile.TiffPage", size: tuple[int, int], overlap: tuple[int, int]
) -> tuple[int, int]:
    """The level's size without what tiles show twice. Raises DamagedSlide."""
    if not page.is_tiled or overlap[0] >= page.tilelength or overlap[1] >= page.tilewidth:
        raise DamagedSlide(f"the overlap of page {page.index} is not less than its tiles")
    down, across = -(-size[0] // page.tilelength), -(-size[1] // page.tilewidth)
    return size[0] - (down - 1) * overlap[0], size[1] - (across - 1) * overlap[1]


def _stitched(
    reader: PlaneReader, size: tuple[int, int], tile: tuple[int, int], overlap: tuple[int, int]
) -> PixelTiles:
    """Tiles of ours, cut from the file's that overlap."""
    segments = reader.segments
    if reader.form == "palette" or segments.dtype != np.uint8 or segments.apart:
        raise UnsupportedPixels("tiles that overlap are only read with 8 bits of grey or RGB")
    step = (segments.segment_rows - overlap[0], segments.segment_columns - overlap[1])
    samples = 3 if reader.form == "rgb" else 1
    across = -(-size[1] // tile[1])

    def read(index: int) -> Pixels:
        top, left = (index // across) * tile[0], (index % across) * tile[1]
        out = np.full((*tile, samples), 255, np.uint8)
        ends = (min(top + tile[0], size[0]), min(left + tile[1], size[1]))
        rows = _touching(top, ends[0], step[0], segments.segment_rows, segments.down)
        columns = _touching(left, ends[1], step[1], segments.segment_columns, segments.across)
        for row in rows:
            for column in columns:
                pixels = segments.segment(0, row, column)
                if pixels is None:
                    continue
                y, x = row * step[0], column * step[1]
                y0, y1 = max(y, top), min(y + pixels.shape[0], ends[0])
                x0, x1 = max(x, left), min(x + pixels.shape[1], ends[1])
                if y0 < y1 and x0 < x1:
                    part = pixels[y0 - y : y1 - y, x0 - x : x1 - x, :samples]
                    out[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return out

    return PixelTiles(
        read=read,
        count=across * -(-size[0] // tile[0]),
        why="tiles overlap",
        lossy_method=LOSSY_METHODS.get(int(segments.page.compression), ""),
        size_bytes=segments.size_bytes,
    )


def _touching(start: int, end: int, step: int, length: int, count: int) -> range:
    """Numbers of the tiles (each of ``length``, ``step`` apart) that touch [start, end)."""
    return range(max(0, (start - length) // step + 1), min(count, -(-end // step)))


def _macro(probe: Probe, sources: list[SourceFile], findings: list[str]) -> tuple[AssociatedImage, ...]:
    """The macro beside the slide; the file joins the slide's sources."""
    path = probe.path.with_name(probe.path.stem + MACRO_SUFFIX)
    try:
        status = path.stat()
        if status.st_size > MAX_ASSOCIATED_BYTES:
            raise DamagedSlide("it is too long")
        image = associated_picture(Role.OVERVIEW, path.read_bytes())
    except OSError:
        findings.append(f"there is no {MACRO_SUFFIX} file with the macro beside the slide")
        return ()
    except ConversionError as refusal:
        findings.append(left_out(Role.OVERVIEW, refusal))
        return ()
    sources.append(SourceFile(path, status.st_size, status.st_mtime, path.name))
    return (image,)
