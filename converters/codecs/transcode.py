# SPDX-License-Identifier: Apache-2.0
"""A frame in another transfer syntax: the same codestream, the same JPEG, the same pixels,
or, where the caller names a lossy syntax, pixels that look the same."""

import imagecodecs

from archive.part10.codestream import sniff
from converters.codecs.encoders import encode
from converters.codecs.errors import CodecError, UnsupportedCodec
from converters.codecs.render import FrameFormat, decode_frame
from converters.codecs.transfer_syntax import (
    JPEG_BASELINE,
    JPEGXL,
    JPEGXL_RECOMPRESSION,
    SAME_STREAM,
    can_transcode,
)

LOSSY_QUALITY = 90
"""Of lossy targets: a frame is asked for to be looked at, not to be stored."""


def transcode(frame: bytes, form: FrameFormat, transfer_syntax_uid: str) -> bytes:
    """The frame in ``transfer_syntax_uid``; colours come out as RGB, interleaved, or inside
    of the codestream as ``photometric_after`` says.

    JPEG Baseline and its JPEG XL recompression turn into each other bit for bit; a
    codestream whose syntax is a part of the other one stays as it is; all else is decoded
    and encoded. Native frames are little-endian without the pad byte. Raises
    :class:`UnsupportedCodec` where ``can_transcode`` says no, else :class:`CodecError`.
    """
    source = form.transfer_syntax_uid
    if not possible(form, transfer_syntax_uid):
        raise UnsupportedCodec(f"no way from transfer syntax {source} to {transfer_syntax_uid}")
    if source == transfer_syntax_uid or (source, transfer_syntax_uid) in SAME_STREAM:
        return frame
    try:
        if source == JPEG_BASELINE and transfer_syntax_uid in (JPEGXL_RECOMPRESSION, JPEGXL):
            decode_frame(frame, form)  # a damaged JPEG must not travel on in new clothes
            return bytes(imagecodecs.jpegxl_encode_jpeg(frame, numthreads=1))
        if transfer_syntax_uid == JPEG_BASELINE and _holds_jpeg(frame, source):
            return bytes(imagecodecs.jpegxl_decode_jpeg(frame, numthreads=1))
    except CodecError:
        raise
    except Exception as error:  # the codec library raises its own kinds
        raise CodecError(f"the JPEG cannot be recompressed: {type(error).__name__}") from error
    pixels = decode_frame(frame, form)
    return encode(pixels, transfer_syntax_uid, LOSSY_QUALITY, bits_stored=form.bits_stored)


def possible(form: FrameFormat, transfer_syntax_uid: str) -> bool:
    """:func:`can_transcode` for frames in this format."""
    return can_transcode(
        form.transfer_syntax_uid,
        transfer_syntax_uid,
        form.bits_allocated,
        pixel_representation=form.pixel_representation,
        photometric=form.photometric_interpretation,
    )


def _holds_jpeg(frame: bytes, source: str) -> bool:
    return source == JPEGXL_RECOMPRESSION or (source == JPEGXL and sniff(frame).from_jpeg)
