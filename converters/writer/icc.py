# SPDX-License-Identifier: Apache-2.0
"""ICC profiles: the scanner's own checked, and sRGB where it gave none.

Every colour image needs a profile (PS3.3 C.11.15, C.8.12.5), and its device class must
be input ("scnr").
"""

import struct

HEADER_BYTES = 128
_DATE = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)  # fixed: no clock enters a header
_D50 = (0.9642, 1.0, 0.8249)
# sRGB (IEC 61966-2-1): its primaries and white point adapted to D50 by Bradford
_COLUMNS = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}
_ADAPTATION = (1.04788, 0.02292, -0.05020, 0.02959, 0.99048, -0.01706, -0.00923, 0.01508, 0.75168)
_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def srgb_profile() -> bytes:
    """sRGB as a version 4 input profile, always the same bytes."""
    curve = b"para\0\0\0\0\0\x03\0\0" + _fixed(*_CURVE)
    tags = {
        b"desc": _text("sRGB, assumed"),
        b"cprt": _text("No copyright"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        b"chad": b"sf32\0\0\0\0" + _fixed(*_ADAPTATION),
        **{name: b"XYZ \0\0\0\0" + _fixed(*value) for name, value in _COLUMNS.items()},
    }
    names = [*tags, b"rTRC", b"gTRC", b"bTRC"]
    position = HEADER_BYTES + 4 + 12 * len(names)
    directory, body = struct.pack(">I", len(names)), b""
    for name in names:
        if name == b"gTRC" or name == b"bTRC":  # one curve for the three
            directory += struct.pack(">4sII", name, position - len(curve), len(curve))
            continue
        data = tags.get(name, curve)
        directory += struct.pack(">4sII", name, position, len(data))
        body += data
        position += len(data)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sIIIQI12s48x",
        position, b"\0" * 4, 0x04200000, b"scnr", b"RGB ", b"XYZ ", _DATE, b"acsp", b"\0" * 4,
        0, 0, 0, 0, 0, _fixed(*_D50),
    )  # fmt: skip
    return header + directory + body


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    padding = b"\0" * (-len(encoded) % 4)
    record = struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28)
    return b"mluc\0\0\0\0" + record + encoded + padding


def usable_profile(profile: bytes, samples_per_pixel: int) -> bytes:
    """The scanner's profile, fit for DICOM, or b"" when it is none.

    A display profile of matrix and curves is made an input profile by its class alone:
    both have the same required tags (ICC.1 8.3, 8.4), and some scanners embed one.
    """
    if len(profile) < HEADER_BYTES or profile[36:40] != b"acsp":
        return b""
    if struct.unpack_from(">I", profile)[0] > len(profile):
        return b""
    if profile[16:20] != (b"RGB " if samples_per_pixel == 3 else b"GRAY"):
        return b""
    if profile[12:16] == b"mntr":
        profile = profile[:12] + b"scnr" + profile[16:]
        return profile[:84] + b"\0" * 16 + profile[100:]  # the profile's MD5 no longer holds
    return profile if profile[12:16] in (b"scnr", b"spac") else b""
