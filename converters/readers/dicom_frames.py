# SPDX-License-Identifier: Apache-2.0
"""Frames of received whole slide images as the tiles of a level.

An instance is a *part* of a level: all of it, a piece of a concatenation, or one channel
or focal plane of several. Each frame has a place (optical path, focal plane, row,
column), from its number (TILED_FULL) or from its own functional groups (PS3.3
C.7.6.17.3); offset tables were weighed by ``archive.part10`` before.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from archive.part10.agreement import stated_colours
from archive.part10.codestream import Codestream, sniff, transfer_syntax
from archive.part10.frame_table import FrameTable, Kind, Range
from archive.part10.syntaxes import EXPLICIT, NATIVE
from converters.codecs.errors import CodecError
from converters.errors import DamagedSlide, MissingCompanion, UnsupportedCompression, UnsupportedPixels
from converters.readers.dicom_places import Indexes, Shape
from converters.readers.encoded_tiles import MAX_TILES, decoded, read_range
from converters.slide import GatherMap, Pixels, PixelTiles, TileMap
from converters.writer.survey import COPYABLE, EOI

HEAD_BYTES = 1 << 16
LOSSY_METHODS = {
    "jpeg": "ISO_10918_1", "jpegls": "ISO_14495_1", "jpeg2000": "ISO_15444_1", "htj2k": "ISO_15444_15",
    "jpegxl": "ISO_18181_1",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """One instance: where its frames lie in its file, and what they show.

    ``pieces`` are the ranges of all frames one after another, ``index`` where each
    frame's begin. ``heights_um`` of the focal planes, None where nobody says. ``places``:
    (frames, 4), each (path, plane, row, column) counting in this part's own paths and
    planes.
    """

    path: Path
    source: int
    header: Dataset
    transfer_syntax_uid: str
    photometric: str
    shape: Shape
    index: Indexes
    offsets: Indexes
    lengths: Indexes
    identifiers: tuple[str, ...]
    heights_um: tuple[float | None, ...]
    places: Indexes

    @property
    def frames(self) -> int:
        return len(self.index) - 1

    @property
    def bits_stored(self) -> int:
        stored = self.header.get("BitsStored")
        return stored if isinstance(stored, int) and 1 <= stored <= self.shape.bits else self.shape.bits

    def frame(self, number: int) -> bytes:
        """Bytes of a frame. Raises DamagedSlide where the file has become shorter."""
        pieces = range(int(self.index[number]), int(self.index[number + 1]))
        return b"".join(read_range(self.path, int(self.offsets[at]), int(self.lengths[at])) for at in pieces)

    @cached_property
    def head(self) -> bytes:
        """The first bytes of the first frame."""
        at = int(self.index[0])
        if at == self.index[1]:
            return b""
        return read_range(self.path, int(self.offsets[at]), min(HEAD_BYTES, int(self.lengths[at])))

    @cached_property
    def native(self) -> bool:
        return self.transfer_syntax_uid in NATIVE

    @cached_property
    def stream(self) -> Codestream:
        return Codestream("uncompressed", reversible=True) if self.native else sniff(self.head)

    @cached_property
    def codec(self) -> str:
        """The transfer syntax that the frames are of. Raises UnsupportedCompression."""
        if self.native:
            return EXPLICIT
        found = transfer_syntax(self.stream)
        if self.stream.format == "jpegxl":
            found = self.transfer_syntax_uid  # the head does not tell whether it is lossless
        if found is None:
            raise UnsupportedCompression(self.stream.format, "the frames of an image")
        return found

    @property
    def lossy_method(self) -> str:
        """DICOM's name of the present coding, "" where it loses nothing."""
        if self.native or self.stream.reversible is True or self.codec == "1.2.840.10008.1.2.4.110":
            return ""
        return LOSSY_METHODS["jpeg" if self.stream.from_jpeg else self.stream.format]

    @property
    def colours(self) -> str:
        """What the codestream states of its colours, "" where the header decides."""
        return "" if self.native else stated_colours(self.head, self.stream)

    @property
    def container_rgb(self) -> bool | None:
        """What the header says where the codestream says nothing."""
        if self.colours or self.shape.samples != 3:
            return None
        return None if not self.photometric else not self.photometric.startswith("YBR")

    @property
    def copyable(self) -> bool:
        """Whether the frames are codestreams whose colours the writer can tell from them."""
        told = self.stream.format in ("jpeg", "jpeg2000") or bool(self.colours)
        return self.codec in COPYABLE and (told or self.container_rgb is not False)

    def pixels(self, number: int) -> Pixels:
        """A frame, decoded: (tile rows, tile columns, samples), RGB or grey. Raises
        DamagedSlide."""
        from converters.codecs import decode  # its libraries load where pixels are worked on

        shape = self.shape
        try:
            return decode(
                self.frame(number), self.codec, shape.tile_rows, shape.tile_columns, shape.samples,
                shape.bits, self.photometric, int(self.header.get("PlanarConfiguration") or 0),
            )  # fmt: skip
        except CodecError as error:
            raise DamagedSlide(f"frame {number + 1} of an image cannot be decoded: {error}") from error


