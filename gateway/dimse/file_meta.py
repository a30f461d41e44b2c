# SPDX-License-Identifier: Apache-2.0
"""The head that makes a data set, as it came over the network, a Part 10 file."""

import struct

from archive.part10.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, PREAMBLE


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and group 2 (PS3.10 7.1) for a data set in the negotiated syntax.

    The archive's own headers are always Explicit VR Little Endian; this one says what
    follows, big-endian or deflated as it may be.
    """
    body = struct.pack("<HH2sxxI", 2, 1, b"OB", 2) + b"\x00\x01"
    for element, vr, text in (
        (0x02, b"UI", sop_class_uid),
        (0x03, b"UI", sop_instance_uid),
        (0x10, b"UI", transfer_syntax_uid),
        (0x12, b"UI", IMPLEMENTATION_CLASS_UID),
        (0x13, b"SH", IMPLEMENTATION_VERSION),
    ):
        value = text.encode("ascii")
        value += (b" " if vr == b"SH" else b"\x00") * (len(value) % 2)
        body += struct.pack("<HH2sH", 2, element, vr, len(value)) + value
    return PREAMBLE + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body
