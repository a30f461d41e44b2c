# SPDX-License-Identifier: Apache-2.0
"""What is served of a received file's preamble (PS3.10 7.1).

128 bytes that DICOM gives no meaning can make a file a program as well. The stored bytes
stay as they came; those that are served have zeros there, except for a TIFF's.
"""

from collections.abc import Callable, Iterator

from archive.blobs import Blob

PREAMBLE_BYTES = 128
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Section = Callable[[int, int], Iterator[bytes]]


def served(blob: Blob) -> Section:
    """``(offset, length)`` of a received Part 10 file as it may go out, of equal size."""
    preamble = blob.pread(0, PREAMBLE_BYTES)
    if not any(preamble) or preamble[:4] in TIFF_MAGIC:
        return blob.chunks

    def section(offset: int, length: int) -> Iterator[bytes]:
        zeros = max(0, min(PREAMBLE_BYTES - offset, length))
        if zeros:
            yield bytes(zeros)
        if length > zeros:
            yield from blob.chunks(offset + zeros, length - zeros)

    return section
