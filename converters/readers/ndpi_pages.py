# SPDX-License-Identifier: Apache-2.0
"""What an NDPI's directories are: levels and their focal planes, macro, map; and what the
file says of the scan. (openslide.org/formats/hamamatsu; tag names of Bio-Formats.)"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedCompression
from converters.readers.encoded_tiles import MAX_TILES, check_ranges
from converters.readers.jpeg_image import JpegImage, open_image
from converters.readers.ndpi_directory import Directory, read_directories
from converters.readers.ndpi_jpeg_xr import JpegXrLevel, open_jpeg_xr
from converters.readers.restart_intervals import MAX_INTERVALS
from converters.slide import Illumination, OpticalPath, Scan

JPEG, JPEG_XR = 7, 22610
MACRO_LENS, MAP_LENS = -1.0, -2.0
MCU_STARTS, MCU_STARTS_HIGH = 65426, 65432
FILTER_SET, WAVELENGTH = 65434, 65451
ICC_PROFILE, MAX_ICC = 34675, 16 << 20
TILE_OFFSETS, TILE_OFFSETS_HIGH, TILE_BYTES, TILE_BYTES_HIGH = 324, 65324, 325, 65325
SLIDE_LABEL, BARCODES = 65427, range(65468, 65476)
TEXT_TAGS = {305: "software", 65427: "reference", FILTER_SET: "filterset", 65448: "firmwareversion",
             65459: "pixelformat"}  # fmt: skip
NUMBER_TAGS = {
    65420: "fileformat", 65421: "sourcelens", 65422: "xoffsetfromslidecentre",
    65423: "yoffsetfromslidecentre", 65428: "authcode", 65435: "exposureratio", 65441: "capturemode",
    65444: "jpegquality", 65450: "labelobscured", WAVELENGTH: "wavelength", 65453: "lampage",
    65454: "exposuretime", 65455: "focustime", 65456: "scantime", 65457: "writetime",
}  # fmt: skip
SLIDE_WIDTH_MM, SLIDE_LENGTH_MM = 26.0, 76.0
"""ISO 8037-1, and what VMS files say of their macro image, which shows the whole glass."""


@dataclass(frozen=True, eq=False)
class Page:
    """An image of the file: its place, and what it is."""

    directory: Directory
    rows: int
    columns: int
    offset: int
    size_bytes: int
    compression: int
    lens: float
    height_nm: float
    tile: tuple[int, int] | None = None
    """(Rows, columns) of its tiles, where the image is not in one piece."""

    @property
    def name(self) -> str:
        return f"page {self.directory.number}"


@dataclass(frozen=True, eq=False)
class NdpiFile:
    """``levels``: the pages of each level by height, lowest first, the finest level first."""

    levels: Sequence[Sequence[Page]]
    macro: Page | None
    findings: Sequence[str] = ()
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> Directory:
        return self.levels[0][0].directory


def read_ndpi(descriptor: int, size_bytes: int) -> NdpiFile:
    """Raises DamagedSlide, UnsupportedCompression."""
    pages = [_page(directory) for directory in read_directories(descriptor, size_bytes)]
    macro = next((page for page in pages if page.lens == MACRO_LENS), None)
    by_size: dict[tuple[int, int], list[Page]] = {}
    for page in pages:
        if page.lens > 0:
            by_size.setdefault((page.rows, page.columns), []).append(page)
    if not by_size:
        raise DamagedSlide("no page is a level of the slide")
    groups = sorted(by_size.values(), key=lambda group: -group[0].rows * group[0].columns)
    levels = [sorted(group, key=lambda page: page.height_nm) for group in groups]
    heights = [page.height_nm for page in levels[0]]
    if len(set(heights)) < len(heights):
        raise DamagedSlide("two pages are the same level and focal plane")
    findings = []
    if any(page.lens <= 0 and page.lens not in (MACRO_LENS, MAP_LENS) for page in pages):
        findings.append("a page is neither level nor macro nor map: left out")
    whole = [level for level in levels if [page.height_nm for page in level] == heights]
    if len(whole) < len(levels):
        findings.append("a level lacks focal planes that the finest has: computed anew")
    return NdpiFile(tuple(whole), macro, tuple(findings), _properties(whole[0][0].directory))


def _page(directory: Directory) -> Page:
    name = f"page {directory.number}"
    columns, rows = directory.integer(256), directory.integer(257)
    lens = directory.number_of(65421)
    if lens is None:
        raise DamagedSlide(f"{name} does not say which lens it was seen through")
    offset, size_bytes, tile = directory.integer(273), directory.integer(279), None
    compression = directory.integer(259) or 1
    if lens <= 0 and (offset is None or size_bytes is None):
        offset = size_bytes = compression = 0  # a map in strips, of no use to us
    if offset is None and compression == JPEG_XR and TILE_OFFSETS in directory.entries:
        offset = size_bytes = 0
        tile = (directory.integer(323) or 0, directory.integer(322) or 0)
    if offset is None or size_bytes is None:
        raise DamagedSlide(f"{name} has not its image in one piece")
    if offset > directory.size_bytes or size_bytes > directory.size_bytes - offset:
        raise DamagedSlide(f"the image of {name} lies beyond the end of the file")
    if rows is None or columns is None or not (0 < rows < 2**31 and 0 < columns < 2**31):
        raise DamagedSlide(f"{name} has an impossible size")
    if tile is not None and not all(0 < edge <= 65535 for edge in tile):
        raise DamagedSlide(f"{name} has an impossible tile size")
    height_nm = directory.number_of(65424) or 0.0
    return Page(directory, rows, columns, offset, size_bytes, compression, lens, height_nm, tile)


def jpeg_xr_level(page: Page) -> JpegXrLevel:
    """A level's page in JPEG XR. Raises DamagedSlide, UnsupportedPixels."""
    descriptor, what = page.directory.descriptor, f"the image of {page.name}"
    if page.tile is None:
        whole = (page.offset, page.offset + page.size_bytes)
        image = open_jpeg_xr(descriptor, *whole, what)
        size = (image.rows, image.columns)
        return JpegXrLevel(descriptor, *size, *size, (whole,), what)
    count = -(-page.rows // page.tile[0]) * -(-page.columns // page.tile[1])
    offsets = _wide(page.directory, TILE_OFFSETS, TILE_OFFSETS_HIGH, count)
    lengths = _wide(page.directory, TILE_BYTES, TILE_BYTES_HIGH, count)
    offsets[lengths == 0] = 0
    check_ranges(offsets, lengths, page.directory.size_bytes, page.name)
    ranges = list(zip(offsets.tolist(), (offsets + lengths).tolist(), strict=True))
    return JpegXrLevel(descriptor, page.rows, page.columns, *page.tile, ranges, what)


def _wide(directory: Directory, low: int, high: int, count: int) -> NDArray[np.uint64]:
    """``count`` numbers whose high halves stand in a tag of their own. Raises DamagedSlide."""
    if count == 1 and (one := directory.integer(low)) is not None:
        return np.array([one], np.uint64)
    found = directory.numbers(low, MAX_TILES)
    if found is None or len(found) != count:
        raise DamagedSlide(f"page {directory.number} does not list {count} tiles")
    above = directory.numbers(high, MAX_TILES)
    wide = found.astype(np.uint64)
    if above is not None and len(above) == count:
        wide |= above.astype(np.uint64) << np.uint64(32)
    return wide


def page_image(page: Page, source: int) -> JpegImage:
    """A level's page as JPEG with its restart intervals."""
    directory = page.directory
    if page.compression != JPEG:
        raise UnsupportedCompression(str(page.compression), page.name)
    return open_image(
        directory.descriptor,
        source,
        page.offset,
        page.offset + page.size_bytes,
        what=f"the JPEG of {page.name}",
        size=(page.rows, page.columns),
        stated=_stated(page),
        container_rgb={2: True, 6: False}.get(directory.integer(262) or 0),
    )


def _stated(page: Page) -> NDArray[np.uint64] | None:
    """McuStarts as offsets in the file; without any item where they make no sense."""
    try:
        begins = page.directory.numbers(MCU_STARTS, MAX_INTERVALS)
        high = page.directory.numbers(MCU_STARTS_HIGH, MAX_INTERVALS)
    except DamagedSlide:
        return np.zeros(0, np.uint64)
    if begins is None:
        return None
    begins = begins.astype(np.uint64)
    if high is not None and len(high) == len(begins):
        begins |= high.astype(np.uint64) << np.uint64(32)
    # clipped, so that no sum wraps: what is beyond the image follows no marker
    return np.minimum(begins, np.uint64(page.size_bytes)) + np.uint64(page.offset)


def _properties(directory: Directory) -> Mapping[str, str]:
    """What tags and property map say, by lower-case names; the map's win."""
    found: dict[str, str] = {}
    for line in directory.text(65449).splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip() and value.strip():
            found.setdefault(key.strip().lower(), value.strip())
    for tag, name in TEXT_TAGS.items():
        if text := directory.text(tag):
            found.setdefault(name, text)
    for tag, name in NUMBER_TAGS.items():
        number = directory.number_of(tag)
        if number is not None:
            found.setdefault(name, f"{number:g}" if number % 1 else str(int(number)))
    return found


def scan_of(file: NdpiFile) -> Scan:
    directory, words = file.first, file.properties
    return Scan(
        manufacturer=directory.text(271),
        model_name=directory.text(272),
        device_serial_number=directory.text(65442) or words.get("ndp.s/n", ""),
        software_versions=tuple(text[:64] for text in (directory.text(305),) if text),
        acquired=acquired(directory.text(306)),
        barcode=next(filter(None, map(directory.text, BARCODES)), words.get("barcode", "")),
        label_text=directory.text(SLIDE_LABEL),
        description=directory.text(65449),
        properties=dict(words),
    )


def acquired(text: str) -> datetime | None:
    for form in ("%Y/%m/%d %H:%M:%S", "%Y:%m:%d %H:%M:%S"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def spacing_mm(directory: Directory) -> tuple[float, float] | None:
    """(Between rows, between columns), where it can be a microscope's."""
    unit = {2: 25.4, 3: 10.0}.get(directory.integer(296) or 0)
    resolution = [directory.number_of(tag) or 0.0 for tag in (283, 282)]
    if unit is None or min(resolution) <= 0:
        return None
    rows, columns = (unit / value for value in resolution)
    return (rows, columns) if all(0.00002 <= value <= 0.02 for value in (rows, columns)) else None


def optical_path(file: NdpiFile, identifier: str) -> OpticalPath:
    """The filter set's name and wavelength make it a fluorescence channel."""
    directory = file.first
    wavelength = directory.number_of(WAVELENGTH) or 0.0
    channel = directory.text(FILTER_SET)
    named = bool(channel) and "bright" not in channel.lower()
    fluorescence = named or 100 < wavelength < 2000
    return OpticalPath(
        identifier=identifier,
        description=channel,
        objective_power=file.levels[0][0].lens,
        icc_profile=directory.raw(ICC_PROFILE, MAX_ICC),
        illumination=Illumination.EPIFLUORESCENCE if fluorescence else Illumination.BRIGHTFIELD,
        emission_nm=wavelength if 100 < wavelength < 2000 else None,
    )


def origin_mm(
    centre_nm: tuple[float | None, float | None],
    size_mm: tuple[float, float] | None,
    slide_mm: tuple[float, float] = (SLIDE_WIDTH_MM, SLIDE_LENGTH_MM),
) -> tuple[float, float] | None:
    """(X, Y) of the first pixel in slide coordinates (PS3.3 C.8.12.2.1.1) of an image of
    ``size_mm`` (rows, columns), whose centre lies ``centre_nm`` (x, y) from the glass's.

    Seen with the label to the left, x counts rightwards and y downwards (as positions in
    Hamamatsu's annotation files do); slide coordinates start at the lower right corner, X
    up and Y towards the label. The glass's size is nominal where no file states it.
    """
    x, y = centre_nm
    if x is None or y is None or size_mm is None:
        return None
    origin = (
        slide_mm[0] / 2 - y / 1e6 + size_mm[0] / 2,
        slide_mm[1] / 2 - x / 1e6 + size_mm[1] / 2,
    )
    return origin if all(math.isfinite(value) and -100 < value < 200 for value in origin) else None
