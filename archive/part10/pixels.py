# SPDX-License-Identifier: Apache-2.0
"""From pixel data as it lies in a file to a frame table.

A basic or extended offset table (PS3.5 A.4, PS3.3 C.7.6.3.1.8) is a claim: the items
are the truth. A claim that does not fit is a finding, and the items decide alone. Where
they cannot, the file is refused.
"""

import mmap
import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archive.part10.budget import ParseBudget
from archive.part10.bulk import BulkValue
from archive.part10.errors import BudgetExceeded, Malformed, Truncated
from archive.part10.fragments import Fragments
from archive.part10.frame_table import Range, encode_bits, encode_direct, encode_gather
from archive.part10.normal_form import (
    tag_name,
)
from archive.part10.syntaxes import NATIVE, VIDEO
from archive.part10.walker import Normalised

_NUMBER_OF_FRAMES = 0x00280008
_INTEGER = re.compile(rb" *\+?([0-9]{1,10}) *\x00?")
_CODESTREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
_BITS_OF = {0x7FE00008: 32, 0x7FE00009: 64}

Positions = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class PixelShape:
    """The attributes that give native pixel data their size (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    frames: int
    subsampled: bool  # YBR_FULL_422: two samples a pixel on average (C.7.6.3.1.2)

    @property
    def bits_per_frame(self) -> int:
        samples = 2 if self.subsampled else self.samples_per_pixel
        return self.rows * self.columns * samples * self.bits_allocated


def frame_table(
    source: bytes | mmap.mmap,
    normal: Normalised,
    pixel_data: BulkValue,
    transfer_syntax_uid: str,
    budget: ParseBudget,
    findings: list[str],
) -> bytes:
    """The encoded frame table of ``pixel_data``, blob 0 being ``source``. Adds to
    ``findings``; raises a ``Part10Error``."""
    fragments = normal.fragments
    if fragments is None:
        if transfer_syntax_uid not in NATIVE and pixel_data.tag == 0x7FE00010:
            raise Malformed("pixel data of a compressed transfer syntax are not encapsulated")
        return _native(normal, pixel_data, budget, findings)
    if transfer_syntax_uid in NATIVE:
        raise Malformed("pixel data of an uncompressed transfer syntax are encapsulated")
    frames = _number_of_frames(normal, budget)
    if transfer_syntax_uid in VIDEO:
        if frames > 1:
            findings.append("video: its frames are one bit stream and cannot be addressed")
        return _table(_frames_of(fragments, np.zeros(1, dtype=np.int64)), fragments)
    return _encapsulated(source, normal, fragments, frames, findings)


# ---- native ----------------------------------------------------------------------------


def _native(normal: Normalised, pixel_data: BulkValue, budget: ParseBudget, findings: list[str]) -> bytes:
    shape = _shape(normal, pixel_data.tag, budget)
    bits = shape.bits_per_frame
    offset, length = pixel_data.offset, pixel_data.length
    needed = (bits * shape.frames + 7) // 8
    if length < needed:
        raise Truncated(f"{shape.frames} frames need {needed} bytes of pixel data: there are {length}")
    if length > needed + needed % 2:
        findings.append(f"{length - needed} bytes follow the last frame of the pixel data")
    if normal.extended_offsets or normal.extended_lengths:
        findings.append("an extended offset table beside native pixel data: ignored")
    if shape.bits_allocated == 1 or bits % 8:
        return encode_bits(shape.frames, bits, offset=offset, length=length)
    if shape.frames > budget.frames:
        raise BudgetExceeded(f"more than {budget.frames} frames")
    size = bits // 8
    if size >= 1 << 32:
        return encode_gather([Range(0, offset + n * size, size)] for n in range(shape.frames))
    return encode_direct(
        np.arange(shape.frames, dtype=np.uint64) * np.uint64(size) + np.uint64(offset),
        np.full(shape.frames, size, dtype=np.uint64),
    )


def _shape(normal: Normalised, pixel_tag: int, budget: ParseBudget) -> PixelShape:
    rows, columns, samples = (_unsigned(normal, tag) for tag in (0x00280010, 0x00280011, 0x00280002))
    bits = _BITS_OF.get(pixel_tag) or _unsigned(normal, 0x00280100)
    photometric = (normal.value(0x00280004) or b"").strip(b" \x00")
    frames = _number_of_frames(normal, budget, native=True)
    if not rows * columns * samples * bits:
        raise Malformed("pixel data of no size: Rows, Columns, Samples or Bits Allocated is 0")
    if bits > 64:
        raise Malformed("Bits Allocated exceeds 64")
    return PixelShape(rows, columns, samples, bits, frames, photometric == b"YBR_FULL_422" and samples == 3)


def _unsigned(normal: Normalised, tag: int) -> int:
    """A US of one value; another VR or length could overflow who reads it later."""
    found = normal.elements.get(tag)
    if found is None:
        raise Malformed(f"{tag_name(tag)} is absent: pixel data need it")
    vr, _, start, end = found
    if vr != b"US" or end - start != 2:
        raise Malformed(f"{tag_name(tag)} is not one 16-bit number")
    return int(struct.unpack_from("<H", normal.data, start)[0])


def _number_of_frames(normal: Normalised, budget: ParseBudget, *, native: bool = False) -> int:
    """Number of Frames (PS3.3 C.7.6.6.1), 1 where absent. Native bit planes may have as
    many as their bytes hold; else the budget bounds them before anything is made."""
    value = normal.value(_NUMBER_OF_FRAMES)
    if value is None or not value.strip(b" \x00"):
        return 1
    matched = _INTEGER.fullmatch(value)
    if matched is None or not 1 <= int(matched[1]) < 1 << 31:
        raise Malformed("Number of Frames is not a positive integer")
    frames = int(matched[1])
    if frames > budget.frames and not native:
        raise BudgetExceeded(f"more than {budget.frames} frames")
    return frames


# ---- encapsulated ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Frames:
    """Fragments grouped to frames. ``first`` is each frame's first fragment; ``lengths``
    are the frames' bytes as far as an extended offset table is right about them."""

    first: NDArray[np.int64]
    lengths: Positions | None = None


