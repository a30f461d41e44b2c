# SPDX-License-Identifier: Apache-2.0
"""Levels of a scene from the pages of a TIFF, and pictures beside them, for readers whose
pages may be of any kind: copied where they can be, decoded where they must be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionError, DamagedSlide, UnsupportedPixels
from converters.readers.tiff_pages import CODESTREAMS, MAX_ASSOCIATED_PIXELS, MAX_PAGES, associated_image
from converters.readers.tiff_pixels import Plane, SegmentCache, level_tiles
from converters.readers.tiff_samples import plane_reader
from converters.readers.tile_grid import scale
from converters.slide import AssociatedImage, Level, OpticalPath, RealWorldMapping, Role

if TYPE_CHECKING:
    import tifffile

Planes = Sequence[Sequence[Plane | None]]
"""``planes[optical path][focal plane]``; None where the scanner left the plane out."""

ICC_PROFILE = 34675
SMALLEST_MM, LARGEST_MM = 0.00002, 0.02
"""What can be the pixel spacing of a microscope."""


def plausible(spacing: tuple[float, float] | None) -> tuple[float, float] | None:
    """The spacing (mm), None where it cannot be that of a microscope's finest level."""
    if spacing is None or not all(SMALLEST_MM <= value <= LARGEST_MM for value in spacing):
        return None
    return spacing


def sub_pages(page: "tifffile.TiffPage") -> Sequence["tifffile.TiffPage"]:
    """The pages below a page (SubIFDs), in order. Raises DamagedSlide where one
    cannot be read."""
    if not page.subifds:
        return ()
    if len(page.subifds) > MAX_PAGES:
        raise DamagedSlide(f"page {page.index} has more than {MAX_PAGES} pages below it")
    found = tuple(page.pages)
    if len(found) != len(page.subifds):
        raise DamagedSlide(f"a page below page {page.index} is damaged or beyond the end of the file")
    return found


def icc_profile(page: "tifffile.TiffPage") -> bytes:
    tag = page.tags.get(ICC_PROFILE)
    return bytes(tag.value) if tag is not None and isinstance(tag.value, bytes) else b""


def mapped_paths(
    paths: Sequence[OpticalPath], mappings: Sequence[RealWorldMapping | None]
) -> tuple[OpticalPath, ...]:
    """The optical paths with what their stored values mean."""
    return tuple(replace(path, real_world=mapping) for path, mapping in zip(paths, mappings, strict=True))


def build_levels(
    groups: Sequence[Planes],
    spacing_mm: tuple[float, float] | None,
    findings: list[str],
    *,
    cache: SegmentCache | None = None,
    scan: bool = False,
) -> tuple[tuple[Level, ...], tuple[RealWorldMapping | None, ...]]:
    """Levels (finest first) of ``groups``, the planes of each size, and the mappings of the
    optical paths. A group of another shape than the finest is left out, with a finding.

    ``cache`` and ``scan`` are those of :func:`level_tiles`. Raises DamagedSlide,
    UnsupportedCompression, UnsupportedPixels.
    """
    cache = cache or SegmentCache()
    ordered = sorted(groups, key=lambda planes: -_area(first_page_of(planes)))
    finest = first_page_of(ordered[0])
    size = (int(finest.imagelength), int(finest.imagewidth))
    levels: list[Level] = []
    mappings: tuple[RealWorldMapping | None, ...] | None = None
    for planes in ordered:
        page = first_page_of(planes)
        rows, columns = int(page.imagelength), int(page.imagewidth)
        if rows < 1 or columns < 1:
            raise DamagedSlide(f"page {page.index} has an impossible size")
        down, across = scale(size, (rows, columns))
        if levels and (not 0.8 < down / across < 1.25 or columns >= levels[-1].columns):
            findings.append(f"page {page.index} is not a smaller picture of the same shape: left out")
            continue
        found = level_tiles(planes, mappings=mappings, cache=cache, scan=scan)
        if levels and found.pixel_type.samples_per_pixel != levels[0].pixel_type.samples_per_pixel:
            findings.append(f"page {page.index} has other samples than the finest level: left out")
            continue
        mappings = found.mappings if mappings is None else mappings
        findings.extend(found.findings)
        levels.append(
            Level(
                index=len(levels),
                rows=rows,
                columns=columns,
                tile_rows=found.tile_rows,
                tile_columns=found.tile_columns,
                tiles=found.tiles,
                pixel_type=found.pixel_type,
                pixel_spacing_mm=(spacing_mm[0] * down, spacing_mm[1] * across) if spacing_mm else None,
                downsample=across,
                container_rgb=found.container_rgb,
                optical_paths=len(planes),
                focal_planes=len(planes[0]),
                reference=found.reference,
                history=page.description[:1024],
            )
        )
    return tuple(levels), mappings or ()


def first_page_of(planes: Planes) -> "tifffile.TiffPage":
    """The first page that there is. Raises DamagedSlide where there is none."""
    for path in planes:
        for plane in path:
            if plane is not None:
                return plane.page
    raise DamagedSlide("a level has no pages")


def _area(page: "tifffile.TiffPage") -> int:
    return int(page.imagelength) * int(page.imagewidth)


def side_image(page: "tifffile.TiffPage", role: Role, findings: list[str]) -> AssociatedImage | None:
    """The label, overview or thumbnail that a page shows; None with a finding where it is
    of a kind that is not read: a slide is not refused for its thumbnail."""
    try:
        return _side_image(page, role)
    except ConversionError as refusal:
        findings.append(f"the {role.value.lower()} image is left out: {refusal}")
        return None


def _side_image(page: "tifffile.TiffPage", role: Role) -> AssociatedImage:
    contiguous = int(page.samplesperpixel) == 1 or int(page.planarconfig) == 1
    if contiguous and int(page.compression) in (*CODESTREAMS, 5) and int(page.photometric) in (1, 2, 6):
        return associated_image(page, role)
    rows, columns = int(page.imagelength), int(page.imagewidth)
    if not (0 < rows <= 65535 and 0 < columns <= 65535 and rows * columns <= MAX_ASSOCIATED_PIXELS):
        raise DamagedSlide("it has an impossible size")
    reader = plane_reader(Plane(page), SegmentCache())
    if reader.form == "grey" and reader.segments.dtype.itemsize > 1:
        raise UnsupportedPixels("it is not of 8-bit pixels")

    def read() -> NDArray[np.uint8]:
        return reader.pixels(0, 0, (rows, columns), None).astype(np.uint8)

    return AssociatedImage(
        role=role,
        rows=rows,
        columns=columns,
        read=read,
        compression=getattr(page.compression, "name", str(int(page.compression))),
        encoded_bytes=reader.segments.size_bytes,
    )
