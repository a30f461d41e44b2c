# SPDX-License-Identifier: Apache-2.0
"""Why a scanner file could not become DICOM: each refusal is one clear line.

Messages name the problem, never a path or a value of the file (a label's text, a
barcode), so that they may be shown, logged and stored with a quarantined file. Only
TargetExists, which no server raises, names a folder.
"""

from collections.abc import Mapping, Sequence


class ConversionError(Exception):
    """Base of every refusal of ``converters``."""


class UnreadableSlide(ConversionError):
    """No reader takes the file. ``refusals`` maps each reader's format to its reason: too many
    for a line, they are told where somebody asks."""

    def __init__(self, reason: str, refusals: Mapping[str, str] | None = None) -> None:
        self.refusals = dict(refusals or {})
        super().__init__(f"{reason} (coverslip inspect says why)" if self.refusals else reason)
        self.reason = reason


class AmbiguousSlide(ConversionError):
    """Several readers claim the file: a fault of the readers, never decided by order."""

    def __init__(self, formats: Sequence[str]) -> None:
        super().__init__(f"several readers claim this file: {', '.join(formats)}")
        self.formats = tuple(formats)


class UnsupportedCompression(ConversionError):
    """The tiles' compression can neither be copied nor decoded here."""

    def __init__(self, compression: str, where: str) -> None:
        super().__init__(f"unsupported compression {compression} in {where}")
        self.compression, self.where = compression, where


class UnsupportedPixels(ConversionError):
    """Samples, bits or colours that no rule of ours covers."""


class DamagedSlide(ConversionError):
    """The file contradicts itself or ends too early."""


class NotEnoughMemory(ConversionError):
    """The slide may be sound: decoding or encoding it takes more memory than a process may have."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: more memory is needed than a process may have (setting convert.memory_bytes)"
        )


class MissingPixelSpacing(ConversionError):
    """The file does not say how large its pixels are, and nobody else did.

    Whole slide images cannot do without: Pixel Spacing is required for Volumetric
    Properties VOLUME (PS3.3 C.7.6.16.2.1), Imaged Volume Width and Height for VOLUME
    and THUMBNAIL (C.8.12.4). A made-up value would falsify every later measurement,
    so the operator is asked instead.
    """

    def __init__(self) -> None:
        super().__init__(
            "the file does not state its pixel size (MPP): "
            'give it in the metadata as {"pixel_spacing_mm": [row, column]}'
        )


class MissingFocalPlaneSpacing(ConversionError):
    """The file holds focal planes and does not say how far they lie apart: it is required
    for them (Spacing Between Slices, PS3.3 C.7.6.17.3), and not made up."""

    def __init__(self) -> None:
        super().__init__(
            "the file does not state how far its focal planes lie apart: "
            'give it in the metadata as {"focal_plane_spacing_um": number}'
        )


class BadMetadata(ConversionError):
    """The metadata file is not of the documented form; the message names the key."""


class TargetExists(ConversionError):
    """The output folder holds a file of that name already; nothing was written."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} exists already in the output folder")
        self.name = name


class VerificationFailed(ConversionError):
    """What was written differs from the scanner's file."""


class MissingCompanion(ConversionError):
    """A file that belongs to the slide is not there. ``what`` names it by its part in the
    format ("Slidedat.ini", "image file of column 1, row 0")."""

    def __init__(self, what: str) -> None:
        super().__init__(f"a file of the slide is missing: {what}")
        self.what = what


class MissingLibrary(ConversionError):
    """A format needs a library that is not installed, or another version of it."""

    def __init__(self, what: str, requirement: str) -> None:
        super().__init__(f"reading {what} needs {requirement}: pip install {requirement}")
        self.requirement = requirement
