# SPDX-License-Identifier: Apache-2.0
"""Philips iSyntax: an XML header, then wavelet coefficients in codeblocks.

- The levels are what the wavelet leaves, not averages: coarse levels are sharper than
  others', and may overshoot. The grid of tiles does not begin with the picture.
- Lossy or not is stated; the scanner's usual setting is lossy ("Quality=2").
- Label and macro are JPEG files in base64 in the header. The barcode is base64.
- The magnification is not stated, nor the place on the glass in slide coordinates.
- Version 2 (data model 100 and up) lists its codeblocks in clusters.

Sources: libisyntax (BSD-2), https://github.com/amspath/libisyntax; the iSyntax parsers
of large_image and of others; Philips TIFF, whose description is the same tree.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from converters.probe import Probe
from converters.readers.encoded_tiles import associated_picture
from converters.readers.isyntax_codeblocks import CodeblockDecoder
from converters.readers.isyntax_header import ROOT, Header, items, objects, read_header, texts
from converters.readers.isyntax_layout import Layout, layout
from converters.readers.isyntax_pixels import Pyramid
from converters.readers.left_out import unless_damaged
from converters.readers.vendor_xml import base64_text, number
from converters.slide import (
    DEFAULT_TILE,
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

_ROOT = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}\?>\s*)?<DataObject\s+ObjectType="' + ROOT.encode() + rb'"'
)
_ROLES = {"LABELIMAGE": Role.LABEL, "MACROIMAGE": Role.OVERVIEW}
_UM_TO_MM = {"micrometer": 0.001, "micrometre": 0.001, "um": 0.001, "µm": 0.001, "": 0.001}
_UM_TO_MM |= {"millimeter": 1.0, "millimetre": 1.0, "mm": 1.0}
_METHOD = re.compile(r"[A-Z0-9_ ]{1,16}")
LOSSY_METHOD = "PHILIPS_DP_1_0"
WHITE = (255, 255, 255)


class PhilipsIsyntaxReader:
    """See :class:`converters.registry.Reader`."""

    format = "philips-isyntax"
    isolated = True

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        if not _ROOT.match(probe.head):
            return f"it does not start with an XML object of the type {ROOT}"
        return None

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels, MissingLibrary."""
        header = read_header(probe.path)
        found = layout(header, probe.path, probe.size_bytes)
        findings: list[str] = []
        associated = _associated(header, findings)
        wsi = texts(header.wsi)
        spacing = _spacing(header.wsi)
        method = _lossy_method(wsi, findings)
        acquired = _acquired(header.texts.get("DICOM_ACQUISITION_DATETIME", ""))
        if acquired is None:
            findings.append("the time of scanning is not stated")
        icc = header.blob(header.wsi, "DICOM_ICCPROFILE") or b""
        pyramid = Pyramid(probe.path, found, CodeblockDecoder())
        history = wsi.get("DICOM_DERIVATION_DESCRIPTION", "")
        levels = _levels(pyramid, found, spacing, method, history)
        return Slide(
            format=PhilipsIsyntaxReader.format,
            sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
            scenes=(Scene(0, levels, (OpticalPath(icc_profile=icc),)),),
            associated=associated,
            scan=Scan(
                manufacturer=header.texts.get("DICOM_MANUFACTURER", ""),
                model_name=header.texts.get("DICOM_MANUFACTURERS_MODEL_NAME", ""),
                device_serial_number=header.texts.get("DICOM_DEVICE_SERIAL_NUMBER", ""),
                software_versions=tuple(items(header.texts.get("DICOM_SOFTWARE_VERSIONS", ""))),
                acquired=acquired,
                barcode=base64_text(header.texts.get("PIM_DP_UFS_BARCODE", "")),
                description=history,
                properties={name.lower(): text for name, text in {**wsi, **header.texts}.items()},
            ),
            closer=pyramid.close,
            findings=tuple(findings),
        )


