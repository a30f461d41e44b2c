# SPDX-License-Identifier: Apache-2.0
"""Frames of a level written before its header is known: that waits for the slide's digest,
and so for the last byte of a file that passes by only once. UIDs are all equally long, so a
header made with any other digest says where the frames go.
"""

import struct
from pathlib import Path

import numpy as np

from archive.part10.frame_table import FrameTable, Kind
from archive.part10.normal_form import SEQUENCE_DELIMITER
from archive.part10.stream import Part10Stream
from archive.part10.syntaxes import NATIVE
from converters.slide import Slide, SourceFile
from converters.writer.born import DicomInstance
from converters.writer.direct import DirectFile
from converters.writer.following import MOST_TILE_BYTES

_ITEM = struct.Struct("<HHI")
_AT_ONCE = 400  # frames looked at together: see ``following``


def can_be_ahead(instance: DicomInstance) -> bool:
    """Whether its frames are ranges of the scanner's files that lie there in order, none
    too long to wait for."""
    if not instance.born or instance.transfer_syntax_uid in NATIVE or instance.part:
        return False
    table = FrameTable.from_bytes(instance.frame_table)
    if table.kind is not Kind.DIRECT:
        return False
    entries = table.direct_entries()
    ours = entries["blob"] == len([blob for blob in instance.blobs if isinstance(blob, SourceFile)])
    offsets, blobs = entries["offset"][~ours], entries["blob"][~ours]
    in_order = (np.diff(offsets.astype(np.int64)) > 0) | (np.diff(blobs.astype(np.int64)) > 0)
    return bool(in_order.all() and (np.diff(blobs.astype(np.int64)) >= 0).all()) and (
        int(entries["length"].max()) <= MOST_TILE_BYTES
    )


class FramesAhead:
    """A new file of ``instance``, whose digest may still change, while the files of
    ``slide`` pass by. :meth:`finish` it, or :meth:`close` and remove it. Raises OSError."""

    def __init__(self, path: Path, instance: DicomInstance, slide: Slide) -> None:
        self.path = path
        table = FrameTable.from_bytes(instance.frame_table)
        stream = _stream(instance, table)
        self._lead_bytes, self._length = len(stream.lead()), stream.length
        self._prefixes = table.prefixes
        self._sizes = np.frombuffer(table.lengths(), dtype=np.uint64)
        self._entries = table.direct_entries()
        numbers = {source.path: number for number, source in enumerate(slide.sources)}
        self._file_of = [
            numbers[blob.path] if isinstance(blob, SourceFile) else -1 for blob in instance.blobs
        ]
        self._blobs = _own(instance)
        self._done = 0
        self._file = DirectFile(path, self._lead_bytes)

    def see(self, source: int, position: int, data: memoryview) -> int:
        """As :meth:`converters.writer.following.Following.see`: write what is complete."""
        end = position + len(data)
        while self._done < len(self._entries):
            part = self._entries[self._done : self._done + _AT_ONCE]
            sizes = self._sizes[self._done : self._done + _AT_ONCE]
            for offset, length, prefix_id, skip, blob, size in zip(
                part["offset"].tolist(), part["length"].tolist(), part["prefix"].tolist(),
                part["skip"].tolist(), part["blob"].tolist(), sizes.tolist(), strict=True,
            ):  # fmt: skip
                file = self._file_of[blob]
                if file < 0:
                    self._append(self._prefixes[prefix_id], self._blobs[blob][skip:length], size)
                elif file != source:
                    return end
                elif offset + length > end:
                    return min(end, int(offset))
                else:
                    at = offset - position
                    self._append(self._prefixes[prefix_id], data[at + skip : at + length], size)
                self._done += 1
        return end

    def finish(self, instance: DicomInstance) -> bool:
        """The rest of the file, durable, if all frames are there and are those of
        ``instance``; else False: the file is of no use then."""
        if not can_be_ahead(instance):
            return False
        table = FrameTable.from_bytes(instance.frame_table)
        same = (
            table.prefixes == self._prefixes
            and np.array_equal(table.direct_entries(), self._entries)
            and self._blobs == _own(instance)
        )
        if self._done < len(self._entries) or not same:
            return False
        stream = _stream(instance, table)
        lead = stream.lead()
        if (stream.length, len(lead)) != (self._length, self._lead_bytes):
            return False
        self._file.append(SEQUENCE_DELIMITER)
        if self._file.position != self._length:
            return False
        self._file.finish(lead)
        return True

    def close(self) -> None:
        self._file.close()

    def _append(self, prefix: bytes, frame: bytes | memoryview, size: int) -> None:
        if size & 1:
            self._file.append(_ITEM.pack(0xFFFE, 0xE000, size + 1) + prefix, frame, b"\0")
        else:
            self._file.append(_ITEM.pack(0xFFFE, 0xE000, size) + prefix, frame)


def _stream(instance: DicomInstance, table: FrameTable) -> Part10Stream:
    return Part10Stream(instance.header, instance.transfer_syntax_uid, table, ())


def _own(instance: DicomInstance) -> list[bytes]:
    """Blobs that are no files of the scanner's."""
    return [
        b"" if isinstance(blob, SourceFile) else blob if isinstance(blob, bytes) else blob.read_bytes()
        for blob in instance.blobs
    ]
