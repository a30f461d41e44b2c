# SPDX-License-Identifier: Apache-2.0
"""The head that makes a received data set a Part 10 file (PS3.10 Section 7.1)."""

import struct

# Fixed for as long as what we write stays the same: no library's version enters a header.
IMPLEMENTATION_CLASS_UID = "2.25.120751372925715433433440201829189355139"
IMPLEMENTATION_VERSION_NAME = "COVERSLIP_1"


def file_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str = ""
) -> bytes:
    """Preamble, prefix and group 2, Explicit VR Little Endian.

    ``source_ae_title`` is who sent it (0002,0016); "" leaves it out.
    """
    elements = [
        struct.pack("<HH2sxxI", 2, 0x0001, b"OB", 2) + b"\x00\x01",
        _element(0x0002, b"UI", sop_class_uid, b"\x00"),
        _element(0x0003, b"UI", sop_instance_uid, b"\x00"),
        _element(0x0010, b"UI", transfer_syntax_uid, b"\x00"),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\x00"),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
    ]
    if source_ae_title:
        elements.append(_element(0x0016, b"AE", source_ae_title, b" "))
    group = b"".join(elements)
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group))
    return bytes(128) + b"DICM" + length + group


def _element(element: int, vr: bytes, text: str, pad: bytes) -> bytes:
    value = text.encode("ascii")
    value += pad * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
