# SPDX-License-Identifier: Apache-2.0
"""The first bits of a JPEG XL codestream or container (ISO/IEC 18181-1 and -2).

Only what tells the transfer syntaxes apart: the size, the colour count, whether colours
are XYB (lossy) and whether the container rebuilds a JPEG. The head does not prove that
a codestream is lossless; ``reversible`` is None unless it is certainly not.
"""

import struct
from typing import TypedDict

CONTAINER_SIGNATURE = b"\x00\x00\x00\x0cJXL \r\n\x87\n"


class JpegXlHeader(TypedDict, total=False):
    """The fields of ``Codestream`` that the head fills."""

    format: str
    rows: int
    columns: int
    components: int
    bits: int
    reversible: bool | None
    from_jpeg: bool
    head_complete: bool


class _Bits:
    """Least significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:64], "little")
        self._left = min(len(data), 64) * 8

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError("JPEG XL: the head ends early")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return value

    def u32(self, *choices: tuple[int, int]) -> int:
        """U32 with four (offset, bits) choices."""
        offset, bits = choices[self.take(2)]
        return offset + self.take(bits)


def sniff_jpeg_xl(head: bytes) -> JpegXlHeader:
    """SizeHeader and ImageMetadata; for a container, of its first codestream box."""
    found = JpegXlHeader(format="jpegxl", reversible=None)
    if head[:2] != b"\xff\x0a":
        position = 12
        stream = b""
        while position + 8 <= len(head):
            length, name = struct.unpack_from(">I4s", head, position)
            if name == b"jbrd":
                found["from_jpeg"] = True
            elif name in (b"jxlc", b"jxlp") and not stream:
                start = position + (8 if name == b"jxlc" else 12)
                stream = head[start : start + 64]
            if length < 8:
                break
            position += length
        if stream[:2] != b"\xff\x0a":
            return found
        head = stream
    bits = _Bits(head[2:])
    rows, columns = _size(bits)
    found["rows"], found["columns"] = rows, columns
    _metadata(bits, found)
    found["head_complete"] = True
    return found


_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _size(bits: _Bits) -> tuple[int, int]:
    """SizeHeader: (rows, columns)."""
    small = bits.take(1)
    lengths = ((1, 9), (1, 13), (1, 18), (1, 30))
    rows = (bits.take(5) + 1) * 8 if small else bits.u32(*lengths)
    ratio = bits.take(3)
    if ratio:
        numerator, denominator = _RATIOS[ratio - 1]
        return rows, rows * numerator // denominator
    return rows, (bits.take(5) + 1) * 8 if small else bits.u32(*lengths)


def _metadata(bits: _Bits, found: JpegXlHeader) -> None:
    """ImageMetadata up to the colour encoding."""
    if bits.take(1):  # all_default: 8 bits, three colours, XYB
        found["bits"], found["components"], found["reversible"] = 8, 3, False
        return
    if bits.take(1):  # extra_fields
        bits.take(3)  # orientation
        if bits.take(1) or bits.take(1) or bits.take(1):  # intrinsic size, preview, animation
            return
    if bits.take(1):  # floating point samples
        found["bits"] = bits.u32((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        found["bits"] = bits.u32((8, 0), (10, 0), (12, 0), (1, 6))
    bits.take(1)  # modular_16bit_buffers
    if bits.u32((0, 0), (1, 0), (2, 4), (1, 12)):  # extra channels
        return
    if bits.take(1):  # xyb_encoded
        found["reversible"] = False
    if bits.take(1):  # colour encoding all_default: sRGB
        found["components"] = 3
        return
    if bits.take(1):  # ICC profile
        found["components"] = {0: 3, 1: 1}.get(_enum(bits), 0)
        return
    found["components"] = {0: 3, 1: 1, 2: 3}.get(_enum(bits), 0)


def _enum(bits: _Bits) -> int:
    return bits.u32((0, 0), (1, 0), (2, 4), (18, 6))
