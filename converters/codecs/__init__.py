# SPDX-License-Identifier: Apache-2.0
"""Frames in every transfer syntax to pixels and back; pictures for a screen.

``decode`` and ``encode`` work on one frame, ``blank`` makes the frame of a tile that
was left out, ``render`` (in ``converters.codecs.render``) puts tiles together.
"""

from converters.codecs.decode import decode
from converters.codecs.encode import blank, encode
from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec

__all__ = ["CodecError", "FrameTooLarge", "UnsupportedCodec", "blank", "decode", "encode"]
