# SPDX-License-Identifier: Apache-2.0
"""What the header of a received whole slide image says, as far as it can be believed.

A header is read once: text turned to UTF-8, values that their VR does not allow left out
and named. What a slide's other fields do not hold (patient, study, specimen, equipment,
optical paths) is handed to the writer as it is (``Level.known``); what belongs to the
received instance alone (its UIDs, its references, private elements) is not.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from pydicom import Dataset
from pydicom.dataelem import DataElement

from archive.part10.bulk import BulkValue, split_path
from archive.part10.errors import Part10Error
from archive.part10.recode import recode_to_utf8
from archive.part10.scan import ScannedFile
from converters.errors import DamagedSlide
from converters.readers.encoded_tiles import read_range
from converters.slide import Illumination, OpticalPath, Orientation, Scan
from converters.writer.optical_path import ILLUMINATION

PER_FRAME = 0x52009230
MAX_BULK_BYTES = 16 << 20  # an ICC profile, not a dictionary
MAX_DEPTH = 32
WHOLE_GROUPS = frozenset((0x0008, 0x0010, 0x0012, 0x0018, 0x0032, 0x0038, 0x0040, 0x0400))
"""Groups whose elements the writer takes over, but for some."""
SAID_OTHERWISE = frozenset((0x0020, 0x0028, 0x0048, 0x2200, 0x5200, 0x7FE0))
"""Groups whose elements it makes anew or takes over one by one."""


@dataclass(frozen=True, eq=False)
class Header:
    """A data set whose values are all of their VR, without private elements and without
    the functional groups of single frames, which are ``groups``: their bytes in normal
    form (b"" without). ``left_out`` names what was not valid, ``private`` what is a
    maker's own, as texts."""

    dataset: Dataset
    groups: bytes
    left_out: tuple[str, ...]
    private: dict[str, str]


def read_header(scanned: ScannedFile, path: Path) -> Header:
    """The header of the file ``path``, scanned. Raises DamagedSlide."""
    source = scanned.dataset
    frames = source.get_item(PER_FRAME) if PER_FRAME in source else None
    groups = frames.value if frames is not None and isinstance(frames.value, bytes) else b""
    left_out: dict[str, None] = {}
    private: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of character sets: recoding does what can be done
        chosen = Dataset()
        chosen.update({tag: source.get_item(tag) for tag in source.keys() if tag < PER_FRAME})  # noqa: SIM118
        for value in scanned.bulk:
            if not value.is_pixel_data and not _insert(chosen, value, path):
                left_out["a value above 64 KiB"] = None
        try:
            text = recode_to_utf8(chosen)
        except Part10Error as error:
            raise DamagedSlide(str(error)) from error
        warnings.simplefilter("error")  # of values that their VR does not allow
        kept = _valid(text, left_out, private, MAX_DEPTH)
    return Header(kept, groups, tuple(left_out), private)


def _insert(into: Dataset, value: BulkValue, path: Path) -> bool:
    """Put a large binary value back where it belongs; False for what is not wanted."""
    *way, last = split_path(value.path)
    if not way or value.vr not in ("OB", "OW", "UN") or value.length > MAX_BULK_BYTES:
        return False
    here = into
    try:
        for tag, item in zip(way[::2], way[1::2], strict=True):
            here = here[tag].value[item]
        data = read_range(path, value.offset, value.length)
    except (LookupError, TypeError, AttributeError):
        return False
    here[last] = DataElement(last, "OB", data)
    return True


def _valid(source: Dataset, left_out: dict[str, None], private: dict[str, str], depth: int) -> Dataset:
    kept = Dataset()
    for tag in sorted(source.keys()):
        try:
            element = source[tag]
            if tag.is_private or not element.keyword:
                if depth == MAX_DEPTH and len(private) < 1000:
                    private[f"({tag.group:04x},{tag.element:04x})"] = _as_text(element)
                continue
            if element.VR == "SQ":
                if depth > 0:
                    items = [_valid(item, left_out, private, depth - 1) for item in element.value or ()]
                    kept.add(DataElement(tag, "SQ", items))
                continue
            kept.add(DataElement(tag, element.VR, element.value))
        except Exception:  # noqa: BLE001  pydicom raises, or warns of, whatever it finds
            left_out[_name(source, int(tag))] = None
    return kept


