# SPDX-License-Identifier: Apache-2.0
"""JPEGs so large that restart markers divide them: where each interval lies.

Hamamatsu writes a level as one JPEG in which a restart marker follows every strip of,
say, 2048 x 8 pixels. Coefficients of an interval depend on nothing outside of it
(ITU-T T.81 E.1.4), so intervals can be put together anew without decoding. Where they
begin is stated beside the JPEG, but never believed: each must follow the marker that is
due, else the whole JPEG is searched. (Within entropy-coded data 0xFF is followed by 0.)
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import Codestream, jpeg_segments, sniff
from archive.part10.errors import Part10Error
from converters.errors import DamagedSlide, UnsupportedPixels
from converters.slide import Offsets

HEAD_BYTES = 1 << 16
WINDOW_BYTES = 4 << 20
MAX_INTERVALS = 1 << 24
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOS, DRI, APP0, APP14, COM = 0xDA, 0xDD, 0xE0, 0xEE, 0xFE
SEQUENTIAL = (0xC0, 0xC1)
"""SOF of JPEGs with one scan, baseline and extended."""


@dataclass(frozen=True, eq=False)
class JpegHead:
    """A JPEG's marker segments before its data, without comments and what applications
    left; JFIF's and Adobe's stay, since they tell the colours."""

    stream: Codestream
    segments: Sequence[tuple[int, bytes]]  # (marker's low byte, body)
    size_bytes: int
    """SOI through SOS, as it is in the file."""

    @property
    def components(self) -> int:
        return self.stream.components

    @property
    def mcu_shape(self) -> tuple[int, int]:
        """(rows, columns) of a minimum coded unit; of a lone component one block."""
        if self.components == 1:
            return 8, 8
        return (
            8 * max(down for _, down in self.stream.sampling),
            8 * max(across for across, _ in self.stream.sampling),
        )

    @property
    def is_sequential(self) -> bool:
        """Whether one scan holds all: else intervals are none of whole pixels."""
        scan = next(body for marker, body in self.segments if marker == SOS)
        return self.stream.sof in SEQUENTIAL and scan[0] == self.components

    def resized(self, rows: int, columns: int, *, restarts: bool = True) -> bytes:
        """The head of a JPEG of this size with the same tables, SOI through SOS."""
        parts = [SOI]
        for marker, body in self.segments:
            if marker == self.stream.sof:
                body = body[:1] + rows.to_bytes(2) + columns.to_bytes(2) + body[5:]
            if marker != DRI or restarts:
                parts.append(bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body)
        return b"".join(parts)


def read_head(descriptor: int, start: int, stop: int, what: str) -> JpegHead:
    """Head of the JPEG at ``start`` to ``stop`` of a file. Raises DamagedSlide, and
    UnsupportedPixels for other samples than 1 or 3 of 8 bits."""
    data = os.pread(descriptor, max(0, min(HEAD_BYTES, stop - start)), start)
    stream = sniff(data)
    if stream.format != "jpeg" or not stream.head_complete or stream.sof is None:
        raise DamagedSlide(f"{what} is no JPEG, or its head is damaged")
    if stream.components not in (1, 3) or stream.bits != 8:
        raise UnsupportedPixels(f"{what} has {stream.components} components of {stream.bits} bits")
    if not stream.has_tables or any(not 1 <= factor <= 4 for pair in stream.sampling for factor in pair):
        raise DamagedSlide(f"{what} has no tables, or impossible sampling")
    try:
        found = jpeg_segments(data)
    except Part10Error as error:
        raise DamagedSlide(f"{what} has a damaged head") from error
    segments = [(marker, data[begin:end]) for marker, begin, end in found if _is_kept(marker)]
    if not segments[-1][1]:
        raise DamagedSlide(f"{what} has a damaged head")
    return JpegHead(stream, tuple(segments), found[-1][2])


def _is_kept(marker: int) -> bool:
    return marker in (APP0, APP14) or not (0xE0 <= marker <= 0xEF or marker == COM)


@dataclass(frozen=True, eq=False)
class Intervals:
    """Entropy-coded bytes of each interval as [begin, end) in the file, without markers."""

    begins: Offsets
    ends: Offsets
    searched: bool = False
    """Whether what was stated of them was of no use."""

    def __len__(self) -> int:
        return len(self.begins)


def locate(
    descriptor: int, first: int, stop: int, count: int, stated: NDArray[np.uint64] | None, what: str
) -> Intervals:
    """The ``count`` intervals of the entropy-coded data from ``first``, at most to
    ``stop``. ``stated`` are their beginnings, believed only where they are right. Raises
    DamagedSlide when there are fewer or more."""
    if count > MAX_INTERVALS:
        raise DamagedSlide(f"{what} has more than {MAX_INTERVALS} restart intervals")
    if stated is not None and len(stated) == count:
        begins = stated.copy()
        begins[0] = first
        if _follow_markers(descriptor, begins, stop):
            markers, end = search(descriptor, int(begins[-1]), stop, 1)
            markers, end = _without_last(markers, end)
            if not len(markers):
                return Intervals(begins, np.append(begins[1:] - np.uint64(2), np.uint64(end)))
    markers, end = search(descriptor, first, stop, count)
    if len(markers) == count:
        markers, end = _without_last(markers, end)
    if len(markers) != count - 1 or not np.array_equal(markers[:, 1], np.arange(count - 1) % 8):
        raise DamagedSlide(f"{what} has not the {count} restart intervals that its size needs")
    begins = np.concatenate(([first], markers[:, 0] + 2)).astype(np.uint64)
    return Intervals(begins, np.append(markers[:, 0], end).astype(np.uint64), stated is not None)


def _without_last(markers: NDArray[np.int64], end: int) -> tuple[NDArray[np.int64], int]:
    """Without a marker that no data follows: some writers put one after the last interval."""
    if len(markers) and int(markers[-1, 0]) + 2 == end:
        return markers[:-1], int(markers[-1, 0])
    return markers, end


def _follow_markers(descriptor: int, begins: Offsets, stop: int) -> bool:
    """Whether each but the first follows the restart marker that is due. The file is read
    once from end to end: intervals are shorter than the pages of a disk."""
    if (begins[1:] < begins[:-1] + np.uint64(2)).any() or int(begins[-1]) > stop:
        return False
    number = 1
    while number < len(begins):
        at = int(begins[number]) - 2
        data = np.frombuffer(os.pread(descriptor, min(WINDOW_BYTES, stop - at), at), np.uint8)
        beyond = int(np.searchsorted(begins, np.uint64(at + len(data)), side="right"))
        if beyond <= number:
            return False
        inside = (begins[number:beyond] - np.uint64(at)).astype(np.int64)
        due = 0xD0 + np.arange(number - 1, beyond - 1) % 8
        if (data[inside - 2] != 0xFF).any() or (data[inside - 1] != due).any():
            return False
        number = beyond
    return True


def search(descriptor: int, first: int, stop: int, most: int) -> tuple[NDArray[np.int64], int]:
    """Restart markers as (n, 2) of offset and number, and where the data ends: at the first
    other marker, or at ``stop``. Gives up beyond ``most`` markers, which are too many."""
    found: list[NDArray[np.int64]] = []
    total = 0
    at = first
    while at < stop:
        data = np.frombuffer(os.pread(descriptor, min(WINDOW_BYTES, stop - at), at), np.uint8)
        if len(data) < 2:
            break
        places = np.flatnonzero(data[:-1] == 0xFF)
        codes = data[places + 1]
        markers = (codes != 0) & (codes != 0xFF)
        places, codes = places[markers], codes[markers]
        others = np.flatnonzero((codes & 0xF8) != 0xD0)
        known = int(others[0]) if others.size else len(places)
        pairs = np.stack((places[:known] + at, codes[:known] & 7), axis=1).astype(np.int64)
        found.append(pairs)
        total += len(pairs)
        if others.size:
            stop = at + int(places[known])
        if others.size or total > most:
            break
        at += len(data) - 1
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64), stop
