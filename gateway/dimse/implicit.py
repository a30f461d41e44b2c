# SPDX-License-Identifier: Apache-2.0
"""Explicit VR Little Endian to Implicit VR Little Endian, as the bytes go by (PS3.5 7.1).

For receivers that take the default transfer syntax only. Values stay as they are; sequences
and items get undefined lengths, since theirs would have to be known before they are read.
"""

import struct
from collections.abc import Iterable, Iterator

from archive.part10.errors import Malformed, Truncated
from archive.part10.vr import LONG_MASK, SHORT_MASK

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_DEEPEST = 64
_GATHER_BYTES = 64 * 1024


class _Source:
    """Pieces of bytes, read by number; ``position`` counts what was read."""

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self.position = 0

    def some(self, most: int) -> memoryview:
        """What is at hand, up to ``most`` bytes; empty at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return self._rest
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:most], self._rest[most:]
        self.position += len(taken)
        return taken

    def exactly(self, number: int, *, or_none: bool = False) -> bytes:
        """``number`` bytes; with ``or_none`` b"" at the very end. Raises Truncated."""
        taken = bytes(self.some(number))
        if or_none and not taken:
            return taken
        while len(taken) < number:
            more = self.some(number - len(taken))
            if not more:
                raise Truncated("the data set ends in an element")
            taken += more
        return taken


def implicit_chunks(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """A data set (without group 2) with native pixel data. Raises Truncated, Malformed, also
    for what cannot be re-encoded without a dictionary (UN of undefined length)."""
    source = _Source(chunks)
    out = bytearray()
    # (what ends it, where it ends, None for by a delimiter)
    open_: list[tuple[int, int | None]] = []
    while True:
        while open_ and open_[-1][1] is not None and source.position >= open_[-1][1]:
            ending, end = open_.pop()
            if source.position != end:
                raise Malformed("an element is longer than what holds it")
            out += struct.pack("<HHI", 0xFFFE, ending, 0)
        head = source.exactly(8, or_none=True)
        if not head:
            break
        group, element = struct.unpack_from("<HH", head)
        if group == 0xFFFE:
            (length,) = struct.unpack_from("<I", head, 4)
            if element == _ITEM:
                _open(open_, _ITEM_END, length, source.position)
                out += struct.pack("<HHI", group, element, _UNDEFINED)
            elif element in (_ITEM_END, _SEQUENCE_END) and open_ and open_[-1] == (element, None):
                open_.pop()
                out += head
            else:
                raise Malformed("a delimiter without a beginning")
        else:
            vr = head[4:6]
            length = _length(source, head)
            if vr == b"SQ":
                _open(open_, _SEQUENCE_END, length, source.position)
                out += head[:4] + struct.pack("<I", _UNDEFINED)
            elif length == _UNDEFINED:
                raise Malformed(f"a value of VR {vr.decode('latin-1')} and undefined length")
            else:
                out += head[:4] + struct.pack("<I", length)
                while length:
                    value = source.some(length)
                    if not value:
                        raise Truncated("the data set ends in a value")
                    length -= len(value)
                    if len(value) < _GATHER_BYTES:
                        out += value
                    else:
                        yield bytes(out)
                        out.clear()
                        yield value
        if len(out) >= _GATHER_BYTES:
            yield bytes(out)
            out.clear()
    if open_:
        raise Truncated("the data set ends in a sequence")
    if out:
        yield bytes(out)


def _length(source: _Source, head: bytes) -> int:
    vr = head[4:6]
    if vr in LONG_MASK:
        return int.from_bytes(source.exactly(4), "little")
    if vr in SHORT_MASK:
        return int.from_bytes(head[6:8], "little")
    raise Malformed(f"VR {vr.decode('latin-1')!r} is not known")


def _open(open_: list[tuple[int, int | None]], ending: int, length: int, position: int) -> None:
    if len(open_) >= _DEEPEST:
        raise Malformed(f"sequences nested more than {_DEEPEST // 2} deep")
    open_.append((ending, None if length == _UNDEFINED else position + length))
