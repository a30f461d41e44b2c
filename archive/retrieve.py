# SPDX-License-Identifier: Apache-2.0
"""Reading: descriptors, streams, metadata, frames, bulk values.

Nothing is decoded here. A frame is one entry of the table and one positioned read.
"""

import errno
import gzip
import hashlib
import io
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

from archive.access import EVERYTHING, Action, Principal, Scope
from archive.blobs import JPEGXL, JPEGXL_RECOMPRESSION, describe_pixels, open_blobs, open_packed
from archive.core import Core
from archive.decoded import FRAMES_AT_ONCE, MAX_NATIVE_BYTES, decoded_stream
from archive.errors import (
    CannotDecode,
    CannotTranscode,
    Damaged,
    NoSuchBulkData,
    NoSuchFrame,
    NoSuchInstance,
    NoSuchSeries,
    NoSuchStudy,
    StorageFailed,
)
from archive.handle import Handle, read_frame
from archive.packed import PackedFile, ahead
from archive.part10.bulk import BulkValue
from archive.part10.frame_table import FrameTable, Range, Segment
from archive.part10.stream import Part10Stream
from archive.part10.syntaxes import NATIVE
from archive.preamble import served
from archive.rows import Row, changed_since, find_row, gone_for, last_change, rows_below, visible
from archive.stored_frames import StoredFrames
from archive.values import ByteStream, Instance, PixelDescription

DEFAULT_SYNTAX = "1.2.840.10008.1.2.1"


class Handles:
    """The instances used last in this process. A change made anywhere drops its entry
    before the next request is answered (``Index.data_version``)."""

    def __init__(self, core: Core, capacity: int) -> None:
        self._core = core
        self._capacity = capacity
        self._lock = threading.Lock()
        self._handles: OrderedDict[str, Handle] = OrderedDict()
        self._version = ""
        self._change = 0
        self.hits = self.misses = 0

    def get(self, sop: str) -> Handle | None:
        """The cached handle, or one made now; None when no such instance is stored."""
        self._refresh()
        with self._lock:
            handle = self._handles.get(sop)
            if handle is not None:
                self._handles.move_to_end(sop)
                self.hits += 1
                return handle
            version = self._version
        row = find_row(self._core, sop)
        if row is None:
            return None
        handle = self._open(row)
        with self._lock:
            self.misses += 1
            # A change that was seen since may be one of this row: then it is not kept.
            if version == self._version:
                self._handles[sop] = handle
                while len(self._handles) > self._capacity:
                    self._handles.popitem(last=False)
        return handle

    def peek(self, sop: str) -> Handle | None:
        """The cached handle if it can be had without waiting for a disk or a server."""
        if not self._core.index.version_is_local:
            return None
        self._refresh()
        with self._lock:
            handle = self._handles.get(sop)
            if handle is not None:
                self._handles.move_to_end(sop)
                self.hits += 1
        return handle

    def _open(self, row: Row) -> Handle:
        try:
            return open_row(self._core, row)
        except StorageFailed as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EMFILE:
                raise
            # Out of descriptors: let go of what is cached, and try once more.
            self.clear()
            self._core.files.clear()
            return open_row(self._core, row)

    def _refresh(self) -> None:
        version = self._core.index.data_version()
        if version == self._version:
            return
        with self._lock:
            if not self._version:
                self._change = last_change(self._core)
            else:
                uids, self._change = changed_since(self._core, self._change)
                if uids is None:
                    self._handles.clear()
                else:
                    for sop in uids:
                        self._handles.pop(sop, None)
            self._version = version

    def clear(self) -> None:
        with self._lock:
            self._handles.clear()


def open_row(core: Core, row: Row) -> Handle:
    """Open what an instance is made of. Raises Damaged when a part is missing."""
    record = core.files.get(row.record_key)
    table = None
    if row.table[1]:
        table = FrameTable.open(record.fileno(), row.table[0], row.table[1])
    return Handle(row, row.describe(), record, table, open_blobs(core, row))


