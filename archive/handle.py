# SPDX-License-Identifier: Apache-2.0
"""An instance that is in use: its row, its open files and its frame table."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from archive.access import Scope
from archive.blobs import Blob
from archive.errors import Damaged
from archive.files import OpenFile
from archive.part10.frame_table import FrameTable, Kind, Range, Segment, repack
from archive.rows import Row
from archive.values import Instance, PixelDescription


@dataclass(slots=True)
class Handle:
    """An instance with its open files; kept while it is in use."""

    row: Row
    instance: Instance
    record: OpenFile
    table: FrameTable | None
    blobs: tuple[Blob, ...]
    seen_by: set[Scope] = field(default_factory=set)
    pixels: PixelDescription | None = None


def read_frame(handle: Handle, table: FrameTable, index: int) -> bytes:
    """One frame's bytes: table entry, positioned read, prefix."""
    if table.kind is Kind.BITS:
        place, first_bit, bits = table.bits(index)
        return repack(read_range(handle, place), first_bit, bits)
    return read_segments(handle, table.segments(index))


def read_segments(handle: Handle, segments: Sequence[Segment]) -> bytes:
    """A frame of whole bytes, of its segments. Raises Damaged."""
    if len(segments) == 1:
        (only,) = segments
        return only if isinstance(only, bytes) else read_range(handle, only)
    return b"".join(s if isinstance(s, bytes) else read_range(handle, s) for s in segments)


def read_range(handle: Handle, place: Range) -> bytes:
    """These bytes of the handle's blobs. Raises Damaged."""
    data = handle.blobs[place.blob_index].pread(place.offset, place.length)
    if len(data) != place.length:
        raise Damaged(f"the pixel data of {handle.row.sop_instance_uid} are incomplete")
    return data
