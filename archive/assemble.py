# SPDX-License-Identifier: Apache-2.0
"""Part 10 files put together from metadata and bulk values that came apart (PS3.18 10.5).

Everything that arrives goes into one file of the spool; a data set is read from there
and written as a staged file, its bulk values copied to their places. Memory is that of
one data set. A value that did not come with the request is refused, never fetched.
"""

import os
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from archive.errors import StoreWarning, TooLarge, Unreadable, UnsupportedTransferSyntax
from archive.part10.bulk import PIXEL_DATA
from archive.part10.codestream import Codestream, photometric, sniff, transfer_syntax
from archive.part10.errors import Part10Error
from archive.part10.from_json import JsonObject, Slot, first_text, from_json
from archive.part10.meta import encode_meta, is_uid
from archive.part10.normal_form import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    element_header,
)
from archive.part10.syntaxes import EXPLICIT, NATIVE
from archive.part10.vr import LONG_MASK
from archive.spool import Spool, SpoolFile, Staging, storage_errors

PARTS = 200_000
"""Bulk parts of one request; a slide has one for each frame."""

NAME_BYTES = 16 << 20
"""All their names together."""

_MAX_VALUE = 0xFFFFFFFE
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 14
_ITEM = struct.Struct("<HHI")
_JPEG = "1.2.840.10008.1.2.4."

_ALSO: dict[str, tuple[str, ...]] = {
    "50": ("51",), "57": ("70",), "80": ("81",), "90": ("91", "92", "93"), "91": ("93",),
    "201": ("203",), "202": ("201", "203"), "110": ("112",), "111": ("112",),
}  # fmt: skip
"""Transfer syntaxes that carry a codestream as well as the one that it shows itself."""


@dataclass(slots=True)
class BulkParts:
    """The parts under one name, in the order they came: one value, or one frame each."""

    media_type: str
    transfer_syntax_uid: str
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    lengths: "array[int]" = field(default_factory=lambda: array("Q"))
    used: bool = False


@dataclass(frozen=True, slots=True)
class _Pixels:
    """What becomes group 2 and the Image Pixel module."""

    transfer_syntax_uid: str = EXPLICIT
    derived: Mapping[str, Any] = field(default_factory=dict)
    relabelled: bool = False