def handle_capacity() -> int:
    """How many instances are kept open: each holds three files or so, and half of the
    process' descriptors are for connections."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(1024, soft // 8))


class Retriever:
    """The reading verbs of one archive."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.handles = Handles(core, handle_capacity())

    # ---- descriptors -----------------------------------------------------------

    def instance(self, study: str, series: str, sop: str, *, principal: Principal, scope: Scope) -> Instance:
        """See ``Archive.instance``."""
        return self.stored_frames(study, series, sop, principal=principal, scope=scope).instance

    def stored_frames(
        self, study: str, series: str, sop: str, *, principal: Principal, scope: Scope
    ) -> StoredFrames:
        """See ``Archive.stored_frames``."""
        core = self._core
        core.check(principal, Action.READ)
        handle = self.handles.get(sop)
        if handle is not None:
            row = handle.row
            if (
                row.study_instance_uid == study
                and row.series_instance_uid == series
                and self._sees(handle, scope)
            ):
                return StoredFrames(core, handle, principal)
        elif (gone := gone_for(core, study, series, sop, scope)) is not None:
            raise gone
        raise NoSuchInstance(sop)

    def stored_frames_now(
        self, study: str, series: str, sop: str, *, principal: Principal, scope: Scope
    ) -> StoredFrames | None:
        """See ``Archive.stored_frames_now``."""
        core = self._core
        if not core.policy.allows(principal, Action.READ):
            return None
        handle = self.handles.peek(sop)
        if (
            handle is None
            or handle.row.study_instance_uid != study
            or handle.row.series_instance_uid != series
            or not (scope.is_everything or scope in handle.seen_by)
        ):
            return None
        return StoredFrames(core, handle, principal)

    def _sees(self, handle: Handle, scope: Scope) -> bool:
        if scope.is_everything or scope in handle.seen_by:
            return True
        if not visible(self._core, handle.row.study_id, scope):
            return False
        handle.seen_by.add(scope)
        return True

    def _handle(self, instance: Instance, scope: Scope) -> Handle:
        """The handle behind a descriptor, if the scope (still) sees it."""
        handle = self.handles.get(instance.sop_instance_uid)
        if handle is None or not self._sees(handle, scope):
            raise NoSuchInstance(instance.sop_instance_uid)
        return handle

    def instances(self, study: str, series: str, *, principal: Principal, scope: Scope) -> Iterator[Instance]:
        """See ``Archive.instances``."""
        core = self._core
        core.check(principal, Action.READ)
        pages = rows_below(core, study, series, scope)
        first = next(pages, [])
        if not first:
            if (gone := gone_for(core, study, series, "", scope)) is not None:
                raise gone
            raise NoSuchSeries(series) if series else NoSuchStudy(study)

        def walk() -> Iterator[Instance]:
            yield from (row.describe() for row in first)
            for page in pages:
                yield from (row.describe() for row in page)

        return walk()

    # ---- streams ---------------------------------------------------------------

    def open(
        self,
        instance: Instance,
        *,
        principal: Principal,
        scope: Scope,
        base: bool,
        transfer_syntax_uid: str = "",
        noted: bool = True,
    ) -> ByteStream:
        """See ``Archive.open``. Not ``noted``: the caller audits a transfer as a whole."""
        core = self._core
        core.check(principal, Action.READ_BASE if base else Action.READ)
        handle = self._handle(instance, scope)
        stored = transfer_syntax_uid in ("", handle.row.transfer_syntax_uid)
        stream = self.stream(handle, base=base) if stored else self._converted(handle, transfer_syntax_uid)
        if noted:
            self._note("instance", handle, principal)
        return stream

    def can_open(self, instance: Instance, transfer_syntax_uid: str, *, scope: Scope) -> bool:
        """See ``Archive.can_open``."""
        handle = self._handle(instance, scope)
        if transfer_syntax_uid != DEFAULT_SYNTAX:
            return transfer_syntax_uid == handle.row.transfer_syntax_uid
        if handle.table is None or handle.row.transfer_syntax_uid in NATIVE:
            return True
        size = handle.table.count * native_frame_bytes(handle.row)
        return 0 < size <= MAX_NATIVE_BYTES and self.can(handle, DEFAULT_SYNTAX)

    def _converted(self, handle: Handle, transfer_syntax_uid: str) -> ByteStream:
        """The current revision in Explicit VR Little Endian."""
        row, table = handle.row, handle.table
        if not self.can_open(handle.instance, transfer_syntax_uid, scope=EVERYTHING):
            raise CannotTranscode(f"instances of {row.transfer_syntax_uid} cannot be given so")
        if table is None or row.transfer_syntax_uid in NATIVE:
            plan = Part10Stream(self.header(handle), transfer_syntax_uid, table, row.bulk)
            return _streamed(plan, handle)
        return decoded_stream(
            self.header(handle),
            self.dataset(handle),
            bulk_values(row),
            table.count,
            native_frame_bytes(row),
            self.transcoder(handle, transfer_syntax_uid),
            lambda part: handle.blobs[part.blob_index].chunks(part.offset, part.length),
        )

    def check(self, instance: Instance, *, principal: Principal, scope: Scope) -> None:
        """See ``Archive.check``."""
        self._core.check(principal, Action.READ)
        handle = self._handle(instance, scope)
        row = handle.row
        parts = {row.record_key: bytes.fromhex(row.record_key.rpartition("/")[2])}
        for position, first in enumerate(row.unpacked):
            if first is None:
                key = row.blob_keys[position]
                parts[key] = bytes.fromhex(key.rpartition("/")[2])
            elif digest_of(open_packed(self._core, row, position).chunks_ahead()) != first.digest:
                raise Damaged(f"recompressed frames of {row.sop_instance_uid} do not come back as they came")
        for key, digest in parts.items():
            file = self._core.files.get(key)
            if digest_of(file.chunks(0, file.size)) != digest:
                raise Damaged(f"stored bytes of {row.sop_instance_uid} differ from their digest")

    def stream(self, handle: Handle, *, base: bool = False) -> ByteStream:
        """The Part 10 stream of the current revision, or of the base; not audited."""
        row = handle.row
        etag = handle.instance.etag
        if row.base == "file" and (base or row.revision == 0):
            blob = handle.blobs[0]
            section = blob.chunks if base else served(blob)
            return ByteStream(blob.size, section(0, blob.size), "application/dicom", etag, section)
        header = self._section(row, row.base_header if base else row.header)
        plan = Part10Stream(header, row.transfer_syntax_uid, handle.table, row.bulk)
        return _streamed(plan, handle, etag)

    def metadata(self, instance: Instance, *, principal: Principal, scope: Scope) -> bytes:
        """See ``Archive.metadata``."""
        self._core.check(principal, Action.READ)
        handle = self._handle(instance, scope)
        self._note("metadata", handle, principal)
        return gzip.decompress(self._section(handle.row, handle.row.json))

    def _section(self, row: Row, place: tuple[str, int, int]) -> bytes:
        key, offset, length = place
        data = self._core.files.get(key).pread(offset, length)
        if len(data) != length:
            raise Damaged(f"the header of {row.sop_instance_uid} is incomplete")
        return data

    def header(self, handle: Handle) -> bytes:
        """Part 10 bytes of the current header revision, without bulk values."""
        return self._section(handle.row, handle.row.header)

    # ---- frames ----------------------------------------------------------------

    def frame(self, instance: Instance, number: int, *, principal: Principal, scope: Scope) -> bytes:
        """One stored frame: the hot path."""
        core = self._core
        core.check(principal, Action.READ)
        handle = self._handle(instance, scope)
        table = handle.table
        if table is None or not 1 <= number <= table.count:
            raise NoSuchFrame(number, 0 if table is None else table.count)
        data = read_frame(handle, table, number - 1)
        self._note("frames", handle, principal)
        return data

    def frames(
        self,
        instance: Instance,
        numbers: Sequence[int],
        *,
        principal: Principal,
        scope: Scope,
        transfer_syntax_uid: str,
    ) -> Iterator[bytes]:
        """See ``Archive.frames``."""
        core = self._core
        core.check(principal, Action.READ)
        handle = self._handle(instance, scope)
        table = handle.table
        count = 0 if table is None else table.count
        for number in numbers:
            if not 1 <= number <= count:
                raise NoSuchFrame(number, count)
        assert table is not None
        stored = handle.row.transfer_syntax_uid
        transcode = transfer_syntax_uid not in ("", stored)
        if transcode and not self.can(handle, transfer_syntax_uid):
            raise CannotTranscode(f"frames of {stored} cannot be given in {transfer_syntax_uid}")
        self._note("frames", handle, principal, len(numbers))
        if not transcode:
            return (read_frame(handle, table, number - 1) for number in numbers)
        made = self.transcoder(handle, transfer_syntax_uid)
        if len(numbers) == 1:
            return (made(number - 1) for number in numbers)
        return ahead(made, [number - 1 for number in numbers], FRAMES_AT_ONCE)

    def transcoder(self, handle: Handle, transfer_syntax_uid: str) -> Callable[[int], bytes]:
        """What gives one frame, counted from 0, in another transfer syntax."""
        codec, table = self._core.codec, handle.table
        assert codec is not None
        assert table is not None
        pixels = self.pixels(handle)

        def transcoded(index: int) -> bytes:
            if transfer_syntax_uid in (JPEGXL_RECOMPRESSION, JPEGXL):
                stored = recompressed_frame(handle, table, index)
                if stored is not None:
                    return stored
            frame = read_frame(handle, table, index)
            if not frame:
                raise CannotDecode(f"frame {index + 1} is empty")
            return codec.transcode(frame, pixels, transfer_syntax_uid)

        return transcoded

    def can(self, handle: Handle, transfer_syntax_uid: str) -> bool:
        """Whether the codec has a way from the stored transfer syntax to this one."""
        codec = self._core.codec
        return codec is not None and codec.can_transcode(self.pixels(handle), transfer_syntax_uid)

    def can_transcode(self, instance: Instance, transfer_syntax_uid: str, *, scope: Scope) -> bool:
        """See ``Archive.can_transcode``."""
        handle = self._handle(instance, scope)
        return transfer_syntax_uid == handle.row.transfer_syntax_uid or self.can(handle, transfer_syntax_uid)

    def pixels(self, handle: Handle) -> PixelDescription:
        """What a decoder must know; the ICC profile is the first optical path's."""
        if handle.pixels is None:
            row = handle.row
            header = self.dataset(handle)
            icc = b""
            for path in header.get("OpticalPathSequence", [])[:1]:
                icc = bytes(path.get("ICCProfile", b"") or b"")
            planar = int(header.get("PlanarConfiguration", 0) or 0)
            handle.pixels = describe_pixels(row, planar_configuration=planar, icc_profile=icc)
        return handle.pixels

    def dataset(self, handle: Handle) -> Dataset:
        """The current header as a data set, without bulk values."""
        return dcmread(io.BytesIO(self.header(handle)), force=True)

    # ---- bulk values -----------------------------------------------------------

    def bulk(self, instance: Instance, path: str, *, principal: Principal, scope: Scope) -> ByteStream:
        """See ``Archive.bulk``."""
        core = self._core
        core.check(principal, Action.READ)
        handle = self._handle(instance, scope)
        for value in handle.row.bulk:
            if value.path == path and not value.is_pixel_data:
                self._note("bulk", handle, principal, 1, path)
                places = [Range(0, value.offset, value.length)]
                section = section_of(partial(iter, places), handle)
                return ByteStream(value.length, section(0, value.length), section=section)
        data = header_value(self.dataset(handle), path)
        self._note("bulk", handle, principal, 1, path)
        return ByteStream(len(data), iter([data]), section=section_of(lambda: [data], handle))

    def opened(self, instance: Instance, *, principal: Principal, scope: Scope) -> Handle:
        """The handle behind a descriptor, for other reading verbs."""
        self._core.check(principal, Action.READ)
        return self._handle(instance, scope)

    def behind(self, instance: Instance, scope: Scope) -> Handle:
        """The same for questions about it, which are nobody's reading."""
        return self._handle(instance, scope)

    def note(self, kind: str, handle: Handle, principal: Principal, count: int = 1) -> None:
        """An access line."""
        self._note(kind, handle, principal, count)

    def packed_json(self, handle: Handle) -> bytes:
        """DICOM JSON as it is kept, see :mod:`archive.packed_json`."""
        return self._section(handle.row, handle.row.json)

    def _note(
        self, kind: str, handle: Handle, principal: Principal, count: int = 1, detail: str = ""
    ) -> None:
        row = handle.row
        self._core.access.note(kind, principal, row.study_instance_uid, row.sop_instance_uid, count, detail)