def frame_ranges(table: bytes, path: Path, *, native: bool) -> tuple[Indexes, Indexes, Indexes]:
    """Index, offsets and lengths of the pieces of all frames, the pad byte of an even
    length (PS3.5 A.4) not counted. Raises UnsupportedPixels."""
    frames = FrameTable.from_bytes(table)
    if frames.kind is Kind.BITS:
        raise UnsupportedPixels("the pixels of a whole slide image do not fill whole bytes")
    if frames.kind is Kind.DIRECT:
        entries = frames.direct_entries()
        index = np.arange(frames.count + 1, dtype=np.int64)
        offsets, lengths = entries["offset"].astype(np.int64), entries["length"].astype(np.int64)
    else:
        counts, ranges = [0], []
        for number in range(frames.count):
            ranges += [one for one in frames.segments(number) if isinstance(one, Range) and one.length]
            counts.append(len(ranges))
        index = np.array(counts, dtype=np.int64)
        offsets = np.array([one.offset for one in ranges], dtype=np.int64)
        lengths = np.array([one.length for one in ranges], dtype=np.int64)
    if not native:
        _trim(path, index, offsets, lengths)
    return index, offsets, lengths


def _trim(path: Path, index: Indexes, offsets: Indexes, lengths: Indexes) -> None:
    """Take the pad byte off the last piece of every frame of a codestream that ends by a
    marker."""
    last = index[1:][index[1:] > index[:-1]] - 1
    even = last[(lengths[last] % 2 == 0) & (lengths[last] > 2)]
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for at, end in zip(even.tolist(), (offsets + lengths)[even].tolist(), strict=True):
            if os.pread(descriptor, 3, end - 3) == EOI + b"\0":
                lengths[at] -= 1
    finally:
        os.close(descriptor)


@dataclass(frozen=True, eq=False)
class Joined:
    """Parts laid together: ``owner`` and ``number`` say which part's which frame fills a
    tile, by frame index; -1 where none does."""

    parts: Sequence[Part]
    identifiers: tuple[str, ...]
    heights_um: tuple[float, ...]  # () where there are several and nobody says how high
    planes: int
    owner: NDArray[np.int16]
    number: Indexes

    @property
    def shape(self) -> Shape:
        return self.parts[0].shape

    def pixels(self, index: int) -> Pixels:
        return self.parts[int(self.owner[index])].pixels(int(self.number[index]))


def join(parts: Sequence[Part]) -> Joined | None:
    """One level from its parts; None where two of them fill the same tile. Raises
    MissingCompanion where a part of a concatenation is absent."""
    identifiers = tuple(dict.fromkeys(name for part in parts for name in part.identifiers))
    heights = {height for part in parts for height in part.heights_um}
    planes = max(len(part.heights_um) for part in parts)
    levels: list[float] = []
    if None not in heights:
        levels = sorted({round(height, 3) for height in heights if height is not None})
        planes = len(levels)
    shape = parts[0].shape
    whole = (len(identifiers), planes, *shape.extent)
    if math.prod(whole) > MAX_TILES:
        raise DamagedSlide(f"a whole slide image of more than {MAX_TILES} tiles")
    owner = np.full(math.prod(whole), -1, dtype=np.int16)
    number = np.zeros(len(owner), dtype=np.int64)
    for at, part in enumerate(parts):
        path_of = np.array([identifiers.index(name) for name in part.identifiers], dtype=np.int64)
        plane_of = np.array(
            [levels.index(round(height or 0.0, 3)) for height in part.heights_um]
            if levels
            else range(len(part.heights_um)),
            dtype=np.int64,
        )
        path, plane, row, column = part.places.T
        cells = np.ravel_multi_index((path_of[path], plane_of[plane], row, column), whole)
        if (owner[cells] >= 0).any() or len(np.unique(cells)) < len(cells):
            if len(parts) == 1:
                raise DamagedSlide("two frames of an image lie in the same place")
            return None
        owner[cells], number[cells] = at, np.arange(part.frames)
    _check_concatenation(parts)
    known = tuple(levels) if levels else ((0.0,) if planes == 1 else ())
    return Joined(parts, identifiers, known, planes, owner, number)


