# SPDX-License-Identifier: Apache-2.0
"""A file as readers first see it: path, size, first bytes, and a TIFF when it is one."""

import logging
import os
import struct
from functools import cached_property
from pathlib import Path

import tifffile

from converters.errors import DamagedSlide, UnreadableSlide

DAMAGED = "a TIFF that is damaged or ends too early"
# Its warnings hold offsets and names; what they mean is told by our refusals.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

HEAD_BYTES = 4096
TIFF_FAULTS = (
    tifffile.TiffFileError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    struct.error,
)  # fmt: skip
"""What tifffile raises for a damaged directory: it believes much of what it reads."""
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Probe:
    """What a reader decides on. ``modified`` is in seconds since the epoch.

    The TIFF is opened once and is then the claiming reader's; :meth:`close` closes it
    when nobody took it. Raises UnreadableSlide for a path that cannot be read.
    """

    def __init__(self, path: Path, *, modified: float | None = None) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.head = file.read(HEAD_BYTES)
                status = os.fstat(file.fileno())
        except IsADirectoryError:
            raise UnreadableSlide("it is a folder, not a file") from None
        except FileNotFoundError:
            raise UnreadableSlide("no such file") from None
        except OSError as error:
            raise UnreadableSlide(f"cannot be read: {os.strerror(error.errno or 0)}") from None
        self.size_bytes = status.st_size
        self.modified = status.st_mtime if modified is None else modified
        self._tiff_taken = False

    @cached_property
    def tiff(self) -> "tifffile.TiffFile | str":
        """The file as TIFF with only its first page read, or why it is none."""
        if self.head[:4] not in TIFF_MAGIC:
            return "not a TIFF"
        if self.head[128:132] == b"DICM":
            return "a DICOM file, whose preamble is a TIFF's header"
        try:
            # not as NDPI, whose tags tifffile would read whole: its reader reads them itself
            return tifffile.TiffFile(self.path, is_ndpi=False)
        except TIFF_FAULTS as error:
            return f"{DAMAGED} ({type(error).__name__})"

    def take_tiff(self) -> tifffile.TiffFile:
        """The TIFF, from now on the caller's to close."""
        tiff = self.tiff
        if isinstance(tiff, str):
            raise DamagedSlide(tiff)
        self._tiff_taken = True
        return tiff

    def close(self) -> None:
        tiff = self.__dict__.get("tiff")
        if tiff is not None and not isinstance(tiff, str) and not self._tiff_taken:
            tiff.close()
