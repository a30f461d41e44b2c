# SPDX-License-Identifier: Apache-2.0
"""Philips TIFF files for tests; see ``converters.readers.philips_tiff`` for the format."""

import base64
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

import tifffile

from tests.support.make_slide import fit, picture, shrink
from tests.support.slides.jpeg_pages import jpeg, padded, write_tiled

GROUPS = {
    "DICOM_ACQUISITION_DATETIME": ("0x0008", "0x002A", "IString"),
    "DICOM_BITS_ALLOCATED": ("0x0028", "0x0100", "IUInt16"),
    "DICOM_DERIVATION_DESCRIPTION": ("0x0008", "0x2111", "IString"),
    "DICOM_DEVICE_SERIAL_NUMBER": ("0x0018", "0x1000", "IString"),
    "DICOM_LOSSY_IMAGE_COMPRESSION_METHOD": ("0x0028", "0x2114", "IStringArray"),
    "DICOM_LOSSY_IMAGE_COMPRESSION_RATIO": ("0x0028", "0x2112", "IDoubleArray"),
    "DICOM_MANUFACTURER": ("0x0008", "0x0070", "IString"),
    "DICOM_MANUFACTURERS_MODEL_NAME": ("0x0008", "0x1090", "IString"),
    "DICOM_PIXEL_SPACING": ("0x0028", "0x0030", "IDoubleArray"),
    "DICOM_SOFTWARE_VERSIONS": ("0x0018", "0x1020", "IStringArray"),
    "PIIM_PIXEL_DATA_REPRESENTATION_COLUMNS": ("0x2001", "0x115E", "IUInt32"),
    "PIIM_PIXEL_DATA_REPRESENTATION_NUMBER": ("0x1001", "0x8B02", "IUInt16"),
    "PIIM_PIXEL_DATA_REPRESENTATION_ROWS": ("0x2001", "0x115D", "IUInt32"),
    "PIM_DP_IMAGE_DATA": ("0x301D", "0x1005", "IString"),
    "PIM_DP_IMAGE_TYPE": ("0x301D", "0x1004", "IString"),
    "PIM_DP_UFS_BARCODE": ("0x301D", "0x1002", "IString"),
}


def write_philips_tiff(
    folder: Path,
    *,
    rows: int = 1200,
    columns: int = 1500,
    tile: int = 512,
    levels: Sequence[int] = (1, 2, 4),
    missing: Collection[int] = (),
    spacing_mm: tuple[float, float] = (0.000226891, 0.000226907),
    barcode: str = "S16-00042",
    acquired: str = "20160718122300.000000",
    pictures_in_xml: bool = True,
    pictures_in_pages: bool = False,
    seed: int = 11,
) -> Path:
    """Write ``slide.tiff``: a picture of ``rows`` x ``columns``, padded to whole tiles.

    ``levels`` are downsamples; ``missing`` tiles of the finest level are left out.
    Label and macro are in the XML, in pages, or in both.
    """
    base = padded(picture(rows, columns, seed), tile)
    label, macro = picture(120, 100, seed + 1), fit(picture(rows, columns, seed), 320)
    text = _description(base.shape[:2], tile, levels, spacing_mm, barcode, acquired)
    if pictures_in_xml:
        objects = "".join(
            _object(
                "DPScannedImage",
                ("PIM_DP_IMAGE_DATA", _base64(jpeg(pixels))),
                ("PIM_DP_IMAGE_TYPE", kind),
            )
            for kind, pixels in (("MACROIMAGE", macro), ("LABELIMAGE", label))
        )
        text = text.replace("<!-- pictures -->", objects)
    path = folder / "slide.tiff"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, factor in enumerate(levels):
            level = base if factor == 1 else padded(shrink(base, factor), tile)
            write_tiled(
                writer,
                level,
                tile,
                description=text if number == 0 else f"level={number} mag={40 / factor} quality=80",
                subsampling=(2, 2),
                missing=missing if number == 0 else (),
                software="Philips DP v1.0",
                subfiletype=0 if number == 0 else 1,
            )
        if pictures_in_pages:
            for name, pixels in (("Macro -offset=(0,0)", macro), ("Label", label)):
                writer.write(
                    pixels,
                    compression="jpeg",
                    photometric="ycbcr",
                    subsampling=(2, 2),
                    rowsperstrip=-(-pixels.shape[0] // 16) * 16,
                    description=name,
                    metadata=None,
                    software=False,
                    subfiletype=1,
                )
    return path


def _description(
    size: tuple[int, int],
    tile: int,
    levels: Sequence[int],
    spacing_mm: tuple[float, float],
    barcode: str,
    acquired: str,
) -> str:
    representations = "".join(
        _object(
            "PixelDataRepresentation",
            # rounded, as the scanner's software writes them
            ("DICOM_PIXEL_SPACING", _quoted(*[round(0.00022727 * factor, 9)] * 2)),
            ("PIIM_PIXEL_DATA_REPRESENTATION_COLUMNS", str(-(-size[1] // factor // tile) * tile)),
            ("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", str(number)),
            ("PIIM_PIXEL_DATA_REPRESENTATION_ROWS", str(-(-size[0] // factor // tile) * tile)),
        )
        for number, factor in enumerate(levels)
    )
    wsi = _object(
        "DPScannedImage",
        ("PIM_DP_IMAGE_TYPE", "WSI"),
        ("DICOM_PIXEL_SPACING", _quoted(*spacing_mm)),
        ("DICOM_BITS_ALLOCATED", "8"),
        ("DICOM_DERIVATION_DESCRIPTION", "tiff-useBigTIFF=1-useRgb=0-levels=40,10001,10002-processing=0-q80"),
        ("DICOM_LOSSY_IMAGE_COMPRESSION_METHOD", _quoted("PHILIPS_DP_1_0", "PHILIPS_TIFF_1_0")),
        ("DICOM_LOSSY_IMAGE_COMPRESSION_RATIO", _quoted(3, 15)),
        _array("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", "0x1001", "0x8B01", representations),
    )
    root = _object(
        "DPUfsImport",
        ("DICOM_MANUFACTURER", "PHILIPS"),
        ("DICOM_MANUFACTURERS_MODEL_NAME", "UFS Scanner"),
        ("DICOM_DEVICE_SERIAL_NUMBER", "FMT0123"),
        ("DICOM_SOFTWARE_VERSIONS", _quoted("1.8.6824", "20180906_R51")),
        ("DICOM_ACQUISITION_DATETIME", acquired),
        _array("PIM_DP_SCANNED_IMAGES", "0x301D", "0x1003", wsi + "<!-- pictures -->"),
        ("PIM_DP_UFS_BARCODE", _base64(barcode.encode())),
    )
    return f'<?xml version="1.0" encoding="UTF-8" ?>\n{root}'


def _object(kind: str, *parts: str | tuple[str, str]) -> str:
    inside = "".join(part if isinstance(part, str) else _attribute(*part) for part in parts)
    return f'<DataObject ObjectType="{kind}">{inside}</DataObject>'


def _attribute(name: str, value: str) -> str:
    group, element, kind = GROUPS[name]
    return (
        f'<Attribute Name="{name}" Group="{group}" Element="{element}" PMSVR="{kind}">'
        f"{escape(value)}</Attribute>\n"
    )


def _array(name: str, group: str, element: str, objects: str) -> str:
    return (
        f'<Attribute Name="{name}" Group="{group}" Element="{element}" PMSVR="IDataObjectArray">'
        f"<Array>{objects}</Array></Attribute>"
    )


def _quoted(*values: object) -> str:
    return " ".join(f'"{value}"' for value in values)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