def _name(source: Dataset, tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or "an element of the maker's"


def _as_text(element: DataElement) -> str:
    if element.VR in ("SQ", "OB", "OW", "UN", "OF", "OD"):
        return ""
    return str(element.value)[:1024]


# ---- what it says -------------------------------------------------------------------


def text_of(source: Dataset, keyword: str) -> str:
    value = source.get(keyword)
    if value is None:
        return ""
    return (
        "\\".join(map(str, value))
        if not isinstance(value, str) and hasattr(value, "__iter__")
        else str(value)
    ).strip()


def numbers_of(source: Dataset, keyword: str) -> tuple[float, ...]:
    """The values as numbers, () where there are none or one is none."""
    value = source.get(keyword)
    values = [] if value is None else [value] if isinstance(value, (str, int, float)) else list(value)
    try:
        return tuple(float(one) for one in values)
    except (TypeError, ValueError, OverflowError):
        return ()


def integer_of(source: Dataset, keyword: str) -> int:
    """The value, 0 where it is absent or no number."""
    values = numbers_of(source, keyword)
    return int(values[0]) if len(values) == 1 and abs(values[0]) < 1 << 53 else 0


def item_of(source: Dataset, *keywords: str) -> Dataset:
    """The first item of a sequence (of a sequence in it, …), an empty one where there is none."""
    for keyword in keywords:
        items = source.get(keyword)
        source = items[0] if items else Dataset()
    return source


def image_kind(header: Dataset) -> tuple[str, ...]:
    """Image Type (PS3.3 C.8.12.4.1.1), () where it is not of the kind that slides have."""
    value = header.get("ImageType")
    kinds = tuple(str(one) for one in value) if value and not isinstance(value, str) else ()
    return kinds[:4] if len(kinds) >= 3 else ()


def spacing_mm(header: Dataset, rows: int, columns: int) -> tuple[tuple[float, float] | None, bool]:
    """Pixel Spacing (between rows, between columns), and whether it had to be taken from
    the Imaged Volume's size."""
    measures = item_of(header, "SharedFunctionalGroupsSequence", "PixelMeasuresSequence")
    found = numbers_of(measures, "PixelSpacing")
    if len(found) == 2 and all(1e-6 < value < 10 for value in found):
        return (found[0], found[1]), False
    size = [*numbers_of(header, "ImagedVolumeHeight"), *numbers_of(header, "ImagedVolumeWidth")]
    if len(size) == 2 and all(
        1e-6 < value / count < 1 for value, count in zip(size, (rows, columns), strict=True)
    ):
        return (size[0] / rows, size[1] / columns), True
    return None, False


def origin_mm(header: Dataset) -> tuple[float, float] | None:
    item = item_of(header, "TotalPixelMatrixOriginSequence")
    found = [
        *numbers_of(item, "XOffsetInSlideCoordinateSystem"),
        *numbers_of(item, "YOffsetInSlideCoordinateSystem"),
    ]
    return (found[0], found[1]) if len(found) == 2 and all(abs(value) < 1000 for value in found) else None


def orientation(header: Dataset) -> Orientation | None:
    """Image Orientation (Slide), None where it is absent or no two directions."""
    found = numbers_of(header, "ImageOrientationSlide")
    if len(found) != 6:
        return None
    lengths = [sum(value * value for value in found[at : at + 3]) for at in (0, 3)]
    across = sum(one * other for one, other in zip(found[:3], found[3:], strict=True))
    if abs(across) > 1e-3 or any(abs(length - 1) > 1e-3 for length in lengths):
        return None
    x, y, z, u, v, w = found
    return (x, y, z, u, v, w)


def plane_heights_um(header: Dataset, planes: int) -> tuple[float | None, ...]:
    """Heights of the focal planes of a TILED_FULL image; one may be unknown, of several
    either all or none."""
    lowest = numbers_of(item_of(header, "TotalPixelMatrixOriginSequence"), "ZOffsetInSlideCoordinateSystem")
    if planes == 1:
        return (lowest[0],) if lowest else (None,)
    measures = item_of(header, "SharedFunctionalGroupsSequence", "PixelMeasuresSequence")
    step_mm = numbers_of(measures, "SpacingBetweenSlices")
    if len(step_mm) != 1 or not 0 < step_mm[0] < 10:
        return (None,) * planes
    return tuple((lowest[0] if lowest else 0.0) + number * step_mm[0] * 1000 for number in range(planes))


def path_identifiers(header: Dataset, number: int) -> tuple[str, ...]:
    """Optical Path Identifiers; counted where there are fewer than paths."""
    items = header.get("OpticalPathSequence") or ()
    found = [text_of(item, "OpticalPathIdentifier") for item in items]
    found += [""] * (number - len(found))
    named = [name or str(at) for at, name in enumerate(found[: max(number, 1)], 1)]
    return tuple(named) if len(set(named)) == len(named) else tuple(str(at + 1) for at in range(len(named)))


def optical_paths(headers: Sequence[Dataset], identifiers: Sequence[str]) -> tuple[OpticalPath, ...]:
    """The paths of these identifiers, from the first header that describes each."""
    described: dict[str, Dataset] = {}
    for header in headers:
        items = header.get("OpticalPathSequence") or ()
        for name, item in zip(path_identifiers(header, len(items)), items, strict=False):
            described.setdefault(name, item)
    return tuple(_optical_path(name, described.get(name, Dataset())) for name in identifiers)


_ILLUMINATION = {code.value: kind for kind, code in ILLUMINATION.items()}


def _optical_path(identifier: str, item: Dataset) -> OpticalPath:
    def one(keyword: str) -> float | None:
        found = numbers_of(item, keyword)
        return found[0] if len(found) == 1 and found[0] > 0 else None

    code = text_of(item_of(item, "IlluminationTypeCodeSequence"), "CodeValue")
    profile = item.get("ICCProfile")
    return OpticalPath(
        identifier=identifier,
        description=text_of(item, "OpticalPathDescription"),
        objective_power=one("ObjectiveLensPower"),
        numerical_aperture=one("ObjectiveLensNumericalAperture"),
        icc_profile=profile if isinstance(profile, bytes) else b"",
        illumination=_ILLUMINATION.get(code, Illumination.BRIGHTFIELD),
        excitation_nm=one("IlluminationWaveLength"),
    )


def acquired(header: Dataset) -> datetime | None:
    """Acquisition DateTime, or Date and Time; with the zone only where one is stated."""
    text = text_of(header, "AcquisitionDateTime")
    if not text and text_of(header, "AcquisitionDate") and text_of(header, "AcquisitionTime"):
        text = text_of(header, "AcquisitionDate") + text_of(header, "AcquisitionTime")
    zone = text_of(header, "TimezoneOffsetFromUTC")
    body = text
    for sign in "+-":
        if sign in text:
            body, _, offset = text.partition(sign)
            zone = sign + offset
    try:
        moment = datetime.strptime(body.partition(".")[0], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    fraction = body.partition(".")[2]
    if fraction.isdigit():
        moment = moment.replace(microsecond=int(fraction[:6].ljust(6, "0")))
    if len(zone) == 5 and zone[1:].isdigit():
        minutes = int(zone[1:3]) * 60 + int(zone[3:])
        if minutes < 24 * 60:
            shift = timedelta(minutes=-minutes if zone[0] == "-" else minutes)
            return moment.replace(tzinfo=timezone(shift) if shift else UTC)
    return moment


def scan(main: Header, label: Header | None) -> Scan:
    """What the scanner says of itself and of the glass."""
    header = main.dataset
    versions = header.get("SoftwareVersions")
    several = [versions] if isinstance(versions, str) else list(versions or ())
    others = {
        element.keyword.lower(): _as_text(element)
        for element in header
        if element.tag.group not in WHOLE_GROUPS and element.tag.group not in SAID_OTHERWISE
    }
    known = [header] if label is None else [label.dataset, header]

    def first(keyword: str) -> str:
        return next(filter(None, (text_of(one, keyword) for one in known)), "")

    return Scan(
        manufacturer=text_of(header, "Manufacturer"),
        model_name=text_of(header, "ManufacturerModelName"),
        device_serial_number=text_of(header, "DeviceSerialNumber"),
        software_versions=tuple(filter(None, (str(one).strip() for one in several))),
        acquired=acquired(header),
        barcode=first("BarcodeValue"),
        label_text=first("LabelText"),
        description=text_of(header, "ImageComments"),
        properties={**others, **main.private},
    )


def earlier_losses(header: Dataset, present: str) -> tuple[tuple[str, float], ...]:
    """Lossy steps before the present coding, whose method ``present`` is ("" for one
    without loss): method and ratio, oldest first."""
    methods = _values(header, "LossyImageCompressionMethod")
    ratios = list(numbers_of(header, "LossyImageCompressionRatio"))
    if text_of(header, "LossyImageCompression") != "01" and not methods:
        return ()
    if not methods and not present:
        methods = ["UNKNOWN"]  # the header says that there was a loss, and not by what
    ratios += [1.0] * (len(methods) - len(ratios))
    steps = [(method, max(ratio, 1.0)) for method, ratio in zip(methods, ratios, strict=False)]
    return tuple(steps[:-1] if present and steps else steps)


def _values(header: Dataset, keyword: str) -> list[str]:
    value = header.get(keyword)
    return [value] if isinstance(value, str) and value else [str(one) for one in value or ()]
