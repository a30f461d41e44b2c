# SPDX-License-Identifier: Apache-2.0
"""The container of Nikon ND2, versions 2 and 3: chunks, and a map of them at the end.

A chunk is magic 0x0ABECEDA, bytes of its name's field and of its data (uint32, uint32, uint64,
little-endian), name up to "!", data. The last 40 bytes are "ND2 CHUNK MAP SIGNATURE 0000001!" and
the position of the map, a chunk whose data is: name up to "!", position, bytes (uint64), again and
again, until that signature. A frame, "ImageDataSeq|n!", is 8 bytes of time and then the pixels, row
by row, the components of all channels side by side, rows padded.

Sources: the nd2 package's reader (BSD); real files.
"""

import os
import struct
from dataclasses import dataclass

from converters.errors import DamagedSlide

MAGIC = 0x0ABECEDA
SIGNATURE = b"ND2 FILE SIGNATURE CHUNK NAME01!"
MAP_SIGNATURE = b"ND2 CHUNK MAP SIGNATURE 0000001!"
MAP_NAME = b"ND2 FILEMAP SIGNATURE NAME 0001!"
HEADER = struct.Struct("<IIQ")
PLACE = struct.Struct("<QQ")
FRAME = b"ImageDataSeq|"
MAX_CHUNKS = 2_000_000
MAX_NAME = 64 * 1024
MAX_CHUNK_BYTES = 64 * 1024**2  # of those that are no frames


def starts_as_nd2(head: bytes) -> bool:
    """Whether the first bytes are those of a file with a chunk map."""
    return head[:4] == MAGIC.to_bytes(4, "little") and head[16:48] == SIGNATURE


@dataclass(frozen=True)
class Chunks:
    """Where the chunks of a file begin, by their names with "!"."""

    descriptor: int
    size_bytes: int
    positions: dict[bytes, int]

    def place(self, name: bytes, what: str) -> tuple[int, int]:
        """(Position, bytes) of a chunk's data. Raises DamagedSlide."""
        position = self.positions[name]
        magic, name_bytes, length = HEADER.unpack(self.read(position, HEADER.size, what))
        start = position + HEADER.size + name_bytes
        if magic != MAGIC or name_bytes > MAX_NAME:
            raise DamagedSlide(f"{what} is not where the file says")
        if self.read(position + HEADER.size, min(name_bytes, len(name)), what) != name:
            raise DamagedSlide(f"{what} is not where the file says")
        if start + length > self.size_bytes:
            raise DamagedSlide(f"{what} lies beyond the end of the file")
        return start, length

    def data(self, name: bytes, what: str) -> bytes:
        """A chunk's data, b"" where there is none of that name."""
        if name not in self.positions:
            return b""
        start, length = self.place(name, what)
        if length > MAX_CHUNK_BYTES:
            raise DamagedSlide(f"{what} is larger than {MAX_CHUNK_BYTES // 1024**2} MiB")
        return self.read(start, length, what)

    def read(self, position: int, length: int, what: str) -> bytes:
        if position + length > self.size_bytes:
            raise DamagedSlide(f"{what} lies beyond the end of the file")
        data = os.pread(self.descriptor, length, position)
        if len(data) != length:
            raise DamagedSlide(f"{what} cannot be read to its end")
        return data

    def read_into(self, target: memoryview, position: int, what: str) -> None:
        """Fill ``target`` from ``position`` on. Raises DamagedSlide."""
        if position + len(target) > self.size_bytes:
            raise DamagedSlide(f"{what} lies beyond the end of the file")
        if os.preadv(self.descriptor, [target], position) != len(target):
            raise DamagedSlide(f"{what} cannot be read to its end")

    @property
    def frames(self) -> dict[int, bytes]:
        """Number of a frame -> its chunk's name."""
        found = {}
        for name in self.positions:
            number = name[len(FRAME) : -1]
            if name.startswith(FRAME) and number.isdigit() and len(number) < 10:
                found[int(number)] = name
        return found


def read_chunks(descriptor: int) -> Chunks:
    """Raises DamagedSlide where the map is missing or damaged."""
    what = "the map of chunks"
    file = Chunks(descriptor, os.fstat(descriptor).st_size, {})
    end = file.read(max(file.size_bytes - 40, 0), min(40, file.size_bytes), what)
    if end[:32] != MAP_SIGNATURE:
        raise DamagedSlide(f"{what} is missing: the file was never finished, or ends too early")
    position = int.from_bytes(end[32:], "little")
    magic, name_bytes, length = HEADER.unpack(file.read(position, HEADER.size, what))
    start = position + HEADER.size + name_bytes
    if magic != MAGIC or name_bytes > MAX_NAME:
        raise DamagedSlide(f"{what} is not where the file says")
    if file.read(position + HEADER.size, min(name_bytes, 32), what) != MAP_NAME:
        raise DamagedSlide(f"{what} is not where the file says")
    data = file.read(start, length, what)
    positions: dict[bytes, int] = {}
    at = 0
    while True:
        after = data.find(b"!", at) + 1
        name = data[at:after]
        if name == MAP_SIGNATURE:
            break
        if not after or after + PLACE.size > len(data) or len(positions) == MAX_CHUNKS:
            raise DamagedSlide(f"{what} is damaged")
        positions[name], _ = PLACE.unpack_from(data, after)
        at = after + PLACE.size
    return Chunks(descriptor, file.size_bytes, positions)
