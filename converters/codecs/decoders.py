# SPDX-License-Identifier: Apache-2.0
"""Frames to pixels: every transfer syntax that pathology meets, colours set right.

Decoders run on bytes from outside, so callers with such bytes use the process pool
(``gateway.codec_pool``). Here the codestream's own size is checked before a decoder
sees it, and whatever a decoder raises becomes a :class:`CodecError`.
"""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import ADOBE_RGB, Codestream, jpeg_segments, sniff
from converters.codecs.address_space import DECODER_BYTES_PER_SAMPLE, is_there
from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec
from converters.codecs.transfer_syntax import EXPLICIT_BE, FAMILY, Family

Pixels = NDArray[Any]

LOSSLESS = 0xC3
"""JPEG's frame marker of the lossless process (14)."""

MAX_FRAME_BYTES = 1 << 30
"""Most bytes of one decoded frame: a 16k x 16k RGB picture fits, a bomb does not."""


def decode(
    frame: bytes,
    transfer_syntax_uid: str,
    rows: int,
    columns: int,
    samples: int,
    bits_allocated: int,
    photometric: str,
    planar_configuration: int = 0,
    pixel_representation: int = 0,
) -> Pixels:
    """One frame's pixels as (rows, columns, samples), RGB or grey.

    YBR comes back as RGB, whatever the photometric interpretation calls it; grey and
    palette values as stored (MONOCHROME1 is not inverted). 1-bit frames give 0 and 1
    as uint8. Raises :class:`CodecError` when the codestream is damaged or its size,
    components or depth differ from the header's; :class:`UnsupportedCodec` for another
    transfer syntax. PS3.3 C.7.6.3, PS3.5 Section 8.
    """
    family = FAMILY.get(transfer_syntax_uid)
    if family is None:
        raise UnsupportedCodec(f"no decoder for transfer syntax {transfer_syntax_uid}")
    if bits_allocated not in (1, 8, 16, 32) or samples not in (1, 3, 4) or rows < 1 or columns < 1:
        raise UnsupportedCodec(f"cannot decode {samples} samples of {bits_allocated} bits")
    if rows * columns * samples * max(8, bits_allocated) // 8 > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a frame of {rows} x {columns} pixels is beyond the limit")
    shape = (rows, columns, samples)
    if family is Family.NATIVE:
        order = ">" if transfer_syntax_uid == EXPLICIT_BE else "<"
        return _native(
            frame, shape, bits_allocated, photometric, planar_configuration, pixel_representation, order
        )
    if family is Family.RLE:
        return _rle(frame, shape, bits_allocated, photometric, pixel_representation)
    found = _checked(frame, family, shape, bits_allocated)
    pixels = _guarded(_DECODERS[family], frame, found, photometric)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if pixels.shape != shape:
        raise CodecError(f"decoded to {_by(pixels.shape)}, the header says {_by(shape)}")
    if pixels.dtype.itemsize * 8 > max(8, bits_allocated):
        raise CodecError(f"decoded to {pixels.dtype.itemsize * 8} bits, the header says {bits_allocated}")
    if pixels.dtype.itemsize * 8 < bits_allocated:  # 8-bit codestream in a 16-bit header
        return pixels.astype(_sample_type(bits_allocated, pixel_representation))
    return pixels


_SAY_DAMAGED = ("jpeg2000", "htj2k", "jpegxl")
"""Formats whose libraries call a shortage of memory a damaged codestream."""


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


_FORMATS = {
    Family.JPEG: ("jpeg",),
    Family.JPEG_LS: ("jpegls",),
    Family.JPEG2000: ("jpeg2000",),
    Family.HTJ2K: ("htj2k", "jpeg2000"),
    Family.JPEGXL: ("jpegxl",),
}


