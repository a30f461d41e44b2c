# SPDX-License-Identifier: Apache-2.0
"""How frames that cannot be copied are encoded: without loss unless somebody asked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.codecs.transfer_syntax import (
    EXPLICIT_LE,
    HTJ2K_LOSSLESS,
    JPEG2000,
    JPEG2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LS_LOSSLESS,
)
from converters.errors import UnsupportedPixels
from converters.slide import PixelType

if TYPE_CHECKING:
    from converters.writer.plan import PlannedLevel

LOSSLESS = {
    "jpeg2000": JPEG2000_LOSSLESS,
    "htj2k": HTJ2K_LOSSLESS,
    "jpeg-ls": JPEG_LS_LOSSLESS,
    "none": EXPLICIT_LE,
}
"""Names in settings and on the command line -> transfer syntaxes. JPEG 2000 is the
default: of the compressed ones most viewers read it (OpenSlide 4 reads no other)."""
DEFAULT_LOSSLESS = "jpeg2000"
LOSSY_METHODS = {JPEG_BASELINE: "ISO_10918_1", JPEG2000: "ISO_15444_1"}


@dataclass(frozen=True, slots=True)
class FrameCoding:
    """A transfer syntax for frames that we make; ``quality`` (1 to 100) counts for the lossy ones."""

    transfer_syntax_uid: str = JPEG2000_LOSSLESS
    quality: int = 0

    @property
    def lossy_method(self) -> str:
        """DICOM's name of the loss (PS3.3 C.7.6.1.1.5.1), "" where there is none."""
        return LOSSY_METHODS.get(self.transfer_syntax_uid, "")

    def photometric(self, samples: int) -> str:
        """Photometric Interpretation of the frames that :func:`converters.codecs.encode`
        makes by it (PS3.5 8.2)."""
        if samples == 1:
            return "MONOCHROME2"
        return {
            JPEG2000_LOSSLESS: "YBR_RCT", HTJ2K_LOSSLESS: "YBR_RCT", JPEG2000: "YBR_ICT",
            JPEG_BASELINE: "YBR_FULL_422",
        }.get(self.transfer_syntax_uid, "RGB")  # fmt: skip


@dataclass(frozen=True, slots=True)
class CodingChoice:
    """``lossless`` is a key of :data:`LOSSLESS`; ``lossy_quality`` (1 to 100), when
    given, makes frames smaller instead: JPEG for 8 bits, JPEG 2000 for more."""

    lossless: str = DEFAULT_LOSSLESS
    lossy_quality: int | None = None

    def __post_init__(self) -> None:
        if self.lossless not in LOSSLESS:
            raise ValueError(f"no lossless coding {self.lossless!r}: known are {', '.join(LOSSLESS)}")
        if self.lossy_quality is not None and not 1 <= self.lossy_quality <= 100:
            raise ValueError("the lossy quality is not between 1 and 100")

    @property
    def loss(self) -> str:
        """For people."""
        return "without loss" if self.lossy_quality is None else "with loss"

    def words_for(self, one: "PlannedLevel") -> str:
        """How the frames of a level that is not copied are kept, for people."""
        plain = one.plain and self.lossy_quality is None
        return (CodingChoice("none") if plain else self).words

    @property
    def words(self) -> str:
        """How frames of ours are kept, for people."""
        form = self.lossless if self.lossy_quality is None else f"quality {self.lossy_quality}"
        return f"{self.loss} ({form})"

    def of_level(self, one: "PlannedLevel") -> FrameCoding:
        """Of a level that is not copied. Raises UnsupportedPixels."""
        plain = one.plain and self.lossy_quality is None
        return (CodingChoice("none") if plain else self).of(one.level.pixel_type)

    def of(self, pixel_type: PixelType) -> FrameCoding:
        """Raises UnsupportedPixels."""
        if pixel_type.bits_allocated not in (8, 16) or pixel_type.samples_per_pixel not in (1, 3):
            samples, bits = pixel_type.samples_per_pixel, pixel_type.bits_allocated
            raise UnsupportedPixels(f"{samples} samples of {bits} bits have no form here")
        if self.lossy_quality is not None:
            uid = JPEG_BASELINE if pixel_type.bits_allocated == 8 else JPEG2000
            return FrameCoding(uid, self.lossy_quality)
        return FrameCoding(LOSSLESS[self.lossless])


DEFAULT_CODING = CodingChoice()
