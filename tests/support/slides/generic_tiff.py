# SPDX-License-Identifier: Apache-2.0
"""Pyramidal TIFFs without any vendor's mark, drawn for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.support.make_slide import fit, picture, srgb_profile
from tests.support.slides.jpeg_pages import write_tiled


def write_generic_tiff(
    folder: Path,
    *,
    rows: int = 1100,
    columns: int = 1300,
    compression: str | None = "jpeg",
    tile: int | None = 256,
    rowsperstrip: int = 32,
    levels: Sequence[int] = (1, 2, 4),
    microns: float | None = 0.5,
    below: bool = False,
    bigtiff: bool = False,
    flagged: bool = True,
    named: bool = False,
    pixels: NDArray[Any] | None = None,
    photometric: str = "rgb",
    icc: bool = False,
    name: str = "slide.tiff",
    **options: Any,
) -> Path:
    """Write ``name``: ``pixels`` (a drawn RGB picture) in several sizes, every ``factor``-th
    pixel of it.

    ``tile`` None writes strips. ``below`` puts coarser levels into SubIFDs. ``flagged``
    marks them as reduced images. ``named`` adds a label and a macro by description.
    """
    base = picture(rows, columns, 31) if pixels is None else pixels
    path = folder / name
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for number, factor in enumerate(levels):
            form: dict[str, Any] = {"subfiletype": int(flagged and number > 0), "software": False}
            if below and number == 0:
                form["subifds"] = len(levels) - 1
            if icc and number == 0:
                form["iccprofile"] = srgb_profile()
            level = np.ascontiguousarray(base[::factor, ::factor])
            if compression == "jpeg" and tile:
                write_tiled(writer, level, tile, microns=microns and microns * factor, **form)
                continue
            if microns:
                form |= {"resolution": (1e4 / microns / factor,) * 2, "resolutionunit": "CENTIMETER"}
            form |= {"tile": (tile, tile)} if tile else {"rowsperstrip": rowsperstrip}
            writer.write(
                level, compression=compression, photometric=photometric, metadata=None, **form, **options
            )
        if named:
            for title, shown in (
                ("label image", picture(120, 160, 5)),
                ("macro", fit(picture(300, 500, 6), 300)),
            ):
                writer.write(
                    shown,
                    compression="lzw",
                    photometric="rgb",
                    metadata=None,
                    description=title,
                    software=False,
                )
    return path


def as_aperio_jpeg_2000(path: Path) -> Path:
    """Number JPEG 2000 as Aperio does (33005), in every page of the file."""
    data = path.read_bytes()
    for form in ("<", ">"):
        kind = "little" if form == "<" else "big"
        old, new = (
            (259).to_bytes(2, kind) + (3).to_bytes(2, kind) + (1).to_bytes(4, kind) + code.to_bytes(2, kind)
            for code in (34712, 33005)
        )
        data = data.replace(old, new)
    path.write_bytes(data)
    return path


def write_deflated_tiff(folder: Path) -> Path:
    """A small one whose tiles must be decoded."""
    return write_generic_tiff(folder, rows=500, columns=600, compression="zlib", levels=(1, 2))
