# SPDX-License-Identifier: Apache-2.0
"""The hot path: stored frames of one instance, for a caller who asks for thousands.

One look into the cache of handles for each request; a frame is a table entry and its
bytes, two positioned reads. A caller that must not wait (a loop that serves everybody)
gets only what the page cache holds.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from archive.access import Principal
from archive.errors import NoSuchFrame
from archive.files import OpenFile
from archive.handle import Handle, read_frame, read_segments
from archive.part10.frame_table import FrameTable, Kind, Range, read_now

if TYPE_CHECKING:
    from archive.core import Core
    from archive.values import Instance


class StoredFrames:
    """What ``Archive.stored_frames`` gives; of use for one request."""

    __slots__ = ("_core", "_handle", "_principal")

    def __init__(self, core: "Core", handle: Handle, principal: Principal) -> None:
        self._core, self._handle, self._principal = core, handle, principal

    @property
    def instance(self) -> "Instance":
        return self._handle.instance

    def one(self, number: int) -> bytes:
        """Frame ``number`` (from 1), noted in the trail. Raises NoSuchFrame, Damaged."""
        data = read_frame(self._handle, self._table(number), number - 1)
        self._note(1)
        return data

    def one_now(self, number: int) -> "bytes | bytearray | None":
        """The same if nothing has to be waited for, else None. Raises NoSuchFrame."""
        table = self._table(number)
        segments = table.segments_now(number - 1)
        if segments is None:
            return None
        parts = []
        for segment in segments:
            if isinstance(segment, Range):
                blob = self._handle.blobs[segment.blob_index]
                if not isinstance(blob, OpenFile):
                    return None  # it is stored recompressed
                data = read_now(blob.fileno(), segment.offset, segment.length)
                if data is None:
                    return None
                parts.append(data)
            else:
                parts.append(bytearray(segment))
        self._note(1)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def many(self, numbers: Sequence[int]) -> tuple[list[int], Iterator[bytes]]:
        """Bytes of each frame, and the frames in the order asked. Every number is checked, and
        all are noted, before the first is read. Raises NoSuchFrame at the call, Damaged later."""
        handle = self._handle
        tables = [self._table(number) for number in numbers]
        table = tables[0]
        self._note(len(numbers))
        if table.kind is not Kind.DIRECT:  # of a frame there may be very many segments
            lengths = [table.frame_length(number - 1) for number in numbers]
            return lengths, (read_frame(handle, table, number - 1) for number in numbers)
        found = [table.segments(number - 1) for number in numbers]
        lengths = [sum(s.length if isinstance(s, Range) else len(s) for s in frame) for frame in found]
        return lengths, (read_segments(handle, frame) for frame in found)

    def _table(self, number: int) -> FrameTable:
        table = self._handle.table
        if table is None or not 1 <= number <= table.count:
            raise NoSuchFrame(number, 0 if table is None else table.count)
        return table

    def _note(self, count: int) -> None:
        row = self._handle.row
        self._core.access.note("frames", self._principal, row.study_instance_uid, row.sop_instance_uid, count)
