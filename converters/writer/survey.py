# SPDX-License-Identifier: Apache-2.0
"""What a level's tiles really are, read from every tile's head and last bytes.

The transfer syntax follows from the codestreams, never from the file's type, and one
level has one: mixed sampling or colour means that the tiles cannot be copied. Nearly
all tiles of a level begin with the same bytes, so each distinct head is parsed once.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import (
    Codestream,
    jpeg_segments,
    photometric,
    sniff,
    splice_tables,
    transfer_syntax,
)
from archive.part10.errors import Part10Error
from converters.errors import DamagedSlide
from converters.slide import GatherMap, Level, PixelTiles, SourceFile, TileMap

ADOBE_RGB, ADOBE_YCBCR = 0, 1
FIRST_READ = 64
HEAD_BYTES = 4096
MOST_HEAD_BYTES = 65536  # a tile that carries its own ICC profile
TAIL_BYTES = 64
SAMPLE_TILES = 32
AT_ONCE = 4096  # tiles whose places are Python's numbers at a time
EOI = b"\xff\xd9"  # JPEG's end, and JPEG 2000's
COPYABLE = {
    "1.2.840.10008.1.2.4.50": ("RGB", "YBR_FULL_422", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.51": ("RGB", "YBR_FULL_422", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.80": ("RGB", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.81": ("RGB", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.90": ("YBR_RCT", "RGB", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.91": ("YBR_ICT", "RGB", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.201": ("YBR_RCT", "RGB", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.202": ("YBR_RCT", "RGB", "MONOCHROME2"),
    "1.2.840.10008.1.2.4.203": ("YBR_ICT", "RGB", "MONOCHROME2"),
}
"""Transfer syntax -> Photometric Interpretations of codestreams that are legal as they are."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A distinct head: what it says, and what must stand before the tile's bytes after
    the first ``skip`` of them."""

    codestream: Codestream
    transfer_syntax_uid: str
    photometric: str
    prefix: bytes
    skip: int
    findings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be the same in all tiles of a DICOM image."""
        stream = self.codestream
        return (
            stream.format, stream.sof, stream.rows, stream.columns, stream.components, stream.bits,
            stream.sampling, self.transfer_syntax_uid, self.photometric,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Survey:
    """A level's tiles. ``lengths`` are without what follows a tile's end marker; ids of
    absent tiles are 0. ``why_not_copied`` is "" when every tile is legal in DICOM as it
    is. Tiles that the reader gives as pixels have no kind."""

    kinds: tuple[Kind, ...]
    kind_ids: NDArray[np.uint16]
    lengths: NDArray[np.uint64]
    why_not_copied: str = ""
    findings: tuple[str, ...] = ()

    @property
    def first(self) -> Kind | None:
        return self.kinds[0] if self.kinds else None

    @property
    def copied(self) -> Kind:
        """What all copied tiles are. Only where :attr:`why_not_copied` is empty."""
        return self.kinds[0]


@dataclass
class Heads:
    """The distinct heads of a level's tiles, as far as met."""

    level: Level
    kinds: list[Kind] = field(default_factory=list)
    known: list[tuple[bytes, int]] = field(default_factory=list)

    def find(self, head: bytes) -> int | None:
        for start, kind_id in self.known:
            if head.startswith(start):
                return kind_id
        return None

    def learn(self, head: bytes) -> tuple[int, int] | None:
        """(kind id, length of the head); None when it is not complete in ``head``."""
        end = _head_length(head)
        if end is None:
            return None
        kind = _classify(head[:end], self.level)
        if kind not in self.kinds:
            self.kinds.append(kind)
        kind_id = self.kinds.index(kind)
        if len(self.known) < 64:  # no level has so many; a hostile one must not slow us down
            self.known.insert(0, (head[:end], kind_id))
        if len(self.kinds) > 4096:
            raise DamagedSlide(f"level {self.level.index} has thousands of different tile heads")
        return kind_id, end


def survey(level: Level, sources: Sequence[SourceFile]) -> Survey:
    """Read every tile's head and end. Raises DamagedSlide for tiles that are none."""
    tiles = level.tiles
    if isinstance(tiles, PixelTiles):
        lengths = np.zeros(len(tiles), dtype=np.uint64)
        return Survey((), np.zeros(len(tiles), dtype=np.uint16), lengths, tiles.why)
    if tiles.absent.all():
        raise DamagedSlide(f"level {level.index} has no tiles")
    with ExitStack() as stack:
        fds = _opened(tiles, sources, stack)
        if isinstance(tiles, GatherMap):
            return _survey_gathered(level, tiles, fds)
        return _survey_ranges(level, tiles, fds)


def _opened(tiles: TileMap | GatherMap, sources: Sequence[SourceFile], stack: ExitStack) -> dict[int, int]:
    """Descriptors of the files that tiles lie in, by number."""
    fds = {}
    for number in np.unique(tiles.files).tolist():
        file = stack.enter_context(sources[number].path.open("rb"))
        fds[number] = file.fileno()
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)  # tiles lie in order
    return fds