def _check_concatenation(parts: Sequence[Part]) -> None:
    """All parts of a concatenation must be there (PS3.3 C.7.6.16.2.2.4)."""
    numbers: dict[str, set[int]] = {}
    totals: dict[str, int] = {}
    for part in parts:
        uid = str(part.header.get("ConcatenationUID") or "")
        if uid:
            numbers.setdefault(uid, set()).add(int(part.header.get("InConcatenationNumber") or 0))
            total = int(part.header.get("InConcatenationTotalNumber") or 0)
            totals[uid] = max(totals.get(uid, 0), total, *numbers[uid])
    for uid, found in numbers.items():
        absent = sorted(set(range(1, min(totals[uid], 65535) + 1)) - found)
        if absent:
            raise MissingCompanion(f"part {absent[0]} of {totals[uid]} of a concatenation")


def level_tiles(joined: Joined) -> TileMap | GatherMap | PixelTiles:
    """The tiles of a level: codestreams that can be copied, or pixels."""
    parts, owner, number = joined.parts, joined.owner, joined.number
    missing = owner < 0
    if not all(part.copyable for part in parts):
        first = next(part for part in parts if not part.copyable)
        kind = "uncompressed frames" if first.native else f"{first.stream.format} frames"
        size = sum(int(part.lengths.sum()) for part in parts)
        return PixelTiles(joined.pixels, len(owner), kind, first.lossy_method, size, missing)
    source = np.array([part.source for part in parts], dtype=np.uint8)[owner]
    start, end = np.zeros(len(owner), np.int64), np.zeros(len(owner), np.int64)
    bases = np.cumsum([0, *(len(part.offsets) for part in parts)])
    for at, part in enumerate(parts):
        mine = owner == at
        start[mine] = part.index[number[mine]] + bases[at]
        end[mine] = part.index[number[mine] + 1] + bases[at]
    offsets = np.concatenate([part.offsets for part in parts]).astype(np.uint64)
    lengths = np.concatenate([part.lengths for part in parts]).astype(np.uint64)
    counts = end - start
    if (counts <= 1).all():
        there = counts == 1
        found = [np.zeros(len(owner), np.uint64), np.zeros(len(owner), np.uint64)]
        for target, values in zip(found, (offsets, lengths), strict=True):
            target[there] = values[start[there]]
        return TileMap(found[0], found[1], np.where(there, source, 0).astype(np.uint8))
    index = np.concatenate(([0], np.cumsum(counts)))
    order = np.repeat(start - index[:-1], counts) + np.arange(int(index[-1]))
    pieces = np.repeat(source, counts)
    literal = np.zeros(len(order), np.bool_)
    return GatherMap(index.astype(np.uint64), offsets[order], lengths[order], literal, b"", pieces)


def tile_reference(joined: Joined, index: int) -> NDArray[np.uint8]:
    """A tile decoded by Pillow, to prove by."""
    part, shape = joined.parts[int(joined.owner[index])], joined.shape
    size = (shape.tile_rows, shape.tile_columns, shape.samples)
    return decoded(part.frame(int(joined.number[index])), size, "a frame")


def has_reference(joined: Joined) -> bool:
    """Whether Pillow sees the colours that DICOM says."""
    return joined.shape.bits == 8 and all(
        part.copyable
        and (part.stream.format == "jpeg" or (part.stream.format == "jpeg2000" and part.stream.reversible))
        and (bool(part.colours) or (part.stream.format == "jpeg2000" and part.container_rgb is True))
        for part in joined.parts
    )
