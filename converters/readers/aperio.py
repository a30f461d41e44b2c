# SPDX-License-Identifier: Apache-2.0
"""Aperio SVS: a tiled TIFF whose first ImageDescription starts with "Aperio".

Page 1 is the finest level, page 2 a thumbnail in strips, then come coarser levels
(tiled) and at the end label and macro (in strips). Traps that real files set:

- Tiles are abbreviated JPEG: the tables stand once, in tag JPEGTables.
- Photometric RGB means RGB inside the JPEG too, with no Adobe marker to say so.
- A tile of length 0 was never scanned.
- Page 2 is the thumbnail whatever its subfile type says. Label and macro may have no words:
  the subfile types 1 and 9 tell them.
- Other makers write the same form ("Aperio Image, Grundium Ocus"), with decimal commas and
  "Scan resolution" for MPP.
- GT450 writes coarser levels with an empty description, and resolutions in the TIFF's
  own tags where older scanners wrote MPP.

Sources: openslide.org/formats/aperio; opentile's changelog (what real files hold); TIFF 6.0; TIFF
Technical Note 2.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.probe import Probe
from converters.readers.aperio_description import Description, parse_description
from converters.readers.tiff_pages import (
    all_pages,
    container_rgb,
    first_page,
    is_copyable,
    is_ycbcr_jpeg_2000,
    opened,
    pixel_type,
    reference,
    spacing_mm,
    tag_text,
    tile_map,
)
from converters.readers.tiff_pixels import Plane, SegmentCache, level_tiles
from converters.readers.tiff_pyramid import side_image
from converters.slide import AssociatedImage, Level, OpticalPath, Role, Scan, Scene, Slide, SourceFile

if TYPE_CHECKING:
    import tifffile

UNCODED = (1, 5)
"""Tiles that are not compressed, or LZW: they are decoded."""


class AperioReader:
    """See :class:`converters.registry.Reader`."""

    format = "aperio-svs"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        if not page.description.startswith("Aperio"):
            return "ImageDescription does not start with 'Aperio'"
        if not page.is_tiled:
            return "the first page is not tiled"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = all_pages(tiff)
    words = parse_description(pages[0].description, tag_text(pages[0], "DateTime"))
    tiled: list[tifffile.TiffPage] = []
    associated: list[AssociatedImage] = []
    findings: list[str] = list(words.findings)
    for number, page in enumerate(pages):
        role = _role(page, number)
        if role is Role.VOLUME:
            tiled.append(page)
        elif role is not None and all(image.role is not role for image in associated):
            image = side_image(page, role, findings)
            associated += [image] if image is not None else []
    levels = _levels(tiled, words, probe.size_bytes, findings)
    icc = pages[0].tags.get(34675)
    path = OpticalPath(
        objective_power=words.objective_power,
        numerical_aperture=words.numerical_aperture,
        icc_profile=bytes(icc.value) if icc is not None else b"",
    )
    return Slide(
        format=AperioReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(Scene(0, levels, (path,), words.origin_mm(levels[0].pixel_spacing_mm)),),
        associated=tuple(associated),
        scan=Scan(
            manufacturer=words.manufacturer,
            model_name=words.model_name,
            device_serial_number=words.device_serial_number,
            software_versions=words.software_versions,
            acquired=words.acquired,
            barcode=words.barcode,
            description=pages[0].description,
            properties=dict(words.properties),
        ),
        closer=tiff.close,
        findings=tuple(findings),
    )


def _role(page: "tifffile.TiffPage", number: int) -> Role | None:
    """What a page is; None for one that no viewer shows (a second thumbnail, say)."""
    if number == 0:
        return Role.VOLUME
    words = page.description.lower()
    second_line = words.splitlines()[1].strip() if len(words.splitlines()) > 1 else ""
    for name, role in (("label", Role.LABEL), ("macro", Role.OVERVIEW)):
        if second_line.startswith(name) or words.startswith(name):
            return role
    if page.is_tiled:
        return Role.VOLUME
    if number == 1 or "->" in words:
        return Role.THUMBNAIL
    if page.subfiletype == 9:
        return Role.OVERVIEW
    return Role.LABEL if page.subfiletype == 1 else None


def _levels(
    pages: Sequence["tifffile.TiffPage"], words: Description, size_bytes: int, findings: list[str]
) -> Sequence[Level]:
    first = pages[0]
    spacing = words.pixel_spacing_mm or spacing_mm(first)
    ordered = sorted(pages, key=lambda page: -page.imagewidth * page.imagelength)
    if ordered[0] is not first:
        raise DamagedSlide("a later page is larger than the first")
    levels: list[Level] = []
    cache = SegmentCache()
    for page in ordered:
        rows, columns = int(page.imagelength), int(page.imagewidth)
        if levels and columns == levels[-1].columns:
            raise UnsupportedPixels("two levels of the same size: focal planes in SVS are not read")
        if not is_copyable(page) and int(page.compression) not in UNCODED:
            raise UnsupportedCompression(str(int(page.compression)), f"the tiles of page {page.index}")
        scale = _scale(first, rows, columns)
        if levels and not 0.8 < scale[0] / scale[1] < 1.25:
            findings.append(f"page {page.index} is tiled but of another shape than the slide: left out")
            continue
        level = Level(
            index=len(levels),
            rows=rows,
            columns=columns,
            tile_rows=int(page.tilelength),
            tile_columns=int(page.tilewidth),
            tiles=tile_map(page, size_bytes),
            pixel_type=pixel_type(page),
            pixel_spacing_mm=(spacing[0] * scale[0], spacing[1] * scale[1]) if spacing else None,
            downsample=scale[1],
            container_rgb=False if is_ycbcr_jpeg_2000(page) else container_rgb(page),
            reference=reference(page),
            history=page.description,
        )
        if int(page.compression) in UNCODED:
            found = level_tiles([[Plane(page)]], cache=cache)
            level = replace(
                level, tile_rows=found.tile_rows, tile_columns=found.tile_columns, tiles=found.tiles,
                container_rgb=None, reference=None,
            )  # fmt: skip
        levels.append(level)
    return tuple(levels)


def _scale(first: "tifffile.TiffPage", rows: int, columns: int) -> tuple[float, float]:
    """How many pixels of the first page one of this page covers (rows, columns). Scanners
    reduce by whole numbers and cut off what is left over, so a whole one is preferred."""
    factor = max(1, round(first.imagewidth / columns))
    sizes = ((first.imagelength, rows), (first.imagewidth, columns))
    if all(size // factor <= part <= -(-size // factor) for size, part in sizes):
        return float(factor), float(factor)
    return first.imagelength / rows, first.imagewidth / columns
