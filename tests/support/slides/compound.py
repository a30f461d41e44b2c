# SPDX-License-Identifier: Apache-2.0
"""A writer of OLE2 compound files ([MS-CFB]), small streams in the mini stream."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

END, FREE, IN_FAT, NOTHING = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF
MINI, CUTOFF = 64, 4096
Tree = Mapping[str, "bytes | Tree"]


def write_compound_file(path: Path, tree: Tree, *, sector: int = 512, scattered: bool = False) -> Path:
    """``tree`` maps names to a stream's bytes or to a storage. ``scattered`` lays no two
    sectors of a stream side by side."""
    path.write_bytes(_Writer(sector, scattered).file(tree))
    return path


@dataclass
class _Entry:
    name: str
    kind: int
    data: bytes = b""
    left: int = NOTHING
    right: int = NOTHING
    child: int = NOTHING
    start: int = END


@dataclass
class _Writer:
    sector: int
    scattered: bool
    entries: list[_Entry] = field(default_factory=list)
    content: list[bytes] = field(default_factory=list)
    fat: list[int] = field(default_factory=list)

    def file(self, tree: Tree) -> bytes:
        self._enter("Root Entry", tree)
        self.entries[0].kind = 5
        streams = [entry for entry in self.entries if entry.kind == 2]
        small = [entry for entry in streams if len(entry.data) < CUTOFF]
        mini, mini_fat = self._chains([entry.data for entry in small], MINI)
        for entry, start in zip(small, self._starts, strict=True):
            entry.start = start
        large = [entry for entry in streams if len(entry.data) >= CUTOFF]
        self.content, self.fat = self._chains([entry.data for entry in large], self.sector)
        for entry, start in zip(large, self._starts, strict=True):
            entry.start = start
        self.entries[0].data = b"".join(mini)
        self.entries[0].start = self._append(self.entries[0].data)
        table = b"".join(struct.pack("<I", value) for value in mini_fat)
        mini_start = self._append(table, b"\xff")
        directory_start = self._append(self._directory())
        return self._whole(mini_start, -(-len(table) // self.sector), directory_start)

    def _enter(self, name: str, value: "bytes | Tree") -> int:
        number = len(self.entries)
        self.entries.append(_Entry(name, 2 if isinstance(value, bytes) else 1))
        if isinstance(value, bytes):
            self.entries[number].data = value
        else:
            children = [self._enter(key, inner) for key, inner in value.items()]
            children.sort(key=lambda at: (len(self.entries[at].name), self.entries[at].name.upper()))
            self.entries[number].child = self._balanced(children)
        return number

    def _balanced(self, numbers: list[int]) -> int:
        if not numbers:
            return NOTHING
        middle = len(numbers) // 2
        entry = self.entries[numbers[middle]]
        entry.left, entry.right = self._balanced(numbers[:middle]), self._balanced(numbers[middle + 1 :])
        return numbers[middle]

    def _chains(self, streams: list[bytes], unit: int) -> tuple[list[bytes], list[int]]:
        """Sectors and their FAT; ``_starts`` then holds each stream's first."""
        parts = [[data[at : at + unit] for at in range(0, len(data), unit)] for data in streams]
        order = [(stream, part) for stream, whole in enumerate(parts) for part in range(len(whole))]
        if self.scattered:
            order = order[::2] + order[1::2]
        places = {key: number for number, key in enumerate(order)}
        sectors = [parts[stream][part].ljust(unit, b"\0") for stream, part in order]
        table = [places.get((stream, part + 1), END) for stream, part in order]
        self._starts = [places.get((stream, 0), END) for stream in range(len(parts))]
        return sectors, table

    def _append(self, data: bytes, fill: bytes = b"\0") -> int:
        start = len(self.content)
        parts = [data[at : at + self.sector] for at in range(0, len(data), self.sector)]
        self.content += [part.ljust(self.sector, fill) for part in parts]
        self.fat += [start + n + 1 if n < len(parts) - 1 else END for n in range(len(parts))]
        return start if parts else END

    def _directory(self) -> bytes:
        records = []
        for entry in self.entries:
            name = entry.name.encode("utf-16-le") + b"\0\0"
            links = struct.pack("<HBBIII", len(name), entry.kind, 1, entry.left, entry.right, entry.child)
            size = struct.pack("<IQ", entry.start, len(entry.data))
            records.append(name.ljust(64, b"\0") + links + bytes(36) + size)
        empty = bytes(64) + struct.pack("<HBBIII", 0, 0, 0, NOTHING, NOTHING, NOTHING) + bytes(48)
        records += [empty] * (-len(records) % (self.sector // 128))
        return b"".join(records)

    def _whole(self, mini_start: int, mini_count: int, directory_start: int) -> bytes:
        per_sector = self.sector // 4
        first = len(self.fat)
        count = extra = 0
        while count * per_sector < first + count + extra:
            count += 1
            extra = max(0, -(-(count - 109) // (per_sector - 1)))
        self.fat += [IN_FAT] * count + [0xFFFFFFFC] * extra
        table = b"".join(struct.pack("<I", value) for value in self.fat)
        table = table.ljust(count * self.sector, b"\xff")
        numbers = [*range(first, first + count)]
        lists = b""
        for n in range(extra):
            part = numbers[109 + (per_sector - 1) * n :][: per_sector - 1]
            following = first + count + n + 1 if n < extra - 1 else END
            lists += struct.pack(f"<{per_sector}I", *part, *[FREE] * (per_sector - 1 - len(part)), following)
        version = 3 if self.sector == 512 else 4
        header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
        header += struct.pack("<HHHHH", 0x3E, version, 0xFFFE, self.sector.bit_length() - 1, 6) + bytes(6)
        directories = 0 if version == 3 else -(-len(self.entries) * 128 // self.sector)
        header += struct.pack("<IIIIII", directories, count, directory_start, 0, CUTOFF, mini_start)
        header += struct.pack("<III", mini_count, first + count if extra else END, extra)
        header += struct.pack("<109I", *numbers[:109], *[FREE] * (109 - min(109, count)))
        return header.ljust(self.sector, b"\0") + b"".join(self.content) + table + lists
