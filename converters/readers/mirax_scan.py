# SPDX-License-Identifier: Apache-2.0
"""What an MRXS slide says of itself: zoom levels, channels, focal planes, scanner, label."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone

from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.readers.encoded_tiles import associated_picture
from converters.readers.left_out import unless_damaged
from converters.readers.mirax_index import Index, Range
from converters.readers.mirax_ini import MAX_ZOOM_LEVELS, Hierarchy, OtherRecord, Slidedat
from converters.readers.mirax_layout import SMALLEST_PIECE, Geometry, Zoom
from converters.slide import AssociatedImage, Illumination, OpticalPath, Role, Scan

FORMATS = {"JPEG": "ISO_10918_1", "PNG": "", "BMP24": ""}
"""IMAGE_FORMAT -> Lossy Image Compression Method, "" for none."""
MAX_GRID = 1 << 15
MAX_IMAGES = 1 << 22  # of the grid; and of pieces at any level
MAX_IMAGE_EDGE = 8192
MAX_ASSOCIATED_BYTES = 64 << 20
POSITION_LAYERS = {"VIMSLIDE_POSITION_BUFFER": False, "StitchingIntensityLayer": True}
"""Layers that hold camera positions -> whether they are deflated."""
SCAN_LAYER = "Scan data layer"
IMAGES = (
    ("ScanDataLayer_SlideBarcode", Role.LABEL),
    ("ScanDataLayer_SlideThumbnail", Role.OVERVIEW),
    ("ScanDataLayer_WholeSlide", Role.OVERVIEW),
    ("ScanDataLayer_SlidePreview", Role.THUMBNAIL),
)
BARCODES = ("BARCODE", "SLIDE_BARCODE", "BARCODE_VALUE", "BARCODE_TEXT", "BARCODE_DATA")

Channel = tuple[int, int | None]
"""A filter level, and the component (R, G, B) of its images; None for all three."""


def axis_of(hierarchies: Sequence[Hierarchy], word: str) -> Hierarchy | None:
    """The hierarchy of "zoom", "filter" or "focus"."""
    return next((each for each in hierarchies if word in each.name.lower()), None)


def geometry_of(
    ini: Slidedat, hierarchies: Sequence[Hierarchy], others: Sequence[OtherRecord], findings: list[str]
) -> Geometry:
    """Raises DamagedSlide, UnsupportedCompression."""
    grid = (
        ini.integer("GENERAL", "IMAGENUMBER_Y", 1, MAX_GRID),
        ini.integer("GENERAL", "IMAGENUMBER_X", 1, MAX_GRID),
    )
    if grid[0] * grid[1] > MAX_IMAGES:
        raise DamagedSlide("Slidedat.ini announces more images than any slide has")
    divisions = ini.integer("GENERAL", "CameraImageDivisionsPerSide", 1, min(grid), default=1)
    axis = axis_of(hierarchies, "zoom")
    if axis is None:
        raise DamagedSlide("Slidedat.ini has no zoom levels")
    positioned = any(other.layer in POSITION_LAYERS for other in others)
    zooms: list[Zoom] = []
    for number, section in enumerate(axis.sections[:MAX_ZOOM_LEVELS]):
        exponent = ini.integer(section, "IMAGE_CONCAT_FACTOR", 0, MAX_ZOOM_LEVELS)
        concat = (zooms[-1].concat if zooms else 1) << exponent
        zoom = _zoom(ini, section, number, concat)
        pieces = max(1, concat // divisions) if positioned or any(zoom.overlap) else 1
        if zooms and (not exponent or min(zoom.rows, zoom.columns) < SMALLEST_PIECE * pieces):
            findings.append(f"zoom levels from {number} on are not read but computed")
            break
        if math.prod(-(-edge // concat) * pieces for edge in grid) > 4 * MAX_IMAGES:
            raise DamagedSlide("Slidedat.ini announces more images than any slide has")
        if concat > 2 * max(grid):
            if not zooms:
                raise DamagedSlide("IMAGE_CONCAT_FACTOR in Slidedat.ini is out of range")
            break
        zooms.append(zoom)
    return Geometry(grid, divisions, tuple(zooms), positioned)


def _zoom(ini: Slidedat, section: str, number: int, concat: int) -> Zoom:
    image_format = ini.text_of(section, "IMAGE_FORMAT").upper()
    if image_format not in FORMATS:
        raise UnsupportedCompression(_word(image_format), "the slide's images")
    overlap = tuple(ini.real(section, f"OVERLAP_{axis}") or 0.0 for axis in "XY")
    spacing = tuple(ini.real(section, f"MICROMETER_PER_PIXEL_{axis}") for axis in "YX")
    stated = ini.real(section, "IMAGE_FILL_COLOR_BGR")
    fill = int(stated) if stated is not None and -(1 << 31) <= stated < 1 << 32 else 0xFFFFFF
    rows = ini.integer(section, "DIGITIZER_HEIGHT", 1, MAX_IMAGE_EDGE)
    columns = ini.integer(section, "DIGITIZER_WIDTH", 1, MAX_IMAGE_EDGE)
    if not (0 <= overlap[0] < MAX_IMAGE_EDGE and 0 <= overlap[1] < MAX_IMAGE_EDGE):
        raise DamagedSlide("the overlap in Slidedat.ini is out of range")
    known = [value / 1000 for value in spacing if value is not None and 0.01 <= value <= 10_000]
    return Zoom(
        number=number,
        concat=concat,
        rows=rows,
        columns=columns,
        overlap=(overlap[0], overlap[1]),
        image_format=image_format,
        quality=ini.value(section, "IMAGE_COMPRESSION_FACTOR"),
        spacing_mm=(known[0], known[1]) if len(known) == 2 else None,
        fill_rgb=(fill & 255, fill >> 8 & 255, fill >> 16 & 255),
    )


def channels_of(
    ini: Slidedat, hierarchies: Sequence[Hierarchy]
) -> tuple[Sequence[OpticalPath], Sequence[Channel]]:
    """Optical paths, and where each one's values lie. Raises UnsupportedPixels."""
    power = _number(ini.value("GENERAL", "OBJECTIVE_MAGNIFICATION").rstrip("xX"))
    axis = axis_of(hierarchies, "filter")
    if "FLUORESCENCE" not in ini.value("GENERAL", "SLIDE_TYPE").upper() or axis is None:
        return (OpticalPath(objective_power=power),), ((axis.default if axis else 0, None),)
    paths: list[OpticalPath] = []
    channels: list[Channel] = []
    words = [value.lower() for value in axis.values]
    for number, section in enumerate(axis.sections):
        stored_in = ini.value(section, "DATA_IN_THIS_FILTER_LEVEL").lower()
        group = words.index(stored_in) if stored_in in words else number
        component = ini.integer(section, "STORING_CHANNEL_NUMBER", 0, 1 << 16, default=0)
        if component > 2 or (group, 2 - component) in channels:
            raise UnsupportedPixels("two filters share a colour component, or name one that there is not")
        channels.append((group, 2 - component))
        colour = [ini.real(section, f"COLOR_{letter}") for letter in "RGB"]
        exposure = ini.real(section, "EXPOSURE_TIME")
        paths.append(
            OpticalPath(
                identifier=str(number + 1),
                description=ini.value(section, "FILTER_NAME"),
                objective_power=power,
                illumination=Illumination.EPIFLUORESCENCE,
                excitation_nm=_wavelength(ini.real(section, "EXCITATION_WAVELENGTH")),
                emission_nm=_wavelength(ini.real(section, "EMISSION_WAVELENGTH")),
                exposure_ms=exposure / 1000 if exposure is not None and 0 < exposure < 1e9 else None,
                display_rgb=_colour(colour),
            )
        )
    return tuple(paths), tuple(channels)