class RangeSurvey:
    """A survey of tiles that are ranges, one after another as they are met."""

    def __init__(self, level: Level, tiles: TileMap) -> None:
        self._absent = tiles.absent
        self._heads = Heads(level)
        self._lengths = tiles.lengths.copy()
        self._kind_ids = np.zeros(len(tiles), dtype=np.uint16)
        self._unended = self._trimmed = 0
        self.first_read = FIRST_READ  # bytes of a head that are enough to know it, so far

    def take(
        self, index: int, length: int, head: bytes, end: bytes, read: Callable[[int, int], bytes]
    ) -> None:
        """A tile of ``length`` bytes: its first :attr:`first_read` bytes, its last two, and
        ``read(at, size)`` for more of it. Raises DamagedSlide."""
        kind_id = self._heads.find(head)
        if kind_id is None:
            kind_id, complete = self._learn(index, length, read)
            self.first_read = max(self.first_read, complete)
        if kind_id:
            self._kind_ids[index] = kind_id
        if end != EOI:
            true_length = _true_length(length, read)
            if true_length:
                self._lengths[index] = true_length
                self._trimmed += 1
            else:
                self._unended += 1

    def result(self) -> Survey:
        """When all tiles were met. Raises DamagedSlide where they make no level."""
        self._in_frame_order()
        return _judged(self._heads, self._kind_ids, self._lengths, self._unended, self._trimmed)

    def _in_frame_order(self) -> None:
        """Kinds numbered as their first tiles are: the same in whatever order these were met."""
        met = self._kind_ids[~self._absent]
        found, first = np.unique(met, return_index=True)
        order = found[np.argsort(first)]
        numbers = np.zeros(len(self._heads.kinds), dtype=np.uint16)
        numbers[order] = np.arange(len(order), dtype=np.uint16)
        self._heads.kinds = [self._heads.kinds[kind_id] for kind_id in order.tolist()]
        self._kind_ids = np.where(self._absent, np.uint16(0), numbers[self._kind_ids])

    def _learn(self, index: int, length: int, read: Callable[[int, int], bytes]) -> tuple[int, int]:
        for size in (HEAD_BYTES, MOST_HEAD_BYTES):
            try:
                learned = self._heads.learn(read(0, min(size, length)))
            except Part10Error:
                break
            if learned is not None:
                return learned
            if size >= length:
                break
        raise DamagedSlide(f"tile {index + 1} of level {self._heads.level.index} is damaged")


def _survey_ranges(level: Level, tiles: TileMap, fds: Mapping[int, int]) -> Survey:
    found = RangeSurvey(level, tiles)
    _take(found, tiles, fds, np.flatnonzero(~tiles.absent))
    return found.result()


