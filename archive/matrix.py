# SPDX-License-Identifier: Apache-2.0
"""Where the frames of one instance lie in its total pixel matrix, and what they show.

The order of TILED_FULL is PS3.3 C.7.6.17.3's: columns, rows, focal planes, optical paths
(segments). Otherwise each frame states its place; of 100,000 frames those are read from
the header's bytes, since a data set of them takes seconds to build.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from archive.channels import Channel, channels_of
from archive.errors import CannotTranscode
from archive.part10.meta import read_meta
from archive.part10.normal_form import read_element, sequence_end

Numbers = NDArray[np.int64]
Window = tuple[float, float, str]

_PER_FRAME = 0x52009230
_PLACE = re.compile(rb"\x48\x00\x1e\x02SL\x04\x00(.{4})\x48\x00\x1f\x02SL\x04\x00(.{4})", re.DOTALL)
_HEIGHT = re.compile(rb"\x40\x00\x4a\x07DS[\x02-\x10]\x00([-+0-9.eE ]+)")
_PATH = re.compile(rb"\x48\x00\x06\x01SH([\x02-\x40])\x00")
_SEGMENT = re.compile(rb"\x62\x00\x0b\x00US\x02\x00(.{2})", re.DOTALL)
_FUNCTIONS = {"LINEAR": "linear", "LINEAR_EXACT": "linear-exact", "SIGMOID": "sigmoid"}


@dataclass(frozen=True, slots=True)
class Frames:
    """Of each frame: row and column of its first pixel from 0, channel and focal plane."""

    rows: Numbers
    columns: Numbers
    channels: Numbers
    planes: Numbers


@dataclass(frozen=True, slots=True)
class Matrix:
    """One instance: its header without the per-frame groups, and its frames' places.

    ``first_frame`` counts from 0 in the concatenation that it is part of. ``stated`` is
    None for TILED_FULL and for an image that is no mosaic.
    """

    head: Dataset
    rows: int  # of the total pixel matrix
    columns: int
    tile_rows: int
    tile_columns: int
    count: int
    channels: tuple[Channel, ...]
    planes: int
    first_frame: int
    stated: Frames | None
    window: Window | None

    @property
    def across(self) -> int:
        return -(-self.columns // self.tile_columns)

    @property
    def down(self) -> int:
        return -(-self.rows // self.tile_rows)

    @property
    def middle_plane(self) -> int:
        return self.planes // 2

    def channel_of(self, index: int) -> int:
        """The channel that a frame of this instance shows."""
        if self.stated is not None:
            return int(self.stated.channels[index])
        each = self.across * self.down * self.planes
        return min((index + self.first_frame) // each, len(self.channels) - 1)

    def tiles(
        self, channel: int, plane: int, area: tuple[int, int, int, int]
    ) -> Iterator[tuple[int, int, int]]:
        """(frame index, row, column) of the frames that touch ``area`` (top, left, bottom,
        right) of the matrix; where several lie at one place, the first."""
        top, left, bottom, right = area
        if self.stated is None:
            start = (channel * self.planes + plane) * self.across * self.down - self.first_frame
            for r in range(top // self.tile_rows, min(self.down, -(-bottom // self.tile_rows))):
                for c in range(left // self.tile_columns, min(self.across, -(-right // self.tile_columns))):
                    index = start + r * self.across + c
                    if 0 <= index < self.count:
                        yield index, r * self.tile_rows, c * self.tile_columns
            return
        frames = self.stated
        chosen = np.flatnonzero(
            (frames.channels == channel)
            & (frames.planes == plane)
            & (frames.rows < bottom)
            & (frames.rows + self.tile_rows > top)
            & (frames.columns < right)
            & (frames.columns + self.tile_columns > left)
        )
        seen = set()
        for index in chosen.tolist():
            place = int(frames.rows[index]), int(frames.columns[index])
            if place not in seen:
                seen.add(place)
                yield index, *place


def split_header(header: bytes) -> tuple[Dataset, bytes]:
    """A Part 10 header in normal form as (the data set before the per-frame functional
    groups, the bytes from there on)."""
    position = read_meta(header).data_set_offset
    while position + 8 <= len(header):
        tag, vr, value, after = read_element(header, position)
        if tag >= _PER_FRAME:
            break
        position = sequence_end(header, value) if vr == b"SQ" else after
    return dcmread(io.BytesIO(header[:position]), force=True), header[position:]


def describe(header: bytes, count: int, rows: int, columns: int) -> Matrix:
    """The matrix of an instance of ``count`` frames of (rows, columns) pixels. Raises
    CannotTranscode where the frames' places are not known."""
    head, rest = split_header(header)
    across = _positive(head, "TotalPixelMatrixColumns")
    down = _positive(head, "TotalPixelMatrixRows")
    channels = channels_of(head)
    first = _positive(head, "ConcatenationFrameOffsetNumber")
    window = _window(head)
    if rows < 1 or columns < 1:
        raise CannotTranscode("the frames have no pixels")
    if not across or not down:
        return Matrix(head, rows, columns, rows, columns, count, channels[:1], 1, 0, None, window)
    planes = max(1, _positive(head, "TotalPixelMatrixFocalPlanes"))
    stated = None
    plane = -(-across // columns) * -(-down // rows)
    regular = head.get("DimensionOrganizationType", "") != "TILED_SPARSE"
    is_part = "ConcatenationUID" in head
    full = plane * planes * max(1, _positive(head, "NumberOfOpticalPaths"))
    if regular and (is_part or full == count or plane * planes * len(channels) == count or count == 1):
        known = max(1, (full if is_part else count) // (plane * planes))
        channels = (*channels, *(Channel(str(n + 1)) for n in range(len(channels), known)))[:known]
    else:
        stated, planes = _stated(rest, count, channels, head)
    return Matrix(head, down, across, rows, columns, count, channels, planes, first, stated, window)


def _positive(head: Dataset, keyword: str) -> int:
    try:
        return max(0, int(head.get(keyword) or 0))
    except (TypeError, ValueError):
        return 0


def _window(head: Dataset) -> Window | None:
    """The window that the image itself asks for, one for all frames (C.7.6.16.2.10)."""
    shared = (head.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    item = (shared.get("FrameVOILUTSequence") or [head])[0]
    try:
        centre, width = (_first(item.get(name)) for name in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None or float(width) < 1:
            return None
        function = _FUNCTIONS.get(str(item.get("VOILUTFunction") or "LINEAR"))
        return (float(centre), float(width), function) if function else None
    except (TypeError, ValueError):
        return None


def _first(value: Any) -> Any:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return value
    return value[0] if value else None


# ---- places that frames state ------------------------------------------------------


def _stated(rest: bytes, count: int, channels: Sequence[Channel], head: Dataset) -> tuple[Frames, int]:
    """The frames' places and the number of focal planes."""
    places = _PLACE.findall(rest)
    if len(places) == count:
        found = np.frombuffer(b"".join(c + r for c, r in places), "<i4").reshape(-1, 2).astype(np.int64) - 1
        heights: list[Any] = _HEIGHT.findall(rest)
        names: list[Any] = [
            rest[m.end() : m.end() + m.group(1)[0]].decode("latin-1").strip(" \0")
            for m in _PATH.finditer(rest)
        ] or [str(int.from_bytes(number, "little")) for number in _SEGMENT.findall(rest)]
    else:
        found, heights, names = _slowly(rest, count)
    identifiers = {channel.identifier: n for n, channel in reversed(list(enumerate(channels)))}
    numbers = np.zeros(count, np.int64)
    if len(names) == count:
        numbers = np.array([identifiers.get(name, 0) for name in names], np.int64)
    levels = np.zeros(count, np.int64)
    planes = 1
    if len(heights) == count and _positive(head, "TotalPixelMatrixFocalPlanes") != 1:
        try:
            distinct, levels = np.unique(
                np.round(np.array([float(height) for height in heights]), 6), return_inverse=True
            )
            planes = len(distinct)
        except ValueError:
            levels = np.zeros(count, np.int64)
    return Frames(found[:, 1], found[:, 0], numbers, levels.astype(np.int64)), planes


def _slowly(rest: bytes, count: int) -> tuple[Numbers, list[Any], list[Any]]:
    """The same through a data set, for headers of an unusual build."""
    groups = dcmread(io.BytesIO(rest), force=True).get("PerFrameFunctionalGroupsSequence") or []
    places, heights, names = [], [], []
    for group in groups[:count]:
        position = (group.get("PlanePositionSlideSequence") or [None])[0]
        if position is None:
            break
        try:
            column = int(position.ColumnPositionInTotalImagePixelMatrix)
            places.append((column - 1, int(position.RowPositionInTotalImagePixelMatrix) - 1))
        except (AttributeError, TypeError, ValueError):
            break
        if position.get("ZOffsetInSlideCoordinateSystem") is not None:
            heights.append(position.ZOffsetInSlideCoordinateSystem)
        for sequence, keyword in (
            ("OpticalPathIdentificationSequence", "OpticalPathIdentifier"),
            ("SegmentIdentificationSequence", "ReferencedSegmentNumber"),
        ):
            for item in (group.get(sequence) or [])[:1]:
                names.append(str(item.get(keyword, "")))
    if len(places) != count:
        raise CannotTranscode("the frames' places in the total pixel matrix are not known")
    return np.array(places, np.int64).reshape(-1, 2), heights, names
