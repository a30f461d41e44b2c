# SPDX-License-Identifier: Apache-2.0
"""The text in an SVS's ImageDescription: a line of software, geometry, ``key = value``.

    Aperio Image Library v11.2.1
    46000x32914 [42673,5576 2220x2967] (240x240) JPEG/RGB Q=30;Aperio Image Library
    v10.0.51 46920x33014 [0,100 46000x32914] (256x256) JPEG/RGB Q=30|AppMag = 20|MPP = 0.4990|…

Each ``;`` part is one step of the file's history, the newest first; ``[x,y WxH]`` is the
region that the step took from the one before.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

SLIDE_LENGTH_MM = 75.0  # nominal; no SVS states it
_SOFTWARE = re.compile(r"^Aperio\s+(?P<name>[^\r\n]*?)\s*(?P<version>v?\d+(?:\.\d+)+[\w.]*)?\s*$")
_REGION = re.compile(r"\[(\d+),(\d+) (\d+)x(\d+)\]")
_ZONE = re.compile(r"(?:GMT|UTC)?\s*([+-])(\d{1,2}):?(\d{2})?$")
_DATES = ("%m/%d/%y", "%m/%d/%Y", "%Y-%m-%d")
_SCAN_RESOLUTION = re.compile(r"\bScan resolution\s+(\d+(?:[.,]\d+)?)")  # Grundium's; µm per pixel
_MAKERS = (("Aperio Image, Grundium", "Grundium"), ("Aperio Leica Biosystems", "Leica Biosystems"))
_BARCODES = ("barcode", "barcodeid", "barcode id", "barcodevalue")


@dataclass(frozen=True)
class Description:
    """What the text says. Empty or None: nothing."""

    software: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)
    region_offset: tuple[int, int] = (0, 0)  # (x, y) of the first pixel in the scan, in pixels
    scan_resolution_um: float | None = None  # of the first line, where there is no MPP
    acquired: datetime | None = None
    findings: Sequence[str] = ()

    def _number(self, key: str) -> float | None:
        try:
            value = float(self.properties.get(key, "").replace(",", "."))
        except ValueError:
            return None
        return value if 0 < value < 1e6 else None

    @property
    def pixel_spacing_mm(self) -> tuple[float, float] | None:
        mpp = self._number("mpp") or self.scan_resolution_um
        return None if mpp is None else (mpp / 1000, mpp / 1000)

    @property
    def objective_power(self) -> float | None:
        return self._number("appmag")

    @property
    def numerical_aperture(self) -> float | None:
        return self._number("na") or self._number("objective na")

    @property
    def manufacturer(self) -> str:
        for start, maker in _MAKERS:
            if self.software.startswith(start):
                return maker
        return "Leica Biosystems" if "leica" in self.software.lower() else "Aperio"

    @property
    def model_name(self) -> str:
        """Stated, or named in the first line ("Aperio Leica Biosystems GT450 DX v1.0.1")."""
        stated = self.properties.get("scannertype") or self.properties.get("scanner type")
        if stated:
            return stated
        for start, _ in _MAKERS:
            if self.software.startswith(start):
                return re.sub(r"\s+v?\d+(\.\d+)+.*$", "", self.software[len(start) :]).strip(" ,")
        return "ScanScope"

    @property
    def device_serial_number(self) -> str:
        return self.properties.get("scanscope id", "")

    @property
    def software_versions(self) -> tuple[str, ...]:
        return (self.software[:64],) if self.software else ()

    @property
    def barcode(self) -> str:
        return next((self.properties[key] for key in _BARCODES if self.properties.get(key)), "")

    def origin_mm(self, spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
        """(X, Y) of the first pixel in slide coordinates (PS3.3 C.8.12.2.1.1).

        The scanner looks at a glass with the label to the left, and measures ``Left``
        rightwards and ``Top`` upwards from the lower left corner (the green frame that
        it draws into its macro shows so). Slide coordinates start at the corner
        opposite of the label, X along the short side, Y towards the label: so X = Top,
        and Y = slide length - Left.
        """
        try:
            left, top = float(self.properties["left"]), float(self.properties["top"])
        except (KeyError, ValueError):
            return None
        between_rows, between_columns = spacing_mm or (0.0, 0.0)
        x, y = self.region_offset
        origin = (top - y * between_rows, SLIDE_LENGTH_MM - left - x * between_columns)
        return origin if all(-100 < value < 200 for value in origin) else None


def parse_description(text: str, tiff_date_time: str = "") -> Description:
    """Reads what it can; never raises. Keys are in lower case, the first of equal ones wins."""
    head, *pairs = text.split("|")
    properties: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and value.strip():
            properties.setdefault(key.strip().lower(), value.strip(" \t\r\n\0"))
    software = re.split(r"[\r\n;|]", text, maxsplit=1)[0].strip()
    acquired, findings = _acquired(properties, tiff_date_time)
    resolution = _SCAN_RESOLUTION.search(head[:1024])
    scan_um = float(resolution[1].replace(",", ".")) if resolution else 0.0
    return Description(
        software,
        properties,
        _region_offset(head),
        scan_um if 0.02 < scan_um < 20 else None,
        acquired,
        findings,
    )


def _region_offset(head: str) -> tuple[int, int]:
    x = y = 0
    for step in head.split(";"):
        region = _REGION.search(step)
        if region is None or "->" in step:
            break  # resampled: offsets further back are in other pixels
        x, y = x + int(region[1]), y + int(region[2])
    return x, y


def _acquired(properties: Mapping[str, str], tiff_date_time: str) -> tuple[datetime | None, Sequence[str]]:
    date, time = properties.get("date", ""), properties.get("time", "00:00:00")
    for form in _DATES:
        try:
            moment = datetime.strptime(f"{date} {time}", f"{form} %H:%M:%S")
        except ValueError:
            continue
        return moment.replace(tzinfo=_zone(properties.get("time zone", ""))), ()
    try:
        return datetime.strptime(tiff_date_time.strip("\0 "), "%Y:%m:%d %H:%M:%S"), ()
    except ValueError:
        return None, ("the time of scanning is not stated",)


def _zone(text: str) -> timezone | None:
    found = _ZONE.search(text.strip())
    if found is None:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
    if offset > timedelta(hours=14):
        return None
    return timezone(offset if found[1] == "+" else -offset)
