# SPDX-License-Identifier: Apache-2.0
"""Akoya (earlier PerkinElmer) QPTIFF, and the component images of inForm: a TIFF whose
pages each carry a PerkinElmer-QPI-ImageDescription.

A page is one band of one resolution. ImageType says which: FullResolution,
ReducedResolution, Thumbnail, Overview, Label. Brightfield slides have one RGB page for
each resolution. Traps that real files set:

- The XML is declared to be UTF-16 and is stored as UTF-8 (or the other way round).
- Bands come in strips (Vectra) or tiles (PhenoImager), LZW as a rule.
- ExposureTime is in microseconds unless ExposureTimeUnit says otherwise.
- Pixel size is in the TIFF's resolution tags, Objective the real lens: a 10x that
  scans 0.5 µm is called 20x elsewhere in the file.
- Unmixed components are floats; they are mapped to 16 bits, and the mapping declared.

XPosition and YPosition are kept as properties: which way the slide lies is not stated.

Sources: PerkinElmer's "PKI_Image Format" (public with Bio-Formats' samples); tifffile; a
real Vectra Polaris file.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.tiff_pages import all_pages, first_page, opened, spacing_mm, tag_text
from converters.readers.tiff_pixels import Plane
from converters.readers.tiff_pyramid import build_levels, icc_profile, mapped_paths, side_image
from converters.readers.vendor_xml import local_name, number, parse_xml
from converters.slide import (
    AssociatedImage,
    Illumination,
    OpticalPath,
    Role,
    Scan,
    Scene,
    Slide,
    SourceFile,
)

if TYPE_CHECKING:
    import tifffile

MARK = "<PerkinElmer-QPI-ImageDescription"
FINEST, COARSER = "FullResolution", "ReducedResolution"
ROLES = {"Thumbnail": Role.THUMBNAIL, "Overview": Role.OVERVIEW, "Label": Role.LABEL}
PER_MILLISECOND = {"": 1000.0, "us": 1000.0, "µs": 1000.0, "ms": 1.0, "s": 0.001}
MAX_PROPERTIES = 2000
_COLOUR = re.compile(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*")
_POWER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*[xX]")


class AkoyaQptiffReader:
    """See :class:`converters.registry.Reader`."""

    format = "akoya-qptiff"
    isolated = True  # floats are decoded to find their least and greatest

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        if MARK not in _text(page)[:1024]:
            return "ImageDescription is no PerkinElmer-QPI-ImageDescription"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


@dataclass(frozen=True, eq=False)
class _Page:
    page: "tifffile.TiffPage"
    root: Element

    def says(self, name: str) -> str:
        """The text of an element of the page's description, "" where there is none."""
        return (self.root.findtext(name) or "").strip()

    @property
    def size(self) -> tuple[int, int]:
        return int(self.page.imagelength), int(self.page.imagewidth)

    @property
    def is_grey(self) -> bool:
        return int(self.page.samplesperpixel) == 1


def _text(page: "tifffile.TiffPage") -> str:
    """The description; UTF-16 that was read as bytes loses its byte order mark and zeros."""
    text: str = page.description
    return text.replace("\0", "").lstrip("ÿþ\ufeff") if "\0" in text[:64] else text


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = [
        _Page(page, parse_xml(_text(page), f"the description of page {page.index}"))
        for page in all_pages(tiff)
        if MARK in _text(page)[:1024]
    ]
    findings: list[str] = []
    finest = [page for page in pages if page.says("ImageType") == FINEST]
    if not finest:
        raise DamagedSlide(f"no page is of the type {FINEST}")
    if len({page.size for page in finest}) > 1:
        raise DamagedSlide(f"pages of the type {FINEST} differ in size")
    if len(finest) > 1 and not all(page.is_grey for page in finest):
        raise DamagedSlide(f"several pages of the type {FINEST} are in colour")
    groups = [finest, *_coarser(pages, len(finest), findings)]
    levels, mappings = build_levels(
        [[[Plane(page.page)] for page in group] for group in groups],
        spacing_mm(finest[0].page),
        findings,
        scan=True,
    )
    paths = tuple(_optical_path(page, number) for number, page in enumerate(finest, 1))
    return Slide(
        format=AkoyaQptiffReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(Scene(0, levels, mapped_paths(paths, mappings)),),
        associated=_associated(pages, findings),
        scan=_scan(pages, finest[0]),
        closer=tiff.close,
        findings=tuple(findings),
    )


