# SPDX-License-Identifier: Apache-2.0
"""The main header of a JPEG 2000 codestream (ITU-T T.800 Annex A; HTJ2K: T.814)."""

import struct
from typing import TypedDict

from archive.part10.errors import Malformed

JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"

_SIZ, _CAP, _COD, _TLM, _SOT = 0xFF51, 0xFF50, 0xFF52, 0xFF55, 0xFF90
_PCAP_15 = 1 << 17  # bit 15 counted from the most significant, 1-based (T.814 A.3)
_RPCL = 2


class MainHeader(TypedDict, total=False):
    """The fields of ``Codestream`` that a main header fills."""

    format: str
    rows: int
    columns: int
    components: int
    bits: int
    sampling: tuple[tuple[int, int], ...]
    mct: bool
    reversible: bool | None
    signed: bool
    rpcl: bool
    head_complete: bool


def sniff_jpeg2000(head: bytes) -> MainHeader:
    """SIZ, CAP and COD of a codestream, or of the one inside JP2 boxes, whose format is
    then reported as ``unknown``: a frame holds a bare codestream (PS3.5 A.4.4)."""
    boxed = head[:12] == JP2_SIGNATURE
    if boxed:
        start = head.find(b"jp2c\xff\x4f\xff\x51")
        if start < 0:
            return MainHeader(format="unknown")
        head = head[start + 4 :]
    found = MainHeader(format="jpeg2000", reversible=None)
    in_order = tile_part_lengths = False
    position = 2
    while position + 4 <= len(head):
        marker, length = struct.unpack_from(">HH", head, position)
        if marker == _SOT:
            found["head_complete"] = True
            break
        end = position + 2 + length
        if length < 2 or marker < 0xFF00:
            raise Malformed("JPEG 2000: no marker where one is due")
        if end > len(head):
            break
        body = head[position + 4 : end]
        if marker == _SIZ:
            _read_size(body, found)
        elif marker == _CAP and struct.unpack_from(">I", body)[0] & _PCAP_15:
            found["format"] = "htj2k"
        elif marker == _COD:
            _, progression, _, mct = struct.unpack_from(">BBHB", body)
            found["mct"] = mct == 1
            found["reversible"] = body[9] == 1
            in_order = progression == _RPCL
        elif marker == _TLM:
            tile_part_lengths = True
        position = end
    found["rpcl"] = in_order and tile_part_lengths
    if boxed:
        found["format"] = "unknown"
    return found


def _read_size(body: bytes, found: MainHeader) -> None:
    """SIZ (T.800 A.5.1)."""
    _, xsize, ysize, xoffset, yoffset = struct.unpack_from(">HIIII", body)
    (components,) = struct.unpack_from(">H", body, 34)
    if not 1 <= components <= 16384 or len(body) < 36 + 3 * components:
        raise Malformed("JPEG 2000: SIZ is too short")
    if xsize <= xoffset or ysize <= yoffset:
        raise Malformed("JPEG 2000: an image without pixels")
    described = [struct.unpack_from("BBB", body, 36 + 3 * n) for n in range(components)]
    found["columns"], found["rows"], found["components"] = xsize - xoffset, ysize - yoffset, components
    found["bits"] = (described[0][0] & 0x7F) + 1
    found["signed"] = bool(described[0][0] & 0x80)
    widest = max(x for _, x, _ in described)
    highest = max(y for _, _, y in described)
    if min(min(x, y) for _, x, y in described) < 1:
        raise Malformed("JPEG 2000: a sub-sampling of 0")
    found["sampling"] = tuple((widest // x, highest // y) for _, x, y in described)
