# SPDX-License-Identifier: Apache-2.0
"""Preamble and File Meta Information (PS3.10 7.1): group 2, read and written."""

import mmap
import re
import struct
from dataclasses import dataclass

from archive.part10.errors import Malformed, NotPart10, Truncated
from archive.part10.syntaxes import EXPLICIT, IMPLICIT, NATIVE
from archive.part10.vr import LONG_MASK, SHORT_MASK, known_vr

IMPLEMENTATION_CLASS_UID = "2.25.334242433171127031125044654982269831395"
"""Coverslip's own: made once as a UUID (PS3.5 B.2), never to be changed."""

IMPLEMENTATION_VERSION = "COVERSLIP_1"
"""Implementation Version Name of headers made by a scan; converters name their profile's."""

PREAMBLE = bytes(128) + b"DICM"
_MAX_META = 1 << 16
_TRANSFER_SYNTAX = 0x00020010
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileMeta:
    """Group 2, and where the data set begins. UIDs are ``""`` where absent."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    data_set_offset: int
    findings: tuple[str, ...] = ()


def read_meta(source: bytes | mmap.mmap, *, allow_bare: bool = False) -> FileMeta:
    """Read preamble and group 2. Raises ``NotPart10``, ``Truncated`` or ``Malformed``.

    The group's length is not believed: it ends where another group begins.
    """
    if source[128:132] != b"DICM":
        if allow_bare:
            return _read_bare(source)
        if len(source) < 132:
            raise NotPart10(f"{len(source)} bytes are no DICOM file")
        raise NotPart10("no DICM at byte 128")
    pos = 132
    values: dict[int, bytes] = {}
    while True:
        head = source[pos : pos + 12]
        if not head:
            break
        if len(head) < 8:
            raise Truncated("the file ends in group 2")
        group, element, vr, length = struct.unpack_from("<HH2sH", head)
        if group != 2:
            break
        value = pos + 8
        if vr in LONG_MASK:
            if len(head) < 12:
                raise Truncated("the file ends in group 2")
            (length,) = struct.unpack_from("<I", head, 8)
            value = pos + 12
        elif vr not in SHORT_MASK:
            raise Malformed("group 2 is not in Explicit VR Little Endian")
        pos = value + length
        if pos > len(source):
            raise Truncated("the file ends in group 2")
        if pos > _MAX_META:
            raise Malformed(f"group 2 exceeds {_MAX_META} bytes")
        values[2 << 16 | element] = source[value:pos]
    uids = [_text(values.get(tag, b"")) for tag in (_TRANSFER_SYNTAX, 0x00020002, 0x00020003)]
    if not uids[0]:
        raise Malformed("group 2 names no transfer syntax")
    findings = []
    declared = values.get(0x00020000, b"")
    if len(declared) != 4 or struct.unpack("<I", declared)[0] != pos - 144:
        findings.append("the length of group 2 is wrong or absent")
    return FileMeta(uids[0], uids[1], uids[2], pos, tuple(findings))


def is_uid(text: str) -> bool:
    """Whether ``text`` is a UID (PS3.5 9.1), leading zeros of a component let pass: what
    is none could end in a path or a URL."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _text(value: bytes) -> str:
    """A UID of group 2, ``""`` if it is none."""
    text = value.rstrip(b"\x00 ").decode("latin-1")
    return text if is_uid(text) else ""


def _read_bare(source: bytes | mmap.mmap) -> FileMeta:
    """A data set without group 2: its first element must be a known one of group 8."""
    head = source[:8]
    if len(head) < 8:
        raise NotPart10(f"{len(source)} bytes are no DICOM data set")
    group, element, vr = struct.unpack_from("<HH2s", head)
    if group != 8 or known_vr(group << 16 | element) is None:
        raise NotPart10("no DICM at byte 128, nor a data set at byte 0")
    explicit = vr in SHORT_MASK or vr in LONG_MASK
    return FileMeta(
        EXPLICIT if explicit else IMPLICIT, "", "", 0, ("a data set without preamble and group 2",)
    )


def encode_meta(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    implementation_version: str = IMPLEMENTATION_VERSION,
) -> bytes:
    """Preamble (zeros) and group 2 with its right length; nothing of clock or host.

    What follows is in Explicit VR Little Endian, so all native transfer syntaxes become
    that one.
    """
    if transfer_syntax_uid in NATIVE:
        transfer_syntax_uid = EXPLICIT
    body = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
    for element, vr, text in (
        (0x02, b"UI", sop_class_uid),
        (0x03, b"UI", sop_instance_uid),
        (0x10, b"UI", transfer_syntax_uid),
        (0x12, b"UI", IMPLEMENTATION_CLASS_UID),
        (0x13, b"SH", implementation_version),
    ):
        value = text.encode("ascii")
        if len(value) % 2:
            value += b"\x00" if vr == b"UI" else b" "
        body += struct.pack("<HH2sH", 2, element, vr, len(value)) + value
    return PREAMBLE + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def with_transfer_syntax(header: bytes, transfer_syntax_uid: str) -> bytes:
    """``header`` (Part 10 bytes) with another Transfer Syntax UID in its group 2, all
    else as it was."""
    meta = read_meta(header)
    if meta.transfer_syntax_uid == transfer_syntax_uid:
        return header
    pos, body = 144, b""
    while pos < meta.data_set_offset:
        _, element, vr, length = struct.unpack_from("<HH2sH", header, pos)
        end = pos + 8 + length
        if vr in LONG_MASK:
            end = pos + 12 + struct.unpack_from("<I", header, pos + 8)[0]
        if 2 << 16 | element == _TRANSFER_SYNTAX:
            value = transfer_syntax_uid.encode("ascii")
            value += bytes(len(value) % 2)
            body += struct.pack("<HH2sH", 2, element, vr, len(value)) + value
        else:
            body += header[pos:end]
        pos = end
    group_length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body))
    return header[:132] + group_length + body + header[meta.data_set_offset :]