class Assembly:
    """The bulk values of one request, and the files that are made with them. A context
    manager: what it wrote besides the staged files goes at its end."""

    def __init__(self, spool: Spool, reserve: Callable[[int], None]) -> None:
        """``reserve`` raises StorageFull when so many bytes are not free."""
        self._spool = spool
        self._reserve = reserve
        self._path = spool.new_path()
        with storage_errors():
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._parts = self._name_bytes = 0
        self._values: dict[str, BulkParts] = {}
        self._open: BulkParts | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self._path.unlink(missing_ok=True)

    # ---- what arrives ----------------------------------------------------------------

    def begin(self, uri: str, media_type: str, transfer_syntax_uid: str, size_hint: int = 0) -> None:
        """A bulk part named ``uri`` follows; ``transfer_syntax_uid`` is "" where its type
        does not say. Raises TooLarge, StorageFull, Unreadable."""
        self._reserve(size_hint)
        self._parts += 1
        found = self._values.get(uri)
        if found is None:
            self._name_bytes += len(uri)
            found = self._values[uri] = BulkParts(media_type, transfer_syntax_uid)
        elif (found.media_type, found.transfer_syntax_uid) != (media_type, transfer_syntax_uid):
            raise Unreadable("parts of one name have different types")
        if self._parts > PARTS or self._name_bytes > NAME_BYTES:
            raise TooLarge(f"more than {PARTS} bulk parts, or {NAME_BYTES} bytes of names")
        found.offsets.append(self._size)
        found.lengths.append(0)
        self._open = found

    def write(self, data: bytes) -> None:
        """Bytes of the part that was begun last. Raises StorageFull, StorageFailed."""
        assert self._open is not None
        self._append(data)
        self._open.lengths[-1] += len(data)

    def drop(self) -> None:
        """The part that was begun last did not end: forget it."""
        if self._open is not None:
            self._open.offsets.pop()
            self._open.lengths.pop()
            self._open = None

    def keep(self, data: bytes) -> tuple[int, int]:
        """Append bytes that are no bulk value; returns their place, for :meth:`read`."""
        start = self._size
        self._append(data)
        return start, len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes that came."""
        pieces = list(self._chunks(offset, length))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def unused(self) -> int:
        """How many names no data set referred to."""
        return sum(1 for parts in self._values.values() if not parts.used and parts.offsets)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        with storage_errors():
            while view:
                written = os.pwrite(self._fd, view, self._size)
                self._size += written
                view = view[written:]

    def _chunks(self, offset: int, length: int) -> Iterator[bytes]:
        while length:
            with storage_errors():
                piece = os.pread(self._fd, min(length, _CHUNK_BYTES), offset)
            if not piece:
                raise Unreadable("a bulk value ends early")
            offset, length = offset + len(piece), length - len(piece)
            yield piece

    # ---- what is made ----------------------------------------------------------------

    def assemble(self, data_set: JsonObject) -> tuple[SpoolFile, StoreWarning | None]:
        """A Part 10 file of one DICOM JSON object, staged; COERCION where attributes were
        added or the transfer syntax is another than the part's type says.

        Raises Unreadable, UnsupportedTransferSyntax, TooLarge, StorageFull.
        """
        sop_class, sop_instance = (first_text(data_set, tag) for tag in ("00080016", "00080018"))
        if not is_uid(sop_class) or not is_uid(sop_instance):
            raise Unreadable("the data set has no SOP Class or SOP Instance UID")
        pixels = self._describe(data_set)
        try:
            pieces = from_json({**pixels.derived, **data_set})
        except Part10Error as error:
            raise Unreadable(str(error)) from error
        wanted = [piece for piece in pieces if isinstance(piece, Slot)]
        size = sum(self._size_of(slot) for slot in wanted)
        self._reserve(size)
        with self._spool.stage(size) as staging:
            staging.write(encode_meta(sop_class, sop_instance, pixels.transfer_syntax_uid))
            for piece in pieces:
                if isinstance(piece, bytes):
                    staging.write(piece)
                else:
                    self._fill(staging, piece, pixels.transfer_syntax_uid)
            staged = staging.finish()
        coerced = bool(pixels.derived) or pixels.relabelled
        return staged, StoreWarning.COERCION if coerced else None

    def _value(self, uri: str) -> BulkParts:
        parts = self._values.get(uri)
        if parts is None or not parts.offsets:
            raise Unreadable("a BulkDataURI names no part of this request; others are not fetched")
        parts.used = True
        return parts

    def _size_of(self, slot: Slot) -> int:
        return sum(self._value(slot.uri).lengths) if slot.uri else len(slot.inline)

    def _describe(self, data_set: JsonObject) -> _Pixels:
        """Transfer syntax from the pixel data's part, or from its codestream."""
        attribute = data_set.get(f"{PIXEL_DATA:08X}")
        uri = attribute.get("BulkDataURI") if isinstance(attribute, Mapping) else None
        if not isinstance(uri, str):
            return _Pixels()
        parts = self._value(uri)
        declared = parts.transfer_syntax_uid
        if declared in NATIVE or (not declared and parts.media_type == "application/octet-stream"):
            return _Pixels()
        if parts.media_type.startswith("video/"):
            return _Pixels(declared)
        stream = sniff(self.read(parts.offsets[0], min(parts.lengths[0], _HEAD_BYTES)))
        shown = transfer_syntax(stream)
        if shown is None:
            if not declared or parts.media_type in ("image/png", "image/gif"):
                raise UnsupportedTransferSyntax(f"of {parts.media_type} without a known codestream")
            return _Pixels(declared)
        fits = (shown, *(f"{_JPEG}{number}" for number in _ALSO.get(shown.removeprefix(_JPEG), ())))
        derived = {
            tag: v for tag, v in _image_pixel(stream, len(parts.offsets)).items() if tag not in data_set
        }
        if declared in fits:
            return _Pixels(declared, derived)
        return _Pixels(shown, derived, relabelled=bool(declared))

    def _fill(self, staging: Staging, slot: Slot, transfer_syntax_uid: str) -> None:
        if not slot.uri:
            self._opening(staging, slot, len(slot.inline))
            staging.write(slot.inline + bytes(len(slot.inline) % 2))
            return
        parts = self._value(slot.uri)
        if slot.is_pixel_data and transfer_syntax_uid not in NATIVE:
            self._fragments(staging, parts)
            return
        if len(parts.offsets) != 1:
            raise Unreadable("several parts have the name of one value")
        length = parts.lengths[0]
        self._opening(staging, slot, length)
        for chunk in self._chunks(parts.offsets[0], length):
            staging.write(chunk)
        if length % 2:
            staging.write(b" " if slot.vr in (b"UT", b"UC", b"ST", b"LT", b"DS", b"IS") else b"\0")

    @staticmethod
    def _opening(staging: Staging, slot: Slot, length: int) -> None:
        if length > _MAX_VALUE:
            raise TooLarge("a value of 4 GiB or more has no encoding")
        if length > 0xFFFE and slot.vr not in LONG_MASK:
            raise Unreadable(f"a value of VR {slot.vr.decode()} is longer than 65,534 bytes")
        staging.write(element_header(slot.tag, slot.vr, length + length % 2))

    def _fragments(self, staging: Staging, parts: BulkParts) -> None:
        """Frames as items (PS3.5 A.4), with the offset table that they need."""
        lengths = np.frombuffer(parts.lengths, dtype=np.uint64)
        padded = lengths + (lengths & np.uint64(1))
        if int(padded.max()) > _MAX_VALUE:
            raise TooLarge("a frame of 4 GiB or more has no encoding as one fragment")
        ends = np.cumsum(padded + np.uint64(8), dtype=np.uint64)
        offsets = np.concatenate((np.zeros(1, dtype=np.uint64), ends[:-1]))
        basic = b""
        if int(offsets[-1]) > 0xFFFFFFFF:
            for tag, values in ((EXTENDED_OFFSETS, offsets), (EXTENDED_LENGTHS, lengths)):
                table = values.astype("<u8").tobytes()
                staging.write(element_header(tag, b"OV", len(table)) + table)
        else:
            basic = offsets.astype("<u4").tobytes()
        staging.write(element_header(PIXEL_DATA, b"OB", UNDEFINED))
        staging.write(_ITEM.pack(0xFFFE, 0xE000, len(basic)) + basic)
        for offset, length in zip(parts.offsets, parts.lengths, strict=True):
            staging.write(_ITEM.pack(0xFFFE, 0xE000, length + length % 2))
            for chunk in self._chunks(offset, length):
                staging.write(chunk)
            if length % 2:
                staging.write(b"\0")
        staging.write(SEQUENCE_DELIMITER)


def _image_pixel(stream: Codestream, frames: int) -> dict[str, Any]:
    """What the codestream says of its pixels (PS3.3 C.7.6.3), as a sender may leave it to
    us; nothing where it does not say."""
    if not (stream.rows and stream.columns and stream.components and stream.bits):
        return {}
    allocated = 8 if stream.bits <= 8 else 16
    numbers = {
        "00280002": stream.components,
        "00280010": stream.rows,
        "00280011": stream.columns,
        "00280100": allocated,
        "00280101": stream.bits,
        "00280102": stream.bits - 1,
        "00280103": int(stream.signed),
    }
    found: dict[str, Any] = {tag: {"vr": "US", "Value": [number]} for tag, number in numbers.items()}
    if stream.components > 1:
        found["00280006"] = {"vr": "US", "Value": [0]}
    if photometric(stream):
        found["00280004"] = {"vr": "CS", "Value": [photometric(stream)]}
    if frames > 1:
        found["00280008"] = {"vr": "IS", "Value": [frames]}
    return found
