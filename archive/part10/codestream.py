# SPDX-License-Identifier: Apache-2.0
"""What a frame's codestream says of itself, read from its head alone.

The transfer syntax follows from the codestream, never from the file's type. Formats:
JPEG (ITU-T T.81, T.871), JPEG 2000 (T.800 A.5) and HTJ2K (T.814), JPEG-LS (T.87),
JPEG XL (ISO/IEC 18181), RLE (PS3.5 Annex G). Nothing is decoded.
"""

import struct
from dataclasses import dataclass, replace

from archive.part10.errors import Malformed
from archive.part10.jpeg2000 import JP2_SIGNATURE, sniff_jpeg2000
from archive.part10.jpegxl import CONTAINER_SIGNATURE, sniff_jpeg_xl

ADOBE_RGB = 0
ADOBE_YCC = 1


@dataclass(frozen=True, slots=True)
class Codestream:
    """The head of a codestream. What the head does not say is 0, ``()`` or None.

    ``sampling`` holds (horizontal, vertical) factors per component: JPEG's own factors,
    or those of JPEG 2000's sub-sampling turned into the same form. ``sof`` is JPEG's
    frame marker's low byte (0xC0 baseline … 0xF7 JPEG-LS). ``head_complete`` is False
    where the given bytes end before the scan begins.
    """

    format: str  # jpeg jpeg2000 htj2k jpegls jpegxl rle unknown
    rows: int = 0
    columns: int = 0
    components: int = 0
    bits: int = 0
    sampling: tuple[tuple[int, int], ...] = ()
    sof: int | None = None
    adobe_transform: int | None = None
    has_tables: bool = False  # quantisation and Huffman tables of its own (JPEG)
    component_ids: tuple[int, ...] = ()
    restart_interval: int = 0  # MCUs
    mct: bool = False  # JPEG 2000 multiple component transformation
    reversible: bool | None = None  # wavelet 5/3 (JPEG 2000), NEAR = 0 (JPEG-LS), ...
    signed: bool = False
    rpcl: bool = False  # JPEG 2000: RPCL order with tile-part lengths, as .4.202 wants
    from_jpeg: bool = False  # JPEG XL: lossless recompression of a JPEG
    head_complete: bool = False

    @property
    def subsampled(self) -> bool:
        """Whether any component is sampled more sparsely than another."""
        return len(set(self.sampling)) > 1


UNKNOWN = Codestream("unknown")


def sniff(head: bytes) -> Codestream:
    """What the first bytes of a frame say; 4 KiB are enough for tiles, and more only
    for those with an ICC profile before the frame header. Never raises: what makes no
    sense is ``unknown``."""
    try:
        if head[:2] == b"\xff\xd8":
            return _sniff_jpeg(head)
        if head[:4] == b"\xff\x4f\xff\x51" or head[:12] == JP2_SIGNATURE:
            return Codestream(**sniff_jpeg2000(head))
        if head[:2] == b"\xff\x0a" or head[:12] == CONTAINER_SIGNATURE:
            return Codestream(**sniff_jpeg_xl(head))
        return _sniff_rle(head)
    except (struct.error, IndexError, Malformed):
        return UNKNOWN


def _sniff_jpeg(head: bytes) -> Codestream:
    """Markers from SOI to SOS."""
    found = Codestream("jpeg")
    quantisation = huffman = False
    lossless_step = 0
    for marker, start, end in jpeg_segments(head):
        body = head[start:end]
        if marker == 0xDB:
            quantisation = True
        elif marker == 0xC4:
            huffman = True
        elif marker == 0xDD and len(body) >= 2:
            found = replace(found, restart_interval=struct.unpack_from(">H", body)[0])
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            found = replace(found, adobe_transform=body[11])
        elif (0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC)) or marker == 0xF7:
            bits, rows, columns, components = struct.unpack_from(">BHHB", body)
            if len(body) < 6 + 3 * components:
                return found
            described = [struct.unpack_from("BBB", body, 6 + 3 * n) for n in range(components)]
            found = replace(
                found, format="jpegls" if marker == 0xF7 else "jpeg", sof=marker, rows=rows,
                columns=columns, components=components, bits=bits,
                sampling=tuple((factors >> 4, factors & 15) for _, factors, _ in described),
                component_ids=tuple(identifier for identifier, _, _ in described),
            )  # fmt: skip
        elif marker == 0xDA:
            if found.format == "jpegls" and len(body) >= 3:
                lossless_step = body[len(body) - 3]
            found = replace(found, head_complete=True)
    tables = quantisation and huffman
    if found.format == "jpegls":
        return replace(found, reversible=lossless_step == 0 if found.head_complete else None)
    return replace(found, has_tables=tables, reversible=found.sof in (0xC3, 0xC7, 0xCB, 0xCF))


def jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
    """Marker segments of a JPEG head as (marker's low byte, body start, body end), from
    the one after SOI to SOS or to the end of the data; the last may be cut off."""
    segments = []
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise Malformed("JPEG: no marker where one is due")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            position += 2
            continue
        if marker == 0xD9:
            break
        length = struct.unpack_from(">H", data, position + 2)[0]
        if length < 2:
            raise Malformed("JPEG: a marker segment shorter than its length field")
        end = position + 2 + length
        if end > len(data):
            break
        segments.append((marker, position + 4, end))
        if marker == 0xDA:
            break
        position = end
    return segments


