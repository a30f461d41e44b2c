# SPDX-License-Identifier: Apache-2.0
"""Part 10 bytes written by hand, with whatever is wrong in them: no code of ours."""

import struct
from collections.abc import Sequence
from itertools import chain

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
UNDEFINED = 0xFFFFFFFF
LONG = {"OB", "OW", "OF", "OD", "OL", "OV", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"}
ITEM_END = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def padded(value: bytes, pad: bytes = b" ") -> bytes:
    return value + pad * (len(value) % 2)


def explicit(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """An element in Explicit VR Little Endian; ``length`` lies where it is given."""
    size = len(value) if length is None else length
    if vr in LONG:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, size) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), size) + value


def implicit(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def big(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    if vr in LONG:
        return struct.pack(">HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, size) + value
    return struct.pack(">HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), size) + value


def item(content: bytes, *, undefined: bool = False) -> bytes:
    if undefined:
        return b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content + ITEM_END
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def sequence(tag: int, items: Sequence[bytes], *, undefined: bool = False, element=explicit) -> bytes:
    content = b"".join(item(one, undefined=undefined) for one in items)
    if undefined:
        return element(tag, "SQ", content + SEQUENCE_END, UNDEFINED)
    return element(tag, "SQ", content)


def meta(transfer_syntax: str = EXPLICIT, sop_instance: str = "1.2.3.4") -> bytes:
    body = explicit(0x00020001, "OB", b"\x00\x01")
    body += explicit(0x00020002, "UI", padded(WSI.encode(), b"\x00"))
    body += explicit(0x00020003, "UI", padded(sop_instance.encode(), b"\x00"))
    body += explicit(0x00020010, "UI", padded(transfer_syntax.encode(), b"\x00"))
    return bytes(128) + b"DICM" + explicit(0x00020000, "UL", struct.pack("<I", len(body))) + body


def identity(element=explicit) -> list[tuple[int, bytes]]:
    """SOP class and instance, study and series, as (tag, encoded element)."""
    uids = ((0x00080016, WSI), (0x00080018, "1.2.3.4"), (0x0020000D, "1.2.3"), (0x0020000E, "1.2.3.5"))
    return [(tag, element(tag, "UI", padded(uid.encode(), b"\x00"))) for tag, uid in uids]


def shape(
    frames: int, rows: int = 2, columns: int = 2, samples: int = 1, bits: int = 8, element=explicit, order="<"
) -> list[tuple[int, bytes]]:
    numbers = ((0x00280002, samples), (0x00280010, rows), (0x00280011, columns), (0x00280100, bits))
    made = [(tag, element(tag, "US", struct.pack(order + "H", number))) for tag, number in numbers]
    return [*made, (0x00280008, element(0x00280008, "IS", padded(b"%d" % frames)))]


def data_set(*elements: list[tuple[int, bytes]]) -> bytes:
    """Elements of several lists in ascending order."""
    return b"".join(encoded for _, encoded in sorted(chain(*elements), key=lambda pair: pair[0]))


def fragments(*values: bytes) -> bytes:
    """Items of the given values, unpadded, and the delimiter."""
    return b"".join(item(value) for value in values) + SEQUENCE_END


def encapsulated(
    frames: Sequence[Sequence[bytes]],
    table: bytes | None = None,
    number_of_frames: int | None = None,
    extra=(),
) -> bytes:
    """A JPEG file whose frames are lists of fragments; ``table`` None is a right one."""
    if table is None:
        table = struct.pack(f"<{len(frames)}I", *offsets(frames))
    flat = [fragment for frame in frames for fragment in frame]
    pixel = explicit(0x7FE00010, "OB", fragments(table, *flat), UNDEFINED)
    count = len(frames) if number_of_frames is None else number_of_frames
    return meta(JPEG) + data_set(identity(), shape(count), list(extra), [(0x7FE00010, pixel)])


def offsets(frames: Sequence[Sequence[bytes]]) -> list[int]:
    """What a right offset table says."""
    sizes = [sum(8 + len(fragment) for fragment in frame) for frame in frames]
    return [sum(sizes[:n]) for n in range(len(sizes))]


def extended_table(frames: Sequence[Sequence[bytes]], lengths: Sequence[int] | None = None):
    """(7FE0,0001) and (7FE0,0002) as (tag, encoded element)."""
    sizes = [sum(map(len, frame)) for frame in frames] if lengths is None else lengths
    return [
        (0x7FE00001, explicit(0x7FE00001, "OV", struct.pack(f"<{len(frames)}Q", *offsets(frames)))),
        (0x7FE00002, explicit(0x7FE00002, "OV", struct.pack(f"<{len(sizes)}Q", *sizes))),
    ]


def native(pixels: bytes, frames: int, vr: str = "OB", **kind: int) -> bytes:
    pixel = explicit(0x7FE00010, vr, pixels)
    return meta() + data_set(identity(), shape(frames, **kind), [(0x7FE00010, pixel)])


def cuts(data: bytes) -> list[int]:
    """Interesting places to cut a file: around each of its item and element borders."""
    found = {0, 1, 64, 127, 128, 131, 132, 140, len(data) - 1}
    for mark in (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xe0\x7f\x10\x00"):
        start = data.find(mark)
        while start >= 0:
            found |= {start, start + 3, start + 4, start + 7, start + 8, start + 9}
            start = data.find(mark, start + 1)
    return sorted(n for n in found if n < len(data))
