# SPDX-License-Identifier: Apache-2.0
"""DICOM JSON as it is kept: one gzip member that can be cut and joined without inflating it.

A viewer asks for the metadata of a sparse level, 18 MB of JSON, and gets bytes that were
compressed once, when the instance came. But they stand in an array, and where the model
has ``bulk:`` the edge puts a URL of its own. So the text is compressed in pieces that end
on a byte and look back at nothing, and an extra field of the member's header (RFC 1952
2.3.1.1) says where they lie. For everybody else it is gzip like any other.
"""

import gzip
import re
import struct
import zlib
from collections.abc import Sequence

from archive.values import Deflated

PLACE = b"bulk:"
"""What stands between two pieces."""

LEVEL = 6
_MARKED = re.compile(rb'(?<="BulkDataURI":")bulk:')  # a quote inside of a value is escaped
_MOST_PIECES = 256  # annotations with more groups are compressed as one, and cut when asked for
_HEAD = struct.Struct("<2s2BI2BH")
_SUBFIELD = struct.Struct("<2sH")
_PIECE = struct.Struct("<3I")  # deflated bytes, bytes, CRC-32
_NAME = b"CJ"
_FEXTRA = 4
_STORED_PLACE = b"\x00" + struct.pack("<HH", len(PLACE), len(PLACE) ^ 0xFFFF) + PLACE
_END = b"\x03\x00"  # an empty last block


def pack(text: bytes) -> bytes:
    """The gzip form of one JSON object."""
    texts = _MARKED.split(text)
    if len(texts) > _MOST_PIECES:
        return gzip.compress(text, LEVEL, mtime=0)
    made = [_deflated(piece, LEVEL) for piece in texts]
    index = b"".join(_PIECE.pack(len(piece.data), piece.length, piece.crc32) for piece in made)
    head = _HEAD.pack(b"\x1f\x8b", 8, _FEXTRA, 0, 0, 255, _SUBFIELD.size + len(index))
    body = _STORED_PLACE.join(piece.data for piece in made)
    tail = struct.pack("<II", zlib.crc32(text), len(text) & 0xFFFFFFFF)
    return head + _SUBFIELD.pack(_NAME, len(index)) + index + body + _END + tail


def pieces(member: bytes) -> Sequence[Deflated]:
    """The pieces of a member, ``PLACE`` between each two left out. Members without our
    field are inflated for it. Raises what ``gzip`` raises of a broken one."""
    found = _indexed(member)
    if found is not None:
        return found
    return [_deflated(piece, 1) for piece in _MARKED.split(gzip.decompress(member))]


def _deflated(text: bytes, level: int) -> Deflated:
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)
    return Deflated(data, len(text), zlib.crc32(text))


def _indexed(member: bytes) -> list[Deflated] | None:
    start = _HEAD.size + _SUBFIELD.size
    if len(member) < start:
        return None
    magic, _, flags, _, _, _, extra = _HEAD.unpack_from(member)
    name, size = _SUBFIELD.unpack_from(member, _HEAD.size)
    if magic != b"\x1f\x8b" or flags != _FEXTRA or name != _NAME or extra != size + _SUBFIELD.size:
        return None
    found: list[Deflated] = []
    at = start + size
    for deflated, length, crc32 in _PIECE.iter_unpack(member[start:at]):
        if found:
            at += len(_STORED_PLACE)
        found.append(Deflated(member[at : at + deflated], length, crc32))
        at += deflated
    return found if at + len(_END) + 8 == len(member) else None
