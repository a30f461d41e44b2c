# SPDX-License-Identifier: Apache-2.0
"""Metadata as it was compressed, the bulk values it names, and pixel data as one value."""

import re
import zlib
from collections.abc import Iterator, Sequence

from archive import packed_json
from archive.access import Principal, Scope
from archive.decoded import MAX_NATIVE_BYTES, decoded_frames
from archive.errors import CannotTranscode, Damaged, NoSuchFrame
from archive.handle import Handle
from archive.part10.frame_table import Kind, Segment
from archive.part10.syntaxes import EXPLICIT, NATIVE, VIDEO
from archive.retrieve import Retriever, native_frame_bytes, section_of
from archive.values import ByteStream, Deflated, Instance

_LONGEST_PATH = 4096
_PATH = re.compile(rb"[0-9A-F]{8}(?:/[0-9]+/[0-9A-F]{8})*")


def metadata_pieces(
    retriever: Retriever, instance: Instance, *, principal: Principal, scope: Scope
) -> Sequence[Deflated]:
    """See ``Archive.metadata_pieces``."""
    handle = retriever.opened(instance, principal=principal, scope=scope)
    found = _pieces(retriever, handle)
    retriever.note("metadata", handle, principal)
    return found


def _pieces(retriever: Retriever, handle: Handle) -> Sequence[Deflated]:
    try:
        return packed_json.pieces(retriever.packed_json(handle))
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(f"the metadata of {handle.row.sop_instance_uid} cannot be read") from error


def bulk_paths(retriever: Retriever, instance: Instance, *, principal: Principal, scope: Scope) -> list[str]:
    """See ``Archive.bulk_paths``. Each piece of the metadata but the first begins with one."""
    handle = retriever.opened(instance, principal=principal, scope=scope)
    found = []
    for piece in _pieces(retriever, handle)[1:]:
        head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(piece.data, _LONGEST_PATH)
        path = _PATH.match(head)
        if path is not None:
            found.append(path[0].decode("ascii"))
    return found


def can_be_native(retriever: Retriever, handle: Handle) -> bool:
    """Whether the pixel data have an encoding as one value, and frames can be decoded."""
    table, row = handle.table, handle.row
    if table is None:
        return False
    if row.transfer_syntax_uid in NATIVE:
        return True
    size = table.count * native_frame_bytes(row)
    return 0 < size <= MAX_NATIVE_BYTES and retriever.can(handle, EXPLICIT)


def pixel_data(retriever: Retriever, instance: Instance, *, principal: Principal, scope: Scope) -> ByteStream:
    """See ``Archive.pixel_data``."""
    handle = retriever.opened(instance, principal=principal, scope=scope)
    table, row = handle.table, handle.row
    if table is None:
        raise NoSuchFrame(1, 0)
    as_stored = row.transfer_syntax_uid in NATIVE | VIDEO
    if not as_stored and not can_be_native(retriever, handle):
        raise CannotTranscode(f"pixel data of {row.transfer_syntax_uid} have no encoding as one value")
    retriever.note("frames", handle, principal, table.count)
    if not as_stored:
        size = native_frame_bytes(row)
        decode = retriever.transcoder(handle, EXPLICIT)
        return ByteStream(table.count * size, decoded_frames(decode, range(table.count), size))

    def parts() -> Iterator[Segment]:
        if table.kind is not Kind.BITS:
            for index in range(table.count):
                yield from table.segments(index)
            return
        _, _, bits = table.bits(0)
        yield table.bits_range._replace(length=(bits * table.count + 7) // 8)

    if table.kind is Kind.BITS:
        length = sum(len(part) if isinstance(part, bytes) else part.length for part in parts())
    else:
        length = sum(table.lengths())
    section = section_of(parts, handle)
    return ByteStream(length, section(0, length), section=section)
