# SPDX-License-Identifier: Apache-2.0
"""Generic pyramidal TIFF: one picture in several sizes, and no vendor's mark on it.

The largest page, the first as a rule, is the finest level. Coarser ones are pages of the main chain (reduced
images by NewSubfileType, or smaller and of the same shape) or pages below the first one
(SubIFDs). A page whose description begins with "label", "macro", "overview" or
"thumbnail" is such a picture; any other page is left out, with a finding. Traps:

- Libraries write 72 or 96 per inch, or 10 per cm, when they do not know the resolution:
  only a microscope's is believed, otherwise the operator is asked.
- DateTime and Software are the converting program's, not the scanner's: properties only.
- Several pages of one size (stacks, channels) say nowhere what they are: refused.

Sources: TIFF 6.0; openslide.org/formats/generic-tiff; Adobe TIFF Technical Note 1 (SubIFD).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.probe import Probe
from converters.readers.tiff_pages import all_pages, first_page, opened, spacing_mm, tag_text
from converters.readers.tiff_pixels import Plane
from converters.readers.tiff_pyramid import (
    Planes,
    build_levels,
    icc_profile,
    mapped_paths,
    side_image,
    sub_pages,
)
from converters.readers.tiff_samples import RGB
from converters.readers.vendor_marks import vendor_mark
from converters.slide import AssociatedImage, OpticalPath, Role, Scan, Scene, Slide, SourceFile

if TYPE_CHECKING:
    import tifffile

ROLES = {"label": Role.LABEL, "macro": Role.OVERVIEW, "overview": Role.OVERVIEW, "thumbnail": Role.THUMBNAIL}
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType."""
KEPT_TAGS = (
    "Make", "Model", "Software", "DateTime", "Artist", "HostComputer", "DocumentName", "PageName",
    "XResolution", "YResolution", "ResolutionUnit",
)  # fmt: skip
COLOURS = (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255)))


class GenericTiffReader:
    """See :class:`converters.registry.Reader`."""

    format = "generic-tiff"
    isolated = True  # floats are decoded to find their least and greatest

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        vendor = vendor_mark(probe, page)
        return f"the TIFF has the mark of {vendor}" if vendor else None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = all_pages(tiff)
    for page in pages:
        if page.imagewidth < 1 or page.imagelength < 1:
            raise DamagedSlide(f"page {page.index} has an impossible size")
    first = max((page for page in pages if _role(page) is None), key=_area, default=pages[0])
    others = [page for page in pages if page is not first]
    findings: list[str] = []
    levels_of = [first, *sub_pages(first)]
    associated: dict[Role, AssociatedImage] = {}
    for page in others:
        role = _role(page) or (Role.THUMBNAIL if _thumbnail(page, first) else None)
        if int(page.subfiletype) & MASK == MASK:
            findings.append(f"page {page.index} is a transparency mask: left out")
        elif role is None and _reduced(page, first):
            levels_of.append(page)
        elif role is None:
            findings.append(f"page {page.index} is no reduced picture of the first: left out")
        elif role not in associated:
            image = side_image(page, role, findings)
            if image is not None:
                associated[role] = image
    levels, mappings = build_levels(
        [_planes(page) for page in levels_of], spacing_mm(first), findings, scan=True
    )
    return Slide(
        format=GenericTiffReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(Scene(0, levels, mapped_paths(_paths(first, len(mappings)), mappings)),),
        associated=tuple(associated.values()),
        scan=Scan(
            manufacturer=tag_text(first, "Make").strip(),
            model_name=tag_text(first, "Model").strip(),
            description=first.description,
            properties=_properties(first),
        ),
        closer=tiff.close,
        findings=tuple(findings),
    )


def _area(page: "tifffile.TiffPage") -> int:
    return int(page.imagewidth) * int(page.imagelength)


def _role(page: "tifffile.TiffPage") -> Role | None:
    words = page.description.strip().lower()
    return next((role for name, role in ROLES.items() if words.startswith(name)), None)


def _reduced(page: "tifffile.TiffPage", first: "tifffile.TiffPage") -> bool:
    """Whether the page can be a coarser level. Raises UnsupportedPixels for one as large as
    the first, which would be another picture."""
    smaller = page.imagewidth < first.imagewidth and page.imagelength < first.imagelength
    if not smaller and page.imagewidth * page.imagelength >= first.imagewidth * first.imagelength:
        raise UnsupportedPixels("several pages as large as the first: the file does not say what they are")
    ratio = (first.imagelength * page.imagewidth) / max(1, first.imagewidth * page.imagelength)
    alike = page.samplesperpixel == first.samplesperpixel and page.dtype == first.dtype
    return smaller and alike and (0.8 < ratio < 1.25 or int(page.subfiletype) & REDUCED == REDUCED)


def _thumbnail(page: "tifffile.TiffPage", first: "tifffile.TiffPage") -> bool:
    """Whether the page shows the first one in other samples (RGB of 8 bits, as a rule)."""
    smaller = page.imagewidth < first.imagewidth and page.imagelength < first.imagelength
    ratio = (first.imagelength * page.imagewidth) / max(1, first.imagewidth * page.imagelength)
    other = page.samplesperpixel != first.samplesperpixel or page.dtype != first.dtype
    return bool(smaller and other and 0.8 < ratio < 1.25)


def _wide_colours(page: "tifffile.TiffPage") -> bool:
    return int(page.photometric) == RGB and page.samplesperpixel >= 3 and page.bitspersample > 8


def _planes(page: "tifffile.TiffPage") -> Planes:
    """One path; colours of more than 8 bits, which DICOM's slides cannot hold as such, are
    three paths of grey: nothing is lost."""
    if _wide_colours(page):
        return [[Plane(page, sample=number)] for number in range(3)]
    return [[Plane(page)]]


def _paths(page: "tifffile.TiffPage", count: int) -> Sequence[OpticalPath]:
    if count == 1:
        return (OpticalPath(icc_profile=icc_profile(page)),)
    return tuple(
        OpticalPath(identifier=str(number), description=name, display_rgb=rgb)
        for number, (name, rgb) in enumerate(COLOURS, 1)
    )


def _properties(page: "tifffile.TiffPage") -> dict[str, str]:
    tags = ((name, page.tags.get(name)) for name in KEPT_TAGS)
    return {f"tiff.{name.lower()}": str(tag.value)[:1024] for name, tag in tags if tag is not None}
