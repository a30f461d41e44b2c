# SPDX-License-Identifier: Apache-2.0
"""Philips iSyntax, version 1: an XML header, EOT, the seek table, the codeblocks.

Codeblocks lie in chunks of three scales (1 + 4 + 16 blocks for each colour); the chunks
of the coarsest scale hold what is left above, and the LL block. A chunk that is all
white is left out, with its blocks' entries in the header.

Sources: libisyntax (BSD-2), https://github.com/amspath/libisyntax; B. Hulsken, arXiv
2005.08713; tags and value types as Philips TIFF has them in its descriptions.
"""

import base64
import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.make_slide import picture, srgb_profile
from tests.support.slides.isyntax_codeblocks import encode_codeblock
from tests.support.slides.isyntax_header import DataObject
from tests.support.slides.isyntax_wavelet import WHITE, Bands, Plane, decompose, to_rgb, to_ycocg

Pixels = NDArray[np.uint8]

BLOCK = 128  # edge of a codeblock: tiles have twice as much
PADDING = 3
ORIGIN = (41_000, 58_000)  # (row, column) of the scan's first pixel, margin included
BARCODE = "S26-0815;A1"
EOT = b"\r\n\x04"
TABLE = "table of codeblocks"  # stands for it until offsets are known


@dataclass(frozen=True, eq=False)
class _Block:
    """One codeblock: where it stands, and its bands."""

    colour: int
    scale: int
    row: int
    column: int
    bands: Sequence[Plane]

    @property
    def is_ll(self) -> bool:
        return len(self.bands) == 1

    @property
    def empty(self) -> bool:
        expected = WHITE[self.colour] if self.is_ll else 0
        return all((band == expected).all() for band in self.bands)


@dataclass(frozen=True, eq=False)
class _Scan:
    """The picture on its grid of tiles, decomposed: ``planes[s]`` are the three of scale s."""

    rows: int
    columns: int
    levels: int
    planes: Sequence[Plane]
    bands: Sequence[Sequence[Bands]] = field(repr=False)  # [scale][colour]

    @property
    def margin(self) -> int:
        return (PADDING << self.levels) - PADDING

    def tiles(self, scale: int) -> tuple[int, int]:
        """(Down, across)."""
        _, rows, columns = self.planes[scale].shape
        return rows // (2 * BLOCK), columns // (2 * BLOCK)


