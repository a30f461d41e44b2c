# SPDX-License-Identifier: Apache-2.0
"""Akoya/PerkinElmer QPTIFF, drawn for tests: brightfield, bands of fluorescence, unmixed components."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.support.make_slide import fit, picture, shrink
from tests.support.slides.jpeg_pages import write_tiled

SOFTWARE = "PerkinElmer-QPI"
BANDS = (
    ("DAPI", "0,0,255", 2630),
    ("Opal 520", "0,255,0", 14290),
    ("Opal 570", "255,255,0", 208030),
    ("Opal 690", "255,0,0", 5000),
)
"""Name, colour, exposure in µs."""


def band(number: int, rows: int, columns: int, dtype: str = "uint8", seed: int = 21) -> NDArray[Any]:
    """What band ``number`` shows: grey of ``dtype``, floats from -0.5 to 3."""
    pixels = picture(rows, columns, seed + number)[..., number % 3]
    if dtype == "uint16":
        return pixels.astype(np.uint16) * 200 + np.uint16(number)
    if dtype == "float32":
        return (pixels.astype(np.float32) / 73 - 0.5).astype(np.float32)
    return pixels


def description(
    kind: str,
    name: str = "",
    colour: str = "",
    exposure: int = 1000,
    *,
    barcode: str = "S20-00042",
    unmixed: bool = False,
    extra: str = "",
) -> str:
    """The XML of a page, which calls itself UTF-16."""
    named = f"  <Name>{escape(name)}</Name>\r\n  <Color>{colour}</Color>\r\n" if name else ""
    return (
        '<?xml version="1.0" encoding="utf-16"?>\r\n<PerkinElmer-QPI-ImageDescription>\r\n'
        "  <DescriptionVersion>2</DescriptionVersion>\r\n"
        "  <AcquisitionSoftware>VectraScan 1.0</AcquisitionSoftware>\r\n"
        f"  <ImageType>{kind}</ImageType>\r\n"
        "  <Identifier>688b0669-3edf-4fcf-957a-47b06bacfa36</Identifier>\r\n"
        f"  <SlideID>SYN-Q1</SlideID>\r\n  <Barcode>{escape(barcode)}</Barcode>\r\n"
        f"  <IsUnmixedComponent>{unmixed}</IsUnmixedComponent>\r\n"
        f"  <ExposureTime>{exposure}</ExposureTime>\r\n{named}"
        "  <InstrumentType>PhenoImager HT</InstrumentType>\r\n  <Objective>20x</Objective>\r\n"
        f"{extra}</PerkinElmer-QPI-ImageDescription>"
    )


def write_qptiff(
    folder: Path,
    *,
    rows: int = 1100,
    columns: int = 1300,
    kind: str = "fluorescence",
    dtype: str = "uint8",
    compression: str = "lzw",
    tile: int | None = 512,
    levels: Sequence[int] = (1, 2, 4),
    bands: int = 4,
    microns: float | None = 0.5,
    leave_out: int | None = None,
    extra: str = "",
    pictures: bool = True,
) -> Path:
    """Write ``slide.qptiff``.

    ``kind`` is "fluorescence", "brightfield" (JPEG of RGB) or "component" (inForm: floats
    in strips, one level). ``tile`` None writes strips. ``leave_out`` is a band that the
    coarser levels lack. ``extra`` joins the XML of full resolution pages.
    """
    path = folder / "slide.qptiff"
    with tifffile.TiffWriter(path, bigtiff=kind != "component") as writer:
        for level, factor in enumerate((1,) if kind == "component" else levels):
            name = "FullResolution" if level == 0 else "ReducedResolution"
            options: dict[str, Any] = {"software": SOFTWARE, "subfiletype": int(level > 0)}
            options["datetime"] = "2020:01:02 03:04:05"
            if kind == "brightfield":
                pixels = picture(rows, columns, 20)
                level_pixels = pixels if factor == 1 else shrink(pixels, factor)
                size = microns * factor if microns else None
                words = description(name, extra=extra if level == 0 else "")
                write_tiled(
                    writer, level_pixels, tile or 512, description=words, subsampling=(2, 2),
                    microns=size, **options,
                )  # fmt: skip
            else:
                _write_bands(
                    writer, name, factor, (rows, columns), dtype if kind != "component" else "float32",
                    [number for number in range(bands) if level == 0 or number != leave_out],
                    options | {"compression": compression, "tile": (tile, tile) if tile else None},
                    microns, extra if level == 0 else "", kind == "component",
                )  # fmt: skip
            if level == 0 and pictures and kind != "component":
                _write_picture(writer, "Thumbnail", fit(picture(rows, columns, 20), 256))
        if pictures and kind != "component":
            _write_picture(writer, "Overview", picture(300, 150, 5))
            _write_picture(writer, "Label", picture(120, 160, 6))
    return path


def _write_bands(
    writer: tifffile.TiffWriter,
    name: str,
    factor: int,
    size: tuple[int, int],
    dtype: str,
    numbers: Sequence[int],
    options: dict[str, Any],
    microns: float | None,
    extra: str,
    unmixed: bool,
) -> None:
    if options["tile"] is None:
        options = {**options, "tile": None, "rowsperstrip": 16}
    if microns:
        options = options | {"resolution": (1e4 / microns / factor,) * 2, "resolutionunit": "CENTIMETER"}
    for number in numbers:
        title, colour, exposure = BANDS[number]
        writer.write(
            band(number, *size, dtype)[::factor, ::factor],
            photometric="minisblack",
            metadata=None,
            description=description(name, title, colour, exposure, unmixed=unmixed, extra=extra),
            **options,
        )


def _write_picture(writer: tifffile.TiffWriter, kind: str, pixels: NDArray[np.uint8]) -> None:
    writer.write(
        pixels,
        photometric="rgb",
        compression="lzw",
        metadata=None,
        description=description(kind),
        software=SOFTWARE,
    )


def write_component_tiff(folder: Path) -> Path:
    """Four unmixed components in strips of floats."""
    return write_qptiff(folder, kind="component", tile=None, rows=300, columns=340)
