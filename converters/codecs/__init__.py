# SPDX-License-Identifier: Apache-2.0
"""Frames in every transfer syntax to pixels and back; pictures for a screen.

``decode`` and ``encode`` work on one frame, ``blank`` makes the frame of a tile that
was left out; ``transcode`` and ``render`` have modules of their own. The codec
libraries are imported when a function is first asked for: processes that only hand
frames to the pool need none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec

if TYPE_CHECKING:
    from converters.codecs.decoders import decode
    from converters.codecs.encoders import blank, encode

__all__ = ["CodecError", "FrameTooLarge", "UnsupportedCodec", "blank", "decode", "encode", "preload"]

_HOME = {
    "decode": "converters.codecs.decoders",
    "encode": "converters.codecs.encoders",
    "blank": "converters.codecs.encoders",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def preload() -> None:
    """Import the codec libraries now: for a thread beside work that waits for the disk."""
    for home in sorted(set(_HOME.values())):
        import_module(home)
