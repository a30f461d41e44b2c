# SPDX-License-Identifier: Apache-2.0
"""One gzip member out of pieces that were compressed long ago and literals of now.

A single member, since browsers read no further than the first. Its CRC-32 is combined
from those of the pieces, so nothing is inflated: 20,000 frames' metadata cost what copying
a third of a megabyte costs.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

from archive.values import Deflated

Piece = bytes | Deflated

_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"
_MOST_LITERAL = 0xFFFF
_POLYNOMIAL = 0xEDB88320  # CRC-32 of RFC 1952, bits reflected: x^31 is the lowest one
_ONE = 1 << 31


def spliced(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """The gzip form of ``pieces``, one after the other; literals stay uncompressed."""
    yield _HEAD
    crc = size = 0
    for piece in pieces:
        if isinstance(piece, bytes):
            yield from _stored(piece)
            crc = zlib.crc32(piece, crc)
            size += len(piece)
        else:
            yield piece.data
            crc = joined_crc32(crc, piece.crc32, piece.length)
            size += piece.length
    yield _LAST_BLOCK + struct.pack("<II", crc, size & 0xFFFFFFFF)


def inflated(pieces: Iterable[Piece], chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """The same, for clients that take no gzip; a chunk is in memory at a time."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        data = piece.data
        while data:
            yield inflate.decompress(data, chunk_bytes)
            data = inflate.unconsumed_tail


def _stored(literal: bytes) -> Iterator[bytes]:
    for start in range(0, len(literal), _MOST_LITERAL):
        part = literal[start : start + _MOST_LITERAL]
        yield b"\x00" + struct.pack("<HH", len(part), len(part) ^ 0xFFFF) + part


def joined_crc32(first: int, second: int, second_bytes: int) -> int:
    """The CRC-32 of two texts one after the other, from theirs and the second's length."""
    return _product(_power(second_bytes), first) ^ second


def _product(a: int, b: int) -> int:
    """Of two polynomials over GF(2), modulo CRC-32's."""
    result, bit = 0, _ONE
    while a:
        if a & bit:
            result ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result


@lru_cache(maxsize=4096)
def _power(byte_count: int) -> int:
    """x to the power of 8 times ``byte_count``."""
    result, factor = _ONE, _ONE >> 8
    while byte_count:
        if byte_count & 1:
            result = _product(result, factor)
        factor = _product(factor, factor)
        byte_count >>= 1
    return result
