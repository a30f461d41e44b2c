# SPDX-License-Identifier: Apache-2.0
"""The XML in an SCN file's first ImageDescription: a collection of images, each with its
place on the glass and the pages of its pixels.

    scn > collection (sizeX, sizeY in nm; barcode; supplementalImage: type, ifd) > image
        pixels > dimension (sizeX, sizeY in pixels; r resolution, c channel, z plane, ifd)
        view (offsetX, offsetY, sizeX, sizeY, spacingZ in nm)
        creationDate, device (model, version)
        scanSettings > objectiveSettings > objective
                     > illuminationSettings > numericalAperture, illuminationSource
                     > channelSettings > channel (index, name, rgb)
                           > fluorescenceCube > excitationFilter, suppressionFilter
                           > exposureTime

Exposure times have no unit in the file; values such as 105000 can only be microseconds.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.etree.ElementTree import Element

from converters.errors import DamagedSlide
from converters.readers.tiff_pages import MAX_PAGES
from converters.readers.vendor_xml import base64_text, local_name, number, parse_xml, whole
from converters.slide import Illumination, OpticalPath

MAX_NM = 10**9  # a metre
MAX_IMAGES = 500
MAX_PROPERTIES = 5000
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_RGB = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})$")
_ILLUMINATION = {
    "fluorescence": Illumination.EPIFLUORESCENCE,
    "darkfield": Illumination.DARKFIELD,
    "brightfield": Illumination.BRIGHTFIELD,
}


@dataclass(frozen=True, slots=True)
class Dimension:
    """One plane of one resolution: ``page`` of the TIFF shows it."""

    rows: int
    columns: int
    resolution: int
    channel: int
    plane: int
    page: int


@dataclass(frozen=True)
class Image:
    """One scan. Sizes and offsets in nm are (down, across) from the collection's upper
    left corner. ``paths`` are its channels by index; "" as identifier."""

    name: str
    dimensions: Sequence[Dimension]
    offset_nm: tuple[int, int]
    size_nm: tuple[int, int]
    spacing_z_nm: int
    is_macro: bool
    illumination: Illumination
    paths: dict[int, OpticalPath]
    acquired: datetime | None
    model: str
    versions: tuple[str, ...]

    def path(self, channel: int) -> OpticalPath:
        """What is known of a channel; all channels share what is said of the scan."""
        return self.paths.get(channel, self.paths[-1])


@dataclass(frozen=True)
class Description:
    """``label_page`` is the page of the label's photograph, which few files have."""

    size_nm: tuple[int, int]
    barcode: str
    images: Sequence[Image]
    properties: dict[str, str]
    label_page: int | None = None


def parse_description(text: str) -> Description:
    """Raises DamagedSlide where images, their pages or sizes are not told."""
    root = parse_xml(text, "the description of the slide")
    collections = [child for child in root if local_name(child) == "collection"]
    if local_name(root) != "scn" or len(collections) != 1:
        raise DamagedSlide("the description of the slide lists no collection")
    (collection,) = collections
    size_nm = (_nanometres(collection, "sizeY", 1), _nanometres(collection, "sizeX", 1))
    found = [child for child in collection if local_name(child) == "image"]
    if not 0 < len(found) <= MAX_IMAGES:
        raise DamagedSlide("the description of the slide lists no images, or too many")
    coded = _text(collection, "barcode")
    labels = [
        whole(child.get("ifd"), 0, MAX_PAGES - 1)
        for child in collection
        if local_name(child) == "supplementalImage" and child.get("type", "").lower() == "label"
    ]
    return Description(
        size_nm,
        # only the later schema writes an element, and base64 into it
        base64_text(coded) if coded else collection.get("barcode", "").strip(),
        tuple(_image(child, size_nm) for child in found),
        dict(_flat(collection)),
        labels[0] if labels else None,
    )


def _image(element: Element, collection_nm: tuple[int, int]) -> Image:
    view, pixels = _child(element, "view"), _child(element, "pixels")
    if view is None or pixels is None:
        raise DamagedSlide("an image of the description has no pixels or no view")
    offset_nm = (_nanometres(view, "offsetY"), _nanometres(view, "offsetX"))
    size_nm = (_nanometres(view, "sizeY", 1), _nanometres(view, "sizeX", 1))
    dimensions = [_dimension(child) for child in pixels if local_name(child) == "dimension"]
    if not 0 < len(dimensions) <= MAX_PAGES:
        raise DamagedSlide("an image of the description has no dimensions, or too many")
    source = _text(element, "scanSettings", "illuminationSettings", "illuminationSource").lower()
    illumination = _ILLUMINATION.get(source, Illumination.BRIGHTFIELD)
    device = _child(element, "device")
    model, version = (device.get("model", ""), device.get("version", "")) if device is not None else ("", "")
    return Image(
        name=element.get("name", ""),
        dimensions=dimensions,
        offset_nm=offset_nm,
        size_nm=size_nm,
        spacing_z_nm=whole(view.get("spacingZ", "0"), 0, MAX_NM) or 0,
        is_macro=offset_nm == (0, 0) and size_nm == collection_nm,
        illumination=illumination,
        paths=_paths(element, illumination),
        acquired=_moment(_text(element, "creationDate")),
        model=model.split(";")[0].strip(),
        versions=tuple(dict.fromkeys(part.strip() for part in version.split(";") if part.strip())),
    )


