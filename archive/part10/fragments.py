# SPDX-License-Identifier: Apache-2.0
"""The items of an encapsulated pixel data element (PS3.5 A.4)."""

import mmap
import struct
from array import array
from dataclasses import dataclass

from archive.part10.budget import ParseBudget
from archive.part10.errors import BudgetExceeded, Malformed, Truncated

_ITEM = 0xE000FFFE
_SEQUENCE_DELIMITER = 0xE0DDFFFE
_RELEASE_EVERY = 32 << 20


@dataclass(slots=True)
class Fragments:
    """Where the fragments lie. Offsets and lengths are of the items' values, counted in
    the source; the basic offset table's item is not among them."""

    table_offset: int
    table_length: int
    offsets: "array[int]"
    lengths: "array[int]"
    end: int  # after the sequence delimitation item


def read_fragments(source: bytes | mmap.mmap, start: int, limit: int, budget: ParseBudget) -> Fragments:
    """Walk the items from the basic offset table's on. Raises ``Truncated`` (the
    delimiter too must be there), ``Malformed`` or ``BudgetExceeded``.

    Only item headers are touched. A map gives its pages back every 32 MiB, so that the
    resident size does not grow with the file.
    """
    read = struct.Struct("<II").unpack_from
    offsets: array[int] = array("Q")
    lengths: array[int] = array("Q")
    add_offset, add_length = offsets.append, lengths.append
    pos = start
    released, release = start & ~0xFFFF, start + _RELEASE_EVERY
    left = budget.frames + 1
    while True:
        if pos + 8 > limit:
            raise Truncated(f"pixel data is not closed: its items end at byte {min(pos, limit)}")
        tag, length = read(source, pos)
        pos += 8
        if tag != _ITEM:
            break
        left -= 1
        if left < 0:
            raise BudgetExceeded(f"more than {budget.frames} fragments")
        add_offset(pos)
        add_length(length)
        pos += length
        if pos > release:
            if isinstance(source, mmap.mmap):
                upto = min(pos, limit) & ~0xFFFF
                source.madvise(mmap.MADV_DONTNEED, released, upto - released)
                released = upto
            release = pos + _RELEASE_EVERY
    if tag != _SEQUENCE_DELIMITER:
        raise Malformed(f"no item at byte {pos - 8} of pixel data")
    if not offsets:
        raise Malformed("pixel data without a basic offset table item")
    return Fragments(offsets[0], lengths[0], offsets[1:], lengths[1:], pos)