def focal_planes(
    ini: Slidedat, hierarchies: Sequence[Hierarchy], has_images: Callable[[int], bool], findings: list[str]
) -> tuple[Sequence[float], Sequence[int]]:
    """Heights in um, lowest first (none where they are not all stated), and each one's value
    in the focus hierarchy. ``has_images`` says whether a value has any at the finest level."""
    axis = axis_of(hierarchies, "focus")
    if axis is None or len(axis.values) == 1:
        return (0.0,), (axis.default if axis else 0,)
    stored = [number for number in range(len(axis.values)) if has_images(number)]
    if len(stored) < 2:
        return (0.0,), (stored[0] if stored else axis.default,)
    heights = [ini.real(axis.sections[number], "OFFSET_IN_MICROMETERS") for number in stored]
    known = sorted(
        (height, number) for height, number in zip(heights, stored, strict=True) if height is not None
    )
    if len({height for height, _ in known}) != len(stored):
        return (), tuple(stored)
    return tuple(height for height, _ in known), tuple(number for _, number in known)


def scan_of(ini: Slidedat, others: Sequence[OtherRecord], findings: list[str]) -> Scan:
    acquired = _acquired(ini)
    if acquired is None:
        findings.append("the time of scanning is not stated")
    hardware = _scanner(ini, others, "SCANNER_HARDWARE_VERSION")
    software = _scanner(ini, others, "SCANNER_SOFTWARE_VERSION")
    return Scan(
        manufacturer="3DHISTECH",
        # Old scanners give a version there ("v0.5"), newer ones their name.
        model_name=hardware[:64] if re.search(r"[A-Za-z]{4}", hardware) else "",
        device_serial_number=_scanner(ini, others, "SCANNER_HARDWARE_ID")[:64],
        software_versions=(software[:64],) if software else (),
        acquired=acquired,
        barcode=next((found for key in BARCODES if (found := _scanner(ini, others, key))), ""),
        description=ini.text,
        properties=ini.properties(),
    )


