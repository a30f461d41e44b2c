# SPDX-License-Identifier: Apache-2.0
"""The XML of Zeiss CZI, as far as DICOM has a place for it. Below ImageDocument/Metadata:

    Information/Image       AcquisitionDateAndTime; Dimensions/Channels/Channel[n] (Name, Fluor,
                            wavelengths in nm, ExposureTime in ns, Color #AARRGGBB, ContrastMethod,
                            IlluminationType); Dimensions/{Z,T}/Positions (Interval or a list of
                            Offsets; µm, s); Dimensions/S/Scenes/Scene[Index, Name]
    Information/Instrument  Microscopes/Microscope, Objectives/Objective (NominalMagnification, LensNA)
    Information/Application Name, Version
    Scaling/Items/Distance  Id X, Y, Z; Value in metres per pixel, 0 where it is not known
    AttachmentInfos         the label's barcodes

ZEN, AIM and pylibCZIrw fill in different parts of it.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from converters.errors import DamagedSlide
from converters.slide import Illumination, OpticalPath

MANUFACTURER = "Carl Zeiss Microscopy"
MAX_PROPERTIES = 5000
MAX_VALUE = 1000
MAX_DEPTH = 40
_ZEISS = re.compile(r"\b(ZEN|AIM\w*|Axio\w*|LSM|Celldiscoverer|Elyra|Lightsheet)\b", re.IGNORECASE)
_NOT_FLUORESCENT = {
    "brightfield": Illumination.BRIGHTFIELD,
    "transmitted": Illumination.BRIGHTFIELD,
    "phase": Illumination.PHASE_CONTRAST,
    "dic": Illumination.DIFFERENTIAL_INTERFERENCE_CONTRAST,
    "darkfield": Illumination.DARKFIELD,
}
_PROPERTIES = ("Information", "Scaling", "CustomAttributes", "AttachmentInfos")


@dataclass(frozen=True)
class CziMetadata:
    """Empty or None: the XML does not say. Channels in the order of the C dimension."""

    manufacturer: str = ""
    model_name: str = ""
    software: str = ""
    serial_number: str = ""
    acquired: datetime | None = None
    barcode: str = ""
    pixel_spacing_mm: tuple[float, float] | None = None  # (between rows, between columns)
    plane_distance_um: float | None = None  # below 0 where the stack goes down
    time_offsets_s: Sequence[float] = ()
    first_time: datetime | None = None
    pyramid_is_stale: bool = False
    channels: Sequence[OpticalPath] = ()
    component_bits: Sequence[int] = ()  # of each channel, 0 unknown
    objective_power: float | None = None
    numerical_aperture: float | None = None
    scene_names: dict[int, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)


def read_metadata_xml(xml: bytes) -> CziMetadata:
    """Raises DamagedSlide for what is no XML, or XML with a DTD."""
    text = xml.rstrip(b"\0 \r\n")
    if not text:
        return CziMetadata()
    try:
        root = defusedxml.ElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DamagedSlide("the metadata XML is damaged") from error
    metadata = root.find("Metadata")
    if metadata is None:
        return CziMetadata()
    image = _first(metadata, "Information/Image")
    microscope = _first(metadata, "Information/Instrument/Microscopes/Microscope")
    model = microscope.get("Name") or _text(microscope, "System")
    software = " ".join(
        filter(None, (_text(metadata, f"Information/Application/{n}") for n in ("Name", "Version")))
    )
    power, aperture = _objective(metadata, image)
    channels = _channels(metadata, image, power, aperture)
    return CziMetadata(
        manufacturer=MANUFACTURER if _ZEISS.search(f"{model} {software}") else "",
        model_name=model,
        software=software[:64],
        serial_number=microscope.get("SerialNumber") or _text(microscope, "SerialNumber"),
        acquired=_time(_text(image, "AcquisitionDateAndTime"))
        or _time(_text(metadata, "Information/Document/CreationDate")),
        barcode=_barcode(metadata),
        pixel_spacing_mm=_spacing(metadata),
        plane_distance_um=_plane_distance(metadata, image),
        time_offsets_s=_numbers(_text(image, "Dimensions/T/Positions/List/Offsets")),
        first_time=_time(_text(image, "Dimensions/T/StartTime")),
        pyramid_is_stale=_text(metadata, "CustomAttributes/NeedsPyramidRecalculation").lower() == "true",
        channels=tuple(path for path, _ in channels),
        component_bits=tuple(bits for _, bits in channels),
        objective_power=power,
        numerical_aperture=aperture,
        scene_names=_scene_names(image),
        properties=dict(_flat(metadata)),
    )


def _first(parent: Any, path: str) -> Any:
    """The element, or an empty one."""
    found = parent.find(path)
    return parent.makeelement("None", {}) if found is None else found


def _text(parent: Any, path: str) -> str:
    return (parent.findtext(path) or "").strip()[:MAX_VALUE]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(text: str) -> tuple[float, ...]:
    values = [_number(part) for part in text.split()]
    return tuple(value for value in values if value is not None) if None not in values else ()


def _positive(text: str) -> float | None:
    value = _number(text)
    return value if value is not None and value > 0 else None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _distance_m(metadata: Any, axis: str) -> float | None:
    return _positive(_text(metadata, f"Scaling/Items/Distance[@Id='{axis}']/Value"))


def _spacing(metadata: Any) -> tuple[float, float] | None:
    rows, columns = _distance_m(metadata, "Y"), _distance_m(metadata, "X")
    if rows is None or columns is None or max(rows, columns) > 0.001:
        return None
    return float(f"{rows * 1000:.12g}"), float(f"{columns * 1000:.12g}")


def _plane_distance(metadata: Any, image: Any) -> float | None:
    step = _number(_text(image, "Dimensions/Z/Positions/Interval/Increment"))
    offsets = _numbers(_text(image, "Dimensions/Z/Positions/List/Offsets"))
    if not step and len(offsets) > 1:
        step = (offsets[-1] - offsets[0]) / (len(offsets) - 1)
    scaling = _distance_m(metadata, "Z")
    if scaling is not None:
        return math.copysign(scaling * 1e6, step or 1)
    return step or None


def _objective(metadata: Any, image: Any) -> tuple[float | None, float | None]:
    """(Magnification, numerical aperture) of the objective that the image refers to, or of
    the only one."""
    all_of_them = metadata.findall("Information/Instrument/Objectives/Objective")
    reference = _first(image, "ObjectiveSettings/ObjectiveRef").get("Id")
    chosen = [one for one in all_of_them if one.get("Id") == reference]
    if not chosen and len(all_of_them) == 1:
        chosen = all_of_them
    if not chosen:
        return None, None
    return _positive(_text(chosen[0], "NominalMagnification")), _positive(_text(chosen[0], "LensNA"))


def _channels(
    metadata: Any, image: Any, power: float | None, aperture: float | None
) -> list[tuple[OpticalPath, int]]:
    channels = image.findall("Dimensions/Channels/Channel")
    displays = metadata.findall("DisplaySetting/Channels/Channel")
    shown = {one.get("Id"): one for one in displays}
    in_order = displays if len(displays) == len(channels) else [_first(image, "None")] * len(channels)
    found = []
    for number, channel in enumerate(channels):
        display = shown.get(channel.get("Id"), in_order[number])
        exposure = _positive(_text(channel, "ExposureTime"))
        name = channel.get("Name") or display.get("Name") or ""
        path = OpticalPath(
            identifier=str(number + 1),
            description=name[:64],
            objective_power=power,
            numerical_aperture=aperture,
            illumination=_illumination(channel, name),
            excitation_nm=_positive(_text(channel, "ExcitationWavelength")),
            emission_nm=_positive(_text(channel, "EmissionWavelength")),
            exposure_ms=exposure / 1e6 if exposure else None,
            fluorophore=_fluorophore(channel, display),
            display_rgb=_colour(_text(display, "Color") or _text(channel, "Color")),
        )
        bits = _positive(_text(channel, "ComponentBitCount") or _text(image, "ComponentBitCount"))
        found.append((path, int(bits) if bits and bits <= 64 else 0))
    return found


def _fluorophore(channel: Any, display: Any) -> str:
    dye = _text(channel, "Fluor") or _text(channel, "DyeName") or _text(display, "DyeName")
    return "" if _illumination(channel, dye) is Illumination.BRIGHTFIELD else dye[:64]


def _illumination(channel: Any, name: str) -> Illumination:
    """By the contrast method, then by the light, then by the name ("TL DIC"). A channel that
    says nothing is fluorescence: cameras without colour look at little else."""
    for words in (_text(channel, "ContrastMethod"), _text(channel, "IlluminationType"), name):
        lowered = words.lower()
        if "fluor" in lowered:
            return Illumination.EPIFLUORESCENCE
        for word, illumination in _NOT_FLUORESCENT.items():
            if word in lowered:
                return illumination
    return Illumination.EPIFLUORESCENCE


def _colour(text: str) -> tuple[int, int, int] | None:
    match = re.fullmatch(r"#(?:[0-9a-fA-F]{2})?([0-9a-fA-F]{6})", text)
    if match is None:
        return None
    red, green, blue = bytes.fromhex(match.group(1))
    return red, green, blue


def _scene_names(image: Any) -> dict[int, str]:
    names = {}
    for scene in image.findall("Dimensions/S/Scenes/Scene"):
        index = _number(scene.get("Index") or "")
        if index is not None and scene.get("Name"):
            names[int(index)] = str(scene.get("Name"))[:64]
    return names


def _barcode(metadata: Any) -> str:
    for barcode in metadata.iterfind("AttachmentInfos//Barcode"):
        for value in (_text(barcode, "Content"), _text(barcode, "Value"), (barcode.text or "").strip()):
            if value:
                return value
    return ""


def _flat(metadata: Any) -> Iterator[tuple[str, str]]:
    """Every value of the parts that describe the image, not the experiment: lower-case keys,
    "information.image.dimensions.channels.channel.2.fluor" for the second of its name."""
    count = 0
    for part in _PROPERTIES:
        top = metadata.find(part)
        stack = [] if top is None else [(part.lower(), top, 1)]
        while stack and count < MAX_PROPERTIES:
            key, element, depth = stack.pop()
            values = {f"{key}.{name.lower()}": value for name, value in element.attrib.items()}
            values[key] = (element.text or "").strip()
            for name, value in values.items():
                if value:
                    count += 1
                    yield name, value[:MAX_VALUE]
            seen: dict[str, int] = {}
            below = []
            for child in element if depth < MAX_DEPTH else ():
                name = str(child.tag).lower()
                seen[name] = seen.get(name, 0) + 1
                number = f".{seen[name]}" if seen[name] > 1 else ""
                below.append((f"{key}.{name}{number}", child, depth + 1))
            stack += reversed(below)


def time_of(metadata: CziMetadata, index: int, stamps_s: Sequence[float]) -> datetime | None:
    """When time point ``index`` was taken; ``stamps_s`` are those of the attachment."""
    offsets = metadata.time_offsets_s if len(metadata.time_offsets_s) > index else stamps_s
    if metadata.first_time is None or len(offsets) <= index:
        return None
    try:
        return metadata.first_time + timedelta(seconds=offsets[index] - offsets[0])
    except (OverflowError, ValueError):
        return None
