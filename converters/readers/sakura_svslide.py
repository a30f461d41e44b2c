# SPDX-License-Identifier: Apache-2.0
"""Sakura VisionTek SVSLIDE: an SQLite 3 database, written by an object mapper.

- One table with a name of its own (told in DataManagerSQLiteConfigXPO) holds named blobs:
  ``++MagicBytes``, ``Header`` (tile size, columns, rows, focal planes ...) and the tiles,
  named ``T;x|y;downsample;colour;focal plane`` with x and y in pixels of the finest level.
- A tile is three grey JPEGs: red, green, blue. DICOM has no such thing, so tiles are
  decoded and joined.
- Label, overview and thumbnail are JPEGs in SVScannedImageDataXPO and SVHRScanDataXPO.
- FocusStack has eight bytes for each focal plane; read as doubles, in millimetres like all
  lengths of the format, if they are evenly spaced. No public file tells more.

SQLite is a C library: opening happens in a child process.

Source: openslide.org/formats/sakura.
"""

import math
import re
import struct
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.encoded_tiles import associated_picture, decoded
from converters.readers.left_out import unless_damaged
from converters.readers.sakura_database import Database, Row, Tiles
from converters.slide import (
    AssociatedImage,
    Level,
    OpticalPath,
    PixelTiles,
    Role,
    Scan,
    Scene,
    Slide,
    SourceFile,
)

MAGIC = b"SQLite format 3\0"
WHY = "each colour channel is a JPEG of its own"
MAX_TILES = 4_000_000
MAX_PLANES = 100
SLIDE_TEXTS = ("SlideId", "Date", "Description", "Creator", "DiagnosisCode", "Keywords")
SCAN_TEXTS = ("ScanId", "Date", "Name", "Description", "ResolutionMmPerPix", "NominalLensMagnification",
              "FocussingMethod")  # fmt: skip


