# SPDX-License-Identifier: Apache-2.0
"""Philips iSyntax: an XML header, EOT, in version 1 the seek table, the codeblocks.

A chunk of codeblocks that is all white is left out, with its entries in the header.

Sources: libisyntax (BSD-2), https://github.com/amspath/libisyntax; B. Hulsken, arXiv
2005.08713; tags and value types as Philips TIFF has them in its descriptions.
"""

import base64
import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.make_slide import picture, srgb_profile
from tests.support.slides.isyntax_codeblocks import encode_codeblock
from tests.support.slides.isyntax_grid import (
    BLOCK,
    ORIGIN,
    PADDING,
    Pixels,
    Scan,
    chunks_of,
    places_of,
    scanned,
)
from tests.support.slides.isyntax_header import DataObject, dimension_ranges
from tests.support.slides.isyntax_tables import (
    cluster_table,
    cluster_templates,
    header_table,
    seek_table,
    tag,
)
from tests.support.slides.isyntax_wavelet import to_rgb

BARCODE = "S26-0815;A1"
EOT = b"\r\n\x04"
TABLE = "table of codeblocks"  # stands for it until offsets are known


def expected_levels(pixels: Pixels, levels: int) -> list[Pixels]:
    """What each level holds: the low bands in RGB, from the sample of the finest level
    next to the pixel's centre that the grid has."""
    scan = scanned(pixels, levels)
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
    table: Literal["seek", "header", "clusters"] = "seek",
    zeros: int = 0,
) -> Path:
    """Write a slide (its pixels are :func:`tissue` unless given) and return its path.

    ``compressor`` is the codeblocks' version, 1 or 2. ``lossy`` only says so in the
    header. ``keep_blank`` writes the chunks that are all white, too.
    ``table`` says where byte ranges stand: in the seek table, in the header beside the
    blocks' places, or there by clusters (version 2). ``zeros`` stand before EOT.
    """
    scan = scanned(tissue() if pixels is None else pixels, levels)
    chunks = [chunk for chunk in chunks_of(scan) if keep_blank or not all(block.empty for block in chunk)]
    blocks = [block for chunk in chunks for block in chunk]
    encoded = [encode_codeblock(block.bands, compressor) for block in blocks]
    lengths = np.array([len(data) for data in encoded], np.int64)
    offsets = np.cumsum(lengths + 8) - lengths  # a tag goes before each
    clusters = list(cluster_templates(scan, chunks)) if table == "clusters" else []
    wsi = _wsi(scan, compressor, lossy, icc, um_per_pixel, unit, clusters)
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
            ("PIM_DP_UFS_INTERFACE_VERSION", "100.5" if clusters else "5.0"),
            ("PIM_DP_UFS_BARCODE", base64.b64encode(barcode.encode()).decode()),
            ("PIM_DP_SCANNED_IMAGES", images),
        ),
    )

    def head(ranges: NDArray[np.int64]) -> bytes:
        if table == "clusters":
            data = cluster_table(scan, chunks, ranges)
        else:
            data = header_table(scan, blocks, ranges if table == "header" else None)
        text = base64.b64encode(struct.pack("<I", len(data)) + data).decode()
        seek = seek_table(scan, blocks, ranges) if table == "seek" else b""
        return header.xml().replace(TABLE, text).encode() + bytes(zeros) + EOT + seek

    ranges = np.stack((offsets, lengths), axis=1)
    ranges[:, 0] += len(head(ranges))
    path = folder / name
    path.write_bytes(head(ranges) + b"".join(tag(0x7FE0, 0x0010, len(data)) + data for data in encoded))
    return path


def write_small_isyntax(folder: Path) -> Path:
    """300 x 400 pixels, three levels."""
    return write_isyntax(folder, pixels=tissue(300, 400), levels=3)


def associated_jpeg(kind: str, size: tuple[int, int]) -> bytes:
    """The JPEG of label or macro, ``size`` is (rows, columns)."""
    buffer = io.BytesIO()
    Image.fromarray(picture(*size, seed=len(kind))).save(buffer, "JPEG", quality=85, comment=kind)
    return buffer.getvalue()


def _wsi(
    scan: Scan,
    compressor: int,
    lossy: bool,
    icc: bool,
    um_per_pixel: float | None,
    unit: str,
    clusters: Sequence[DataObject],
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
            ("UFS_IMAGE_NUMBER_OF_BLOCKS", str(places_of(scan))),
            ("UFS_IMAGE_DIMENSIONS_OVER_BLOCK", "0 1 2 3 4"),
            ("UFS_IMAGE_DIMENSIONS", dimensions),
            dimension_ranges(
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
        *(
            (("UFS_IMAGE_CLUSTER_HEADER_TEMPLATES", clusters), ("UFS_IMAGE_CLUSTER_HEADER_TABLE", TABLE))
            if clusters
            else (("UFS_IMAGE_BLOCK_HEADER_TABLE", TABLE),)
        ),
    ]


def _templates(scan: Scan, method: str) -> Iterator[DataObject]:
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
                dimension_ranges(edge, edge, (colour, 1, colour), (scale, 1, scale), coefficients),
            ),
        )