def expected_survey(level: Level, sources: Sequence[SourceFile]) -> Survey | None:
    """What :func:`survey` will find if the other tiles are like a few of them; None where
    even these are no tiles that can be copied, or not alike."""
    tiles = level.tiles
    if not isinstance(tiles, TileMap) or tiles.absent.all():
        return None
    present = np.flatnonzero(~tiles.absent)
    few = present[np.unique(np.linspace(0, len(present) - 1, SAMPLE_TILES).astype(np.int64))]
    found = RangeSurvey(level, tiles)
    with ExitStack() as stack:
        try:
            _take(found, tiles, _opened(tiles, sources, stack), few)
            result = found.result()
        except DamagedSlide:
            return None
    alike = len(result.kinds) == 1 and np.array_equal(result.lengths, tiles.lengths)
    return result if alike and not result.why_not_copied else None


def _take(found: RangeSurvey, tiles: TileMap, fds: Mapping[int, int], wanted: NDArray[np.int64]) -> None:
    place, ahead = (-1, 0), b""  # where what was read ahead lies
    pread = os.pread
    for start in range(0, len(wanted), AT_ONCE):
        indexes = wanted[start : start + AT_ONCE]
        for index, offset, length, number in zip(
            indexes.tolist(), tiles.offsets[indexes].tolist(), tiles.lengths[indexes].tolist(),
            tiles.files[indexes].tolist(), strict=True,
        ):  # fmt: skip
            fd, size = fds[number], found.first_read
            head = ahead[:length] if place == (number, offset) else pread(fd, min(size, length), offset)
            ahead = pread(fd, 2 + size, offset + length - 2)  # the next tile mostly follows
            place, end, ahead = (number, offset + length), ahead[:2], ahead[2:]

            def read(at: int, size: int, fd: int = fd, offset: int = offset) -> bytes:
                return pread(fd, size, offset + at)

            found.take(index, length, head, end, read)


def _survey_gathered(level: Level, tiles: GatherMap, fds: Mapping[int, int]) -> Survey:
    """Heads and ends of tiles that are pieces."""
    kind_ids = np.zeros(len(tiles), dtype=np.uint16)
    heads = Heads(level)
    known: dict[tuple[int, int, bool], int] = {}
    unended = 0
    for index in np.flatnonzero(~tiles.absent).tolist():
        first, last = int(tiles.index[index]), int(tiles.index[index + 1]) - 1
        place = (int(tiles.offsets[first]), int(tiles.lengths[first]), bool(tiles.literal[first]))
        kind_id = known.get(place)
        if kind_id is None:
            data = b""
            for piece in range(first, last + 1):
                data += gathered_piece(tiles, piece, fds)
                if len(data) >= MOST_HEAD_BYTES:
                    break
            try:
                learned = heads.learn(data)
            except Part10Error:
                learned = None
            if learned is None:
                raise DamagedSlide(f"tile {index + 1} of level {level.index} is damaged")
            kind_id = learned[0]
            if place[2] and learned[1] <= place[1]:  # the whole head is in that literal
                known[place] = kind_id
        kind_ids[index] = kind_id
        end = b""
        while len(end) < len(EOI) and last >= first:  # the marker itself may lie in two pieces
            end = gathered_piece(tiles, last, fds) + end
            last -= 1
        unended += not end.endswith(EOI)
    return _judged(heads, kind_ids, tiles.tile_lengths(), unended, 0)


def gathered_piece(tiles: GatherMap, piece: int, fds: Mapping[int, int]) -> bytes:
    """One piece; ``fds`` are open files by the number of their source."""
    offset, length = int(tiles.offsets[piece]), int(tiles.lengths[piece])
    if tiles.literal[piece]:
        return tiles.literals[offset : offset + length]
    return os.pread(fds[int(tiles.files[piece])], length, offset)


def _true_length(length: int, read: Callable[[int, int], bytes]) -> int:
    """Bytes up to and including the end marker, with only fill after it; 0 without one."""
    size = min(TAIL_BYTES, length)
    tail = read(length - size, size).rstrip(b"\x00\xff")
    return length - size + len(tail) if tail.endswith(EOI) else 0


