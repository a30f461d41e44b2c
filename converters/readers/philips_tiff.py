# SPDX-License-Identifier: Apache-2.0
"""Philips TIFF, the export of Philips' scanners (DP, UFS): a tiled BigTIFF whose first
ImageDescription is an XML tree of DICOM-like attributes, ``DataObject`` "DPUfsImport".

- Every level is written in whole tiles and its TIFF size includes the padding, so sizes
  of levels are not in proportion. How much a level is reduced follows from the pixel
  spacings in the XML (one PixelDataRepresentation for each level), and its true size from
  the finest level's: whole tiles beyond it are left out, tiles that it lacks are absent.
- Tiles outside of the scanned regions have offset and length 0; the scanner shows them
  white in the levels that it derives.
- The pixel size is that of the image (DICOM_PIXEL_SPACING of the "WSI" object, between
  rows first); the representations repeat it rounded.
- Label and macro are JPEG files in base64 in the XML, in some slides pages of the TIFF
  too ("Label...", "Macro..."). The barcode is base64.
- The place on the glass is not stated.

Sources: openslide.org/formats/philips; TIFF 6.0; the slides of openslide-testdata as
described by their readers.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import sniff
from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.probe import Probe
from converters.readers.left_out import unless_damaged
from converters.readers.tiff_pages import (
    MAX_ASSOCIATED_PIXELS,
    all_pages,
    container_rgb,
    first_page,
    is_copyable,
    opened,
    pixel_type,
    reference,
    tile_map,
)
from converters.readers.tiff_pyramid import side_image
from converters.readers.tile_grid import window
from converters.readers.vendor_xml import base64_bytes, base64_text, number, parse_xml, whole
from converters.slide import AssociatedImage, Level, OpticalPath, Role, Scan, Scene, Slide, SourceFile

if TYPE_CHECKING:
    import tifffile

ROOT = "DPUfsImport"
WHITE = (255, 255, 255)
_IMAGE_DATA = re.compile(r"(<Attribute\b[^>]*\bName=\"PIM_DP_IMAGE_DATA\"[^>]*>)[^<]*")
_LEVELS = re.compile(r"-levels=(\d{1,3}(?:\.\d+)?),")
_MOMENT = re.compile(r"(\d{14})(?:\.(\d{1,6}))?\s*(?:([+-])(\d\d)(\d\d))?$")
_ROLES = {"LABELIMAGE": Role.LABEL, "MACROIMAGE": Role.OVERVIEW}


class PhilipsTiffReader:
    """See :class:`converters.registry.Reader`."""

    format = "philips-tiff"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        page = first_page(probe)
        if isinstance(page, str):
            return page
        if not page.software.startswith("Philips"):
            return "Software does not start with 'Philips'"
        if ROOT not in page.description[:4096]:
            return f"ImageDescription has no {ROOT} object"
        if not page.is_tiled:
            return "the first page is not tiled"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
        return opened(probe, lambda tiff: _slide(tiff, probe))


@dataclass(frozen=True)
class _Words:
    """What the XML says: ``root`` of the import, ``images`` by their type (the first of each)."""

    root: dict[str, str]
    images: dict[str, Element]

    @property
    def wsi(self) -> dict[str, str]:
        return _attributes(self.images["WSI"])

    def says(self, name: str) -> str:
        """An attribute of the import, or else of the image."""
        return self.root.get(name) or self.wsi.get(name, "")


def _slide(tiff: "tifffile.TiffFile", probe: Probe) -> Slide:
    pages = all_pages(tiff)
    words = _words(pages[0].description)
    levels = _levels([page for page in pages if _is_level(page)], words, probe.size_bytes)
    icc = pages[0].tags.get(34675)
    power = _LEVELS.search(words.wsi.get("DICOM_DERIVATION_DESCRIPTION", ""))
    objective = number(power[1]) if power else None
    path = OpticalPath(
        # the first "level" may be another number, from 10,000 on
        objective_power=objective if objective and objective <= 200 else None,
        icc_profile=bytes(icc.value) if icc is not None else _icc(words),
    )
    acquired = _acquired(words.says("DICOM_ACQUISITION_DATETIME"))
    findings = ["the time of scanning is not stated"] if acquired is None else []
    return Slide(
        format=PhilipsTiffReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(Scene(0, levels, (path,)),),
        associated=_associated(words, pages, findings),
        scan=Scan(
            manufacturer=words.says("DICOM_MANUFACTURER"),
            model_name=words.says("DICOM_MANUFACTURERS_MODEL_NAME"),
            device_serial_number=words.says("DICOM_DEVICE_SERIAL_NUMBER"),
            software_versions=tuple(_items(words.says("DICOM_SOFTWARE_VERSIONS"))),
            acquired=acquired,
            barcode=base64_text(words.root.get("PIM_DP_UFS_BARCODE", "")),
            description=_IMAGE_DATA.sub(r"\1", pages[0].description),
            properties={name.lower(): text for name, text in {**words.wsi, **words.root}.items()},
        ),
        closer=tiff.close,
        findings=tuple(findings),
    )


def _words(description: str) -> _Words:
    root = parse_xml(description, "the description of the slide")
    if root.tag != "DataObject" or root.get("ObjectType") != ROOT:
        raise DamagedSlide(f"the description of the slide is no {ROOT} object")
    images: dict[str, Element] = {}
    for image in _objects(root, "PIM_DP_SCANNED_IMAGES"):
        images.setdefault(_attributes(image).get("PIM_DP_IMAGE_TYPE", ""), image)
    if "WSI" not in images:
        raise DamagedSlide("the description of the slide lists no image of the type WSI")
    return _Words(_attributes(root), images)


def _objects(parent: Element, name: str) -> Iterator[Element]:
    """The objects in the array of the attribute ``name``."""
    for attribute in parent.findall("Attribute"):
        if attribute.get("Name") == name:
            yield from attribute.findall("Array/DataObject")


def _attributes(parent: Element) -> dict[str, str]:
    """The object's own attributes that are texts, pictures and arrays left out."""
    return {
        attribute.get("Name", ""): attribute.text.strip()
        for attribute in parent.findall("Attribute")
        if len(attribute) == 0 and attribute.text and attribute.get("Name") != "PIM_DP_IMAGE_DATA"
    }


