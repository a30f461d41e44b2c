# SPDX-License-Identifier: Apache-2.0
"""Pictures cut into tiles and encoded, for the slides of several vendors."""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
FILL = 240


def cut(pixels: Pixels, tile: int, fill: int = FILL) -> Iterator[tuple[int, int, Pixels]]:
    """(row, column, whole tile) of a picture, filled up at the right and lower edges."""
    for top in range(0, pixels.shape[0], tile):
        for left in range(0, pixels.shape[1], tile):
            part = pixels[top : top + tile, left : left + tile]
            whole = np.full((tile, tile, *pixels.shape[2:]), fill, pixels.dtype)
            whole[: part.shape[0], : part.shape[1]] = part
            yield top // tile, left // tile, whole


def jpeg(pixels: Pixels, quality: int = 85) -> bytes:
    """A JFIF of a grey or an RGB picture (as YCbCr 4:2:2)."""
    stream = io.BytesIO()
    options = {"subsampling": "4:2:2"} if pixels.ndim == 3 else {}
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


def halved(pixels: NDArray[np.generic], times: int) -> NDArray[np.generic]:
    """Every 2^times-th pixel's area averaged; sizes rounded down."""
    result = pixels
    for _ in range(times):
        rows, columns = result.shape[0] // 2 * 2, result.shape[1] // 2 * 2
        blocks = result[:rows, :columns].astype(np.uint32)
        mean = (blocks[::2, ::2] + blocks[1::2, ::2] + blocks[::2, 1::2] + blocks[1::2, 1::2] + 2) // 4
        result = mean.astype(pixels.dtype)
    return result