def _scan(pixels: Pixels, levels: int) -> _Scan:
    rows, columns, _ = pixels.shape
    margin = (PADDING << levels) - PADDING
    edge = BLOCK << levels
    grid = [-(-(size + 2 * margin) // edge) * edge for size in (rows, columns)]
    plane = np.empty((3, *grid), np.int32)
    plane[:] = np.array(WHITE)[:, None, None]
    plane[:, margin : margin + rows, margin : margin + columns] = to_ycocg(pixels)
    planes, bands = [plane], []
    for _ in range(levels):
        bands.append([decompose(part, outside) for part, outside in zip(planes[-1], WHITE, strict=True)])
        planes.append(np.stack([band.ll for band in bands[-1]]))
    return _Scan(rows, columns, levels, planes, bands)


def expected_levels(pixels: Pixels, levels: int) -> list[Pixels]:
    """What each level holds: the low bands in RGB, from the sample of the finest level
    next to the pixel's centre that the grid has."""
    scan = _scan(pixels, levels)
    found = []
    for scale in range(levels):
        first = scan.margin if scale == 0 else (PADDING << (levels - scale)) - 2
        rows, columns = scan.rows >> scale, scan.columns >> scale
        found.append(to_rgb(scan.planes[scale][:, first : first + rows, first : first + columns]))
    return found


def tissue(rows: int = 1200, columns: int = 1500, seed: int = 7) -> Pixels:
    """A picture whose lower right part was never scanned."""
    pixels = picture(rows, columns, seed)
    pixels[rows * 3 // 4 :, columns * 3 // 5 :] = 255
    return pixels


def write_isyntax(
    folder: Path,
    *,
    name: str = "slide.isyntax",
    pixels: Pixels | None = None,
    levels: int = 4,
    compressor: int = 1,
    lossy: bool = False,
    keep_blank: bool = False,
    barcode: str = BARCODE,
    label: bool = True,
    macro: bool = True,
    icc: bool = True,
    um_per_pixel: float | None = 0.25,
    unit: str = "MicroMeter",
    wsi_first: bool = True,
    ranges_in_header: bool = False,
    zeros: int = 0,
) -> Path:
    """Write a slide (its pixels are :func:`tissue` unless given) and return its path.

    ``compressor`` is the codeblocks' version, 1 or 2. ``lossy`` only says so in the
    header. ``keep_blank`` writes the chunks that are all white, too.
    ``ranges_in_header`` puts byte ranges into the header, ``zeros`` that many before EOT.
    """
    scan = _scan(tissue() if pixels is None else pixels, levels)
    chunks = [chunk for chunk in _chunks(scan) if keep_blank or not all(block.empty for block in chunk)]
    blocks = [block for chunk in chunks for block in chunk]
    encoded = [encode_codeblock(block.bands, compressor) for block in blocks]
    lengths = np.array([len(data) for data in encoded], np.int64)
    offsets = np.cumsum(lengths + 8) - lengths  # a tag goes before each
    wsi = _wsi(scan, compressor, lossy, icc, um_per_pixel, unit)
    images = [DataObject("DPScannedImage", wsi)]
    for kind, wanted, size in (("LABELIMAGE", label, (300, 320)), ("MACROIMAGE", macro, (300, 800))):
        if wanted:
            jpeg = base64.b64encode(associated_jpeg(kind, size)).decode()
            data = [("PIM_DP_IMAGE_TYPE", kind), ("PIM_DP_IMAGE_DATA", jpeg)]
            images.append(DataObject("DPScannedImage", data))
    if not wsi_first:
        images.reverse()
    header = DataObject(
        "DPUfsImport",
        (
            ("DICOM_MANUFACTURER", "PHILIPS"),
            ("DICOM_ACQUISITION_DATETIME", "20260314092653.000000"),
            ("DICOM_MANUFACTURERS_MODEL_NAME", "UFS Scanner"),
            ("DICOM_DEVICE_SERIAL_NUMBER", "FMT0777"),
            ("DICOM_SOFTWARE_VERSIONS", '"1.8.6824" "20180906_R51"'),
            ("DICOM_DATE_OF_LAST_CALIBRATION", '"20260313"'),
            ("DICOM_TIME_OF_LAST_CALIBRATION", '"081500"'),
            ("PIIM_DP_SCANNER_RACK_NUMBER", "3"),
            ("PIIM_DP_SCANNER_SLOT_NUMBER", "7"),
            ("PIIM_DP_SCANNER_OPERATOR_ID", "Operator ID"),
            ("PIIM_DP_SCANNER_CALIBRATION_STATUS", "OK"),
            ("PIM_DP_UFS_INTERFACE_VERSION", "5.0"),
            ("PIM_DP_UFS_BARCODE", base64.b64encode(barcode.encode()).decode()),
            ("PIM_DP_SCANNED_IMAGES", images),
        ),
    )

    def head(ranges: NDArray[np.int64]) -> bytes:
        table = b"".join(
            _header(scan, block, where if ranges_in_header else None)
            for block, where in zip(blocks, ranges.tolist(), strict=True)
        )
        text = base64.b64encode(struct.pack("<I", len(table)) + table).decode()
        return header.xml().replace(TABLE, text).encode() + bytes(zeros) + EOT

    ranges = np.stack((offsets, lengths), axis=1)
    seek = b"" if ranges_in_header else _seek_table(scan, blocks, ranges)
    ranges[:, 0] += len(head(ranges)) + len(seek)
    seek = b"" if ranges_in_header else _seek_table(scan, blocks, ranges)
    path = folder / name
    path.write_bytes(
        head(ranges) + seek + b"".join(_tag(0x7FE0, 0x0010, len(data)) + data for data in encoded)
    )
    return path


def write_small_isyntax(folder: Path) -> Path:
    """300 x 400 pixels, three levels."""
    return write_isyntax(folder, pixels=tissue(300, 400), levels=3)


def associated_jpeg(kind: str, size: tuple[int, int]) -> bytes:
    """The JPEG of label or macro, ``size`` is (rows, columns)."""
    buffer = io.BytesIO()
    Image.fromarray(picture(*size, seed=len(kind))).save(buffer, "JPEG", quality=85, comment=kind)
    return buffer.getvalue()


def _chunks(scan: _Scan) -> Iterator[list[_Block]]:
    """Coarsest first; within a chunk colours one after the other, coarse blocks first."""
    top = scan.levels - 1
    for scale in range(top, -1, -1):
        if scale != top and scale % 3 != 2:
            continue
        down, across = scan.tiles(scale)
        for row in range(down):
            for column in range(across):
                yield [block for colour in range(3) for block in _of_colour(scan, colour, scale, row, column)]


def _of_colour(scan: _Scan, colour: int, scale: int, row: int, column: int) -> Iterator[_Block]:
    for below in range(scale % 3 + 1):
        for place in range(4**below):
            r, c = (row << below) + (place >> below), (column << below) + (place & ((1 << below) - 1))
            bands = [_cut(band, r, c) for band in scan.bands[scale - below][colour].high]
            yield _Block(colour, scale - below, r, c, bands)
    if scale == scan.levels - 1:
        yield _Block(colour, scale, row, column, [_cut(scan.bands[scale][colour].ll, row, column)])


def _cut(band: Plane, row: int, column: int) -> Plane:
    return band[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]


def _template(scan: _Scan, block: _Block) -> int:
    """Number of the block's template: high bands by colour and scale, then LL by colour."""
    return 3 * scan.levels + block.colour if block.is_ll else block.colour * scan.levels + block.scale


def _ranges(*ranges: tuple[int, int, int]) -> tuple[str, list[DataObject]]:
    return "UFS_IMAGE_DIMENSION_RANGES", [
        DataObject("UFSImageDimensionRange", [("UFS_IMAGE_DIMENSION_RANGE", f"{start} {step} {end}")])
        for start, step, end in ranges
    ]


def _wsi(
    scan: _Scan,
    compressor: int,
    lossy: bool,
    icc: bool,
    um_per_pixel: float | None,
    unit: str,
) -> list[tuple[str, "str | Sequence[DataObject]"]]:
    method = {1: "16", 2: "19"}[compressor]
    attributes: list[tuple[str, str | Sequence[DataObject]]] = [
        ("PIM_DP_IMAGE_TYPE", "WSI"),
        (
            "DICOM_DERIVATION_DESCRIPTION",
            f"PHILIPS UFS V1.8.6824 | Quality={2 * lossy} | DWT=1 | Compressor={method}",
        ),
        ("DICOM_LOSSY_IMAGE_COMPRESSION", "01" if lossy else "00"),
        ("DICOM_LOSSY_IMAGE_COMPRESSION_RATIO", "4"),
        ("DICOM_LOSSY_IMAGE_COMPRESSION_METHOD", '"PHILIPS_DP_1_0"'),
    ]
    if icc:
        profile = base64.b64encode(srgb_profile()).decode()
        attributes.append(
            ("DP_COLOR_MANAGEMENT", [DataObject("DPColorManagement", [("DICOM_ICCPROFILE", profile)])])
        )
    spatial = [("UFS_IMAGE_DIMENSION_TYPE", "spatial"), ("UFS_IMAGE_DIMENSION_UNIT", unit)]
    if um_per_pixel is not None:
        spatial.append(("UFS_IMAGE_DIMENSION_SCALE_FACTOR", str(um_per_pixel)))
    dimensions = [
        DataObject("UFSImageDimension", [("UFS_IMAGE_DIMENSION_NAME", axis), *spatial]) for axis in "xy"
    ]
    for axis, kind, values in (
        ("component", "colour component", '"Y" "Co" "Cg"'),
        ("scale", "scale", ""),
        ("waveletcoef", "waveletcoef", '"LL" "LH" "HL" "HH"'),
    ):
        listed = [("UFS_IMAGE_DIMENSION_DISCRETE_VALUES_STRING", values)] if values else []
        named = [("UFS_IMAGE_DIMENSION_NAME", axis), ("UFS_IMAGE_DIMENSION_TYPE", kind)]
        dimensions.append(DataObject("UFSImageDimension", [*named, *listed]))
    (first_row, first_column), margins = ORIGIN, 2 * scan.margin
    general = DataObject(
        "UFSImageGeneralHeader",
        (
            ("UFS_IMAGE_NUMBER_OF_BLOCKS", str(_entries(scan))),
            ("UFS_IMAGE_DIMENSIONS_OVER_BLOCK", "0 1 2 3 4"),
            ("UFS_IMAGE_DIMENSIONS", dimensions),
            _ranges(
                (first_column, 1, first_column + scan.columns + margins - 1),
                (first_row, 1, first_row + scan.rows + margins - 1),
                (0, 1, 2),
                (0, 1, scan.levels - 1),
                (0, 1, 3),
            ),
        ),
    )
    return [
        *attributes,
        ("UFS_IMAGE_GENERAL_HEADERS", [general]),
        ("UFS_IMAGE_BLOCK_HEADER_TEMPLATES", list(_templates(scan, method))),
        ("UFS_IMAGE_BLOCK_HEADER_TABLE", TABLE),
    ]


def _templates(scan: _Scan, method: str) -> Iterator[DataObject]:
    high = [(colour, scale, (1, 1, 3)) for colour in range(3) for scale in range(scan.levels)]
    low = [(colour, scan.levels - 1, (0, 1, 0)) for colour in range(3)]
    for colour, scale, coefficients in high + low:
        step = 2 << scale
        edge = (0, step, (BLOCK - 1) * step)
        yield DataObject(
            "UFSImageBlockHeaderTemplate",
            (
                ("DICOM_SAMPLES_PER_PIXEL", "1"),
                ("DICOM_BITS_ALLOCATED", "16"),
                ("DICOM_BITS_STORED", "16"),
                ("DICOM_HIGH_BIT", "15"),
                ("DICOM_PIXEL_REPRESENTATION", "1"),
                ("UFS_IMAGE_DIMENSIONS_IN_BLOCK", "0 1 4"),
                ("UFS_IMAGE_BLOCK_COMPRESSION_METHOD", method),
                _ranges(edge, edge, (colour, 1, colour), (scale, 1, scale), coefficients),
            ),
        )


def _header(scan: _Scan, block: _Block, where: Sequence[int] | None) -> bytes:
    """The block's entry in the header table: its place, and (offset, length) if it goes here."""
    first = (PADDING << block.scale) - 2 + block.is_ll * (1 << block.scale)
    step = 2 * BLOCK << block.scale
    row, column = (
        origin + first + at * step for origin, at in zip(ORIGIN, (block.row, block.column), strict=True)
    )
    body = (
        _tag(0x301D, 0x200E, 20)
        + struct.pack("<5I", column, row, block.colour, block.scale, not block.is_ll)
        + (_range(*where) if where else b"")
        + _tag(0x301D, 0x2012, 4)
        + struct.pack("<I", _template(scan, block))
    )
    return _tag(0xFFFE, 0xE000, len(body)) + body


def _range(offset: int, length: int) -> bytes:
    return struct.pack("<HHIQHHIQ", 0x301D, 0x2010, 8, offset, 0x301D, 0x2011, 8, length)


def _tag(group: int, element: int, size: int) -> bytes:
    return struct.pack("<HHI", group, element, size)


def _entries(scan: _Scan) -> int:
    """Places in the seek table: every block that the grid could have."""
    down, across = scan.tiles(scan.levels - 1)
    return 3 * (sum(int(np.prod(scan.tiles(scale))) for scale in range(scan.levels)) + down * across)


def _entry(scan: _Scan, block: _Block) -> int:
    scales = range(block.scale + block.is_ll)
    place = block.row * scan.tiles(block.scale)[1] + block.column
    before = sum(int(np.prod(scan.tiles(scale))) for scale in scales)
    return block.colour * (_entries(scan) // 3) + before + place


def _seek_table(scan: _Scan, blocks: Sequence[_Block], ranges: NDArray[np.int64]) -> bytes:
    places = np.zeros((_entries(scan), 2), np.int64)
    places[[_entry(scan, block) for block in blocks]] = ranges
    body = b"".join(_tag(0xFFFE, 0xE000, 32) + _range(*where) for where in places.tolist())
    return _tag(0x301D, 0x2015, len(body)) + body
