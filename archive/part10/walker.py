# SPDX-License-Identifier: Apache-2.0
"""One pass over an encoded data set, in constant depth of call and within a budget.

The result is the same data set in normal form (see ``normal_form``).

Bytes that are in normal form already are copied in long runs: a walk costs about a
microsecond an element.
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from archive.part10.budget import ParseBudget
from archive.part10.bulk import BULK_ABOVE, PIXEL_DATA, PIXEL_TAGS, BulkValue, join_path
from archive.part10.errors import BudgetExceeded, Malformed, Truncated
from archive.part10.fragments import Fragments, read_fragments
from archive.part10.normal_form import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    ITEM_DELIMITER,
    ITEM_UNDEFINED,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    element_header,
    sort_items,
    swap_bytes,
    tag_name,
)
from archive.part10.vr import LONG_MASK, MULTIPLE_TEXT, PADDED_WITH_NUL, SHORT_MASK, SWAP, known_vr

Buffer = bytes | mmap.mmap

_PIXEL_REPRESENTATION = 0x00280103
_TRAILING_PADDING = 0xFFFCFFFC
_MAX_ZERO_TAIL = 1 << 20
_MAX_GUESSED_ITEMS = 100_000
_MAX_STRAYS = 64


@dataclass(slots=True)
class Normalised:
    """A data set in normal form. ``elements`` has, for each tag of the data set itself
    (not of items), its VR and where header, value and end lie in ``data``."""

    data: bytes
    elements: dict[int, tuple[bytes, int, int, int]] = field(default_factory=dict)
    bulk: list[BulkValue] = field(default_factory=list)
    fragments: Fragments | None = None
    extended_offsets: tuple[int, int] | None = None  # offset and length in the source
    extended_lengths: tuple[int, int] | None = None
    findings: dict[str, int] = field(default_factory=dict)  # what, how often

    def value(self, tag: int) -> bytes | None:
        """The encoded value of a top-level element, None where it is absent."""
        found = self.elements.get(tag)
        return None if found is None else self.data[found[2] : found[3]]


def normalise(
    source: Buffer,
    start: int,
    end: int,
    *,
    implicit: bool,
    budget: ParseBudget,
    big_endian: bool = False,
    descriptor: int | None = None,
) -> Normalised:
    """Walk the data set in ``source[start:end]``. Raises a ``Part10Error``; offsets in
    its message count from the beginning of ``source``.

    ``descriptor`` is the source's file, if it is one. Bulk values are left in the source
    (big endian: unswapped, since who copies them can swap on the way).
    """
    return _Walk(source, end, budget, big_endian, descriptor).run(start, implicit)


class _Walk:
    def __init__(
        self, source: Buffer, end: int, budget: ParseBudget, big_endian: bool, descriptor: int | None
    ) -> None:
        self.descriptor = descriptor
        self.source, self.end, self.budget, self.big_endian = source, end, budget, big_endian
        self.out = bytearray()
        self.result = Normalised(b"")
        self.findings = self.result.findings
        order = ">" if big_endian else "<"
        self.read_explicit = struct.Struct(order + "HH2sH").unpack_from
        self.read_implicit = struct.Struct(order + "HHI").unpack_from
        self.read_u32 = struct.Struct(order + "I").unpack_from
        self.signed = False
        self.stack: list[tuple[int, bool, bool, int, int, bool]] = []
        self.unsorted: set[int] = set()
        self.strays = 0

    def note(self, finding: str) -> None:
        self.findings[finding] = self.findings.get(finding, 0) + 1

    def run(self, pos: int, implicit: bool) -> Normalised:
        """The walk itself: one loop without calls for what is common, for speed and depth.

        The source is in normal form from ``mark`` to ``pos`` and not yet copied; outside
        of ``copying`` the two are equal. ``limit`` is the current container's end, or
        that of the nearest one around it with a defined length; ``last`` is the last tag
        of a data set, or the current item number of a sequence, whose tag is ``tag``.
        """
        source, out, budget = self.source, self.out, self.budget
        read_explicit, read_implicit, read_u32 = self.read_explicit, self.read_implicit, self.read_u32
        short_mask, long_mask, value_limit = SHORT_MASK, LONG_MASK, budget.values
        limit, undefined, in_sequence, last, tag = self.end, False, False, -1, 0
        stack = self.stack
        mark = pos
        top_tag = top_start = depth = 0
        elements_left, items_left, header_limit = budget.elements, budget.items, budget.header_bytes
        copying = not implicit and not self.big_endian

        while True:
            if pos >= limit:  # the end of a container of defined length
                if not stack:
                    break
                if undefined:
                    raise Truncated(f"a sequence or item is not closed at byte {pos}")
                out += source[mark:pos]
                mark = pos
                out += SEQUENCE_DELIMITER if in_sequence else ITEM_DELIMITER
                depth -= in_sequence
                limit, undefined, in_sequence, last, tag, implicit = stack.pop()
                copying = not implicit and not self.big_endian
                if not stack:
                    self.close_top(top_tag, b"SQ", top_start)
                continue
            if limit - pos < 8:
                if self.ends_in_zeros(pos):
                    break
                raise Truncated(f"{limit - pos} bytes are left for an element at byte {pos}")
            begin = pos

            if in_sequence:
                group, element, length = read_implicit(source, pos)
                pos += 8
                if group != 0xFFFE or (element != 0xE000 and element != 0xE0DD):
                    raise Malformed(f"no item at byte {begin} of a sequence")
                if element == 0xE0DD:
                    if not undefined:
                        raise Malformed(f"a sequence delimiter at byte {begin} closes nothing")
                    if length or not copying:
                        out += source[mark:begin]
                        out += SEQUENCE_DELIMITER
                        mark = pos
                    depth -= 1
                    limit, undefined, in_sequence, last, tag, implicit = stack.pop()
                    copying = not implicit and not self.big_endian
                    if not stack:
                        out += source[mark:pos]
                        mark = pos
                        self.close_top(top_tag, b"SQ", top_start)
                    continue
                items_left -= 1
                if items_left < 0:
                    raise BudgetExceeded(f"more than {budget.items} items")
                last += 1
                stack.append((limit, undefined, True, last, tag, implicit))
                if length != UNDEFINED or not copying:
                    out += source[mark:begin]
                    out += ITEM_UNDEFINED
                    mark = pos
                    if len(out) > header_limit:
                        raise BudgetExceeded(f"the header exceeds {header_limit} bytes")
                if length == UNDEFINED:
                    undefined = True
                else:
                    if length > limit - pos:
                        raise self.too_long("an item", begin, pos + length)
                    limit, undefined = pos + length, False
                in_sequence, last = False, -1
                continue

            elements_left -= 1
            if elements_left < 0:
                raise BudgetExceeded(f"more than {budget.elements} elements")
            strange = not copying
            if implicit:
                group, element, length = read_implicit(source, pos)
                pos += 8
                number = group << 16 | element
                if group != 0xFFFE:
                    vr = self.implicit_vr(number, length, pos, limit)
                    mask = short_mask[vr] if vr in short_mask else long_mask[vr]
            else:
                group, element, vr, length = read_explicit(source, pos)
                number = group << 16 | element
                if vr in short_mask:
                    mask = short_mask[vr]
                    pos += 8
                elif group == 0xFFFE:
                    (length,) = read_u32(source, pos + 4)
                    pos += 8
                else:
                    if limit - pos < 12:
                        if self.ends_in_zeros(pos):
                            break
                        raise Truncated(f"{limit - pos} bytes are left for an element at byte {pos}")
                    (length,) = read_u32(source, pos + 8)
                    pos += 12
                    mask = long_mask.get(vr, 1)
                    if vr == b"UN" or vr not in long_mask:
                        vr, mask = self.strange_vr(number, vr, length, begin)
                        strange = True

            if group == 0xFFFE:
                if element != 0xE00D or not undefined:
                    raise Malformed(f"a delimiter at byte {begin} closes nothing")
                if length or not copying:
                    out += source[mark:begin]
                    out += ITEM_DELIMITER
                    mark = pos
                limit, undefined, in_sequence, last, tag, implicit = stack.pop()
                copying = not implicit and not self.big_endian
                continue

            if not stack:
                out += source[mark:begin]
                mark = begin
                top_tag, top_start = number, len(out)
                if top_start > header_limit:
                    raise BudgetExceeded(f"the header exceeds {header_limit} bytes")
            if number <= last and number:  # 0 may be the first of trailing zeros
                if number == last:
                    raise Malformed(f"{tag_name(number)} occurs twice")
                self.unsorted.add(top_tag if stack else 0)
            last = number

            if vr == b"SQ" and number not in PIXEL_TAGS:
                depth += 1
                if depth > budget.depth:
                    raise BudgetExceeded(f"more than {budget.depth} nested sequences")
                if length != UNDEFINED and length > limit - pos:
                    raise self.too_long(tag_name(number), begin, pos + length)
                if strange or length != UNDEFINED:
                    out += source[mark:begin]
                    out += element_header(number, b"SQ", UNDEFINED)
                    mark = pos
                stack.append((limit, undefined, False, last, tag, implicit))
                if strange and copying:  # a sequence as UN is in Implicit VR (PS3.5 6.2.2)
                    implicit, copying = True, False
                if length == UNDEFINED:
                    undefined = True
                else:
                    limit, undefined = pos + length, False
                in_sequence, last, tag = True, -1, number
                continue

            after = pos + length
            if length > BULK_ABOVE or group >= 0x7FE0 or group <= 2 or not element:
                dropped_until = self.special(number, vr, length, begin, pos, limit)
                if dropped_until:
                    out += source[mark:begin]
                    mark = pos = dropped_until
                    continue
            if after > limit:
                raise self.too_long(tag_name(number), begin, after)
            if (
                length >= value_limit
                and vr in MULTIPLE_TEXT
                and source[pos:after].count(b"\\") >= value_limit
            ):
                raise BudgetExceeded(f"{tag_name(number)} has more than {value_limit} values")
            if number == _PIXEL_REPRESENTATION:
                self.signed = length == 2 and source[pos:after] != b"\x00\x00"
            if strange or length & mask:
                out += source[mark:begin]
                vr = self.write_leaf(number, vr, source[pos:after], mask)
                mark = after
            pos = after
            if not stack:
                out += source[mark:pos]
                mark = pos
                self.close_top(number, vr, top_start)

        if len(out) > header_limit:
            raise BudgetExceeded(f"the header exceeds {header_limit} bytes")
        self.result.data = bytes(out)
        if self.unsorted:
            self.sort()
        return self.result

    def too_long(self, what: str, begin: int, after: int) -> Truncated | Malformed:
        """The refusal of a length that leads out of its container."""
        if after > self.end:
            return Truncated(f"{what} at byte {begin} ends {after - self.end} bytes after the file")
        return Malformed(f"{what} at byte {begin} is longer than what it lies in")

    def path(self, number: int) -> str:
        """The path of element ``number`` of the current item."""
        parts: list[int] = []
        for _, _, in_sequence, item, tag, _ in self.stack:
            if in_sequence:
                parts += (tag, item)
        return join_path([*parts, number])

    def implicit_vr(self, number: int, length: int, pos: int, limit: int) -> bytes:
        """The VR of an element that does not say it (PS3.5 A.1, 6.2.2)."""
        vr = known_vr(number, signed=self.signed)
        if length == UNDEFINED:
            return b"OW" if number in PIXEL_TAGS else b"SQ"
        if vr is not None:
            return vr
        # A private sequence of defined length looks like bytes. Its first item gives it
        # away; without this the same data set in Explicit VR would have another digest.
        private = number >> 16 & 1
        if (
            private
            and length >= 8
            and looks_like_items(self.source, pos, min(pos + length, limit), self.read_implicit)
        ):
            return b"SQ"
        return b"UN"

    def strange_vr(self, number: int, vr: bytes, length: int, begin: int) -> tuple[bytes, int]:
        """A better VR for UN (PS3.5 6.2.2) and for VRs that this edition does not know,
        which have a 32-bit length (PS3.5 7.1.2)."""
        if vr != b"UN":
            if number == 0 and vr == b"\x00\x00":  # perhaps zeros after the data set
                return b"UN", 1
            if not (vr.isalpha() and vr.isupper()) and vr != b"??":
                raise Malformed(f"no value representation in the element at byte {begin}")
            self.note(f"{tag_name(number)} has an unknown value representation: taken as UN")
            return b"UN", 1
        if length == UNDEFINED and not self.big_endian:
            return b"SQ", 1
        known = known_vr(number, signed=self.signed)
        if known is None or self.big_endian:  # UN is never swapped
            return b"UN", 1
        return known, SHORT_MASK[known] if known in SHORT_MASK else LONG_MASK[known]

    def special(self, number: int, vr: bytes, length: int, begin: int, pos: int, limit: int) -> int:
        """Decide on an element that may not belong into a header. 0: it does. Else it is
        left out, noted where it must be, and the walk goes on at the byte returned."""
        group, element = number >> 16, number & 0xFFFF
        nested = bool(self.stack)
        if group <= 2:
            # Megabytes of zeros are read as such elements, eight bytes at a time.
            self.strays += 1
            if self.strays > _MAX_STRAYS:
                raise Malformed(f"more than {_MAX_STRAYS} elements that do not belong into a data set")
        if not number and self.ends_in_zeros(begin):
            return self.end
        if number in PIXEL_TAGS:
            return self.take_bulk(number, vr, length, begin, pos, limit)
        if length == UNDEFINED:
            raise Malformed(f"{tag_name(number)} at byte {begin} has an undefined length")
        if pos + length > limit:
            raise self.too_long(tag_name(number), begin, pos + length)
        if number in (EXTENDED_OFFSETS, EXTENDED_LENGTHS):
            if not nested:
                if number == EXTENDED_OFFSETS:
                    self.result.extended_offsets = (pos, length)
                else:
                    self.result.extended_lengths = (pos, length)
            return pos + length
        if number == _TRAILING_PADDING or not element:
            return pos + length
        if group <= 2:
            self.note(f"{tag_name(number)} does not belong into a data set: left out")
            return pos + length
        if length > BULK_ABOVE:
            return self.take_bulk(number, vr, length, begin, pos, limit)
        return 0

    def ends_in_zeros(self, pos: int) -> bool:
        """Whether nothing but zeros follows the data set, which some writers pad."""
        if self.stack or self.end - pos > _MAX_ZERO_TAIL or any(self.source[pos : self.end]):
            return False
        self.note("zeros follow the data set")
        return True

    def take_bulk(self, number: int, vr: bytes, length: int, begin: int, pos: int, limit: int) -> int:
        """Note a bulk value; return where it ends."""
        path, bulk = self.path(number), self.result.bulk
        if length == UNDEFINED:
            if number != PIXEL_DATA or self.big_endian:
                raise Malformed(f"{tag_name(number)} at byte {begin} has an undefined length")
            fragments = read_fragments(self.source, pos, limit, self.budget, self.descriptor)
            if not self.stack:
                self.result.fragments = fragments
            bulk.append(BulkValue(path, "OB", pos, fragments.end - pos, True))
            return fragments.end
        if pos + length > limit:
            raise self.too_long(tag_name(number), begin, pos + length)
        bulk.append(BulkValue(path, vr.decode("ascii"), pos, length))
        return pos + length

    def write_leaf(self, number: int, vr: bytes, value: bytes, mask: int) -> bytes:
        """Write an element anew: little endian, of even length. Returns the VR, which is
        UN where the length is none of the VR's."""
        length = len(value)
        if length & mask:
            if mask > 1 or vr in (b"US", b"SS"):
                self.note(f"{tag_name(number)} has a length that its value representation cannot have")
                vr = b"UN"
            if length & 1:
                self.note(f"{tag_name(number)} has an odd length")
                value += b"\x00" if vr in PADDED_WITH_NUL or vr in SWAP else b" "
        if self.big_endian and vr in SWAP:
            value = swap_bytes(value, SWAP[vr])
        self.out += element_header(number, vr, len(value))
        self.out += value
        return vr

    def close_top(self, number: int, vr: bytes, start: int) -> None:
        """Note where an element of the data set itself lies."""
        if number in self.result.elements:
            raise Malformed(f"{tag_name(number)} occurs twice")
        end = len(self.out)
        if vr == b"SQ":
            self.result.elements[number] = (vr, start, start + 12, end - 8)
        else:
            header = 8 if vr in SHORT_MASK and self.out[start + 4 : start + 6] == vr else 12
            self.result.elements[number] = (vr, start, start + header, end)

    def sort(self) -> None:
        """Bring elements into ascending order, at every level where they are not."""
        self.note("elements are not in ascending order: sorted")
        data, elements = self.result.data, self.result.elements
        out = bytearray()
        placed: dict[int, tuple[bytes, int, int, int]] = {}
        for number in sorted(elements):
            vr, start, value, end = elements[number]
            moved = len(out) - start
            if number in self.unsorted:
                out += data[start:value]
                out += sort_items(data, value, end)
                placed[number] = (vr, start + moved, value + moved, len(out))
                out += SEQUENCE_DELIMITER
            else:
                out += data[start : end + 8 * (vr == b"SQ")]
                placed[number] = (vr, start + moved, value + moved, end + moved)
        self.result.data, self.result.elements = bytes(out), placed


def looks_like_items(
    source: Buffer, pos: int, end: int, read: Callable[[Buffer, int], tuple[int, ...]]
) -> bool:
    """Whether ``source[pos:end]`` is a chain of items of defined length, to the byte."""
    for _ in range(_MAX_GUESSED_ITEMS):
        if pos + 8 > end:
            break
        group, element, length = read(source, pos)
        if (group, element) != (0xFFFE, 0xE000) or length == UNDEFINED:
            return False
        if length and not (length >= 8 and pos + 16 <= end and 0 < read(source, pos + 8)[0] < 0xFFFE):
            return False
        pos += 8 + length
    return pos == end