def native_frame_bytes(row: Row) -> int:
    """Size of one decoded frame."""
    return row.rows * row.columns * row.samples_per_pixel * ((row.bits_allocated + 7) // 8)


def recompressed_frame(handle: Handle, table: FrameTable, index: int) -> bytes | None:
    """The JPEG XL form of a frame that is stored so; else None."""
    segments = table.segments(index)
    if len(segments) == 1 and isinstance(segments[0], Range):
        blob = handle.blobs[segments[0].blob_index]
        if isinstance(blob, PackedFile):
            return blob.stored(segments[0].offset, segments[0].length)
    return None


def digest_of(pieces: Iterable[bytes]) -> bytes:
    """SHA-256 of bytes that come in pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _streamed(plan: Part10Stream, handle: Handle, etag: str = "") -> ByteStream:
    section = section_of(plan.parts, handle)
    return ByteStream(plan.length, section(0, plan.length), "application/dicom", etag, section)


def section_of(
    parts: Callable[[], Iterable[Segment]], handle: Handle
) -> Callable[[int, int], Iterator[bytes]]:
    """What gives ``(offset, length)`` of parts that stand one after the other; those before
    and behind are not read."""

    def section(offset: int, length: int) -> Iterator[bytes]:
        at, end = 0, offset + length
        for part in parts():
            size = len(part) if isinstance(part, bytes) else part.length
            start, stop = max(offset, at) - at, min(end, at + size) - at
            if start < stop:
                if isinstance(part, bytes):
                    yield part[start:stop]
                else:
                    yield from handle.blobs[part.blob_index].chunks(part.offset + start, stop - start)
            at += size
            if at >= end:
                return

    return section


def bulk_values(row: Row) -> tuple[BulkValue, ...]:
    """Bulk values other than pixel data, as the stream writer takes them."""
    return tuple(b for b in row.bulk if not b.is_pixel_data)


def header_value(dataset: Dataset, path: str) -> bytes:
    """The encoded value (Explicit VR Little Endian) at a path of tags and item numbers.

    Raises NoSuchBulkData for a path that leads nowhere, to a sequence, or to a value
    that has no bulk form.
    """
    steps = path.split("/")
    current = dataset
    try:
        for tag, item in zip(steps[0:-1:2], steps[1:-1:2], strict=True):
            current = current[int(tag, 16)].value[int(item)]
        element = current[int(steps[-1], 16)]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise NoSuchBulkData(path) from None
    if element.VR == "SQ":
        raise NoSuchBulkData(path)
    if isinstance(element.value, bytes):
        return element.value
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_data_element(buffer, element)
    return bytes(buffer.getvalue()[8:])
