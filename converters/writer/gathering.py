# SPDX-License-Identifier: Apache-2.0
"""Frames that are hundreds of short pieces each, put together many at a time: what lies close
together in a file is read at once, and cut there.
"""

import os
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from archive.part10.frame_table import FrameTable
from archive.part10.normal_form import SEQUENCE_DELIMITER
from archive.part10.stream import Part10Stream
from converters.errors import DamagedSlide

BATCH_BYTES = 4 << 20  # of frames put together
SPAN_BYTES = 32 << 20  # of a file read for them
_ITEM = struct.Struct("<HHI")


def gathered_chunks(stream: Part10Stream, table: FrameTable, blobs: Sequence[int | bytes]) -> Iterator[bytes]:
    """The stream's bytes, whose encapsulated frames are those of a ``gather`` table. Raises
    DamagedSlide when a blob ends early, OSError when it cannot be read."""
    yield stream.lead()
    index, segments, literals = table.gathered()
    sizes = np.frombuffer(table.lengths(), dtype=np.uint64)
    ends = np.cumsum(sizes, dtype=np.uint64)
    first = 0
    while first < table.count:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, np.uint64(before + BATCH_BYTES), side="right")))
        rows = segments[int(index[first]) : int(index[last])]
        parts = _parts(rows, memoryview(literals), blobs)
        at = 0
        counts = np.diff(index[first : last + 1]).tolist()
        joined: list[bytes | memoryview] = []
        for size, count in zip(sizes[first:last].tolist(), counts, strict=True):
            joined.append(_ITEM.pack(0xFFFE, 0xE000, size + (size & 1)))
            joined += parts[at : at + count]
            at += count
            if size & 1:
                joined.append(b"\0")
        yield b"".join(joined)
        first = last
    yield SEQUENCE_DELIMITER


def _parts(
    rows: NDArray[np.void], literals: memoryview, blobs: Sequence[int | bytes]
) -> list[bytes | memoryview]:
    """Each segment's bytes."""
    starts, lengths = rows["offset"].astype(np.int64), rows["length"].astype(np.int64)
    views: list[memoryview] = [literals]
    which = np.zeros(len(rows), dtype=np.int64)
    for number, blob in enumerate(blobs):
        here = (rows["literal"] == 0) & (rows["blob"] == number)
        if not here.any():
            continue
        if isinstance(blob, bytes):
            if int((starts + lengths)[here].max()) > len(blob):
                raise DamagedSlide("a frame lies beyond the end of its bytes")
            views.append(memoryview(blob))
        else:
            begin, end = int(starts[here].min()), int((starts + lengths)[here].max())
            if end - begin > SPAN_BYTES:
                return _one_by_one(rows, literals, blobs)
            views.append(_read(blob, begin, end - begin))
            starts[here] -= begin
        which[here] = len(views) - 1
    return [
        views[view][start:end]
        for view, start, end in zip(which.tolist(), starts.tolist(), (starts + lengths).tolist(), strict=True)
    ]


def _one_by_one(
    rows: NDArray[np.void], literals: memoryview, blobs: Sequence[int | bytes]
) -> list[bytes | memoryview]:
    """The same where they lie far apart."""
    parts: list[bytes | memoryview] = []
    for offset, length, number, literal in rows.tolist():
        blob = literals if literal else blobs[number]
        if not isinstance(blob, int) and offset + length > len(blob):
            raise DamagedSlide("a frame lies beyond the end of its bytes")
        parts.append(
            _read(blob, offset, length)
            if isinstance(blob, int)
            else memoryview(blob)[offset : offset + length]
        )
    return parts


def _read(fd: int, offset: int, length: int) -> memoryview:
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise DamagedSlide("the slide's file became shorter while it was read")
        data += more
    return memoryview(data)
