# SPDX-License-Identifier: Apache-2.0
"""Normal form: how this package keeps a data set as bytes.

Explicit VR Little Endian; sequences and items of undefined length, so that a bulk value
can be put back without any length to mend; no group lengths, no group 0 or 2, no
trailing padding, no offset tables and no bulk values; even lengths; tags in ascending
order. ``walker.normalise`` and ``encode.encode_dataset`` make it; what is here reads and
writes its pieces, and trusts it.
"""

import struct

from archive.part10.errors import Malformed
from archive.part10.vr import SHORT_MASK

UNDEFINED = 0xFFFFFFFF
ITEM_UNDEFINED = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
ITEM_DELIMITER = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
EXTENDED_OFFSETS = 0x7FE00001
EXTENDED_LENGTHS = 0x7FE00002

_READ_ELEMENT = struct.Struct("<HH2sH").unpack_from
_READ_U32 = struct.Struct("<I").unpack_from


def element_header(tag: int, vr: bytes, length: int) -> bytes:
    """Tag, VR and length in Explicit VR Little Endian; UN where a short VR's 16 bits do
    not hold the length (PS3.5 6.2.2)."""
    if vr in SHORT_MASK:
        if length < 0x10000:
            return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)
        vr = b"UN"
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length)


def tag_name(tag: int) -> str:
    """(gggg,eeee), for messages."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def swap_bytes(value: bytes, size: int) -> bytes:
    """``value`` with the byte order of its numbers of ``size`` bytes reversed."""
    swapped = bytearray(len(value))
    for n in range(size):
        swapped[n::size] = value[size - 1 - n :: size]
    return bytes(swapped)


def sort_items(data: bytes, pos: int, end: int) -> bytes:
    """The items of a sequence in normal form, each with its elements in ascending order.
    Raises ``Malformed`` for a tag that occurs twice. The depth is the walk's, so bounded."""
    out = bytearray()
    while pos < end:
        elements: dict[int, bytes] = {}
        pos += 8
        while data[pos : pos + 4] != ITEM_DELIMITER[:4]:
            number, vr, value, after = read_element(data, pos)
            if number in elements:
                raise Malformed(f"{tag_name(number)} occurs twice")
            if vr == b"SQ":
                after = sequence_end(data, value)
                sorted_items = sort_items(data, value, after - 8)
                elements[number] = data[pos:value] + sorted_items + SEQUENCE_DELIMITER
            else:
                elements[number] = data[pos:after]
            pos = after
        pos += 8
        out += ITEM_UNDEFINED
        for number in sorted(elements):
            out += elements[number]
        out += ITEM_DELIMITER
    return bytes(out)


def read_element(data: bytes, pos: int) -> tuple[int, bytes, int, int]:
    """The element at ``pos`` of data in normal form: tag, VR, where its value begins and
    where it ends (for a sequence, the same: its length is undefined)."""
    group, element, vr, length = _READ_ELEMENT(data, pos)
    if vr in SHORT_MASK:
        return group << 16 | element, vr, pos + 8, pos + 8 + length
    (length,) = _READ_U32(data, pos + 8)
    return group << 16 | element, vr, pos + 12, pos + 12 + (0 if vr == b"SQ" else length)


def sequence_end(data: bytes, pos: int) -> int:
    """Where the sequence ends whose first item is at ``pos`` of data in normal form:
    after its delimiter."""
    depth = 1
    short = SHORT_MASK
    while depth:
        group, element, vr, length = _READ_ELEMENT(data, pos)
        if vr in short:
            pos += 8 + length
        elif group == 0xFFFE:
            pos += 8
            depth -= element == 0xE0DD
        elif vr == b"SQ":
            pos += 12
            depth += 1
        else:
            pos += 12 + _READ_U32(data, pos + 8)[0]
    return pos