def _head_length(head: bytes) -> int | None:
    """Bytes before the entropy-coded data: through JPEG's SOS, up to JPEG 2000's first SOT."""
    if head[:2] == b"\xff\xd8":
        segments = jpeg_segments(head)
        if segments and segments[-1][0] == 0xDA:
            return segments[-1][2]
        return None
    position = 2
    while position + 4 <= len(head):
        marker = int.from_bytes(head[position : position + 2])
        if marker == 0xFF90:
            return position
        if marker < 0xFF00:
            break
        position += 2 + int.from_bytes(head[position + 2 : position + 4])
    return None


def _classify(head: bytes, level: Level) -> Kind:
    stream = sniff(head)
    prefix, skip = b"", 0
    findings: list[str] = []
    if stream.format == "jpeg":
        tables = level.tiles.jpeg_tables if isinstance(level.tiles, TileMap) else b""
        tables = b"" if stream.has_tables else tables
        adobe = _missing_adobe(stream, level, head, findings)
        if tables or adobe is not None:
            prefix, skip = splice_tables(tables, adobe), 2
            stream = sniff(prefix + head[skip:])
        if not stream.has_tables:
            findings.append("tiles without quantisation or Huffman tables")
    colours = photometric(stream)
    untransformed = stream.format == "jpeg2000" and not stream.mct and stream.components == 3
    if untransformed and (level.container_rgb is False or stream.subsampled):
        colours = "YBR_FULL_422" if stream.subsampled else "YBR_FULL"
    return Kind(stream, transfer_syntax(stream) or "", colours, prefix, skip, tuple(findings))


def _missing_adobe(stream: Codestream, level: Level, head: bytes, findings: list[str]) -> int | None:
    """The Adobe transform that must be added, so that the codestream says of its colours
    what the file says; None where it does, or cannot be made to."""
    says = {"RGB": True, "YBR_FULL_422": False}.get(photometric(stream))
    if says is None or level.container_rgb is None or says is level.container_rgb:
        return None
    if stream.adobe_transform is not None or b"JFIF\0" in head[:24]:
        findings.append("the file and its JPEG tiles disagree on the colours: the tiles were believed")
        return None
    return ADOBE_RGB if level.container_rgb else ADOBE_YCBCR


def _judged(
    heads: Heads, kind_ids: NDArray[np.uint16], lengths: NDArray[np.uint64], unended: int, trimmed: int
) -> Survey:
    level = heads.level
    kinds = tuple(heads.kinds)
    texts = dict.fromkeys(text for kind in kinds for text in kind.findings)
    findings = [f"level {level.index}: {text}" for text in texts]
    first = kinds[0]
    size = (level.tile_rows, level.tile_columns)
    if any((kind.codestream.rows, kind.codestream.columns) != size for kind in kinds):
        raise DamagedSlide(f"tiles of level {level.index} are not as large as the file says")
    if any(not kind.codestream.has_tables for kind in kinds if kind.codestream.format == "jpeg"):
        raise DamagedSlide(f"tiles of level {level.index} have no quantisation or Huffman tables")
    if unended and first.codestream.format == "jpeg":
        raise DamagedSlide(f"{unended} tiles of level {level.index} have no end marker")
    if unended:
        findings.append(f"level {level.index}: {unended} tiles have no end marker")
    if trimmed:
        findings.append(f"level {level.index}: {trimmed} tiles have fill after their end, not copied")
    return Survey(kinds, kind_ids, lengths, _why_not_copied(kinds, level), tuple(findings))


def _why_not_copied(kinds: tuple[Kind, ...], level: Level) -> str:
    if len({kind.shape for kind in kinds}) > 1:
        return "tiles differ in sampling or colour"
    first = kinds[0]
    stream = first.codestream
    if stream.components != level.pixel_type.samples_per_pixel:
        return "tiles have other samples than the file says"
    if first.photometric not in COPYABLE.get(first.transfer_syntax_uid, ()):
        named = f"{stream.format} {stream.sof:#x}" if stream.sof is not None else stream.format
        return f"no legal DICOM form for {named} of {first.photometric or 'unknown'} samples"
    return ""
