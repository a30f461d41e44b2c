# SPDX-License-Identifier: Apache-2.0
"""Codeblocks of iSyntax (Hulsken's method) decoded by libisyntax, out of the wheel of
pyisyntax.

Only libisyntax's decoder of codeblocks is called, not what pyisyntax offers. As
released, pyisyntax 0.1.7 halves chroma towards zero and lets dark pixels wrap around to
bright ones, puts coarse levels off by nearly a pixel, believes every offset in the
header, and takes zeros for blocks that it cannot decode. The decoder believes its input
too, so heads are checked here; what it says of a block on standard output is listened to,
since it returns nothing of it. Neither is a public interface: a known block is decoded
first.

A block: version 1 starts with the length of its planes (u32), version 2 with a mask of
planes for each band (u16); then the symbol of a run and the bits of its counter (u8
each), in version 2 offsets of planes, then the Huffman tree. Bits count from the least
significant one.

Sources: B. Hulsken, "Fast Compression Method for Medical Images on the Web", arXiv
2005.08713; libisyntax (BSD-2), https://github.com/amspath/libisyntax.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, MissingLibrary

REQUIREMENT = "pyisyntax==0.1.7"
SPARE_BYTES = 16  # the decoder reads words beyond the last byte
EMPTY_BYTES = 8
MAX_CODE_BITS = 16
MAX_COUNTER_BITS = 16
MAX_BANDS = 3
_KNOWN_EDGE = 32
_KNOWN_BLOCK = bytes.fromhex(
    "01f80005000000000000000000dd57f17f0401647626e2cca49d95b4b3927656d2ce4ada59493b2b696725ed544892499024"
    "9320492641924c8224990449320992641224c91448da0930059276024c81a49d0053206927c01448da0930059276024c81a4"
    "9d0053206927c0b64d80165a68b76d02b4d042bb6d13a08516da6d9b002db4d06edb0468a18576db26400b2db4db36015a68"
    "a1ddb609d0420bed5afbfeffffffff6bedfbffffffffafb5efffffffffbfd6beffffffffff5afbfeffffffff6bedfbffffff"
    "ffafb5efffffffffbfd6beffffffffbfaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2a"
)
_redirecting = threading.Lock()


class CodeblockDecoder:
    """Raises MissingLibrary where pyisyntax is not installed, or of another making."""

    def __init__(self) -> None:
        try:
            from isyntax import _pyisyntax

            library = ctypes.CDLL(_pyisyntax.__file__)
            self._prepare = library.init_thread_memory
            self._decompress = library.isyntax_hulsken_decompress
        except (ImportError, OSError, AttributeError) as error:
            raise MissingLibrary("Philips iSyntax", REQUIREMENT) from error
        self._prepare.argtypes = (ctypes.c_void_p,)
        self._prepare.restype = None
        self._decompress.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            *(ctypes.c_int32,) * 4,
            ctypes.c_void_p,
        )
        self._decompress.restype = ctypes.c_bool
        self._flush = ctypes.CDLL(None).fflush
        known = self.decode(_KNOWN_BLOCK, 1, _KNOWN_EDGE, 2)
        if not (known == np.arange(_KNOWN_EDGE) - 5).all():
            raise MissingLibrary("Philips iSyntax", REQUIREMENT)

    def decode(self, data: bytes, bands: int, edge: int, version: int) -> NDArray[np.int16]:
        """(Bands, edge, edge): one band (low), or three (high across, down, both).
        Raises DamagedSlide."""
        if len(data) <= EMPTY_BYTES:
            return np.zeros((bands, edge, edge), np.int16)
        _check_head(data, bands, edge, version)
        # always as large as for three bands: version 1 guesses their number from the length
        samples = np.zeros((MAX_BANDS, edge, edge), np.int16)
        self._prepare(None)
        with self._listening() as said:
            done = self._decompress(
                data + bytes(SPARE_BYTES),
                len(data),
                edge,
                edge,
                int(bands == 3),
                version,
                samples.ctypes.data,
            )
        if not done or said:
            raise DamagedSlide("a codeblock is damaged")
        return samples[:bands]

    @contextmanager
    def _listening(self) -> Iterator[bytearray]:
        """What C code prints meanwhile; nothing of it reaches our own output."""
        said = bytearray()
        with _redirecting:
            reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # full: the rest is dropped
            saved = [os.dup(descriptor) for descriptor in (1, 2)]
            try:
                self._flush(None)
                for descriptor in (1, 2):
                    os.dup2(writing, descriptor)
                try:
                    yield said
                finally:
                    self._flush(None)
                    for descriptor, kept in zip((1, 2), saved, strict=True):
                        os.dup2(kept, descriptor)
                    os.close(writing)
                    said += os.read(reading, 65536)
            finally:
                for descriptor in (*saved, reading):
                    os.close(descriptor)


@dataclass
class _Bits:
    """Bits of a block's head, the least significant first."""

    value: int
    left: int

    def take(self, count: int) -> int:
        if count > self.left:
            raise DamagedSlide("a codeblock is damaged")
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        self.left -= count
        return taken


def _check_head(data: bytes, bands: int, edge: int, version: int) -> None:
    """Raises DamagedSlide for lengths and Huffman trees that the decoder would run away with."""
    head = data[:512]  # three masks, offsets and a tree of 256 leaves are shorter
    bits = _Bits(int.from_bytes(head, "little"), 8 * len(head))
    plane_bytes = edge * edge // 8
    offset_bits = 0
    if version == 1:
        planes, rest = divmod(bits.take(32), plane_bytes)
        good = planes <= 16 * bands and rest in (0, 2 * bands)
    else:
        masks = [bits.take(16) for _ in range(bands)]
        planes = sum(mask.bit_count() for mask in masks)
        good = planes > 0
        aggregate = reduce(or_, masks)
        offset_bits = (aggregate.bit_count() - 1) * ((planes * plane_bytes).bit_length() - 1 + 5)
    bits.take(8)
    if not good or not 1 <= bits.take(8) <= MAX_COUNTER_BITS:
        raise DamagedSlide("a codeblock is damaged")
    bits.take(offset_bits)
    _check_tree(bits.value, bits.left)


def _check_tree(value: int, left: int) -> None:
    """0 is a fork, 1 a leaf and its symbol of 8 bits."""
    depths, leaves = [0], 0
    while depths:
        depth = depths.pop()
        if value & 1:
            value >>= 9
            left -= 9
            leaves += 1
        else:
            value >>= 1
            left -= 1
            depths += (depth + 1, depth + 1)
        if depth > MAX_CODE_BITS or leaves > 256 or left < 0:
            raise DamagedSlide("a codeblock is damaged")
