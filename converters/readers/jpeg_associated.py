# SPDX-License-Identifier: Apache-2.0
"""Label, macro or thumbnail that is one JPEG of its own."""

import os

import numpy as np
from numpy.typing import NDArray

from converters.codecs import CodecError, decode
from converters.errors import DamagedSlide
from converters.readers.jpeg_image import JPEG_UID
from converters.readers.restart_intervals import EOI, read_head
from converters.readers.tiff_pages import MAX_ASSOCIATED_PIXELS
from converters.slide import AssociatedImage, Role

MAX_BYTES = 64 << 20


def jpeg_associated(descriptor: int, start: int, stop: int, role: Role) -> AssociatedImage:
    """The JPEG at ``start`` to ``stop`` of a file. Raises DamagedSlide, UnsupportedPixels."""
    what = f"the {role.value.lower()} image"
    head = read_head(descriptor, start, stop, what)
    rows, columns, samples = head.stream.rows, head.stream.columns, head.components
    if not rows or not columns or rows * columns > MAX_ASSOCIATED_PIXELS or stop - start > MAX_BYTES:
        raise DamagedSlide(f"{what} has an impossible size")
    data = os.pread(descriptor, stop - start, start)
    codestream = data[: data.rfind(EOI) + 2]
    if len(codestream) <= head.size_bytes:
        raise DamagedSlide(f"{what} ends too early")

    def read() -> NDArray[np.uint8]:
        try:
            pixels = decode(codestream, JPEG_UID, rows, columns, samples, 8, "YBR_FULL_422")
        except CodecError as error:
            raise DamagedSlide(f"{what} cannot be decoded") from error
        return np.asarray(pixels, dtype=np.uint8)

    return AssociatedImage(
        role=role,
        rows=rows,
        columns=columns,
        read=read,
        compression="JPEG",
        lossy_method="ISO_10918_1",
        encoded_bytes=len(codestream),
        codestream=codestream,
    )