def _frames_of(fragments: Fragments, first: NDArray[np.int64], lengths: Positions | None = None) -> _Frames:
    if not fragments.offsets:
        raise Malformed("encapsulated pixel data have no fragment")
    return _Frames(first, lengths)


def _encapsulated(
    source: bytes | mmap.mmap, normal: Normalised, fragments: Fragments, frames: int, findings: list[str]
) -> bytes:
    count = len(fragments.offsets)
    if count < frames:
        raise Malformed(f"{frames} frames in {count} fragments")
    lengths = np.frombuffer(fragments.lengths, dtype=np.uint64)
    if np.any(lengths & np.uint64(1)):
        findings.append("fragments of odd length")
    if not np.all(lengths):
        findings.append("fragments without a byte")
    # A table counts from the first fragment's item tag.
    starts = np.frombuffer(fragments.offsets, dtype=np.uint64) - np.uint64(fragments.offsets[0])
    basic = _check_basic(source, fragments, starts, frames, findings)
    extended, true_lengths = _check_extended(source, normal, fragments, starts, frames, findings)
    if basic is not None and extended is not None:
        findings.append("both a basic and an extended offset table")
        if not np.array_equal(basic, extended):
            findings.append("basic and extended offset table differ")
    first = extended if extended is not None else basic
    if count == frames:
        first = np.arange(frames, dtype=np.int64)
    elif frames == 1:
        first = np.zeros(1, dtype=np.int64)
    elif first is None:
        first = _by_codestream(source, fragments, frames)
        findings.append("frames of several fragments, told apart by their codestreams")
    return _table(_frames_of(fragments, first, true_lengths), fragments)


def _check_basic(
    source: bytes | mmap.mmap, fragments: Fragments, starts: Positions, frames: int, findings: list[str]
) -> NDArray[np.int64] | None:
    """First fragments as the basic offset table has them; None if absent or wrong."""
    if not fragments.table_length:
        return None
    if fragments.table_length != 4 * frames:
        findings.append("the basic offset table has not one offset a frame: ignored")
        return None
    at = fragments.table_offset
    claimed = np.frombuffer(source[at : at + 4 * frames], dtype="<u4").astype(np.uint64)
    first = _match(claimed, starts)
    if first is None:
        findings.append("the basic offset table does not point at items: ignored")
    return first


