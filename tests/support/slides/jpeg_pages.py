# SPDX-License-Identifier: Apache-2.0
"""Pages of vendors' TIFFs, drawn for tests: JPEG tiles that share their tables, as
scanners write them."""

import io
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
WHITE = 255


def jpeg(pixels: Pixels, quality: int = 85, subsampling: tuple[int, int] = (2, 1)) -> bytes:
    """A JPEG file of (rows, columns, 3) or (rows, columns) pixels."""
    file = io.BytesIO()
    options = {"subsampling": SUBSAMPLING[subsampling]} if pixels.ndim == 3 else {}
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def split_tables(data: bytes) -> tuple[bytes, bytes]:
    """(Tables, abbreviated image) of a JPEG file; the JFIF segment is left out."""
    tables, rest, position = b"", b"", 2
    while True:
        marker = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        if marker in (0xDB, 0xC4):
            tables += segment
        elif marker == 0xDA:
            return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + data[position:]
        elif marker != 0xE0:
            rest += segment
        position = end


def cut(pixels: Pixels, tile: int, fill: int = WHITE) -> Iterator[Pixels]:
    """Tiles, row by row; what lies beyond the picture has the value ``fill``."""
    rows, columns = pixels.shape[:2]
    for top in range(0, rows, tile):
        for left in range(0, columns, tile):
            part = np.full((tile, tile, *pixels.shape[2:]), fill, np.uint8)
            inside = pixels[top : top + tile, left : left + tile]
            part[: inside.shape[0], : inside.shape[1]] = inside
            yield part


def padded(pixels: Pixels, tile: int, fill: int = WHITE) -> Pixels:
    """The picture, grown to whole tiles."""
    rows, columns = (-(-size // tile) * tile for size in pixels.shape[:2])
    whole = np.full((rows, columns, *pixels.shape[2:]), fill, np.uint8)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    return whole


def write_tiled(
    writer: tifffile.TiffWriter,
    planes: Pixels | list[Pixels],
    tile: int,
    *,
    description: str | None = None,
    subsampling: tuple[int, int] = (2, 1),
    missing: Collection[int] = (),
    shared_tables: bool = True,
    quality: int = 85,
    microns: float | None = None,
    extra: tuple[tuple[Any, ...], ...] = (),
    **options: Any,
) -> list[bytes]:
    """Write a page of JPEG tiles and return them as stored.

    Several ``planes`` make a volume (ImageDepth). ``missing`` are numbers of tiles
    written with offset and length 0. ``microns`` of a pixel give the resolution.
    """
    stack = planes if isinstance(planes, list) else [planes]
    files = [jpeg(part, quality, subsampling) for plane in stack for part in cut(plane, tile)]
    split = [split_tables(file) for file in files]
    tiles = [part for _, part in split] if shared_tables else files
    tiles = [b"" if number in missing else data for number, data in enumerate(tiles)]
    first = stack[0]
    colour = first.ndim == 3
    if shared_tables:
        extra = ((347, 7, len(split[0][0]), split[0][0], True), *extra)
    if colour:
        options |= {"photometric": "ycbcr", "subsampling": subsampling}
    else:
        options["photometric"] = "minisblack"
    if microns is not None:
        options |= {"resolution": (1e4 / microns, 1e4 / microns), "resolutionunit": "CENTIMETER"}
    shape: tuple[int, ...] = first.shape
    if len(stack) > 1:
        shape = (len(stack), *shape)
        options["volumetric"] = True
    writer.write(
        iter(tiles),
        shape=shape,
        dtype="uint8",
        tile=(1, tile, tile) if len(stack) > 1 else (tile, tile),
        compression="jpeg",
        description=description,
        metadata=None,
        extratags=extra,
        **options,
    )
    return tiles