def _coarser(pages: Sequence[_Page], bands: int, findings: list[str]) -> Iterator[list[_Page]]:
    """The pages of each reduced resolution, which all must have the finest one's bands."""
    by_size: dict[tuple[int, int], list[_Page]] = {}
    for page in pages:
        if page.says("ImageType") == COARSER:
            by_size.setdefault(page.size, []).append(page)
    for group in by_size.values():
        if len(group) == bands:
            yield group
        else:
            findings.append(f"a reduced resolution has {len(group)} bands instead of {bands}: left out")


def _optical_path(page: _Page, number_: int) -> OpticalPath:
    name, biomarker = page.says("Name"), page.says("Biomarker")
    description = f"{biomarker} ({name})" if biomarker and name and biomarker != name else name or biomarker
    power = _POWER.match(page.says("Objective"))
    exposure = number(page.says("ExposureTime"))
    unit = PER_MILLISECOND.get(page.says("ExposureTimeUnit").lower())
    colour = _COLOUR.fullmatch(page.says("Color"))
    rgb = (int(colour[1]), int(colour[2]), int(colour[3])) if colour else None
    return OpticalPath(
        identifier=str(number_),
        description=description,
        objective_power=float(power[1]) if power and float(power[1]) > 0 else None,
        icc_profile=icc_profile(page.page),
        illumination=_illumination(page),
        excitation_nm=_filter_nm(page, "ExcitationFilter"),
        emission_nm=_filter_nm(page, "EmissionFilter"),
        exposure_ms=exposure / unit if exposure and exposure > 0 and unit else None,
        fluorophore=page.says("Fluorophore") or page.says("Fluor"),
        display_rgb=rgb if rgb and max(rgb) <= 255 else None,
    )


def _illumination(page: _Page) -> Illumination:
    mode = (
        page.root.findtext("ScanProfile/root/Mode") or page.root.findtext("ScanProfile/Mode") or ""
    ).lower()
    if "brightfield" in mode or not page.is_grey:
        return Illumination.BRIGHTFIELD
    return Illumination.EPIFLUORESCENCE


def _filter_nm(page: _Page, name: str) -> float | None:
    """The middle of the one pass band that a page states of its filter, in nm."""
    bands = []
    for band in page.root.iterfind(f"{name}/Bands/*"):
        edges = number(band.findtext("Cuton")), number(band.findtext("Cutoff"))
        active = (band.findtext("Active") or "true").strip().lower() == "true"
        if active and edges[0] and edges[1] and 100 < edges[0] < edges[1] < 2000:
            bands.append((edges[0] + edges[1]) / 2)
    return bands[0] if len(bands) == 1 else None


def _associated(pages: Sequence[_Page], findings: list[str]) -> tuple[AssociatedImage, ...]:
    images: dict[Role, AssociatedImage] = {}
    for page in pages:
        role = ROLES.get(page.says("ImageType"))
        if role is None or role in images:
            continue
        image = side_image(page.page, role, findings)
        if image is not None:
            images[role] = image
    return tuple(images.values())


def _scan(pages: Sequence[_Page], first: _Page) -> Scan:
    text = _text(first.page)
    software = first.says("AcquisitionSoftware")
    barcode = next(filter(None, (page.says("Barcode") for page in pages)), "")
    properties = dict(_properties(first.root))
    for name in ("XPosition", "YPosition"):
        tag = first.page.tags.get(name)
        if tag is not None:
            properties[f"tiff.{name.lower()}"] = str(tag.value)
    return Scan(
        manufacturer="Akoya Biosciences" if "akoya" in text.lower() else "PerkinElmer",
        model_name=first.says("InstrumentType"),
        software_versions=(software,) if software else (),
        acquired=_moment(tag_text(first.page, "DateTime")),
        barcode=barcode,
        description=text,
        properties=properties,
    )


def _properties(root: Element) -> Iterator[tuple[str, str]]:
    """Every text below the description by the path to it, in lower case; a path met again
    gets a number."""
    met: dict[str, int] = {}
    stack = [("", child) for child in reversed(root)]
    while stack and len(met) < MAX_PROPERTIES:
        above, element = stack.pop()
        path = f"{above}{local_name(element).lower()}"
        stack.extend((f"{path}.", child) for child in reversed(element))
        text = (element.text or "").strip()
        if text and not len(element):
            met[path] = met.get(path, 0) + 1
            yield (path if met[path] == 1 else f"{path}[{met[path]}]"), text


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text.strip(), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