def associated_images(
    others: Sequence[OtherRecord], index: Index, read: Callable[[int, int, int], bytes], findings: list[str]
) -> Sequence[AssociatedImage]:
    """Label, overview and thumbnail. Raises DamagedSlide, UnsupportedCompression."""
    found: list[AssociatedImage] = []
    for name, role in IMAGES:
        record = next(
            (at for at, other in enumerate(others) if other.layer == SCAN_LAYER and other.name == name), None
        )
        if record is None or any(image.role is role for image in found):
            continue
        place = index.other(record)
        if place is None:
            findings.append(f"the {role.value.lower()} image is announced but not stored")
            continue

        def picture(role: Role = role, place: Range = place) -> AssociatedImage:
            if place.length > MAX_ASSOCIATED_BYTES:
                raise DamagedSlide(f"the {role.value.lower()} image has an impossible size")
            return associated_picture(role, read(place.file, place.offset, place.length))

        found += unless_damaged(role, findings, picture)
    return tuple(found)


def _scanner(ini: Slidedat, others: Sequence[OtherRecord], key: str) -> str:
    """From the section of the scan data layer, or else whichever section states it."""
    layer = next((other.layer_section for other in others if other.layer == SCAN_LAYER), "")
    first = ini.value(layer, key) or ini.value("GENERAL", key)
    return first or next((pairs[key] for pairs in ini.sections.values() if pairs.get(key)), "")


def _acquired(ini: Slidedat) -> datetime | None:
    """The scanner's local time; in newer slides UTC beside it tells the zone."""
    local = _moment(ini.value("GENERAL", "SLIDE_CREATIONDATETIME"))
    utc = _moment(ini.value("GENERAL", "SLIDE_UTC_CREATIONDATETIME"))
    if local is None or utc is None:
        return local if utc is None else utc.replace(tzinfo=UTC)
    minutes = round((local - utc).total_seconds() / 60 / 15) * 15
    near = abs((local - utc) - timedelta(minutes=minutes)) < timedelta(minutes=1)
    return (
        local.replace(tzinfo=timezone(timedelta(minutes=minutes))) if near and abs(minutes) <= 840 else local
    )


def _moment(text: str) -> datetime | None:
    for form in ("%d/%m/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1000 else None


def _wavelength(value: float | None) -> float | None:
    return value if value is not None and 200 <= value <= 2000 else None


def _colour(values: Sequence[float | None]) -> tuple[int, int, int] | None:
    known = [int(value) for value in values if value is not None and 0 <= value <= 255]
    return (known[0], known[1], known[2]) if len(known) == 3 else None


def _word(text: str) -> str:
    """A format's name as refusals show it."""
    return text if re.fullmatch(r"[A-Z0-9-]{1,12}", text) else "of an unknown kind"