class SakuraReader:
    """See :class:`converters.registry.Reader`."""

    format = "sakura-svslide"
    isolated = True

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        if not probe.head.startswith(MAGIC):
            return "not an SQLite database"
        if probe.path.suffix.lower() != ".svslide":
            return "the name does not end in .svslide"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedPixels, UnsupportedCompression."""
        database = Database(probe.path)
        try:
            return _slide(database, probe)
        except Exception:
            database.close()
            raise


def _slide(database: Database, probe: Probe) -> Slide:
    findings: list[str] = []
    slide = database.row("SVSlideDataXPO", (*SLIDE_TEXTS, "m_labelScan", "m_overviewScan"))
    scan = database.row("SVHRScanDataXPO", (*SCAN_TEXTS, "FocusStack", "ThumbnailImage"))
    tile, columns, rows, planes = _header(database.blob("Header"))
    stored = database.tiles()
    heights, chosen = _focal_planes(scan.blob("FocusStack"), planes, stored.planes, findings)
    levels = _levels(database, stored, (rows, columns), tile, chosen, _spacing_mm(scan))
    if any(plane not in chosen for plane in stored.planes):
        findings.append("the slide has more focal planes than are read")
    return Slide(
        format=SakuraReader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=(
            Scene(
                0,
                levels,
                (OpticalPath(objective_power=_positive(scan.number("NominalLensMagnification"), 1000)),),
                focal_planes_um=heights,
            ),
        ),
        associated=_associated(database, slide, scan, findings),
        scan=_scan(slide, scan, database.text("++VersionBytes"), findings),
        closer=database.close,
        findings=tuple(findings),
    )


def _header(content: bytes) -> tuple[int, int, int, int]:
    """Tile size, columns, rows, focal planes."""
    try:
        tile, columns, rows, _, planes = struct.unpack_from("<5I", content)
    except struct.error as error:
        raise DamagedSlide("the header is too short") from error
    if not 16 <= tile <= 8192:
        raise DamagedSlide("the header states an impossible tile size")
    if not (0 < rows <= 1 << 28 and 0 < columns <= 1 << 28):
        raise DamagedSlide("the header states an impossible size of the slide")
    if not 1 <= planes <= MAX_PLANES:
        raise DamagedSlide("the header states an impossible number of focal planes")
    return tile, columns, rows, planes


def _focal_planes(
    stack: bytes, planes: int, stored: Sequence[int], findings: list[str]
) -> tuple[Sequence[float], Sequence[int]]:
    """Heights in um, lowest first (none where they cannot be told), and the number of each
    plane."""
    if planes == 1:
        return (0.0,), (0,)
    if len(stack) == 8 * planes:
        values = struct.unpack(f"<{planes}d", stack)
        known = sorted((value * 1000, number) for number, value in enumerate(values) if abs(value) < 1)
        steps = [above[0] - below[0] for below, above in pairwise(known)]
        if len(known) == planes and min(steps) > 0.01 and max(steps) - min(steps) < 0.01 * max(steps):
            findings.append("heights of focal planes are taken to be in millimetres")
            return tuple(height for height, _ in known), tuple(number for _, number in known)
    present = tuple(plane for plane in range(planes) if plane in stored)
    return ((), present) if len(present) > 1 else ((0.0,), present or (0,))


def _levels(
    database: Database,
    stored: Tiles,
    size: tuple[int, int],
    tile: int,
    planes: Sequence[int],
    spacing_mm: float | None,
) -> Sequence[Level]:
    levels: list[Level] = []
    for factor in stored.downsamples:
        if factor & (factor - 1):
            raise DamagedSlide("a level is reduced by what is no power of two")
        rows, columns = size[0] // factor, size[1] // factor
        down, across = -(-rows // tile), -(-columns // tile)
        if not down or not across or down * across * len(planes) > MAX_TILES:
            raise DamagedSlide("a level has no tiles, or more than any slide")
        present = stored.present(factor, planes, tile, (down, across))
        if not present.any():
            raise DamagedSlide("a level has no tiles of the focal planes that are read")
        first = stored.downsamples[0]
        levels.append(
            Level(
                index=len(levels),
                rows=rows,
                columns=columns,
                tile_rows=tile,
                tile_columns=tile,
                tiles=PixelTiles(
                    read=_tile_reader(database, factor, planes, tile, present.reshape(-1, down, across)),
                    count=down * across * len(planes),
                    why=WHY,
                    lossy_method="ISO_10918_1",
                    size_bytes=stored.size_bytes(factor, planes),
                    missing=~present,
                ),
                pixel_spacing_mm=(spacing_mm * factor, spacing_mm * factor) if spacing_mm else None,
                downsample=factor / first,
                focal_planes=len(planes),
                history="JPEG, one for each colour channel",
            )
        )
    if not levels:
        raise DamagedSlide("the slide has no tiles")
    return tuple(levels)


def _tile_reader(
    database: Database, factor: int, planes: Sequence[int], tile: int, present: NDArray[np.bool_]
) -> Callable[[int], NDArray[np.uint8]]:
    """``present`` by plane, row and column; white is read for the others."""

    def read(frame_index: int) -> NDArray[np.uint8]:
        plane, row, column = (int(at) for at in np.unravel_index(frame_index, present.shape))
        if not present[plane, row, column]:
            return np.full((tile, tile, 3), 255, np.uint8)
        place = f"T;{column * tile * factor}|{row * tile * factor};{factor}"
        channels = [
            decoded(database.blob(f"{place};{colour};{planes[plane]}"), (tile, tile, 1), "a tile")
            for colour in range(3)
        ]
        return np.concatenate(channels, axis=2)

    return read


def _associated(database: Database, slide: Row, scan: Row, findings: list[str]) -> Sequence[AssociatedImage]:
    """Label, overview, thumbnail. Raises DamagedSlide, UnsupportedCompression."""
    found: list[AssociatedImage] = []
    for key, role in (("m_labelScan", Role.LABEL), ("m_overviewScan", Role.OVERVIEW)):
        number = slide.integer(key)
        content = database.scanned_image(number) if number is not None else b""
        if content:
            found += unless_damaged(role, findings, partial(associated_picture, role, content))
        elif number is not None:
            findings.append(f"the {role.value.lower()} image is announced but not stored")
    thumbnail = scan.blob("ThumbnailImage")
    if thumbnail:
        found += unless_damaged(
            Role.THUMBNAIL, findings, partial(associated_picture, Role.THUMBNAIL, thumbnail)
        )
    return tuple(found)


def _scan(slide: Row, scan: Row, version: str, findings: list[str]) -> Scan:
    acquired = _moment(scan.text("Date")) or _moment(slide.text("Date"))
    if acquired is None:
        findings.append("the time of scanning is not stated")
    pairs = [("slide", key, slide.text(key)) for key in SLIDE_TEXTS]
    pairs += [("scan", key, scan.text(key)) for key in SCAN_TEXTS]
    properties = {f"{table}.{key}".lower(): value for table, key, value in pairs if value}
    if version:
        properties["format version"] = version
    words = [f"{key} = {value}" for key, value in properties.items()]
    return Scan(
        manufacturer="Sakura",
        acquired=acquired,
        description="\n".join(words),
        properties=properties,
    )


def _moment(text: str) -> datetime | None:
    """Fractions of a second are cut off to microseconds. No zone is known to be stated."""
    text = re.sub(r"(\.\d{6})\d+$", r"\1", text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in ("%m/%d/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _spacing_mm(scan: Row) -> float | None:
    return _positive(scan.number("ResolutionMmPerPix"), 1)


def _positive(value: float | None, limit: float) -> float | None:
    return value if value is not None and math.isfinite(value) and 1e-6 < value < limit else None
