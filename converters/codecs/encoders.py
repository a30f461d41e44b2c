# SPDX-License-Identifier: Apache-2.0
"""Pixels to frames, and the frame of one colour that stands for a tile left out."""

from functools import lru_cache
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from converters.codecs.address_space import DECODER_BYTES_PER_SAMPLE, is_there
from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec
from converters.codecs.transfer_syntax import (
    FAMILY,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG2000,
    JPEG2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    JPEGXL,
    JPEGXL_LOSSLESS,
    LOSSLESS_ENCODERS,
    LOSSY_ENCODERS,
    RLE_LOSSLESS,
    Family,
)

Pixels = NDArray[Any]

WHITE = (255, 255, 255)


def encode(
    pixels: Pixels,
    transfer_syntax_uid: str,
    quality: int = 85,
    *,
    bits_stored: int = 0,
    photometric: str = "",
) -> bytes:
    """A frame of pixels of (rows, columns) or (rows, columns, samples), RGB or grey.

    Native frames are interleaved (Planar Configuration 0), little-endian, without the
    pad byte; unsigned bits stay bits when ``bits_stored`` is 1. JPEG Baseline becomes
    YBR_FULL_422 for colour, or RGB with an Adobe marker when ``photometric`` is "RGB";
    JPEG 2000 and HTJ2K use the component transform (YBR_RCT, YBR_ICT) unless it is
    "RGB"; JPEG-LS, JPEG Lossless, JPEG XL and RLE hold RGB. ``quality`` (1 to 100) counts
    for the lossy ones only. Raises :class:`UnsupportedCodec` for other transfer syntaxes.
    """
    if transfer_syntax_uid not in LOSSLESS_ENCODERS | LOSSY_ENCODERS:
        raise UnsupportedCodec(f"no encoder for transfer syntax {transfer_syntax_uid}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "ui":
        raise UnsupportedCodec(f"cannot encode an array of {pixels.ndim} dimensions of {pixels.dtype}")
    pixels = np.ascontiguousarray(pixels)
    transform = photometric != "RGB"
    if FAMILY[transfer_syntax_uid] is Family.NATIVE:
        return _native(pixels, bits_stored)
    if bits_stored == 1:
        bits_stored = 8
    try:
        return _encode(pixels, transfer_syntax_uid, quality, bits_stored or None, transform)
    except CodecError:
        raise
    except Exception as error:  # each codec library raises its own kinds
        name = type(error).__name__
        if isinstance(error, MemoryError) or not is_there(DECODER_BYTES_PER_SAMPLE * pixels.size):
            raise FrameTooLarge("not enough memory to encode the pixels") from MemoryError(name)
        raise CodecError(f"the pixels cannot be encoded: {name}: {error}") from error


def _encode(
    pixels: Pixels, transfer_syntax_uid: str, quality: int, bits: int | None, transform: bool
) -> bytes:
    match transfer_syntax_uid:
        case uid if uid == JPEG_BASELINE:
            return _jpeg(pixels, quality, "YCBCR" if transform else "RGB", "422" if transform else "444")
        case uid if uid in (JPEG2000, JPEG2000_LOSSLESS):
            reversible = uid == JPEG2000_LOSSLESS
            return bytes(
                imagecodecs.jpeg2k_encode(
                    pixels,
                    level=0 if reversible else j2k_psnr(quality),
                    codecformat="j2k",
                    reversible=reversible,
                    mct=transform,
                    bitspersample=bits,
                    resolutions=resolutions(pixels),
                    numthreads=1,
                )
            )
        case uid if uid in (HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL):
            # RPCL is OpenJPH's order; .202 adds what makes it useful: TLM markers and a
            # tile-part for each resolution
            parts = uid == HTJ2K_LOSSLESS_RPCL
            return bytes(
                imagecodecs.htj2k_encode(
                    pixels,
                    reversible=True,
                    rgb=transform and pixels.ndim == 3,
                    resolutions=5,
                    tlm=parts,
                    tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS if parts else None,
                )
            )
        case uid if uid == HTJ2K:
            return bytes(
                imagecodecs.htj2k_encode(
                    pixels,
                    level=htj2k_step(quality),
                    reversible=False,
                    rgb=transform and pixels.ndim == 3,
                    resolutions=5,
                )
            )
        case uid if uid in (JPEG_LOSSLESS, JPEG_LOSSLESS_SV1):
            return _jpeg_lossless(pixels, bits)
        case uid if uid == JPEG_LS_LOSSLESS:
            return without_spiff(bytes(imagecodecs.jpegls_encode(pixels)))
        case uid if uid == JPEG_LS_NEAR_LOSSLESS:
            return without_spiff(bytes(imagecodecs.jpegls_encode(pixels, level=jpegls_near(quality))))
        case uid if uid == JPEGXL_LOSSLESS:
            return bytes(imagecodecs.jpegxl_encode(pixels, lossless=True, effort=3, numthreads=1))
        case uid if uid == JPEGXL:
            return bytes(
                imagecodecs.jpegxl_encode(pixels, distance=jpegxl_distance(quality), effort=3, numthreads=1)
            )
        case uid if uid == RLE_LOSSLESS:
            return _rle(pixels)
    raise UnsupportedCodec(f"no encoder for transfer syntax {transfer_syntax_uid}")


def j2k_psnr(quality: int) -> int:
    """The peak signal-to-noise ratio, in dB, that a quality of 1 to 100 stands for; from
    95 on 0: every bit plane is kept."""
    return 25 + quality // 4 if quality < 95 else 0


def htj2k_step(quality: int) -> float:
    """The base quantisation step, of values from 0 to 1, that a quality of 1 to 100 stands
    for: 1/256 at 90."""
    return float(2.0 ** -(2 + quality / 15))


def jpegls_near(quality: int) -> int:
    """How far a value may be from its own: 1 from a quality of 95 on, 2 at 90."""
    return max(1, (100 - quality) // 5)


def jpegxl_distance(quality: int) -> float:
    """Butteraugli distance as libjxl's own tools count quality: 1 at 90."""
    return max(0.1, 0.1 + (100 - quality) * 0.09)


def resolutions(pixels: Pixels) -> int:
    """Wavelet levels plus one: six, fewer for pictures too small for them."""
    return max(1, min(6, int(min(pixels.shape[:2])).bit_length()))


def _native(pixels: Pixels, bits_stored: int) -> bytes:
    if bits_stored == 1:
        return np.packbits(pixels.ravel() != 0, bitorder="little").tobytes()
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def _jpeg(pixels: Pixels, quality: int, inside: str, subsampling: str) -> bytes:
    if pixels.dtype != np.uint8:
        raise UnsupportedCodec("JPEG Baseline takes 8-bit pixels only")
    if pixels.ndim == 2:
        return bytes(imagecodecs.jpeg8_encode(pixels, level=quality))
    if pixels.shape[2] != 3:
        raise UnsupportedCodec("JPEG Baseline takes one or three samples per pixel")
    return bytes(
        imagecodecs.jpeg8_encode(
            pixels, level=quality, colorspace="RGB", outcolorspace=inside, subsampling=subsampling
        )
    )


def _jpeg_lossless(pixels: Pixels, bits: int | None) -> bytes:
    """Process 14, selection value 1, which is what .57 allows and .70 demands."""
    colour = pixels.ndim == 3
    if colour and pixels.shape[2] != 3:
        raise UnsupportedCodec("JPEG Lossless takes one or three samples per pixel")
    kept = "RGB" if colour else None
    return bytes(
        imagecodecs.jpeg8_encode(
            pixels, colorspace=kept, outcolorspace=kept, lossless=True, predictor=1, bitspersample=bits
        )
    )


def without_spiff(stream: bytes) -> bytes:
    """A JPEG-LS stream without the SPIFF header (APP8) that CharLS puts in front: it is
    a file format's, and states a resolution that nobody measured."""
    at = 2
    while stream[at : at + 2] == b"\xff\xe8":
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return stream[:2] + stream[at:]


def _rle(pixels: Pixels) -> bytes:
    """PS3.5 Annex G: a header of 64 bytes, a segment per byte plane, most significant
    byte first, each row coded by itself, segments of even length."""
    stacked = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    rows, columns, samples = stacked.shape
    big = stacked.astype(stacked.dtype.newbyteorder(">"), copy=False)
    planes = np.ascontiguousarray(big).view(np.uint8).reshape(rows, columns, samples * big.itemsize)
    if planes.shape[2] > 15:
        raise UnsupportedCodec("RLE holds 15 byte planes at most")
    segments = []
    for index in range(planes.shape[2]):
        segment = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in planes[..., index])
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets, at = [], 64
    for segment in segments:
        offsets.append(at)
        at += len(segment)
    numbers = [len(segments), *offsets, *([0] * (15 - len(offsets)))]
    return np.array(numbers, "<u4").tobytes() + b"".join(segments)


@lru_cache(maxsize=64)
def blank(
    transfer_syntax_uid: str,
    rows: int,
    columns: int,
    colour: int | tuple[int, int, int] = WHITE,
    *,
    photometric: str = "",
) -> bytes:
    """A frame of one colour, (R, G, B) or a grey value of 8 bits: a tile that the scanner
    left out, in a codestream that fits its level. ``photometric`` as for :func:`encode`."""
    samples = 3 if isinstance(colour, tuple) else 1
    pixels = np.empty((rows, columns, samples), np.uint8)
    pixels[...] = colour
    return encode(pixels, transfer_syntax_uid, quality=95, photometric=photometric)
