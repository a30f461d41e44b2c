# SPDX-License-Identifier: Apache-2.0
"""Motic's export as SVS or TIFF: Aperio's layout, with a description of its own that
starts with "Motic".

Page 1 is the finest level, then a thumbnail in strips, then coarser levels (tiled).
The description is ``Motic V1.0.0 2048x2048 [0,0 2048x2048] [512x512] JPEG/RGB Q = 75``,
then pairs ``key = value``, all parted by "|". Label and macro, where there are any,
are named at the description's start or on its second line.

Sources: openslide issue 228; a file by Motic's layout that Bio-Formats and slideio read.
No file from a scanner was at hand.
"""

from typing import TYPE_CHECKING

from converters.probe import Probe
from converters.readers.tiff_pages import all_pages, first_page, opened, spacing_mm
from converters.readers.tiff_pixels import Plane
from converters.readers.tiff_pyramid import build_levels, icc_profile, mapped_paths, plausible, side_image
from converters.readers.vendor_xml import number
from converters.slide import AssociatedImage, OpticalPath, Role, Scan, Scene, Slide, SourceFile

if TYPE_CHECKING:
    import tifffile

ROLES = (("label", Role.LABEL), ("macro", Role.OVERVIEW), ("thumbnail", Role.THUMBNAIL))


class MoticTiffReader:
    """See :class:`converters.registry.Reader`."""

    format = "motic-tiff"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        if not page.description.startswith("Motic"):
            return "ImageDescription does not start with 'Motic'"
        if not page.is_tiled:
            return "the first page is not tiled"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = all_pages(tiff)
    findings: list[str] = []
    level_pages: list[tifffile.TiffPage] = []
    associated: dict[Role, AssociatedImage] = {}
    for page in pages:
        role = _role(page) if level_pages else Role.VOLUME
        if role is Role.VOLUME:
            level_pages.append(page)
        elif role not in associated:
            image = side_image(page, role, findings)
            if image is not None:
                associated[role] = image
    words, properties = parse_description(pages[0].description)
    microns = number(properties.get("mpp"))
    stated = plausible((microns / 1000, microns / 1000)) if microns else None
    if microns and stated is None:
        findings.append("MPP cannot be a pixel size: not used")
    spacing = stated or spacing_mm(pages[0])
    power = number(properties.get("appmag"))
    levels, mappings = build_levels([[[Plane(page)]] for page in level_pages], spacing, findings)
    path = OpticalPath(
        objective_power=power if power and power > 0 else None, icc_profile=icc_profile(pages[0])
    )
    return Slide(
        format=MoticTiffReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(Scene(0, levels, mapped_paths((path,), mappings)),),
        associated=tuple(associated.values()),
        scan=Scan(
            manufacturer="Motic",
            software_versions=(words,) if words else (),
            description=pages[0].description,
            properties=properties,
        ),
        closer=tiff.close,
        findings=tuple(findings),
    )


def parse_description(text: str) -> tuple[str, dict[str, str]]:
    """(Name and version of the software, the pairs with keys in lower case)."""
    first, *pairs = text.split("|")
    properties = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and key.strip():
            properties[key.strip().lower()] = value.strip()
    software = first.split()[:2]
    return " ".join(software) if len(software) == 2 and software[1].startswith("V") else "", properties


def _role(page: "tifffile.TiffPage") -> Role:
    lines = [line.strip().lower() for line in page.description.splitlines()[:2]]
    for name, role in ROLES:
        if any(line.startswith(name) for line in lines):
            return role
    return Role.VOLUME if page.is_tiled else Role.THUMBNAIL