def _sniff_rle(head: bytes) -> Codestream:
    """PS3.5 G.5: the number of segments, 15 offsets of which the first is 64."""
    if len(head) < 64:
        return UNKNOWN
    count, *offsets = struct.unpack_from("<16I", head)
    used, rest = offsets[:count], offsets[count:]
    if not 1 <= count <= 15 or used[0] != 64 or any(rest) or sorted(used) != used:
        return UNKNOWN
    return Codestream("rle", reversible=True, head_complete=True)


def transfer_syntax(codestream: Codestream) -> str | None:
    """The transfer syntax that may carry this codestream as it is (PS3.5 A.4), or None
    where there is none in use: progressive, arithmetic or hierarchical JPEG, JPEG XL of
    an unknown kind, JP2 boxes around a codestream, unknown data."""
    match codestream.format:
        case "jpeg" if codestream.sof == 0xC0 and codestream.bits == 8:
            return "1.2.840.10008.1.2.4.50"
        case "jpeg" if codestream.sof == 0xC1 and codestream.bits in (8, 12):
            return "1.2.840.10008.1.2.4.51"
        case "jpeg" if codestream.sof == 0xC3:
            return "1.2.840.10008.1.2.4.57"
        case "jpegls":
            if codestream.reversible is None:
                return None
            return "1.2.840.10008.1.2.4.80" if codestream.reversible else "1.2.840.10008.1.2.4.81"
        case "jpeg2000" if codestream.reversible is not None:
            return "1.2.840.10008.1.2.4.90" if codestream.reversible else "1.2.840.10008.1.2.4.91"
        case "htj2k" if codestream.reversible is not None:
            if not codestream.reversible:
                return "1.2.840.10008.1.2.4.203"
            return "1.2.840.10008.1.2.4.202" if codestream.rpcl else "1.2.840.10008.1.2.4.201"
        case "jpegxl":
            if codestream.from_jpeg:
                return "1.2.840.10008.1.2.4.111"
            return {True: "1.2.840.10008.1.2.4.110", False: "1.2.840.10008.1.2.4.112"}.get(
                bool(codestream.reversible)
            )
        case "rle":
            return "1.2.840.10008.1.2.5"
    return None


def photometric(codestream: Codestream) -> str:
    """Photometric Interpretation (PS3.3 C.7.6.3.1.2, PS3.5 8.2) that describes this
    codestream; ``""`` where it cannot be told.

    JPEG of three components is RGB if an Adobe marker says so, or if there is neither
    an Adobe nor a JFIF-like hint and the component identifiers spell "RGB"; else
    YBR_FULL_422, also for 4:4:4, which the whole slide IOD wants. JPEG 2000 without a
    component transformation is called RGB: a reader that knows better must say so.
    """
    if codestream.components == 1:
        return "MONOCHROME2"
    if codestream.components != 3:
        return ""
    match codestream.format:
        case "jpeg":
            if codestream.reversible or codestream.adobe_transform == ADOBE_RGB:
                return "RGB"
            if codestream.adobe_transform is None and codestream.component_ids == (82, 71, 66):
                return "RGB"
            return "YBR_FULL_422"
        case "jpegls" | "rle":
            return "RGB"
        case "jpegxl":
            return "YBR_FULL_422" if codestream.from_jpeg else "RGB"
        case "jpeg2000" | "htj2k":
            if codestream.mct:
                return "YBR_RCT" if codestream.reversible else "YBR_ICT"
            return "YBR_FULL_422" if codestream.subsampled else "RGB"
    return ""


def splice_tables(jpeg_tables: bytes, adobe_transform: int | None = None) -> bytes:
    """What to put before a tile's bytes after its SOI (skip 2), so that it stands alone.

    ``jpeg_tables`` is a TIFF's JPEGTables (SOI, tables, EOI; TIFF Technical Note 2), or
    ``b""``; ``adobe_transform`` adds an Adobe marker (0 RGB, 1 YCbCr) in front. Tables
    that hold such a marker themselves keep it, and none is added. Raises ``Malformed``.
    """
    parts = [b"\xff\xd8"]
    tables: list[bytes] = []
    adobe = adobe_transform
    if jpeg_tables:
        if jpeg_tables[:2] != b"\xff\xd8":
            raise Malformed("JPEGTables do not begin with SOI")
        try:
            segments = jpeg_segments(jpeg_tables)
        except struct.error as problem:  # pragma: no cover - jpeg_segments checks lengths
            raise Malformed("JPEGTables end early") from problem
        end = 2
        for marker, start, end in segments:
            if marker == 0xDA or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
                raise Malformed("JPEGTables hold more than tables")
            if marker == 0xEE and jpeg_tables[start : start + 5] == b"Adobe":
                adobe = None
            tables.append(b"\xff" + bytes([marker]) + jpeg_tables[start - 2 : end])
        if jpeg_tables[end:].strip(b"\x00") not in (b"\xff\xd9", b""):
            raise Malformed("JPEGTables end early")
    if adobe is not None:
        parts.append(b"\xff\xee\x00\x0eAdobe" + struct.pack(">HHHB", 100, 0, 0, adobe))
    return b"".join(parts + tables)
