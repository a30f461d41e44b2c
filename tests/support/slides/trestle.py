# SPDX-License-Identifier: Apache-2.0
"""Trestle MedScan slides, drawn for tests, with tiles that overlap or do not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.support.make_slide import picture, shrink
from tests.support.slides.jpeg_pages import jpeg, padded, write_tiled


def write_trestle(
    folder: Path,
    *,
    rows: int = 1000,
    columns: int = 1300,
    tile: int = 256,
    levels: Sequence[int] = (1, 2, 4),
    overlaps: Sequence[tuple[int, int]] = (),
    microns: float | None = 0.4,
    macro: bool = True,
    grain: bool = False,
) -> Path:
    """Write ``slide.tif`` and ``slide.Full``.

    ``overlaps`` are (columns, rows) for each level, as the file counts them. ``grain``
    makes what two tiles show of one place differ, so that it shows which lies on top.
    """
    base = picture(rows, columns, 51)
    listed = " ".join(f"{x} {y}" for x, y in overlaps or [(0, 0)] * len(levels))
    words = (
        "Background Color=E6E6E6;White Balance=FFFFFF;Objective Power=20;JPEG Quality=75;"
        f"OverlapsXY= {listed}"
    )
    path = folder / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, factor in enumerate(levels):
            level = base if factor == 1 else shrink(base, factor)
            across, down = overlaps[number] if number < len(overlaps) else (0, 0)
            if across or down:
                level = overlapping(level, tile, (down, across), grain=grain)
            resolution = (microns, microns) if microns else None
            write_tiled(
                writer,
                level,
                tile,
                description=words,
                subsampling=(1, 1),
                quality=95,
                software="MedScan 1.2",
                resolution=resolution,
                resolutionunit="INCH" if microns else None,
            )
    if macro:
        path.with_suffix(".Full").write_bytes(jpeg(picture(200, 500, 52)))
    return path


def overlapping(
    pixels: NDArray[np.uint8], tile: int, overlap: tuple[int, int], *, grain: bool = False
) -> NDArray[np.uint8]:
    """The picture as tiles that show ``overlap`` (rows, columns) of their
    neighbours, side by side; the last ones are cut."""
    step = (tile - overlap[0], tile - overlap[1])
    down, across = (
        max(1, -(-(size - lap) // one))
        for size, lap, one in zip(pixels.shape[:2], overlap, step, strict=True)
    )
    large = padded(pixels, max(down * tile, across * tile, *pixels.shape[:2]))
    out = np.zeros((down * tile, across * tile, 3), np.uint8)
    for row in range(down):
        for column in range(across):
            part = large[row * step[0] :, column * step[1] :][:tile, :tile]
            if grain:
                part = np.clip(part.astype(int) - 20 * ((row + column) % 3), 0, 255).astype(np.uint8)
            out[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = part
    return out[: pixels.shape[0] + (down - 1) * overlap[0], : pixels.shape[1] + (across - 1) * overlap[1]]


def write_stitched_trestle(folder: Path) -> Path:
    """One whose tiles overlap in two of its levels."""
    return write_trestle(folder, overlaps=((32, 16), (8, 0)))
