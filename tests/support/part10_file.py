# SPDX-License-Identifier: Apache-2.0
"""Part 10 bytes of any transfer syntax, with frames, fragments and offset tables as wanted.

pydicom knows no JPEG XL, and writes no broken things.
"""

import struct
from collections.abc import Sequence

from pydicom.dataset import Dataset

from archive.part10.encode import encode_dataset
from archive.part10.meta import encode_meta

NATIVE = frozenset({"1.2.840.10008.1.2.1"})
_ITEM = b"\xfe\xff\x00\xe0"
_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One element with a length of four bytes."""
    return struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def item(value: bytes) -> bytes:
    return _ITEM + struct.pack("<I", len(value)) + value


def part10(
    dataset: Dataset,
    syntax: str,
    frames: Sequence[bytes],
    *,
    offsets: str = "basic",
    fragments: int = 1,
) -> bytes:
    """``dataset`` without pixel data, and ``frames``: joined in a native syntax, else
    encapsulated, each in ``fragments`` items at most. ``offsets`` is "basic", "extended" or
    "none"."""
    head = encode_meta(dataset.SOPClassUID, dataset.SOPInstanceUID, syntax) + encode_dataset(dataset)
    if syntax in NATIVE:
        pixels = b"".join(frames)
        vr = "OW" if int(dataset.BitsAllocated) > 8 else "OB"
        return head + element(0x7FE00010, vr, pixels + bytes(len(pixels) % 2))
    body, starts, lengths = bytearray(), [], []
    for frame in frames:
        starts.append(len(body))
        lengths.append(len(frame))
        size = -(-len(frame) // fragments)
        size += size % 2
        for at in range(0, max(len(frame), 1), max(size, 1)):
            piece = frame[at : at + size]
            body += item(piece + bytes(len(piece) % 2))
    basic = struct.pack(f"<{len(starts)}I", *starts) if offsets == "basic" else b""
    if offsets == "extended":
        head += element(0x7FE00001, "OV", struct.pack(f"<{len(starts)}Q", *starts))
        head += element(0x7FE00002, "OV", struct.pack(f"<{len(lengths)}Q", *lengths))
    head += struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
    return head + item(basic) + bytes(body) + _END
