# SPDX-License-Identifier: Apache-2.0
"""JPEGs with restart markers, as Hamamatsu's scanners write them: encoded by libjpeg, cut
into their intervals, and joined anew where a JPEG is larger than libjpeg writes."""

import io
import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MCU = {"444": (8, 8), "422": (8, 16), "420": (16, 16), "grey": (8, 8)}
"""Pixels of a minimum coded unit as (rows, columns), by sampling."""
EOI = b"\xff\xd9"


def encode_jpeg(
    pixels: NDArray[np.uint8],
    *,
    interval_columns: int | None = None,
    subsampling: str = "444",
    quality: int = 80,
) -> bytes:
    """(rows, columns, 3) or (rows, columns) as baseline JPEG, a restart marker after every
    ``interval_columns`` pixels of a row of MCUs; None: without."""
    options: dict[str, int | str] = {"quality": quality}
    sampling = "grey" if pixels.ndim == 2 else subsampling
    if pixels.ndim == 3:
        options["subsampling"] = ":".join(subsampling)
    if interval_columns is not None:
        options["restart_marker_blocks"] = interval_columns // MCU[sampling][1]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def head_length(jpeg: bytes) -> int:
    """Bytes through SOS, after which entropy-coded data begins."""
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", jpeg, position)
        position += 2 + length
        if marker == 0xFFDA:
            return position


def starts(jpeg: bytes) -> list[int]:
    """Offset of each restart interval's first byte, as McuStarts lists them."""
    data = np.frombuffer(jpeg, np.uint8)
    first = head_length(jpeg)
    at = np.flatnonzero((data[first:-1] == 0xFF) & (data[first + 1 :] & 0xF8 == 0xD0)) + first + 2
    return [first, *at.tolist()]


def intervals(jpeg: bytes) -> list[bytes]:
    """The entropy-coded bytes of each interval, without markers."""
    begins = starts(jpeg)
    return [jpeg[begin : end - 2] for begin, end in pairwise([*begins, len(jpeg)])]


def joined(head: bytes, parts: Sequence[bytes], rows: int, columns: int) -> bytes:
    """A JPEG of these intervals. As Hamamatsu does, a size that JPEG cannot hold is 0."""
    out = bytearray(head)
    at = head.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", out, at, rows if rows < 65536 else 0, columns if columns < 65536 else 0)
    for number, part in enumerate(parts):
        out += part
        out += bytes((0xFF, 0xD0 + number % 8)) if number < len(parts) - 1 else EOI
    return bytes(out)
