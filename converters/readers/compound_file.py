# SPDX-License-Identifier: Apache-2.0
"""OLE2 compound files: storages (folders) and streams (files) in sectors that a file
allocation table (FAT) chains.

Streams below 4096 bytes lie in the mini stream, in sectors of 64 bytes chained by a FAT of
their own. What is asked here is where in the file a stream lies, for 100,000 streams at
once: runs of neighbouring sectors are found with numpy, and most streams are one run.
(olefile answers the same, but its time grows with the square of sectors and streams.)

Source: [MS-CFB], Compound File Binary File Format.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.slide import GatherMap, Offsets, TileMap

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
HEADER = struct.Struct("<8s16xHHHHH6xIIIIIIIII")
END_OF_CHAIN, NO_STREAM = 0xFFFFFFFE, 0xFFFFFFFF
MINI_SECTOR = 64
MAX_ENTRIES = 4_500_000
STORAGE, STREAM, ROOT = 1, 2, 5
ENTRY = np.dtype(
    [
        ("name", "V64"), ("name_bytes", "<u2"), ("kind", "u1"), ("colour", "u1"), ("left", "<u4"),
        ("right", "<u4"), ("child", "<u4"), ("other", "V36"), ("start", "<u4"), ("size", "<u8"),
    ]
)  # fmt: skip
Piece = tuple[int, int]
"""(offset, length) in the file."""


class CompoundFile:
    """Where the streams of ``path`` lie. Raises DamagedSlide for what contradicts itself."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path, self.size_bytes = path, size_bytes
        with path.open("rb") as file:
            head = file.read(512)
            if len(head) < 512 or not head.startswith(MAGIC):
                raise DamagedSlide("the compound file ends within its header")
            (
                _, _, version, order, shift, mini_shift, _, fat_count, directory, _, self.cutoff,
                mini_fat, mini_fat_count, difat, difat_count,
            ) = HEADER.unpack_from(head)  # fmt: skip
            if (version, shift) not in ((3, 9), (4, 12)) or order != 0xFFFE or mini_shift != 6:
                raise DamagedSlide("the compound file's header is none")
            self.sector = 1 << shift
            self.sectors = max(0, -(-size_bytes // self.sector) - 1)
            numbers = self._fat_sectors(file.fileno(), head, fat_count, difat, difat_count)
            self.fat = _Chains(self._table(file.fileno(), numbers))
            runs = self._whole_chain(mini_fat, mini_fat_count)
            self.mini = _Chains(self._table(file.fileno(), _expanded(runs)))
            entries = b"".join(self._read(file.fileno(), *run) for run in self._whole_chain(directory))
        count = min(len(entries) // ENTRY.itemsize, MAX_ENTRIES + 1)
        self.entries = np.frombuffer(entries, dtype=ENTRY, count=count)
        if not count or count > MAX_ENTRIES or int(self.entries["kind"][0]) != ROOT:
            raise DamagedSlide("the compound file has no usable directory")
        self._links = np.stack([self.entries["left"], self.entries["right"]], axis=1).tolist()
        self.sizes = self.entries["size"].astype(np.uint64)
        if version == 3:
            self.sizes &= np.uint64(0xFFFFFFFF)  # writers left rubbish in the upper half
        self._mini_stream = _expanded(self._whole_chain(int(self.entries["start"][0])))

    def _fat_sectors(
        self, descriptor: int, head: bytes, count: int, difat: int, difat_count: int
    ) -> NDArray[np.int64]:
        if count > self.sectors or difat_count > self.sectors:
            raise DamagedSlide("the compound file's table is larger than the file")
        numbers = [np.frombuffer(head, "<u4", 109, 76)]
        for _ in range(difat_count):
            table = np.frombuffer(self._read(descriptor, difat, 1), "<u4")
            numbers.append(table[:-1])
            difat = int(table[-1])
        return np.concatenate(numbers)[:count].astype(np.int64)

    def _table(self, descriptor: int, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        parts = [self._read(descriptor, int(start), int(n)) for start, n in _runs(numbers)]
        return np.frombuffer(b"".join(parts), "<u4").astype(np.int64)

    def _read(self, descriptor: int, first: int, count: int) -> bytes:
        if first + count > self.sectors:
            raise DamagedSlide("a sector of the compound file lies beyond the end of the file")
        data = os.pread(descriptor, count * self.sector, (first + 1) * self.sector)
        return data.ljust(count * self.sector, b"\0")  # the last sector may be cut short

    def _whole_chain(self, start: int, most: int | None = None) -> list[tuple[int, int]]:
        """Runs (first sector, sectors) until the chain ends."""
        runs, left = [], self.sectors if most is None else most
        while start != END_OF_CHAIN and left > 0:
            length = self.fat.run(start, left)
            runs.append((start, length))
            left -= length
            start = self.fat.after(start + length - 1)
        if start not in (END_OF_CHAIN, NO_STREAM) and most is None:
            raise DamagedSlide("a chain of the compound file never ends")
        return runs

    def children(self, storage: int = 0) -> dict[str, int]:
        """Names in a storage (0 is the root), in the order of the directory, to entry numbers."""
        return {self._name(number): number for number in sorted(self._tree(storage))}

    def _tree(self, storage: int) -> Iterator[int]:
        pending, seen = [int(self.entries["child"][storage])], 0
        while pending:
            number = pending.pop()
            if number == NO_STREAM:
                continue
            seen += 1
            if number >= len(self.entries) or seen > len(self.entries):
                raise DamagedSlide("the compound file's directory contradicts itself")
            yield number
            pending.extend(self._links[number])

    def _name(self, number: int) -> str:
        entry = self.entries[number]
        length = max(0, min(int(entry["name_bytes"]) - 2, 62))
        return bytes(entry["name"])[:length].decode("utf-16-le", "replace")

    def is_stream(self, number: int) -> bool:
        return int(self.entries["kind"][number]) == STREAM

    def is_storage(self, number: int) -> bool:
        return int(self.entries["kind"][number]) == STORAGE

    def read(self, number: int, most: int) -> bytes:
        """A stream's bytes. Raises DamagedSlide above ``most`` of them."""
        if int(self.sizes[number]) > most:
            raise DamagedSlide("a stream of the compound file is too long")
        with self.path.open("rb") as file:
            data = b"".join(os.pread(file.fileno(), size, offset) for offset, size in self.pieces(number))
        if len(data) != int(self.sizes[number]):
            raise DamagedSlide("a stream of the compound file ends too early")
        return data

    def pieces(self, number: int) -> list[Piece]:
        """Where a stream lies, in order and joined where neighbours are."""
        size, start = int(self.sizes[number]), int(self.entries["start"][number])
        if size > self.size_bytes:
            raise DamagedSlide("a stream of the compound file is longer than the file")
        if size == 0:
            return []
        in_mini = size < self.cutoff
        chains, unit = (self.mini, MINI_SECTOR) if in_mini else (self.fat, self.sector)
        found: list[list[int]] = []
        left = -(-size // unit)
        while left:
            length = chains.run(start, left)
            for offset, span in self._spans(start, length) if in_mini else [self._span(start, length)]:
                if found and sum(found[-1]) == offset:
                    found[-1][1] += span
                else:
                    found.append([offset, span])
            left -= length
            start = chains.after(start + length - 1) if left else start
        found[-1][1] -= -size % unit
        if any(offset + span > self.size_bytes for offset, span in found):
            raise DamagedSlide("a stream of the compound file lies beyond the end of the file")
        return [(offset, span) for offset, span in found]

    def _span(self, first: int, count: int) -> Piece:
        return (first + 1) * self.sector, count * self.sector

    def _spans(self, first: int, count: int) -> Iterator[Piece]:
        """Mini sectors, through the sectors of the mini stream."""
        for mini in range(first, first + count):
            at, within = divmod(mini * MINI_SECTOR, self.sector)
            if at >= len(self._mini_stream):
                raise DamagedSlide("a stream of the compound file lies beyond the mini stream")
            yield (int(self._mini_stream[at]) + 1) * self.sector + within, MINI_SECTOR

    def tiles(self, numbers: Sequence[int], count: int, places: Sequence[int]) -> TileMap | GatherMap:
        """Stream ``numbers[n]`` as tile ``places[n]`` of ``count``, the others absent."""
        offsets, lengths = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
        pieces: dict[int, list[Piece]] = {}
        chosen, where = np.asarray(numbers, np.int64), np.asarray(places, np.int64)
        sizes, starts = self.sizes[chosen], self.entries["start"][chosen].astype(np.int64)
        plain = (sizes >= self.cutoff) & (sizes <= self.size_bytes)
        plain &= self.fat.unbroken(starts, -(-sizes.astype(np.int64) // self.sector))
        begins = (starts + 1).astype(np.uint64) * np.uint64(self.sector)
        plain &= begins + np.where(plain, sizes, 0).astype(np.uint64) <= self.size_bytes
        offsets[where[plain]], lengths[where[plain]] = begins[plain], sizes[plain]
        for number, place in zip(chosen[~plain].tolist(), where[~plain].tolist(), strict=True):
            pieces[place] = self.pieces(number)
        if all(len(parts) <= 1 for parts in pieces.values()):
            for place, parts in pieces.items():
                offsets[place], lengths[place] = parts[0] if parts else (0, 0)
            return TileMap(offsets, lengths)
        return _gathered(offsets, lengths, pieces)


@dataclass(frozen=True, eq=False)
class _Chains:
    """A FAT, with what makes runs quick to find."""

    table: NDArray[np.int64]

    def __post_init__(self) -> None:
        jumps = np.flatnonzero(self.table != np.arange(1, len(self.table) + 1))
        object.__setattr__(self, "_jumps", jumps)

    def run(self, start: int, most: int) -> int:
        """How many of the next ``most`` sectors from ``start`` on are neighbours."""
        if not 0 <= start < len(self.table):
            raise DamagedSlide("a chain of the compound file breaks off")
        jumps: NDArray[np.int64] = self._jumps  # type: ignore[attr-defined]
        at = int(np.searchsorted(jumps, start))
        end = int(jumps[at]) if at < len(jumps) else len(self.table) - 1
        return min(most, end - start + 1)

    def after(self, sector: int) -> int:
        return int(self.table[sector])

    def unbroken(self, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which chains are ``counts`` neighbours from ``starts`` on."""
        if not len(self.table):
            return np.zeros(len(starts), np.bool_)
        jumps: NDArray[np.int64] = np.append(self._jumps, len(self.table) - 1)  # type: ignore[attr-defined]
        ends = jumps[np.minimum(np.searchsorted(jumps, starts), len(jumps) - 1)]
        result: NDArray[np.bool_] = (starts < len(self.table)) & (ends - starts + 1 >= counts)
        return result


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    for part in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
        if len(part):
            yield int(part[0]), len(part)


def _expanded(runs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    parts = [np.arange(start, start + count, dtype=np.int64) for start, count in runs]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _gathered(offsets: Offsets, lengths: Offsets, pieces: dict[int, list[Piece]]) -> GatherMap:
    lists = [
        pieces.get(place, [(int(offset), int(length))] if length else [])
        for place, (offset, length) in enumerate(zip(offsets, lengths, strict=True))
    ]
    index = np.cumsum([0, *map(len, lists)]).astype(np.uint64)
    flat = np.array([piece for parts in lists for piece in parts], np.uint64).reshape(-1, 2)
    return GatherMap(index, flat[:, 0].copy(), flat[:, 1].copy(), np.zeros(len(flat), np.bool_), b"")
