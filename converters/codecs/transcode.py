# SPDX-License-Identifier: Apache-2.0
"""A frame in another transfer syntax, without loss: the same pixels, or the same JPEG."""

import imagecodecs

from converters.codecs.encoders import encode
from converters.codecs.errors import CodecError, UnsupportedCodec
from converters.codecs.render import FrameFormat, decode_frame
from converters.codecs.transfer_syntax import JPEG_BASELINE, JPEGXL_RECOMPRESSION, can_transcode


def transcode(frame: bytes, form: FrameFormat, transfer_syntax_uid: str) -> bytes:
    """The frame in ``transfer_syntax_uid``; colours come out as RGB, interleaved.

    JPEG Baseline and JPEG XL recompression turn into each other bit for bit; all else
    is decoded and encoded losslessly. Native frames are little-endian without the pad
    byte. Raises :class:`UnsupportedCodec` where ``can_transcode`` says no, else
    :class:`CodecError`.
    """
    source = form.transfer_syntax_uid
    if not can_transcode(source, transfer_syntax_uid, form.bits_allocated):
        raise UnsupportedCodec(f"no way from transfer syntax {source} to {transfer_syntax_uid}")
    if source == transfer_syntax_uid:
        return frame
    try:
        if (source, transfer_syntax_uid) == (JPEG_BASELINE, JPEGXL_RECOMPRESSION):
            decode_frame(frame, form)  # a damaged JPEG must not travel on in new clothes
            return bytes(imagecodecs.jpegxl_encode_jpeg(frame, numthreads=1))
        if (source, transfer_syntax_uid) == (JPEGXL_RECOMPRESSION, JPEG_BASELINE):
            return bytes(imagecodecs.jpegxl_decode_jpeg(frame, numthreads=1))
    except CodecError:
        raise
    except Exception as error:  # the codec library raises its own kinds
        raise CodecError(f"the JPEG cannot be recompressed: {type(error).__name__}") from error
    return encode(decode_frame(frame, form), transfer_syntax_uid, bits_stored=form.bits_stored)
