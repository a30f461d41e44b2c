# SPDX-License-Identifier: Apache-2.0
"""Transfer syntaxes by the family of their codec (PS3.5 Section 10, Annex A)."""

from enum import StrEnum

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG2000 = "1.2.840.10008.1.2.4.91"
JPEGXL_LOSSLESS = "1.2.840.10008.1.2.4.110"
JPEGXL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
JPEGXL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"


class Family(StrEnum):
    NATIVE = "native"
    JPEG = "jpeg"
    JPEG_LS = "jpegls"
    JPEG2000 = "jpeg2000"
    HTJ2K = "htj2k"
    JPEGXL = "jpegxl"
    RLE = "rle"


FAMILY = {
    IMPLICIT_LE: Family.NATIVE,
    EXPLICIT_LE: Family.NATIVE,
    DEFLATED_LE: Family.NATIVE,
    EXPLICIT_BE: Family.NATIVE,
    JPEG_BASELINE: Family.JPEG,
    JPEG_EXTENDED: Family.JPEG,
    JPEG_LOSSLESS: Family.JPEG,
    JPEG_LOSSLESS_SV1: Family.JPEG,
    JPEG_LS_LOSSLESS: Family.JPEG_LS,
    JPEG_LS_NEAR_LOSSLESS: Family.JPEG_LS,
    JPEG2000_LOSSLESS: Family.JPEG2000,
    JPEG2000: Family.JPEG2000,
    HTJ2K_LOSSLESS: Family.HTJ2K,
    HTJ2K_LOSSLESS_RPCL: Family.HTJ2K,
    HTJ2K: Family.HTJ2K,
    JPEGXL_LOSSLESS: Family.JPEGXL,
    JPEGXL_RECOMPRESSION: Family.JPEGXL,
    JPEGXL: Family.JPEGXL,
    RLE_LOSSLESS: Family.RLE,
}
"""What :func:`converters.codecs.decode` reads. A deflated data set's frames are native
once inflated, as the archive keeps them."""

LOSSLESS_ENCODERS = frozenset(
    {
        IMPLICIT_LE,
        EXPLICIT_LE,
        JPEG_LOSSLESS,
        JPEG_LOSSLESS_SV1,
        JPEG_LS_LOSSLESS,
        JPEG2000_LOSSLESS,
        HTJ2K_LOSSLESS,
        HTJ2K_LOSSLESS_RPCL,
        JPEGXL_LOSSLESS,
        RLE_LOSSLESS,
    }
)
"""What :func:`converters.codecs.encode` writes without loss."""

LOSSY_ENCODERS = frozenset({JPEG_BASELINE, JPEG_LS_NEAR_LOSSLESS, JPEG2000, HTJ2K, JPEGXL})

SAME_STREAM = frozenset(
    {
        (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS),
        (JPEG2000_LOSSLESS, JPEG2000),
        (HTJ2K_LOSSLESS, HTJ2K),
        (HTJ2K_LOSSLESS_RPCL, HTJ2K),
        (HTJ2K_LOSSLESS_RPCL, HTJ2K_LOSSLESS),
        (JPEGXL_LOSSLESS, JPEGXL),
        (JPEGXL_RECOMPRESSION, JPEGXL),
    }
)
"""Source and target where the target is the wider rule: the codestream stays as it is."""

JPEG_REPACKED = frozenset(
    {
        (JPEG_BASELINE, JPEGXL_RECOMPRESSION),
        (JPEG_BASELINE, JPEGXL),
        (JPEGXL_RECOMPRESSION, JPEG_BASELINE),
    }
)
"""Source and target that turn into each other bit for bit."""

_UNSIGNED_ONLY = frozenset(
    {
        JPEG_BASELINE,
        JPEG_LOSSLESS,
        JPEG_LOSSLESS_SV1,
        JPEG_LS_LOSSLESS,
        JPEG_LS_NEAR_LOSSLESS,
        JPEGXL_LOSSLESS,
        JPEGXL,
    }
)


def is_lossless(source: str, target: str) -> bool:
    """Whether :func:`can_transcode`'s way from one to the other keeps every pixel."""
    pair = (source, target)
    return source == target or target in LOSSLESS_ENCODERS or pair in SAME_STREAM | JPEG_REPACKED


def can_transcode(
    source: str,
    target: str,
    bits_allocated: int = 8,
    *,
    pixel_representation: int = 0,
    photometric: str = "",
) -> bool:
    """Whether frames go from one transfer syntax to another: without loss, or to a lossy
    syntax that is asked for by name. Palette indices and signed values are never made
    lossy, and more than 8 bits have no JPEG Baseline."""
    if source == target or (source, target) in SAME_STREAM | JPEG_REPACKED:
        return True
    if source not in FAMILY or target not in LOSSLESS_ENCODERS | LOSSY_ENCODERS:
        return False
    if bits_allocated not in (8, 16):
        return FAMILY[source] is FAMILY[target] is Family.NATIVE
    if target in LOSSY_ENCODERS and (pixel_representation or photometric == "PALETTE COLOR"):
        return False
    if target == JPEG_BASELINE and bits_allocated != 8:
        return False
    return not (pixel_representation and target in _UNSIGNED_ONLY)


def photometric_after(photometric: str, target: str) -> str:
    """Photometric Interpretation of a frame once it was transcoded to ``target``, its
    source being decoded for it (PS3.5 8.2, PS3.3 C.7.6.3.1.2)."""
    if not photometric.startswith("YBR") and photometric != "RGB":
        return photometric
    if target in (JPEG2000_LOSSLESS, HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL):
        return "YBR_RCT"
    if target in (JPEG2000, HTJ2K):
        return "YBR_ICT"
    return "YBR_FULL_422" if target in (JPEG_BASELINE, JPEGXL_RECOMPRESSION) else "RGB"