def _checked(frame: bytes, family: Family, shape: tuple[int, int, int], bits: int) -> Codestream:
    """What the codestream says, once it agrees with the header: a decoder believes it,
    and 65,500 x 65,500 pixels announced in 600 bytes are 12 GB of memory."""
    found = sniff(frame)
    if found.format not in _FORMATS[family]:
        raise CodecError(f"the frame is not a {family} codestream but {found.format}")
    rows, columns, samples = shape
    if not found.head_complete:
        raise CodecError(f"the {family} codestream ends within its header")
    if (found.rows, found.columns) != (rows, columns):
        raise CodecError(
            f"the codestream has {found.rows} x {found.columns} pixels, the header says {rows} x {columns}"
        )
    if found.components and found.components != samples:
        raise CodecError(f"the codestream has {found.components} components, the header says {samples}")
    if found.bits > max(8, bits):
        raise CodecError(f"the codestream has {found.bits} bits per sample, the header says {bits}")
    return found


def _guarded(
    decoder: Callable[[bytes, Codestream, str], Pixels], frame: bytes, found: Codestream, photometric: str
) -> Pixels:
    try:
        return decoder(frame, found, photometric)
    except CodecError:
        raise
    except MemoryError as error:
        raise FrameTooLarge("not enough memory to decode the frame") from error
    except Exception as error:  # each codec library raises its own kinds
        name = type(error).__name__
        samples = found.rows * found.columns * max(1, found.components)
        if found.format in _SAY_DAMAGED and not is_there(DECODER_BYTES_PER_SAMPLE * samples):
            raise FrameTooLarge("not enough memory to decode the frame") from MemoryError(name)
        raise CodecError(f"the codestream cannot be decoded: {name}") from error


def _jpeg(frame: bytes, found: Codestream, photometric: str) -> Pixels:
    if found.components != 3:
        return np.asarray(imagecodecs.jpeg8_decode(frame))
    if found.sof == LOSSLESS:
        # Lossless streams carry markers by habit, and libjpeg-turbo converts no colours
        # of theirs: the header alone decides.
        raw = imagecodecs.jpeg8_decode(frame, colorspace="RGB", outcolorspace="RGB")
        return _by_photometric(raw, photometric)
    inside = "YCBCR" if jpeg_is_ycbcr(frame, found, photometric) else "RGB"
    return np.asarray(imagecodecs.jpeg8_decode(frame, colorspace=inside, outcolorspace="RGB"))


def jpeg_is_ycbcr(frame: bytes, found: Codestream, photometric: str) -> bool:
    """Whether a three-component lossy JPEG holds YCbCr.

    The stream's own word goes first: Adobe's transform, then fewer chroma samples,
    then JFIF (always YCbCr), then the identifiers R, G, B. Only a stream that says
    nothing (Aperio's) is what Photometric Interpretation (0028,0004) calls it: several
    writers put RGB over YCbCr streams there, and none a wrong marker.
    """
    if found.adobe_transform is not None:
        return found.adobe_transform != ADOBE_RGB
    if found.subsampled:
        return True
    if any(marker == 0xE0 and frame[at : at + 5] == b"JFIF\0" for marker, at, _ in jpeg_segments(frame)):
        return True
    if found.component_ids == (0x52, 0x47, 0x42):
        return False
    return photometric != "RGB"


def _jpegls(frame: bytes, found: Codestream, photometric: str) -> Pixels:
    return _by_photometric(imagecodecs.jpegls_decode(frame), photometric)


def _jpeg2000(frame: bytes, found: Codestream, photometric: str) -> Pixels:
    if found.subsampled:
        raise UnsupportedCodec("JPEG 2000 with subsampled components")
    if found.format == "htj2k":
        pixels = imagecodecs.htj2k_decode(frame, planar=False)
    else:
        pixels = imagecodecs.jpeg2k_decode(frame, planar=False, numthreads=1)
    # With MCT the codec gave RGB already. Without, YBR_ICT and YBR_RCT can only be
    # pre-transformed YCbCr under a wrong name, as one well-known converter writes it.
    return pixels if found.mct else _by_photometric(pixels, photometric)


def _jpegxl(frame: bytes, found: Codestream, photometric: str) -> Pixels:
    return np.asarray(imagecodecs.jpegxl_decode(frame, numthreads=1))


