# SPDX-License-Identifier: Apache-2.0
"""What a workshop's parent and child say to each other, beside ``isolation.wire``."""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide

_COUNT = struct.Struct("<I")
_SHAPE = struct.Struct("<III")
NOTHING, FRAME, HALF = -1, -2, -3
"""In a quad: no tile there; the next frame, or half, among the request's byte strings."""


def pack_frames(frames: Sequence[bytes]) -> bytes:
    lengths = struct.pack(f"<{len(frames)}I", *map(len, frames))
    return _COUNT.pack(len(frames)) + lengths + b"".join(frames)


def unpack_frames(data: bytes, expected: int) -> list[bytes]:
    """Raises DamagedSlide where a child answers something else."""
    try:
        (count,) = _COUNT.unpack_from(data)
        lengths = struct.unpack_from(f"<{count}I", data, _COUNT.size)
    except struct.error:
        count, lengths = -1, ()
    position = _COUNT.size * (count + 1)
    if count != expected or position + sum(lengths) != len(data):
        raise DamagedSlide("the file's reader gave no valid answer")
    frames = []
    for length in lengths:
        frames.append(data[position : position + length])
        position += length
    return frames


def pack_image(pixels: NDArray[np.uint8]) -> bytes:
    return _SHAPE.pack(*pixels.shape) + pixels.tobytes()


def unpack_image(data: bytes) -> NDArray[np.uint8]:
    """Raises DamagedSlide where a child answers something else."""
    if len(data) < _SHAPE.size:
        raise DamagedSlide("the file's reader gave no valid answer")
    shape = _SHAPE.unpack_from(data)
    if len(data) - _SHAPE.size != shape[0] * shape[1] * shape[2] or shape[2] not in (1, 3):
        raise DamagedSlide("the file's reader gave no valid answer")
    return np.frombuffer(data, np.uint8, offset=_SHAPE.size).reshape(shape)
