# SPDX-License-Identifier: Apache-2.0
"""The container of Zeiss CZI (ZISRAW): segments, the directory of sub-blocks, attachments.

All is little-endian. A segment is a header of 32 bytes (id[16], allocated, used: int64) and its
data. What is read of them (offset within the data: field):

    ZISRAWFILE       52 position of the directory (int64), 60 of the metadata, 68 update pending
                     (int32), 72 of the attachments (int64); 0 means there is none
    ZISRAWDIRECTORY  0 count (int32); from 128 the entries
    ZISRAWSUBBLOCK   0 bytes of metadata (int32), 4 of attachment (int32), 8 of pixels (int64);
                     at 16 the entry again; then metadata, pixels, attachment, the first of them
                     at 256 or after the entry, whichever comes later
    ZISRAWMETADATA   0 bytes of XML (int32); the XML from 256
    ZISRAWATTDIR     0 count (int32); from 256 entries of 128 bytes: "A1", position (int64) at 12,
                     content type[8] at 40, name[80] at 48
    ZISRAWATTACH     0 bytes of content (int64); the content from 256

An entry of schema "DV" is pixel type (int32 at 2), position (int64 at 6), file part, compression,
number of dimensions (int32 at 28), then for each dimension name[4], start, size (int32), a float
and the size stored (int32): a sub-block stores fewer pixels than it covers when it belongs to a
coarser level. M is the drawing order of tiles that overlap, S the scene.

An attachment may be a CZI itself: positions count from its own first byte.

Sources: ZEISS's structures in libCZI (CziStructs.h); OpenSlide's zeiss reader; real files.
"""

import os
import struct
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedPixels

MAX_SUBBLOCKS = 2_000_000
MAX_BLOCK_PIXELS = 300_000_000
MAX_XML_BYTES = 16 * 1024 * 1024
MAX_ATTACHMENTS = 1000
MAX_DIMENSIONS = 40
SEGMENT = struct.Struct("<16sqq")
FILE_HEADER = struct.Struct("<48xiqqiq")  # file part, directory, metadata, pending, attachments
ENTRY = struct.Struct("<2siqii6xi")
DIMENSION = struct.Struct("<4siifi")
ATTACHMENT = struct.Struct("<2s10xq20x8s80s")
SUBBLOCK = struct.Struct("<iiq")
FIELDS = np.dtype(
    [
        ("x", "i8"), ("y", "i8"), ("columns", "i8"), ("rows", "i8"),
        ("stored_columns", "i8"), ("stored_rows", "i8"),
        ("scene", "i8"), ("channel", "i8"), ("z", "i8"), ("time", "i8"), ("order", "i8"),
        ("pixel_type", "i8"), ("compression", "i8"), ("position", "i8"), ("header_bytes", "i8"),
    ]
)  # fmt: skip
NONE = -1
"""``scene`` and ``order`` of a sub-block that has no dimension S, no M."""
_EMPTY = {name: NONE if name in ("scene", "order") else 0 for name in FIELDS.names or ()}
_NAMES = {b"X": "x", b"Y": "y", b"S": "scene", b"C": "channel", b"Z": "z", b"T": "time", b"M": "order"}
OTHERS = (b"H", b"I", b"R", b"V", b"B")
_PLANE_NAMES = {b"C": "channels", b"Z": "focal planes", b"T": "time points"}