_DECODERS: dict[Family, Callable[[bytes, Codestream, str], Pixels]] = {
    Family.JPEG: _jpeg,
    Family.JPEG_LS: _jpegls,
    Family.JPEG2000: _jpeg2000,
    Family.HTJ2K: _jpeg2000,
    Family.JPEGXL: _jpegxl,
}


def _by_photometric(pixels: Pixels, photometric: str) -> Pixels:
    if photometric.startswith("YBR") and pixels.ndim == 3 and pixels.shape[2] == 3:
        return ycbcr_to_rgb(pixels)
    return pixels


def ycbcr_to_rgb(pixels: Pixels) -> Pixels:
    """YBR_FULL to RGB (PS3.3 C.7.6.3.1.2, the inverse of its matrix), rounded."""
    top = np.iinfo(pixels.dtype).max
    y, cb, cr = (pixels[..., index].astype(np.float32) for index in range(3))
    cb -= (top + 1) // 2
    cr -= (top + 1) // 2
    rgb = np.stack((y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb), axis=-1)
    return np.asarray(np.clip(np.rint(rgb), 0, top), pixels.dtype)


def _sample_type(bits_allocated: int, pixel_representation: int, order: str = "=") -> np.dtype[Any]:
    kind = "i" if pixel_representation else "u"
    return np.dtype(f"{order}{kind}{max(8, bits_allocated) // 8}")


def _native(
    frame: bytes,
    shape: tuple[int, int, int],
    bits_allocated: int,
    photometric: str,
    planar_configuration: int,
    pixel_representation: int,
    order: str,
) -> Pixels:
    """Native pixels (PS3.5 8.1.1, 8.2): one even-length pad byte is allowed."""
    rows, columns, samples = shape
    halved = photometric == "YBR_FULL_422" and samples == 3
    if bits_allocated == 1:
        size = (rows * columns * samples + 7) // 8
    else:
        size = rows * columns * (2 if halved else samples) * bits_allocated // 8
    if not size <= len(frame) <= size + 1:
        raise CodecError(f"the frame has {len(frame)} bytes, {rows} x {columns} pixels need {size}")
    if bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(frame, np.uint8, size), bitorder="little")
        return bits[: rows * columns * samples].reshape(shape)
    kind = _sample_type(bits_allocated, pixel_representation, order)
    flat = np.frombuffer(frame, kind, size // kind.itemsize).astype(kind.newbyteorder("="), copy=False)
    if halved:
        if columns % 2:
            raise CodecError("YBR_FULL_422 needs an even number of columns")
        pairs = flat.reshape(rows, columns // 2, 4)  # Y1 Y2 Cb Cr
        chroma = np.repeat(pairs[..., 2:], 2, axis=1)
        pixels = np.concatenate((pairs[..., :2].reshape(rows, columns, 1), chroma), axis=2)
    elif planar_configuration == 1 and samples > 1:
        pixels = np.ascontiguousarray(flat.reshape(samples, rows, columns).transpose(1, 2, 0))
    else:
        pixels = flat.reshape(shape)
    return _by_photometric(pixels, photometric)


def _rle(
    frame: bytes,
    shape: tuple[int, int, int],
    bits_allocated: int,
    photometric: str,
    pixel_representation: int,
) -> Pixels:
    """RLE (PS3.5 Annex G): always planes, whatever Planar Configuration says."""
    rows, columns, samples = shape
    kind = _sample_type(bits_allocated, pixel_representation)
    planes = samples * kind.itemsize
    if len(frame) < 64 or int.from_bytes(frame[:4], "little") != planes:
        raise CodecError(f"the RLE header does not announce {planes} segments")
    plain = bytearray(rows * columns * planes)
    unsigned = np.dtype(f"u{kind.itemsize}")
    try:
        found = imagecodecs.dicomrle_decode(frame, unsigned.name, out=plain)
    except Exception as error:  # the codec library raises its own kinds
        raise CodecError("the RLE segments do not fill the frame") from error
    if len(found) != len(plain):
        raise CodecError("the RLE segments do not fill the frame")
    pixels = np.frombuffer(plain, kind).reshape(samples, rows, columns).transpose(1, 2, 0)
    return _by_photometric(np.ascontiguousarray(pixels), photometric)
