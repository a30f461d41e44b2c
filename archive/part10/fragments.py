# SPDX-License-Identifier: Apache-2.0
"""The items of an encapsulated pixel data element (PS3.5 A.4)."""

import mmap
import os
import struct
from array import array
from dataclasses import dataclass

from archive.part10.budget import ParseBudget
from archive.part10.errors import BudgetExceeded, Malformed, Truncated

_ITEM = 0xE000FFFE
_SEQUENCE_DELIMITER = 0xE0DDFFFE
_READ_AHEAD = 4 << 20


@dataclass(slots=True)
class Fragments:
    """Where the fragments lie. Offsets and lengths are of the items' values, counted in
    the source; the basic offset table's item is not among them."""

    table_offset: int
    table_length: int
    offsets: "array[int]"
    lengths: "array[int]"
    end: int  # after the sequence delimitation item


def read_fragments(
    source: bytes | mmap.mmap, start: int, limit: int, budget: ParseBudget, descriptor: int | None = None
) -> Fragments:
    """Walk the items from the basic offset table's on. Raises ``Truncated`` (the
    delimiter too must be there), ``Malformed`` or ``BudgetExceeded``.

    Only item headers are touched: by positioned reads where there is a ``descriptor``.
    Measured on 19,200 frames, 330 MB: 28 ms by reads, 42 ms by the map, whose page
    faults cost more than calls and whose pages would count as resident. Read-ahead is
    asked for, since a cold file took four times as long without (1.5 s against 0.4 s).
    """
    unpack = struct.Struct("<II").unpack_from
    pread = os.pread
    offsets: array[int] = array("Q")
    lengths: array[int] = array("Q")
    add_offset, add_length = offsets.append, lengths.append
    pos = start
    ahead = start
    left = budget.frames + 1
    while True:
        if pos + 8 > limit:
            raise Truncated(f"pixel data is not closed: its items end at byte {min(pos, limit)}")
        if descriptor is None:
            tag, length = unpack(source, pos)
        else:
            if pos >= ahead:
                os.posix_fadvise(descriptor, pos, _READ_AHEAD, os.POSIX_FADV_WILLNEED)
                ahead = pos + _READ_AHEAD - (1 << 16)
            header = pread(descriptor, 8, pos)
            if len(header) < 8:
                raise Truncated("the file became shorter while it was read")
            tag, length = unpack(header)
        pos += 8
        if tag != _ITEM:
            break
        left -= 1
        if left < 0:
            raise BudgetExceeded(f"more than {budget.frames} fragments")
        add_offset(pos)
        add_length(length)
        pos += length
    if tag != _SEQUENCE_DELIMITER:
        raise Malformed(f"no item at byte {pos - 8} of pixel data")
    if not offsets:
        raise Malformed("pixel data without a basic offset table item")
    return Fragments(offsets[0], lengths[0], offsets[1:], lengths[1:], pos)
