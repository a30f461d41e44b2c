# SPDX-License-Identifier: Apache-2.0
"""Hamamatsu VMS (a matrix of JPEGs) and VMU (uncompressed NGR) from public format notes
(openslide.org/formats/hamamatsu)."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.make_slide import fit, picture, shrink
from tests.support.slides.restart_jpeg import encode_jpeg, starts

NANOMETRES_PER_PIXEL = 228


def write_vms(
    folder: Path,
    *,
    heights: Sequence[int] = (512, 304),
    widths: Sequence[int] = (1024, 512),
    interval_columns: int = 512,
    subsampling: str = "422",
    layers: int = 1,
    layer_spacing_nm: int = 2032236150,
    map_factor: int = 4,
    optimisation: bool = True,
    seed: int = 7,
) -> Path:
    """``heights`` and ``widths`` are those of the image files. Returns the index file."""
    name = "slide"
    lines = [f"NoLayers={layers}", f"NoJpegColumns={len(widths)}", f"NoJpegRows={len(heights)}"]
    entries = bytearray()
    for layer in range(layers):
        pixels = picture(sum(heights), sum(widths), seed + layer)
        for row, height in enumerate(heights):
            for column, width in enumerate(widths):
                top, left = sum(heights[:row]), sum(widths[:column])
                part = np.ascontiguousarray(pixels[top : top + height, left : left + width])
                jpeg = encode_jpeg(part, interval_columns=interval_columns, subsampling=subsampling)
                place = _place(layer, column, row)
                (folder / f"{name}{place}.jpg").write_bytes(jpeg)
                lines.append(f"ImageFile{place}={name}{place}.jpg")
                for begin in starts(jpeg)[:: max(1, width // interval_columns)]:
                    entries += struct.pack("<Q", begin).ljust(40, b"\0")
    pixels = picture(sum(heights), sum(widths), seed)
    small = shrink(pixels, map_factor)
    (folder / f"{name}_map2.jpg").write_bytes(
        encode_jpeg(small, interval_columns=small.shape[1] // 16 * 16, subsampling=subsampling)
    )
    if optimisation:
        (folder / f"{name}.opt").write_bytes(entries[:-40])
    lines += [f"MapFile={name}_map2.jpg", f"OptimisationFile={name}.opt", "AuthCode=635108335"]
    return _finish(folder, f"{name}.vms", "Virtual Microscope Specimen", lines, pixels, layer_spacing_nm)


def write_vmu(
    folder: Path, *, rows: int = 700, columns: int = 900, column_width: int = 300, seed: int = 7
) -> Path:
    pixels = picture(rows, columns, seed)
    (folder / "raw.ngr").write_bytes(ngr(pixels, column_width))
    small = shrink(pixels, 4)
    (folder / "raw_map.ngr").write_bytes(ngr(small, small.shape[1]))
    lines = [
        "NoLayers=1", "ImageFile=raw.ngr", "MapFile=raw_map.ngr", "MapScale=4", "AuthCode=1",
        f"PixelWidth={columns}", f"PixelHeight={rows}", "BitsPerPixel=36", "PixelOrder=RGB",
        "Creator=NDP.scan 1.0", "HardwareModel=C9600-02", "HardwareSerial=000042",
    ]  # fmt: skip
    section = "Uncompressed Virtual Microscope Specimen"
    return _finish(folder, "raw.vmu", section, lines, pixels, 2032236150)


def ngr(pixels: NDArray[np.uint8], column_width: int) -> bytes:
    """12 bits of each colour, the lowest four of them noise, in columns."""
    rows, columns = pixels.shape[:2]
    deep = pixels.astype("<u2") * 16 + (np.arange(columns) % 16).astype("<u2")[:, np.newaxis]
    parts = [np.ascontiguousarray(deep[:, at : at + column_width]) for at in range(0, columns, column_width)]
    head = struct.pack("<2s2xIII8xI", b"GN", columns, rows, column_width, 64).ljust(64, b"\0")
    return head + b"".join(part.tobytes() for part in parts)


def _place(layer: int, column: int, row: int) -> str:
    if layer:
        return f"({layer},{column},{row})"
    return f"({column},{row})" if column or row else ""


def _finish(
    folder: Path,
    name: str,
    section: str,
    lines: Sequence[str],
    pixels: NDArray[np.uint8],
    layer_spacing_nm: int,
) -> Path:
    stem = name.partition(".")[0]
    (folder / f"{stem}_macro.jpg").write_bytes(encode_jpeg(fit(pixels, 640)))
    rows, columns = pixels.shape[:2]
    common = [
        "SourceLens=40.000000", f"PhysicalWidth={columns * NANOMETRES_PER_PIXEL}",
        f"PhysicalHeight={rows * NANOMETRES_PER_PIXEL}", f"LayerSpacing={layer_spacing_nm}",
        f"MacroImage={stem}_macro.jpg", "PhysicalMacroWidth=76000000", "PhysicalMacroHeight=26000000;",
        "XOffsetFromSlideCentre=4876667", "YOffsetFromSlideCentre=-2340000", "Reference=SYN-VMS",
    ]  # fmt: skip
    path = folder / name
    path.write_bytes("\r\n".join([f"[{section}]", *lines, *common, ""]).encode())
    return path