def _items(text: str) -> list[str]:
    """The items of a list such as ``"1.8" "2.0"``."""
    return re.findall(r'"([^"]*)"', text) if '"' in text else text.split()


def _is_level(page: "tifffile.TiffPage") -> bool:
    return page.is_tiled and not page.description.startswith(("Label", "Macro"))


def _spacing(text: str) -> tuple[float, float] | None:
    """(Between rows, between columns) in mm, where it can be a microscope's."""
    values = [number(item) for item in _items(text)]
    if len(values) != 2 or values[0] is None or values[1] is None:
        return None
    between_rows, between_columns = values[0], values[1]
    return (between_rows, between_columns) if 0 < between_rows < 1 and 0 < between_columns < 1 else None


def _downsamples(words: _Words, count: int) -> list[int]:
    """How much each level is reduced. Raises DamagedSlide where the XML does not tell."""
    listed = [
        _attributes(one) for one in _objects(words.images["WSI"], "PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE")
    ]
    numbers = [whole(one.get("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER"), 0, 64) for one in listed]
    if None not in numbers:
        listed = [one for _, one in sorted(zip(numbers, listed, strict=True), key=lambda item: item[0] or 0)]
    if len(listed) != count:
        raise DamagedSlide(f"the description lists {len(listed)} levels, the file holds {count}")
    spacings = [_spacing(one.get("DICOM_PIXEL_SPACING", "")) for one in listed]
    found: list[int] = []
    for spacing in spacings:
        if spacing is None or spacings[0] is None:
            raise DamagedSlide("the description does not state the pixel spacing of every level")
        # whole numbers: spacings have six digits
        found.append(round((spacing[0] / spacings[0][0] + spacing[1] / spacings[0][1]) / 2))
    if found[0] != 1 or any(later <= earlier for earlier, later in pairwise(found)):
        raise DamagedSlide("the pixel spacings of the levels do not grow")
    return found


