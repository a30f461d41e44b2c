# SPDX-License-Identifier: Apache-2.0
"""Pixels to a file that a browser shows."""

import io

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.codecs.errors import CodecError, UnsupportedCodec

MEDIA_TYPES = (
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/jp2",
    "image/jxl",
    "image/webp",
    "image/avif",
)

_FAST = 8  # of AVIF's speeds 0 to 10: a viewer waits for it


def encode_picture(pixels: NDArray[np.uint8], media_type: str, quality: int, profile: bytes = b"") -> bytes:
    """RGB (rows, columns, 3) or grey (rows, columns) pixels as a file; ``profile`` is
    embedded, but for GIF, JPEG XL and JPEG 2000, which hold none here. Chroma of JPEG is halved
    below a quality of 90. Raises :class:`UnsupportedCodec` for another media type."""
    quality = max(1, min(100, quality))
    try:
        if media_type == "image/jxl":
            return bytes(
                imagecodecs.jpegxl_encode(pixels, distance=jxl_distance(quality), effort=3, numthreads=1)
            )
        return _by_pillow(Image.fromarray(pixels), media_type, quality, profile or None)
    except (OSError, ValueError, imagecodecs.JpegxlError) as error:  # beyond the format's size, mostly
        raise CodecError(f"the picture cannot be written as {media_type}") from error


def _by_pillow(image: Image.Image, media_type: str, quality: int, icc: bytes | None) -> bytes:
    buffer = io.BytesIO()
    match media_type:
        case "image/jpeg":
            image.save(
                buffer, "JPEG", quality=quality, icc_profile=icc, subsampling=0 if quality >= 90 else 2
            )
        case "image/png":
            image.save(buffer, "PNG", compress_level=3, icc_profile=icc)
        case "image/gif":
            image.quantize(256, Image.Quantize.MEDIANCUT if image.mode == "RGB" else None).save(buffer, "GIF")
        case "image/jp2":
            rate = max(1.0, (101 - quality) / 2)
            image.save(buffer, "JPEG2000", irreversible=True, quality_layers=[rate], mct=1)
        case "image/webp":
            image.save(buffer, "WEBP", quality=quality, method=2, icc_profile=icc or b"")
        case "image/avif":
            image.save(buffer, "AVIF", quality=quality, speed=_FAST, max_threads=1, icc_profile=icc or b"")
        case _:
            raise UnsupportedCodec(f"no encoder for {media_type}")
    return buffer.getvalue()


def jxl_distance(quality: int) -> float:
    """The distance that JPEG XL's own tools take for a quality of 1 to 100."""
    if quality >= 100:
        return 0.0
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53.0 / 3000.0 * quality * quality - 23.0 / 20.0 * quality + 25.0
