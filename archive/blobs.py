# SPDX-License-Identifier: Apache-2.0
"""The blobs of an instance, opened: what they were when they came.

Where a blob holds another one recompressed, what is opened here gives the other one's
bytes; nobody above needs to know.
"""

from collections.abc import Iterator
from typing import Protocol

from archive.core import Core
from archive.errors import CannotTranscode
from archive.packed import PackedFile
from archive.palette import Palette
from archive.rows import Row
from archive.values import PixelDescription

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEGXL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
JPEGXL = "1.2.840.10008.1.2.4.112"


class Blob(Protocol):
    """Bytes by position, whatever form they are stored in."""

    @property
    def size(self) -> int: ...

    def pread(self, offset: int, length: int, /) -> bytes: ...

    def chunks(self, offset: int, length: int) -> Iterator[bytes]: ...


def open_blobs(core: Core, row: Row) -> tuple[Blob, ...]:
    """All of an instance. Raises Damaged when one is missing."""
    return tuple(open_blob(core, row, position) for position in range(len(row.blob_keys)))


def open_blob(core: Core, row: Row, position: int) -> Blob:
    """One of an instance, by its number in the frame table."""
    if row.unpacked[position] is not None:
        return open_packed(core, row, position)
    return core.files.get(row.blob_keys[position])


def open_packed(core: Core, row: Row, position: int) -> PackedFile:
    """One that is stored recompressed. Frames are restored in the codec's processes;
    without them reading one raises CannotTranscode."""
    return PackedFile(core.files.get(row.blob_keys[position]), Restorer(core, row))


class Restorer:
    """A frame's JPEG from its JPEG XL form."""

    def __init__(self, core: Core, row: Row) -> None:
        self._codec = core.codec
        self._pixels = describe_pixels(row, JPEGXL_RECOMPRESSION)

    def __call__(self, frame: bytes) -> bytes:
        if self._codec is None:
            raise CannotTranscode("the frames are stored recompressed, and there is no codec to restore them")
        return self._codec.transcode(frame, self._pixels, JPEG_BASELINE)


def describe_pixels(
    row: Row,
    transfer_syntax_uid: str = "",
    planar_configuration: int = 0,
    icc_profile: bytes = b"",
    palette: Palette | None = None,
) -> PixelDescription:
    """What a decoder must know of an instance's frames; their stored transfer syntax
    unless another is named."""
    return PixelDescription(
        transfer_syntax_uid or row.transfer_syntax_uid,
        row.rows,
        row.columns,
        row.samples_per_pixel,
        row.bits_allocated,
        row.bits_stored,
        row.pixel_representation,
        row.photometric_interpretation,
        planar_configuration,
        icc_profile,
        *((palette.entries, palette.first) if palette is not None else ()),
    )