def _levels(pages: Sequence["tifffile.TiffPage"], words: _Words, size_bytes: int) -> Sequence[Level]:
    spacing = _spacing(words.wsi.get("DICOM_PIXEL_SPACING", ""))
    method = words.wsi.get("DICOM_LOSSY_IMAGE_COMPRESSION_METHOD", "")
    ratio = words.wsi.get("DICOM_LOSSY_IMAGE_COMPRESSION_RATIO", "")
    finest = pages[0]
    levels: list[Level] = []
    for page, factor in zip(pages, _downsamples(words, len(pages)), strict=True):
        if not is_copyable(page):
            raise UnsupportedCompression(str(int(page.compression)), f"the tiles of page {page.index}")
        stored = tile_map(page, size_bytes)
        rows, columns = int(finest.imagelength) // factor, int(finest.imagewidth) // factor
        if not rows or not columns:
            raise DamagedSlide("a level is reduced to nothing")
        tile_rows, tile_columns = int(page.tilelength), int(page.tilewidth)
        grid = -(-int(page.imagelength) // tile_rows), -(-int(page.imagewidth) // tile_columns)
        size = -(-rows // tile_rows), -(-columns // tile_columns)
        if any(abs(have - want) > 1 for have, want in zip(grid, size, strict=True)):
            raise DamagedSlide(f"page {page.index} has another size than its pixel spacing says")
        part = window(grid, size)
        levels.append(
            Level(
                index=len(levels),
                rows=rows,
                columns=columns,
                tile_rows=tile_rows,
                tile_columns=tile_columns,
                tiles=part.tiles(stored),
                pixel_type=pixel_type(page),
                pixel_spacing_mm=(spacing[0] * factor, spacing[1] * factor) if spacing else None,
                downsample=float(factor),
                container_rgb=container_rgb(page),
                reference=part.reference(reference(page)),
                history=" ".join(_items(method) + _items(ratio)),
                absent_colour=WHITE,
            )
        )
    return tuple(levels)


def _icc(words: _Words) -> bytes:
    for attribute in words.images["WSI"].iter("Attribute"):
        if attribute.get("Name") == "DICOM_ICCPROFILE" and attribute.text:
            return base64_bytes(attribute.text) or b""
    return b""


def _associated(
    words: _Words, pages: Sequence["tifffile.TiffPage"], findings: list[str]
) -> Sequence[AssociatedImage]:
    found: dict[Role, AssociatedImage] = {}
    for kind, role in _ROLES.items():
        if kind not in words.images:
            continue
        for attribute in words.images[kind].findall("Attribute"):
            if attribute.get("Name") == "PIM_DP_IMAGE_DATA" and attribute.text and role not in found:
                for picture in unless_damaged(role, findings, partial(_picture, attribute.text, role)):
                    found[role] = picture
    for page in pages:
        role_of_page = {"Label": Role.LABEL, "Macro": Role.OVERVIEW}.get(page.description[:5])
        if role_of_page is not None and role_of_page not in found:
            side = side_image(page, role_of_page, findings)
            found |= {role_of_page: side} if side is not None else {}
    return tuple(found.values())


def _picture(text: str, role: Role) -> AssociatedImage:
    """An image of the XML: a whole JPEG file."""
    what = f"the {role.value.lower()} image"
    data = base64_bytes(text)
    if data is None:
        raise DamagedSlide(f"{what} is not base64")
    head = sniff(data)
    if head.format != "jpeg" or not head.head_complete:
        raise DamagedSlide(f"{what} is no JPEG")
    if head.bits != 8 or head.components not in (1, 3):
        raise UnsupportedPixels(f"{what} is not of 8-bit grey or RGB pixels")
    if not 0 < head.rows * head.columns <= MAX_ASSOCIATED_PIXELS:
        raise DamagedSlide(f"{what} has an impossible size")
    return AssociatedImage(
        role=role,
        rows=head.rows,
        columns=head.columns,
        read=partial(_decoded, data, (head.rows, head.columns, head.components), what),
        compression="JPEG",
        lossy_method="ISO_10918_1",
        encoded_bytes=len(data),
        codestream=data,
    )


def _decoded(data: bytes, shape: tuple[int, int, int], what: str) -> NDArray[np.uint8]:
    try:
        pixels: NDArray[np.uint8] = imagecodecs.jpeg8_decode(data)
        return pixels.reshape(shape)
    except Exception as error:  # whatever a decoder raises: all mean damaged data
        raise DamagedSlide(f"{what} cannot be decoded") from error


def _acquired(text: str) -> datetime | None:
    """A DICOM DT; it has a zone only where that is stated."""
    found = _MOMENT.match(text.strip())
    if found is None:
        return None
    zone = None
    if found[3]:
        offset = timedelta(hours=int(found[4]), minutes=int(found[5]))
        if offset > timedelta(hours=14):
            return None
        zone = timezone(offset if found[3] == "+" else -offset) if offset else UTC
    try:
        moment = datetime.strptime(found[1], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return moment.replace(microsecond=int((found[2] or "0").ljust(6, "0")), tzinfo=zone)