def _dimension(element: Element) -> Dimension:
    values = [
        whole(element.get(name, default), lowest, highest)
        for name, default, lowest, highest in (
            ("sizeY", "", 1, 2**31 - 1),
            ("sizeX", "", 1, 2**31 - 1),
            ("r", "0", 0, 64),
            ("c", "0", 0, 1000),
            ("z", "0", 0, 1000),
            ("ifd", "", 0, MAX_PAGES - 1),
        )
    ]
    if None in values:
        raise DamagedSlide("a dimension of the description has impossible numbers")
    rows, columns, resolution, channel, plane, page = (value or 0 for value in values)
    return Dimension(rows, columns, resolution, channel, plane, page)


def _paths(element: Element, illumination: Illumination) -> dict[int, OpticalPath]:
    """Channels by their index; -1 is for one that is not described."""
    power = number(_text(element, "scanSettings", "objectiveSettings", "objective"))
    aperture = number(_text(element, "scanSettings", "illuminationSettings", "numericalAperture"))
    power, aperture = (
        value if value is not None and 0 < value < 1000 else None for value in (power, aperture)
    )
    paths = {
        -1: OpticalPath(
            identifier="", objective_power=power, numerical_aperture=aperture, illumination=illumination
        )
    }
    settings = _child(_child(element, "scanSettings"), "channelSettings")
    for channel in settings if settings is not None else ():
        index = whole(channel.get("index"), 0, 1000)
        if local_name(channel) != "channel" or index is None:
            continue
        cube = _child(channel, "fluorescenceCube")
        exposure_us = number(_text(channel, "exposureTime"))
        colour = _RGB.match(channel.get("rgb", ""))
        paths[index] = OpticalPath(
            identifier="",
            description=channel.get("name", ""),
            objective_power=power,
            numerical_aperture=aperture,
            illumination=illumination,
            excitation_nm=_centre_nm(_text(cube, "excitationFilter")),
            emission_nm=_centre_nm(_text(cube, "suppressionFilter")),
            exposure_ms=exposure_us / 1000 if exposure_us is not None and exposure_us > 0 else None,
            display_rgb=(int(colour[1], 16), int(colour[2], 16), int(colour[3], 16)) if colour else None,
        )
    return paths


def _centre_nm(text: str) -> float | None:
    """The middle of a filter such as "BP 405/60"."""
    found = _NUMBER.search(text)
    value = float(found[0]) if found else 0.0
    return value if 200 <= value <= 2000 else None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _nanometres(element: Element, name: str, lowest: int = -MAX_NM) -> int:
    value = whole(element.get(name), lowest, MAX_NM)
    if value is None:
        raise DamagedSlide("a size or place in the description is missing or impossible")
    return value


def _child(element: Element | None, name: str) -> Element | None:
    children = element if element is not None else ()
    return next((child for child in children if local_name(child) == name), None)


def _text(element: Element | None, *names: str) -> str:
    for name in names:
        element = _child(element, name)
    return (element.text or "").strip() if element is not None else ""


def _flat(collection: Element) -> Iterator[tuple[str, str]]:
    """Attributes and texts by their place: ``image[1].device.model``; pages left out."""
    left = MAX_PROPERTIES
    waiting = [("", collection)]
    while waiting and left > 0:
        prefix, element = waiting.pop()
        values = [(f"{prefix}{name}", value) for name, value in element.attrib.items()]
        text = (element.text or "").strip()
        if text:
            values.append((prefix.rstrip("."), text))
        for name, value in values:
            left -= 1
            yield name.lower(), value
        counts: dict[str, int] = {}
        inside = []
        for child in element:
            name = local_name(child)
            counts[name] = counts.get(name, 0) + 1
            if name != "dimension":
                repeated = name in ("image", "channel")
                inside.append((f"{prefix}{name}{f'[{counts[name] - 1}]' if repeated else ''}.", child))
        waiting.extend(reversed(inside))