class Window:
    """A part of an open file; positions count from its start, and none leads out of it."""

    def __init__(self, descriptor: int, start: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self.start = start
        self.size_bytes = size_bytes

    def read(self, position: int, length: int, what: str) -> bytes:
        """Raises DamagedSlide when ``what`` does not lie within the window."""
        if position < 0 or length < 0 or position + length > self.size_bytes:
            raise DamagedSlide(f"{what} lies beyond the end of the file")
        data = os.pread(self._descriptor, length, self.start + position)
        if len(data) != length:
            raise DamagedSlide(f"{what} cannot be read to its end")
        return data

    def within(self, position: int, length: int, what: str) -> "Window":
        if position < 0 or length < 0 or position + length > self.size_bytes:
            raise DamagedSlide(f"{what} lies beyond the end of the file")
        return Window(self._descriptor, self.start + position, length)

    def segment(self, position: int, name: bytes, what: str) -> int:
        """Bytes that the segment ``name`` uses after its header."""
        found, allocated, used = SEGMENT.unpack(self.read(position, SEGMENT.size, what))
        if found.rstrip(b"\0") != name:
            raise DamagedSlide(f"{what} is not where the file says")
        return int(used or allocated)


@dataclass(frozen=True)
class Attachment:
    name: str
    content_type: str  # "CZI", "JPG", ...
    content: Window


@dataclass(frozen=True)
class Czi:
    """``blocks`` has the fields of FIELDS, in the directory's order. ``others`` are the numbers
    in use of the dimensions that are not among them (H, I, R, V, B)."""

    window: Window
    blocks: NDArray[np.void]
    others: dict[str, int]
    xml: bytes
    attachments: tuple[Attachment, ...]
    finished: bool

    def attachment(self, name: str) -> Attachment | None:
        return next((found for found in self.attachments if found.name == name), None)

    def pixels_at(self, block: int) -> tuple[int, int]:
        """(Position, bytes) of a sub-block's encoded pixels in the window."""
        what = "a sub-block"
        position = int(self.blocks["position"][block])
        self.window.segment(position, b"ZISRAWSUBBLOCK", what)
        metadata, _, length = SUBBLOCK.unpack(self.window.read(position + SEGMENT.size, SUBBLOCK.size, what))
        start = position + SEGMENT.size + int(self.blocks["header_bytes"][block]) + metadata
        if metadata < 0 or length <= 0 or start + length > self.window.size_bytes:
            raise DamagedSlide("the pixels of a sub-block lie beyond the end of the file")
        return start, length

    def pixels(self, block: int, most: int | None = None) -> bytes:
        """A sub-block's encoded pixels, or the first ``most`` bytes of them."""
        position, length = self.pixels_at(block)
        return self.window.read(position, length if most is None else min(most, length), "a sub-block")


def read_czi(window: Window) -> Czi:
    """Raises DamagedSlide, and UnsupportedPixels for what an early or a rare writer did."""
    window.segment(0, b"ZISRAWFILE", "the file header")
    part, directory, metadata, pending, attachments = FILE_HEADER.unpack(
        window.read(SEGMENT.size, FILE_HEADER.size, "the file header")
    )
    if part:
        raise UnsupportedPixels("the slide is split over several files, of which this is not the first")
    if directory <= 0:
        raise DamagedSlide("there is no directory of sub-blocks: the file was never finished")
    blocks, others = _directory(window, directory)
    return Czi(
        window=window,
        blocks=blocks,
        others=others,
        xml=_xml(window, metadata) if metadata > 0 else b"",
        attachments=_attachments(window, attachments) if attachments > 0 else (),
        finished=not pending,
    )


def _directory(window: Window, position: int) -> tuple[NDArray[np.void], dict[str, int]]:
    what = "the directory of sub-blocks"
    used = window.segment(position, b"ZISRAWDIRECTORY", what)
    (count,) = struct.unpack("<i", window.read(position + SEGMENT.size, 4, what))
    if not 0 < count <= MAX_SUBBLOCKS:
        raise DamagedSlide("the file has no sub-blocks" if count == 0 else f"{what} has an impossible count")
    most = count * (ENTRY.size + MAX_DIMENSIONS * DIMENSION.size)
    start = position + SEGMENT.size + 128
    data = window.read(start, min(max(used - 128, 0), most), what)
    found: list[tuple[int, ...]] = []
    others: dict[str, set[int]] = defaultdict(set)
    at = 0
    for _ in range(count):
        try:
            schema, pixel_type, where, part, compression, dimensions = ENTRY.unpack_from(data, at)
            if not 0 < dimensions <= MAX_DIMENSIONS:
                raise DamagedSlide(f"{what} is damaged")
            end = at + ENTRY.size + dimensions * DIMENSION.size
            if schema == b"DE":
                raise UnsupportedPixels("the directory is of an early form of CZI (DE)")
            if schema != b"DV" or end > len(data):
                raise DamagedSlide(f"{what} is damaged")
        except struct.error as error:
            raise DamagedSlide(f"{what} ends too early") from error
        if part:
            raise UnsupportedPixels("the slide is split over several files")
        row = dict(_EMPTY)
        row["pixel_type"], row["compression"], row["position"] = pixel_type, compression, where
        row["header_bytes"] = max(256, SUBBLOCK.size + end - at)
        for name, first, size, _, stored in DIMENSION.iter_unpack(data[at + ENTRY.size : end]):
            key = name.rstrip(b"\0 ")
            field = _NAMES.get(key)
            if field is None:
                others[key.decode() if key in OTHERS else "unknown"].add(first)
                continue
            row[field] = first
            if field == "x":
                row["columns"], row["stored_columns"] = size, stored or size
            elif field == "y":
                row["rows"], row["stored_rows"] = size, stored or size
            elif size > 1 and key in _PLANE_NAMES:
                raise UnsupportedPixels(f"sub-blocks that hold several {_PLANE_NAMES[key]} are not read")
        found.append(tuple(row.values()))
        at = end
    blocks = np.array(found, FIELDS)
    _check(blocks, window.size_bytes)
    return blocks, {name: len(starts) for name, starts in others.items()}


def _check(blocks: NDArray[np.void], size_bytes: int) -> None:
    stored = blocks["stored_columns"] * blocks["stored_rows"]
    sizes = np.stack([blocks[name] for name in ("columns", "rows", "stored_columns", "stored_rows")])
    if (sizes <= 0).any() or (sizes >= 2**30).any() or (stored > MAX_BLOCK_PIXELS).any():
        raise DamagedSlide("a sub-block has an impossible size")
    if (blocks["position"] < 0).any() or (blocks["position"] >= size_bytes).any():
        beyond = int(((blocks["position"] < 0) | (blocks["position"] >= size_bytes)).sum())
        raise DamagedSlide(f"{beyond} sub-blocks lie beyond the end of the file")
    indices = np.stack([blocks[name] for name in ("scene", "channel", "z", "time")])
    if (indices < NONE).any() or (indices > 1_000_000).any():
        raise DamagedSlide("a sub-block has an impossible place")


def _xml(window: Window, position: int) -> bytes:
    what = "the metadata"
    window.segment(position, b"ZISRAWMETADATA", what)
    (length,) = struct.unpack("<i", window.read(position + SEGMENT.size, 4, what))
    if length > MAX_XML_BYTES:
        raise DamagedSlide(f"{what} is larger than {MAX_XML_BYTES // 1024**2} MiB")
    return window.read(position + SEGMENT.size + 256, length, what)


def _attachments(window: Window, position: int) -> tuple[Attachment, ...]:
    what = "the directory of attachments"
    window.segment(position, b"ZISRAWATTDIR", what)
    (count,) = struct.unpack("<i", window.read(position + SEGMENT.size, 4, what))
    if not 0 <= count <= MAX_ATTACHMENTS:
        raise DamagedSlide(f"{what} has an impossible count")
    data = window.read(position + SEGMENT.size + 256, count * ATTACHMENT.size, what)
    found = []
    for schema, where, content_type, name in ATTACHMENT.iter_unpack(data):
        if schema != b"A1":
            raise DamagedSlide(f"{what} is damaged")
        one = "an attachment"
        window.segment(where, b"ZISRAWATTACH", one)
        (length,) = struct.unpack("<q", window.read(where + SEGMENT.size, 8, one))
        content = window.within(where + SEGMENT.size + 256, length, one)
        found.append(Attachment(_text(name), _text(content_type), content))
    return tuple(found)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace").strip()
