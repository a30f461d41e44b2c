# SPDX-License-Identifier: Apache-2.0
"""OME-XML: what an OME-TIFF says of its images, channels, planes and instrument.

Namespaces of all editions (2003 to 2016) are taken alike. Lengths come in micrometres,
times in milliseconds or seconds, wavelengths in nanometres, by the units of the 2016
edition, whose defaults are those of the editions before.

Source: the OME data model and file formats, 2016-06 (ome-model.readthedocs.io).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from xml.etree.ElementTree import Element

from converters.errors import DamagedSlide
from converters.readers.vendor_xml import local_name, number, parse_xml, whole

DIMENSION_ORDERS = frozenset(("XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"))
MAX_IMAGES, MAX_PLANES, MAX_PROPERTIES = 1000, 1_000_000, 4000
LENGTHS_UM = {
    "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6,
    "pm": 1e-6, "in": 25400.0, "thou": 25.4,
}  # fmt: skip
"""Units that are lengths ("pixel" and "reference frame" are none) -> micrometres."""
TIMES_MS = {"ns": 1e-6, "µs": 1e-3, "μs": 1e-3, "us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6}


@dataclass(frozen=True, slots=True)
class OmeChannel:
    """A Channel; ``samples`` are its samples per pixel, ``rgb`` the colour to show it in."""

    name: str = ""
    samples: int = 1
    fluor: str = ""
    excitation_nm: float | None = None
    emission_nm: float | None = None
    rgb: tuple[int, int, int] | None = None
    illumination: str = ""
    contrast: str = ""


@dataclass(frozen=True, slots=True)
class TiffData:
    """Where planes lie: ``ifd`` None is the first page, ``count`` None all that follow.
    ``file_name`` "" is this file."""

    ifd: int | None = None
    count: int | None = None
    first_z: int = 0
    first_c: int = 0
    first_t: int = 0
    file_name: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class OmePlane:
    z: int
    c: int
    t: int
    exposure_ms: float | None = None
    delta_s: float | None = None
    position_um: float | None = None  # PositionZ


@dataclass(frozen=True, eq=False)
class OmeImage:
    """An Image with its Pixels. ``sizes`` are (Z, channels, T); a channel may be of
    several samples."""

    name: str
    acquired: datetime | None
    rows: int
    columns: int
    sizes: tuple[int, int, int]
    samples: int
    order: str
    type: str
    spacing_um: tuple[float | None, float | None, float | None]  # rows, columns, planes
    channels: Sequence[OmeChannel]
    data: Sequence[TiffData]
    planes: Sequence[OmePlane]
    magnification: float | None = None
    numerical_aperture: float | None = None
    manufacturer: str = ""
    model_name: str = ""
    device_serial_number: str = ""


@dataclass(frozen=True, eq=False)
class OmeDocument:
    creator: str
    uuid: str
    images: Sequence[OmeImage]
    metadata_file: str = ""  # BinaryOnly: the document is in this file
    text: str = ""
    properties: dict[str, str] = field(default_factory=dict)


def parse_ome(text: str) -> OmeDocument:
    """Raises DamagedSlide for what is no OME-XML, or contradicts itself."""
    root = parse_xml(text, "the OME-XML")
    if local_name(root) != "OME":
        raise DamagedSlide("the OME-XML has no OME element")
    binary_only = next(_children(root, "BinaryOnly"), None)
    elements = list(_children(root, "Image"))
    if len(elements) > MAX_IMAGES:
        raise DamagedSlide(f"more than {MAX_IMAGES} images")
    instruments = {element.get("ID", ""): element for element in _children(root, "Instrument")}
    return OmeDocument(
        creator=root.get("Creator", ""),
        uuid=root.get("UUID", ""),
        images=tuple(_image(element, instruments) for element in elements),
        metadata_file=binary_only.get("MetadataFile", "") if binary_only is not None else "",
        text=text,
        properties=dict(_properties(root)),
    )


def _children(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if local_name(child) == name)


def _child(parent: Element, name: str) -> Element | None:
    return next(_children(parent, name), None)


def _image(element: Element, instruments: dict[str, Element]) -> OmeImage:
    pixels = _child(element, "Pixels")
    if pixels is None:
        raise DamagedSlide("an image of the OME-XML has no Pixels")
    order = pixels.get("DimensionOrder", "XYCZT")
    if order not in DIMENSION_ORDERS:
        raise DamagedSlide("the OME-XML has an impossible DimensionOrder")
    columns, rows, depth, size_c, times = (
        whole(pixels.get(f"Size{axis}"), 1, 2**31 - 1) for axis in ("X", "Y", "Z", "C", "T")
    )
    if columns is None or rows is None or depth is None or size_c is None or times is None:
        raise DamagedSlide("the OME-XML has an impossible image size")
    if depth * size_c * times > MAX_PLANES:
        raise DamagedSlide(f"an image of more than {MAX_PLANES} planes")
    channels = _channels(pixels, size_c)
    instrument = _instrument(element, instruments)
    microscope = _child(instrument, "Microscope") if instrument is not None else None
    objective = _objective(element, instrument)
    made_by = microscope.attrib if microscope is not None else {}
    lens = objective.attrib if objective is not None else {}
    return OmeImage(
        name=element.get("Name", ""),
        acquired=_moment(element),
        rows=rows,
        columns=columns,
        sizes=(depth, len(channels), times),
        samples=channels[0].samples,
        order=order,
        type=pixels.get("Type", ""),
        spacing_um=(_length(pixels, "Y"), _length(pixels, "X"), _length(pixels, "Z")),
        channels=channels,
        data=tuple(_tiff_data(child) for child in _children(pixels, "TiffData")),
        planes=tuple(_planes(pixels)),
        magnification=_positive(lens.get("NominalMagnification")),
        numerical_aperture=_positive(lens.get("LensNA")),
        manufacturer=made_by.get("Manufacturer", "").strip(),
        model_name=made_by.get("Model", "").strip(),
        device_serial_number=made_by.get("SerialNumber", "").strip(),
    )


def _positive(text: str | None) -> float | None:
    value = number(text)
    return value if value and value > 0 else None


def _length(pixels: Element, axis: str) -> float | None:
    value = _positive(pixels.get(f"PhysicalSize{axis}"))
    unit = LENGTHS_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return value * unit if value is not None and unit is not None else None


def _moment(image: Element) -> datetime | None:
    element = _child(image, "AcquisitionDate")
    if element is None:
        element = _child(image, "CreationDate")  # editions before 2012
    try:
        found = datetime.fromisoformat(((element.text if element is not None else "") or "").strip())
    except ValueError:
        return None
    return found if found > datetime(1970, 1, 2, tzinfo=UTC if found.tzinfo else None) else None


def _channels(pixels: Element, size_c: int) -> tuple[OmeChannel, ...]:
    found = [_channel(element) for element in _children(pixels, "Channel")]
    if not found:
        return (OmeChannel(),) * size_c
    samples = {channel.samples for channel in found}
    if len(samples) > 1 or len(found) * found[0].samples != size_c:
        # files of early writers leave SamplesPerPixel, or channels, out
        if len(samples) == 1 and size_c % len(found) == 0:
            spread = size_c // len(found)
            return tuple(replace(channel, samples=spread) for channel in found)
        raise DamagedSlide("the channels of the OME-XML do not add up to SizeC")
    return tuple(found)


def _channel(element: Element) -> OmeChannel:
    return OmeChannel(
        name=(element.get("Name") or "").strip(),
        samples=whole(element.get("SamplesPerPixel"), 1, 256) or 1,
        fluor=(element.get("Fluor") or "").strip(),
        excitation_nm=_wavelength(element, "ExcitationWavelength"),
        emission_nm=_wavelength(element, "EmissionWavelength"),
        rgb=_colour(element.get("Color")),
        illumination=element.get("IlluminationType", ""),
        contrast=element.get("ContrastMethod", ""),
    )


def _wavelength(element: Element, name: str) -> float | None:
    value = _positive(element.get(name))
    unit = LENGTHS_UM.get(element.get(f"{name}Unit", "nm"))
    return round(value * unit * 1000, 6) if value is not None and unit is not None else None


def _colour(text: str | None) -> tuple[int, int, int] | None:
    """Signed 32 bits of red, green, blue, alpha."""
    value = whole(text, -(2**31), 2**32 - 1)
    if value is None:
        return None
    red, green, blue, _ = (value % 2**32).to_bytes(4, "big")
    return red, green, blue


def _tiff_data(element: Element) -> TiffData:
    values = {}
    for name in ("IFD", "PlaneCount", "FirstZ", "FirstC", "FirstT"):
        text = element.get(name)
        values[name] = whole(text, 0, 2**31 - 1)
        if text is not None and values[name] is None:
            raise DamagedSlide(f"the OME-XML has an impossible {name}")
    uuid = _child(element, "UUID")
    return TiffData(
        ifd=values["IFD"],
        count=values["PlaneCount"],
        first_z=values["FirstZ"] or 0,
        first_c=values["FirstC"] or 0,
        first_t=values["FirstT"] or 0,
        file_name=uuid.get("FileName", "") if uuid is not None else "",
        uuid=((uuid.text if uuid is not None else "") or "").strip(),
    )


def _planes(pixels: Element) -> Iterator[OmePlane]:
    for element in _children(pixels, "Plane"):
        z, c, t = (whole(element.get(name), 0, 2**31 - 1) for name in ("TheZ", "TheC", "TheT"))
        if z is None or c is None or t is None:
            continue
        delta = _time(element, "DeltaT")
        position = number(element.get("PositionZ"))
        unit = LENGTHS_UM.get(element.get("PositionZUnit", "reference frame"))
        yield OmePlane(
            z=z,
            c=c,
            t=t,
            exposure_ms=_time(element, "ExposureTime"),
            delta_s=delta / 1000 if delta is not None else None,
            position_um=position * unit if position is not None and unit is not None else None,
        )


def _time(element: Element, name: str) -> float | None:
    """In milliseconds."""
    value = number(element.get(name))
    unit = TIMES_MS.get(element.get(f"{name}Unit", "s"))
    if value is None or unit is None or value < 0:
        return None
    return value * unit if math.isfinite(value * unit) else None


def _instrument(image: Element, instruments: dict[str, Element]) -> Element | None:
    reference = _child(image, "InstrumentRef")
    if reference is not None:
        return instruments.get(reference.get("ID", ""))
    return next(iter(instruments.values())) if len(instruments) == 1 else None


def _objective(image: Element, instrument: Element | None) -> Element | None:
    if instrument is None:
        return None
    objectives = list(_children(instrument, "Objective"))
    for name in ("ObjectiveSettings", "ObjectiveRef"):
        reference = _child(image, name)
        if reference is not None:
            wanted = reference.get("ID", "")
            return next((one for one in objectives if one.get("ID") == wanted), None)
    return objectives[0] if len(objectives) == 1 else None


def _properties(root: Element) -> Iterator[tuple[str, str]]:
    """Attributes and texts by the path to them, in lower case, places and planes left out;
    what annotations say as key and value, under the key."""
    met: dict[str, int] = {}

    def named(path: str, text: str) -> tuple[str, str]:
        met[path] = met.get(path, 0) + 1
        return (path if met[path] == 1 else f"{path}[{met[path]}]"), text

    stack = [("", root)]
    while stack and sum(met.values()) < MAX_PROPERTIES:
        above, element = stack.pop()
        name = local_name(element)
        if name in ("TiffData", "Plane", "BinData"):
            continue
        key, value = _child(element, "Key"), _child(element, "Value")
        if key is not None and value is not None and key.text:
            yield named(key.text.strip().lower(), (value.text or "").strip())
            continue
        path = f"{above}{name.lower()}"
        if name == "M" and element.get("K"):
            path = str(element.get("K")).lower()
        else:
            for attribute, text in element.attrib.items():
                if not attribute.startswith("{"):
                    yield named(f"{path}.{attribute.lower()}", text)
        if (element.text or "").strip():
            yield named(path, (element.text or "").strip())
        stack.extend((f"{path}.", child) for child in reversed(element))