def _levels(
    pyramid: Pyramid, found: Layout, spacing: tuple[float, float] | None, method: str, history: str
) -> Sequence[Level]:
    grid = found.grid
    levels: list[Level] = []
    for scale in range(grid.levels):
        rows, columns = grid.rows >> scale, grid.columns >> scale
        if not rows or not columns:
            break
        # the scanner's own tiles do not begin where the picture does
        tile_rows, tile_columns = min(rows, DEFAULT_TILE), min(columns, DEFAULT_TILE)
        first = grid.first_pixel(scale)
        tops, lefts = (
            first + np.arange(0, size, edge, dtype=np.int64)
            for size, edge in ((rows, tile_rows), (columns, tile_columns))
        )
        scanned = pyramid.scanned(scale, tops, lefts, (tile_rows, tile_columns))
        levels.append(
            Level(
                index=scale,
                rows=rows,
                columns=columns,
                tile_rows=tile_rows,
                tile_columns=tile_columns,
                tiles=PixelTiles(
                    read=partial(_read, pyramid, scale, (tile_rows, tile_columns), (rows, columns)),
                    count=scanned.size,
                    why="wavelet of YCoCg has no DICOM form",
                    lossy_method=method,
                    size_bytes=found.level_bytes(scale),
                    missing=~scanned.reshape(-1),
                ),
                pixel_spacing_mm=(spacing[0] * 2**scale, spacing[1] * 2**scale) if spacing else None,
                downsample=float(2**scale),
                history=history,
                absent_colour=WHITE,
            )
        )
    return tuple(levels)


def _read(
    pyramid: Pyramid, scale: int, tile: tuple[int, int], size: tuple[int, int], frame_index: int
) -> NDArray[np.uint8]:
    """A tile of a level; white outside of the picture (the grid goes on there)."""
    row, column = divmod(frame_index, -(-size[1] // tile[1]))
    top, left = row * tile[0], column * tile[1]
    first = pyramid.layout.grid.first_pixel(scale)
    pixels = pyramid.region(scale, first + top, first + left, *tile)
    pixels[size[0] - top :] = WHITE
    pixels[:, size[1] - left :] = WHITE
    return pixels


def _spacing(wsi: Element) -> tuple[float, float] | None:
    """(Between rows, between columns) in mm: scale factors of the dimensions y and x."""
    general = next(objects(wsi, "UFS_IMAGE_GENERAL_HEADERS"), None)
    dimensions = [] if general is None else [texts(one) for one in objects(general, "UFS_IMAGE_DIMENSIONS")]
    found = []
    for one in dimensions[:2]:
        size = number(one.get("UFS_IMAGE_DIMENSION_SCALE_FACTOR", "").strip('"'))
        factor = _UM_TO_MM.get(one.get("UFS_IMAGE_DIMENSION_UNIT", "").strip('"').lower())
        if size is None or factor is None or not 0.00001 <= size * factor <= 0.1:
            return None
        found.append(size * factor)
    return (found[1], found[0]) if len(found) == 2 else None


def _lossy_method(wsi: dict[str, str], findings: list[str]) -> str:
    stated = wsi.get("DICOM_LOSSY_IMAGE_COMPRESSION", "").strip('"')
    if stated == "00":
        return ""
    if stated != "01":
        findings.append("the file does not say whether its compression was lossy: taken as lossy")
    named = (items(wsi.get("DICOM_LOSSY_IMAGE_COMPRESSION_METHOD", "")) or [""])[0]
    return named if _METHOD.fullmatch(named) else LOSSY_METHOD


def _associated(header: Header, findings: list[str]) -> Sequence[AssociatedImage]:
    found: list[AssociatedImage] = []
    for kind, role in _ROLES.items():
        data = header.blob(header.images[kind], "PIM_DP_IMAGE_DATA") if kind in header.images else None
        if data:
            found += unless_damaged(role, findings, partial(associated_picture, role, data))
    return tuple(found)


def _acquired(text: str) -> datetime | None:
    """A DICOM DT without a zone."""
    try:
        return datetime.strptime(text.strip('" ')[:21], "%Y%m%d%H%M%S.%f" if "." in text else "%Y%m%d%H%M%S")
    except ValueError:
        return None