def _check_extended(
    source: bytes | mmap.mmap,
    normal: Normalised,
    fragments: Fragments,
    starts: Positions,
    frames: int,
    findings: list[str],
) -> tuple[NDArray[np.int64] | None, Positions | None]:
    """First fragments and lengths as the extended offset table has them; None where
    absent or wrong. A right length is the item's, or one less than an even one."""
    if normal.extended_offsets is None:
        if normal.extended_lengths is not None:
            findings.append("extended offset table lengths without offsets: ignored")
        return None, None
    at, length = normal.extended_offsets
    if length != 8 * frames:
        findings.append("the extended offset table has not one offset a frame: ignored")
        return None, None
    first = _match(np.frombuffer(source[at : at + length], dtype="<u8"), starts)
    if first is None:
        findings.append("the extended offset table does not point at items: ignored")
        return None, None
    if normal.extended_lengths is None or normal.extended_lengths[1] != 8 * frames:
        findings.append("the extended offset table has not one length a frame: ignored")
        return first, None
    at, length = normal.extended_lengths
    claimed = np.frombuffer(source[at : at + length], dtype="<u8").astype(np.uint64)
    sums = _sums(fragments, first)
    right = (claimed == sums) | ((claimed + np.uint64(1) == sums) & (sums % np.uint64(2) == 0))
    if not np.all(right):
        findings.append("extended offset table lengths are not those of the items: ignored")
        return first, None
    return first, claimed


def _match(claimed: Positions, starts: Positions) -> NDArray[np.int64] | None:
    """The index of the fragment that each offset points at; None unless all do, from the
    first fragment on, in ascending order."""
    found = np.searchsorted(starts, claimed)
    if not claimed.size or claimed[0] != 0 or np.any(found >= starts.size):
        return None
    if np.any(starts[found] != claimed) or np.any(found[1:] <= found[:-1]):
        return None
    return found.astype(np.int64)


def _sums(fragments: Fragments, first: NDArray[np.int64]) -> Positions:
    lengths = np.frombuffer(fragments.lengths, dtype=np.uint64)
    return np.add.reduceat(lengths, first).astype(np.uint64)


def _by_codestream(source: bytes | mmap.mmap, fragments: Fragments, frames: int) -> NDArray[np.int64]:
    """Frames told apart by how their codestreams begin, where that gives exactly the
    number of frames; else ``Malformed``."""
    first = [
        n
        for n, (at, length) in enumerate(zip(fragments.offsets, fragments.lengths, strict=True))
        if source[at : at + min(length, 8)].startswith(_CODESTREAM_STARTS)
    ]
    if len(first) != frames or first[0] != 0:
        raise Malformed(f"{len(fragments.offsets)} fragments, {frames} frames and no offset table that fits")
    return np.array(first, dtype=np.int64)


def _table(frames: _Frames, fragments: Fragments) -> bytes:
    count = len(fragments.offsets)
    lengths = np.frombuffer(fragments.lengths, dtype=np.uint64)
    if frames.first.size == count:
        return encode_direct(
            np.frombuffer(fragments.offsets, dtype=np.uint64),
            lengths if frames.lengths is None else frames.lengths,
        )
    bounds = [*frames.first.tolist(), count]
    cut = np.zeros(frames.first.size, dtype=np.uint64)
    if frames.lengths is not None:
        cut = _sums(fragments, frames.first) - frames.lengths
    return encode_gather(
        _segments(fragments, bounds[n], bounds[n + 1], int(cut[n])) for n in range(len(bounds) - 1)
    )


def _segments(fragments: Fragments, first: int, last: int, cut: int) -> list[Range]:
    """Ranges of the fragments from ``first`` to before ``last``, without those of no
    length and without the pad of ``cut`` bytes."""
    pieces = [
        Range(0, fragments.offsets[n], fragments.lengths[n])
        for n in range(first, last)
        if fragments.lengths[n]
    ]
    if cut and pieces:
        pieces[-1] = pieces[-1]._replace(length=pieces[-1].length - cut)
    return pieces
