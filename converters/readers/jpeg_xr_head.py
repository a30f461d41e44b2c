# SPDX-License-Identifier: Apache-2.0
"""What the head of a JPEG XR picture says: its size, and whether it was compressed losslessly.

The container is a directory like TIFF's (ITU-T T.832 Annex A): tags 0xBC80 width, 0xBC81 height,
0xBCC0 position of the codestream. Of the codestream (8.3, 8.4) these bits matter: whether samples
are scaled before the transform (never where it is lossless), the sub-bands left out, and the
first quantisation parameter, 0 where nothing is divided.
"""

SIGNATURE = b"WMPHOTO\0"
_COLUMNS, _ROWS, _POSITION = 0xBC80, 0xBC81, 0xBCC0
_YONLY, _YUV444 = 0, 3
_BIT_DEPTHS = {1: False, 2: True, 3: True}
"""Bit depth (8, 16, signed 16) -> whether a shift is stated."""


def _tags(head: bytes) -> dict[int, int]:
    """Tags of one number; empty for what is no JPEG XR."""
    if head[:3] != b"II\xbc":
        return {}
    at = int.from_bytes(head[4:8], "little")
    found = {}
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(head[at : at + 2], "little"), 12):
        tag, kind = (int.from_bytes(head[n : n + 2], "little") for n in (entry, entry + 2))
        width = {1: 1, 3: 2, 4: 4}.get(kind, 0)
        found[tag] = int.from_bytes(head[entry + 8 : entry + 8 + width], "little")
    return found


def size(head: bytes) -> tuple[int, int]:
    """(rows, columns), 0 where the head does not say."""
    tags = _tags(head)
    return tags.get(_ROWS, 0), tags.get(_COLUMNS, 0)


def is_lossless(head: bytes) -> bool:
    """False where it is not certain. Nothing is decoded."""
    start = _tags(head).get(_POSITION, 0)
    header = head[start : start + 48]
    if len(header) < 48 or header[:8] != SIGNATURE:
        return False
    tiling, short, windowing, trimmed = (
        bool(header[byte] & bit) for byte, bit in ((9, 0x80), (10, 0x80), (10, 0x20), (10, 0x10))
    )
    alpha = header[10] & 0x01
    if tiling or windowing or trimmed or alpha:  # rare, and the plane begins elsewhere
        return False
    plane = int.from_bytes(header[12 + (4 if short else 8) :], "big")
    bits = _Bits(plane, 8 * len(header[12 + (4 if short else 8) :]))
    colours, scaled, left_out = bits.take(3), bits.take(1), bits.take(4)
    shifted = _BIT_DEPTHS.get(header[11] & 0x0F)
    if scaled or left_out or colours not in (_YONLY, _YUV444) or shifted is None:
        return False
    bits.take((8 if colours == _YUV444 else 0) + (8 if shifted else 0))
    uniform = bits.take(1)
    if colours == _YUV444:
        bits.take(2)
    return bool(uniform) and bits.take(8) == 0


class _Bits:
    """Bits of a number, the highest first."""

    def __init__(self, number: int, count: int) -> None:
        self._number, self._left = number, count

    def take(self, count: int) -> int:
        self._left -= count
        return self._number >> self._left & ((1 << count) - 1)
