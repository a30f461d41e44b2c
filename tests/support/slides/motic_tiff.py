# SPDX-License-Identifier: Apache-2.0
"""Motic's export as SVS, drawn for tests."""

from collections.abc import Sequence
from pathlib import Path

import tifffile

from tests.support.make_slide import fit, picture, shrink
from tests.support.slides.jpeg_pages import write_tiled


def write_motic_tiff(
    folder: Path,
    *,
    rows: int = 1100,
    columns: int = 1300,
    tile: int = 512,
    levels: Sequence[int] = (1, 2, 4),
    microns: str = "0.257290",
    power: str = "40",
    pictures: bool = True,
    subsampling: tuple[int, int] = (2, 1),
) -> Path:
    """Write ``slide.svs``. ``microns`` and ``power`` "" leave MPP and AppMag out."""
    base = picture(rows, columns, 41)
    whole = f"Motic V1.0.0 {columns}x{rows}"
    first = f"{whole} [0,0 {columns}x{rows}] [{tile}x{tile}] JPEG/RGB Q = 75"
    first += (f"|AppMag = {power}" if power else "") + (f"|MPP = {microns}" if microns else "")
    path = folder / "slide.svs"
    with tifffile.TiffWriter(path) as writer:
        for number, factor in enumerate(levels):
            level = base if factor == 1 else shrink(base, factor)
            size = f"{level.shape[1]}x{level.shape[0]}"
            words = (
                first if number == 0 else f"{whole} [0,0 {columns}x{rows}] [{tile}x{tile}] -> {size} JPEG/RGB"
            )
            write_tiled(writer, level, tile, description=words, subsampling=subsampling, software=False)
            if number == 0:
                thumbnail = fit(base, 320)
                writer.write(
                    thumbnail,
                    compression="jpeg",
                    photometric="ycbcr",
                    rowsperstrip=16,
                    description=f"{whole} -> {thumbnail.shape[1]}x{thumbnail.shape[0]} - ",
                    metadata=None,
                    software=False,
                )
        if pictures:
            for name, shown in (("label", picture(120, 160, 42)), ("macro", picture(150, 400, 43))):
                writer.write(
                    shown,
                    compression="lzw",
                    photometric="rgb",
                    description=f"{whole}\r\n{name} {shown.shape[1]}x{shown.shape[0]}",
                    metadata=None,
                    software=False,
                    subfiletype=1,
                )
    return path
